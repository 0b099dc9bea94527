//! Every call about things of another, whole and mixed with own ones.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::super::calls::{Things, excluded, repair};
use super::super::host::{Host, SMALL, WAYS, Way};
use super::super::said::{said, said_as_of_nobody};
use crate::support::caller::Caller;
use crate::support::table::{Procedure, procedure, procedures};
use crate::support::tenants::{ACME, Driver, GLOBEX};
use crate::support::value::Value;

/// Calls that kill the daemon if they are made of an own domain.
const DEADLY: [&str; 1] = ["DOMAIN_MIGRATE_PREPARE3_PARAMS"];

/// What is denied whether the thing is there or not: calls that name it by what is in an XML, or by a
/// new name.
const DENIED: [&str; 26] = [
    "DOMAIN_ATTACH",
    "DOMAIN_CREATE_XML",
    "DOMAIN_DEFINE_XML",
    "DOMAIN_DEFINE_XML_FLAGS",
    "DOMAIN_MIGRATE_FINISH",
    "DOMAIN_MIGRATE_FINISH2",
    "DOMAIN_MIGRATE_FINISH3",
    "DOMAIN_MIGRATE_FINISH3_PARAMS",
    "DOMAIN_MIGRATE_PREPARE",
    "DOMAIN_MIGRATE_PREPARE3_PARAMS",
    "DOMAIN_MIGRATE_PREPARE_TUNNEL",
    "DOMAIN_MIGRATE_PREPARE_TUNNEL3",
    "DOMAIN_MIGRATE_PREPARE_TUNNEL3_PARAMS",
    "INTERFACE_DEFINE_XML",
    "NETWORK_CREATE_XML",
    "NETWORK_CREATE_XML_FLAGS",
    "NETWORK_DEFINE_XML",
    "NETWORK_DEFINE_XML_FLAGS",
    "NODE_DEVICE_CREATE_XML",
    "NODE_DEVICE_DEFINE_XML",
    "NWFILTER_BINDING_CREATE_XML",
    "NWFILTER_DEFINE_XML",
    "NWFILTER_DEFINE_XML_FLAGS",
    "SECRET_DEFINE_XML",
    "STORAGE_POOL_CREATE_XML",
    "STORAGE_POOL_DEFINE_XML",
];

/// The procedures that are called.
fn called() -> impl Iterator<Item = &'static Procedure> {
    procedures().iter().filter(|procedure| {
        procedure.is_call
            && excluded(procedure).is_none()
            // The number of a registration tells how many there are, and the time that a domain
            // of the test driver has used goes on.
            && !procedure.name.contains("REGISTER")
            && procedure.name != "DOMAIN_GET_INFO"
    })
}

/// `own` with one of the names, UUIDs … in it taken from `other`, and the reverse: every way to mix
/// two objects of one kind.
fn mixtures(own: &Value, other: &Value) -> Vec<Value> {
    let places = leaves(own);
    let mut mixtures = Vec::new();
    for (base, from) in [(own, other), (other, own)] {
        for place in 0..places {
            let (mut mixture, mut left) = (base.clone(), place);
            set_leaf(&mut mixture, from, &mut left);
            mixtures.push(mixture);
        }
    }
    mixtures
}

fn leaves(value: &Value) -> usize {
    match value {
        Value::Record(fields) | Value::List(fields) => fields.iter().map(leaves).sum(),
        _ => 1,
    }
}

/// Takes the leaf number `left` from `from`.
fn set_leaf(value: &mut Value, from: &Value, left: &mut usize) -> bool {
    if let (Value::Record(fields), Value::Record(others))
    | (Value::List(fields), Value::List(others)) = (&mut *value, from)
    {
        let mut pairs = fields.iter_mut().zip(others);
        return pairs.any(|(field, other)| set_leaf(field, other, left));
    }
    if *left > 0 {
        *left -= 1;
        return false;
    }
    value.clone_from(from);
    true
}

/// Everything of a tenant as the daemon has it, for a comparison.
fn everything(root: &mut Caller, things: &Things) -> String {
    let mut text = String::new();
    for name in LOOKS {
        let procedure = procedure(name);
        let args = things.args(procedure, 0);
        let answer = root.call_raw(procedure, procedure.body(&args));
        writeln!(text, "{name}: {}", said(procedure, &answer)).unwrap();
    }
    let lists = [
        "CONNECT_LIST_ALL_DOMAINS",
        "CONNECT_LIST_ALL_NETWORKS",
        "CONNECT_LIST_ALL_STORAGE_POOLS",
        "CONNECT_LIST_ALL_NWFILTERS",
        "CONNECT_LIST_ALL_SECRETS",
    ];
    for list in lists {
        let Ok(values) = root.call(list, &[("need_results", Value::Int(1))]) else {
            continue;
        };
        let mut lines: Vec<_> = values[0]
            .list()
            .iter()
            .map(|it| format!("{it:?}"))
            .collect();
        lines.retain(|line| line.contains(things.tenant.name));
        lines.sort();
        writeln!(text, "{list}: {}", lines.join(" ")).unwrap();
    }
    text
}

