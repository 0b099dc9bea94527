//! The file as written to the compiled policy: names resolved, patterns built, defaults filled in.
//! What cannot be compiled is reported and left out, and the rest goes on to be checked.

use std::collections::HashMap;
use std::fmt::Display;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::check;
use super::identity::{IdPattern, Identity, Rule, UnixRule};
use super::model::{Daemon, ForwardIdentity, Keepalive, ListenAddress, Listener, Policy, Upstream};
use super::pattern::Pattern;
use super::raw::{self, OneOrMany, Section};
use super::report::{Problem, listing, nearest, quoted};
use super::route::{Action, Route};
use super::schema;
use super::uri::{Uri, UriPattern, UriPatternError};
use super::yaml::{Document, Pointer};

/// Bytes of a socket's path: `sun_path` has 108 with its terminating NUL.
const MAX_SOCKET_PATH: usize = 107;
/// No wait in a policy is longer; a slip of the unit would otherwise pass for a setting.
const MAX_DURATION: Duration = Duration::from_secs(7 * 24 * 3600);
/// libvirt's own defaults.
const DEFAULT_KEEPALIVE: Keepalive = Keepalive {
    interval: Some(Duration::from_secs(5)),
    count: 5,
};
const DEFAULT_MAX_CLIENTS: usize = 5000;
const DEFAULT_DRAIN: Duration = Duration::from_secs(30);
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_MODE: u32 = 0o600;
const DEFAULT_READONLY_MODE: u32 = 0o666;

/// Compiles the document, reporting everything that is wrong with it. `None` only if there is
/// some error.
pub(super) fn policy(
    document: &Document<'_>,
    env: &dyn Fn(&str) -> Option<String>,
    problems: &mut Vec<Problem>,
) -> Option<Policy> {
    let mut value = document.to_json();
    let flaws = schema::validate(document, &value, problems);
    if flaws.hopeless() {
        return None;
    }
    flaws.prune(&mut value);
    let file: raw::File = serde_json::from_value(value).ok()?;
    let mut compiler = Compiler {
        document,
        env,
        flaws,
        problems,
    };
    let draft = compiler.file(&file);
    check::check(
        &draft,
        document,
        compiler.flaws.is_empty(),
        compiler.problems,
    );
    draft.finish()
}

/// A named entry of the file: its place, and what it compiled to unless that failed.
#[derive(Debug)]
pub(super) struct Entry<T> {
    pub(super) name: Arc<str>,
    pub(super) at: Pointer,
    pub(super) value: Option<T>,
}

/// The compiled parts, with places.
#[derive(Debug)]
pub(super) struct Draft {
    daemon: Option<Daemon>,
    pub(super) listeners: Vec<Entry<Arc<Listener>>>,
    pub(super) upstreams: Vec<Entry<Arc<Upstream>>>,
    pub(super) identities: Vec<Entry<Rule>>,
    /// Places of the identities, each after those that it refers to; empty if there is a cycle.
    pub(super) identity_order: Vec<usize>,
    pub(super) identity_lines: Vec<usize>,
    pub(super) routes: Vec<(Pointer, Option<Route>)>,
}

impl Draft {
    fn finish(self) -> Option<Policy> {
        let identities = self
            .identities
            .into_iter()
            .zip(self.identity_lines)
            .map(|(entry, line)| {
                Some(Identity {
                    name: entry.name,
                    line,
                    rule: entry.value?,
                })
            })
            .collect::<Option<Vec<_>>>()?;
        Some(Policy {
            daemon: self.daemon?,
            listeners: self
                .listeners
                .into_iter()
                .map(|entry| entry.value)
                .collect::<Option<_>>()?,
            upstreams: self
                .upstreams
                .into_iter()
                .map(|entry| entry.value)
                .collect::<Option<_>>()?,
            identities,
            routes: self
                .routes
                .into_iter()
                .map(|(_, route)| route)
                .collect::<Option<_>>()?,
            identity_order: self.identity_order,
        })
    }
}

struct Compiler<'a, 'd> {
    document: &'a Document<'d>,
    env: &'a dyn Fn(&str) -> Option<String>,
    flaws: schema::Flaws,
    problems: &'a mut Vec<Problem>,
}

