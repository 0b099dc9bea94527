//! `tests`: imagined clients and calls, read and then tried on the finished policy.

use std::fmt::{Display, Write as _};
use std::sync::Arc;

use super::{Compiler, Draft, elements, positions};
use crate::policy::explain::{AccessExplanation, Ask, Client, Outcome, PermissionVerdict, Verdict};
use crate::policy::facts::ClientFacts;
use crate::policy::model::{Evidence, Listener, Policy};
use crate::policy::raw::{self, Lenient, OneOrMany};
use crate::policy::report::{Problem, listing, quoted};
use crate::policy::yaml::{Document, Pointer};

/// A client with its calls, with places.
#[derive(Debug)]
pub(super) struct SelfTest {
    at: Pointer,
    facts: ClientFacts,
    uri: String,
    can: Vec<(Pointer, Ask)>,
    cannot: Vec<(Pointer, Ask)>,
}

impl Compiler<'_, '_> {
    /// `None` for each that is wrong.
    pub(super) fn self_tests(
        &mut self,
        tests: &[Lenient<raw::SelfTest>],
        draft: &Draft,
    ) -> Vec<Option<SelfTest>> {
        let tests = tests.iter().enumerate();
        tests
            .map(|(index, test)| {
                let at = Pointer::default().key("tests").index(index);
                self.self_test(test.0.as_ref()?, at, draft)
            })
            .collect()
    }

    fn self_test(&mut self, test: &raw::SelfTest, at: Pointer, draft: &Draft) -> Option<SelfTest> {
        let can = self.calls(test.can.as_ref(), &at.key("can"));
        let cannot = self.calls(test.cannot.as_ref(), &at.key("cannot"));
        if test.can.is_none() && test.cannot.is_none() && !self.flaws.incomplete(&at) {
            self.problems.push(
                Problem::error(
                    "test",
                    Some(self.document.place(&at)),
                    "this test asks nothing",
                )
                .help("add `can` or `cannot` with calls, such as `domain:start NAME`"),
            );
            return None;
        }
        let facts = self.facts(&test.client, &at.key("as"));
        let listener = self.listener_of(test, facts.as_ref()?, &at, draft)?;
        let facts = ClientFacts {
            listener: Arc::clone(&listener.name),
            readonly: test.readonly.unwrap_or(listener.readonly),
            ..facts?
        };
        Some(SelfTest {
            at,
            facts,
            uri: test.uri.clone(),
            can: can?,
            cannot: cannot?,
        })
    }

    fn calls(
        &mut self,
        texts: Option<&OneOrMany<raw::CallText>>,
        at: &Pointer,
    ) -> Option<Vec<(Pointer, Ask)>> {
        let (mut calls, mut failed) = (Vec::new(), false);
        for (at, text) in texts.into_iter().flat_map(|texts| elements(texts, at)) {
            match text.0.parse::<Ask>() {
                Ok(ask) => calls.push((at, ask)),
                Err(error) => {
                    let place = Some(self.document.place(&at));
                    let problem = Problem::error("call", place, error.to_string());
                    self.problems.push(match error.help {
                        Some(help) => problem.help(help),
                        None => problem,
                    });
                    failed = true;
                }
            }
        }
        (!failed).then_some(calls)
    }

    fn facts(&mut self, client: &raw::As, at: &Pointer) -> Option<ClientFacts> {
        match as_text(client).parse() {
            Ok(facts) => Some(facts),
            Err(error) => {
                let error: crate::policy::facts::FactsError = error;
                self.error("test", at, format!("there is no such client: {error}"));
                None
            }
        }
    }

    /// The listener that the test names, or the first by which such a client can come.
    fn listener_of<'d>(
        &mut self,
        test: &raw::SelfTest,
        facts: &ClientFacts,
        at: &Pointer,
        draft: &'d Draft,
    ) -> Option<&'d Listener> {
        let listeners = || {
            draft
                .listeners
                .iter()
                .filter_map(|entry| entry.value.as_deref())
        };
        let Some(name) = &test.listener else {
            let first = listeners().find(|listener| unproven(facts, listener).is_none());
            // One that could not be compiled may be it.
            if first.is_none() && listeners().count() == draft.listeners.len() {
                self.problems.push(
                    Problem::error(
                        "test",
                        Some(self.document.place(&at.key("as"))),
                        "no listener can prove all that of a client",
                    )
                    .help(format!(
                        "listeners are {}",
                        listing(listeners().map(|listener| &*listener.name))
                    )),
                );
            }
            return first;
        };
        let known = positions(&draft.listeners);
        let place = self.resolve("listener", &name.0, &at.key("listener"), &known)?;
        let listener = draft.listeners.get(place)?.value.as_deref()?;
        if let Some(what) = unproven(facts, listener) {
            let message = format!("{} proves no {what} of its clients", quoted(&listener.name));
            self.error("test", &at.key("as"), message);
            return None;
        }
        Some(listener)
    }
}

/// What a listener cannot prove of such a client.
fn unproven(facts: &ClientFacts, listener: &Listener) -> Option<&'static str> {
    let wanted = [
        (facts.unix.is_some(), Evidence::Process, "process"),
        (facts.address.is_some(), Evidence::Address, "address"),
        (facts.x509.is_some(), Evidence::Certificate, "certificate"),
        (facts.sasl.is_some(), Evidence::Sasl, "SASL user"),
    ];
    let mut unproven = wanted
        .into_iter()
        .filter(|(wanted, evidence, _)| *wanted && !listener.proves(*evidence));
    unproven.next().map(|(.., what)| what)
}

