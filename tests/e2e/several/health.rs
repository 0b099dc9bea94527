//! Daemons that are down: one client pays for it, the others hear of it at once, and nobody has to do
//! anything when they are up again.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::thread;

use rustix::net::sockopt::set_socket_reuseaddr;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, listen, socket_with};

use super::{ADDRESS, at, by_tls, certificates, helper, tcp_conf};
use crate::support::account::Account;
use crate::support::fake_upstream::FakeUpstream;
use crate::support::libvirtd::Libvirtd;
use crate::support::pki::free_port;
use crate::support::policy::{CONNECT, listeners};
use crate::support::process::find_program;
use crate::support::proxy::{Proxy, ProxyBuilder};
use crate::support::rpc_client::RpcClient;
use crate::support::wait::eventually;
use crate::support::wire::{RpcError, status};
use crate::support::workdir::WorkDir;

const URI: &str = "test:///default";

/// A port that takes no connection: what comes waits for a place in its queue, which is full.
#[allow(dead_code, reason = "it is held")]
struct Swallowing(Vec<OwnedFd>);

impl Swallowing {
    fn at(port: u16) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let make = || {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap()
        };
        let listener = make();
        set_socket_reuseaddr(&listener, true).unwrap();
        bind(&listener, &address).unwrap();
        listen(&listener, 0).unwrap();
        let mut all = vec![listener];
        // One more than the queue takes, so that the kernel has begun to drop.
        for _ in 0..3 {
            let client = make();
            _ = connect(&client, &address);
            all.push(client);
        }
        Self(all)
    }
}

/// A daemon that listens by plain TCP there.
fn by_tcp(port: u16) -> Libvirtd {
    Libvirtd::listening(&tcp_conf(ADDRESS, port, "none"))
}

/// The proxy before `hv`, and before a daemon that is well.
struct Scene {
    proxy: Proxy,
    _well: FakeUpstream,
}

impl Scene {
    fn before(hv: &str) -> Self {
        Self::within("2s", hv)
    }

