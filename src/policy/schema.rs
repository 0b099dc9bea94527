//! The JSON schema of the policy file, generated from the types, and its errors in words.

use std::collections::HashSet;
use std::sync::LazyLock;

use jsonschema::Validator;
use jsonschema::error::ValidationErrorKind as Kind;
use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use serde_json::Value;

use super::raw;
use super::report::{Problem, listing, nearest, quoted};
use super::yaml::{Document, Pointer};

/// What the language has a place for but this version does not do: by the list or mapping that
/// the key is in and its name. Ignoring one would leave open what the file closes.
const NOT_YET: &[(&str, &str, &str)] = &[
    (
        "",
        "access",
        "access rules are not enforced by this version",
    ),
    ("", "tests", "policy tests are not run by this version"),
    (
        "routes",
        "drivers",
        "routing by driver is not done by this version",
    ),
    (
        "listeners",
        "tcp",
        "this version listens on UNIX sockets only",
    ),
    (
        "listeners",
        "tls",
        "this version listens on UNIX sockets only",
    ),
    (
        "listeners",
        "serves",
        "the admin protocol is not served by this version",
    ),
    (
        "upstreams",
        "tls",
        "this version connects to UNIX sockets only",
    ),
    (
        "upstreams",
        "tcp",
        "this version connects to UNIX sockets only",
    ),
    (
        "upstreams",
        "command",
        "this version connects to UNIX sockets only",
    ),
    (
        "identities",
        "x509",
        "this version knows clients of UNIX sockets only",
    ),
    (
        "identities",
        "sasl",
        "this version knows clients of UNIX sockets only",
    ),
];

/// The JSON schema of the policy file, as pretty-printed JSON with a final newline.
#[must_use]
pub fn schema() -> String {
    format!("{:#}\n", *SCHEMA)
}

/// What the schema found: where values are wrong, so that they can be left out and the rest still
/// be checked.
#[derive(Debug, Default)]
pub(super) struct Flaws {
    /// Values not to be used.
    wrong: Vec<Pointer>,
    /// Mappings that lack something or have unknown keys: what they lack may be there under a
    /// wrong name.
    incomplete: HashSet<Pointer>,
}

impl Flaws {
    pub(super) fn is_empty(&self) -> bool {
        self.wrong.is_empty() && self.incomplete.is_empty()
    }

    /// Whether the mapping at `pointer` itself was complained of.
    pub(super) fn incomplete(&self, pointer: &Pointer) -> bool {
        self.incomplete.contains(pointer)
    }

