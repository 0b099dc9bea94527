//! Identities: named classes of clients, as compiled rules over what is proven of a client.

use std::sync::Arc;

use super::facts::{ClientFacts, SaslFacts, UnixFacts, X509Facts};
use super::known;
use super::model::{Evidence, Listener, Network};
use super::pattern::Pattern;

/// A named class of clients.
#[derive(Debug)]
pub struct Identity {
    /// Its name in the file.
    pub name: Arc<str>,
    /// Line of the file where it is defined, from 1.
    pub line: usize,
    pub(super) rule: Rule,
}

/// Who belongs to an identity.
#[derive(Debug, Clone)]
pub(super) enum Rule {
    Any(Vec<Rule>),
    All(Vec<Rule>),
    Not(Box<Rule>),
    /// The name of the listener matches one of these.
    Listener(Vec<Pattern>),
    /// Another identity, by its place in the file.
    Identity(usize),
    Unix(Box<UnixRule>),
    X509(Box<X509Rule>),
    Sasl(SaslRule),
    /// The client comes from one of these.
    Address(Vec<Network>),
}

/// Conditions on the peer of a UNIX socket: all that are there must hold, each by any of its
/// values.
#[derive(Debug, Clone, Default)]
pub(super) struct UnixRule {
    pub(super) user: Option<Vec<Pattern>>,
    pub(super) group: Option<Vec<Pattern>>,
    pub(super) uid: Option<Vec<IdPattern>>,
    pub(super) gid: Option<Vec<IdPattern>>,
    pub(super) pid: Option<Vec<IdPattern>>,
    pub(super) selinux: Option<Vec<Pattern>>,
}

/// Conditions on a client's certificate: all that are there must hold, each by any of its values
/// and any of the certificate's.
#[derive(Debug, Clone, Default)]
pub(super) struct X509Rule {
    pub(super) dn: Option<Vec<Pattern>>,
    pub(super) cn: Option<Vec<Pattern>>,
    pub(super) o: Option<Vec<Pattern>>,
    pub(super) ou: Option<Vec<Pattern>>,
    pub(super) c: Option<Vec<Pattern>>,
    pub(super) l: Option<Vec<Pattern>>,
    pub(super) st: Option<Vec<Pattern>>,
    pub(super) email: Option<Vec<Pattern>>,
    /// In lower case, but for regular expressions.
    pub(super) dns: Option<Vec<Pattern>>,
    pub(super) ip: Option<Vec<Network>>,
    pub(super) uri: Option<Vec<Pattern>>,
    pub(super) san_email: Option<Vec<Pattern>>,
    /// In lower case without colons.
    pub(super) fingerprint: Option<Vec<String>>,
    pub(super) issuer: Option<Vec<Pattern>>,
    /// In lower case without colons and zeros in front.
    pub(super) serial: Option<Vec<String>>,
}

/// Conditions on who the client is by SASL: all that are there must hold.
#[derive(Debug, Clone, Default)]
pub(super) struct SaslRule {
    pub(super) user: Option<Vec<Pattern>>,
    pub(super) mechanism: Option<Vec<Pattern>>,
}

/// A number, or a pattern over its decimal digits.
#[derive(Debug, Clone)]
pub(super) enum IdPattern {
    Number(u32),
    Digits(Pattern),
}

impl Identity {
    /// Whether it may depend on what only a look at the client's process tells.
    pub(super) fn asks_of_process(&self) -> bool {
        self.rule.asks_of_process()
    }
}

/// The identities that a client has, as a set of their places in the file. Clients with equal
/// sets under one policy are treated alike.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdentitySet(Box<[u64]>);

impl IdentitySet {
    /// Whether identity `index` (its place in [`Policy::identities`](super::model::Policy)) is
    /// one of them.
    #[must_use]
    pub fn contains(&self, index: usize) -> bool {
        self.0
            .get(index / 64)
            .is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    /// Whether any of these is one of them.
    pub(super) fn has_any(&self, identities: &[usize]) -> bool {
        identities.iter().any(|index| self.contains(*index))
    }

    /// Their places in the file.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        (0..self.0.len() * 64).filter(|index| self.contains(*index))
    }

    /// Those of `identities` that `facts` has. `order` has every identity after those that it
    /// refers to, so that each is decided once: a rule that names another twice, which names
    /// another twice, would otherwise double the work at every step.
    pub(super) fn of(facts: &ClientFacts, identities: &[Identity], order: &[usize]) -> Self {
        let mut set = Self(vec![0; identities.len().div_ceil(64)].into());
        for &index in order {
            let Some(identity) = identities.get(index) else {
                continue;
            };
            if identity.rule.holds(facts, &set)
                && let Some(word) = set.0.get_mut(index / 64)
            {
                *word |= 1 << (index % 64);
            }
        }
        set
    }
}

impl Rule {
    fn holds(&self, facts: &ClientFacts, known: &IdentitySet) -> bool {
        match self {
            Self::Any(rules) => rules.iter().any(|rule| rule.holds(facts, known)),
            Self::All(rules) => rules.iter().all(|rule| rule.holds(facts, known)),
            Self::Not(rule) => !rule.holds(facts, known),
            Self::Listener(names) => names.iter().any(|name| name.matches(&facts.listener)),
            Self::Identity(index) => known.contains(*index),
            Self::Unix(rule) => facts.unix.as_ref().is_some_and(|unix| rule.holds(unix)),
            Self::X509(rule) => facts.x509.as_ref().is_some_and(|x509| rule.holds(x509)),
            Self::Sasl(rule) => facts.sasl.as_ref().is_some_and(|sasl| rule.holds(sasl)),
            Self::Address(networks) => facts.address.is_some_and(|address| {
                let address = address.ip();
                networks.iter().any(|network| network.contains(address))
            }),
        }
    }

