//! Each client sees its own, by whatever way it comes: lists, counts, statistics, look-ups, and what
//! `virsh` and Python's binding make of them.

use std::collections::BTreeMap;

use super::calls::excluded;
use super::host::{Host, SMALL, WAYS, Way};
use crate::support::caller::{Answer, Caller};
use crate::support::scripts::LISTS;
use crate::support::table::{Procedure, procedures};
use crate::support::tenants::{
    ACME, Driver, GLOBEX, IDENTITIES, NOBODY, Size, Tenant, as_nobody, uuid_text,
};
use crate::support::tool::{Tool, python, virsh};
use crate::support::value::{Shape, Value};
use crate::support::wire::RpcError;

/// The tenants of the issue.
const LARGE: Size = Size {
    domains: 250,
    running: 3,
    others: 6,
};

/// What an identity sees of a list: of each thing, whether it does. `None` if it may not list such
/// things at all.
fn sees(identity: &str, procedure: &Procedure) -> Option<fn(Option<Tenant>) -> bool> {
    let domains = procedure.name.contains("DOMAIN");
    Some(match identity {
        "acme" => |owner| owner == Some(ACME),
        "globex" => |owner| owner == Some(GLOBEX),
        // Neither is among what libvirt lets everyone do.
        "monitor" if procedure.name.contains("VOLUMES") || procedure.name.contains("PORTS") => {
            return None;
        }
        "monitor" => |_| true,
        "operator" if domains => |_| true,
        _ => return None,
    })
}

/// Whose a thing in a list is. What is in `ids` are running domains.
fn owner(thing: &Value, ids: &BTreeMap<i64, Tenant>) -> Option<Tenant> {
    if let Value::Int(id) = thing {
        return ids.get(id).copied();
    }
    let mut said = Vec::new();
    flatten(thing, &mut said);
    [ACME, GLOBEX].into_iter().find(|tenant| {
        let device = tenant.name("node_device", 0).into_bytes();
        tenant.is_in(&said) || said == device
    })
}

/// The texts and UUIDs in a value.
fn flatten(value: &Value, to: &mut Vec<u8>) {
    match value {
        Value::Text(text) => to.extend(text.as_bytes()),
        Value::Uuid(uuid) => to.extend(uuid),
        Value::List(values) | Value::Record(values) => {
            values.iter().for_each(|value| flatten(value, to));
        }
        _ => {}
    }
}

/// The calls that list or count, with their arguments for a tenant's pool and network.
fn lists() -> impl Iterator<Item = &'static Procedure> {
    procedures().iter().filter(|procedure| {
        procedure.is_call
            && procedure.filter != "-"
            && excluded(procedure).is_none()
            && !procedure.name.contains("REGISTER")
    })
}

fn list_args(
    procedure: &Procedure,
    tenant: Tenant,
    host: &Host,
    most: i64,
) -> Vec<(&'static str, Value)> {
    let args = procedure.args.iter().filter_map(|(field, shape)| {
        let value = match (*field, shape.record()) {
            ("need_results", _) => Value::Int(1),
            ("maxnames" | "maxids" | "maxuuids", _) => Value::Int(most),
            (_, Some(record)) => tenant.object(record, 0, host.dir()),
            _ => return None,
        };
        Some((*field, value))
    });
    args.collect()
}

/// The things in a list, in an order of its own; of statistics, the domains.
fn things(values: &[Value]) -> Vec<Value> {
    let mut things: Vec<_> = match &values[0] {
        Value::List(values) => values.clone(),
        count => vec![count.clone()],
    };
    for thing in &mut things {
        if let Value::Record(fields) = thing
            && matches!(fields[..], [Value::Record(_), Value::List(_)])
        {
            *thing = fields.swap_remove(0);
        }
    }
    things.sort_by_key(|thing| format!("{thing:?}"));
    things
}

/// The tenants of running domains by their ids.
fn ids(root: &mut Caller) -> BTreeMap<i64, Tenant> {
    let results = ("need_results", Value::Int(1));
    let domains = root.call("CONNECT_LIST_ALL_DOMAINS", &[results]).unwrap();
    let of = |domain: &Value| {
        let name = domain.field(0).text();
        let mut tenants = [ACME, GLOBEX].into_iter();
        let tenant = tenants.find(|tenant| name.starts_with(tenant.name))?;
        Some((domain.field(2).int(), tenant))
    };
    domains[0].list().iter().filter_map(of).collect()
}

