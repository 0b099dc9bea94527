//! What is wrong with a policy as a whole, each part being right: rules that nothing can match,
//! things that nobody uses, doors that stand open.

mod access;
mod sockets;

use std::collections::HashSet;

use super::compile::Draft;
use super::identity::Rule;
use super::model::{Auth, ClientCert, ListenAddress};
use super::report::{Problem, quoted};
use super::route::{Action, Route};
use super::uri::Uri;
use super::yaml::{Document, Pointer};

/// Steps of comparing each route's patterns with each earlier one's: a second of work, and more
/// than thousands of honest routes take. Beyond it, unreachable ones go unnoticed.
const MAX_COMPARED: u64 = 100_000_000;

/// Reports into `problems`. Where the file is not `complete`, what seems unused or without a
/// route may have its user or route among what could not be read, so nothing is said of that.
pub(super) fn check(
    draft: &Draft,
    document: &Document<'_>,
    complete: bool,
    problems: &mut Vec<Problem>,
) {
    let compiled = draft.routes.iter().all(|(_, route)| route.is_some())
        && draft.identities.iter().all(|entry| entry.value.is_some());
    let checker = Checker { draft, document };
    checker.sockets(problems);
    checker.open_doors(problems);
    checker.unreachable_routes(problems);
    if complete && compiled && draft.identity_order.len() == draft.identities.len() {
        checker.impossible_identities(problems);
        checker.probes(problems);
        checker.unused(problems);
    }
    if complete {
        checker.access(problems);
    }
}

struct Checker<'a, 'd> {
    draft: &'a Draft,
    document: &'a Document<'d>,
}

impl Checker<'_, '_> {
    /// A read-write socket that everyone may use, unproven. Routes that all ask for an identity
    /// close it again.
    fn open_doors(&self, problems: &mut Vec<Problem>) {
        for entry in &self.draft.listeners {
            let Some(listener) = &entry.value else {
                continue;
            };
            if listener.readonly || listener.auth != Auth::None {
                continue;
            }
            let (key, who, help) = match (&listener.address, &listener.tls) {
                (ListenAddress::Unix { mode, .. }, _) if mode & 0o002 != 0 => (
                    "mode",
                    "every user of this host",
                    "add `auth: polkit`, or give the route `clients`, or the socket a `group` and \
                     mode \"0660\"",
                ),
                (ListenAddress::Tcp { .. }, Some(tls))
                    if tls.client_cert != ClientCert::Required =>
                {
                    (
                        "tls",
                        "whoever reaches the port",
                        "leave `client_cert` at `required`, or add `auth: sasl`, or give the route \
                     `clients`",
                    )
                }
                (ListenAddress::Tcp { .. }, None) => (
                    "tcp",
                    "whoever reaches the port",
                    "add `auth: sasl`, or give the route `clients`",
                ),
                _ => continue,
            };
            let open_route = self.routes().find(|(_, route)| {
                route.clients.is_none() && route.serves_listener(&listener.name)
            });
            let Some((at, _)) = open_route else { continue };
            let name = quoted(&listener.name);
            problems.push(
                Problem::warning(
                    "open-to-everyone",
                    Some(self.document.place(&entry.at.key(key))),
                    format!("{who} may write through {name}, which equals root"),
                )
                .related(
                    self.document.place(&at.key("uri")),
                    "this route asks for no identity",
                )
                .help(help),
            );
        }
    }

    /// Routes, or single URIs of routes, that an earlier route takes everything from.
    fn unreachable_routes(&self, problems: &mut Vec<Problem>) {
        let routes: Vec<(&Pointer, &Route)> = self.routes().collect();
        let mut fuel = MAX_COMPARED;
        for (index, (at, route)) in routes.iter().enumerate() {
            let earlier = || {
                routes
                    .iter()
                    .take(index)
                    .filter(|(_, earlier)| takes_all(earlier, route))
            };
            let mut hidden = Vec::new();
            for (number, uri) in route.uris.iter().enumerate() {
                let by = earlier().find(|(_, earlier)| {
                    earlier.uris.iter().any(|wide| wide.covers(uri, &mut fuel))
                });
                if let Some((by, _)) = by {
                    hidden.push((number, *by));
                }
            }
            let Some((_, by)) = hidden.first() else {
                continue;
            };
            let help = "move it before the earlier one, or remove it";
            if hidden.len() == route.uris.len() {
                problems.push(
                    Problem::error(
                        "unreachable-route",
                        Some(self.document.place(&at.key("uri"))),
                        "this route is never reached: an earlier one takes every client and URI of it",
                    )
                    .related(self.document.place(&by.key("uri")), "the earlier route")
                    .help(help),
                );
            } else {
                for (number, by) in &hidden {
                    problems.push(
                        Problem::warning(
                            "unreachable-route",
                            Some(self.document.place(&at.key("uri").index(*number))),
                            "this URI never comes here: an earlier route takes it",
                        )
                        .related(self.document.place(&by.key("uri")), "the earlier route")
                        .help(help),
                    );
                }
            }
        }
    }

