//! Which upstream serves a client and URI.

use std::cell::OnceCell;
use std::sync::Arc;

use super::facts::ClientFacts;
use super::identity::{Identity, IdentitySet};
use super::model::{DriverTarget, Drivers, Policy, Routed, Target};
use super::template::{Destination, Refused};
use super::uri::{Uri, UriPattern};
use crate::protocol::driver::Driver;

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
    Open(Open),
    /// Through the table again with each of these in turn. They are never empty strings, so that
    /// they meet no other `probe`.
    Probe(Vec<String>),
}

/// What a route opens.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) destination: Destination,
    /// Opened in place of what the client asked for.
    pub(super) uri: Option<String>,
    /// Daemons that serve some drivers in its place.
    pub(super) drivers: Vec<OpenDriver>,
}

/// What a route opens for one driver.
#[derive(Debug)]
pub(super) struct OpenDriver {
    pub(super) driver: Driver,
    pub(super) destination: Destination,
    /// Opened in place of the driver's own URI.
    pub(super) uri: Option<String>,
    /// Where it cannot be reached, the route's own daemon serves the driver.
    pub(super) fallback: bool,
}

impl Open {
    /// Every destination.
    pub(super) fn destinations(&self) -> impl Iterator<Item = &Destination> {
        let drivers = self.drivers.iter().map(|driver| &driver.destination);
        std::iter::once(&self.destination).chain(drivers)
    }
}

impl OpenDriver {
    /// What is opened beside a route's own daemon that is opened as `primary`: by default the
    /// driver's own URI, of the system or of a session as that is.
    fn open_uri(&self, primary: &str) -> String {
        if let Some(uri) = &self.uri {
            return uri.clone();
        }
        let base = primary.split('?').next().unwrap_or_default();
        let path = if base.ends_with("/session") {
            "session"
        } else {
            "system"
        };
        format!("{}:///{path}", self.driver.scheme())
    }
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
                Action::Open(open) => {
                    let target = route.target(open, pattern, &uri);
                    target.into_iter().collect()
                }
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

    /// The daemons and what to open there. Where a value is refused there are none, nor does the
    /// client come to a later route: who asks for one host must not land on another.
    pub(super) fn target(
        &self,
        open: &Open,
        pattern: &UriPattern,
        asked: &Uri<'_>,
    ) -> Result<Target, Refused> {
        let value_of = |name: &str| pattern.value(asked, name);
        let open_uri = match &open.uri {
            Some(uri) => uri.clone(),
            None => pattern.open_uri(asked),
        };
        let mut drivers = Drivers::default();
        for it in &open.drivers {
            let target = DriverTarget {
                upstream: it.destination.resolve(&value_of)?,
                open_uri: it.open_uri(&open_uri),
                fallback: it.fallback,
            };
            drivers.set(it.driver, target);
        }
        Ok(Target {
            upstream: open.destination.resolve(&value_of)?,
            open_uri,
            line: self.line,
            drivers: (!open.drivers.is_empty()).then(|| Arc::new(drivers)),
        })
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
        match &route.action {
            Action::Open(open) => route.target(open, pattern, &uri).ok(),
            Action::Probe(_) => None,
        }
    }

    fn identities(&self) -> &IdentitySet {
        self.identities
            .get_or_init(|| self.policy.identities_of(self.facts))
    }
}