/// Names of a section and their places in it.
type Names = HashMap<Arc<str>, usize>;

impl Compiler<'_, '_> {
    fn file(&mut self, file: &raw::File) -> Draft {
        let root = Pointer::default();
        let daemon = match &file.daemon.0 {
            Some(daemon) => self.daemon(daemon, &root.key("daemon")),
            None => self.daemon(
                &raw::Daemon {
                    watch: None,
                    drain: None,
                    workers: None,
                    max_clients: None,
                },
                &root.key("daemon"),
            ),
        };
        let listeners = self.section(&file.listeners, "listeners", Self::listener);
        let upstreams = self.section(&file.upstreams, "upstreams", Self::upstream);
        let names = file.identities.0.iter().enumerate();
        let names: Names = names
            .map(|(i, (name, _))| (Arc::from(name.as_str()), i))
            .collect();
        let identities = self.section(&file.identities, "identities", |this, _, rule, at| {
            this.rule(rule, at, &names, &listeners)
        });
        let identity_order = self.order(&identities);
        let identity_lines = identities
            .iter()
            .map(|entry| self.document.line(&self.document.key_place(&entry.at)))
            .collect();
        let at = root.key("routes");
        let mut routes = Vec::new();
        for (index, route) in file.routes.iter().enumerate() {
            let at = at.index(index);
            let compiled = route
                .0
                .as_ref()
                .and_then(|route| self.route(route, &at, &listeners, &upstreams, &names));
            routes.push((at, compiled));
        }
        Draft {
            daemon,
            listeners,
            upstreams,
            identities,
            identity_order,
            identity_lines,
            routes,
        }
    }

    fn section<T, U>(
        &mut self,
        section: &Section<T>,
        key: &str,
        mut compile: impl FnMut(&mut Self, &Arc<str>, &T, &Pointer) -> Option<U>,
    ) -> Vec<Entry<U>> {
        let at = Pointer::default().key(key);
        let mut entries = Vec::new();
        for (name, value) in &section.0 {
            let (name, at) = (Arc::from(name.as_str()), at.key(name));
            let value = value
                .0
                .as_ref()
                .and_then(|value| compile(self, &name, value, &at));
            entries.push(Entry { name, at, value });
        }
        entries
    }

    fn daemon(&mut self, daemon: &raw::Daemon, at: &Pointer) -> Option<Daemon> {
        Some(Daemon {
            watch: daemon.watch.unwrap_or(false),
            drain: match &daemon.drain {
                Some(drain) => self.duration(&drain.0, &at.key("drain"), true)?,
                None => DEFAULT_DRAIN,
            },
            workers: daemon.workers,
            max_clients: daemon.max_clients.unwrap_or(DEFAULT_MAX_CLIENTS),
        })
    }

    fn listener(
        &mut self,
        name: &Arc<str>,
        listener: &raw::Listener,
        at: &Pointer,
    ) -> Option<Arc<Listener>> {
        let readonly = listener.readonly.unwrap_or(false);
        let path = self.socket_path(&listener.unix, &at.key("unix"));
        let keepalive = self.keepalive(listener.keepalive.as_ref(), &at.key("keepalive"));
        let mode = match &listener.mode {
            Some(mode) => u32::from_str_radix(&mode.0, 8).ok(),
            None if readonly => Some(DEFAULT_READONLY_MODE),
            None => Some(DEFAULT_MODE),
        };
        let address = ListenAddress::Unix {
            path: path?,
            mode: mode?,
            group: listener.group.clone(),
        };
        Some(Arc::new(Listener {
            name: Arc::clone(name),
            address,
            readonly,
            keepalive: keepalive?,
        }))
    }

