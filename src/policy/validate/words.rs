//! Errors of the schema in an administrator's words.

use std::sync::LazyLock;

use jsonschema::error::ValidationErrorKind as Kind;
use serde_json::Value;

use crate::policy::report::{Problem, listing, nearest, quoted};
use crate::policy::schema::SCHEMA;
use crate::policy::yaml::{Document, Pointer};

/// What the language has a place for but this version does not do: by the list or mapping that
/// the key is in and its name. Ignoring one would leave open what the file closes.
const NOT_YET: &[(&str, &str, &str)] = &[(
    "listeners",
    "serves",
    "the admin protocol is not served by this version",
)];

pub(super) fn missing_key(
    document: &Document<'_>,
    at: &Pointer,
    name: &str,
    wanted: &Value,
) -> Problem {
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
pub(super) fn wrong_value(
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
            if format_help.is_some() =>
        {
            let help = format_help.unwrap_or_default();
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

/// What a name is.
pub(super) static NAME_HELP: LazyLock<String> = LazyLock::new(|| {
    let text = SCHEMA
        .pointer("/$defs/Name/patternErrorMessage")
        .and_then(Value::as_str);
    text.unwrap_or_default().to_owned()
});

/// Also the key that was meant, if that can be guessed.
pub(super) fn unknown_key(
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
        return (problem, None);
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
    let format = wanted.get("patternErrorMessage").and_then(Value::as_str);
    let choices = wanted.get("enum").and_then(Value::as_array);
    match found {
        // Of a file; that of access rules is a word.
        _ if scalar && key == "mode" && format.is_some() => {
            let digits = source.trim_start_matches("0o").trim_start_matches('0');
            if digits.len() == 3 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'7')) {
                problem.help(format!("in octal and in quotes: \"0{digits}\""))
            } else {
                problem.help("in octal and in quotes, such as \"0660\"")
            }
        }
        _ if scalar && types.contains(&"string") => match (format, choices) {
            (Some(help), _) => problem.help(help),
            (None, Some(choices)) if choices.iter().all(|it| it != source) => {
                let known = choices.iter().filter_map(Value::as_str);
                problem.help(format!("known are {}", listing(known)))
            }
            _ => problem.help(format!("put it in quotes: \"{source}\"")),
        },
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
