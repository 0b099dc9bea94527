//! The protocol table, read from the file that the crate is built from: what there is to call.

use std::collections::HashMap;
use std::sync::OnceLock;

use super::value::{Shape, Value, parse_fields, read, write};
use super::xdr::{Reader, Writer};

const TABLE: &str = include_str!("../../../src/protocol/procedures.tsv");

/// A row of the table.
#[derive(Debug)]
pub(crate) struct Procedure {
    pub(crate) program: u32,
    pub(crate) number: i32,
    pub(crate) name: &'static str,
    pub(crate) is_call: bool,
    /// Whether a stream follows a good answer.
    pub(crate) is_stream: bool,
    /// The permissions that it needs, as the table writes them.
    pub(crate) acl: &'static str,
    /// What its reply is filtered by.
    pub(crate) filter: &'static str,
    pub(crate) args: Vec<(&'static str, Shape)>,
    pub(crate) ret: Vec<(&'static str, Shape)>,
}

/// The programs that have objects.
pub(crate) mod program {
    pub(crate) const REMOTE: u32 = 0x2000_8086;
    pub(crate) const QEMU: u32 = 0x2000_8087;
    pub(crate) const LXC: u32 = 0x2000_8088;
}

/// All procedures of `remote`, `qemu` and `lxc`, calls and events, in the order of their numbers.
pub(crate) fn procedures() -> &'static [Procedure] {
    static PROCEDURES: OnceLock<Vec<Procedure>> = OnceLock::new();
    PROCEDURES.get_or_init(|| TABLE.lines().skip(1).filter_map(row).collect())
}

/// The procedure of this name; names are unique over the programs.
#[track_caller]
pub(crate) fn procedure(name: &str) -> &'static Procedure {
    static BY_NAME: OnceLock<HashMap<&str, &Procedure>> = OnceLock::new();
    let by_name = BY_NAME.get_or_init(|| {
        let procedures = procedures().iter();
        procedures
            .map(|procedure| (procedure.name, procedure))
            .collect()
    });
    by_name
        .get(name)
        .unwrap_or_else(|| panic!("no procedure {name}"))
}

fn row(line: &'static str) -> Option<Procedure> {
    let columns: Vec<_> = line.split('\t').collect();
    let [
        program,
        number,
        name,
        kind,
        _,
        stream,
        acl,
        filter,
        args,
        ret,
    ] = columns[..]
    else {
        panic!("a row of the table has ten columns: {line}");
    };
    let program = match program {
        "remote" => program::REMOTE,
        "qemu" => program::QEMU,
        "lxc" => program::LXC,
        _ => return None,
    };
    Some(Procedure {
        program,
        number: number.parse().unwrap(),
        name,
        is_call: kind == "call",
        is_stream: stream != "-",
        acl,
        filter,
        args: parse_fields(args),
        ret: parse_fields(ret),
    })
}

impl Procedure {
    /// The body of a call with these arguments, in any order; those not given are nil.
    ///
    /// # Panics
    /// If an argument is given that there is not, or does not fit.
    #[track_caller]
    pub(crate) fn body(&self, args: &[(&str, Value)]) -> Vec<u8> {
        for (name, _) in args {
            let known = self.args.iter().any(|(field, _)| field == name);
            assert!(known, "{} has no argument {name}", self.name);
        }
        let mut writer = Writer::new();
        for (field, shape) in &self.args {
            let given = args.iter().find(|(name, _)| name == field);
            writer = write(shape, given.map_or(&Value::Nil, |(_, value)| value), writer);
        }
        writer.end()
    }

    /// The values in a good answer; `None` if it has something that no test needs.
    pub(crate) fn reply(&self, body: &[u8]) -> Option<Vec<Value>> {
        Self::values(&self.ret, body)
    }

    /// The values of an event.
    pub(crate) fn event(&self, body: &[u8]) -> Option<Vec<Value>> {
        Self::values(&self.args, body)
    }

    fn values(fields: &[(&str, Shape)], body: &[u8]) -> Option<Vec<Value>> {
        let mut reader = Reader::new(body);
        let values: Option<Vec<_>> = fields
            .iter()
            .map(|(_, shape)| read(shape, &mut reader))
            .collect();
        let values = values?;
        assert!(reader.is_empty(), "more than the table says");
        Some(values)
    }
}
