//! What access rules say of one call, permission by permission.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::ask::{Ask, What};
use super::nearest::{Nearest, nearest};
use crate::policy::access::rule::Rules;
use crate::policy::access::{Needs, Permission, Ruling, Subject, Table};
use crate::policy::facts::ClientFacts;
use crate::policy::guard;
use crate::policy::identity::IdentitySet;
use crate::policy::model::Policy;
use crate::policy::report::{listing, quoted};
use crate::protocol::object::Class;
use crate::protocol::table::Condition;

/// What the access rules say of one call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AccessExplanation {
    /// What was asked.
    pub asked: String,
    /// The answer.
    pub verdict: Verdict,
    /// The policy has no access rules: whoever is routed may do everything.
    pub unrestricted: bool,
    /// How it comes about.
    pub permissions: Vec<PermissionVerdict>,
    /// The connection is read-only: whatever the rules allow, the daemon refuses changes.
    pub readonly: bool,
}

/// An answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Allowed; if there are guards, while the content keeps to them.
    Allowed,
    /// Refused.
    Refused,
    /// It depends on what was not said of the object.
    Depends,
}

/// What the rules say of one permission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PermissionVerdict {
    /// The permission.
    pub permission: String,
    /// What it is needed for.
    pub role: Role,
    /// The answer on it, as if it were enforced.
    pub verdict: Verdict,
    /// The refusal is recorded only.
    pub shadow: bool,
    /// Line of the rule that says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// Lines of the rules any of whose guards the content must keep to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub guards: Vec<usize>,
    /// Attributes of the object that decide and were not said.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<&'static str>,
    /// The rule that allows it, but for the denial, or comes nearest to that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nearest: Option<Nearest>,
}

/// What a permission is needed for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// To open a connection at all.
    Open,
    /// For the object to be there for this client.
    See,
    /// For the call.
    Call,
    /// For the call, were its arguments like this.
    CallWith(String),
    /// For each object in the reply to be left in it.
    Reply,
}

impl AccessExplanation {
    /// The permission that the answer rests on: the first with that answer.
    #[must_use]
    pub fn deciding(&self) -> Option<&PermissionVerdict> {
        let mut counted = self.permissions.iter().filter(|it| it.counts());
        counted.find(|it| it.verdict == self.verdict)
    }
}

impl Policy {
    /// Explains what the access rules say of one call of a client.
    #[must_use]
    pub fn explain_access(&self, facts: &ClientFacts, ask: &Ask) -> AccessExplanation {
        Client::of(self, facts).explain(ask)
    }
}

/// A client, with what is looked up once for all calls of it that are explained.
pub(in crate::policy) struct Client<'a> {
    policy: &'a Policy,
    table: Arc<Table>,
    identities: IdentitySet,
    readonly: bool,
}

impl<'a> Client<'a> {
    pub(in crate::policy) fn of(policy: &'a Policy, facts: &ClientFacts) -> Self {
        Self {
            policy,
            table: policy.access(facts),
            identities: policy.identities_of(facts),
            readonly: facts.readonly,
        }
    }

    /// What the access rules say of one of its calls.
    pub(in crate::policy) fn explain(&self, ask: &Ask) -> AccessExplanation {
        let rules = self.policy.rules();
        let permissions = rules.map_or_else(Vec::new, |rules| {
            let client = self;
            let explainer = Explainer { client, rules, ask };
            explainer.permissions()
        });
        AccessExplanation {
            asked: ask.text().to_owned(),
            verdict: together(&permissions),
            unrestricted: rules.is_none(),
            permissions,
            readonly: self.readonly,
        }
    }
}

/// What the answers on all permissions come to.
fn together(permissions: &[PermissionVerdict]) -> Verdict {
    let counted = || {
        permissions
            .iter()
            .filter(|it| it.counts())
            .map(|it| it.verdict)
    };
    if counted().any(|verdict| verdict == Verdict::Refused) {
        Verdict::Refused
    } else if counted().any(|verdict| verdict == Verdict::Depends) {
        Verdict::Depends
    } else {
        Verdict::Allowed
    }
}

struct Explainer<'a> {
    client: &'a Client<'a>,
    rules: &'a Rules,
    ask: &'a Ask,
}

