//! Quotas of tenants: filled, freed, and filled again, by one client and by many at once.

use std::fs;
use std::sync::Barrier;
use std::thread;

use super::host::{Host, SMALL, WAYS, Way, tenant_rule};
use crate::support::caller::Caller;
use crate::support::scripts::FILL;
use crate::support::tenants::{ACME, Driver, GLOBEX, Xml};
use crate::support::value::Value;
use crate::support::wire::RpcError;

/// The usual rules of both tenants, and this quota of acme's.
fn access(quota: &str) -> String {
    let rules = tenant_rule(ACME, "") + &tenant_rule(GLOBEX, "");
    let rules: Vec<_> = rules.lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "access:\n  quotas: [ {{ who: acme, {quota} }} ]\n  rules:\n{}",
        rules.concat()
    )
}

#[track_caller]
fn start(driver: Driver, quota: &str) -> Host {
    Host::with_access(driver, SMALL, |_| access(quota))
}

/// The XML of one more domain of acme's.
fn more(host: &Host, number: usize) -> String {
    let xml = host.xml(ACME);
    xml.domain(number)
}

/// What `virsh` of acme's is told when it succeeds.
#[track_caller]
fn does(host: &Host, args: &[&str]) {
    host.virsh("acme", Way::Unix, args).run().ok();
}

/// That `virsh` of acme's is told of the quota, and how.
#[track_caller]
fn exceeds(host: &Host, args: &[&str], text: &str) {
    let error = host.virsh("acme", Way::Unix, args).run().failed();
    let expected = format!("error: access denied: quota of acme: {text} (refusal ");
    assert!(error.contains(&expected), "{expected}\n{error}");
    assert!(!error.contains("globex"), "{error}");
}

