//! Routes: URI patterns built, names resolved.

use std::sync::Arc;

use super::{Compiler, Scope, elements};
use crate::policy::raw;
use crate::policy::report::Problem;
use crate::policy::route::{Action, Route};
use crate::policy::uri::{Uri, UriPattern, UriPatternError};
use crate::policy::yaml::Pointer;

impl Compiler<'_, '_> {
    pub(super) fn route(
        &mut self,
        route: &raw::Route,
        at: &Pointer,
        scope: &Scope<'_>,
    ) -> Option<Route> {
        let mut uris = Vec::new();
        let mut failed = false;
        for (at, text) in elements(&route.uri, &at.key("uri")) {
            if !self.admit_pattern(&text.0, &at) {
                failed = true;
                continue;
            }
            match UriPattern::parse(&text.0) {
                Ok(pattern) => uris.push(pattern),
                Err(error) => {
                    failed = true;
                    self.uri_error(&at, &error);
                }
            }
        }
        let clients = self.names(
            route.clients.as_ref(),
            "identity",
            &at.key("clients"),
            scope.identity_names,
        );
        let named = self.names(
            route.listeners.as_ref(),
            "listener",
            &at.key("listeners"),
            &scope.listener_names,
        );
        let action = self.action(route, at, scope);
        if failed {
            return None;
        }
        if let Some(Action::Open(open)) = &action {
            self.values_of(open, &uris, at);
        }
        let named = named?.map(|places| {
            let names = places
                .iter()
                .filter_map(|place| scope.listeners.get(*place));
            names.map(|entry| Arc::clone(&entry.name)).collect()
        });
        Some(Route {
            line: self.document.line(&self.document.place(at)),
            uris,
            clients: clients?,
            listeners: named,
            action: action?,
        })
    }

    fn action(&mut self, route: &raw::Route, at: &Pointer, scope: &Scope<'_>) -> Option<Action> {
        match (&route.upstream, &route.probe) {
            (Some(name), None) => self.open(route, name, at, scope).map(Action::Open),
            (None, Some(probe)) => self.probe(route, probe, at),
            (Some(_), Some(_)) => {
                self.problems.push(
                    Problem::error(
                        "route",
                        Some(self.document.key_place(&at.key("probe"))),
                        "a route has `upstream` or `probe`, not both",
                    )
                    .related(
                        self.document.key_place(&at.key("upstream")),
                        "`upstream` is here",
                    ),
                );
                None
            }
            (None, None) => {
                // An unknown or unusable key may well have been meant for it.
                if !self.flaws.incomplete(at) {
                    self.problems.push(
                        Problem::error(
                            "route",
                            Some(self.document.place(at)),
                            "this route leads nowhere",
                        )
                        .help("add `upstream` with the name of a driver daemon"),
                    );
                }
                None
            }
        }
    }

    fn probe(
        &mut self,
        route: &raw::Route,
        probe: &[raw::ProbeUri],
        at: &Pointer,
    ) -> Option<Action> {
        let mut uris = Vec::new();
        let misplaced = [
            (
                "open",
                route.open.is_some(),
                "remove it: what is probed is what is opened",
            ),
            (
                "drivers",
                route.drivers.is_some(),
                "write it in the routes of the probed URIs",
            ),
        ];
        for (key, _, help) in misplaced.iter().filter(|(_, there, _)| *there) {
            let place = Some(self.document.key_place(&at.key(key)));
            let message = format!("`{key}` goes with `upstream`, not with `probe`");
            self.problems
                .push(Problem::error("route", place, message).help(*help));
        }
        if misplaced.iter().any(|(_, there, _)| *there) {
            return None;
        }
        for (at, text) in elements(&route.uri, &at.key("uri")) {
            if !text.0.is_empty() {
                self.problems.push(
                    Problem::error(
                        "route",
                        Some(self.document.place(&at)),
                        "only clients that named no URI are probed for",
                    )
                    .help("write `uri: \"\"`, or `upstream` in place of `probe`"),
                );
                return None;
            }
        }
        for (index, uri) in probe.iter().enumerate() {
            match Uri::parse(&uri.0) {
                Ok(_) => uris.push(uri.0.clone()),
                Err(fault) => {
                    let at = at.key("probe").index(index);
                    self.error("uri", &at, format!("this URI cannot be probed: {fault}"));
                }
            }
        }
        (uris.len() == probe.len()).then_some(Action::Probe(uris))
    }

    fn uri_error(&mut self, at: &Pointer, error: &UriPatternError) {
        let help = match error {
            UriPatternError::ParamName(_) => {
                "the first `?` begins the query, as in `qemu:///system?host=hv2`; before it, only `*` is a wildcard"
            }
            UriPatternError::EmptyQuery => {
                "name a parameter after `?`, or `*` for any, or leave `?` out"
            }
            UriPatternError::Pattern(_)
            | UriPatternError::Fragment
            | UriPatternError::Duplicate(_) => {
                return self.error("uri", at, error);
            }
        };
        let place = self.document.place(at);
        self.problems
            .push(Problem::error("uri", Some(place), error.to_string()).help(help));
    }
}
