//! What one set of identities may do: an answer per procedure, and where that depends, the decision
//! on one permission and object.

mod gates;

use std::sync::Arc;

use super::needs::{self, PROGRAMS, needs};
use super::permission::Permission;
use super::rule::{OwnerMark, Quota, RuleId, RuleRef, Rules};
use super::ruling::{Allowed, Denial, Gate, Ruling};
use super::subject::{Attribute, Attributes, Owner, Subject};
use crate::policy::identity::IdentitySet;
use crate::policy::known;
use crate::protocol::header::{Procedure, Program};
use crate::protocol::object::Class;
use gates::{Verdict, verdict};

/// What a client may do under one policy generation.
#[derive(Debug)]
pub struct Table {
    standing: Standing,
    rules: Arc<Rules>,
    /// By [`Permission::index`]; empty unless rules decide.
    permissions: Vec<Entry>,
    /// By place in [`PROGRAMS`] and the procedure's number; empty unless rules decide.
    gates: Vec<Vec<Gate>>,
    /// What is not in `gates`.
    other: Gate,
    asks: Vec<(Class, Attributes)>,
    /// Places of the client's quotas.
    quotas: Vec<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Without rules, everything is allowed.
    Open,
    /// Nothing is: it cannot be told which rules are for this client.
    Closed,
    Rules,
}

/// What the rules say of one permission.
#[derive(Debug, Default)]
struct Entry {
    /// Places of the rules that allow it.
    allow: Vec<usize>,
    /// Places of the rules that deny it.
    deny: Vec<usize>,
    verdict: Verdict,
}

impl Table {
    /// For everyone, where there are no rules.
    pub(super) fn open() -> Self {
        Self::without_rules(Standing::Open, Arc::default(), Gate::Relay)
    }

    /// For clients of which it cannot be told which rules are for them.
    pub(super) fn closed(rules: Arc<Rules>) -> Self {
        let other = match rules.shadow {
            true => Gate::Judge,
            false => Gate::Refuse(Denial::of_client(None)),
        };
        Self::without_rules(Standing::Closed, rules, other)
    }

    fn without_rules(standing: Standing, rules: Arc<Rules>, other: Gate) -> Self {
        Self {
            standing,
            rules,
            permissions: Vec::new(),
            gates: Vec::new(),
            other,
            asks: Vec::new(),
            quotas: Vec::new(),
        }
    }

    /// For clients with these identities.
    pub(super) fn of(rules: Arc<Rules>, identities: &IdentitySet) -> Self {
        let mut permissions: Vec<Entry> = Vec::new();
        permissions.resize_with(Permission::COUNT, Entry::default);
        let mut asks: Vec<(Class, Attributes)> = Vec::new();
        let (mut everything, mut denies) = (false, false);
        for (place, rule) in rules.rules.iter().enumerate() {
            if !rule.serves(identities) {
                continue;
            }
            denies |= rule.is_deny() && (!rule.shadow || rules.shadow);
            everything |= rule.allows_everything();
            for permission in rule.permissions.iter() {
                if let Some(entry) = permissions.get_mut(permission.index()) {
                    match rule.is_deny() {
                        true => entry.deny.push(place),
                        false => entry.allow.push(place),
                    }
                }
            }
            for (class, condition) in &rule.on {
                add_asked(&mut asks, *class, condition.attributes());
            }
        }
        for (permission, entry) in Permission::all().zip(&mut permissions) {
            entry.verdict = verdict(&rules, permission, entry);
        }
        let quotas = rules.quotas.iter().enumerate();
        let quotas = quotas.filter(|(_, quota)| identities.contains(quota.identity));
        let quotas: Vec<usize> = quotas.map(|(place, _)| place).collect();
        let limits_volumes = |place: &usize| {
            let quota = rules.quotas.get(*place);
            quota.is_some_and(|quota| !quota.volumes.is_empty())
        };
        if quotas.iter().any(limits_volumes) {
            // Pools are told apart by their names.
            let mut name = Attributes::default();
            name.insert(Attribute::Name);
            add_asked(&mut asks, Class::StoragePool, name);
        }
        let mut table = Self {
            standing: Standing::Rules,
            other: Gate::Relay,
            permissions,
            gates: Vec::new(),
            asks,
            quotas,
            rules,
        };
        if !everything || denies {
            table.other = table.refuse(Denial::of_procedure());
        }
        table.gates = table.make_gates();
        table
    }

    /// What may be said of a call by its procedure alone.
    #[must_use]
    pub fn gate(&self, program: Program, procedure: Procedure) -> Gate {
        let known = || {
            let place = PROGRAMS.iter().position(|known| *known == program)?;
            self.gates.get(place)?.get(needs::row(procedure)?)
        };
        match (self.standing, known()) {
            (_, Some(gate)) => *gate,
            (Standing::Closed, None)
                if needs(program, procedure).is_some_and(|needs| needs.permissions.is_empty()) =>
            {
                Gate::Relay
            }
            (_, None) => self.other,
        }
    }

