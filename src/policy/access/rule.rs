//! The rules, and everything else that `access` says, as compiled.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use super::condition::Condition;
use super::permission::{Permission, PermissionSet};
use super::subject::Subject;
use crate::policy::guard::Guards;
use crate::policy::identity::IdentitySet;
use crate::policy::pattern::Pattern;
use crate::protocol::object::Class;

/// Everything that `access` says.
#[derive(Debug, Default)]
pub(in crate::policy) struct Rules {
    /// Nothing is refused, only recorded.
    pub(in crate::policy) shadow: bool,
    /// In file order.
    pub(in crate::policy) rules: Vec<Rule>,
    pub(in crate::policy) quotas: Vec<Quota>,
    pub(in crate::policy) marks: Vec<OwnerMark>,
    pub(in crate::policy) audit: Audit,
}

/// One rule.
#[derive(Debug)]
pub(in crate::policy) struct Rule {
    /// Where it begins, from 1.
    pub(in crate::policy) line: usize,
    /// The client must have any of these identities; `None`: everyone.
    pub(in crate::policy) who: Option<Vec<usize>>,
    pub(in crate::policy) effect: Effect,
    pub(in crate::policy) permissions: PermissionSet,
    /// It is about `*`: also about what this version does not know.
    pub(in crate::policy) everything: bool,
    /// What objects of these classes must be like; objects of others may be like anything.
    pub(in crate::policy) on: Vec<(Class, Condition)>,
    /// Its denial and guards are recorded, not enforced.
    pub(in crate::policy) shadow: bool,
}

/// Which way a rule works.
#[derive(Debug)]
pub(in crate::policy) enum Effect {
    Allow {
        guards: Option<Box<Guards>>,
        stamp: Option<String>,
    },
    Deny,
}

impl Rule {
    /// Whether it is for a client with these identities.
    pub(in crate::policy) fn serves(&self, identities: &IdentitySet) -> bool {
        self.who.as_ref().is_none_or(|who| identities.has_any(who))
    }

    /// Whether `who` names this identity.
    pub(in crate::policy) fn names(&self, identity: usize) -> bool {
        let mut who = self.who.iter().flatten();
        who.any(|index| *index == identity)
    }

    /// What it asks of objects of a class.
    pub(in crate::policy) fn condition(&self, class: Class) -> Option<&Condition> {
        let mut on = self.on.iter();
        on.find(|(known, _)| *known == class).map(|(_, on)| on)
    }

    /// Whether the object is one that it is about; `None`: what is not known decides.
    pub(in crate::policy) fn is_on(&self, subject: &Subject<'_>) -> Option<bool> {
        match self.condition(subject.class) {
            None => Some(true),
            Some(condition) => condition.holds(subject),
        }
    }

    pub(in crate::policy) fn guards(&self) -> Option<&Guards> {
        match &self.effect {
            Effect::Allow { guards, .. } => guards.as_deref(),
            Effect::Deny => None,
        }
    }

    pub(in crate::policy) fn stamp(&self) -> Option<&str> {
        match &self.effect {
            Effect::Allow { stamp, .. } => stamp.as_deref(),
            Effect::Deny => None,
        }
    }

    /// Whether objects of a class that it is about count towards the quotas of an identity: it names
    /// the identity and lets it make such objects.
    pub(in crate::policy) fn makes_for(&self, identity: usize, class: Class) -> bool {
        let mut making = self.permissions.intersection(&MAKING).iter();
        !self.is_deny() && self.names(identity) && making.any(|it| it.class() == class)
    }

    /// Whether it allows everything, whatever the object and the content.
    pub(in crate::policy) fn allows_everything(&self) -> bool {
        let free = matches!(self.effect, Effect::Allow { guards: None, .. });
        self.everything && self.on.is_empty() && free
    }

    pub(in crate::policy) fn is_deny(&self) -> bool {
        matches!(self.effect, Effect::Deny)
    }
}

/// Permissions to make what quotas count.
static MAKING: LazyLock<PermissionSet> = LazyLock::new(|| {
    let makes = |it: &Permission| {
        matches!(
            (it.class(), it.action()),
            (Class::Domain, "start" | "save") | (Class::StorageVol, "create")
        )
    };
    Permission::all().filter(makes).collect()
});

/// A rule of one policy generation, by its place in the file.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(pub(super) u32);

/// What a decision says of a rule that it rests on.
#[derive(Copy, Clone, Debug)]
pub struct RuleRef<'a> {
    /// Line of the policy file where it begins, from 1.
    pub line: usize,
    /// Its guards and denials are recorded, not enforced.
    pub shadow: bool,
    /// What the content of calls that it allows must keep to.
    pub guards: Option<&'a Guards>,
}

/// Where the owner of a domain is written in its metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerMark {
    /// XML namespace of the metadata element.
    pub namespace: String,
    /// Names of the elements on the way from it, in the same namespace; empty for itself.
    pub path: Vec<String>,
    /// Name of the attribute that says it; `None`: the text does.
    pub attribute: Option<String>,
}

impl OwnerMark {
    /// XML namespace of our own mark: `<owner>acme</owner>` in it.
    pub const OURS: &'static str = "https://virtproxyd.org/xmlns/owner/1";

    /// Our own mark.
    #[must_use]
    pub fn ours() -> Self {
        Self {
            namespace: Self::OURS.to_owned(),
            path: Vec::new(),
            attribute: None,
        }
    }
}

/// What an identity may use in total. `None` is without limit.
#[derive(Debug, Clone)]
pub struct Quota {
    /// Name of the identity.
    pub who: Arc<str>,
    /// Line of the policy file, from 1.
    pub line: usize,
    /// Domains defined or running.
    pub domains: Option<u64>,
    /// Domains running.
    pub running: Option<u64>,
    /// Virtual CPUs of all of them.
    pub vcpus: Option<u64>,
    /// Memory of all of them, in bytes.
    pub memory: Option<u64>,
    /// Capacity of the volumes, by pool.
    pub volumes: Vec<VolumeQuota>,
    pub(in crate::policy) identity: usize,
}

impl Quota {
    /// Whether it limits domains.
    #[must_use]
    pub fn limits_domains(&self) -> bool {
        self.domains.is_some()
            || self.running.is_some()
            || self.vcpus.is_some()
            || self.memory.is_some()
    }

    /// The limits on volumes in a pool; every one of them counts.
    pub fn of_pool<'a>(&'a self, pool: &'a str) -> impl Iterator<Item = &'a VolumeQuota> {
        self.volumes
            .iter()
            .filter(move |volumes| volumes.covers(pool))
    }
}

/// What an identity may use of the pools of a name.
#[derive(Debug, Clone)]
pub struct VolumeQuota {
    /// Total capacity of its volumes in all pools of that name, in bytes.
    pub bytes: u64,
    pub(in crate::policy) pool: Pattern,
}

impl VolumeQuota {
    /// Whether volumes of this pool count.
    #[must_use]
    pub fn covers(&self, pool: &str) -> bool {
        self.pool.matches(pool)
    }

    /// Which pools it covers, as the policy says it.
    #[must_use]
    pub fn pools(&self) -> String {
        self.pool.to_string()
    }
}

/// What is recorded, and where.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Audit {
    /// Calls that need any of these are recorded also when they are allowed.
    pub allowed: PermissionSet,
    /// File that records are appended to.
    pub file: Option<PathBuf>,
    /// Records go to the journal.
    pub journal: bool,
}

impl Audit {
    /// Whether a call that needs `permission` is recorded although it is allowed.
    #[must_use]
    pub fn records(&self, permission: Permission) -> bool {
        self.allowed.contains(permission)
    }
}
