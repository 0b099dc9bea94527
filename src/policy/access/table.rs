//! What one set of identities may do: an answer per procedure, and where that depends, the decision
//! on one permission and object.

use std::sync::Arc;

use super::needs::{self, Needs, PROGRAMS, needs};
use super::permission::Permission;
use super::rule::{Quota, Rule, RuleId, RuleRef, Rules};
use crate::policy::guard::OwnerMark;
use super::subject::{Attribute, Attributes, Owner, Subject};
use crate::policy::identity::IdentitySet;
use crate::protocol::header::{Procedure, Program};
use crate::protocol::object::Class;
use crate::protocol::table;

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
    has_guards: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Without rules, everything is allowed.
    Open,
    /// Nothing is: it cannot be told which rules are for this client.
    Closed,
    Rules,
}

/// What may be said of a call by its procedure alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// Allowed whatever its arguments, and the reply may be passed on as it is.
    Relay,
    /// Refused whatever its arguments.
    Refuse(Denial),
    /// It depends on objects, content or arguments, or it must be recorded, or the reply filtered.
    Judge,
}

/// The decision on one permission and object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ruling {
    /// Allowed.
    Allow(Allowed),
    /// Refused.
    Deny(Denial),
    /// What is missing of the object decides.
    Unknown,
}

/// Why something is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Allowed {
    /// The rule that allows it; `None` where there are no rules, or in shadow only.
    pub rule: Option<RuleId>,
    /// Rules any of whose guards the call's content must keep to. None: there is no limit.
    pub guarded: Vec<RuleId>,
    /// What would refuse it, were it enforced.
    pub shadow: Option<Denial>,
}

/// Why something is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denial {
    /// The rule that says so; `None`: none allows it.
    pub rule: Option<RuleId>,
    /// What was wanted; `None` for a procedure that is not known.
    pub permission: Option<Permission>,
    /// Why.
    pub reason: Reason,
    /// It is recorded, not enforced.
    pub shadow: bool,
}

/// Why something is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No rule allows it.
    NotAllowed,
    /// A rule denies it.
    Denied,
    /// The procedure is not known, so that only a client who may do everything may call it.
    UnknownProcedure,
    /// What identities ask for could not be learned of this client.
    UnknownClient,
    /// The content of the call does not keep to the guards of the rule that allows it.
    Guarded,
    /// More would be in use than a quota of the client's allows, or it cannot be told.
    Quota,
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

/// What is to be said of a permission without looking at the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Verdict {
    /// Allowed on every object. `free`: whatever the content, and nothing is stamped.
    Always { free: bool },
    /// Refused on every object.
    Never(Denial),
    #[default]
    Depends,
}

impl Denial {
    /// The content of a call does not keep to a rule's guards.
    #[must_use]
    pub fn of_guards(rule: RuleId, permission: Permission, shadow: bool) -> Self {
        Self {
            rule: Some(rule),
            permission: Some(permission),
            reason: Reason::Guarded,
            shadow,
        }
    }