/// Calls that show the state of things.
const LOOKS: [&str; 25] = [
    "DOMAIN_GET_XML_DESC",
    "DOMAIN_GET_STATE",
    "DOMAIN_GET_AUTOSTART",
    "DOMAIN_IS_PERSISTENT",
    "DOMAIN_LIST_ALL_SNAPSHOTS",
    "DOMAIN_SNAPSHOT_GET_XML_DESC",
    "DOMAIN_SNAPSHOT_IS_CURRENT",
    "DOMAIN_LIST_ALL_CHECKPOINTS",
    "NETWORK_GET_XML_DESC",
    "NETWORK_GET_AUTOSTART",
    "NETWORK_IS_ACTIVE",
    "NETWORK_LIST_ALL_PORTS",
    "NETWORK_PORT_GET_XML_DESC",
    "NETWORK_PORT_GET_PARAMETERS",
    "STORAGE_POOL_GET_XML_DESC",
    "STORAGE_POOL_GET_AUTOSTART",
    "STORAGE_POOL_IS_ACTIVE",
    "STORAGE_POOL_LIST_ALL_VOLUMES",
    "STORAGE_VOL_GET_XML_DESC",
    "STORAGE_VOL_GET_INFO",
    "SECRET_GET_XML_DESC",
    "SECRET_GET_VALUE",
    "NWFILTER_GET_XML_DESC",
    "NWFILTER_BINDING_GET_XML_DESC",
    "DOMAIN_GET_MAX_MEMORY",
];

/// Makes every call about globex's things as acme, whole and mixed with acme's own, and shows that
/// each is answered as if nobody had them, and that they are as they were.
fn try_everything(driver: Driver, way: Way) {
    let host = Host::start(driver, SMALL);
    let dir = host.dir().to_path_buf();
    let [own, theirs] =
        [ACME, GLOBEX].map(|tenant| Things::find(&mut host.root(), driver, tenant, dir.clone()));
    let nobodys = theirs.of_nobody();
    let before = everything(&mut host.root(), &theirs);
    let mut client = host.caller("acme", way);
    let (mut told, mut calls) = (String::new(), 0);
    let mut denied = BTreeSet::new();
    for procedure in called() {
        for [what, of_theirs, of_nobodys] in attempts(procedure, &own, &theirs, &nobodys) {
            let mut ask = |body| {
                let answer = client.call_raw(procedure, body);
                repair(&mut host.root(), procedure.name, &own);
                answer
            };
            let of_theirs = said_as_of_nobody(procedure, &ask(of_theirs), GLOBEX);
            let nobodys_body = of_nobodys.clone();
            let of_nobodys = said(procedure, &ask(of_nobodys));
            calls += 1;
            // Of what hangs on the connection alone, it may be told more.
            if what == b"whole" && !procedure.acl.contains("connect:") {
                if of_nobodys.contains("access denied") {
                    denied.insert(procedure.name);
                } else {
                    let daemons = host.root().call_raw(procedure, nobodys_body);
                    assert_eq!(of_nobodys, said(procedure, &daemons), "{}", procedure.name);
                }
            }
            if of_theirs != of_nobodys {
                let what = String::from_utf8(what).unwrap();
                writeln!(
                    told,
                    "{} {what}:\n  of globex {of_theirs}\n  of nobody {of_nobodys}",
                    procedure.name
                )
                .unwrap();
            }
        }
    }
    assert!(told.is_empty(), "\n{told}");
    assert_eq!(denied, BTreeSet::from(DENIED));
    assert!(calls > 1000, "only {calls} calls");
    assert_eq!(before, everything(&mut host.root(), &theirs));
}

/// The ways to call a procedure about another's things, each with its likeness about nobody's: what
/// it is, and the two bodies.
fn attempts(
    procedure: &Procedure,
    own: &Things,
    theirs: &Things,
    nobodys: &Things,
) -> Vec<[Vec<u8>; 3]> {
    let mut attempts = Vec::new();
    let [own, theirs, nobodys] = [own, theirs, nobodys].map(|things| things.args(procedure, 0));
    // The number of a running domain has no likeness.
    if procedure.name != "DOMAIN_LOOKUP_BY_ID" {
        let bodies = [&theirs, &nobodys].map(|args| procedure.body(args));
        let [theirs, nobodys] = bodies;
        attempts.push([b"whole".to_vec(), theirs, nobodys]);
    }
    if DEADLY.contains(&procedure.name) {
        return attempts;
    }
    for (place, (field, value)) in own.iter().enumerate() {
        let is_object = match value {
            Value::List(values) => matches!(values[..], [Value::Record(_)]),
            value => matches!(value, Value::Record(_)),
        };
        if !is_object {
            continue;
        }
        let theirs = mixtures(value, &theirs[place].1);
        let nobodys = mixtures(value, &nobodys[place].1);
        for (theirs, nobodys) in theirs.into_iter().zip(nobodys) {
            let what = format!("with {field} {theirs:?}");
            let with = |value| {
                let mut args = own.clone();
                args[place].1 = value;
                procedure.body(&args)
            };
            attempts.push([what.into_bytes(), with(theirs), with(nobodys)]);
        }
    }
    attempts
}

#[test]
fn every_call_on_anothers_things_is_answered_as_if_they_were_not_there() {
    try_everything(Driver::Qemu, Way::Unix);
}

#[test]
fn so_it_is_where_the_driver_finds_things_by_their_names() {
    for way in WAYS {
        try_everything(Driver::Test, way);
    }
}
