//! A user's own daemons, which are started when they are needed and end when nobody needs them.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::account::Account;
use crate::support::fake_upstream::{FakeUpstream, Next};
use crate::support::libvirtd::{directories, furnish};
use crate::support::policy::{CONNECT, listeners};
use crate::support::process::Log;
use crate::support::proxy::{Proxy, ProxyBuilder};
use crate::support::rpc_client::RpcClient;
use crate::support::tool::{uri_at, virsh};
use crate::support::wait::{eventually, poll};
use crate::support::wire::{procedure, status};
use crate::support::workdir::WorkDir;

/// What the daemon says of itself, to have something in the log.
const LOUD: &str = "log_filters = \"1:rpc 4:*\"\nlog_outputs = \"1:stderr\"\n";

const URI: &str = "qemu:///session";

/// A user who has nothing but the proxy.
struct User {
    // Dropped in this order: what starts daemons, then the daemon that was started.
    proxy: Proxy,
    dir: WorkDir,
}

impl User {
    /// `policy` from the upstreams on.
    fn start(policy: &str) -> Self {
        let listener = "version: 1\nlisteners: { main: { unix: \"${XDG_RUNTIME_DIR}/sock\" } }\n";
        Self::with(&format!("{listener}{policy}"))
    }

    fn with(policy: &str) -> Self {
        let account = Account::unprivileged();
        let dir = WorkDir::owned_by(&account);
        furnish(dir.path(), &account, LOUD);
        let mut builder = ProxyBuilder::new(|_| policy.to_owned())
            .account(&account)
            .env("PATH", "/usr/bin:/usr/sbin:/bin:/sbin");
        for (name, path) in directories(dir.path()) {
            builder = builder.env(name, path.to_str().unwrap());
        }
        let proxy = builder.start();
        Self { proxy, dir }
    }

    fn connect(&self) -> RpcClient {
        RpcClient::opened(&self.dir.join("run/sock"), URI)
    }

    fn log(&self) -> &Log {
        self.proxy.process().stderr()
    }

    /// The daemon that runs now.
    fn daemon(&self) -> Option<Pid> {
        let file = self.dir.join("run/libvirt/libvirtd.pid");
        let pid = fs::read_to_string(file).ok()?.trim().parse().ok()?;
        // A number may have passed on to another process.
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let is_ours = String::from_utf8_lossy(&environment).contains(self.dir.path().to_str()?);
        Pid::from_raw(pid).filter(|_| is_ours)
    }
}

impl Drop for User {
    fn drop(&mut self) {
        if let Some(pid) = self.daemon() {
            // It may end in between, which is what was wanted.
            let _ended = kill_process(pid, Signal::KILL);
            if poll(|| self.daemon().is_none().then_some(())).is_none() {
                eprintln!("{pid:?} has not ended");
            }
        }
    }
}

/// An upstream that is started by these words.
fn started_by(words: &str) -> String {
    format!(
        "upstreams:
  qemu: {{ unix: \"${{XDG_RUNTIME_DIR}}/libvirt/libvirt-sock\", start: [{words}], {CONNECT} }}
routes:
  - {{ uri: \"{URI}\", upstream: qemu }}
"
    )
}

#[test]
fn a_daemon_is_started_once_for_twenty_clients_and_again_after_it_was_idle() {
    let user = User::start(&started_by("libvirtd, --timeout=1"));
    for round in 1..=2 {
        let clients: Vec<RpcClient> = thread::scope(|scope| {
            let clients: Vec<_> = (0..20).map(|_| scope.spawn(|| user.connect())).collect();
            clients
                .into_iter()
                .map(|client| client.join().unwrap())
                .collect()
        });
        assert_eq!(user.log().count("started libvirtd"), round);
        assert_eq!(user.log().count("libvirtd has ended"), round - 1);
        drop(clients);
        eventually("it ends, as nobody uses it", || {
            user.log().count("libvirtd has ended") == round
        });
        assert_eq!(user.daemon(), None);
    }
    // What it said, as what said it.
    let said = user.log().wait_for("virNetServerClientNew");
    assert!(
        said.contains("upstream=\"qemu\" program=\"libvirtd\""),
        "{said}"
    );
    assert_eq!(user.log().count("is down"), 0);
}

#[test]
fn nobody_is_refused_while_a_daemon_that_is_started_on_demand_ends() {
    let user = User::start(&started_by("libvirtd, --timeout=30"));
    for round in 1..=5 {
        drop(user.connect());
        let daemon = user.daemon().unwrap();
        kill_process(daemon, Signal::TERM).unwrap();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while user.log().count("started libvirtd") == round {
                        drop(user.connect());
                    }
                });
            }
        });
    }
}

/// A daemon that closes so many connections as soon as it is spoken to, as one does that is ending.
fn ending(connections: usize) -> FakeUpstream {
    let left = AtomicUsize::new(connections);
    FakeUpstream::scripted(move |_, frame| {
        let less = |left: usize| left.checked_sub(1);
        let counts = frame.procedure == procedure::AUTH_LIST;
        match counts && left.fetch_update(SeqCst, SeqCst, less).is_ok() {
            true => Next::Close,
            false => Next::Standard,
        }
    })
}