    fn upstream(
        &mut self,
        name: &Arc<str>,
        upstream: &raw::Upstream,
        at: &Pointer,
    ) -> Option<Arc<Upstream>> {
        let unix = self.socket_path(&upstream.unix, &at.key("unix"));
        let unix_ro = match &upstream.unix_ro {
            Some(path) => self.socket_path(path, &at.key("unix_ro")).map(Some),
            None => Some(None),
        };
        let connect_timeout = match &upstream.connect_timeout {
            Some(text) => self.duration(&text.0, &at.key("connect_timeout"), false),
            None => Some(DEFAULT_CONNECT_TIMEOUT),
        };
        let keepalive = self.keepalive(upstream.keepalive.as_ref(), &at.key("keepalive"));
        let identity = match upstream.identity {
            None | Some(raw::ForwardIdentity::Require) => ForwardIdentity::Require,
            Some(raw::ForwardIdentity::Try) => ForwardIdentity::Try,
            Some(raw::ForwardIdentity::Never) => ForwardIdentity::Never,
        };
        Some(Arc::new(Upstream {
            name: Arc::clone(name),
            unix: unix?,
            unix_ro: unix_ro?,
            connect_timeout: connect_timeout?,
            keepalive: keepalive?,
            identity,
        }))
    }

    fn keepalive(&mut self, keepalive: Option<&raw::Keepalive>, at: &Pointer) -> Option<Keepalive> {
        let Some(keepalive) = keepalive else {
            return Some(DEFAULT_KEEPALIVE);
        };
        let interval = match &keepalive.interval {
            None => DEFAULT_KEEPALIVE.interval,
            Some(raw::KeepaliveInterval::Never(_)) => None,
            Some(raw::KeepaliveInterval::Text(text)) if text == "never" => None,
            Some(raw::KeepaliveInterval::Text(text)) => {
                Some(self.duration(text, &at.key("interval"), false)?)
            }
        };
        Some(Keepalive {
            interval,
            count: keepalive.count.unwrap_or(DEFAULT_KEEPALIVE.count),
        })
    }

