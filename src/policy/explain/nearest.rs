//! The rule that comes nearest to allowing something.

use std::fmt;

use serde::Serialize;

use crate::policy::access::condition::Test;
use crate::policy::access::rule::{Rule, Rules};
use crate::policy::access::{Attribute, Owner, Permission, Subject};
use crate::policy::identity::IdentitySet;
use crate::policy::model::Policy;
use crate::policy::report::quoted;

/// A rule that would allow something, but for a denial or a few conditions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Nearest {
    /// Line where it begins.
    pub line: usize,
    /// Why it does not; empty if only a denial is in the way.
    pub unmet: Vec<String>,
}

impl fmt::Display for Nearest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = self.line;
        match self.unmet.as_slice() {
            [] => write!(f, "line {line} allows it, but deny wins"),
            unmet => write!(f, "nearest is line {line}, but {}", unmet.join("; ")),
        }
    }
}

/// The allowing rule with the fewest conditions unmet; of several, one that is for the client, then
/// one that names the permission, then the first.
pub(super) fn nearest(
    policy: &Policy,
    rules: &Rules,
    identities: &IdentitySet,
    permission: Permission,
    subject: &Subject<'_>,
) -> Option<Nearest> {
    let allowing = rules.rules.iter().filter(|rule| !rule.is_deny());
    let measured = allowing.map(|rule| {
        let named = rule.permissions.contains(permission);
        let served = rule.serves(identities);
        let tests = failing(rule, permission, subject);
        let count = tests.len() + usize::from(!named) + usize::from(!served);
        ((count, !served, !named), rule, tests)
    });
    let (_, rule, tests) = measured.min_by_key(|(distance, ..)| *distance)?;
    let mut unmet = Vec::new();
    if !rule.permissions.contains(permission) {
        unmet.push(format!(
            "it does not name {}",
            quoted(&permission.to_string())
        ));
    }
    if !rule.serves(identities) {
        let who = rule.who.iter().flatten();
        let names = who.filter_map(|index| policy.identities.get(*index));
        let names: Vec<String> = names.map(|identity| quoted(&identity.name)).collect();
        unmet.push(format!("the client is not {}", names.join(" or ")));
    }
    unmet.extend(tests.into_iter().map(|test| failure(test, subject)));
    Some(Nearest {
        line: rule.line,
        unmet,
    })
}

/// The tests that fail, or might, of the alternative that comes nearest.
fn failing<'r>(rule: &'r Rule, permission: Permission, subject: &Subject<'_>) -> Vec<&'r Test> {
    let Some(condition) = rule.condition(permission.class()) else {
        return Vec::new();
    };
    let fails = |test: &&Test| test.holds(subject) != Some(true);
    let alternatives = condition.0.iter();
    let failing = alternatives.map(|tests| tests.iter().filter(fails).collect::<Vec<_>>());
    failing.min_by_key(Vec::len).unwrap_or_default()
}

fn failure(test: &Test, subject: &Subject<'_>) -> String {
    let key = match test.attribute() {
        Attribute::UsageType => "usage type",
        attribute => attribute.key(),
    };
    let wanted = test.wanted();
    let found = match test.attribute() {
        Attribute::Owner if subject.owner == Owner::None => Some(String::new()),
        Attribute::Uuid => subject.uuid.map(|uuid| uuid.to_string()),
        Attribute::UsageType => subject.usage_type.map(|number| number.to_string()),
        attribute => subject.text(attribute).map(|text| text.into_owned()),
    };
    match found.as_deref() {
        None => format!("its {key} would have to be {wanted}"),
        Some("") => format!("it has no {key}, which would have to be {wanted}"),
        Some(found) => format!("its {key} is {}, not {wanted}", quoted(found)),
    }
}
