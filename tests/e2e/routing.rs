//! Which daemon serves a client: by URI, identity, listener, and by what is alive.

use std::path::Path;

use crate::support::account::Account;
use crate::support::fake_upstream::{FakeUpstream, Next};
use crate::support::libvirtd::Libvirtd;
use crate::support::policy::{CONNECT, everything_to, listeners};
use crate::support::proxy::{Proxy, ProxyBuilder};
use crate::support::rpc_client::RpcClient;
use crate::support::scripts::Script;
use crate::support::tool::{Tool, python, uri_at, virsh};
use crate::support::wire::procedure;
use crate::support::workdir::WorkDir;
use crate::support::xdr::Writer;

/// A real daemon whose test driver has a domain that no other has.
struct Marked {
    _keeps_the_state: RpcClient,
    daemon: Libvirtd,
}

fn marked(name: &str) -> Marked {
    let daemon = Libvirtd::start();
    let keeps_the_state = RpcClient::opened(&daemon.socket(), "test:///default");
    let xml = format!(
        "<domain type='test'><name>{name}</name><memory>65536</memory><vcpu>1</vcpu>\
         <os><type>hvm</type></os></domain>"
    );
    let file = daemon.dir().join("mark.xml");
    std::fs::write(&file, xml).unwrap();
    let uri = daemon.uri("test:///default");
    virsh(&uri, &["define", file.to_str().unwrap()]).run().ok();
    Marked {
        _keeps_the_state: keeps_the_state,
        daemon,
    }
}

/// The mark of the daemon that serves `uri`.
#[track_caller]
fn mark(tool: Tool) -> String {
    let names = tool.run().ok();
    let mut marks = names
        .lines()
        .map(str::trim)
        .filter(|name| !["", "test"].contains(name));
    let mark = marks.next().unwrap_or("none").to_owned();
    assert_eq!(marks.next(), None, "{names}");
    mark
}

fn list(uri: &str) -> Tool {
    virsh(uri, &["list", "--all", "--name"])
}

/// A scripted daemon whose host is called `name`.
fn named(name: &'static str) -> FakeUpstream {
    FakeUpstream::scripted(move |stream, frame| {
        if frame.procedure != procedure::CONNECT_GET_HOSTNAME {
            return Next::Standard;
        }
        let body = Writer::new().string(name).end();
        stream.send(&frame.reply(body)).unwrap();
        Next::Done
    })
}

fn upstream(name: &str, socket: &Path) -> String {
    format!(
        "  {name}: {{ unix: \"{}\", {CONNECT} }}\n",
        socket.display()
    )
}

/// What a client hears that no route serves.
#[track_caller]
fn no_route(tool: Tool, uri: &str) {
    let error = tool.run().failed();
    let text = format!("error: no connection driver available for {uri}");
    assert!(error.lines().any(|line| line == text), "{error}");
}

