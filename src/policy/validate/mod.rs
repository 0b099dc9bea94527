//! The file held against its schema.

mod words;

use std::collections::HashSet;
use std::sync::LazyLock;

use jsonschema::Validator;
use jsonschema::error::ValidationErrorKind as Kind;
use serde_json::Value;

use super::report::{Problem, quoted};
use super::schema::SCHEMA;
use super::yaml::{Document, Pointer};
use words::{NAME_HELP, missing_key, unknown_key, wrong_value};

/// Errors looked at of one file; a file with more is refused without looking further.
const MAX_ERRORS: usize = 1000;

/// What the schema found: where values are wrong, so that they can be left out and the rest still
/// be checked.
#[derive(Debug, Default)]
pub(super) struct Flaws {
    /// Keys that do not exist.
    unknown: Vec<Pointer>,
    /// Values not to be used.
    wrong: Vec<Pointer>,
    /// Mappings that lack something or have unknown keys: what they lack may be there under a
    /// wrong name.
    incomplete: HashSet<Pointer>,
    /// There is so much wrong that looking further is not worth its time.
    hopeless: bool,
}

impl Flaws {
    pub(super) fn is_empty(&self) -> bool {
        self.unknown.is_empty() && self.wrong.is_empty() && self.incomplete.is_empty()
    }

    /// Whether to stop here.
    pub(super) fn hopeless(&self) -> bool {
        self.hopeless
    }

    /// Whether the value at `pointer` is not to be used.
    pub(super) fn wrong(&self, pointer: &Pointer) -> bool {
        self.wrong.contains(pointer)
    }

    /// Whether the mapping at `pointer` itself was complained of.
    pub(super) fn incomplete(&self, pointer: &Pointer) -> bool {
        self.incomplete.contains(pointer)
    }

    /// Takes what is wrong out of `value`. What has a name of the administrator's own, and each
    /// element of a list, stays as a null that cannot be read, so that references to it still
    /// find it.
    pub(super) fn prune(&self, value: &mut Value) {
        for pointer in self.unknown.iter().chain(&self.wrong) {
            let Some((parent, key)) = pointer.as_str().rsplit_once('/') else {
                continue;
            };
            let section = parent.is_empty() || self.unknown.contains(pointer);
            if section && let Some(Value::Object(map)) = value.pointer_mut(parent) {
                map.shift_remove(&key.replace("~1", "/").replace("~0", "~"));
            } else if let Some(wrong) = value.pointer_mut(pointer.as_str()) {
                *wrong = Value::Null;
            }
        }
    }
}

/// Holds the file against the schema and reports everything that does not fit.
pub(super) fn validate(
    document: &Document<'_>,
    value: &Value,
    problems: &mut Vec<Problem>,
) -> Flaws {
    let mut flaws = Flaws::default();
    let validator = match &*VALIDATOR {
        Ok(validator) => validator,
        Err(error) => {
            problems.push(Problem::error(
                "schema",
                None,
                format!("internal error: {error}"),
            ));
            flaws.wrong.push(Pointer::default());
            return flaws;
        }
    };
    let mut errors: Vec<_> = validator.iter_errors(value).take(MAX_ERRORS).collect();
    flaws.hopeless = errors.len() == MAX_ERRORS
        || errors.iter().any(|error| {
            matches!(
                error.kind(),
                Kind::MaxProperties { .. } | Kind::MaxItems { .. }
            ) && error.instance_path().as_str().matches('/').count() == 1
        });
    // Unknown keys first: one of them may be what is missing, misspelt.
    errors.sort_by_key(|error| !matches!(error.kind(), Kind::AdditionalProperties { .. }));
    let mut misspelt = HashSet::new();
    for error in &errors {
        let at = Pointer::from_text(error.instance_path().as_str());
        let wanted = wanted(error.schema_path().as_str());
        if let Kind::AdditionalProperties { unexpected } = error.kind() {
            flaws.incomplete.insert(at.clone());
            for name in unexpected {
                let (problem, meant) = unknown_key(document, &at, name, wanted);
                problems.push(problem);
                misspelt.extend(meant.map(|meant| at.key(&meant)));
                flaws.unknown.push(at.key(name));
            }
        } else if let Kind::Required { property } = error.kind() {
            let name = property.as_str().unwrap_or_default();
            flaws.incomplete.insert(at.clone());
            if !misspelt.contains(&at.key(name)) {
                problems.push(missing_key(document, &at, name, wanted));
            }
        } else if let Kind::PropertyNames { error } = error.kind() {
            let name = error.instance().as_str().unwrap_or_default().to_owned();
            let place = Some(document.key_place(&at.key(&name)));
            let message = format!("{} is no name", quoted(&name));
            problems.push(Problem::error("name", place, message).help(NAME_HELP.as_str()));
            flaws.wrong.push(at.key(&name));
        } else {
            flaws.incomplete.insert(parent(&at));
            problems.extend(wrong_value(
                document,
                &at,
                error.instance(),
                error.kind(),
                wanted,
            ));
            flaws.wrong.push(at);
        }
    }
    flaws
}

static VALIDATOR: LazyLock<Result<Validator, String>> =
    LazyLock::new(|| jsonschema::validator_for(&SCHEMA).map_err(|error| error.to_string()));

/// The part of the schema that has the keyword at `path`.
fn wanted(path: &str) -> &'static Value {
    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    SCHEMA.pointer(parent).unwrap_or(&Value::Null)
}

fn parent(at: &Pointer) -> Pointer {
    Pointer::from_text(
        at.as_str()
            .rsplit_once('/')
            .map_or("", |(parent, _)| parent),
    )
}
