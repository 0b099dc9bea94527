//! Why a client and URI are sent where they are: every route in order, with the first reason why
//! it does not match. And what its access rules say of one call.

mod access;
mod ask;
mod nearest;

pub(super) use access::Client;
pub use access::{AccessExplanation, PermissionVerdict, Role, Verdict};
pub use ask::{Ask, AskError};
pub use nearest::Nearest;

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::facts::ClientFacts;
use super::identity::IdentitySet;
use super::model::{Policy, Target, Upstream};
use super::report::quoted;
use super::route::{Action, Route};
use super::template::Refused;
use super::uri::{Uri, UriPattern};

/// The decision on one client and URI, step by step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Who asks.
    pub client: ClientFacts,
    /// Names of its identities, in file order.
    pub identities: Vec<Arc<str>>,
    /// What it asks for.
    pub asked: Step,
    /// What the access rules say of a call of it, if that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<AccessExplanation>,
}

/// One URI on its way through the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The URI; empty if the client named none.
    pub uri: String,
    /// Why it leads nowhere, if that lies in the URI itself: no route can match, or the one that
    /// does has no daemon for its values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// The routes down to the one that matched.
    pub routes: Vec<RouteVerdict>,
    /// Where it leads.
    pub outcome: Outcome,
}

/// What became of one route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RouteVerdict {
    /// Line of the policy file where the route begins.
    pub line: usize,
    /// Its URI patterns.
    pub uris: Vec<String>,
    /// `None` if it matched, else the first reason why not.
    pub mismatch: Option<String>,
}

/// Where a URI leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// To a daemon.
    Open(Opened),
    /// These URIs are tried in turn; the first whose daemon is alive serves the client.
    Probe(Vec<Step>),
    /// Nowhere.
    NoRoute,
}

/// What is opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Opened {
    /// Line of the route.
    pub line: usize,
    /// Name of the upstream.
    pub upstream: Arc<str>,
    /// Where it is reached for this client; several are tried in turn.
    pub at: Vec<String>,
    /// It is opened read-only.
    pub readonly: bool,
    /// URI opened there; empty lets the daemon probe.
    pub uri: String,
    /// The daemons that serve some drivers in its place.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub drivers: Vec<OpenedDriver>,
}

/// What is opened for one driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OpenedDriver {
    /// Name of the driver.
    pub driver: &'static str,
    /// Name of the upstream.
    pub upstream: Arc<str>,
    /// Where it is reached for this client; several are tried in turn.
    pub at: Vec<String>,
    /// URI opened there.
    pub uri: String,
    /// Where it cannot be reached, the route's own daemon serves the driver.
    pub fallback: bool,
}

impl Policy {
    /// Explains what [`route`](Self::route) does with this client and URI.
    #[must_use]
    pub fn explain(&self, facts: &ClientFacts, uri: &str) -> Explanation {
        let set = self.identities_of(facts);
        let names = set.iter().filter_map(|index| self.identities.get(index));
        Explanation {
            client: facts.clone(),
            identities: names.map(|identity| Arc::clone(&identity.name)).collect(),
            asked: self.step(facts, &set, uri),
            access: None,
        }
    }

    fn step(&self, facts: &ClientFacts, set: &IdentitySet, text: &str) -> Step {
        let mut step = Step {
            uri: text.to_owned(),
            fault: None,
            routes: Vec::new(),
            outcome: Outcome::NoRoute,
        };
        let uri = match Uri::parse(text) {
            Ok(uri) => uri,
            Err(fault) => {
                step.fault = Some(fault.to_string());
                return step;
            }
        };
        for route in &self.routes {
            let mismatch = self.mismatch(route, facts, set, &uri);
            let matched = mismatch.is_none();
            step.routes.push(RouteVerdict {
                line: route.line,
                uris: route.uris.iter().map(UriPattern::text).collect(),
                mismatch,
            });
            if matched {
                match self.outcome(route, facts, set, &uri) {
                    Ok(outcome) => step.outcome = outcome,
                    Err(refused) => step.fault = Some(refused.to_string()),
                }
                break;
            }
        }
        step
    }

    fn outcome(
        &self,
        route: &Route,
        facts: &ClientFacts,
        set: &IdentitySet,
        uri: &Uri<'_>,
    ) -> Result<Outcome, Refused> {
        let open = match &route.action {
            Action::Open(open) => open,
            Action::Probe(uris) => {
                let steps = uris.iter().map(|uri| self.step(facts, set, uri));
                return Ok(Outcome::Probe(steps.collect()));
            }
        };
        let Some(pattern) = route.pattern_for(uri) else {
            return Ok(Outcome::NoRoute);
        };
        let target = route.target(open, pattern, uri)?;
        Ok(Outcome::Open(Opened::new(target, facts.readonly)))
    }

