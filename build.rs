//! Turns `src/protocol/procedures.tsv` and `types.tsv` into the static procedure table.
//!
//! One row of `procedures.tsv` becomes one `ProcedureInfo`; each procedure also becomes a named
//! constant, so that code says `remote::CONNECT_OPEN` and a row that vanished does not compile.
//! One row of `types.tsv` becomes one `Struct`. A field whose type is unknown stops the build.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a table that cannot be read must stop the build"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

const TABLE: &str = "src/protocol/procedures.tsv";
const TYPES: &str = "src/protocol/types.tsv";
const PROGRAMS: [&str; 5] = ["remote", "qemu", "lxc", "admin", "keepalive"];

fn main() {
    println!("cargo::rerun-if-changed={TABLE}");
    println!("cargo::rerun-if-changed={TYPES}");
    println!("cargo::rerun-if-changed=build.rs");
    let table = fs::read_to_string(TABLE).expect("the procedure table is part of the sources");
    let types = fs::read_to_string(TYPES).expect("the types are part of the sources");
    let (table, types) = (rows(&table), Types::read(&types));
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let write = |file, code| fs::write(Path::new(&out).join(file), code);
    write("procedures.rs", procedures(&table, &types)).expect("OUT_DIR is writable");
    write("types.rs", types.code(&table)).expect("OUT_DIR is writable");
}

fn rows(text: &str) -> Vec<Vec<&str>> {
    text.lines()
        .skip(1)
        .map(|line| line.split('\t').collect())
        .collect()
}

