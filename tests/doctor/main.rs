//! `doctor` on made-up hosts.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed set-up step should stop the test"
)]

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::process::Command;

use serde_json::Value;

mod host;

use host::{Host, POLICY, PROGRAM};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let expected = expected.iter();
    expected
        .map(|(place, verdict)| ((*place).to_owned(), (*verdict).to_owned()))
        .collect()
}

#[test]
fn the_modular_daemons_as_they_come_are_past_the_proxy() {
    let mut host = Host::modular();
    let log = host.socket("/run/libvirt/virtlogd-sock", 0o600);
    host.process(823, "/usr/sbin/virtlogd", &[log]);
    drop(UnixListener::bind(host.path("/run/libvirt/virtxend-sock")));
    let expected = [
        ("/run/libvirt/libvirt-sock", "proxy"),
        ("/run/libvirt/libvirt-sock-ro", "proxy"),
        ("/run/libvirt/virtlogd-sock", "closed"),
        ("/run/libvirt/virtnetworkd-sock", "past"),
        ("/run/libvirt/virtqemud-admin-sock", "admin"),
        ("/run/libvirt/virtqemud-sock", "past"),
        ("/run/libvirt/virtqemud-sock-ro", "past"),
        ("/run/libvirt/virtxend-sock", "dead"),
    ];
    assert_eq!(host.verdicts(), (Some(1), pairs(&expected)));
}

#[test]
fn behind_the_front_doors_nothing_is_past_the_proxy() {
    let host = Host::with_front_doors();
    let expected = [
        ("/run/libvirt/driver/virtnetworkd-sock", "upstream"),
        ("/run/libvirt/driver/virtqemud-sock", "upstream"),
        ("/run/libvirt/driver/virtqemud-sock-ro", "upstream"),
        ("/run/libvirt/libvirt-sock", "proxy"),
        ("/run/libvirt/libvirt-sock-ro", "proxy"),
        ("/run/libvirt/virtnetworkd-sock", "proxy"),
        ("/run/libvirt/virtqemud-admin-sock", "admin"),
        ("/run/libvirt/virtqemud-sock", "proxy"),
        ("/run/libvirt/virtqemud-sock-ro", "proxy"),
    ];
    assert_eq!(host.verdicts(), (Some(0), pairs(&expected)));
    let (_, report) = host.report();
    let doors = report["doors"].as_array().unwrap();
    let is = |door: &&Value| door["place"] == "/run/libvirt/driver/virtqemud-sock";
    let door = doors.iter().find(is).unwrap();
    assert_eq!(door["daemon"], "virtqemud");
    assert_eq!(door["role"]["upstream"], "qemu");
    let steps = door["steps"].as_array().unwrap();
    let modes: Vec<&str> = steps
        .iter()
        .map(|it| it["mode"].as_str().unwrap())
        .collect();
    assert_eq!(modes, ["0755", "0755", "0755", "0700", "0600"]);
}

/// The tables in `docs/front-doors.md`.
#[test]
fn the_manual_shows_what_it_says_before_and_after() {
    let manual = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/front-doors.md");
    let manual = fs::read_to_string(manual).unwrap();
    let shown = manual.split("```\n$ virtproxyd doctor\n").skip(1);
    let shown: Vec<&str> = shown.map(|it| it.split("```").next().unwrap()).collect();
    let said = [Host::modular(), Host::with_front_doors()].map(|host| {
        let said = text(&host.doctor(&[]).stdout);
        said.replace(POLICY, "/etc/libvirt/virtproxyd/routes.yaml")
    });
    // Its files are root's.
    if rustix::process::geteuid().is_root() {
        assert_eq!(shown, said);
    }
}

#[test]
fn a_daemon_in_the_place_of_a_listener_is_found() {
    let mut host = Host::with_front_doors();
    // It was started without its socket unit.
    let stolen = host.socket("/run/libvirt/virtsecretd-sock", 0o666);
    host.process(30, "/usr/sbin/virtsecretd", &[stolen]);
    // libvirt's own proxy has the name of ours, and libvirt's library.
    let own = host.socket("/run/libvirt/virtstoraged-sock", 0o666);
    host.process(31, "/usr/sbin/virtproxyd", &[own]);
    let maps = "7f0000000000-7f0000001000 r-xp 00000000 08:01 4711 /usr/lib/x86_64-linux-gnu/libvirt.so.0.9000.0\n";
    fs::write(host.path("proc/31/maps"), maps).unwrap();
    let (code, verdicts) = host.verdicts();
    assert_eq!(code, Some(1));
    let past: Vec<&str> = verdicts
        .iter()
        .filter(|it| it.1 == "past")
        .map(|it| &*it.0)
        .collect();
    assert_eq!(
        past,
        [
            "/run/libvirt/virtsecretd-sock",
            "/run/libvirt/virtstoraged-sock"
        ]
    );
    assert!(text(&host.doctor(&[]).stdout).contains("libvirt's own virtproxyd (pid 31)"));
}

