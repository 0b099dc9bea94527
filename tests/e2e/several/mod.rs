//! One client connection, several daemons: each class of objects is served by the daemon that owns
//! it, and nothing tells the client that there is more than one.

mod drivers;
mod gateway;
mod health;
mod hosts;
#[cfg(feature = "gssapi")]
mod kerberos;
mod on_demand;
mod programs;
mod reconnect;
mod remote;
mod stateless;

use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::support::account::Account;
use crate::support::guest::guest_xml;
use crate::support::libvirtd::Libvirtd;
use crate::support::pki::{Pki, free_port};
use crate::support::policy::{CONNECT, listeners};
use crate::support::process::find_program;
use crate::support::proxy::{Proxy, ProxyBuilder};
use crate::support::scripts::{EVENTS, SCRIPT_OF_CALLS, SEVERAL, Script};
use crate::support::tool::{assert_same, python, virsh};
use crate::support::workdir::WorkDir;

/// A real daemon for each of three parts, and the proxy before them.
struct Three {
    domains: Libvirtd,
    networks: Libvirtd,
    storage: Libvirtd,
    proxy: Proxy,
}

impl Three {
    /// Secrets and the rest are with the networks. `open` is what is opened of each driver, if it
    /// is not its own URI.
    fn start(open: Option<&str>) -> Self {
        let daemons = [(); 3].map(|()| Libvirtd::start());
        let upstreams = daemons.each_ref().map(at);
        Self::behind(daemons, &upstreams, open, |builder| builder)
    }

    /// The proxy before daemons (of domains, networks and storage) that it reaches as `upstreams`.
    fn behind(
        [domains, networks, storage]: [Libvirtd; 3],
        upstreams: &[String; 3],
        open: Option<&str>,
        how: impl FnOnce(ProxyBuilder) -> ProxyBuilder,
    ) -> Self {
        let builder = ProxyBuilder::new(|dir| policy(dir, upstreams, open));
        Self {
            domains,
            networks,
            storage,
            proxy: how(builder).start(),
        }
    }

    fn uri(&self, uri: &str) -> String {
        self.proxy.uri(uri, "sock")
    }

    /// A domain, a network and a pool, each called `here`.
    #[track_caller]
    fn define_one_of_each(&self) {
        let define = |define: &str, xml: &str| {
            let path = self.proxy.dir().join(define);
            fs::write(&path, xml).unwrap();
            let args = [define, path.to_str().unwrap()];
            virsh(&self.uri("qemu:///session"), &args).run().ok();
        };
        define(
            "define",
            "<domain type='qemu'><name>here</name><memory>65536</memory><os><type>hvm</type></os></domain>",
        );
        define(
            "net-define",
            "<network><name>here</name><bridge name='virbr98'/></network>",
        );
        define(
            "pool-define",
            "<pool type='dir'><name>here</name><target><path>/nowhere</path></target></pool>",
        );
    }
}

/// How a daemon of this host is reached.
fn at(daemon: &Libvirtd) -> String {
    format!("unix: \"{}\"", daemon.socket().display())
}

/// Where daemons listen that are reached by TLS or TCP.
const ADDRESS: &str = "127.0.0.1";

/// Certificates: a CA, the daemon `daemon` there, and `gateway`, who is the proxy.
fn certificates(dir: &WorkDir) -> Pki {
    let pki = Pki::new(&dir.join("pki"));
    pki.daemon("daemon", ADDRESS, "");
    pki.client("gateway", "ca", "");
    pki
}

/// A daemon with such certificates, and how the proxy reaches it by TLS.
fn by_tls(pki: &Pki) -> (Libvirtd, String) {
    let port = free_port();
    let daemon = Libvirtd::listening(&pki.libvirtd_conf("daemon", ADDRESS, port));
    let keys = pki.upstream("ca", "gateway");
    (daemon, format!("tls: \"{ADDRESS}:{port}\", {keys}"))
}

/// Lines of a `libvirtd.conf`: listens there by plain TCP, and asks for `auth`.
fn tcp_conf(address: &str, port: u16, auth: &str) -> String {
    format!(
        "listen_tls = 0\nlisten_tcp = 1\nauth_tcp = \"{auth}\"\nlisten_addr = \"{address}\"\n\
         tcp_port = \"{port}\"\n"
    )
}

/// libvirt's own program for the far end of an SSH connection, on the daemon that has its sockets in
/// this run-time directory. It knows sessions of users alone.
fn helper(run: &Path, uri: &str) -> String {
    let account = Account::unprivileged();
    format!(
        "command: [setpriv, --reuid={}, --regid={}, --clear-groups, env, \"XDG_RUNTIME_DIR={}\", \
         {}, \"{uri}\"]",
        account.uid,
        account.gid,
        run.display(),
        find_program("virt-ssh-helper").display()
    )
}