#[test]
fn two_real_daemons_are_chosen_by_uri() {
    let (one, two) = (marked("one"), Libvirtd::start());
    two.dir_pool("of-two");
    let proxy = ProxyBuilder::new(|dir| {
        listeners(dir, "")
            + "upstreams:\n"
            + &upstream("one", &one.daemon.socket())
            + &upstream("two", &two.socket())
            + "routes:
  - { uri: \"test:///default\", upstream: one }
  - { uri: \"test:///default?host=two\", upstream: two }
  - { uri: \"qemu:///*\", upstream: two }
"
    })
    .start();
    assert_eq!(mark(list(&proxy.uri("test:///default", "sock"))), "one");
    assert_eq!(
        mark(list(&proxy.uri("test:///default?host=two", "sock"))),
        "none"
    );
    let pools = virsh(
        &proxy.uri("qemu:///session", "sock"),
        &["pool-list", "--name"],
    );
    assert_eq!(pools.run().ok().trim(), "of-two");
    // The daemon would open it; the table has no place for it.
    let uri = proxy.uri("network:///session", "sock");
    no_route(virsh(&uri, &["net-list"]), "network:///session");
    let uri = proxy.uri("test:///default?host=three", "sock");
    no_route(list(&uri), "test:///default?host=three");
}

#[test]
fn no_route_is_libvirts_own_error() {
    let daemon = Libvirtd::start();
    let proxy = ProxyBuilder::new(|dir| {
        everything_to(dir, &daemon.socket(), "").replace("[\"*?*\", \"\"]", "\"test:///default\"")
    })
    .start();
    let ask = |socket: &Path| {
        RpcClient::connect(socket)
            .open(Some("foo:///bar"), 0)
            .unwrap_err()
    };
    assert_eq!(ask(&proxy.socket()), ask(&daemon.socket()));
}

#[test]
fn two_real_users_get_different_daemons_for_the_same_uri() {
    let (one, two) = (marked("one"), marked("two"));
    let (alice, bob) = if Account::current().is_root() {
        (Account::named("games"), Account::named("www-data"))
    } else {
        // Nobody else can be had: one user, whom the second route serves.
        (Account::current(), Account::current())
    };
    let several = alice != bob;
    let first = if several { &*alice.name } else { "root" };
    let proxy = ProxyBuilder::new(|dir| {
        listeners(dir, "")
            + "upstreams:\n"
            + &upstream("one", &one.daemon.socket())
            + &upstream("two", &two.daemon.socket())
            + &format!(
                "identities:
  alice: {{ unix: {{ user: {first} }} }}
  bob: {{ unix: {{ user: {bob} }} }}
routes:
  - {{ uri: \"test:///default\", clients: alice, upstream: one }}
  - {{ uri: \"test:///default\", clients: bob, upstream: two }}
",
                bob = bob.name
            )
    })
    .start();
    let uri = proxy.uri("test:///default", "sock");
    assert_eq!(mark(list(&uri).account(&bob)), "two");
    if several {
        assert_eq!(mark(list(&uri).account(&alice)), "one");
        no_route(list(&uri), "test:///default");
    }
}

#[test]
fn identities_go_by_user_uid_groups_and_exclusion() {
    if !Account::current().is_root() {
        eprintln!("skipped: only root can run clients as several users");
        return;
    }
    let names = ["user", "uid", "primary", "supplementary", "all", "rest"];
    let daemons = names.map(named);
    let www_data = Account::named("www-data");
    let proxy = ProxyBuilder::new(|dir| {
        let upstreams: String = names
            .iter()
            .zip(&daemons)
            .map(|(name, daemon)| upstream(name, &daemon.socket()))
            .collect();
        let routes: String = names
            .iter()
            .map(|name| {
                format!("  - {{ uri: \"test:///*\", clients: {name}, upstream: {name} }}\n")
            })
            .collect();
        listeners(dir, "")
            + "upstreams:\n"
            + &upstreams
            + &format!(
                "identities:
  user: {{ unix: {{ user: \"game?\" }} }}
  uid: {{ unix: {{ uid: {uid} }} }}
  primary: {{ unix: {{ gid: {gid} }} }}
  supplementary: {{ unix: {{ group: audio }} }}
  all: {{ all: [{{ unix: {{ user: man }} }}, {{ listener: main }}] }}
  rest: {{ not: {{ any: [{{ identity: all }}, {{ unix: {{ user: bin }} }}] }} }}
routes:
",
                uid = www_data.uid,
                gid = Account::named("nobody").with_primary_group("video").gid,
            )
            + &routes
    })
    .start();
    let ask = |account: Account, file: &str| {
        let uri = proxy.uri("test:///default", file);
        virsh(&uri, &["hostname"]).account(&account)
    };
    let nobody = || Account::named("nobody");
    let served = |account: Account| ask(account, "sock").run().ok();
    assert_eq!(served(Account::named("games")), "user");
    assert_eq!(served(www_data.clone()), "uid");
    assert_eq!(served(nobody().with_primary_group("video")), "primary");
    assert_eq!(served(nobody().with_group("video")), "primary");
    assert_eq!(served(nobody().with_group("audio")), "supplementary");
    assert_eq!(
        served(nobody().with_primary_group("audio")),
        "supplementary"
    );
    assert_eq!(served(Account::named("man")), "all");
    assert_eq!(served(nobody()), "rest");
    // By the other listener he is not of `all`, but then not excluded from the rest either.
    assert_eq!(ask(Account::named("man"), "sock-ro").run().ok(), "rest");
    no_route(ask(Account::named("bin"), "sock"), "test:///default");
}

#[test]
fn two_daemons_are_chosen_by_listener() {
    let (one, two) = (marked("one"), marked("two"));
    let proxy = ProxyBuilder::new(|dir| {
        listeners(dir, "")
            + "upstreams:\n"
            + &upstream("one", &one.daemon.socket())
            + &upstream("two", &two.daemon.socket())
            + "routes:
  - { uri: \"test:///default\", listeners: main, upstream: one }
  - { uri: \"test:///default\", upstream: two }
"
    })
    .start();
    assert_eq!(mark(list(&proxy.uri("test:///default", "sock"))), "one");
    assert_eq!(mark(list(&proxy.uri("test:///default", "sock-ro"))), "two");
}

#[test]
fn a_client_without_a_uri_gets_the_first_daemon_that_is_alive() {
    let mut dead = Libvirtd::start();
    let alive = marked("alive");
    let proxy = ProxyBuilder::new(|dir| {
        listeners(dir, "")
            + "upstreams:\n"
            + &upstream("dead", &dead.socket())
            + &upstream("alive", &alive.daemon.socket())
            + &upstream("never-there", &dir.join("no-such-socket"))
            + "routes:
  - { uri: \"qemu:///system\", upstream: never-there }
  - { uri: \"qemu:///session\", upstream: dead }
  - { uri: \"test:///default\", upstream: alive }
  - { uri: \"\", probe: [\"qemu:///system\", \"qemu:///session\", \"test:///default\"] }
"
    })
    .start();
    dead.kill();
    let uri = proxy.uri("remote:///", "sock");
    assert_eq!(mark(list(&uri)), "alive");
    dead.restart();
    let kind = virsh(&uri, &["version"]).run().ok();
    assert!(kind.contains("Using API: QEMU"), "{kind}");
}

#[test]
fn an_open_that_is_redirected_reaches_the_daemon_as_the_policy_says() {
    let daemon = named("daemon");
    let proxy = ProxyBuilder::new(|dir| {
        listeners(dir, "")
            + "upstreams:\n"
            + &upstream("daemon", &daemon.socket())
            + "routes:
  - { uri: \"qemu:///system?host=hv2\", upstream: daemon }
  - { uri: \"qemu:///old\", upstream: daemon, open: \"qemu:///system\" }
  - { uri: \"qemu:///*?*\", upstream: daemon }
"
    })
    .start();
    for uri in [
        "qemu:///system?host=hv2",
        "qemu:///old",
        "qemu:///session?a=b",
    ] {
        virsh(&proxy.uri(uri, "sock"), &["hostname"]).run().ok();
    }
    let opened: Vec<_> = daemon
        .opened()
        .into_iter()
        .filter_map(|(uri, _)| uri)
        .collect();
    assert_eq!(
        opened,
        ["qemu:///system", "qemu:///system", "qemu:///session?a=b"]
    );
}

#[test]
fn paths_of_the_policy_take_environment_variables() {
    let daemon = Libvirtd::start();
    let here = WorkDir::new();
    let path = here.path().to_str().unwrap();
    let proxy = ProxyBuilder::new(|_| {
        "version: 1
listeners:
  main: { unix: \"${VP_HERE}/sock\" }
upstreams:
  daemon: { unix: \"${VP_DAEMON}/run/libvirt/libvirt-sock\" }
routes:
  - { uri: \"test:///default\", upstream: daemon }
"
        .to_owned()
    })
    .env("VP_HERE", path)
    .env("VP_DAEMON", daemon.dir().to_str().unwrap())
    .start();
    let uri = uri_at("test:///default", &here.join("sock"));
    virsh(&uri, &["list"]).run().ok();
    drop(proxy);
}

#[test]
fn a_read_only_listener_refuses_writes_in_the_daemons_words() {
    const WRITES: Script = Script {
        name: "writes",
        text: "
import sys, libvirt
libvirt.registerErrorHandler(lambda _context, _error: None, None)
conn = (libvirt.openReadOnly if sys.argv[2] == 'ro' else libvirt.open)(sys.argv[1])
dom = conn.lookupByName('test')
print(dom.isActive())
for call in (dom.suspend, dom.destroy, lambda: dom.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE),
             lambda: conn.defineXML('<domain/>'), lambda: conn.networkDefineXML('<network/>')):
    try:
        call()
        print('done')
    except libvirt.libvirtError as error:
        print(error.get_error_code(), error.get_error_message())
",
    };
    let daemon = Libvirtd::start();
    let proxy = Proxy::before(&daemon.socket());
    let ask = |uri: &str, how: &str| python(WRITES, &[uri, how]).run().ok();
    let direct = ask(&daemon.uri("test:///default"), "ro");
    assert!(
        direct.contains("operation forbidden: read only access prevents virDomainSuspend"),
        "{direct}"
    );
    let through = proxy.uri("test:///default", "sock-ro");
    assert_eq!(ask(&through, "ro"), direct);
    // A client that asks for more learns of the limit from the daemon rather than from its library.
    let refused = ask(&through, "rw");
    assert!(!refused.contains("done"), "{refused}");
    let refusals = refused.lines().skip(1);
    // VIR_ERR_OPERATION_DENIED
    assert!(
        refusals.clone().count() == 5 && refusals.clone().all(|line| line.starts_with("29 ")),
        "{refused}"
    );
    let written = ask(&proxy.uri("test:///default", "sock"), "rw");
    assert!(written.starts_with("1\ndone\ndone\n"), "{written}");
}

#[test]
fn read_only_clients_are_sent_to_the_daemons_read_only_socket() {
    let (write, read) = (named("write"), named("read"));
    let proxy = ProxyBuilder::new(|dir| {
        let more = format!("unix_ro: \"{}\"", read.socket().display());
        everything_to(dir, &write.socket(), &more)
    })
    .start();
    let ask =
        |file: &str, args: &[&str]| virsh(&proxy.uri("test:///default", file), args).run().ok();
    assert_eq!(ask("sock", &["hostname"]), "write");
    assert_eq!(ask("sock", &["-r", "hostname"]), "read");
    assert_eq!(ask("sock-ro", &["hostname"]), "read");
    let readonly = |daemon: &FakeUpstream| -> Vec<u32> {
        daemon.opened().iter().map(|(_, flags)| flags & 1).collect()
    };
    assert_eq!(readonly(&write), [0]);
    assert_eq!(readonly(&read), [1, 1]);
}

#[test]
fn a_daemon_that_restarts_serves_new_clients_again() {
    let mut daemon = Libvirtd::start();
    let proxy = Proxy::before(&daemon.socket());
    let uri = proxy.uri("test:///default", "sock");
    for _ in 0..2 {
        virsh(&uri, &["list"]).run().ok();
        daemon.kill();
        let error = virsh(&uri, &["list"]).run().failed();
        assert!(
            error.contains("Failed to connect to upstream 'daemon': Connection refused"),
            "{error}"
        );
        daemon.restart();
    }
    virsh(&uri, &["list"]).run().ok();
}