    /// Takes the wrong values out of `value`. Elements of lists stay, so that numbers keep
    /// meaning the same; they fail to be read.
    pub(super) fn prune(&self, value: &mut Value) {
        for pointer in &self.wrong {
            let Some((parent, key)) = pointer.as_str().rsplit_once('/') else {
                continue;
            };
            if let Some(Value::Object(map)) = value.pointer_mut(parent) {
                map.shift_remove(&key.replace("~1", "/").replace("~0", "~"));
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
    for error in validator.iter_errors(value) {
        let at = Pointer::from_text(error.instance_path().as_str());
        let wanted = wanted(error.schema_path().as_str());
        explain(
            document,
            &at,
            error.instance(),
            error.kind(),
            wanted,
            problems,
            &mut flaws,
        );
    }
    flaws
}

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let generator = SchemaSettings::draft2020_12()
        .with_transform(RecursiveTransform(remove_null))
        .with_transform(RecursiveTransform(flatten_choice))
        .into_generator();
    let mut schema = generator.into_root_schema_for::<raw::File>().to_value();
    // How an unknown `$id` would be resolved is nobody's business here: nothing is fetched.
    if let Value::Object(map) = &mut schema {
        map.remove("$id");
    }
    schema
});

static VALIDATOR: LazyLock<Result<Validator, String>> =
    LazyLock::new(|| jsonschema::validator_for(&SCHEMA).map_err(|error| error.to_string()));

/// An optional key is absent, never empty: `clients:` without a value must not mean "everyone".
fn remove_null(schema: &mut Schema) {
    let Some(map) = schema.as_object_mut() else {
        return;
    };
    if let Some(Value::Array(types)) = map.get_mut("type") {
        types.retain(|name| name != "null");
        if let [one] = types.as_slice() {
            let one = one.clone();
            map.insert("type".into(), one);
        }
    }
    if let Some(Value::Array(choices)) = map.get_mut("anyOf") {
        choices.retain(|choice| choice.get("type").is_none_or(|name| name != "null"));
        if let [Value::Object(one)] = choices.as_slice() {
            let one = one.clone();
            map.remove("anyOf");
            map.extend(one);
        }
    }
    if map.get("default").is_some() {
        map.remove("default");
    }
    // Names of Rust's integer types say nothing to an administrator.
    map.remove("format");
}

/// Documented choices become a plain `enum`, whose errors say what the choices are.
fn flatten_choice(schema: &mut Schema) {
    let Some(map) = schema.as_object_mut() else {
        return;
    };
    let Some(Value::Array(choices)) = map.get("oneOf") else {
        return;
    };
    let each = |key: &str| -> Option<Vec<Value>> {
        choices
            .iter()
            .map(|choice| choice.get(key).cloned())
            .collect()
    };
    let (Some(names), Some(descriptions)) = (each("const"), each("description")) else {
        return;
    };
    map.remove("oneOf");
    map.insert("type".into(), "string".into());
    map.insert("enum".into(), names.into());
    map.insert("enumDescriptions".into(), descriptions.into());
}

/// The part of the schema that has the keyword at `path`.
fn wanted(path: &str) -> &'static Value {
    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    SCHEMA.pointer(parent).unwrap_or(&Value::Null)
}

fn explain(
    document: &Document<'_>,
    at: &Pointer,
    found: &Value,
    kind: &Kind,
    wanted: &Value,
    problems: &mut Vec<Problem>,
    flaws: &mut Flaws,
) {
    let place = Some(document.place(at));
    let key = at.tokens().last().unwrap_or_default().into_owned();
    let problem = match kind {
        Kind::AdditionalProperties { unexpected } => {
            flaws.incomplete.insert(at.clone());
            for name in unexpected {
                let at_key = at.key(name);
                problems.push(unknown_key(document, at, &at_key, name, wanted));
                flaws.wrong.push(at_key);
            }
            return;
        }
        Kind::Required { property } => {
            flaws.incomplete.insert(at.clone());
            let name = property.as_str().unwrap_or_default();
            let described = wanted
                .pointer(&format!("/properties/{name}"))
                .and_then(description)
                .map(|text| format!("{}: {text}", quoted(name)));
            // The beginning of the file is a better place than its first key's name.
            let place = if at.as_str().is_empty() {
                None
            } else {
                Some(document.key_place(at))
            };
            let problem =
                Problem::error("missing-key", place, format!("{} is missing", quoted(name)));
            problems.push(if name == "version" {
                problem.help("begin the file with `version: 1`")
            } else if let Some(described) = described {
                problem.help(described)
            } else {
                problem
            });
            return;
        }
        Kind::PropertyNames { error } => {
            let name = error.instance().as_str().unwrap_or_default().to_owned();
            let at_key = at.key(&name);
            problems.push(
                Problem::error(
                    "name",
                    Some(document.key_place(&at_key)),
                    format!("{} is no name", quoted(&name)),
                )
                .help(NAME_HELP.clone()),
            );
            flaws.wrong.push(at_key);
            return;
        }
        Kind::Type { .. } => wrong_type(document, at, &key, found, wanted),
        Kind::Enum { options } => wrong_choice(place, at, found, options),
        Kind::Constant { expected_value } => Problem::error(
            "version",
            place,
            format!("version {found} of the policy language is not known"),
        )
        .help(format!(
            "this version of virtproxyd reads version {expected_value}"
        )),
        Kind::Pattern { .. } => {
            let problem = Problem::error(
                "format",
                place,
                format!("{} is no value for {}", shown(found), quoted(&key)),
            );
            match wanted.get("patternErrorMessage").and_then(Value::as_str) {
                Some(help) => problem.help(help),
                None => problem,
            }
        }
        Kind::MinProperties { .. } | Kind::MaxProperties { .. } => {
            wrong_number_of_keys(document, at, kind, wanted)
        }
        Kind::MinItems { .. } | Kind::MinLength { .. } => Problem::error(
            "empty-value",
            place,
            format!("{} must not be empty", quoted_or_element(&key)),
        ),
        Kind::MaxItems { limit } => {
            Problem::error("too-many", place, format!("more than {limit} elements"))
        }
        Kind::MaxLength { limit } => {
            Problem::error("too-long", place, format!("more than {limit} characters"))
        }
        Kind::Minimum { limit } => Problem::error(
            "out-of-range",
            place,
            format!("{} is at least {limit}", quoted_or_element(&key)),
        ),
        Kind::Maximum { limit } => Problem::error(
            "out-of-range",
            place,
            format!("{} is at most {limit}", quoted_or_element(&key)),
        ),
        _ => Problem::error("schema", place, "this does not fit the schema".to_owned()),
    };
    let fatal_for = if at.as_str().is_empty() {
        None
    } else {
        Some(at.clone())
    };
    flaws.wrong.extend(fatal_for);
    flaws.incomplete.insert(parent(at));
    problems.push(problem);
}

