//! Identities: rules with their patterns built and their references resolved and sorted.

use std::sync::Arc;

use super::{Compiler, Entry, Names, elements};
use crate::policy::facts;
use crate::policy::identity::{IdPattern, Rule, SaslRule, UnixRule, X509Rule};
use crate::policy::model::Listener;
use crate::policy::pattern::Pattern;
use crate::policy::raw::{self, OneOrMany};
use crate::policy::report::{Problem, quoted};
use crate::policy::yaml::Pointer;

impl Compiler<'_, '_> {
    pub(super) fn rule(
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
        } else if let Some(x509) = &rule.x509 {
            self.x509_rule(x509, &at.key("x509"))
                .map(Box::new)
                .map(Rule::X509)
        } else if let Some(sasl) = &rule.sasl {
            self.sasl_rule(sasl, &at.key("sasl")).map(Rule::Sasl)
        } else if let Some(networks) = &rule.address {
            self.networks(Some(networks), &at.key("address"))?
                .map(Rule::Address)
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

    fn x509_rule(&mut self, x509: &raw::X509Rule, at: &Pointer) -> Option<X509Rule> {
        let mut part = |patterns: &Option<OneOrMany<raw::PatternText>>, key: &str| {
            self.patterns(patterns.as_ref(), &at.key(key))
        };
        let dn = part(&x509.dn, "dn");
        let cn = part(&x509.cn, "cn");
        let o = part(&x509.o, "o");
        let ou = part(&x509.ou, "ou");
        let c = part(&x509.c, "c");
        let l = part(&x509.l, "l");
        let st = part(&x509.st, "st");
        let email = part(&x509.email, "email");
        let uri = part(&x509.uri, "uri");
        let san_email = part(&x509.san_email, "san_email");
        let issuer = part(&x509.issuer, "issuer");
        let dns = x509.dns.as_ref().map(|dns| dns.map(in_lower_case));
        let dns = self.patterns(dns.as_ref(), &at.key("dns"));
        let ip = self.networks(x509.ip.as_ref(), &at.key("ip"));
        let digits = |text: &str| text.replace(':', "").to_ascii_lowercase();
        let fingerprints = x509.fingerprint.as_ref().map(OneOrMany::as_slice);
        let serials = x509.serial.as_ref().map(OneOrMany::as_slice);
        Some(X509Rule {
            dn: dn?,
            cn: cn?,
            o: o?,
            ou: ou?,
            c: c?,
            l: l?,
            st: st?,
            email: email?,
            dns: dns?,
            ip: ip?,
            uri: uri?,
            san_email: san_email?,
            fingerprint: fingerprints.map(|all| all.iter().map(|text| digits(&text.0)).collect()),
            issuer: issuer?,
            serial: serials.map(|all| {
                let serial = |text: &raw::SerialNumber| facts::serial(&digits(&text.0));
                all.iter().map(serial).collect()
            }),
        })
    }

    fn sasl_rule(&mut self, sasl: &raw::SaslRule, at: &Pointer) -> Option<SaslRule> {
        let user = self.patterns(sasl.user.as_ref(), &at.key("user"));
        let mechanism = self.patterns(sasl.mechanism.as_ref(), &at.key("mechanism"));
        Some(SaslRule {
            user: user?,
            mechanism: mechanism?,
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
            self.unknown_name(problem, &pattern.to_string(), names);
        }
        Some(compiled)
    }

    /// `Some(None)` if the key is absent.
    pub(super) fn patterns(
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
            match self.pattern(&text.0, &at) {
                Some(pattern) => compiled.push(pattern),
                None => failed = true,
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
                raw::Id::Number(number) => Some(IdPattern::Number(*number)),
                raw::Id::Text(text) => match text.parse() {
                    Ok(number) => Some(IdPattern::Number(number)),
                    Err(_) => self.pattern(text, &at).map(IdPattern::Digits),
                },
            };
            match pattern {
                Some(pattern) => compiled.push(pattern),
                None => failed = true,
            }
        }
        (!failed).then_some(Some(compiled))
    }

    pub(super) fn pattern(&mut self, text: &str, at: &Pointer) -> Option<Pattern> {
        if !self.admit_pattern(text, at) {
            return None;
        }
        match Pattern::parse(text) {
            Ok(pattern) => Some(pattern),
            Err(error) => {
                self.error("pattern", at, error);
                None
            }
        }
    }

    /// The identities, each after those that it refers to.
    pub(super) fn identity_order(&mut self, identities: &[Entry<Rule>]) -> Vec<usize> {
        let references = identities.iter().map(|entry| {
            let mut references = Vec::new();
            if let Some(rule) = &entry.value {
                rule.references(&mut references);
            }
            references
        });
        let references = references.collect();
        let places = identities
            .iter()
            .map(|entry| (&*entry.name, entry.at.clone()));
        let places: Vec<(&str, Pointer)> = places.collect();
        let help = "an identity must rest on other conditions than `identity` in the end";
        self.order(&places, references, "identity-cycle", help)
    }
}

/// DNS names know no case; regular expressions do.
fn in_lower_case(text: &raw::PatternText) -> raw::PatternText {
    if Pattern::is_regex(&text.0) {
        text.clone()
    } else {
        raw::PatternText(text.0.to_lowercase())
    }
}