    /// Decides on one permission and object as far as it is known.
    #[must_use]
    pub fn decide(&self, permission: Permission, subject: &Subject<'_>) -> Ruling {
        self.rule_on(permission, subject, Asked::Call)
    }

    /// The same when nothing more can be learned of the object: what is not known keeps rules from
    /// allowing, not from denying. Never [`Ruling::Unknown`].
    #[must_use]
    pub fn settle(&self, permission: Permission, subject: &Subject<'_>) -> Ruling {
        self.rule_on(permission, subject, Asked::LastTime)
    }

    /// Whether a permission is granted on an object of which nothing more can be learned, be it
    /// only because a rule is in shadow.
    #[must_use]
    pub fn allows(&self, permission: Permission, subject: &Subject<'_>) -> bool {
        matches!(self.settle(permission, subject), Ruling::Allow(_))
    }

    /// Whether the client may see an object of which nothing more can be learned.
    #[must_use]
    pub fn shows(&self, subject: &Subject<'_>) -> bool {
        self.allows(Permission::getattr(subject.class), subject)
    }

    /// Whether the object is there for this client.
    #[must_use]
    pub fn visible(&self, subject: &Subject<'_>) -> Ruling {
        self.passes(Permission::getattr(subject.class), subject)
    }

    /// Whether a reply or event may tell of an object, which needs `permission`. Guards do not
    /// matter: they limit what a client sends, not what it sees.
    #[must_use]
    pub fn passes(&self, permission: Permission, subject: &Subject<'_>) -> Ruling {
        self.rule_on(permission, subject, Asked::Reply)
    }

    /// Decides on a procedure that is not known.
    #[must_use]
    pub fn decide_unknown(&self) -> Ruling {
        match (self.standing, self.other) {
            (_, Gate::Relay) => Ruling::Allow(Allowed::default()),
            (_, Gate::Refuse(denial)) => Ruling::Deny(denial),
            (Standing::Closed, Gate::Judge) => self.deny(Denial::of_client(None)),
            (_, Gate::Judge) => self.deny(Denial::of_procedure()),
        }
    }

    /// Whether every object of a class is there for this client.
    #[must_use]
    pub fn sees_all(&self, class: Class) -> bool {
        match self.standing {
            Standing::Open => true,
            Standing::Closed => false,
            Standing::Rules => {
                let verdict = self.verdict(Permission::getattr(class));
                matches!(verdict, Verdict::Always { .. })
            }
        }
    }

    /// What the client's rules look at in objects of a class.
    #[must_use]
    pub fn asks(&self, class: Class) -> Attributes {
        let mut asks = self.asks.iter();
        asks.find(|(known, _)| *known == class)
            .map_or_else(Attributes::default, |(_, attributes)| *attributes)
    }

    /// Whether nothing is refused, only recorded.
    #[must_use]
    pub fn is_shadow(&self) -> bool {
        self.rules.shadow
    }

    /// Whether a call that needs `permission` is recorded although it is allowed.
    #[must_use]
    pub fn records(&self, permission: Permission) -> bool {
        self.rules.audit.records(permission)
    }