    /// A quota does not allow a call.
    #[must_use]
    pub fn of_quota(shadow: bool) -> Self {
        Self {
            rule: None,
            permission: None,
            reason: Reason::Quota,
            shadow,
        }
    }
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
            has_guards: false,
        }
    }

    /// For clients with these identities.
    pub(super) fn of(rules: Arc<Rules>, identities: &IdentitySet) -> Self {
        let mut permissions: Vec<Entry> = Vec::new();
        permissions.resize_with(Permission::COUNT, Entry::default);
        let mut asks: Vec<(Class, Attributes)> = Vec::new();
        let (mut everything, mut denies, mut has_guards) = (false, false, false);
        for (place, rule) in rules.rules.iter().enumerate() {
            if !rule.serves(identities) {
                continue;
            }
            has_guards |= rule.guards().is_some();
            denies |= rule.is_deny() && !rule.shadow;
            everything |=
                rule.everything && !rule.is_deny() && rule.on.is_empty() && rule.guards().is_none();
            for permission in rule.permissions.iter() {
                if let Some(entry) = permissions.get_mut(permission.index()) {
                    match rule.is_deny() {
                        true => entry.deny.push(place),
                        false => entry.allow.push(place),
                    }
                }
            }
            for (class, condition) in &rule.on {
                match asks.iter_mut().find(|(known, _)| known == class) {
                    Some((_, attributes)) => *attributes |= condition.attributes(),
                    None => asks.push((*class, condition.attributes())),
                }
            }
        }
        for (permission, entry) in Permission::all().zip(&mut permissions) {
            entry.verdict = verdict(&rules.rules, permission, entry);
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
            match asks.iter_mut().find(|(class, _)| *class == Class::StoragePool) {
                Some((_, attributes)) => *attributes |= name,
                None => asks.push((Class::StoragePool, name)),
            }
        }
        let mut table = Self {
            standing: Standing::Rules,
            other: Gate::Relay,
            permissions,
            gates: Vec::new(),
            asks,
            quotas,
            has_guards,
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
        self.rule_on(permission, subject, false)
    }

    /// The same when nothing more can be learned of the object: what is not known keeps rules from
    /// allowing, not from denying. Never [`Ruling::Unknown`].
    #[must_use]
    pub fn settle(&self, permission: Permission, subject: &Subject<'_>) -> Ruling {
        self.rule_on(permission, subject, true)
    }

    /// Whether the object is there for this client.
    #[must_use]
    pub fn visible(&self, subject: &Subject<'_>) -> Ruling {
        self.decide(Permission::getattr(subject.class), subject)
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

    /// Whether some rule of the client has guards.
    #[must_use]
    pub fn has_guards(&self) -> bool {
        self.has_guards
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
            stamp: rule.stamp(),
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

    /// The rules that allow something on some object.
    pub fn grants(&self, permission: Permission) -> impl Iterator<Item = RuleRef<'_>> {
        let entry = self.permissions.get(permission.index());
        let allow = entry.into_iter().flat_map(|entry| &entry.allow);
        allow.filter_map(|place| self.rule(RuleId(u32::try_from(*place).ok()?)))
    }

    /// Where a domain's owner is written, in order. The first that is there counts.
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
        let mut result = Some(false);
        for rule in &self.rules.rules {
            let has = |who: &Vec<usize>| who.contains(&quota.identity);
            let made =
                |it: Permission| it.class() == subject.class && rule.permissions.contains(it);
            if rule.is_deny() || !rule.who.as_ref().is_some_and(has) || !making().any(made) {
                continue;
            }
            match rule.is_on(subject) {
                Some(true) => return Some(true),
                Some(false) => {}
                None => result = None,
            }
        }
        result
    }

    fn verdict(&self, permission: Permission) -> Verdict {
        let entry = self.permissions.get(permission.index());
        entry.map_or(Verdict::Depends, |entry| entry.verdict)
    }

    fn make_gates(&self) -> Vec<Vec<Gate>> {
        let gate = |program: Program, info: &table::ProcedureInfo| match needs(program, info.number)
        {
            Some(needs) => self.gate_of(program, info.number, needs),
            None => self.other,
        };
        let programs = PROGRAMS.iter();
        programs
            .map(|program| {
                let rows = table::rows(*program).iter();
                rows.map(|info| gate(*program, info)).collect()
            })
            .collect()
    }

    fn gate_of(&self, program: Program, procedure: Procedure, needs: &Needs) -> Gate {
        let has_content = crate::policy::guard::has_content(program, procedure);
        let mut judge = needs.classes().any(|class| !self.sees_all(class));
        if (program, procedure) == (Program::REMOTE, table::remote::NETWORK_GET_DHCP_LEASES) {
            // Leases are of domains, although they name none.
            judge |= !self.sees_all(Class::Domain);
        }
        for need in &needs.permissions {
            let permission = need.permission;
            match self.verdict(permission) {
                // What is hidden is not forbidden: a look-up finds nothing.
                Verdict::Never(denial)
                    if need.condition.is_none()
                        && (permission.class() == Class::Connect
                            || permission.action() != "getattr") =>
                {
                    return self.refuse(denial);
                }
                Verdict::Never(_) | Verdict::Depends => judge = true,
                Verdict::Always { free } => judge |= !free && has_content,
            }
            judge |= self.records(permission) || self.is_limited(permission);
        }
        if let Some(filter) = needs.filter {
            judge |= !matches!(self.verdict(filter), Verdict::Always { .. });
        }
        if judge { Gate::Judge } else { Gate::Relay }
    }

    /// Whether what is done with the permission may count towards a quota.
    fn is_limited(&self, permission: Permission) -> bool {
        self.quotas().any(|quota| match permission.class() {
            Class::Domain => match permission.action() {
                "write" | "save" | "start" | "migrate" | "snapshot" => quota.limits_domains(),
                "block_write" => !quota.volumes.is_empty(),
                _ => false,
            },
            Class::StorageVol => {
                matches!(permission.action(), "create" | "resize" | "data_write")
                    && !quota.volumes.is_empty()
            }
            _ => false,
        })
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

    fn rule_on(&self, permission: Permission, subject: &Subject<'_>, last: bool) -> Ruling {
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
        let (mut shadow, mut deny_in_doubt) = (None, false);
        for (id, rule) in entry.deny.iter().filter_map(at) {
            match rule.is_on(subject) {
                Some(false) => {}
                None if !last => deny_in_doubt = true,
                Some(true) | None => {
                    let denial = Denial::by(id, permission);
                    if !rule.shadow {
                        return self.deny(denial);
                    }
                    shadow.get_or_insert(denial.in_shadow());
                }
            }
        }
        let (mut free, mut guarded, mut allow_in_doubt) = (None, Vec::new(), false);
        for (id, rule) in entry.allow.iter().filter_map(at) {
            match rule.is_on(subject) {
                Some(false) => {}
                None => allow_in_doubt = !last,
                Some(true) if rule.guards().is_some() => guarded.push(id),
                Some(true) => {
                    free = Some(id);
                    break;
                }
            }
        }
        let allowed = free.is_some() || !guarded.is_empty();
        if !allowed && !allow_in_doubt {
            return self.deny(Denial::of(permission));
        }
        // A rule in doubt may be the one whose guards hold, or that has none.
        if deny_in_doubt || allow_in_doubt && free.is_none() {
            return Ruling::Unknown;
        }
        if free.is_some() {
            guarded.clear();
        }
        Ruling::Allow(Allowed {
            rule: free.or(guarded.first().copied()),
            guarded,
            shadow,
        })
    }
}

/// What a client must be allowed for an object to be one of its own.
fn making() -> impl Iterator<Item = Permission> {
    [
        (Class::Domain, "start"),
        (Class::Domain, "save"),
        (Class::StorageVol, "create"),
    ]
    .into_iter()
    .filter_map(|(class, action)| Permission::find(class, action))
}

fn id(place: usize) -> RuleId {
    // A file has far fewer.
    RuleId(u32::try_from(place).unwrap_or(u32::MAX))
}

/// What rules say of a permission whatever the object.
fn verdict(rules: &[Rule], permission: Permission, entry: &Entry) -> Verdict {
    let at = |place: &usize| rules.get(*place).map(|rule| (id(*place), rule));
    let everywhere = |rule: &Rule| rule.condition(permission.class()).is_none();
    let denies = |rule: &Rule| everywhere(rule) && !rule.shadow;
    if let Some((id, _)) = entry
        .deny
        .iter()
        .filter_map(at)
        .find(|(_, rule)| denies(rule))
    {
        return Verdict::Never(Denial::by(id, permission));
    }
    if entry.allow.is_empty() {
        return Verdict::Never(Denial::of(permission));
    }
    if !entry.deny.is_empty() {
        return Verdict::Depends;
    }
    let allows = || {
        entry
            .allow
            .iter()
            .filter_map(at)
            .filter(|(_, rule)| everywhere(rule))
    };
    let stamps = entry
        .allow
        .iter()
        .filter_map(at)
        .any(|(_, rule)| rule.stamp().is_some());
    match allows().next() {
        None => Verdict::Depends,
        Some(_) => Verdict::Always {
            free: !stamps && allows().any(|(_, rule)| rule.guards().is_none()),
        },
    }
}

impl Denial {
    fn by(rule: RuleId, permission: Permission) -> Self {
        Self {
            rule: Some(rule),
            permission: Some(permission),
            reason: Reason::Denied,
            shadow: false,
        }
    }

    fn of(permission: Permission) -> Self {
        Self {
            rule: None,
            permission: Some(permission),
            reason: Reason::NotAllowed,
            shadow: false,
        }
    }

    fn of_procedure() -> Self {
        Self {
            rule: None,
            permission: None,
            reason: Reason::UnknownProcedure,
            shadow: false,
        }
    }

    fn of_client(permission: Option<Permission>) -> Self {
        Self {
            rule: None,
            permission,
            reason: Reason::UnknownClient,
            shadow: false,
        }
    }

    fn in_shadow(self) -> Self {
        Self {
            shadow: true,
            ..self
        }
    }
}