#[test]
fn a_daemon_that_ends_just_then_is_dialled_once_more() {
    const NUM_OF_POOLS: i32 = 71;
    let (primary, storage, crashing) = (ending(1), ending(1), ending(usize::MAX));
    let proxy = ProxyBuilder::new(|dir| {
        let of = |name: &str, daemon: &FakeUpstream| {
            let socket = daemon.socket();
            let socket = socket.display();
            format!("  {name}: {{ unix: {socket}, start: [\"true\"], {CONNECT} }}\n")
        };
        listeners(dir, "")
            + "upstreams:\n"
            + &of("primary", &primary)
            + &of("storage", &storage)
            + &of("crashing", &crashing)
            + "routes:
  - { uri: \"good:///\", upstream: primary, drivers: { storage: storage } }
  - { uri: \"bad:///\", upstream: crashing }
"
    })
    .start();
    let mut client = RpcClient::opened(&proxy.socket(), "good:///");
    assert_eq!(client.call(NUM_OF_POOLS, Vec::new()).status, status::OK);
    assert_eq!((primary.accepted(), storage.accepted()), (2, 2));

    let mut client = RpcClient::connect(&proxy.socket());
    client.auth_list();
    let error = client.open(Some("bad:///"), 0).unwrap_err();
    assert!(
        error.message.contains("the daemon closed the connection"),
        "{error:?}"
    );
    assert_eq!(crashing.accepted(), 2);
}

#[test]
fn a_daemon_that_was_started_outlives_the_proxy() {
    let mut user = User::start(&started_by("libvirtd, --timeout=30"));
    drop(user.connect());
    let daemon = user.daemon();
    user.proxy.restart();
    // Nobody reads any more what it says.
    for _ in 0..20 {
        drop(user.connect());
    }
    assert_eq!(user.daemon(), daemon);
    assert_eq!(user.log().count("started "), 0);
}

#[test]
fn a_program_that_cannot_start_a_daemon_says_why() {
    let user = User::start(&started_by("sh, -c, \"echo no such driver >&2; exit 3\""));
    let refused = || {
        let mut client = RpcClient::connect(&user.dir.join("run/sock"));
        client.auth_list();
        client.open(Some(URI), 0).unwrap_err().message
    };
    let why = "upstream 'qemu': sh has ended (exit status: 3): no such driver; started again in ";
    for _ in 0..3 {
        let said = refused();
        assert!(said.contains(why), "{said}");
    }
    assert_eq!(user.log().count("started sh"), 1);
    user.log()
        .wait_for("no such driver upstream=\"qemu\" program=\"sh\"");
    eventually("it is tried again", || {
        refused();
        user.log().count("started sh") > 1
    });
}

#[test]
fn a_daemon_that_is_not_installed_is_told_of() {
    let user = User::start(&started_by("virtnosuchd, --timeout=120"));
    let mut client = RpcClient::connect(&user.dir.join("run/sock"));
    client.auth_list();
    let said = client.open(Some(URI), 0).unwrap_err().message;
    assert!(
        said.contains("cannot start virtnosuchd: No such file"),
        "{said}"
    );
}

/// The example, with the monolithic daemon in place of that of QEMU; those of the drivers are not
/// installed, so that it serves these as well.
#[test]
fn the_example_for_sessions_serves_virsh() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/session.yaml");
    let text = fs::read_to_string(example).unwrap();
    let text = text
        .replace("libvirt/libvirt-sock", "front")
        .replace("virtqemud-sock", "libvirt-sock")
        .replace("[virtqemud, --timeout=120]", "[libvirtd, --timeout=1]")
        .replace("[virt", "[no-virt");
    let user = User::with(&text);
    let front = user.dir.join("run/front");
    let run = |driver: &str, args: &[&str]| {
        let uri = uri_at(&format!("{driver}:///session"), &front);
        virsh(&uri, args).account(&Account::unprivileged()).run()
    };
    let pools = user.dir.join("pools");
    let target = pools.to_str().unwrap();
    let list = ["pool-list", "--all", "--name"];
    run(
        "qemu",
        &["pool-define-as", "one", "dir", "--target", target],
    )
    .ok();
    assert_eq!(run("qemu", &list).ok().trim(), "one");
    assert!(run("qemu", &["nodedev-list"]).ok().contains("computer"));
    let refused = run("storage", &list).failed();
    assert!(
        refused.contains("upstream 'storage': cannot start no-virtstoraged"),
        "{refused}"
    );
    assert_eq!(user.log().count("started libvirtd"), 1);
    eventually("it ends, as nobody uses it", || user.daemon().is_none());
    assert_eq!(run("qemu", &list).ok().trim(), "one");
    eventually("it was started again", || {
        user.log().count("started libvirtd") == 2
    });
}