static NAME_HELP: LazyLock<String> = LazyLock::new(|| {
    let text = SCHEMA
        .pointer("/$defs/Name/patternErrorMessage")
        .and_then(Value::as_str);
    text.unwrap_or_default().to_owned()
});

fn parent(at: &Pointer) -> Pointer {
    Pointer::from_text(
        at.as_str()
            .rsplit_once('/')
            .map_or("", |(parent, _)| parent),
    )
}

fn unknown_key(
    document: &Document<'_>,
    at: &Pointer,
    at_key: &Pointer,
    name: &str,
    wanted: &Value,
) -> Problem {
    let section = at.tokens().next().unwrap_or_default();
    let place = Some(document.key_place(at_key));
    if let Some((_, _, why)) = NOT_YET
        .iter()
        .find(|(within, key, _)| *within == section && *key == name)
    {
        return Problem::error("not-supported", place, format!("{}: {why}", quoted(name)))
            .help("remove it, and rely on nothing that it says");
    }
    let known = wanted.get("properties").and_then(Value::as_object);
    let known: Vec<&str> = known
        .into_iter()
        .flat_map(|map| map.keys())
        .map(String::as_str)
        .collect();
    let problem = Problem::error(
        "unknown-key",
        place,
        format!("unknown key {}", quoted(name)),
    );
    match nearest(name, known.iter().copied()) {
        Some(near) => problem.help(format!("did you mean {}?", quoted(near))),
        None => problem.help(format!("known here: {}", listing(known))),
    }
}