    /// A rule; `None` if the id is of another generation's.
    #[must_use]
    pub fn rule(&self, id: RuleId) -> Option<RuleRef<'_>> {
        let rule = self.rules.rules.get(usize::try_from(id.0).ok()?)?;
        Some(RuleRef {
            line: rule.line,
            shadow: rule.shadow || self.rules.shadow,
            guards: rule.guards(),
        })
    }

    /// The owner that is written into what this client creates, if the rules stamp it. `subject` is
    /// what is known of the object to be; nothing is stamped that has an owner. The decision is
    /// then that on the object with its owner.
    #[must_use]
    pub fn stamp(&self, permission: Permission, subject: &Subject<'_>) -> Option<&str> {
        if subject.owner != Owner::None {
            return None;
        }
        let allow = self.permissions.get(permission.index())?.allow.iter();
        allow
            .filter_map(|place| self.rules.rules.get(*place))
            .find_map(|rule| {
                let owner = rule.stamp()?;
                let stamped = Subject {
                    owner: Owner::Is(owner),
                    ..*subject
                };
                (rule.is_on(&stamped) != Some(false)).then_some(owner)
            })
    }

    /// Whether rules look at objects of a class that documents refer to: a network that a domain is
    /// on, a secret that unlocks its disk.
    #[must_use]
    pub fn asks_of_references(&self) -> bool {
        let classes = [
            Class::Network,
            Class::Nwfilter,
            Class::Secret,
            Class::StoragePool,
            Class::StorageVol,
        ];
        classes.iter().any(|class| !self.asks(*class).is_empty())
    }

    /// The rules that allow something on some object.
    pub fn grants(&self, permission: Permission) -> impl Iterator<Item = RuleRef<'_>> {
        let entry = self.permissions.get(permission.index());
        let allow = entry.into_iter().flat_map(|entry| &entry.allow);
        allow.filter_map(|place| self.rule(RuleId(u32::try_from(*place).ok()?)))
    }

    /// Where a domain's owner is written. All that are there must agree.
    #[must_use]
    pub fn owner_marks(&self) -> &[OwnerMark] {
        &self.rules.marks
    }

    /// The quotas of the client's identities; all of them count.
    pub fn quotas(&self) -> impl Iterator<Item = &Quota> {
        let quotas = self.quotas.iter();
        quotas.filter_map(|place| self.rules.quotas.get(*place))
    }

    /// Whether an object counts towards a quota: the rules for its identity let it be started,
    /// defined or, as a volume, created. `None`: what is not known decides.
    #[must_use]
    pub fn counts(&self, quota: &Quota, subject: &Subject<'_>) -> Option<bool> {
        let rules = self.rules.rules.iter();
        let making = rules.filter(|rule| rule.makes_for(quota.identity, subject.class));
        known::any(making.map(|rule| rule.is_on(subject)))
    }

    fn verdict(&self, permission: Permission) -> Verdict {
        let entry = self.permissions.get(permission.index());
        entry.map_or(Verdict::Depends, |entry| entry.verdict)
    }

    fn refuse(&self, denial: Denial) -> Gate {
        match self.rules.shadow {
            true => Gate::Judge,
            false => Gate::Refuse(denial),
        }
    }

    fn deny(&self, denial: Denial) -> Ruling {
        match self.rules.shadow {
            true => Ruling::Allow(Allowed {
                shadow: Some(denial.in_shadow()),
                ..Allowed::default()
            }),
            false => Ruling::Deny(denial),
        }
    }

    fn rule_on(&self, permission: Permission, subject: &Subject<'_>, asked: Asked) -> Ruling {
        let Some(entry) = self.permissions.get(permission.index()) else {
            return match self.standing {
                Standing::Open => Ruling::Allow(Allowed::default()),
                _ => self.deny(Denial::of_client(Some(permission))),
            };
        };
        if let Verdict::Never(denial) = entry.verdict {
            return self.deny(denial);
        }
        let rules = &self.rules.rules;
        let at = |place: &usize| rules.get(*place).map(|rule| (id(*place), rule));
        let last = asked == Asked::LastTime;
        let (mut denied, mut shadow) = (Doubt::No, Doubt::No);
        let mut shadow_by = None;
        for (id, rule) in entry.deny.iter().filter_map(at) {
            let in_shadow = rule.shadow && !self.rules.shadow;
            let holds = rule.is_on(subject).or(last.then_some(true));
            match (holds, in_shadow) {
                (Some(false), _) => {}
                (Some(true), false) => return self.deny(Denial::by(id, permission)),
                (Some(true), true) => {
                    shadow_by.get_or_insert(Denial::by(id, permission).in_shadow());
                }
                (None, false) => denied = Doubt::Yes,
                (None, true) => shadow = Doubt::Yes,
            }
        }
        let (mut free, mut guarded, mut allowed) = (None, Vec::new(), Doubt::No);
        for (id, rule) in entry.allow.iter().filter_map(at) {
            match rule.is_on(subject).or(last.then_some(false)) {
                Some(false) => {}
                None => allowed = Doubt::Yes,
                Some(true) if rule.guards().is_some() && asked != Asked::Reply => guarded.push(id),
                Some(true) => {
                    free = Some(id);
                    break;
                }
            }
        }
        let surely = free.is_some() || !guarded.is_empty();
        if !surely && allowed == Doubt::No {
            return self.deny(Denial::of(permission));
        }
        // A rule in doubt may deny; or be without guards, or have those that hold.
        if denied == Doubt::Yes
            || allowed == Doubt::Yes && free.is_none()
            || shadow == Doubt::Yes && shadow_by.is_none()
        {
            return Ruling::Unknown;
        }
        if free.is_some() {
            guarded.clear();
        }
        Ruling::Allow(Allowed {
            rule: free.or(guarded.first().copied()),
            guarded,
            shadow: shadow_by,
        })
    }
}

fn add_asked(asks: &mut Vec<(Class, Attributes)>, class: Class, more: Attributes) {
    match asks.iter_mut().find(|(known, _)| *known == class) {
        Some((_, attributes)) => *attributes |= more,
        None => asks.push((class, more)),
    }
}

/// What a decision is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// A call.
    Call,
    /// A call on an object of which nothing more can be learned.
    LastTime,
    /// An object in a reply.
    Reply,
}

/// Whether what is not known of the object decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    No,
    Yes,
}

fn id(place: usize) -> RuleId {
    // A file has far fewer.
    RuleId(u32::try_from(place).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests;
