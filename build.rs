//! Turns `src/protocol/procedures.tsv` into the static procedure table.
//!
//! One row of the file becomes one `ProcedureInfo`; each procedure also becomes a named constant,
//! so that code says `remote::CONNECT_OPEN` and a row that vanished does not compile.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a table that cannot be read must stop the build"
)]

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

const TABLE: &str = "src/protocol/procedures.tsv";
const PROGRAMS: [&str; 5] = ["remote", "qemu", "lxc", "admin", "keepalive"];

fn main() {
    println!("cargo::rerun-if-changed={TABLE}");
    println!("cargo::rerun-if-changed=build.rs");
    let text = fs::read_to_string(TABLE).expect("the procedure table is part of the sources");
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    fs::write(Path::new(&out).join("procedures.rs"), generate(&text)).expect("OUT_DIR is writable");
}

fn generate(text: &str) -> String {
    let rows: Vec<Vec<&str>> = text
        .lines()
        .skip(1)
        .map(|line| line.split('\t').collect())
        .collect();
    let mut code = String::new();
    for program in PROGRAMS {
        let mut rows: Vec<&Vec<&str>> = rows.iter().filter(|row| row[0] == program).collect();
        rows.sort_by_key(|row| number(row));
        constants(&mut code, program, &rows);
        table(&mut code, program, &rows);
    }
    code
}

fn constants(code: &mut String, program: &str, rows: &[&Vec<&str>]) {
    writeln!(
        code,
        "/// Procedure numbers of program `{program}`.\npub mod {program} {{"
    )
    .unwrap();
    writeln!(code, "    use crate::protocol::header::Procedure;").unwrap();
    for row in rows {
        let (name, number) = (row[2], number(row));
        writeln!(
            code,
            "    /// `{name}`.\n    pub const {name}: Procedure = Procedure({number});"
        )
        .unwrap();
    }
    writeln!(code, "}}").unwrap();
}

fn table(code: &mut String, program: &str, rows: &[&Vec<&str>]) {
    let name = program.to_uppercase();
    writeln!(
        code,
        "pub(super) static {name}: [ProcedureInfo; {}] = [",
        rows.len()
    )
    .unwrap();
    for row in rows {
        let [_, _, name, kind, priority, stream, acl, filter, _, _] = row[..] else {
            panic!("{TABLE}: row {row:?} has not ten columns");
        };
        writeln!(
            code,
            "    ProcedureInfo {{ number: Procedure({}), name: {name:?}, kind: Kind::{}, \
             priority: Priority::{}, stream: {}, acl: &[{}], filter: {} }},",
            number(row),
            variant(kind),
            variant(priority),
            if stream == "-" {
                "None".into()
            } else {
                format!("Some(Stream::{})", variant(stream))
            },
            acl.split("; ")
                .filter_map(rule)
                .collect::<Vec<_>>()
                .join(", "),
            rule(filter).map_or("None".into(), |rule| format!("Some({rule})")),
        )
        .unwrap();
    }
    writeln!(code, "];").unwrap();
}

/// `domain:write[flags&0x2==0x2]` as a `Rule` literal; `-` and `none` are no rule.
fn rule(text: &str) -> Option<String> {
    if matches!(text, "-" | "none") {
        return None;
    }
    let (permission, condition) = match text.split_once('[') {
        Some((permission, condition)) => (permission, condition.trim_end_matches(']')),
        None => (text, ""),
    };
    let (object, action) = permission.split_once(':').expect("a rule is object:action");
    let condition = if condition.is_empty() {
        "None".into()
    } else {
        let (left, value) = condition
            .split_once("==")
            .expect("a condition is a test of equality");
        let (field, mask) = left.split_once('&').unwrap_or((left, "0xffffffff"));
        format!("Some(Condition {{ field: {field:?}, mask: {mask}, value: {value} }})")
    };
    Some(format!(
        "Rule {{ object: {object:?}, action: {action:?}, condition: {condition} }}"
    ))
}

fn number(row: &[&str]) -> i32 {
    row[1].parse().expect("a procedure number")
}

fn variant(word: &str) -> String {
    word[..1].to_uppercase() + &word[1..]
}
