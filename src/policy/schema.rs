//! The JSON schema of the policy file, generated from the types.

use std::sync::LazyLock;

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use serde_json::Value;

use super::raw;

/// The JSON schema of the policy file, as pretty-printed JSON with a final newline.
#[must_use]
pub fn schema() -> String {
    format!("{:#}\n", *SCHEMA)
}

/// The same, to look things up in.
pub(super) static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
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

/// Takes out what the types have no word for. Above all null: an optional key is absent, never
/// empty, for `clients:` without a value must not mean "everyone".
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
