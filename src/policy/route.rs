//! Which upstream serves a client and URI.

use std::cell::OnceCell;
use std::sync::Arc;

use super::facts::ClientFacts;
use super::identity::{Identity, IdentitySet};
use super::model::{Drivers, Policy, Routed, Target, Upstream};
use super::uri::{Uri, UriPattern};

/// One row of the route table.
#[derive(Debug)]
pub struct Route {
    /// Line of the policy file where it begins, from 1.
    pub line: usize,
    /// Any of these must match the client's URI.
    pub(super) uris: Vec<UriPattern>,
    /// The client must have any of these identities (places in the file); `None`: everyone.
    pub(super) clients: Option<Vec<usize>>,
    /// The client must have come by any of these listeners; `None`: all.
    pub(super) listeners: Option<Vec<Arc<str>>>,
    pub(super) action: Action,
}

/// Where a route leads.
#[derive(Debug)]
pub(super) enum Action {
    /// To one daemon.
    Open {
        upstream: Arc<Upstream>,
        /// Opened in place of what the client asked for.
        uri: Option<String>,
        /// Daemons that serve some drivers in its place.
        drivers: Option<Arc<Drivers>>,
    },
    /// Through the table again with each of these in turn. They are never empty strings, so that
    /// they meet no other `probe`.
    Probe(Vec<String>),
}

impl Policy {
    /// The identities that a client has.
    #[must_use]
    pub fn identities_of(&self, facts: &ClientFacts) -> IdentitySet {
        IdentitySet::of(facts, &self.identities, &self.identity_order)
    }

    /// Whether a client may tell the daemons itself on whose behalf it calls
    /// (`CONNECT_SET_IDENTITY`).
    #[must_use]
    pub fn may_forward(&self, facts: &ClientFacts) -> bool {
        if self.trusted_forwarders.is_empty() || self.is_undecidable(facts) {
            return false;
        }
        self.identities_of(facts).has_any(&self.trusted_forwarders)
    }

    /// Whether identities ask for what could not be learned of this client. It gets no route then:
    /// taken for somebody without groups, it would slip through a `not`, or past the route that
    /// is meant for its group to one for everybody.
    pub(super) fn is_undecidable(&self, facts: &ClientFacts) -> bool {
        facts.unix.as_ref().is_some_and(|unix| unix.unproven)
            && self.identities.iter().any(Identity::asks_of_process)
    }

    /// Routes one `CONNECT_OPEN` of a client; the empty `uri` is that it named none. A URI that is
    /// over 4096 bytes, has control characters or is ambiguous has no route.
    #[must_use]
    pub fn route(&self, facts: &ClientFacts, uri: &str) -> Routed {
        let client = Client {
            policy: self,
            facts,
            identities: OnceCell::new(),
        };
        let Ok(uri) = Uri::parse(uri) else {
            return Routed::NoRoute;
        };
        if self.is_undecidable(facts) {
            return Routed::NoRoute;
        }
        let targets: Vec<Target> = match client.find(&uri) {
            None => Vec::new(),
            Some((route, pattern)) => match &route.action {
                Action::Open { .. } => route.target(pattern, &uri).into_iter().collect(),
                Action::Probe(uris) => uris.iter().filter_map(|uri| client.probe(uri)).collect(),
            },
        };
        if targets.is_empty() {
            Routed::NoRoute
        } else {
            Routed::Try(targets)
        }
    }
}

impl Route {
    /// The pattern of this route that matches, whoever asks.
    pub(super) fn pattern_for(&self, uri: &Uri<'_>) -> Option<&UriPattern> {
        self.uris.iter().find(|pattern| pattern.matches(uri))
    }

    /// Whether clients of `listener` may take this route.
    pub(super) fn serves_listener(&self, listener: &str) -> bool {
        self.listeners
            .as_ref()
            .is_none_or(|names| names.iter().any(|name| **name == *listener))
    }

    /// Whether clients with these identities may take this route.
    pub(super) fn serves_identities(&self, identities: &IdentitySet) -> bool {
        self.clients
            .as_ref()
            .is_none_or(|clients| identities.has_any(clients))
    }

    /// The daemon and what to open there; `None` for a `probe` route.
    pub(super) fn target(&self, pattern: &UriPattern, asked: &Uri<'_>) -> Option<Target> {
        match &self.action {
            Action::Open {
                upstream,
                uri,
                drivers,
            } => Some(Target {
                upstream: Arc::clone(upstream),
                open_uri: uri.clone().unwrap_or_else(|| pattern.open_uri(asked)),
                line: self.line,
                drivers: drivers.clone(),
            }),
            Action::Probe(_) => None,
        }
    }
}

/// A client on its way through the table. Its identities are found when the first route asks.
struct Client<'a> {
    policy: &'a Policy,
    facts: &'a ClientFacts,
    identities: OnceCell<IdentitySet>,
}

impl<'a> Client<'a> {
    fn find(&self, uri: &Uri<'_>) -> Option<(&'a Route, &'a UriPattern)> {
        self.policy.routes.iter().find_map(|route| {
            let pattern = route.pattern_for(uri)?;
            let serves = route.serves_listener(&self.facts.listener)
                && (route.clients.is_none() || route.serves_identities(self.identities()));
            serves.then_some((route, pattern))
        })
    }

    fn probe(&self, uri: &str) -> Option<Target> {
        let uri = Uri::parse(uri).ok()?;
        let (route, pattern) = self.find(&uri)?;
        route.target(pattern, &uri)
    }

    fn identities(&self) -> &IdentitySet {
        self.identities
            .get_or_init(|| self.policy.identities_of(self.facts))
    }
}
