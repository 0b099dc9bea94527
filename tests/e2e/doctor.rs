//! `doctor` sees a real daemon past the proxy before it, and no longer once its socket is closed to
//! others.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use crate::support::account::Account;
use crate::support::libvirtd::Libvirtd;
use crate::support::process::{Process, command};
use crate::support::proxy::Proxy;
use crate::support::tool::virsh;
use crate::support::workdir::give;

/// What it says of this host. Other tests' daemons are on it too.
#[track_caller]
fn doctor(proxy: &Proxy) -> (Option<i32>, Value) {
    let mut doctor = command(env!("CARGO_BIN_EXE_virtproxyd"), None);
    doctor.args(["doctor", "--format", "json", "-f"]);
    doctor.arg(proxy.policy());
    let output = Process::start("doctor", doctor).finish();
    (
        output.status.code(),
        serde_json::from_str(&output.stdout).unwrap(),
    )
}

#[track_caller]
fn at(report: &Value, socket: &Path) -> Value {
    let mut doors = report["doors"].as_array().unwrap().iter();
    let door = doors.find(|door| door["place"] == socket.to_str().unwrap());
    door.cloned().expect("the socket is found")
}

fn close_to(socket: &Path, mode: u32, owner: &Account) {
    fs::set_permissions(socket, Permissions::from_mode(mode)).unwrap();
    give(socket, owner);
}

#[test]
fn a_daemon_is_past_the_proxy_until_only_the_proxy_can_open_its_socket() {
    let daemon = Libvirtd::start();
    let proxy = Proxy::before(&daemon.socket());
    let socket = daemon.socket();
    let client = Account::unprivileged();
    let directory = socket.parent().unwrap();
    fs::set_permissions(directory, Permissions::from_mode(0o755)).unwrap();

    close_to(&socket, 0o666, daemon.account());
    let (code, report) = doctor(&proxy);
    let door = at(&report, &socket);
    assert_eq!(code, Some(1));
    assert_eq!(door["verdict"], "past", "{door:#}");
    assert_eq!(door["role"]["upstream"], "daemon");
    assert_eq!(door["can_open"], "everybody");
    assert_eq!(door["processes"][0]["pid"], daemon.process().pid());
    assert_eq!(door["processes"][0]["program"], "libvirt");
    let direct = || virsh(&daemon.uri("test:///default"), &["uri"]).account(&client);
    direct().run().ok();
    let front = at(&report, &proxy.socket());
    assert_eq!(front["verdict"], "proxy", "{front:#}");
    assert_eq!(front["processes"][0]["pid"], proxy.process().pid());

    if !Account::current().is_root() {
        // The daemon, the proxy and the clients are one user's: nobody is kept out by modes.
        close_to(&socket, 0o600, daemon.account());
        let door = at(&doctor(&proxy).1, &socket);
        assert_eq!(door["verdict"], "upstream", "{door:#}");
        return;
    }
    // Closed to all but its own user is not closed to all but the proxy.
    close_to(&socket, 0o600, daemon.account());
    let door = at(&doctor(&proxy).1, &socket);
    assert_eq!(door["verdict"], "past", "{door:#}");
    assert_eq!(door["can_open"], format!("user {}", daemon.account().name));

    close_to(&socket, 0o600, &Account::current());
    let door = at(&doctor(&proxy).1, &socket);
    assert_eq!(door["verdict"], "upstream", "{door:#}");
    assert_eq!(door["can_open"], "root only");
    direct().run().failed();
    let through = virsh(&proxy.uri("test:///default", "sock"), &["uri"]);
    through.account(&client).run().ok();
}
