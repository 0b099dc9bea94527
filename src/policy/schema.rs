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

/// Errors looked at of one file; a file with more is refused without looking further.
const MAX_ERRORS: usize = 1000;

/// The JSON schema of the policy file, as pretty-printed JSON with a final newline.
#[must_use]
pub fn schema() -> String {
    format!("{:#}\n", *SCHEMA)
}

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

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let generator = SchemaSettings::draft2020_12()
        .with_transform(RecursiveTransform(tidy))
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
fn tidy(schema: &mut Schema) {
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
    // The lines of a comment in the source are no lines of the text.
    if let Some(Value::String(text)) = map.get_mut("description") {
        *text = text.replace('\n', " ");
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

fn missing_key(document: &Document<'_>, at: &Pointer, name: &str, wanted: &Value) -> Problem {
    let place = Some(document.key_place(at));
    let problem = Problem::error("missing-key", place, format!("{} is missing", quoted(name)));
    if name == "version" {
        return problem.help("begin the file with `version: 1`");
    }
    match wanted
        .pointer(&format!("/properties/{name}"))
        .and_then(description)
    {
        Some(text) => problem.help(format!("{}: {text}", quoted(name))),
        None => problem,
    }
}

/// `None` where another error says it all.
fn wrong_value(
    document: &Document<'_>,
    at: &Pointer,
    found: &Value,
    kind: &Kind,
    wanted: &Value,
) -> Option<Problem> {
    let place = Some(document.place(at));
    let key = at.tokens().last().unwrap_or_default().into_owned();
    let subject = subject(&key);
    let error = |code, message: String| Some(Problem::error(code, place.clone(), message));
    let format_help = wanted.get("patternErrorMessage").and_then(Value::as_str);
    match kind {
        Kind::Type { .. } => Some(wrong_type(document, at, &key, found, wanted)),
        // Then the type is the error.
        Kind::Constant { .. } if !found.is_i64() => None,
        Kind::Enum { .. } if !found.is_string() => None,
        Kind::Enum { options } => Some(wrong_choice(place, at, found, options)),
        Kind::Constant { expected_value } => Some(
            Problem::error(
                "version",
                place,
                format!("version {found} of the policy language is not known"),
            )
            .help(format!(
                "this version of virtproxyd reads version {expected_value}"
            )),
        ),
        Kind::Pattern { .. } | Kind::Minimum { .. } | Kind::Maximum { .. }
            if let Some(help) = format_help =>
        {
            let message = format!("{} is no value for {subject}", shown(document, at, found));
            Some(Problem::error("format", place, message).help(help))
        }
        Kind::MinProperties { .. } | Kind::MaxProperties { .. } => {
            Some(wrong_number_of_keys(document, at, kind, wanted))
        }
        Kind::MinItems { .. } | Kind::MinLength { .. } => {
            error("empty-value", format!("{subject} must not be empty"))
        }
        Kind::MaxItems { limit } => error("too-many", format!("more than {limit} elements")),
        Kind::MaxLength { limit } => error("too-long", format!("more than {limit} characters")),
        Kind::Minimum { limit } => error(
            "out-of-range",
            format!("{subject} must be at least {limit}"),
        ),
        Kind::Maximum { limit } => {
            error("out-of-range", format!("{subject} must be at most {limit}"))
        }
        _ => error("schema", "this does not fit the schema".to_owned()),
    }
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

/// Also the key that was meant, if that can be guessed.
fn unknown_key(
    document: &Document<'_>,
    at: &Pointer,
    name: &str,
    wanted: &Value,
) -> (Problem, Option<String>) {
    let section = at.tokens().next().unwrap_or_default();
    let place = Some(document.key_place(&at.key(name)));
    if let Some((_, _, why)) = NOT_YET
        .iter()
        .find(|(within, key, _)| *within == section && *key == name)
    {
        let problem = Problem::error("not-supported", place, format!("{}: {why}", quoted(name)))
            .help("remove it: nothing that it says would be in force");
        // Other kinds of address.
        return (problem, Some("unix".into()));
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
        Some(near) => (
            problem.help(format!("did you mean {}?", quoted(near))),
            Some(near.to_owned()),
        ),
        None => (
            problem.help(format!("known here: {}", listing(known))),
            None,
        ),
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
                format!("{} has no value", subject(key)),
                format!("write {expected}, or remove it"),
            )
        };
        return Problem::error("empty-value", Some(document.key_place(at)), message).help(help);
    }
    let source = document.source(&place);
    let problem = Problem::error(
        "type",
        Some(place),
        format!(
            "{} must be {expected}, not {}",
            subject(key),
            shown(document, at, found)
        ),
    );
    let scalar = found.is_number() || found.is_boolean();
    match found {
        _ if scalar && key == "mode" => {
            let digits = source.trim_start_matches("0o").trim_start_matches('0');
            if digits.len() == 3 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'7')) {
                problem.help(format!("in octal and in quotes: \"0{digits}\""))
            } else {
                problem.help("in octal and in quotes, such as \"0660\"")
            }
        }
        _ if scalar && types.contains(&"string") => {
            match wanted.get("patternErrorMessage").and_then(Value::as_str) {
                Some(help) => problem.help(help),
                None => problem.help(format!("put it in quotes: \"{source}\"")),
            }
        }
        Value::String(text) if types == ["boolean"] => match text.to_lowercase().as_str() {
            "yes" | "on" | "y" | "true" => problem.help("write `true`, without quotes"),
            "no" | "off" | "n" | "false" => problem.help("write `false`, without quotes"),
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
    let found = found.as_str().unwrap_or_default();
    if key == "auth" && (found == "polkit" || found == "sasl") {
        let message = format!(
            "{} authentication is not done by this version",
            quoted(found)
        );
        return Problem::error("not-supported", place, message)
            .help("use `mode`, `group` and identities of `unix` clients to say who may connect");
    }
    let message = format!("{} is no value for {}", quoted(found), subject(&key));
    let problem = Problem::error("choice", place, message);
    match nearest(found, options.iter().copied()) {
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
    text.split(". ")
        .next()
        .map(|sentence| sentence.trim_end_matches('.'))
}

/// What was found, as the file has it.
fn shown(document: &Document<'_>, at: &Pointer, value: &Value) -> String {
    match value {
        Value::String(text) => format!("the text {}", quoted(text)),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "a mapping".into(),
        Value::Null => "nothing".into(),
        Value::Number(_) | Value::Bool(_) => quoted(document.source(&document.place(at))),
    }
}

/// What an error is about: a key by its name; an element of a list has none.
fn subject(key: &str) -> String {
    if key.is_empty() {
        "a policy file".into()
    } else if key.bytes().all(|byte| byte.is_ascii_digit()) {
        "an element of this list".into()
    } else {
        quoted(key)
    }
}