    /// What the listener alone says: `Some` if clients of listener `name` have or lack this whoever
    /// they are, `None` if it depends. `listener` tells what it can prove of them, `None` if that
    /// is not known. `decided` has the same for the identities decided so far.
    pub(super) fn on_listener(
        &self,
        name: &str,
        listener: Option<&Listener>,
        decided: &[Option<bool>],
    ) -> Option<bool> {
        let answer = |rule: &Self| rule.on_listener(name, listener, decided);
        let if_proven = |evidence| {
            let proves = listener.is_none_or(|listener| listener.proves(evidence));
            if proves { None } else { Some(false) }
        };
        match self {
            Self::Any(rules) => known::any(rules.iter().map(answer)),
            Self::All(rules) => known::all(rules.iter().map(answer)),
            Self::Not(rule) => answer(rule).map(|value| !value),
            Self::Listener(names) => Some(names.iter().any(|pattern| pattern.matches(name))),
            Self::Identity(index) => decided.get(*index).copied().flatten(),
            Self::Unix(_) => if_proven(Evidence::Process),
            Self::X509(_) => if_proven(Evidence::Certificate),
            Self::Sasl(_) => if_proven(Evidence::Sasl),
            Self::Address(_) => if_proven(Evidence::Address),
        }
    }

    /// Whether the answer may depend on what only a look at the client's process tells.
    fn asks_of_process(&self) -> bool {
        match self {
            Self::Any(rules) | Self::All(rules) => rules.iter().any(Self::asks_of_process),
            Self::Not(rule) => rule.asks_of_process(),
            Self::Unix(rule) => {
                rule.group.is_some()
                    || rule.gid.is_some()
                    || rule.pid.is_some()
                    || rule.selinux.is_some()
            }
            Self::Listener(_)
            | Self::Identity(_)
            | Self::X509(_)
            | Self::Sasl(_)
            | Self::Address(_) => false,
        }
    }

    /// The identities that it refers to.
    pub(super) fn references(&self, out: &mut Vec<usize>) {
        match self {
            Self::Any(rules) | Self::All(rules) => {
                for rule in rules {
                    rule.references(out);
                }
            }
            Self::Not(rule) => rule.references(out),
            Self::Identity(index) => out.push(*index),
            _ => {}
        }
    }
}

impl UnixRule {
    fn holds(&self, unix: &UnixFacts) -> bool {
        fn id(patterns: Option<&[IdPattern]>, ids: impl IntoIterator<Item = u32>) -> bool {
            patterns.is_none_or(|patterns| {
                ids.into_iter()
                    .any(|id| patterns.iter().any(|pattern| pattern.matches(id)))
            })
        }
        let gids = std::iter::once(unix.gid).chain(unix.groups.iter().copied());
        // 0 stands for a process that this host cannot name.
        let pid = u32::try_from(unix.pid).ok().filter(|pid| *pid != 0);
        some(self.user.as_deref(), &unix.user)
            && some(
                self.group.as_deref(),
                unix.group.iter().chain(&unix.group_names),
            )
            && id(self.uid.as_deref(), [unix.uid])
            && id(self.gid.as_deref(), gids)
            && id(self.pid.as_deref(), pid)
            && some(self.selinux.as_deref(), &unix.selinux)
    }
}

impl X509Rule {
    fn holds(&self, x509: &X509Facts) -> bool {
        let one = std::slice::from_ref::<String>;
        some(self.dn.as_deref(), one(&x509.dn))
            && some(self.cn.as_deref(), &x509.cn)
            && some(self.o.as_deref(), &x509.o)
            && some(self.ou.as_deref(), &x509.ou)
            && some(self.c.as_deref(), &x509.c)
            && some(self.l.as_deref(), &x509.l)
            && some(self.st.as_deref(), &x509.st)
            && some(self.email.as_deref(), &x509.email)
            && some(self.dns.as_deref(), &x509.dns)
            && some(self.uri.as_deref(), &x509.uri)
            && some(self.san_email.as_deref(), &x509.san_email)
            && some(self.issuer.as_deref(), one(&x509.issuer))
            && self.ip.as_ref().is_none_or(|networks| {
                let within = |ip| networks.iter().any(|network| network.contains(ip));
                x509.ip.iter().copied().any(within)
            })
            && exactly(self.fingerprint.as_deref(), &x509.fingerprint)
            && exactly(self.serial.as_deref(), &x509.serial)
    }
}

impl SaslRule {
    fn holds(&self, sasl: &SaslFacts) -> bool {
        let one = std::slice::from_ref::<String>;
        some(self.user.as_deref(), one(&sasl.user))
            && some(self.mechanism.as_deref(), one(&sasl.mechanism))
    }
}

/// Whether some fact matches some pattern. A condition that is absent holds; a fact that is unknown
/// matches nothing, not even `*`.
fn some<'a>(patterns: Option<&[Pattern]>, facts: impl IntoIterator<Item = &'a String>) -> bool {
    patterns.is_none_or(|patterns| {
        facts
            .into_iter()
            .filter(|fact| !fact.is_empty())
            .any(|fact| patterns.iter().any(|pattern| pattern.matches(fact)))
    })
}

/// The same for a fact that is compared as a whole.
fn exactly(values: Option<&[String]>, fact: &String) -> bool {
    values.is_none_or(|values| !fact.is_empty() && values.contains(fact))
}

impl IdPattern {
    fn matches(&self, id: u32) -> bool {
        match self {
            Self::Number(number) => *number == id,
            Self::Digits(pattern) => pattern.matches(&id.to_string()),
        }
    }
}