impl Explainer<'_> {
    fn permissions(&self) -> Vec<PermissionVerdict> {
        let mut verdicts = Vec::new();
        match self.ask.what {
            What::Permission(permission) => verdicts.push(self.verdict(permission, Role::Call)),
            What::Procedure(..) => {
                if let Some(needs) = self.ask.needs() {
                    self.procedure(needs, &mut verdicts);
                }
            }
        }
        // What comes before the call is only worth saying if it fails.
        let mut before = vec![(Permission::getattr(Class::Connect), Role::Open)];
        let sees = self.ask.class().map(Permission::getattr);
        before.extend(sees.map(|permission| (permission, Role::See)));
        for (permission, role) in before.into_iter().rev() {
            let name = permission.to_string();
            let verdict = self.verdict(permission, role);
            let is_there = verdicts.iter().any(|it| it.permission == name);
            if verdict.verdict != Verdict::Allowed && !is_there {
                verdicts.insert(0, verdict);
            }
        }
        verdicts
    }

    fn procedure(&self, needs: &Needs, verdicts: &mut Vec<PermissionVerdict>) {
        for need in &needs.permissions {
            let role = match &need.condition {
                Some(condition) if !self.ask.holds(condition) => Role::CallWith(shown(condition)),
                _ => Role::Call,
            };
            verdicts.push(self.verdict(need.permission, role));
        }
        if let Some(filter) = needs.filter {
            verdicts.push(self.verdict(filter, Role::Reply));
        }
    }

    fn verdict(&self, permission: Permission, role: Role) -> PermissionVerdict {
        let subject = self.ask.subject(permission.class());
        // Guards are for what carries something.
        let is_bare = match self.ask.what {
            What::Procedure(program, info) => !guard::has_content(program, info.number),
            What::Permission(_) => false,
        };
        let ruling = match role {
            Role::Call | Role::CallWith(_) if !is_bare => {
                self.client.table.decide(permission, &subject)
            }
            _ => self.client.table.passes(permission, &subject),
        };
        let line = |id| Some(self.client.table.rule(id)?.line);
        let mut verdict = PermissionVerdict {
            permission: permission.to_string(),
            role,
            verdict: Verdict::Allowed,
            shadow: false,
            line: None,
            guards: Vec::new(),
            missing: Vec::new(),
            nearest: None,
        };
        let denial = match ruling {
            Ruling::Allow(allowed) => {
                verdict.line = allowed.rule.and_then(line);
                verdict.guards = allowed.guarded.into_iter().filter_map(line).collect();
                verdict.shadow = allowed.shadow.is_some();
                allowed.shadow
            }
            Ruling::Deny(denial) => Some(denial),
            Ruling::Unknown => {
                verdict.verdict = Verdict::Depends;
                verdict.missing = self.missing(permission, &subject);
                None
            }
        };
        if let Some(denial) = denial {
            verdict.verdict = Verdict::Refused;
            verdict.line = denial.rule.and_then(line);
            verdict.nearest = nearest(
                self.client.policy,
                self.rules,
                &self.client.identities,
                permission,
                &subject,
            );
        }
        verdict
    }

    /// Keys of the attributes that the client's rules on a permission ask for in vain.
    fn missing(&self, permission: Permission, subject: &Subject<'_>) -> Vec<&'static str> {
        let rules = self.rules.rules.iter();
        let on = rules
            .filter(|rule| {
                rule.serves(&self.client.identities) && rule.permissions.contains(permission)
            })
            .filter(|rule| rule.is_on(subject).is_none())
            .filter_map(|rule| rule.condition(permission.class()));
        let tests = on.flat_map(|condition| condition.0.iter().flatten());
        let missing = tests.filter(|test| test.holds(subject).is_none());
        let mut attributes: Vec<_> = missing.map(|test| test.attribute()).collect();
        attributes.sort_unstable();
        attributes.dedup();
        attributes.into_iter().map(|it| it.key()).collect()
    }
}

/// `flags & 0x2 == 0x2`
fn shown(condition: &Condition) -> String {
    let Condition { field, mask, value } = condition;
    match *mask {
        u32::MAX => format!("{field} == {value}"),
        mask => format!("{field} & {mask:#x} == {value:#x}"),
    }
}

impl fmt::Display for AccessExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "access: {}", quoted(&self.asked))?;
        if self.unrestricted {
            writeln!(
                f,
                "  there are no access rules: whoever is routed may do everything"
            )?;
        } else if self.permissions.is_empty() {
            writeln!(f, "  no permission is needed")?;
        }
        for permission in &self.permissions {
            permission.fmt(f)?;
        }
        let refusals = self.permissions.iter().filter(|it| it.counts());
        let mut refusals = refusals.filter(|it| it.verdict == Verdict::Refused);
        match self.verdict {
            Verdict::Allowed if self.readonly => writeln!(
                f,
                "  => allowed; but on this read-only connection the daemon refuses all changes"
            ),
            Verdict::Allowed => writeln!(f, "  => allowed"),
            Verdict::Refused if refusals.all(|it| it.shadow) => {
                writeln!(f, "  => allowed in shadow: the refusal is recorded only")
            }
            Verdict::Refused => writeln!(f, "  => refused"),
            Verdict::Depends => writeln!(f, "  => it depends"),
        }
    }
}

impl PermissionVerdict {
    /// Whether the answer on the call depends on it.
    fn counts(&self) -> bool {
        !matches!(self.role, Role::CallWith(_) | Role::Reply)
    }
}

impl fmt::Display for PermissionVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  {}", self.permission)?;
        match &self.role {
            Role::Call => {}
            Role::CallWith(condition) => write!(f, " (if {condition})")?,
            Role::Open => f.write_str(" (to open a connection)")?,
            Role::See => f.write_str(" (to see the object; without, it does not exist)")?,
            Role::Reply => f.write_str(" (of each object in the reply)")?,
        }
        let lines = |lines: &[usize]| {
            let lines: Vec<String> = lines.iter().map(usize::to_string).collect();
            lines.join(" or ")
        };
        match (self.verdict, self.line) {
            (Verdict::Allowed, _) if !self.guards.is_empty() => writeln!(
                f,
                ": allowed while the content keeps to the guards of line {}",
                lines(&self.guards)
            ),
            (Verdict::Allowed, Some(line)) => writeln!(f, ": allowed by line {line}"),
            (Verdict::Allowed, None) => writeln!(f, ": allowed"),
            (Verdict::Refused, line) => {
                match line {
                    Some(line) => writeln!(f, ": refused by line {line}")?,
                    None => writeln!(f, ": refused, no rule allows it")?,
                }
                self.nearest
                    .iter()
                    .try_for_each(|near| writeln!(f, "    {near}"))
            }
            (Verdict::Depends, _) => writeln!(
                f,
                ": depends on {} (add `{}=...`)",
                listing(self.missing.iter().copied()),
                self.missing.first().copied().unwrap_or_default()
            ),
        }
    }
}
