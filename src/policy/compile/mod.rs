//! The file as written to the compiled policy: names resolved, patterns built, defaults filled in.
//! What cannot be compiled is reported and left out, and the rest goes on to be checked.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Arc;

pub(super) mod access;
mod addresses;
mod drivers;
mod identities;
mod listeners;
mod order;
mod routes;
mod self_tests;
mod sockets;
mod templates;
mod tls;
mod upstreams;

use super::access::Access;
use super::check;
use super::identity::{Identity, Rule};
use super::model::{Daemon, Listener, Policy};
use super::pattern::REGEX_PREFIX;
use super::raw::{self, OneOrMany, Section};
use super::report::{MAX_PROBLEMS, Problem, Severity, listing, nearest, quoted};
use super::route::Route;
use super::template::Destination;
use super::validate::{self, Flaws};
use super::yaml::{Document, Pointer};
use super::{FileOwner, FilePlace};
use access::AccessDraft;

/// `regex:` patterns of one file: compiled ones take up to a quarter of a megabyte each.
const MAX_REGEXES: usize = 256;

/// Compiles the document, reporting everything that is wrong with it. `None` only if there is
/// some error.
pub(super) fn policy(
    document: &Document<'_>,
    env: &dyn Fn(&str) -> Option<String>,
    problems: &mut Vec<Problem>,
) -> Option<(Policy, Vec<FilePlace>)> {
    let mut value = document.to_json();
    let flaws = validate::validate(document, &value, problems);
    if flaws.hopeless() {
        return None;
    }
    flaws.prune(&mut value);
    let file = raw::File::read(value)?;
    let mut compiler = Compiler {
        document,
        env,
        flaws,
        regexes: 0,
        problems,
    };
    let draft = compiler.file(&file);
    let tests = compiler.self_tests(&file.tests, &draft);
    check::check(
        &draft,
        document,
        compiler.flaws.is_empty(),
        compiler.problems,
    );
    let files = draft.files(document);
    let rules = draft.rule_places();
    let policy = draft.finish(document)?;
    let tests = tests.into_iter().collect::<Option<Vec<_>>>()?;
    if problems.iter().all(|it| it.severity != Severity::Error) {
        self_tests::run(&policy, &tests, &rules, document, problems);
    }
    Some((policy, files))
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
    pub(super) upstreams: Vec<Entry<Destination>>,
    pub(super) identities: Vec<Entry<Rule>>,
    /// Places of the identities, each after those that it refers to; empty if there is a cycle.
    pub(super) identity_order: Vec<usize>,
    pub(super) identity_lines: Vec<usize>,
    /// Places of the identities that `trusted_forwarders` names.
    pub(super) trusted_forwarders: Option<Vec<usize>>,
    pub(super) routes: Vec<(Pointer, Option<Route>)>,
    pub(super) access: Option<AccessDraft>,
}

impl Draft {
    /// Where files are named, or what takes them for granted where they are left out.
    fn files(&self, document: &Document<'_>) -> Vec<FilePlace> {
        const LISTENER: [(&str, &str); 5] = [
            ("tls", "cert"),
            ("tls", "key"),
            ("tls", "ca"),
            ("tls", "crl"),
            ("sasl", "passwords"),
        ];
        const UPSTREAM: [&str; 4] = ["ca", "cert", "key", "crl"];
        let mut files = Vec::new();
        let mut file = |owner: FileOwner, key, within: &Pointer, or_else: &Pointer| {
            let at = within.key(key);
            let is_there = document.key_place(&at) != document.key_place(within);
            let span = if is_there {
                document.place(&at)
            } else {
                document.key_place(or_else)
            };
            files.push(FilePlace { owner, key, span });
        };
        for entry in &self.listeners {
            let owner = FileOwner::Listener(Arc::clone(&entry.name));
            for (section, key) in LISTENER {
                let section = entry.at.key(section);
                file(owner.clone(), key, &section, &section);
            }
        }
        for entry in &self.upstreams {
            let owner = FileOwner::Upstream(Arc::clone(&entry.name));
            for key in UPSTREAM {
                file(owner.clone(), key, &entry.at, &entry.at.key("tls"));
            }
            let sasl = entry.at.key("sasl");
            file(owner, "password_file", &sasl, &sasl);
        }
        let audit = Pointer::default().key("access").key("audit");
        file(FileOwner::Audit, "file", &audit, &audit);
        files
    }

    /// Lines and places of the access rules.
    fn rule_places(&self) -> Vec<(usize, Pointer)> {
        let drafts = self.access.iter().flat_map(|access| &access.rules);
        let places = drafts.filter_map(|it| Some((it.value.as_ref()?.line, it.at.clone())));
        places.collect()
    }

