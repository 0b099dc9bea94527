//! The oracle: libvirt's own access driver, by polkit. The same rules are written for it and for
//! this proxy, and the same calls are made as several users, directly and through the proxy.

mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};
use std::path::Path;
use std::thread;

use super::calls::{Things, excluded, flags, repair};
use crate::support::account::Account;
use crate::support::caller::Caller;
use crate::support::policy::{every_route_to, listeners};
use crate::support::proxy::{Proxy, ProxyBuilder};
use crate::support::system::System;
use crate::support::table::{Procedure, procedures};
use crate::support::tenants::{
    ACME, Driver, GLOBEX, IDENTITIES, Size, Tenant, account, identities, settle,
};
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
    /// It was done, or failed for another reason than who asked: with the error's code and text.
    Allowed(Option<(i32, String)>),
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
            // A save image that is hidden.
            Some(38)
                if error.is_some_and(|it| it.message.ends_with("No such file or directory")) =>
            {
                Self::Absent
            }
            _ => Self::Allowed(error.map(|error| (error.code, error.message.clone()))),
        }
    }
}

impl Outcome {
    /// Whether it was done.
    fn is_good(&self) -> bool {
        *self == Self::Allowed(None)
    }

    /// Whether both were let through, and met the same fault if any, or both were not: libvirt says
    /// of what is hidden that access is denied, and we say that it is not there.
    fn same_decision(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Denied, other) => *other == Self::Denied || *other == Self::Absent,
            // Texts name directories, which differ.
            (Self::Allowed(Some((code, _))), Self::Allowed(Some((other, _)))) => code == other,
            _ => self == other,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allowed(None) => write!(f, "allowed"),
            Self::Allowed(Some((code, text))) => write!(f, "allowed, but {code}: {text:?}"),
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
    let things = [ACME, GLOBEX]
        .map(|tenant| Things::find(&mut root, Driver::Qemu, tenant, dir.to_path_buf()));
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
    // The number of a registration is no list.
    let lists = procedure.filter != "-" && !procedure.name.contains("REGISTER");
    let list = lists.then(|| procedure.reply(&answer.body).unwrap());
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
    lines
        .join(
            "
",
        )
        .replace(&*things.dir.to_string_lossy(), "DIR")
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

/// Calls that we refuse and libvirt does not, or not before something else is wrong with them.
const STRICTER: [(&[&str], &str); 6] = [
    (
        &[
            "CONNECT_DOMAIN_XML_FROM_NATIVE",
            "DOMAIN_ATTACH",
            "DOMAIN_MIGRATE_FINISH",
            "DOMAIN_MIGRATE_PREPARE",
            "DOMAIN_SEND_PROCESS_SIGNAL",
            "INTERFACE_CHANGE_BEGIN",
            "INTERFACE_CHANGE_COMMIT",
            "INTERFACE_CHANGE_ROLLBACK",
            "INTERFACE_CREATE",
            "INTERFACE_DEFINE_XML",
            "INTERFACE_DESTROY",
            "INTERFACE_UNDEFINE",
        ],
        "libvirt's driver does not have it, and asks nobody",
    ),
    (
        &[
            "CONNECT_DOMAIN_MONITOR_EVENT_DEREGISTER",
            "DOMAIN_MIGRATE_PREPARE_TUNNEL",
            "DOMAIN_MIGRATE_PREPARE_TUNNEL3",
            "DOMAIN_MIGRATE_PREPARE_TUNNEL3_PARAMS",
            "DOMAIN_SET_PERF_EVENTS",
            "NODE_DEVICE_CREATE",
            "NODE_DEVICE_CREATE_XML",
            "NODE_DEVICE_DEFINE_XML",
            "NODE_DEVICE_DETACH_FLAGS",
            "NODE_DEVICE_DETTACH",
        ],
        "libvirt finds another fault before it asks",
    ),
    (
        &[
            "DOMAIN_ATTACH_DEVICE",
            "DOMAIN_ATTACH_DEVICE_FLAGS",
            "DOMAIN_BACKUP_BEGIN",
            "DOMAIN_UPDATE_DEVICE_FLAGS",
            "NETWORK_UPDATE",
        ],
        "a document may refer to what is hidden, so that one that cannot be read is refused",
    ),
    (
        &["DOMAIN_GET_SECURITY_LABEL_LIST"],
        "libvirt answers with an empty list whoever may not see it",
    ),
    (
        &["NODE_DEVICE_GET_PARENT"],
        "libvirt takes the answer from the look-up, which asks for less",
    ),
    (
        &["NODE_DEVICE_LOOKUP_SCSI_HOST_BY_WWN"],
        "libvirt does not ask where it finds nothing",
    ),
];

/// The reason why we may refuse what libvirt does not.
fn stricter(procedure: &str) -> Option<&'static str> {
    let mut rows = STRICTER.iter();
    rows.find(|(procedures, _)| procedures.contains(&procedure))
        .map(|(_, reason)| *reason)
}

/// The proxy before a daemon that lets everybody do everything.
fn before(system: &System) -> Proxy {
    ProxyBuilder::new(|dir| {
        listeners(dir, "")
            + &identities()
            + &every_route_to(&system.socket(), "")
            + &rules::for_us()
    })
    .start()
}

#[test]
fn what_is_allowed_and_listed_is_what_libvirts_own_access_driver_says() {
    let (libvirts, ours) = thread::scope(|scope| {
        let libvirts = scope.spawn(|| {
            let system = System::with_polkit(&rules::for_polkit());
            ask_all(&system, |account| system.caller(account, URI))
        });
        let system = System::start();
        let proxy = before(&system);
        let ours = ask_all(&system, |account| {
            Caller::opened_as(account, &proxy.socket(), URI)
        });
        (libvirts.join().unwrap(), ours)
    });
    let (mut differences, mut reasons) = (String::new(), BTreeMap::<_, BTreeSet<_>>::new());
    for (question, (theirs, their_list)) in &libvirts {
        let (who, procedure, whose, flags) = question;
        let (outcome, list) = &ours[question];
        if theirs.same_decision(outcome) && their_list == list {
            continue;
        }
        match stricter(procedure) {
            Some(reason) if matches!(theirs, Outcome::Allowed(_)) && !outcome.is_good() => {
                reasons.entry(reason).or_default().insert(*procedure);
            }
            _ => writeln!(
                differences,
                "{procedure} (flags {flags}) by {who} on {whose}'s: libvirt {theirs}, \
                 ours {outcome}\n  libvirt's list {their_list:?}\n  our list       {list:?}"
            )
            .unwrap(),
        }
    }
    for (reason, procedures) in reasons {
        println!("stricter, as {reason}: {procedures:?}");
    }
    assert!(differences.is_empty(), "\n{differences}");
    assert_telling(&libvirts);
}

/// Shows that the oracle has said both yes and no to enough procedures to tell anything.
fn assert_telling(libvirts: &BTreeMap<Question, Verdict>) {
    let of = |wanted: fn(&Outcome) -> bool| -> BTreeSet<&str> {
        let verdicts = libvirts.iter().filter(|(_, (outcome, _))| wanted(outcome));
        verdicts.map(|((_, procedure, ..), _)| *procedure).collect()
    };
    let allowed = of(|outcome| matches!(outcome, Outcome::Allowed(_)));
    let denied = of(|outcome| *outcome == Outcome::Denied);
    let both = allowed.intersection(&denied).count();
    println!(
        "{} questions on {} procedures, of which {both} were both allowed and denied",
        libvirts.len(),
        allowed.union(&denied).count(),
    );
    assert!(both >= 250, "only {both}");
}