    fn duration(&mut self, text: &str, at: &Pointer, zero: bool) -> Option<Duration> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = text.get(digits.len()..).unwrap_or_default();
        let number: u64 = digits.parse().ok()?;
        let duration = match unit {
            "ms" => Duration::from_millis(number),
            "s" => Duration::from_secs(number),
            "m" => Duration::from_secs(number * 60),
            "h" => Duration::from_secs(number * 3600),
            _ => return None,
        };
        if duration > MAX_DURATION {
            self.error(
                "out-of-range",
                at,
                format!("{} is more than a week", quoted(text)),
            );
            return None;
        }
        if duration.is_zero() && !zero {
            self.error(
                "out-of-range",
                at,
                format!("{} must be more than nothing", quoted(text)),
            );
            return None;
        }
        Some(duration)
    }

    fn socket_path(&mut self, path: &raw::SocketPath, at: &Pointer) -> Option<PathBuf> {
        let mut out = String::new();
        let mut rest = path.0.as_str();
        while let Some((before, after)) = rest.split_once("${") {
            out.push_str(before);
            let Some((name, after)) = after.split_once('}') else {
                self.error("path", at, "`${` without `}`");
                return None;
            };
            match (self.env)(name).filter(|value| !value.is_empty()) {
                Some(value) => out.push_str(&value),
                None => {
                    self.problems.push(
                        Problem::error(
                            "undefined-variable",
                            Some(self.document.place(at)),
                            format!("the environment variable {} is not set", quoted(name)),
                        )
                        .help("set it, or write the path out"),
                    );
                    return None;
                }
            }
            rest = after;
        }
        out.push_str(rest);
        let wrong = if !out.starts_with('/') {
            "a socket's path must be absolute".to_owned()
        } else if out.len() > MAX_SOCKET_PATH {
            format!(
                "a socket's path has at most {MAX_SOCKET_PATH} bytes, this one {}",
                out.len()
            )
        } else if out.chars().any(char::is_control) {
            "a path has no control characters".to_owned()
        } else if out.ends_with('/') {
            "this names a directory, not a socket".to_owned()
        } else {
            return Some(PathBuf::from(out));
        };
        self.error("path", at, wrong);
        None
    }

    fn rule(
        &mut self,
        rule: &raw::Rule,
        at: &Pointer,
        names: &Names,
        listeners: &[Entry<Arc<Listener>>],
    ) -> Option<Rule> {
        let mut list = |key: &str, rules: &[raw::Rule]| {
            let at = at.key(key);
            let rules: Vec<Option<Rule>> = rules
                .iter()
                .enumerate()
                .map(|(index, rule)| self.rule(rule, &at.index(index), names, listeners))
                .collect();
            rules.into_iter().collect::<Option<Vec<_>>>()
        };
        // The schema leaves exactly one of them.
        if let Some(rules) = &rule.any {
            list("any", rules).map(Rule::Any)
        } else if let Some(rules) = &rule.all {
            list("all", rules).map(Rule::All)
        } else if let Some(rule) = &rule.not {
            self.rule(rule, &at.key("not"), names, listeners)
                .map(Box::new)
                .map(Rule::Not)
        } else if let Some(unix) = &rule.unix {
            self.unix_rule(unix, &at.key("unix"))
                .map(Box::new)
                .map(Rule::Unix)
        } else if let Some(patterns) = &rule.listener {
            self.listener_rule(patterns, &at.key("listener"), listeners)
                .map(Rule::Listener)
        } else {
            let name = rule.identity.as_ref()?;
            self.resolve("identity", &name.0, &at.key("identity"), names)
                .map(Rule::Identity)
        }
    }

    fn unix_rule(&mut self, unix: &raw::UnixRule, at: &Pointer) -> Option<UnixRule> {
        let user = self.patterns(unix.user.as_ref(), &at.key("user"));
        let group = self.patterns(unix.group.as_ref(), &at.key("group"));
        let uid = self.ids(unix.uid.as_ref(), &at.key("uid"));
        let gid = self.ids(unix.gid.as_ref(), &at.key("gid"));
        let pid = self.ids(unix.pid.as_ref(), &at.key("pid"));
        let selinux = self.patterns(unix.selinux.as_ref(), &at.key("selinux"));
        Some(UnixRule {
            user: user?,
            group: group?,
            uid: uid?,
            gid: gid?,
            pid: pid?,
            selinux: selinux?,
        })
    }

    fn listener_rule(
        &mut self,
        patterns: &OneOrMany<raw::PatternText>,
        at: &Pointer,
        listeners: &[Entry<Arc<Listener>>],
    ) -> Option<Vec<Pattern>> {
        let compiled = self.patterns(Some(patterns), at)??;
        for ((at, _), pattern) in elements(patterns, at).zip(&compiled) {
            if listeners.iter().any(|entry| pattern.matches(&entry.name)) {
                continue;
            }
            let problem = Problem::error(
                "unknown-listener",
                Some(self.document.place(&at)),
                format!("no listener matches {}", quoted(&pattern.to_string())),
            );
            let names = listeners.iter().map(|entry| &*entry.name);
            self.problems
                .push(with_suggestion(problem, &pattern.to_string(), names));
        }
        Some(compiled)
    }

    /// `Some(None)` if the key is absent.
    fn patterns(
        &mut self,
        patterns: Option<&OneOrMany<raw::PatternText>>,
        at: &Pointer,
    ) -> Option<Option<Vec<Pattern>>> {
        let Some(patterns) = patterns else {
            return Some(None);
        };
        let mut compiled = Vec::new();
        let mut failed = false;
        for (at, text) in elements(patterns, at) {
            match Pattern::parse(&text.0) {
                Ok(pattern) => compiled.push(pattern),
                Err(error) => {
                    failed = true;
                    self.error("pattern", &at, error);
                }
            }
        }
        (!failed).then_some(Some(compiled))
    }

    /// `Some(None)` if the key is absent.
    fn ids(
        &mut self,
        ids: Option<&OneOrMany<raw::Id>>,
        at: &Pointer,
    ) -> Option<Option<Vec<IdPattern>>> {
        let Some(ids) = ids else { return Some(None) };
        let mut compiled = Vec::new();
        let mut failed = false;
        for (at, id) in elements(ids, at) {
            let pattern = match id {
                raw::Id::Number(number) => Ok(IdPattern::Number(*number)),
                raw::Id::Text(text) => match text.parse() {
                    Ok(number) => Ok(IdPattern::Number(number)),
                    Err(_) => Pattern::parse(text).map(IdPattern::Digits),
                },
            };
            match pattern {
                Ok(pattern) => compiled.push(pattern),
                Err(error) => {
                    failed = true;
                    self.error("pattern", &at, error);
                }
            }
        }
        (!failed).then_some(Some(compiled))
    }

    /// Sorts the identities so that each comes after those that it refers to. Without recursion,
    /// for a chain may be as long as the file.
    fn order(&mut self, identities: &[Entry<Rule>]) -> Vec<usize> {
        let mut waits_for: Vec<Vec<usize>> = Vec::new();
        let mut needed_by: Vec<Vec<usize>> = vec![Vec::new(); identities.len()];
        for (index, entry) in identities.iter().enumerate() {
            let mut references = Vec::new();
            if let Some(rule) = &entry.value {
                rule.references(&mut references);
            }
            references.sort_unstable();
            references.dedup();
            for &target in &references {
                if let Some(needed_by) = needed_by.get_mut(target) {
                    needed_by.push(index);
                }
            }
            waits_for.push(references);
        }
        let mut missing: Vec<usize> = waits_for.iter().map(Vec::len).collect();
        let mut order: Vec<usize> = (0..identities.len())
            .filter(|index| missing.get(*index) == Some(&0))
            .collect();
        let mut done = 0;
        while let Some(&index) = order.get(done) {
            done += 1;
            for &waiting in needed_by.get(index).into_iter().flatten() {
                if let Some(missing) = missing.get_mut(waiting) {
                    *missing -= 1;
                    if *missing == 0 {
                        order.push(waiting);
                    }
                }
            }
        }
        if order.len() < identities.len() {
            self.cycles(identities, &waits_for, &missing);
            order.clear();
        }
        order
    }

    /// Reports the cycles among the identities that still miss something.
    fn cycles(&mut self, identities: &[Entry<Rule>], waits_for: &[Vec<usize>], missing: &[usize]) {
        let stuck = |index: &usize| missing.get(*index).is_some_and(|missing| *missing > 0);
        let mut seen = vec![false; identities.len()];
        for start in (0..identities.len()).filter(stuck) {
            // Every stuck one waits for a stuck one, so walking on comes round, here or on an
            // earlier walk.
            let mut way: Vec<usize> = Vec::new();
            let mut at = start;
            while seen.get(at) == Some(&false) {
                if let Some(seen) = seen.get_mut(at) {
                    *seen = true;
                }
                way.push(at);
                match waits_for.get(at).into_iter().flatten().copied().find(stuck) {
                    Some(next) => at = next,
                    None => break,
                }
            }
            let ring: Vec<&Entry<Rule>> = way
                .iter()
                .skip_while(|index| **index != at)
                .filter_map(|index| identities.get(*index))
                .collect();
            let Some(first) = ring.first() else { continue };
            let names: Vec<&str> = ring
                .iter()
                .chain([first])
                .map(|entry| &*entry.name)
                .collect();
            let message = format!(
                "{} is defined by itself: {}",
                quoted(&first.name),
                names.join(" -> ")
            );
            self.problems.push(
                Problem::error(
                    "identity-cycle",
                    Some(self.document.key_place(&first.at)),
                    message,
                )
                .help("an identity must rest on `unix` or `listener` conditions in the end"),
            );
        }
    }

    fn route(
        &mut self,
        route: &raw::Route,
        at: &Pointer,
        listeners: &[Entry<Arc<Listener>>],
        upstreams: &[Entry<Arc<Upstream>>],
        identities: &Names,
    ) -> Option<Route> {
        let mut uris = Vec::new();
        let mut failed = false;
        for (at, text) in elements(&route.uri, &at.key("uri")) {
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
            identities,
        );
        let listener_names = positions(listeners);
        let named = self.names(
            route.listeners.as_ref(),
            "listener",
            &at.key("listeners"),
            &listener_names,
        );
        let action = self.action(route, at, upstreams);
        if failed {
            return None;
        }
        let named = named?.map(|places| {
            let names = places.iter().filter_map(|place| listeners.get(*place));
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

    fn action(
        &mut self,
        route: &raw::Route,
        at: &Pointer,
        upstreams: &[Entry<Arc<Upstream>>],
    ) -> Option<Action> {
        match (&route.upstream, &route.probe) {
            (Some(name), None) => {
                let at_name = at.key("upstream");
                let place = self.resolve("upstream", &name.0, &at_name, &positions(upstreams))?;
                if let Some(uri) = &route.open
                    && let Err(fault) = Uri::parse(uri)
                {
                    self.error(
                        "uri",
                        &at.key("open"),
                        format!("this URI cannot be opened: {fault}"),
                    );
                    return None;
                }
                let upstream = upstreams.get(place)?.value.as_ref()?;
                Some(Action::Open {
                    upstream: Arc::clone(upstream),
                    uri: route.open.clone(),
                })
            }
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
        if route.open.is_some() {
            self.error(
                "route",
                &at.key("open"),
                "`open` goes with `upstream`, not with `probe`",
            );
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

    /// Places of named things, sorted; `Some(None)` if the key is absent.
    fn names(
        &mut self,
        names: Option<&OneOrMany<raw::Name>>,
        what: &'static str,
        at: &Pointer,
        known: &Names,
    ) -> Option<Option<Vec<usize>>> {
        let Some(names) = names else {
            return Some(None);
        };
        let found: Vec<Option<usize>> = elements(names, at)
            .map(|(at, name)| self.resolve(what, &name.0, &at, known))
            .collect();
        let mut found = found.into_iter().collect::<Option<Vec<usize>>>()?;
        found.sort_unstable();
        found.dedup();
        Some(Some(found))
    }

    fn resolve(
        &mut self,
        what: &'static str,
        name: &str,
        at: &Pointer,
        known: &Names,
    ) -> Option<usize> {
        if let Some(place) = known.get(name) {
            return Some(*place);
        }
        let (code, section) = match what {
            "identity" => ("unknown-identity", "identities"),
            "listener" => ("unknown-listener", "listeners"),
            _ => ("unknown-upstream", "upstreams"),
        };
        // A section that is wrong as a whole, or missing where it must not, is an error of its own.
        let section = Pointer::default().key(section);
        if known.is_empty() && (what != "identity" || self.flaws.wrong(&section)) {
            return None;
        }
        let problem = Problem::error(
            code,
            Some(self.document.place(at)),
            format!("unknown {what} {}", quoted(name)),
        );
        let mut names: Vec<(&str, usize)> = known.iter().map(|(name, at)| (&**name, *at)).collect();
        names.sort_by_key(|(_, at)| *at);
        self.problems.push(with_suggestion(
            problem,
            name,
            names.into_iter().map(|(name, _)| name),
        ));
        None
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
        let place: Range<usize> = self.document.place(at);
        self.problems
            .push(Problem::error("uri", Some(place), error.to_string()).help(help));
    }

    fn error(&mut self, code: &'static str, at: &Pointer, message: impl Display) {
        self.problems.push(Problem::error(
            code,
            Some(self.document.place(at)),
            message.to_string(),
        ));
    }
}

/// Names of a section and their places in it.
fn positions<T>(entries: &[Entry<T>]) -> Names {
    entries
        .iter()
        .enumerate()
        .map(|(index, entry)| (Arc::clone(&entry.name), index))
        .collect()
}

/// The elements with their places, be it one or a list.
fn elements<'a, T>(
    values: &'a OneOrMany<T>,
    at: &'a Pointer,
) -> impl Iterator<Item = (Pointer, &'a T)> {
    let (values, list) = match values {
        OneOrMany::One(value) => (std::slice::from_ref(value), false),
        OneOrMany::Many(values) => (values.as_slice(), true),
    };
    values
        .iter()
        .enumerate()
        .map(move |(index, value)| (if list { at.index(index) } else { at.clone() }, value))
}

fn with_suggestion<'a>(
    problem: Problem,
    name: &str,
    known: impl Iterator<Item = &'a str> + Clone,
) -> Problem {
    match nearest(name, known.clone()) {
        Some(near) => problem.help(format!("did you mean {}?", quoted(near))),
        None if known.clone().next().is_none() => problem.help("none are defined"),
        None => problem.help(format!("defined are {}", listing(known))),
    }
}
