//! Conditions on objects: true, false, or not known while attributes are missing.

use super::subject::{Attribute, Attributes, Subject};
use crate::policy::pattern::Pattern;
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
        any(self.0.iter().map(|tests| {
            let fails = any(tests
                .iter()
                .map(|test| test.holds(subject).map(|holds| !holds)));
            fails.map(|fails| !fails)
        }))
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

/// True if one is, false if all are, else not known.
fn any(values: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut result = Some(false);
    for value in values {
        match value {
            Some(true) => return Some(true),
            Some(false) => {}
            None => result = None,
        }
    }
    result
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

impl UuidPattern {
    fn matches(&self, uuid: Uuid) -> bool {
        match self {
            Self::Exactly(known) => *known == uuid,
            Self::Text(pattern) => pattern.matches(&uuid.to_string()),
        }
    }
}
