//! polkit with libvirt's own clients: a private bus, a real polkitd, rules by user.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::support::account::Account;
use crate::support::bus::Bus;
use crate::support::libvirtd::Libvirtd;
use crate::support::process::Output;
use crate::support::proxy::{Proxy, ProxyBuilder};
use crate::support::rpc_client::RpcClient;
use crate::support::tool::{uri_at, virsh};
use crate::support::wait::eventually;
use crate::support::wire::{procedure, status};

/// `bin` may write, `daemon` may not, `games` has to prove that it is itself, and nobody may read
/// who is called `sys`.
const RULES: &str = r#"
polkit.addRule(function(action, subject) {
    if (action.id == "org.libvirt.unix.manage") {
        if (subject.user == "bin") return polkit.Result.YES;
        if (subject.user == "daemon") return polkit.Result.NO;
        if (subject.user == "games") return polkit.Result.AUTH_SELF;
    }
    if (action.id == "org.libvirt.unix.monitor") {
        if (subject.user == "sys") return polkit.Result.NO;
    }
    // Access rules of libvirtd itself, on what the proxy says of the client.
    if (action.id == "org.libvirt.api.connect.read") {
        return subject.user == "bin" ? polkit.Result.YES : polkit.Result.NO;
    }
    if (action.id.indexOf("org.libvirt.api.") == 0) return polkit.Result.YES;
});
"#;

fn policy(dir: &Path, upstream: &Path) -> String {
    let (dir, upstream) = (dir.display(), upstream.display());
    format!(
        "version: 1
listeners:
  main: {{ unix: {dir}/sock, mode: \"0666\", auth: polkit }}
  ro: {{ unix: {dir}/sock-ro, mode: \"0666\", readonly: true, auth: polkit }}
  open: {{ unix: {dir}/open, mode: \"0666\" }}
upstreams:
  daemon: {{ unix: {upstream}, connect_timeout: 60s }}
routes:
  - {{ uri: [\"*?*\", \"\"], upstream: daemon }}
"
    )
}

fn proxy_before(daemon: &Libvirtd, bus: &str) -> Proxy {
    ProxyBuilder::new(|dir| policy(dir, &daemon.socket()))
        .env("DBUS_SYSTEM_BUS_ADDRESS", bus)
        .start()
}

fn list(socket: &Path, user: &str) -> Output {
    virsh(&uri_at("test:///default", socket), &["list", "--name"])
        .account(&Account::named(user))
        .run()
}

fn write(socket: &Path, user: &str) -> Output {
    virsh(&uri_at("test:///default", socket), &["suspend", "test"])
        .account(&Account::named(user))
        .run()
}

#[test]
fn one_user_is_let_in_and_the_others_hear_what_libvirtd_says() {
    let bus = Bus::start(RULES);
    let behind = Libvirtd::start();
    let proxy = proxy_before(&behind, &bus.address());
    let address = bus.address();
    let real = Libvirtd::configured(
        "auth_unix_rw = \"polkit\"\n",
        &[("DBUS_SYSTEM_BUS_ADDRESS", &address)],
    );
    // A daemon without privileges keeps its socket to itself.
    let socket = real.socket();
    for path in [socket.parent().unwrap(), &socket] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    for socket in [proxy.socket(), real.socket()] {
        assert_eq!(list(&socket, "bin").ok().trim(), "test", "{socket:?}");
        // root repairs hosts.
        assert_eq!(list(&socket, "root").ok().trim(), "test", "{socket:?}");
    }
    for user in ["daemon", "games", "sys"] {
        let error = list(&proxy.socket(), user).failed();
        assert_eq!(error, list(&real.socket(), user).failed(), "{user}");
        assert!(error.contains("authentication"), "{error}");
    }
    let denied = list(&proxy.socket(), "daemon").failed();
    assert!(denied.contains("access denied by policy"), "{denied}");
    let asked = list(&proxy.socket(), "games").failed();
    assert!(asked.contains("no polkit agent available"), "{asked}");
    let line = proxy
        .process()
        .stderr()
        .wait_for("client=user=daemon,uid=1,");
    for part in ["WARN", "listener=\"main\"", "access denied by policy"] {
        assert!(line.contains(part), "{line}");
    }
}

#[test]
fn a_socket_for_reading_asks_for_less() {
    let bus = Bus::start(RULES);
    let behind = Libvirtd::start();
    let proxy = proxy_before(&behind, &bus.address());
    let readonly = proxy.dir().join("sock-ro");
    assert_eq!(list(&readonly, "daemon").ok().trim(), "test");
    let error = write(&readonly, "daemon").failed();
    assert!(error.contains("read only"), "{error}");
    let error = list(&readonly, "sys").failed();
    assert!(error.contains("access denied by policy"), "{error}");
    write(&proxy.socket(), "bin").ok();
}

#[test]
fn fifty_clients_at_once_get_each_their_own_answer() {
    let bus = Bus::start(RULES);
    let behind = Libvirtd::start();
    let proxy = proxy_before(&behind, &bus.address());
    let fds = proxy.process().open_fds();
    let uri = proxy.uri("test:///default", "sock");
    let mut bystander = RpcClient::opened(&proxy.dir().join("open"), "test:///default");
    let clients: Vec<_> = (0..50)
        .map(|number| {
            let user = if number % 2 == 0 { "bin" } else { "daemon" };
            let account = Account::named(user);
            virsh(&uri, &["list", "--name"]).account(&account).start()
        })
        .collect();
    for (number, client) in clients.into_iter().enumerate() {
        let output = client.finish();
        if number % 2 == 0 {
            assert_eq!(output.ok().trim(), "test");
        } else {
            let error = output.failed();
            assert!(error.contains("access denied by policy"), "{error}");
        }
    }
    let version = bystander.call(procedure::CONNECT_GET_VERSION, Vec::new());
    assert_eq!(version.status, status::OK);
    drop(bystander);
    // The one connection to the bus is kept.
    eventually("every descriptor is closed", || {
        proxy.process().open_fds() <= fds + 2
    });
}

#[test]
fn without_a_bus_only_root_comes_in() {
    let behind = Libvirtd::start();
    let proxy = proxy_before(&behind, "unix:path=/nonexistent/bus");
    let error = list(&proxy.socket(), "bin").failed();
    assert!(error.contains("polkit is not available"), "{error}");
    assert!(!error.contains("/nonexistent"), "{error}");
    proxy.process().stderr().wait_for("polkit cannot be asked");
    assert_eq!(list(&proxy.socket(), "root").ok().trim(), "test");
}

/// The daemon behind is unprivileged, and sees the proxy as its only client.
#[test]
fn an_access_rule_of_the_daemon_behind_sees_the_client() {
    let bus = Bus::start(RULES);
    let address = bus.address();
    let behind = Libvirtd::configured(
        "access_drivers = [ \"polkit\" ]\n",
        &[("DBUS_SYSTEM_BUS_ADDRESS", &address)],
    );
    let proxy = proxy_before(&behind, &address);
    let open = proxy.dir().join("open");
    // Of the drivers without privileges, not all look at access rules.
    let nodeinfo = |user: &str| {
        let uri = uri_at("qemu:///session", &open);
        let account = Account::named(user);
        virsh(&uri, &["nodeinfo"]).account(&account).run()
    };
    assert!(nodeinfo("bin").ok().contains("CPU model"));
    let error = nodeinfo("daemon").failed();
    assert!(error.contains("access denied"), "{error}");
}