/// Shows of every list and count of one driver that each client sees its own and nothing else.
fn assert_lists(driver: Driver, size: Size) {
    let host = Host::start(driver, size);
    let ids = ids(&mut host.root());
    for way in WAYS {
        for (identity, _) in IDENTITIES {
            let mut client = host.caller(identity, way);
            let mut lengths = BTreeMap::new();
            for procedure in lists() {
                for tenant in [ACME, GLOBEX] {
                    let args = list_args(procedure, tenant, &host, 16384);
                    let truth = host.root().call(procedure.name, &args);
                    let given = client.call(procedure.name, &args);
                    let what = format!("{} for {identity} by {way:?}", procedure.name);
                    let Some(expected) = expected(identity, procedure, tenant, truth, &ids) else {
                        // Of the other's pool, that it does not exist.
                        assert!(given.is_err(), "{what}: {given:?}");
                        continue;
                    };
                    match expected {
                        Err(truth) => assert_eq!(given.unwrap_err().code, truth.code, "{what}"),
                        Ok(expected) => {
                            let given = given.unwrap_or_else(|error| panic!("{what}: {error:?}"));
                            if procedure.name.contains("NUM_OF_") {
                                let list = procedure.name.replace("NUM_OF_", "LIST_");
                                lengths.insert((list, tenant.name), given[0].int());
                                continue;
                            }
                            assert_eq!(things(&given), expected, "{what}");
                            assert_counts(procedure, &given, expected.len(), &what);
                            let key = (procedure.name.to_owned(), tenant.name);
                            if let Some(length) = lengths.get(&key) {
                                assert_eq!(*length, expected.len() as i64, "{what}");
                            }
                            assert_window(&mut client, procedure, tenant, &host, &expected, &what);
                        }
                    }
                }
            }
            assert!(lengths.len() >= 4, "{lengths:?}");
        }
    }
}

/// What a client is to be given of a list: `None` if it is refused.
fn expected(
    identity: &str,
    procedure: &Procedure,
    tenant: Tenant,
    truth: Answer,
    ids: &BTreeMap<i64, Tenant>,
) -> Option<Result<Vec<Value>, RpcError>> {
    let sees = sees(identity, procedure)?;
    // The list of what is in a pool or network that is not there for the client.
    let inside = procedure
        .args
        .iter()
        .any(|(_, shape)| matches!(shape, Shape::Record(..)));
    if inside && !sees(Some(tenant)) {
        return None;
    }
    Some(truth.map(|values| {
        let mut things = things(&values);
        things.retain(|thing| sees(owner(thing, ids)));
        things
    }))
}

/// Shows that the number beside a list, and the one without a list, are of what is in it.
fn assert_counts(procedure: &Procedure, given: &[Value], length: usize, what: &str) {
    if let [Value::List(_), count] = given {
        assert_eq!(count.int(), length as i64, "{what}");
    }
    assert!(!procedure.ret.is_empty());
}

/// Shows that a list with room for less is full of what the client sees.
fn assert_window(
    client: &mut Caller,
    procedure: &Procedure,
    tenant: Tenant,
    host: &Host,
    expected: &[Value],
    what: &str,
) {
    let is_old = procedure
        .args
        .iter()
        .any(|(field, _)| field.starts_with("max"));
    if is_old {
        let args = list_args(procedure, tenant, host, 2);
        let some = things(&client.call(procedure.name, &args).unwrap());
        assert_eq!(some.len(), expected.len().min(2), "{what}");
        assert!(some.iter().all(|thing| expected.contains(thing)), "{what}");
    } else if procedure
        .args
        .iter()
        .any(|(field, _)| *field == "need_results")
    {
        let mut args = list_args(procedure, tenant, host, 0);
        args.retain(|(field, _)| *field != "need_results");
        let none = client.call(procedure.name, &args).unwrap();
        assert!(none[0].list().is_empty(), "{what}");
        // The driver of interfaces counts only what it lists.
        if procedure.name != "CONNECT_LIST_ALL_INTERFACES" {
            assert_eq!(none[1].int(), expected.len() as i64, "{what}");
        }
    }
}

#[test]
fn each_client_lists_its_own_of_five_hundred_domains() {
    assert_lists(Driver::Qemu, LARGE);
}

#[test]
fn so_it_does_where_a_hundred_domains_run() {
    let size = Size {
        running: 50,
        ..LARGE
    };
    assert_lists(Driver::Test, size);
}

/// What `virsh` shows of things of acme's: commands whose output is of lines for each thing.
fn shown() -> Vec<Vec<String>> {
    let commands = "list --all
        list
        list --all --uuid
        list --inactive --name
        domstats --state
        net-list --all
        net-list --name
        net-port-list acme-net-0
        net-dumpxml acme-net-1
        net-info acme-net-0
        pool-list --all --details
        pool-info acme
        pool-dumpxml acme
        vol-list acme --details
        vol-info acme-vol-1 acme
        vol-dumpxml acme-vol-1 acme
        secret-list
        nwfilter-list
        nwfilter-dumpxml acme-filter
        nwfilter-binding-list
        iface-list --all
        iface-dumpxml acme-br-0
        nodedev-list
        nodedev-dumpxml computer
        dominfo acme-1
        domstate acme-0
        dumpxml acme-1 --inactive
        domblklist acme-0
        domiflist acme-0
        domuuid acme-4
        snapshot-list acme-3
        snapshot-dumpxml acme-3 acme-snap
        checkpoint-list acme-4";
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
    commands.lines().map(words).collect()
}