    /// Identities that no client can have, by whatever listener it comes, and routes that are left
    /// with no client for that reason.
    fn impossible_identities(&self, problems: &mut Vec<Problem>) {
        let mut possible: Vec<HashSet<usize>> = Vec::new();
        for listener in &self.draft.listeners {
            let mut known: Vec<Option<bool>> = vec![None; self.draft.identities.len()];
            for &index in &self.draft.identity_order {
                let Some(rule) = self.rule(index) else {
                    continue;
                };
                let sure = rule.on_listener(&listener.name, listener.value.as_deref(), &known);
                if let Some(slot) = known.get_mut(index) {
                    *slot = sure;
                }
            }
            let maybe = known
                .iter()
                .enumerate()
                .filter(|(_, sure)| **sure != Some(false));
            possible.push(maybe.map(|(index, _)| index).collect());
        }
        for (index, entry) in self.draft.identities.iter().enumerate() {
            if !possible
                .iter()
                .any(|identities| identities.contains(&index))
            {
                problems.push(
                    Problem::error(
                        "impossible-identity",
                        Some(self.document.key_place(&entry.at)),
                        format!("no client can ever be {}", quoted(&entry.name)),
                    )
                    .help(
                        "its conditions contradict each other, or ask for what no listener proves",
                    ),
                );
            }
        }
        for (at, route) in self.routes() {
            let Some(clients) = &route.clients else {
                continue;
            };
            let reachable =
                self.draft
                    .listeners
                    .iter()
                    .zip(&possible)
                    .any(|(listener, identities)| {
                        route.serves_listener(&listener.name)
                            && clients.iter().any(|client| identities.contains(client))
                    });
            let each_impossible = clients.iter().all(|client| {
                !possible
                    .iter()
                    .any(|identities| identities.contains(client))
            });
            if !reachable && !each_impossible {
                problems.push(
                    Problem::error(
                        "unreachable-route",
                        Some(self.document.place(&at.key("clients"))),
                        "none of these clients can come by the listeners of this route",
                    )
                    .related(self.document.place(&at.key("listeners")), "its listeners"),
                );
            }
        }
    }

    /// Probed URIs that have no route.
    fn probes(&self, problems: &mut Vec<Problem>) {
        for (at, route) in self.routes() {
            let Action::Probe(uris) = &route.action else {
                continue;
            };
            for (index, text) in uris.iter().enumerate() {
                let Ok(uri) = Uri::parse(text) else { continue };
                if self
                    .routes()
                    .any(|(_, route)| route.pattern_for(&uri).is_some())
                {
                    continue;
                }
                problems.push(
                    Problem::error(
                        "no-route",
                        Some(self.document.place(&at.key("probe").index(index))),
                        format!("no route serves {}", quoted(text)),
                    )
                    .help("add a route for it, or do not probe it"),
                );
            }
        }
    }

    fn unused(&self, problems: &mut Vec<Problem>) {
        let mut upstreams: HashSet<&str> = HashSet::new();
        let mut identities: HashSet<usize> = HashSet::new();
        for (_, route) in self.routes() {
            if let Action::Open(open) = &route.action {
                upstreams.extend(open.destinations().map(|it| &*it.upstream().name));
            }
            identities.extend(route.clients.iter().flatten());
        }
        identities.extend(self.draft.trusted_forwarders.iter().flatten());
        if let Some(access) = &self.draft.access {
            let rules = access.rules.iter().filter_map(|draft| draft.value.as_ref());
            identities.extend(rules.filter_map(|rule| rule.who.as_ref()).flatten());
            let quotas = access.quotas.iter().flatten().flatten();
            identities.extend(quotas.map(|quota| quota.identity));
        }
        // An identity is also used by another that is used: the later ones in order first.
        for index in self.draft.identity_order.iter().rev() {
            if identities.contains(index)
                && let Some(rule) = self.rule(*index)
            {
                let mut references = Vec::new();
                rule.references(&mut references);
                identities.extend(references);
            }
        }
        for entry in &self.draft.upstreams {
            if !upstreams.contains(&*entry.name) {
                problems.push(self.never_used("upstream", &entry.name, &entry.at));
            }
        }
        for (index, entry) in self.draft.identities.iter().enumerate() {
            if !identities.contains(&index) {
                problems.push(self.never_used("identity", &entry.name, &entry.at));
            }
        }
        for entry in &self.draft.listeners {
            if !self
                .routes()
                .any(|(_, route)| route.serves_listener(&entry.name))
            {
                problems.push(
                    Problem::warning(
                        "unused",
                        Some(self.document.key_place(&entry.at)),
                        format!(
                            "no route serves clients of the listener {}",
                            quoted(&entry.name)
                        ),
                    )
                    .help("they can connect, but open nothing"),
                );
            }
        }
    }

    fn never_used(&self, what: &str, name: &str, at: &Pointer) -> Problem {
        Problem::warning(
            "unused",
            Some(self.document.key_place(at)),
            format!("nothing uses the {what} {}", quoted(name)),
        )
        .help("remove it, or name it in a route")
    }

    fn routes(&self) -> impl Iterator<Item = (&Pointer, &Route)> {
        self.draft
            .routes
            .iter()
            .filter_map(|(at, route)| Some((at, route.as_ref()?)))
    }

    fn rule(&self, index: usize) -> Option<&Rule> {
        self.draft.identities.get(index)?.value.as_ref()
    }
}

/// Whether `wide` takes every client, by every listener, that `narrow` takes.
fn takes_all(wide: &Route, narrow: &Route) -> bool {
    let clients = match (&wide.clients, &narrow.clients) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wide), Some(narrow)) => narrow
            .iter()
            .all(|client| wide.binary_search(client).is_ok()),
    };
    let listeners = match (&wide.listeners, &narrow.listeners) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wide), Some(narrow)) => narrow.iter().all(|name| wide.contains(name)),
    };
    clients && listeners
}