fn wrong_type(
    document: &Document<'_>,
    at: &Pointer,
    key: &str,
    found: &Value,
    wanted: &Value,
) -> Problem {
    let place = document.place(at);
    let types: Vec<&str> = match wanted.get("type") {
        Some(Value::Array(types)) => types.iter().filter_map(Value::as_str).collect(),
        Some(Value::String(one)) => vec![one.as_str()],
        _ => Vec::new(),
    };
    let expected: Vec<&str> = types
        .iter()
        .map(|name| match *name {
            "string" => "text",
            "integer" | "number" => "a whole number",
            "boolean" => "`true` or `false`",
            "array" => "a list",
            "object" => "a mapping",
            other => other,
        })
        .collect();
    let expected = expected.join(" or ");
    if found.is_null() {
        let (message, help) = if at.as_str().is_empty() {
            (
                "the file is empty".to_owned(),
                "begin with `version: 1`".to_owned(),
            )
        } else {
            (
                format!("{} has no value", quoted_or_element(key)),
                format!("write {expected}, or remove it"),
            )
        };
        return Problem::error("empty-value", Some(document.key_place(at)), message).help(help);
    }
    let problem = Problem::error(
        "type",
        Some(place.clone()),
        format!(
            "{} is {expected}, not {}",
            quoted_or_element(key),
            shown(found)
        ),
    );
    let source = document.source(&place);
    let text_wanted = types.contains(&"string");
    match found {
        Value::Number(_) | Value::Bool(_) if text_wanted && key == "mode" => problem.help(format!(
            "put it in quotes: \"{source}\" (YAML would read it as a decimal number)"
        )),
        Value::Number(_) | Value::Bool(_) if text_wanted => {
            problem.help(format!("put it in quotes: \"{source}\""))
        }
        Value::String(text) if types == ["boolean"] => match text.to_lowercase().as_str() {
            "yes" | "on" | "y" => problem.help("write `true`"),
            "no" | "off" | "n" => problem.help("write `false`"),
            _ => problem,
        },
        Value::String(text) if types == ["integer"] && text.parse::<u64>().is_ok() => {
            problem.help("write it without quotes")
        }
        Value::String(_) | Value::Object(_) if types == ["array"] => {
            problem.help("a list is written `[one, two]`, or one element per line after `- `")
        }
        _ => problem,
    }
}

fn wrong_choice(
    place: Option<std::ops::Range<usize>>,
    at: &Pointer,
    found: &Value,
    options: &Value,
) -> Problem {
    let key = at.tokens().last().unwrap_or_default().into_owned();
    let options: Vec<&str> = options
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if key == "auth"
        && found
            .as_str()
            .is_some_and(|name| name == "polkit" || name == "sasl")
    {
        return Problem::error(
            "not-supported",
            place,
            format!(
                "{} authentication is not done by this version",
                shown(found)
            ),
        )
        .help("use `mode`, `group` and identities of `unix` clients to say who may connect");
    }
    let problem = Problem::error(
        "choice",
        place,
        format!("{} is no value for {}", shown(found), quoted(&key)),
    );
    match found
        .as_str()
        .and_then(|text| nearest(text, options.iter().copied()))
    {
        Some(near) => problem.help(format!("did you mean {}?", quoted(near))),
        None => problem.help(format!("known are {}", listing(options))),
    }
}

fn wrong_number_of_keys(
    document: &Document<'_>,
    at: &Pointer,
    kind: &Kind,
    wanted: &Value,
) -> Problem {
    let known = wanted.get("properties").and_then(Value::as_object);
    let place = Some(document.place(at));
    let Some(known) = known else {
        // A section with names of the administrator's choosing.
        let name = at.tokens().last().unwrap_or_default().into_owned();
        return match kind {
            Kind::MaxProperties { limit } => Problem::error(
                "too-many",
                place,
                format!("more than {limit} entries in {}", quoted(&name)),
            ),
            _ => Problem::error(
                "empty-value",
                place,
                format!("{} must not be empty", quoted(&name)),
            ),
        };
    };
    let known = listing(known.keys().map(String::as_str));
    match kind {
        Kind::MaxProperties { .. } => {
            Problem::error("identity", place, "several conditions in one place")
                .help("put them in a list under `all` (every one holds) or `any` (one is enough)")
        }
        _ => Problem::error("empty-value", place, "a condition is missing")
            .help(format!("known here: {known}")),
    }
}

/// The first sentence of what the schema says of a part.
fn description(part: &Value) -> Option<&str> {
    let text = match part.get("description") {
        Some(text) => text.as_str()?,
        None => {
            let target = part.get("$ref")?.as_str()?.strip_prefix('#')?;
            SCHEMA.pointer(target)?.get("description")?.as_str()?
        }
    };
    text.split(". ").next()
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "a mapping".into(),
        Value::Null => "nothing".into(),
        other => quoted(&other.to_string()),
    }
}

/// A key by its name; an element of a list has none.
fn quoted_or_element(key: &str) -> String {
    if key.is_empty() {
        "a policy file".into()
    } else if key.bytes().all(|byte| byte.is_ascii_digit()) {
        "an element of this list".into()
    } else {
        quoted(key)
    }
}
