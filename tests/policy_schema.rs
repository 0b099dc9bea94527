//! The committed schema is that of the types.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is the failed test")]

use std::path::Path;

#[test]
fn the_committed_schema_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/routes.schema.json");
    let current = virtproxyd::policy::schema();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &current).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == current,
        "out of date: BLESS=1 cargo test --test policy_schema"
    );
}

#[test]
fn the_schema_is_valid_and_leaves_no_key_open() {
    let schema: serde_json::Value = serde_json::from_str(&virtproxyd::policy::schema()).unwrap();
    jsonschema::meta::validate(&schema).unwrap();
    fn walk(value: &serde_json::Value, at: &str) {
        if let Some(map) = value.as_object() {
            if map.get("type").is_some_and(|kind| kind == "object") {
                assert!(
                    map.contains_key("additionalProperties"),
                    "{at} takes unknown keys"
                );
            }
            assert_ne!(map.get("type"), Some(&"null".into()), "{at} takes null");
            for (key, value) in map {
                walk(value, &format!("{at}/{key}"));
            }
        }
        for (index, value) in value.as_array().into_iter().flatten().enumerate() {
            walk(value, &format!("{at}/{index}"));
        }
    }
    walk(&schema, "");
}
