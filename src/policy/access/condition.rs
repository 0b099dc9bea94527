//! Conditions on objects: true, false, or not known while attributes are missing.

use std::fmt;

use super::subject::{Attribute, Attributes, Subject, USAGE_TYPES};
use crate::policy::known;
use crate::policy::pattern::Pattern;
use crate::policy::report::quoted;
use crate::protocol::object::Uuid;

/// What `on` asks of the objects of one class: any of these, each of which asks for all its tests.
#[derive(Debug, Clone)]
pub(in crate::policy) struct Condition(pub(in crate::policy) Vec<Vec<Test>>);

/// A test of one attribute.
#[derive(Debug, Clone)]
pub(in crate::policy) enum Test {
    /// The text matches any of these. An object that has none matches nothing.
    Text(Attribute, Vec<Pattern>),
    /// The UUID is any of these.
    Uuid(Vec<UuidPattern>),
    /// The number is any of these.
    UsageType(Vec<i32>),
}

/// A UUID, or a pattern over its canonical text.
#[derive(Debug, Clone)]
pub(in crate::policy) enum UuidPattern {
    Exactly(Uuid),
    Text(Pattern),
}

impl Condition {
    /// `None`: what is missing decides.
    pub(in crate::policy) fn holds(&self, subject: &Subject<'_>) -> Option<bool> {
        let holds = |tests: &Vec<Test>| known::all(tests.iter().map(|test| test.holds(subject)));
        known::any(self.0.iter().map(holds))
    }

    /// What it looks at.
    pub(in crate::policy) fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::default();
        for test in self.0.iter().flatten() {
            attributes.insert(test.attribute());
        }
        attributes
    }
}

impl Test {
    pub(in crate::policy) fn attribute(&self) -> Attribute {
        match self {
            Self::Text(attribute, _) => *attribute,
            Self::Uuid(_) => Attribute::Uuid,
            Self::UsageType(_) => Attribute::UsageType,
        }
    }

    pub(in crate::policy) fn holds(&self, subject: &Subject<'_>) -> Option<bool> {
        match self {
            Self::Text(attribute, patterns) => subject.text(*attribute).map(|text| {
                !text.is_empty() && patterns.iter().any(|pattern| pattern.matches(&text))
            }),
            Self::Uuid(patterns) => subject
                .uuid
                .map(|uuid| patterns.iter().any(|pattern| pattern.matches(uuid))),
            Self::UsageType(numbers) => subject.usage_type.map(|number| numbers.contains(&number)),
        }
    }
}

impl Test {
    /// Whether this certainly holds wherever `other` does.
    pub(in crate::policy) fn covers(&self, other: &Self, fuel: &mut u64) -> bool {
        match (self, other) {
            (Self::Text(one, wide), Self::Text(other, narrow)) => {
                one == other
                    && narrow
                        .iter()
                        .all(|narrow| wide.iter().any(|wide| wide.covers(narrow, fuel)))
            }
            (Self::Uuid(wide), Self::Uuid(narrow)) => narrow
                .iter()
                .all(|narrow| wide.iter().any(|wide| wide.covers(narrow, fuel))),
            (Self::UsageType(wide), Self::UsageType(narrow)) => {
                narrow.iter().all(|narrow| wide.contains(narrow))
            }
            _ => false,
        }
    }
}

impl Test {
    /// What it asks for, in words.
    pub(in crate::policy) fn wanted(&self) -> String {
        let wanted: Vec<String> = match self {
            Self::Text(_, patterns) => patterns.iter().map(|it| quoted(&it.to_string())).collect(),
            Self::Uuid(patterns) => patterns.iter().map(|it| quoted(&it.to_string())).collect(),
            Self::UsageType(numbers) => {
                let names = numbers.iter().filter_map(|number| {
                    let name = USAGE_TYPES.get(usize::try_from(*number).ok()?)?;
                    Some(quoted(name))
                });
                names.collect()
            }
        };
        wanted.join(" or ")
    }
}

impl fmt::Display for UuidPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(uuid) => uuid.fmt(f),
            Self::Text(pattern) => pattern.fmt(f),
        }
    }
}