/// The lines of a tool without those of others than `tenant`, and with one space where there are
/// more: columns are as wide as what is in them.
fn lines(text: &str, tenant: Option<Tenant>) -> Vec<String> {
    let others = [GLOBEX.name, " lo ", "block_", "net_lo", "pci_", "\"lo\""];
    let mut lines: Vec<_> = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|line| !line.is_empty() && !line.starts_with("---"))
        .filter(|line| {
            let padded = format!(" {line} ");
            tenant.is_none() || !others.iter().any(|other| padded.contains(other))
        })
        .collect();
    lines.sort();
    lines
}

#[test]
fn virsh_shows_a_tenant_its_own_and_a_monitor_everything() {
    let host = Host::start(Driver::Qemu, SMALL);
    let direct = |args: &[&str]| virsh(&host.system.uri("qemu:///system"), args).run();
    for command in shown() {
        let args: Vec<_> = command.iter().map(String::as_str).collect();
        let truth = direct(&args).ok();
        assert!(!truth.trim().is_empty(), "{args:?}");
        for way in WAYS {
            let given = host.virsh("acme", way, &args).run().ok();
            // What B's have is among lines of its own in every list but these.
            if args[0] != "domstats" && args != ["list", "--all", "--uuid"] {
                assert_eq!(lines(&given, None), lines(&truth, Some(ACME)), "{args:?}");
            }
            assert!(!GLOBEX.is_in(given.as_bytes()), "{args:?}: {given}");
        }
        let read_by_all = !["vol-list", "net-port-list", "nodedev-dumpxml"].contains(&args[0]);
        let given = host.virsh("monitor", Way::Unix, &args).run();
        if read_by_all {
            assert_eq!(lines(&given.ok(), None), lines(&truth, None), "{args:?}");
        } else {
            assert!(given.failed().contains("access denied"), "{args:?}");
        }
    }
}

#[test]
fn virsh_finds_nothing_of_another_tenant() {
    let host = Host::start(Driver::Qemu, SMALL);
    let dir = host.dir().to_path_buf();
    let pool = |tenant: Tenant| tenant.pool_path(&dir).display().to_string();
    let vol = |tenant: Tenant| tenant.volume_path(1, &dir).display().to_string();
    let id = |kind, tenant: Tenant| uuid_text(tenant.uuid(kind, 1));
    let commands = |tenant: Tenant| -> Vec<Vec<String>> {
        let name = |kind| tenant.name(kind, 1);
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        vec![
            words(&["dominfo", &name("domain")]),
            words(&["domname", &id("domain", tenant)]),
            words(&["start", &name("domain")]),
            words(&["destroy", &id("domain", tenant)]),
            words(&["undefine", &name("domain")]),
            words(&["domstats", &name("domain")]),
            words(&["snapshot-list", &tenant.name("domain", 3)]),
            words(&["dumpxml", &name("domain"), "--security-info"]),
            words(&["net-info", &name("network")]),
            words(&["net-name", &id("network", tenant)]),
            words(&["net-dhcp-leases", &tenant.name("network", 0)]),
            words(&["net-port-list", &tenant.name("network", 0)]),
            words(&["pool-info", tenant.name]),
            words(&["pool-name", &uuid_text(tenant.uuid("storage_pool", 0))]),
            words(&["vol-list", tenant.name]),
            words(&["vol-info", &name("storage_vol"), "--pool", tenant.name]),
            words(&["vol-info", &vol(tenant)]),
            words(&["vol-key", &vol(tenant)]),
            words(&["vol-pool", &vol(tenant)]),
            words(&["vol-name", &vol(tenant)]),
            words(&["vol-delete", &vol(tenant)]),
            words(&["vol-wipe", &vol(tenant)]),
            words(&[
                "vol-clone",
                &name("storage_vol"),
                "acme-clone",
                "--pool",
                tenant.name,
            ]),
            words(&["secret-dumpxml", &id("secret", tenant)]),
            words(&["secret-get-value", &id("secret", tenant)]),
            words(&["nwfilter-dumpxml", &tenant.name("nwfilter", 0)]),
            words(&[
                "nwfilter-binding-dumpxml",
                &tenant.name("nwfilter_binding", 0),
            ]),
            words(&["iface-dumpxml", &tenant.name("interface", 0)]),
            words(&["iface-name", &tenant.mac(0)]),
            words(&["nodedev-dumpxml", &tenant.name("node_device", 0)]),
            words(&["find-storage-pool-sources-as", "dir", &pool(tenant)]),
        ]
    };
    for (theirs, nobodys) in commands(GLOBEX).into_iter().zip(commands(NOBODY)) {
        let args = |words: &[String]| words.iter().map(String::clone).collect::<Vec<_>>();
        for way in WAYS {
            let said = |words: &[String]| {
                let words = args(words);
                let words: Vec<_> = words.iter().map(String::as_str).collect();
                host.virsh("acme", way, &words).run().failed()
            };
            let of_theirs = said(&theirs);
            let of_theirs = as_nobody(GLOBEX, of_theirs.as_bytes());
            let of_nobodys = said(&nobodys);
            assert_eq!(
                without_id(&of_theirs),
                without_id(of_nobodys.as_bytes()),
                "{theirs:?}"
            );
        }
    }
    let running = ids(&mut host.root());
    let (of_globex, _) = running
        .iter()
        .find(|(_, tenant)| **tenant == GLOBEX)
        .unwrap();
    let said = |id: i64| {
        let id = id.to_string();
        host.virsh("acme", Way::Unix, &["domname", &id])
            .run()
            .failed()
            .replace(&id, "ID")
    };
    assert_eq!(said(*of_globex), said(4711));
}