#[test]
fn ports_and_sockets_elsewhere_are_found() {
    let mut host = Host::with_front_doors();
    let tls = host.port(16514);
    let odd = host.port(12345);
    let other = host.port(80);
    host.process(40, "/usr/sbin/libvirtd", &[tls, odd]);
    host.process(41, "/usr/sbin/nginx", &[other]);
    host.directory("srv/lab", 0o755);
    host.socket("/srv/lab/libvirt-sock", 0o666);
    host.listed("@lab/virtchd-sock");
    // Bound by another name, as after a rename: it is asked.
    host.unlisted("/run/libvirt/driver/virtsecretd-sock", 0o666);
    host.directory("run/libvirt/common", 0o755);
    host.unlisted("/run/libvirt/common/virtvzd-sock", 0o666);
    host.directory("run/user/7/libvirt", 0o755);
    host.unlisted("/run/user/7/libvirt/libvirt-admin-sock", 0o666);
    let (code, verdicts) = host.verdicts();
    assert_eq!(code, Some(1));
    let known = Host::with_front_doors().verdicts().1;
    let new: Vec<_> = verdicts
        .into_iter()
        .filter(|it| !known.contains(it))
        .collect();
    let expected = [
        ("/run/libvirt/common/virtvzd-sock", "past"),
        ("/run/libvirt/driver/virtsecretd-sock", "upstream"),
        ("/run/user/7/libvirt/libvirt-admin-sock", "admin-open"),
        ("/srv/lab/libvirt-sock", "past"),
        ("0.0.0.0:12345", "past"),
        ("0.0.0.0:16514", "past"),
        ("@lab/virtchd-sock", "past"),
    ];
    assert_eq!(new, pairs(&expected));
}

#[test]
fn a_users_own_daemon_is_past_nothing() {
    let mut host = Host::with_front_doors();
    host.directory("run/user/7/libvirt", 0o700);
    let session = host.socket("/run/user/7/libvirt/libvirt-sock", 0o666);
    host.process(50, "/usr/sbin/libvirtd", &[session]);
    let (code, verdicts) = host.verdicts();
    let found = verdicts
        .iter()
        .find(|it| it.0.starts_with("/run/user"))
        .unwrap();
    // The tests' user may be root, whose sockets are closed anyway.
    assert!(["closed", "session"].contains(&&*found.1), "{found:?}");
    assert_eq!(code, Some(0));
}

#[test]
fn what_cannot_be_told_is_no_all_clear() {
    // Who listens at a front door.
    let mut host = Host::new();
    host.unlisted("/run/libvirt/virtqemud-sock", 0o666);
    let output = host.doctor(&[]);
    assert_eq!(output.status.code(), Some(2));
    let message = text(&output.stderr);
    assert!(
        message.contains("virtqemud-sock: who listens there: ask as root"),
        "{message}"
    );
    // And what is started there, while the proxy is not.
    let mut host = Host::new();
    let idle = host.socket("/run/libvirt/virtnetworkd-sock", 0o666);
    host.process(1, "/usr/lib/systemd/systemd", &[idle]);
    let output = host.doctor(&[]);
    assert_eq!(output.status.code(), Some(2));
    let message = text(&output.stderr);
    assert!(message.contains("start virtproxyd"), "{message}");
    // No tables, no policy, no such root.
    fs::remove_dir_all(host.path("proc")).unwrap();
    for arguments in [
        ["--root", host.dir.path().to_str().unwrap(), "-f", POLICY],
        ["--root", "/nowhere", "-f", POLICY],
        ["--root", "/", "-f", "/nowhere.yaml"],
    ] {
        let output = Command::new(PROGRAM)
            .arg("doctor")
            .args(arguments)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(
            !output.stderr.is_empty() && output.stdout.is_empty(),
            "{arguments:?}"
        );
    }
}

#[test]
fn links_out_of_the_root_are_not_followed() {
    let host = Host::new();
    let outside = Host::new();
    let lured = UnixListener::bind(outside.path("/run/libvirt/libvirt-sock")).unwrap();
    host.directory("var/run", 0o755);
    symlink(outside.path("/run/libvirt"), host.path("/var/run/libvirt")).unwrap();
    assert_eq!(host.verdicts(), (Some(0), Vec::new()));
    drop(lured);
    // One within it, as Debian has it, is the same place by another name.
    let mut host = Host::new();
    host.directory("var", 0o755);
    symlink("/run", host.path("/var/run")).unwrap();
    let inode = host.socket("/run/libvirt/libvirt-sock", 0o666);
    host.process(20, "/usr/sbin/virtproxyd", &[inode]);
    let expected = pairs(&[("/run/libvirt/libvirt-sock", "proxy")]);
    assert_eq!(host.verdicts(), (Some(0), expected));
}