    /// With so much time for a connection.
    fn within(time: &str, hv: &str) -> Self {
        let well = FakeUpstream::start();
        let proxy = ProxyBuilder::new(|dir| {
            listeners(dir, "")
                + &format!(
                    "upstreams:
  hv: {{ {hv}, connect_timeout: {time} }}
  well: {{ unix: \"{}\", {CONNECT} }}
routes:
  - {{ uri: \"{URI}\", upstream: hv }}
  - {{ uri: \"test:///well\", upstream: well }}
",
                    well.socket().display()
                )
        });
        Self {
            proxy: proxy.start(),
            _well: well,
        }
    }

    fn open(&self, uri: &str) -> Result<(), RpcError> {
        let mut client = RpcClient::connect(&self.proxy.socket());
        client.auth_list();
        client.open(Some(uri), 0)
    }

    /// What a client is refused by, and whether it was told what is known already: else it was the
    /// one that tried.
    #[track_caller]
    fn refusal(&self) -> (bool, RpcError) {
        let error = self.open(URI).unwrap_err();
        (error.message.contains("is down since "), error)
    }

    /// The first client waits, and then nobody but whoever is the one to try again.
    #[track_caller]
    fn one_client_pays(&self) {
        let (is_known, error) = self.refusal();
        let is_told = error.message.contains("connecting to upstream 'hv'");
        assert!(error.code == 68 && is_told && !is_known, "{error:?}");
        // On a slow machine it may be time to try again, and then for longer not.
        eventually("whoever comes is told", || {
            let (is_known, error) = self.refusal();
            let parts = ["upstream 'hv': hv ", ": ", "tried"];
            let has_all = parts.iter().all(|part| error.message.contains(part));
            assert!(has_all || !is_known, "{error:?}");
            is_known
        });
        self.open("test:///well").unwrap();
        self.told(Some("1 of 2 upstreams down: hv"));
        let waited = thread::scope(|scope| {
            let clients: Vec<_> = (0..20).map(|_| scope.spawn(|| self.refusal().0)).collect();
            let known = clients.into_iter().map(|client| client.join().unwrap());
            known.filter(|is_known| !is_known).count()
        });
        assert!(waited <= 5, "{waited} clients waited");
    }

    /// It is used again, and all is said once.
    #[track_caller]
    fn comes_back(&self) {
        eventually("it is used again", || self.open(URI).is_ok());
        self.told(None);
        let log = self.proxy.process().stderr();
        for said in ["driver daemon is down", "driver daemon is up again"] {
            log.wait_for(said);
            assert_eq!(log.count(said), 1, "{:#?}", log.lines());
        }
    }

    /// Waits until the last status that was told is about daemons that are down, or not.
    #[track_caller]
    fn told(&self, down: Option<&str>) {
        let what = down.map_or_else(|| "all are well".to_owned(), |down| format!("told: {down}"));
        eventually(&what, || {
            let messages = self.proxy.notified().lines();
            let mut lines = messages.iter().flat_map(|message| message.lines());
            let last = lines.rfind(|line| line.starts_with("STATUS="));
            last.is_some_and(|last| match down {
                Some(down) => last.ends_with(&format!("; {down}")),
                None => !last.contains(" down"),
            })
        });
    }
}

#[test]
fn a_host_that_drops_what_it_is_sent_costs_one_client_its_time() {
    let port = free_port();
    let scene = Scene::before(&format!("tcp: \"127.0.0.1:{port}\""));
    let silent = Swallowing::at(port);
    scene.one_client_pays();
    drop(silent);
    let _daemon = by_tcp(port);
    scene.comes_back();
}

#[test]
fn a_port_that_accepts_and_says_nothing_costs_one_client_its_time() {
    let port = free_port();
    let scene = Scene::before(&format!("tcp: \"127.0.0.1:{port}\""));
    let silent = TcpListener::bind(("127.0.0.1", port)).unwrap();
    scene.one_client_pays();
    drop(silent);
    let _daemon = by_tcp(port);
    scene.comes_back();
}

#[test]
fn a_port_that_begins_no_handshake_costs_one_client_its_time() {
    let dir = WorkDir::new();
    let pki = certificates(&dir);
    let port = free_port();
    let keys = pki.upstream("ca", "gateway");
    let scene = Scene::before(&format!("tls: \"127.0.0.1:{port}\", {keys}"));
    let silent = TcpListener::bind(("127.0.0.1", port)).unwrap();
    scene.one_client_pays();
    drop(silent);
    let _daemon = Libvirtd::listening(&pki.libvirtd_conf("daemon", ADDRESS, port));
    scene.comes_back();
}

/// It is ended by force with whatever it has started.
#[test]
fn a_program_that_says_nothing_costs_one_client_its_time() {
    let dir = WorkDir::owned_by(&Account::unprivileged());
    let file = |name: &str| dir.join(name).display().to_string();
    let (pids, hangs) = (file("pids"), file("hangs"));
    fs::write(&hangs, "").unwrap();
    let daemon = Libvirtd::start();
    let script = format!(
        "[ -e {hangs} ] || exec {} qemu:///session; trap '' TERM; sleep 1000 & echo $$ $! >> {pids}; sleep 1000",
        find_program("virt-ssh-helper").display()
    );
    let words = helper(&daemon.dir().join("run"), "qemu:///session");
    let words = words.split(", /").next().unwrap();
    let scene = Scene::before(&format!("{words}, sh, -c, \"{script}\", sh]"));
    scene.one_client_pays();
    let started = fs::read_to_string(&pids).unwrap();
    eventually("nothing of it is left", || {
        started.split_whitespace().all(|pid| {
            // A grandchild is not the proxy's to wait for.
            let state = fs::read_to_string(format!("/proc/{pid}/stat"));
            state.map_or(true, |state| state.contains(") Z "))
        })
    });
    fs::remove_file(hangs).unwrap();
    scene.comes_back();
}

#[test]
fn a_daemon_that_is_stopped_costs_one_client_its_time() {
    let mut daemon = Libvirtd::start();
    let scene = Scene::before(&at(&daemon));
    scene.open(URI).unwrap();
    daemon.pause();
    scene.one_client_pays();
    daemon.resume();
    scene.comes_back();
}

/// Everybody is served by the other one, and the dead one is found to be alive again without
/// anybody being refused.
fn one_of_two_is_dead<T>(silence: impl FnOnce(u16) -> T) {
    let (dead, alive) = (free_port(), free_port());
    let _daemon = by_tcp(alive);
    let silent = silence(dead);
    // A slow machine may take its time with the one that is alive.
    let hv = format!("tcp: [\"127.0.0.1:{dead}\", \"127.0.0.1:{alive}\"]");
    let scene = Scene::within("8s", &hv);
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| scene.open(URI).unwrap());
        }
    });
    // With one left, the upstream is not down.
    scene.told(None);
    let log = scene.proxy.process().stderr();
    log.wait_for("driver daemon is down");
    assert_eq!(log.count("driver daemon is down"), 1);
    drop(silent);
    let _other = by_tcp(dead);
    eventually("both are used", || {
        scene.open(URI).unwrap();
        log.count("driver daemon is up again") == 1
    });
}

#[test]
fn with_two_addresses_everybody_is_served_where_one_takes_no_connection() {
    one_of_two_is_dead(Swallowing::at);
}

#[test]
fn with_two_addresses_everybody_is_served_where_one_says_nothing() {
    one_of_two_is_dead(|port| TcpListener::bind(("127.0.0.1", port)).unwrap());
}

#[test]
fn with_two_addresses_everybody_is_served_where_one_is_not_there() {
    one_of_two_is_dead(|_| ());
}

/// A connection that is open: a daemon of one driver falls silent, and is there again.
#[test]
fn a_far_daemon_that_is_stopped_fails_its_calls_and_no_others() {
    const NUM_OF_DOMAINS: i32 = 51;
    const NUM_OF_POOLS: i32 = 71;
    let dir = WorkDir::new();
    let domains = Libvirtd::start();
    let (mut storage, far) = by_tls(&certificates(&dir));
    let proxy = ProxyBuilder::new(|dir| {
        listeners(dir, "keepalive: { interval: never }")
            + &format!(
                "upstreams:
  domains: {{ {}, {CONNECT} }}
  storage: {{ {far}, connect_timeout: 10s, keepalive: {{ interval: 1s, count: 1 }} }}
routes:
  - {{ uri: \"qemu:///session\", upstream: domains, drivers: {{ storage: storage }} }}
",
                at(&domains)
            )
    })
    .start();
    let mut client = RpcClient::opened(&proxy.socket(), "qemu:///session");
    let mut call = |procedure| {
        let answer = client.call(procedure, Vec::new());
        match answer.status {
            status::OK => Ok(()),
            _ => Err(answer.error().message),
        }
    };
    call(NUM_OF_POOLS).unwrap();
    storage.pause();
    let silent = call(NUM_OF_POOLS).unwrap_err();
    assert!(
        silent.contains("upstream 'storage': the daemon does not answer"),
        "{silent}"
    );
    call(NUM_OF_DOMAINS).unwrap();
    eventually("its clients are told", || {
        let known = call(NUM_OF_POOLS).unwrap_err();
        known.contains("is down since")
    });
    call(NUM_OF_DOMAINS).unwrap();
    storage.resume();
    eventually("storage serves again", || call(NUM_OF_POOLS).is_ok());
    call(NUM_OF_DOMAINS).unwrap();
}
