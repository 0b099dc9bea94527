//! The oracle: libvirt's own access driver, by polkit. The same rules are written for it and for
//! this proxy, and the same calls are made as several users, directly and through the proxy.

mod calls;
mod rules;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::thread;

use calls::{Things, excluded, flags, repair};

use crate::support::account::Account;
use crate::support::caller::Caller;
use crate::support::system::System;
use crate::support::table::{Procedure, procedures};
use crate::support::tenants::{ACME, Driver, GLOBEX, IDENTITIES, Size, Tenant, account, settle};
use crate::support::value::Value;
use crate::support::wire::{RpcError, status};

const URI: &str = "qemu:///system";

const SIZE: Size = Size {
    domains: 6,
    running: 2,
    others: 4,
};

/// What one call came to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// It was done, or failed for another reason than who asked: with the code of the error.
    Allowed(Option<i32>),
    /// Access denied.
    Denied,
    /// There is no such thing.
    Absent,
}

impl Outcome {
    fn of(error: Option<&RpcError>) -> Self {
        // Domain, network, pool, volume, node device, interface, filter, secret, snapshot, port,
        // binding, checkpoint.
        const ABSENT: [i32; 12] = [42, 43, 49, 50, 53, 57, 62, 66, 72, 101, 103, 107];
        match error.map(|error| error.code) {
            Some(88) => Self::Denied,
            Some(code) if ABSENT.contains(&code) => Self::Absent,
            code => Self::Allowed(code),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allowed(None) => write!(f, "ok"),
            Self::Allowed(Some(code)) => write!(f, "ok/{code}"),
            Self::Denied => write!(f, "denied"),
            Self::Absent => write!(f, "absent"),
        }
    }
}

/// Who calls what on whose things, with which flags.
type Question = (&'static str, &'static str, &'static str, i64);

/// What the call came to, and what a list has in it.
type Verdict = (Outcome, Option<String>);

/// Asks all that there is, on one daemon. `connect` makes the clients.
fn ask_all(system: &System, connect: impl Fn(&Account) -> Caller) -> BTreeMap<Question, Verdict> {
    let mut root = system.caller(&Account::named("root"), URI);
    let dir = system.dir();
    for tenant in [ACME, GLOBEX] {
        settle(&mut root, Driver::Qemu, tenant, SIZE, dir);
        save(&mut root, tenant, dir);
    }
    let things = [ACME, GLOBEX].map(|tenant| Things::find(&mut root, tenant, dir.to_path_buf()));
    let mut verdicts = BTreeMap::new();
    for (who, _) in IDENTITIES {
        let mut client = connect(&account(who));
        for procedure in asked() {
            for things in &things {
                for flags in flags(procedure) {
                    let verdict = ask(&mut client, procedure, things, flags);
                    if matches!(verdict.0, Outcome::Allowed(_)) {
                        repair(&mut root, procedure.name, things);
                    }
                    let question = (who, procedure.name, things.tenant.name, flags);
                    verdicts.insert(question, verdict);
                }
            }
        }
    }
    verdicts
}

/// The procedures that can be asked about.
fn asked() -> impl Iterator<Item = &'static Procedure> {
    procedures()
        .iter()
        .filter(|procedure| procedure.is_call && excluded(procedure).is_none())
}

fn ask(client: &mut Caller, procedure: &Procedure, things: &Things, flags: i64) -> Verdict {
    let args = things.args(procedure, flags);
    let answer = client.call_raw(procedure, procedure.body(&args));
    if answer.status == status::ERROR {
        return (Outcome::of(Some(&answer.error())), None);
    }
    let list = (procedure.filter != "-").then(|| procedure.reply(&answer.body).unwrap());
    let list = list.map(|values| in_list(&values, things));
    (Outcome::of(None), list)
}

/// What is in a list, in an order of its own and without what differs between two daemons.
fn in_list(values: &[Value], things: &Things) -> String {
    let mut lines: Vec<_> = values
        .iter()
        .flat_map(|value| match value {
            Value::List(values) => values.clone(),
            other => vec![other.clone()],
        })
        .map(|value| match value {
            // Of statistics, whose they are.
            Value::Record(mut fields) if matches!(fields.last(), Some(Value::List(_))) => {
                fields.swap_remove(0)
            }
            other => other,
        })
        .map(|value| format!("{value:?}"))
        .collect();
    lines.sort();
    let (dir, port) = (&*things.dir.to_string_lossy(), format!("{:?}", things.port));
    lines.join("\n").replace(dir, "DIR").replace(&port, "PORT")
}

/// Saves the domain 1 into an image, and starts it again.
fn save(root: &mut Caller, tenant: Tenant, dir: &Path) {
    let dom = || ("dom", tenant.object("domain", 1, dir));
    let image = dir
        .join(format!("{}.save", tenant.name))
        .display()
        .to_string();
    root.call("DOMAIN_SAVE", &[dom(), ("to", image.into())])
        .unwrap();
    let paused = ("flags", Value::Int(1));
    root.call("DOMAIN_CREATE_WITH_FLAGS", &[dom(), paused])
        .unwrap();
}

#[test]
fn what_libvirts_own_access_driver_says() {
    let direct = System::with_polkit(&rules::for_polkit());
    let verdicts = ask_all(&direct, |account| direct.caller(account, URI));
    let mut rows: BTreeMap<(&str, i64), Vec<String>> = BTreeMap::new();
    for ((who, procedure, whose, flags), (outcome, _)) in &verdicts {
        rows.entry((procedure, *flags))
            .or_default()
            .push(format!("{who}/{whose}={outcome}"));
    }
    for procedure in asked() {
        for flags in flags(procedure) {
            eprintln!(
                "{} {flags} {} :: {}",
                procedure.name,
                rows[&(procedure.name, flags)].join(" "),
                procedure.acl
            );
        }
    }
    eprintln!("{}", rules::for_us());
    let _ = thread::current();
}