/// A file with text that everybody may read.
fn file(host: &Host, name: &str, text: &str) -> String {
    let path = host.proxy.dir().join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn domains_of_the_test_driver_are_defined_until_the_limit_and_after_one_has_gone() {
    let mut host = start(
        Driver::Test,
        "domains: 10, running: 3, vcpus: 12, memory: 200MiB",
    );
    let files = [20, 21, 22].map(|number| {
        let text = more(&host, number);
        file(&host, &format!("{number}.xml"), &text)
    });
    does(&host, &["define", &files[0]]);
    does(&host, &["define", &files[1]]);
    exceeds(
        &host,
        &["define", &files[2]],
        "domains: limit 10, in use 10, this call adds 1",
    );
    exceeds(
        &host,
        &["create", &files[2]],
        "domains: limit 10, in use 10, this call adds 1",
    );
    // The same again is none more.
    does(&host, &["define", &files[1]]);
    does(&host, &["undefine", "acme-20"]);
    does(&host, &["define", &files[2]]);

    // Two run.
    does(&host, &["start", "acme-21"]);
    let running = "running domains: limit 3, in use 3, this call adds 1";
    exceeds(&host, &["start", "acme-22"], running);
    does(&host, &["suspend", "acme-21"]);
    exceeds(&host, &["start", "acme-22"], running);
    does(&host, &["destroy", "acme-21"]);
    does(&host, &["start", "acme-22"]);

    // Ten of one CPU and 16 MiB each.
    let domain = "acme-5";
    let cpus = "virtual CPUs: limit 12, in use 10, this call adds 3";
    does(&host, &["setvcpus", domain, "3", "--maximum", "--config"]);
    does(&host, &["setvcpus", domain, "1", "--maximum", "--config"]);
    exceeds(
        &host,
        &["setvcpus", domain, "4", "--maximum", "--config"],
        cpus,
    );
    let memory = "memory: limit 200 MiB, in use 160 MiB, this call adds 41 MiB";
    exceeds(&host, &["setmaxmem", domain, "57MiB", "--config"], memory);
    let module =
        "<memory model='dimm'><target><size unit='MiB'>41</size><node>0</node></target></memory>";
    let module = file(&host, "module.xml", module);
    exceeds(
        &host,
        &["attach-device", domain, &module, "--config"],
        memory,
    );

    // Another tenant's are not counted, and another limit holds from the next call.
    let xml = more(&host, 23);
    let define = |caller: &mut Caller| {
        let args = [("xml", Value::from(xml.clone()))];
        caller.call("DOMAIN_DEFINE_XML", &args).map(drop)
    };
    let mut acme = host.caller("acme", Way::Tls);
    let error = define(&mut acme).unwrap_err();
    assert_eq!((error.code, error.domain), (88, 55));
    host.reload(&access("domains: 11"));
    define(&mut acme).unwrap();
}

#[test]
fn a_python_client_fills_its_quota_and_goes_on_when_it_has_freed_some() {
    let host = start(Driver::Test, "domains: 13, vcpus: 14");
    let said = host.python("acme", Way::Tls, FILL, &["acme-py"]).run().ok();
    let lines: Vec<_> = said.lines().collect();
    let expected = "88/55: access denied: quota of acme: virtual CPUs: limit 14, in use 14, \
                    this call adds 2 (refusal ";
    let [first, second] = lines[..] else {
        panic!("{said}");
    };
    assert!(
        first.starts_with(&format!("3 defined, then {expected}")),
        "{said}"
    );
    assert!(
        second.starts_with(&format!("1 defined, then {expected}")),
        "{said}"
    );
}

#[test]
fn volumes_are_made_until_their_bytes_are_used_and_after_one_has_gone() {
    // Four of 1 MiB are there.
    let host = start(Driver::Qemu, "volumes: { acme: 8MiB }");
    let text = |used: &str, adds: &str| {
        format!("volumes in pool acme: limit 8 MiB, in use {used}, this call adds {adds}")
    };
    let create = |name: &'static str, size: &'static str| {
        ["vol-create-as", "acme", name, size, "--allocation", "0"]
    };
    does(&host, &create("acme-a", "3MiB"));
    exceeds(&host, &create("acme-b", "2MiB"), &text("7 MiB", "2 MiB"));
    does(
        &host,
        &["vol-resize", "acme-a", "1KiB", "--pool", "acme", "--delta"],
    );
    let used = text("7169 KiB", "1 MiB");
    exceeds(
        &host,
        &["vol-clone", "acme-vol-0", "acme-b", "--pool", "acme"],
        &used,
    );
    let used = text("7169 KiB", "1 MiB");
    exceeds(
        &host,
        &["vol-resize", "acme-a", "1MiB", "--pool", "acme", "--delta"],
        &used,
    );
    does(
        &host,
        &["vol-resize", "acme-a", "1MiB", "--pool", "acme", "--shrink"],
    );
    does(
        &host,
        &["vol-clone", "acme-vol-0", "acme-b", "--pool", "acme"],
    );
    does(&host, &create("acme-c", "2MiB"));
    exceeds(&host, &create("acme-d", "1"), &text("8 MiB", "1 bytes"));
    does(&host, &["vol-delete", "acme-c", "--pool", "acme"]);
    does(&host, &create("acme-d", "2MiB"));

    // What is uploaded stays within the volume.
    let data = file(&host, "data", &"x".repeat(3 << 20));
    let upload = ["vol-upload", "acme-vol-1", &data, "--pool", "acme"];
    let error = host.virsh("acme", Way::Unix, &upload).run().failed();
    assert!(error.contains("No space left on device"), "{error}");
    let longer = [&upload[..], &["--length", "2097152"]].concat();
    let error = host.virsh("acme", Way::Unix, &longer).run().failed();
    assert!(error.contains("capacity of 1048576 bytes"), "{error}");
    let size = fs::metadata(ACME.volume_path(1, host.dir())).unwrap().len();
    assert_eq!(size, 1 << 20);
    let data = file(&host, "data", &"y".repeat(1 << 20));
    does(
        &host,
        &["vol-upload", "acme-vol-1", &data, "--pool", "acme"],
    );

    // The disk of a domain that runs.
    does(&host, &["blockresize", "acme-0", "vda", "1M"]);
    exceeds(
        &host,
        &["blockresize", "acme-0", "vda", "2M"],
        &text("8 MiB", "1 MiB"),
    );
}

#[test]
fn guests_are_started_until_the_limit_and_after_one_has_stopped() {
    // Two run; all have one CPU and 16 MiB.
    let host = start(Driver::Qemu, "running: 3, vcpus: 10");
    does(&host, &["start", "--paused", "acme-2"]);
    let running = "running domains: limit 3, in use 3, this call adds 1";
    exceeds(&host, &["start", "--paused", "acme-3"], running);
    does(&host, &["managedsave", "acme-2"]);
    does(&host, &["start", "--paused", "acme-3"]);
    exceeds(&host, &["start", "acme-2"], running);
    does(&host, &["destroy", "acme-3"]);

    // What is in the image counts, not what is defined since.
    let cpus = |number: &str| {
        let args = ["setvcpus", "acme-5", number, "--maximum", "--config"];
        does(&host, &args);
    };
    does(&host, &["start", "acme-2"]);
    does(&host, &["destroy", "acme-2"]);
    cpus("3");
    exceeds(
        &host,
        &["setvcpus", "acme-2", "2", "--maximum", "--config"],
        "virtual CPUs: limit 10, in use 10, this call adds 1",
    );
    cpus("1");
    does(&host, &["setvcpus", "acme-2", "3", "--maximum", "--config"]);
    does(&host, &["start", "--paused", "acme-2"]);
    does(&host, &["managedsave", "acme-2"]);
    does(&host, &["setvcpus", "acme-2", "1", "--maximum", "--config"]);
    cpus("2");
    exceeds(
        &host,
        &["start", "acme-2"],
        "virtual CPUs: limit 10, in use 9, this call adds 2",
    );
    cpus("1");
    does(&host, &["start", "--paused", "acme-2"]);
}

/// Eight clients at once, half of them by TLS, make so many calls each. Returns how many went well.
fn by_eight_at_once(
    host: &Host,
    calls: usize,
    call: impl Fn(&mut Caller, usize) -> Result<(), RpcError> + Sync,
) -> usize {
    const CLIENTS: usize = 8;
    let barrier = Barrier::new(CLIENTS);
    let callers = (0..CLIENTS).map(|client| host.caller("acme", WAYS[client % 2]));
    let callers: Vec<_> = callers.enumerate().collect();
    thread::scope(|scope| {
        let (barrier, call) = (&barrier, &call);
        let clients = callers.into_iter().map(|(client, mut caller)| {
            scope.spawn(move || {
                barrier.wait();
                let numbers = (0..calls).map(|number| client * calls + number);
                let good = numbers.filter(|number| match call(&mut caller, *number) {
                    Ok(()) => true,
                    Err(error) => {
                        assert_eq!((error.code, error.domain), (88, 55), "{error:?}");
                        false
                    }
                });
                good.count()
            })
        });
        let clients: Vec<_> = clients.collect();
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .sum()
    })
}

/// How many domains of acme's there are, and how many of them run.
fn count(host: &Host) -> (usize, usize) {
    let args = [("need_results", Value::Int(1))];
    let answer = host.root().call("CONNECT_LIST_ALL_DOMAINS", &args).unwrap();
    let Value::List(domains) = &answer[0] else {
        panic!("{answer:?}");
    };
    let ours = domains
        .iter()
        .filter(|it| it.field(0).text().starts_with("acme-"));
    let running = ours.clone().filter(|it| it.field(2).int() >= 0);
    (ours.count(), running.count())
}

/// Defines domains by eight clients at once, and starts the first few, of which two run.
fn never_more_than_the_limit(driver: Driver, few: usize, running: usize) {
    let quota = format!("domains: 20, running: {running}, vcpus: 100");
    let host = start(driver, &quota);
    let xml: Vec<_> = (0..40).map(|number| more(&host, 100 + number)).collect();
    let good = by_eight_at_once(&host, 5, |caller, number| {
        let args = [("xml", Value::from(xml[number].clone()))];
        caller.call("DOMAIN_DEFINE_XML", &args).map(drop)
    });
    // Eight were there, two of them running. None is refused while there is room.
    assert_eq!((good, count(&host)), (12, (20, 2)));
    let host_dir = host.dir().to_owned();
    by_eight_at_once(&host, 1, |caller, number| {
        let dom = ACME.object("domain", number % few, &host_dir);
        let args = [("dom", dom), ("flags", Value::Int(0))];
        match caller.call("DOMAIN_CREATE_WITH_FLAGS", &args) {
            Err(error) if error.message.contains("already") => Ok(()),
            answer => answer.map(drop),
        }
    });
    assert_eq!(count(&host), (20, running));
}

#[test]
fn eight_clients_at_once_never_get_more_domains_than_the_limit_in_the_test_driver() {
    never_more_than_the_limit(Driver::Test, 8, 5);
}

#[test]
fn eight_clients_at_once_never_get_more_domains_than_the_limit_in_the_qemu_driver() {
    never_more_than_the_limit(Driver::Qemu, 4, 3);
}

#[test]
fn eight_clients_at_once_never_get_more_bytes_than_the_limit() {
    let host = start(Driver::Qemu, "volumes: { acme: 10MiB }");
    let dir = host.dir().to_owned();
    let good = by_eight_at_once(&host, 3, |caller, number| {
        let args = [
            ("pool", ACME.object("storage_pool", 0, &dir)),
            ("xml", Xml::volume(&format!("acme-more-{number}")).into()),
        ];
        caller.call("STORAGE_VOL_CREATE_XML", &args).map(drop)
    });
    assert_eq!(good, 6);
}