fn procedures(rows: &[Vec<&str>], types: &Types<'_>) -> String {
    let mut code = String::new();
    for program in PROGRAMS {
        let mut rows: Vec<&Vec<&str>> = rows.iter().filter(|row| row[0] == program).collect();
        rows.sort_by_key(|row| number(row));
        constants(&mut code, program, &rows);
        table(&mut code, program, &rows, types);
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

fn table(code: &mut String, program: &str, rows: &[&Vec<&str>], types: &Types<'_>) {
    let name = program.to_uppercase();
    writeln!(
        code,
        "pub(super) static {name}: [ProcedureInfo; {}] = [",
        rows.len()
    )
    .unwrap();
    for row in rows {
        let [_, _, name, kind, priority, stream, acl, filter, args, ret] = row[..] else {
            panic!("{TABLE}: row {row:?} has not ten columns");
        };
        writeln!(
            code,
            "    ProcedureInfo {{ number: Procedure({}), name: {name:?}, kind: Kind::{}, \
             priority: Priority::{}, stream: {}, driver: {}, acl: &[{}], filter: {}, \
             args: &[{}], ret: &[{}] }},",
            number(row),
            variant(kind),
            variant(priority),
            if stream == "-" {
                "None".into()
            } else {
                format!("Some(Stream::{})", variant(stream))
            },
            driver(name, acl).map_or("None".into(), |driver| format!("Some(Driver::{driver})")),
            acl.split("; ")
                .filter_map(rule)
                .collect::<Vec<_>>()
                .join(", "),
            rule(filter).map_or("None".into(), |rule| format!("Some({rule})")),
            types.fields(args),
            types.fields(ret),
        )
        .unwrap();
    }
    writeln!(code, "];").unwrap();
}

/// The driver beside the hypervisor's that a procedure or event belongs to. Its access rule names an
/// object of the driver's; one on the connection as a whole says it by its name.
fn driver(name: &str, acl: &str) -> Option<&'static str> {
    // Taking a device from the host for a guest is the hypervisor's work.
    const OF_HYPERVISOR: [&str; 4] = [
        "NODE_DEVICE_DETTACH",
        "NODE_DEVICE_DETACH_FLAGS",
        "NODE_DEVICE_RE_ATTACH",
        "NODE_DEVICE_RESET",
    ];
    // By object, and by what is in the names.
    const DRIVERS: [(&str, &str, &[&str]); 6] = [
        ("Network", "network", &["NETWORK"]),
        ("Storage", "storage", &["STORAGE_POOL", "STORAGE_VOL"]),
        (
            "Nodedev",
            "node_device",
            &["NODE_DEVICE", "NODE_NUM_OF_DEVICES", "NODE_LIST_DEVICES"],
        ),
        ("Nwfilter", "nwfilter", &["NWFILTER"]),
        ("Secret", "secret", &["SECRET"]),
        ("Interface", "interface", &["INTERFACE"]),
    ];
    let object = acl.split(':').next().unwrap_or_default();
    if object == "domain" || name.starts_with("DOMAIN_") || OF_HYPERVISOR.contains(&name) {
        return None;
    }
    let is_of = |(_, its, parts): &&(&str, &str, &[&str])| {
        object.starts_with(its) || parts.iter().any(|part| name.contains(part))
    };
    DRIVERS.iter().find(is_of).map(|(driver, ..)| *driver)
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

/// Types that are an object of their own, by their class.
const CLASSES: [(&str, &str); 10] = [
    ("domain", "Domain"),
    ("interface", "Interface"),
    ("network", "Network"),
    ("network_port", "NetworkPort"),
    ("node_device", "NodeDevice"),
    ("nwfilter", "Nwfilter"),
    ("nwfilter_binding", "NwfilterBinding"),
    ("secret", "Secret"),
    ("storage_pool", "StoragePool"),
    ("storage_vol", "StorageVol"),
];

/// The named types, each with its fields as the file writes them.
struct Types<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Types<'a> {
    fn read(text: &'a str) -> Self {
        let types = text.lines().skip(1).map(|line| {
            line.split_once('\t')
                .unwrap_or_else(|| panic!("{TYPES}: {line:?} has not two columns"))
        });
        Self(types.collect())
    }

    /// Each type as a `Struct`, and the greatest number of fields that one payload has.
    fn code(&self, table: &[Vec<&str>]) -> String {
        let mut code = String::new();
        for (name, fields) in &self.0 {
            let class = CLASSES.iter().find(|(object, _)| object == name);
            writeln!(
                code,
                "/// `{name}`.\npub static {}: Struct = Struct {{ name: {name:?}, class: {}, \
                 fields: &[{}] }};",
                name.to_uppercase(),
                class.map_or("None".into(), |(_, class)| format!("Some(Class::{class})")),
                self.fields(fields),
            )
            .unwrap();
        }
        let payloads = table.iter().flat_map(|row| [row[8], row[9]]);
        let most = payloads.chain([self.0["error"]]).map(count).max();
        writeln!(
            code,
            "/// No payload has more fields at its top level.\npub const FIELDS: usize = {};",
            most.expect("there are payloads")
        )
        .unwrap();
        code
    }

    /// `name:type name:type` as `Field` literals; `-` is none.
    fn fields(&self, text: &str) -> String {
        let mut names = Vec::new();
        let mut code = String::new();
        for field in text.split(' ').filter(|field| *field != "-") {
            let (name, kind) = field
                .split_once(':')
                .unwrap_or_else(|| panic!("{field:?} is not name:type"));
            assert!(!names.contains(&name), "{text:?} names {name} twice");
            names.push(name);
            write!(
                code,
                "Field {{ name: {name:?}, shape: {} }}, ",
                self.shape(kind)
            )
            .unwrap();
        }
        code
    }

    fn shape(&self, kind: &str) -> String {
        if let Some(inner) = kind.strip_suffix('?') {
            return format!("Shape::Optional(&{})", self.shape(inner));
        }
        if let Some((inner, bound)) = kind.strip_suffix('>').and_then(|k| k.rsplit_once('<')) {
            let bound: usize = bound.parse().expect("a bound is a number");
            return match inner.strip_suffix("[]") {
                Some(inner) => format!("Shape::Array(&{}, {bound})", self.shape(inner)),
                None if inner == "bytes" => format!("Shape::Bytes({bound})"),
                None => panic!("{kind:?} has a bound"),
            };
        }
        if let Some((inner, count)) = kind.strip_suffix(']').and_then(|k| k.rsplit_once('[')) {
            let count: usize = count.parse().expect("a fixed array has its count");
            return format!("Shape::Fixed(&{}, {count})", self.shape(inner));
        }
        match kind {
            "i8" | "u8" | "i32" | "u32" | "i64" | "u64" | "f64" | "string" | "uuid" => {
                format!("Shape::{}", variant(kind))
            }
            "typed_param_value" => "Shape::ParamValue".into(),
            _ if self.0.contains_key(kind) => {
                format!("Shape::Struct(&types::{})", kind.to_uppercase())
            }
            _ => panic!("the type {kind:?} is in no row of {TYPES}"),
        }
    }
}

fn count(fields: &str) -> usize {
    fields.split(' ').filter(|field| *field != "-").count()
}
