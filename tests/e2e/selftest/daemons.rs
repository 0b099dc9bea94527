//! Real daemons and real clients.

use std::io::{ErrorKind, Read};

use rustix::process::Signal;

use crate::support::account::Account;
use crate::support::guest::guest_xml;
use crate::support::libvirtd::Libvirtd;
use crate::support::process::find_program;
use crate::support::proxy::{Proxy, ProxyBuilder};
use crate::support::relay::Relay;
use crate::support::rpc_client::RpcClient;
use crate::support::scripts::{
    CLOSE_CALLBACK, CONSOLE, DESCRIPTORS, EVENTS, SCRIPT_OF_CALLS, STAND_IN, STREAMS, Script,
    THREADS, VIRSH_CONSOLE,
};
use crate::support::tool::{assert_same, python, uri_at, virsh};
use crate::support::wait::eventually;
use crate::support::wire::{procedure, status};

#[test]
fn fresh_daemons_give_the_same_answers_to_the_script_of_calls_directly_and_relayed() {
    let ask = |uri: &str| python(SCRIPT_OF_CALLS, &[uri]).run().ok();
    let direct = || ask(&Libvirtd::start().uri("test:///default"));
    let (first, second) = (direct(), direct());
    assert_same(&first, &second);
    assert!(
        first.ends_with(" calls") && first.lines().count() > 350,
        "{first}"
    );
    let daemon = Libvirtd::start();
    let relay = Relay::start(&daemon.socket());
    assert_same(&first, &ask(&uri_at("test:///default", &relay.socket())));
}

#[test]
fn virsh_works_through_the_relay() {
    let daemon = Libvirtd::start();
    let relay = Relay::start(&daemon.socket());
    let uri = uri_at("test:///default", &relay.socket());
    assert!(virsh(&uri, &["list"]).run().ok().contains("running"));
    let missing = virsh(&uri, &["domstate", "no-such-domain"]).run().failed();
    assert!(
        missing.contains("failed to get domain 'no-such-domain'"),
        "{missing}"
    );
}

#[test]
fn clients_run_as_the_account_asked_for() {
    const WHOAMI: Script = Script {
        name: "whoami",
        text: "import os; print(os.getuid(), os.getgid(), os.getgroups())",
    };
    let account = Account::unprivileged();
    let said = python(WHOAMI, &[]).account(&account).run().ok();
    assert!(
        said.starts_with(&format!("{} {} [", account.uid, account.gid)),
        "{said}"
    );
}

#[test]
fn a_killed_daemon_closes_its_clients_and_serves_again_after_a_restart() {
    let mut daemon = Libvirtd::start();
    let uri = daemon.uri("test:///default");
    let client = python(CLOSE_CALLBACK, &[&uri]).start();
    client.stdout().wait_for("READY");
    daemon.kill();
    let said = client.finish().ok();
    assert!(
        said.starts_with("READY\nclosed: reason 1\nnext call: error 1 "),
        "{said}"
    );
    virsh(&uri, &["list"]).run().failed();
    daemon.restart();
    virsh(&uri, &["list"]).run().ok();
}