    fn finish(self, document: &Document<'_>) -> Option<Policy> {
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
        let mut upstreams = Vec::new();
        let mut templates = Vec::new();
        for entry in self.upstreams {
            match entry.value? {
                Destination::Fixed(upstream) => upstreams.push(upstream),
                Destination::Template(template) => templates.push(template),
            }
        }
        Some(Policy {
            digest: document.digest(),
            daemon: self.daemon?,
            listeners: self
                .listeners
                .into_iter()
                .map(|entry| entry.value)
                .collect::<Option<_>>()?,
            upstreams,
            templates,
            identities,
            trusted_forwarders: self.trusted_forwarders?,
            routes: self
                .routes
                .into_iter()
                .map(|(_, route)| route)
                .collect::<Option<_>>()?,
            identity_order: self.identity_order,
            access: Access::new(match self.access {
                Some(access) => Some(access.finish()?),
                None => None,
            }),
        })
    }
}

struct Compiler<'a, 'd> {
    document: &'a Document<'d>,
    env: &'a dyn Fn(&str) -> Option<String>,
    flaws: Flaws,
    /// `regex:` patterns so far.
    regexes: usize,
    problems: &'a mut Vec<Problem>,
}

/// Names of a section and their places in it.
type Names = HashMap<Arc<str>, usize>;

/// What routes can name, looked up once for all of them.
struct Scope<'a> {
    listeners: &'a [Entry<Arc<Listener>>],
    listener_names: Names,
    upstreams: &'a [Entry<Destination>],
    upstream_names: Names,
    identity_names: &'a Names,
}

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
                    max_unauthenticated: None,
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
        let identity_order = self.identity_order(&identities);
        let identity_lines = identities
            .iter()
            .map(|entry| self.document.line(&self.document.key_place(&entry.at)))
            .collect();
        let trusted_forwarders = self
            .names(
                file.trusted_forwarders.as_ref(),
                "identity",
                &root.key("trusted_forwarders"),
                &names,
            )
            .map(Option::unwrap_or_default);
        let scope = Scope {
            listeners: &listeners,
            listener_names: positions(&listeners),
            upstreams: &upstreams,
            upstream_names: positions(&upstreams),
            identity_names: &names,
        };
        let at = root.key("routes");
        let mut routes = Vec::new();
        for (index, route) in file.routes.iter().enumerate() {
            let at = at.index(index);
            let compiled = route
                .0
                .as_ref()
                .and_then(|route| self.route(route, &at, &scope));
            routes.push((at, compiled));
        }
        let access = file.access.as_ref().map(|access| match &access.0 {
            Some(access) => self.access(access, &names),
            // What could not be read must not pass for nothing.
            None => AccessDraft::default(),
        });
        Draft {
            daemon,
            listeners,
            upstreams,
            identities,
            identity_order,
            identity_lines,
            trusted_forwarders,
            routes,
            access,
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
        names.sort_unstable_by_key(|(_, at)| *at);
        self.unknown_name(problem, name, names.iter().map(|(name, _)| *name));
        None
    }

    /// Counts a pattern if it is a regular expression; false if it is one too many.
    fn admit_pattern(&mut self, text: &str, at: &Pointer) -> bool {
        if !text.starts_with(REGEX_PREFIX) {
            return true;
        }
        self.regexes += 1;
        if self.regexes == MAX_REGEXES + 1 {
            let message = format!("more than {MAX_REGEXES} regular expressions");
            self.error("too-many", at, message);
        }
        self.regexes <= MAX_REGEXES
    }

    /// Reports a name that is not among `known`, with the one that was probably meant.
    fn unknown_name<'n>(
        &mut self,
        problem: Problem,
        name: &str,
        known: impl Iterator<Item = &'n str> + Clone,
    ) {
        // What comes after so many is not shown, and looking for suggestions takes time.
        let help = if self.problems.len() >= MAX_PROBLEMS {
            None
        } else if known.clone().next().is_none() {
            Some("none are defined".to_owned())
        } else if let Some(near) = nearest(name, known.clone()) {
            Some(format!("did you mean {}?", quoted(near)))
        } else {
            Some(format!("defined are {}", listing(known)))
        };
        self.problems.push(match help {
            Some(help) => problem.help(help),
            None => problem,
        });
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
    let list = matches!(values, OneOrMany::Many(_));
    values
        .as_slice()
        .iter()
        .enumerate()
        .map(move |(index, value)| (if list { at.index(index) } else { at.clone() }, value))
}