/// As `explain --as` reads it.
fn as_text(client: &raw::As) -> String {
    let mut pairs = Pairs::default();
    if let Some(unix) = &client.unix {
        pairs.one("user", unix.user.as_ref().map(|it| &it.0));
        pairs.all("group", unix.group.as_ref(), |it| &it.0);
        pairs.one("uid", unix.uid.as_ref());
        pairs.all("gid", unix.gid.as_ref(), |it| it);
        pairs.one("pid", unix.pid.as_ref());
        pairs.one("selinux", unix.selinux.as_ref().map(|it| &it.0));
    }
    if let Some(x509) = &client.x509 {
        pairs.one("dn", x509.dn.as_ref().map(|it| &it.0));
        for (key, values) in [
            ("cn", &x509.cn),
            ("o", &x509.o),
            ("ou", &x509.ou),
            ("c", &x509.c),
            ("l", &x509.l),
            ("st", &x509.st),
            ("email", &x509.email),
            ("dns", &x509.dns),
            ("ip", &x509.ip),
            ("uri", &x509.uri),
            ("san_email", &x509.san_email),
        ] {
            pairs.all(&format!("x509.{key}"), values.as_ref(), |it| &it.0);
        }
        for (key, value) in [
            ("fingerprint", &x509.fingerprint),
            ("issuer", &x509.issuer),
            ("serial", &x509.serial),
        ] {
            pairs.one(&format!("x509.{key}"), value.as_ref().map(|it| &it.0));
        }
    }
    if let Some(sasl) = &client.sasl {
        pairs.one("sasl", Some(&sasl.user.0));
        pairs.one("sasl.mechanism", sasl.mechanism.as_ref().map(|it| &it.0));
    }
    pairs.one("address", client.address.as_ref());
    pairs.0
}

#[derive(Default)]
struct Pairs(String);

impl Pairs {
    fn one(&mut self, key: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            let value = value.to_string().replace('"', "\"\"");
            let comma = if self.0.is_empty() { "" } else { "," };
            // Writing to a string cannot fail.
            let _ = write!(self.0, "{comma}{key}=\"{value}\"");
        }
    }

    fn all<T, D: Display>(
        &mut self,
        key: &str,
        values: Option<&OneOrMany<T>>,
        show: impl Fn(&T) -> &D,
    ) {
        for value in values.iter().flat_map(|values| values.as_slice()) {
            self.one(key, Some(show(value)));
        }
    }
}

/// Tries what the tests say on the policy, and reports what is not so. `rules` has the places of the
/// access rules by their lines.
pub(super) fn run(
    policy: &Policy,
    tests: &[SelfTest],
    rules: &[(usize, Pointer)],
    document: &Document<'_>,
    problems: &mut Vec<Problem>,
) {
    for test in tests {
        let routed = policy.explain(&test.facts, &test.uri).asked.outcome;
        if routed == Outcome::NoRoute {
            // What leads nowhere is refused, whatever it is.
            if !test.can.is_empty() {
                let place = Some(document.place(&test.at.key("uri")));
                let message = format!("no route serves {} to this client", quoted(&test.uri));
                let help = "`virtproxyd explain` tells what keeps each route from matching";
                problems.push(Problem::error("test", place, message).help(help));
            }
            continue;
        }
        let client = Client::of(policy, &test.facts);
        let tried = |calls: &[(Pointer, Ask)], expected: Verdict, problems: &mut Vec<Problem>| {
            for (at, ask) in calls {
                let found = client.explain(ask);
                if found.verdict != expected {
                    let mut problem = failure(&found);
                    problem.span = Some(document.place(at));
                    let line = found.deciding().and_then(|it| it.line);
                    let rule = rules.iter().find(|(known, _)| Some(*known) == line);
                    problems.push(match rule {
                        Some((_, at)) => problem.related(document.place(at), "by this rule"),
                        None => problem,
                    });
                }
            }
        };
        tried(&test.can, Verdict::Allowed, problems);
        tried(&test.cannot, Verdict::Refused, problems);
    }
}

/// A call that came out otherwise than expected.
fn failure(found: &AccessExplanation) -> Problem {
    let call = quoted(&found.asked);
    let deciding = found.deciding();
    match found.verdict {
        Verdict::Allowed => {
            let problem = Problem::error("test", None, format!("this client can {call}"));
            if found.unrestricted {
                problem.help("there is no `access`: whoever is routed may do everything")
            } else {
                problem
            }
        }
        Verdict::Refused => {
            let why = deciding.map(|it| format!(": {} is refused", it.permission));
            let why = why.unwrap_or_default();
            let problem = Problem::error("test", None, format!("this client cannot {call}{why}"));
            match deciding.and_then(|it| it.nearest.as_ref()) {
                Some(near) => problem.help(near.to_string()),
                None => problem,
            }
        }
        Verdict::Depends => {
            let missing: &[&str] = deciding.map_or(&[], |it: &PermissionVerdict| &it.missing);
            let what = listing(missing.iter().copied());
            let message = format!("whether this client can {call} depends on {what}");
            let first = missing.first().copied().unwrap_or_default();
            let help = format!("say it: `{} {first}=...`", found.asked);
            Problem::error("test", None, message).help(help)
        }
    }
}