    fn mismatch(
        &self,
        route: &Route,
        facts: &ClientFacts,
        set: &IdentitySet,
        uri: &Uri<'_>,
    ) -> Option<String> {
        let reasons: Vec<_> = route
            .uris
            .iter()
            .map(|pattern| pattern.mismatch(uri))
            .collect();
        if reasons.iter().all(Option::is_some) {
            // Of several patterns, the one that came furthest says most.
            let reason = reasons
                .into_iter()
                .flatten()
                .max_by_key(super::uri::Mismatch::distance);
            return reason.map(|reason| reason.to_string());
        }
        if !route.serves_listener(&facts.listener) {
            return Some(format!(
                "it is not for the listener {}",
                quoted(&facts.listener)
            ));
        }
        if !route.serves_identities(set) {
            let clients = route.clients.iter().flatten();
            let names = clients.filter_map(|index| self.identities.get(*index));
            let names: Vec<String> = names.map(|identity| quoted(&identity.name)).collect();
            return Some(format!("the client is not {}", names.join(" or ")));
        }
        None
    }
}

impl Opened {
    fn new(target: Target, readonly: bool) -> Self {
        let places = |upstream: &Upstream| {
            let addresses = upstream.addresses.iter();
            addresses.map(|it| it.place(readonly)).collect()
        };
        let drivers = target.drivers.iter().flat_map(|drivers| drivers.iter());
        let drivers = drivers.map(|(driver, it)| OpenedDriver {
            driver: driver.scheme(),
            upstream: Arc::clone(&it.upstream.name),
            at: places(&it.upstream),
            uri: it.open_uri.clone(),
            fallback: it.fallback,
        });
        Self {
            line: target.line,
            upstream: Arc::clone(&target.upstream.name),
            at: places(&target.upstream),
            readonly,
            drivers: drivers.collect(),
            uri: target.open_uri,
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client: by listener {}", quoted(&self.client.listener))?;
        if self.client.readonly {
            f.write_str(", read-only")?;
        }
        if let Some(user) = self
            .client
            .unix
            .as_ref()
            .and_then(|unix| unix.user.as_ref())
        {
            write!(f, ", user {}", quoted(user))?;
        }
        if let Some(x509) = &self.client.x509 {
            write!(f, ", certificate {}", quoted(&x509.dn))?;
        }
        if let Some(sasl) = &self.client.sasl {
            write!(f, ", SASL user {}", quoted(&sasl.user))?;
        }
        if let Some(address) = &self.client.address {
            write!(f, ", from {}", address.ip())?;
        }
        let names: Vec<String> = self.identities.iter().map(|name| quoted(name)).collect();
        let names = if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        };
        writeln!(f, "\nidentities: {names}")?;
        self.asked.write(f, 0)?;
        self.access.iter().try_for_each(|access| access.fmt(f))
    }
}

impl Step {
    fn write(&self, f: &mut fmt::Formatter<'_>, indent: usize) -> fmt::Result {
        let margin = " ".repeat(indent);
        match self.uri.as_str() {
            "" => writeln!(f, "{margin}no URI:")?,
            uri => writeln!(f, "{margin}URI {}:", quoted(uri))?,
        }
        for route in &self.routes {
            let uris: Vec<String> = route.uris.iter().map(|uri| quoted(uri)).collect();
            let verdict = match &route.mismatch {
                None => "matches",
                Some(reason) => reason,
            };
            writeln!(
                f,
                "{margin}  line {}, {}: {verdict}",
                route.line,
                uris.join(", ")
            )?;
        }
        match &self.outcome {
            Outcome::NoRoute => match &self.fault {
                Some(fault) => writeln!(f, "{margin}  => no route: {fault}"),
                None => writeln!(f, "{margin}  => no route"),
            },
            Outcome::Open(opened) => {
                let readonly = if opened.readonly { ", read-only" } else { "" };
                writeln!(
                    f,
                    "{margin}  => upstream {} at {}{readonly}, opening {}",
                    quoted(&opened.upstream),
                    opened.at.join(", "),
                    quoted(&opened.uri),
                )?;
                opened.drivers.iter().try_for_each(|it| {
                    let fallback = match it.fallback {
                        true => "; where it cannot be reached, as the rest",
                        false => "",
                    };
                    writeln!(
                        f,
                        "{margin}     {}: upstream {} at {}{readonly}, opening {}{fallback}",
                        it.driver,
                        quoted(&it.upstream),
                        it.at.join(", "),
                        quoted(&it.uri),
                    )
                })
            }
            Outcome::Probe(steps) => {
                writeln!(f, "{margin}  => the first of these whose daemon is alive")?;
                steps.iter().try_for_each(|step| step.write(f, indent + 4))
            }
        }
    }
}