#[test]
fn a_paused_daemon_answers_once_it_goes_on() {
    let mut daemon = Libvirtd::start();
    let mut client = RpcClient::opened(&daemon.socket(), "test:///default");
    daemon.pause();
    let call = client.prepare(procedure::CONNECT_GET_VERSION, Vec::new());
    client.send(&call);
    let mut socket = client.stream().socket();
    socket.set_nonblocking(true).unwrap();
    assert_eq!(
        socket.read(&mut [0]).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
    socket.set_nonblocking(false).unwrap();
    daemon.resume();
    let answer = client.receive();
    assert_eq!((answer.serial, answer.status), (call.serial, status::OK));
}

#[test]
fn a_daemon_and_its_guests_end_with_the_test() {
    let daemon = Libvirtd::start();
    let xml = guest_xml(&daemon, "short-lived");
    virsh(
        &daemon.uri("qemu:///session"),
        &["create", &xml.to_string_lossy()],
    )
    .run()
    .ok();
    let dir = daemon.dir().to_owned();
    let processes = || {
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let cmdlines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
        let dir = dir.to_string_lossy().into_owned();
        cmdlines
            .filter(|line| String::from_utf8_lossy(line).contains(&dir))
            .count()
    };
    // The daemon itself does not name its directory on its command line; the guest does.
    let pid = daemon.process().pid();
    assert_eq!(processes(), 1);
    drop(daemon);
    assert_eq!(processes(), 0);
    assert!(!dir.exists() && !std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn events_come_in_order() {
    let daemon = Libvirtd::start();
    let said = python(EVENTS, &[&daemon.uri("test:///default")]).run().ok();
    assert!(said.ends_with("\n14 events"), "{said}");
}

#[test]
fn virsh_shows_events_live() {
    let daemon = Libvirtd::start();
    let uri = daemon.uri("test:///default");
    // The driver forgets everything whenever its last connection closes.
    let _keeps_the_state = RpcClient::opened(&daemon.socket(), "test:///default");
    let mut watcher = virsh(&uri, &["event", "--all", "--loop"]).start();
    eventually("virsh shows the suspension", || {
        // Nothing says when it has registered, so there is an event at every look.
        virsh(&uri, &["suspend", "test"]).run().ok();
        virsh(&uri, &["resume", "test"]).run().ok();
        watcher
            .stdout()
            .count("event 'lifecycle' for domain 'test': Suspended")
            > 0
    });
    watcher.signal(Signal::INT);
    assert!(watcher.wait().success());
}

#[test]
fn threads_get_their_own_answers() {
    let daemon = Libvirtd::start();
    let said = python(THREADS, &[&daemon.uri("test:///default"), "32", "10"])
        .run()
        .ok();
    assert_eq!(said, "2304 calls answered");
}

#[test]
fn volumes_go_up_and_down() {
    let daemon = Libvirtd::start();
    let target = daemon.dir_pool("pool");
    daemon.volume("pool", "volume", 8);
    let uri = daemon.uri("qemu:///session");
    let said = python(STREAMS, &[&uri, "pool", "volume", "8"]).run().ok();
    assert_eq!(
        said,
        "sparse: 8388608 bytes equal\ndata: 8388608 bytes equal\naborted: connection works"
    );
    assert!(target.join("volume").exists());
}

#[test]
fn the_guest_echoes_on_its_console() {
    let daemon = Libvirtd::start();
    let uri = daemon.uri("qemu:///session");
    let xml = guest_xml(&daemon, "echo");
    let xml = xml.to_str().unwrap();
    let said = python(CONSOLE, &[&uri, xml, "512"]).run().ok();
    assert_eq!(said, "greeted\nechoed 512 bytes");
    let said = python(VIRSH_CONSOLE, &[&uri, xml, "echo"]).run().ok();
    assert_eq!(said, "greeted\nechoed\nvirsh exited with 0");
}

#[test]
fn descriptors_reach_the_guest_and_come_back() {
    let daemon = Libvirtd::start();
    let xml = guest_xml(&daemon, "display");
    let args = [&daemon.uri("qemu:///session"), xml.to_str().unwrap(), "3"];
    let said = python(DESCRIPTORS, &args).run().ok();
    assert_eq!(
        said,
        "openGraphicsFD 3\nopenGraphics 3\nqemuMonitorCommandWithFiles 1"
    );
}

/// A proxy's stand-in with `policy` as its file.
fn stand_in(policy: &str) -> ProxyBuilder {
    ProxyBuilder::new(|_| policy.to_owned())
        .program(find_program("python3"), &["-u", "-c", STAND_IN.text])
}

fn write_policy(proxy: &Proxy, text: &str) {
    std::fs::write(proxy.policy(), text).unwrap();
}

#[test]
fn a_proxy_is_started_reloaded_and_ended_by_what_it_notifies() {
    let mut proxy = stand_in("first")
        .args(&["--verbose"])
        .env("EXTRA", "1")
        .start();
    proxy.process().stderr().wait_for("read 'first'");
    write_policy(&proxy, "second");
    assert_eq!(proxy.reload(), ["RELOADING=1", "READY=1\nSTATUS=second"]);
    write_policy(&proxy, "broken");
    assert_eq!(proxy.reload(), ["RELOADING=1", "READY=1\nSTATUS=second"]);
    assert_eq!(proxy.process().stderr().count("read"), 3);
    assert!(proxy.process().open_fds() > 2);
    assert!(proxy.process().rss_kib() > 0);
    assert_eq!(proxy.process().threads(), 1);
    assert!(proxy.uri("test:///default", "sock").ends_with("/sock"));
    assert!(proxy.dir().join("routes.yaml").exists());
    let seen = proxy.notified().lines().len();
    assert!(proxy.terminate().success());
    eventually("STOPPING is notified", || {
        proxy.notified().lines().len() > seen
    });
    assert_eq!(proxy.notified().lines()[seen], "STOPPING=1");
}

#[test]
fn a_proxy_runs_as_another_user() {
    let account = Account::unprivileged();
    let mut proxy = stand_in("first").account(&account).start();
    proxy
        .notified()
        .wait_for(&format!("STATUS=uid {}, first", account.uid));
    proxy.signal(Signal::KILL);
    assert!(!proxy.wait().success());
}

#[test]
fn an_activated_proxy_starts_at_the_first_connection_and_again() {
    let mut proxy = stand_in("first")
        .activated("main", "sock")
        .activated("ro", "sock-ro")
        .start();
    for start in 0..2 {
        assert_eq!(proxy.notified().count("READY=1"), start);
        let seen = proxy.notified().lines().len();
        let _client = RpcClient::connect(&proxy.dir().join("sock-ro"));
        proxy.wait_notified("READY=1", seen);
        proxy.process().stderr().wait_for("sockets main:ro");
        assert!(proxy.terminate().success());
        proxy.restart();
    }
}

#[test]
fn a_killed_proxy_starts_again_in_its_directory() {
    let mut proxy = stand_in("first").start();
    write_policy(&proxy, "second");
    proxy.restart();
    proxy.process().stderr().wait_for("read 'second'");
    assert_eq!(proxy.notified().count("READY=1"), 2);
}

#[test]
fn a_proxy_that_refuses_its_policy_leaves_its_reason() {
    let reason = stand_in("broken").run().failed();
    assert!(reason.ends_with("refused"), "{reason}");
}
