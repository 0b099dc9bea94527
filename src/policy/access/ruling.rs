//! What a decision says.

use super::permission::Permission;
use super::rule::RuleId;

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

    pub(super) fn by(rule: RuleId, permission: Permission) -> Self {
        Self {
            rule: Some(rule),
            permission: Some(permission),
            reason: Reason::Denied,
            shadow: false,
        }
    }

    pub(super) fn of(permission: Permission) -> Self {
        Self {
            rule: None,
            permission: Some(permission),
            reason: Reason::NotAllowed,
            shadow: false,
        }
    }

    pub(super) fn of_procedure() -> Self {
        Self {
            rule: None,
            permission: None,
            reason: Reason::UnknownProcedure,
            shadow: false,
        }
    }

    pub(super) fn of_client(permission: Option<Permission>) -> Self {
        Self {
            rule: None,
            permission,
            reason: Reason::UnknownClient,
            shadow: false,
        }
    }

    pub(super) fn in_shadow(self) -> Self {
        Self {
            shadow: true,
            ..self
        }
    }
}
