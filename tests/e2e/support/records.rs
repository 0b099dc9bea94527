//! Audit records, read while they are written.

use std::fs;
use std::path::Path;

use serde_json::Value;

/// The records in a file so far; none if it is not there yet.
pub(crate) fn records_in(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_default();
    // The last line may be on its way.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let lines = whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}
