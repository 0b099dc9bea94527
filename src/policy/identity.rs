//! Identities: named classes of clients, as compiled rules over what is proven of a client.

use std::sync::Arc;

use super::facts::{ClientFacts, UnixFacts};
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

/// A number, or a pattern over its decimal digits.
#[derive(Debug, Clone)]
pub(super) enum IdPattern {
    Number(u32),
    Digits(Pattern),
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
        }
    }

    /// What the listener alone says: `Some` if clients of `listener` have or lack this whoever
    /// they are, `None` if it depends. `known` has the same for the identities decided so far.
    pub(super) fn on_listener(&self, listener: &str, known: &[Option<bool>]) -> Option<bool> {
        // Any one that decides does; else all must agree.
        let fold = |rules: &[Self], decisive: bool| {
            let mut sure = Some(!decisive);
            for rule in rules {
                match rule.on_listener(listener, known) {
                    Some(value) if value == decisive => return Some(decisive),
                    Some(_) => {}
                    None => sure = None,
                }
            }
            sure
        };
        match self {
            Self::Any(rules) => fold(rules, true),
            Self::All(rules) => fold(rules, false),
            Self::Not(rule) => rule.on_listener(listener, known).map(|value| !value),
            Self::Listener(names) => Some(names.iter().any(|name| name.matches(listener))),
            Self::Identity(index) => known.get(*index).copied().flatten(),
            Self::Unix(_) => None,
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
            Self::Listener(_) | Self::Unix(_) => {}
        }
    }
}

impl UnixRule {
    fn holds(&self, unix: &UnixFacts) -> bool {
        // A condition that is absent holds; a fact that is unknown matches nothing.
        fn text(patterns: Option<&[Pattern]>, fact: Option<&str>) -> bool {
            patterns.is_none_or(|patterns| {
                fact.is_some_and(|fact| patterns.iter().any(|pattern| pattern.matches(fact)))
            })
        }
        fn id(patterns: Option<&[IdPattern]>, ids: impl IntoIterator<Item = u32>) -> bool {
            patterns.is_none_or(|patterns| {
                ids.into_iter()
                    .any(|id| patterns.iter().any(|pattern| pattern.matches(id)))
            })
        }
        let gids = std::iter::once(unix.gid).chain(unix.groups.iter().copied());
        // 0 stands for a process that this host cannot name.
        let pid = u32::try_from(unix.pid).ok().filter(|pid| *pid != 0);
        text(self.user.as_deref(), unix.user.as_deref())
            && self.group.as_ref().is_none_or(|patterns| {
                unix.group
                    .iter()
                    .chain(&unix.group_names)
                    .any(|name| patterns.iter().any(|pattern| pattern.matches(name)))
            })
            && id(self.uid.as_deref(), [unix.uid])
            && id(self.gid.as_deref(), gids)
            && id(self.pid.as_deref(), pid)
            && text(self.selinux.as_deref(), unix.selinux.as_deref())
    }
}

impl IdPattern {
    fn matches(&self, id: u32) -> bool {
        match self {
            Self::Number(number) => *number == id,
            Self::Digits(pattern) => pattern.matches(&id.to_string()),
        }
    }
}