fn without_id(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    let mut lines: Vec<_> = said
        .lines()
        .map(|line| line.split("(refusal").next().unwrap())
        .collect();
    lines.retain(|line| !line.is_empty());
    lines.join("\n")
}

#[test]
fn a_tenant_does_what_it_wants_with_its_own_and_others_what_they_may() {
    let host = Host::start(Driver::Qemu, SMALL);
    for way in WAYS {
        let acme = |args: &[&str]| host.virsh("acme", way, args).run().ok();
        acme(&["start", "acme-2", "--paused"]);
        acme(&["destroy", "acme-2"]);
        acme(&["autostart", "acme-2"]);
        acme(&["net-start", "acme-net-1"]);
        acme(&["net-destroy", "acme-net-1"]);
        acme(&["pool-refresh", "acme"]);
        acme(&["vol-create-as", "acme", "acme-new", "1MiB"]);
        acme(&["vol-clone", "acme-new", "acme-newer", "--pool", "acme"]);
        acme(&["vol-delete", "acme-new", "--pool", "acme"]);
        acme(&["vol-delete", "acme-newer", "--pool", "acme"]);
        acme(&["domrename", "acme-6", "acme-renamed"]);
        acme(&["domrename", "acme-renamed", "acme-6"]);
        acme(&["secret-get-value", &uuid_text(ACME.uuid("secret", 1))]);
        let operator = |args: &[&str]| host.virsh("operator", way, args).run();
        operator(&["start", "globex-2", "--paused"]).ok();
        operator(&["destroy", "globex-2"]).ok();
        for args in [
            &["undefine", "globex-4"][..],
            &["setmem", "globex-4", "8MiB", "--config"],
            &["dumpxml", "globex-4", "--security-info"],
            &["net-list"],
        ] {
            let error = operator(args).failed();
            assert!(error.contains("access denied"), "{args:?}: {error}");
        }
        for args in [
            &["start", "acme-4"][..],
            &["undefine", "acme-4"],
            &["secret-get-value", &uuid_text(ACME.uuid("secret", 1))],
            &["vol-delete", "acme-vol-1", "--pool", "acme"],
        ] {
            let error = host.virsh("monitor", way, args).run().failed();
            assert!(error.contains("access denied"), "{args:?}: {error}");
        }
    }
}

#[test]
fn python_lists_and_looks_up_what_a_tenant_has() {
    let host = Host::start(Driver::Qemu, SMALL);
    let run = |tool: Tool| -> Vec<String> { tool.run().ok().lines().map(str::to_owned).collect() };
    let truth = run(python(LISTS, &[&host.system.uri("qemu:///system")]));
    assert!(truth.len() > 150, "{truth:#?}");
    for way in WAYS {
        for tenant in [ACME, GLOBEX] {
            let given = run(host.python(tenant.name, way, LISTS, &[]));
            let own: Vec<_> = truth
                .iter()
                .filter(|line| {
                    let device = tenant.name("node_device", 0);
                    tenant.is_in(line.as_bytes()) || line.ends_with(&device)
                })
                .collect();
            assert_eq!(
                given.iter().collect::<Vec<_>>(),
                own,
                "{tenant:?} by {way:?}"
            );
        }
        // A reader may not list volumes and ports, which the script leaves out then.
        let given = run(host.python("monitor", way, LISTS, &[]));
        let all: Vec<_> = truth
            .iter()
            .filter(|line| !line.starts_with("volume") && !line.starts_with("port "))
            .collect();
        assert_eq!(given.iter().collect::<Vec<_>>(), all, "monitor by {way:?}");
    }
}