impl UuidPattern {
    fn covers(&self, other: &Self, fuel: &mut u64) -> bool {
        match (self, other) {
            (_, Self::Exactly(uuid)) => self.matches(*uuid),
            (Self::Text(wide), Self::Text(narrow)) => wide.covers(narrow, fuel),
            (Self::Exactly(_), Self::Text(_)) => false,
        }
    }

    fn matches(&self, uuid: Uuid) -> bool {
        match self {
            Self::Exactly(known) => *known == uuid,
            Self::Text(pattern) => pattern.matches(&uuid.to_string()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is the failed test")]
mod tests {
    use super::*;
    use crate::policy::access::subject::Owner;
    use crate::protocol::object::Class;

    fn text(attribute: Attribute, pattern: &str) -> Test {
        Test::Text(attribute, vec![Pattern::parse(pattern).unwrap()])
    }

    /// Every condition of up to two alternatives of up to two tests, against all that the missing
    /// attributes might be.
    #[test]
    fn a_condition_is_known_if_nothing_missing_can_change_it() {
        let subject = Subject {
            name: Some("known"),
            ..Subject::of(Class::Domain)
        };
        let values = [Some(true), Some(false), None];
        let test = |value: Option<bool>| match value {
            Some(true) => text(Attribute::Name, "known"),
            Some(false) => text(Attribute::Name, "other"),
            None => text(Attribute::Owner, "acme"),
        };
        let mut alternatives: Vec<Vec<Option<bool>>> = Vec::new();
        for one in values {
            alternatives.push(vec![one]);
            alternatives.extend(values.map(|two| vec![one, two]));
        }
        let mut conditions: Vec<Vec<Vec<Option<bool>>>> = Vec::new();
        for one in &alternatives {
            conditions.push(vec![one.clone()]);
            conditions.extend(
                alternatives
                    .iter()
                    .map(|two| vec![one.clone(), two.clone()]),
            );
        }
        for written in conditions {
            // All tests on the owner are the same one, so they are true or false together.
            let meaning = |owner: bool| {
                let holds = |value: &Option<bool>| value.unwrap_or(owner);
                written.iter().any(|tests| tests.iter().all(holds))
            };
            let expected = (meaning(true) == meaning(false)).then(|| meaning(true));
            let tests = written.iter();
            let tests = tests.map(|tests| tests.iter().map(|value| test(*value)).collect());
            let condition = Condition(tests.collect());
            assert_eq!(condition.holds(&subject), expected, "{written:?}");
        }
    }

    #[test]
    fn what_an_object_has_not_matches_nothing() {
        let unowned = Subject {
            owner: Owner::None,
            usage: Some(""),
            ..Subject::of(Class::Domain)
        };
        let holds = |test: Test, subject: &Subject<'_>| Condition(vec![vec![test]]).holds(subject);
        assert_eq!(holds(text(Attribute::Owner, "*"), &unowned), Some(false));
        assert_eq!(holds(text(Attribute::Usage, "*"), &unowned), Some(false));
        assert_eq!(holds(text(Attribute::Key, "*"), &unowned), None);
        let owned = Subject {
            owner: Owner::Is("acme"),
            ..unowned
        };
        assert_eq!(holds(text(Attribute::Owner, "ac*"), &owned), Some(true));
    }

    #[test]
    fn hardware_addresses_and_uuids_have_no_case() {
        let subject = Subject {
            mac: Some("52:54:00:AA:bb:01"),
            uuid: Some("7A3B1C9E-0a3c-4f21-9b66-2a54b1f2c6d8".parse().unwrap()),
            ..Subject::of(Class::Interface)
        };
        let mac = text(Attribute::Mac, "52:54:00:aa:*");
        assert_eq!(mac.holds(&subject), Some(true));
        let uuid = |pattern| Test::Uuid(vec![pattern]).holds(&subject);
        let exactly = "7a3b1c9e0a3c4f219b662a54b1f2c6d8".parse().unwrap();
        assert_eq!(uuid(UuidPattern::Exactly(exactly)), Some(true));
        let glob = Pattern::parse("7a3b1c9e-*").unwrap();
        assert_eq!(uuid(UuidPattern::Text(glob)), Some(true));
        let usage = Test::UsageType(vec![1, 2]);
        assert_eq!(usage.holds(&subject), None);
    }
}