fn policy(dir: &Path, upstreams: &[String; 3], open: Option<&str>) -> String {
    let open = open.map_or_else(String::new, |uri| format!(", open: \"{uri}\""));
    let mut policy = listeners(dir, "");
    policy += "upstreams:\n";
    for (name, upstream) in ["domains", "networks", "storage"].iter().zip(upstreams) {
        writeln!(policy, "  {name}: {{ {upstream}, {CONNECT} }}").unwrap();
    }
    policy += "routes:
  - { uri: \"network:///session\", upstream: networks }
  - uri: \"*?*\"
    upstream: domains
    drivers:
";
    for driver in ["network", "nodedev", "nwfilter", "secret", "interface"] {
        writeln!(policy, "      {driver}: {{ upstream: networks{open} }}").unwrap();
    }
    policy + &format!("      storage: {{ upstream: storage{open} }}\n")
}

fn directly(script: Script) -> String {
    let daemon = Libvirtd::start();
    python(script, &[&daemon.uri("test:///default")]).run().ok()
}

#[test]
fn the_script_of_calls_gives_the_same_as_with_one_daemon() {
    let direct = directly(SCRIPT_OF_CALLS);
    let three = Three::start(Some("test:///default"));
    let uri = three.uri("test:///default");
    let said = python(SCRIPT_OF_CALLS, &[&uri]).run().ok();
    assert_same(&direct, &said);
}

#[test]
fn events_of_every_daemon_come_as_from_one() {
    let direct = directly(EVENTS);
    let three = Three::start(Some("test:///default"));
    let said = python(EVENTS, &[&three.uri("test:///default")]).run().ok();
    // Daemons know nothing of each other: only those of one come in an order.
    let of = |said: &str, kind: &str| -> Vec<String> {
        let lines = said.lines().filter(|line| line.starts_with(kind));
        lines.map(ToOwned::to_owned).collect()
    };
    for kind in ["domain", "network", "pool"] {
        assert!(of(&direct, kind).len() > 3);
        assert_eq!(of(&said, kind), of(&direct, kind));
    }
    assert_eq!(said.lines().count(), direct.lines().count());
}

#[test]
fn objects_are_where_their_daemon_is_and_nowhere_else() {
    let three = Three::start(None);
    let uri = three.uri("qemu:///session");
    three.define_one_of_each();
    let lists = [
        ["list", "--all", "--name"],
        ["net-list", "--all", "--name"],
        ["pool-list", "--all", "--name"],
    ];
    let daemons = [&three.domains, &three.networks, &three.storage];
    for (number, list) in lists.iter().enumerate() {
        assert!(virsh(&uri, list).run().ok().contains("here"), "{list:?}");
        for (other, daemon) in daemons.iter().enumerate() {
            let said = virsh(&daemon.uri("qemu:///session"), list).run().ok();
            assert_eq!(
                said.contains("here"),
                other == number,
                "{list:?} of {other}"
            );
        }
    }
    // What a client opens of one driver alone goes to that daemon alone.
    let alone = three.uri("network:///session");
    assert!(virsh(&alone, &lists[1]).run().ok().contains("here"));
    let refused = virsh(&alone, &lists[2]).run().failed();
    assert!(refused.contains("not supported"), "{refused}");
}

/// What such a session says in all.
const OUTLIVED: &str = "['one'] ['one'] ['one'] ['one'] ['/one'] b'value'
uploaded beside a console: equal
UP
download: error 38 domain 7
lives one /one 1 1
b'x'
DOWN
BACK";

/// Kills the daemon of storage when the client says so, and starts it again.
fn lose_storage_under(three: &mut Three, guest: &Path) -> String {
    const MIB: &str = "48";
    let pool = three.storage.dir().join("pools");
    let uri = three.uri("qemu:///session");
    let (guest, pool) = (guest.to_str().unwrap(), pool.to_str().unwrap());
    let mut client = python(SEVERAL, &[&uri, guest, pool, MIB]).start();
    client.wait_for("UP");
    three.storage.kill();
    client.wait_for("DOWN");
    three.storage.restart();
    client.finish().ok()
}

#[test]
fn one_session_uses_all_drivers_and_outlives_the_loss_of_a_daemon() {
    let mut three = Three::start(None);
    let guest = guest_xml(&three.domains, "echo");
    assert_eq!(lose_storage_under(&mut three, &guest), OUTLIVED);
}
