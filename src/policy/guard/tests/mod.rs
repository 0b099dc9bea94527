//! Calls with content, made by hand, and what is said of them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed unwrap is the failed test"
)]

mod commands;
mod devices;
mod documents;
mod naming;
mod owners;
mod paths;

use super::*;
use crate::policy::access::OwnerMark;
use crate::protocol::args::ParamValue;
use crate::protocol::header::{Procedure, Program};
use crate::protocol::payload::Payload;
use crate::protocol::shape::{Field, Shape};
use crate::protocol::table::lookup;
use crate::protocol::xdr::Writer;

/// A value of an argument.
#[derive(Clone)]
enum Value<'a> {
    Text(&'a str),
    Word(u32),
    Bytes(&'a [u8]),
    Params(Vec<(&'a str, ParamValue<'a>)>),
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl From<u32> for Value<'_> {
    fn from(word: u32) -> Self {
        Self::Word(word)
    }
}

/// The payload of a call with these arguments; the others are empty.
fn payload(program: Program, procedure: Procedure, values: &[(&str, Value<'_>)]) -> Vec<u8> {
    let fields = lookup(program, procedure).unwrap().args;
    let mut bytes = Vec::new();
    for field in fields {
        let value = values.iter().find(|(name, _)| *name == field.name);
        write(&mut bytes, field, value.map(|(_, value)| value));
    }
    for (name, _) in values {
        assert!(fields.iter().any(|field| field.name == *name), "{name}");
    }
    bytes
}

fn write(bytes: &mut Vec<u8>, field: &Field, value: Option<&Value<'_>>) {
    let mut writer = Writer::new(bytes);
    match (&field.shape, value) {
        (Shape::String, Some(Value::Text(text))) => {
            writer.string(text);
        }
        (Shape::Optional(_), Some(Value::Text(text))) => {
            writer.optional_string(Some(text));
        }
        (Shape::Array(..), Some(Value::Text(text))) => {
            writer.u32(1).string(text);
        }
        (Shape::Array(..), Some(Value::Params(params))) => {
            writer.u32(u32::try_from(params.len()).unwrap());
            for (name, value) in params {
                writer.string(name);
                value.encode(&mut writer);
            }
        }
        (Shape::Bytes(_), Some(Value::Bytes(data))) => {
            writer.u32(u32::try_from(data.len()).unwrap()).raw(data);
            let padding = data.len().next_multiple_of(4) - data.len();
            writer.raw(&[0; 4][..padding]);
        }
        (Shape::I32 | Shape::U32, value) => {
            let word = match value {
                Some(Value::Word(word)) => *word,
                _ => 0,
            };
            writer.u32(word);
        }
        (Shape::I64 | Shape::U64, value) => {
            let word = match value {
                Some(Value::Word(word)) => *word,
                _ => 0,
            };
            writer.u64(word.into());
        }
        (shape, None) => empty(bytes, shape),
        (shape, Some(_)) => panic!("no such value for {}: {shape:?}", field.name),
    }
}

fn empty(bytes: &mut Vec<u8>, shape: &Shape) {
    let mut writer = Writer::new(bytes);
    match shape {
        Shape::Uuid => writer.raw(&[7; 16]),
        Shape::I64 | Shape::U64 | Shape::F64 => {
            writer.u64(0);
        }
        Shape::Struct(record) => {
            for field in record.fields {
                empty(bytes, &field.shape);
            }
        }
        Shape::ParamValue | Shape::Fixed(..) => panic!("no call has one by itself"),
        _ => {
            writer.u32(0);
        }
    }
}

fn read(program: Program, procedure: Procedure, bytes: &[u8]) -> Payload<'_> {
    Payload::read(lookup(program, procedure).unwrap().args, bytes).unwrap()
}

/// What a call names.
fn names(procedure: Procedure, values: &[(&str, Value<'_>)]) -> Result<Vec<Named>, Unreadable> {
    let bytes = payload(Program::REMOTE, procedure, values);
    let args = read(Program::REMOTE, procedure, &bytes);
    named(
        Program::REMOTE,
        procedure,
        &args,
        &[OwnerMark::ours(), nova()],
    )
}

/// OpenStack's mark.
fn nova() -> OwnerMark {
    OwnerMark {
        namespace: "http://openstack.org/xmlns/libvirt/nova/1.1".into(),
        path: vec!["owner".into(), "project".into()],
        attribute: Some("uuid".into()),
    }
}

/// The first thing that guards say against a call; empty if nothing.
fn said(
    guards: &Guards,
    program: Program,
    procedure: Procedure,
    values: &[(&str, Value<'_>)],
) -> String {
    let bytes = payload(program, procedure, values);
    let args = read(program, procedure, &bytes);
    match contents(program, procedure, &args) {
        Err(unreadable) => format!("unreadable: {unreadable}"),
        Ok(contents) => contents
            .iter()
            .find_map(|content| guards.check(content).err())
            .map_or(String::new(), |violation| violation.to_string()),
    }
}

fn patterns(texts: &[&str]) -> Option<Vec<Pattern>> {
    Some(
        texts
            .iter()
            .map(|text| Pattern::parse(text).unwrap())
            .collect(),
    )
}

/// The guards of the examples: one folder.
fn in_acme() -> Guards {
    Guards {
        host_paths: Some(vec!["/srv/acme".into()]),
        pools: patterns(&["acme"]),
        ..Guards::default()
    }
}

fn forbidding(word: Forbid) -> Guards {
    Guards {
        forbid: [word].into_iter().collect(),
        ..Guards::default()
    }
}

fn domain(inner: &str) -> String {
    format!(
        "<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0' \
         xmlns:lxc='http://libvirt.org/schemas/domain/lxc/1.0' \
         xmlns:xen='http://libvirt.org/schemas/domain/xen/1.0' \
         xmlns:bhyve='http://libvirt.org/schemas/domain/bhyve/1.0'>\
         <name>acme-1</name>{inner}</domain>"
    )
}

/// What guards say against a domain with this in it.
fn against_domain(guards: &Guards, inner: &str) -> String {
    let xml = domain(inner);
    let values = [("xml", xml.as_str().into())];
    said(
        guards,
        Program::REMOTE,
        crate::protocol::table::remote::DOMAIN_DEFINE_XML,
        &values,
    )
}
