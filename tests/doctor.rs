//! `doctor` on made-up hosts: a directory with libvirt's sockets, and a `/proc` that says who holds
//! them.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed set-up step should stop the test"
)]

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_virtproxyd");
const POLICY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/front-doors.yaml");
const HEAD: &str = "Num       RefCount Protocol Flags    Type St Inode Path\n";
const TCP_HEAD: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

/// A host in a directory.
struct Host {
    dir: tempfile::TempDir,
    listeners: Vec<UnixListener>,
    unix: String,
    tcp: String,
    sockets: u64,
}

impl Host {
    fn new() -> Self {
        let host = Self {
            dir: tempfile::tempdir().unwrap(),
            listeners: Vec::new(),
            unix: HEAD.to_owned(),
            tcp: TCP_HEAD.to_owned(),
            sockets: 100,
        };
        host.directory("", 0o755);
        host.directory("proc/1/net", 0o755);
        host.directory("run/libvirt", 0o755);
        host
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path.trim_start_matches('/'))
    }

    fn directory(&self, path: &str, mode: u32) {
        fs::create_dir_all(self.path(path)).unwrap();
        fs::set_permissions(self.path(path), Permissions::from_mode(mode)).unwrap();
    }

    /// A socket that somebody listens on without being listed.
    fn unlisted(&mut self, path: &str, mode: u32) {
        let listener = UnixListener::bind(self.path(path)).unwrap();
        fs::set_permissions(self.path(path), Permissions::from_mode(mode)).unwrap();
        self.listeners.push(listener);
    }

    /// A socket that the kernel lists; its inode.
    fn socket(&mut self, path: &str, mode: u32) -> u64 {
        self.unlisted(path, mode);
        self.listed(path)
    }

    fn listed(&mut self, name: &str) -> u64 {
        self.sockets += 1;
        let inode = self.sockets;
        self.unix +=
            &format!("0000000000000000: 00000002 00000000 00010000 0001 01 {inode} {name}\n");
        inode
    }

    /// A TCP port on all addresses.
    fn port(&mut self, port: u16) -> u64 {
        self.sockets += 1;
        let inode = self.sockets;
        self.tcp += &format!(
            "   0: 00000000:{port:04X} 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 {inode} 1 0000000000000000 100 0 0 10 0\n"
        );
        inode
    }

    fn process(&self, pid: u32, exe: &str, sockets: &[u64]) {
        let process = format!("proc/{pid}");
        self.directory(&format!("{process}/fd"), 0o755);
        symlink(exe, self.path(&format!("{process}/exe"))).unwrap();
        for inode in sockets {
            let descriptor = self.path(&format!("{process}/fd/{inode}"));
            symlink(format!("socket:[{inode}]"), descriptor).unwrap();
        }
    }

    fn doctor(&self, arguments: &[&str]) -> Output {
        fs::write(self.path("proc/1/net/unix"), &self.unix).unwrap();
        fs::write(self.path("proc/1/net/tcp"), &self.tcp).unwrap();
        Command::new(PROGRAM)
            .args(["doctor", "-f", POLICY, "--root"])
            .arg(self.dir.path())
            .args(arguments)
            .output()
            .unwrap()
    }

    /// The exit code, and what was found at each place.
    fn verdicts(&self) -> (Option<i32>, Vec<(String, String)>) {
        let (code, report) = self.report();
        let doors = report["doors"].as_array().unwrap().iter();
        let doors = doors.map(|door| (word(door, "place"), word(door, "verdict")));
        let mut doors: Vec<(String, String)> = doors.collect();
        doors.sort();
        (code, doors)
    }

    fn report(&self) -> (Option<i32>, Value) {
        let output = self.doctor(&["--format", "json"]);
        (
            output.status.code(),
            serde_json::from_slice(&output.stdout).unwrap(),
        )
    }

    /// As it is after `docs/front-doors.md`.
    fn with_front_doors() -> Self {
        let mut host = Self::new();
        host.directory("run/libvirt/driver", 0o700);
        let doors = [
            host.socket("/run/libvirt/libvirt-sock", 0o666),
            host.socket("/run/libvirt/libvirt-sock-ro", 0o666),
            host.socket("/run/libvirt/virtqemud-sock", 0o666),
            host.socket("/run/libvirt/virtnetworkd-sock", 0o666),
        ];
        let daemons = [
            host.socket("/run/libvirt/driver/virtqemud-sock", 0o600),
            host.socket("/run/libvirt/driver/virtnetworkd-sock", 0o600),
            host.socket("/run/libvirt/virtqemud-admin-sock", 0o600),
        ];
        host.process(
            1,
            "/usr/lib/systemd/systemd",
            &[doors, [daemons[0], daemons[1], daemons[2], 0]].concat(),
        );
        host.process(20, "/usr/local/sbin/virtproxyd (deleted)", &doors);
        host.process(21, "/usr/sbin/virtqemud", &[daemons[0], daemons[2]]);
        host
    }
}

fn word(door: &Value, key: &str) -> String {
    door[key].as_str().unwrap().to_owned()
}

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
fn the_modular_daemons_as_they_come_are_all_past_the_proxy() {
    let mut host = Host::new();
    let main = host.socket("/run/libvirt/libvirt-sock", 0o666);
    let qemu = host.socket("/run/libvirt/virtqemud-sock", 0o666);
    let network = host.socket("/run/libvirt/virtnetworkd-sock", 0o660);
    let admin = host.socket("/run/libvirt/virtqemud-admin-sock", 0o600);
    let log = host.socket("/run/libvirt/virtlogd-sock", 0o600);
    drop(UnixListener::bind(host.path("/run/libvirt/virtxend-sock")));
    host.process(20, "/usr/local/sbin/virtproxyd", &[main]);
    host.process(21, "/usr/sbin/virtqemud", &[qemu, admin]);
    host.process(22, "/usr/sbin/virtnetworkd", &[network]);
    host.process(23, "/usr/sbin/virtlogd", &[log]);
    let owner_is_root = fs::metadata(host.dir.path()).unwrap().gid() == 0;
    let network = if owner_is_root { "closed" } else { "past" };
    let expected = [
        ("/run/libvirt/libvirt-sock", "proxy"),
        ("/run/libvirt/virtlogd-sock", "closed"),
        ("/run/libvirt/virtnetworkd-sock", network),
        ("/run/libvirt/virtqemud-admin-sock", "admin"),
        ("/run/libvirt/virtqemud-sock", "past"),
        ("/run/libvirt/virtxend-sock", "dead"),
    ];
    assert_eq!(host.verdicts(), (Some(1), pairs(&expected)));
    let table = text(&host.doctor(&[]).stdout);
    let qemu = table.lines().nth(1).unwrap();
    for part in [
        "/run/libvirt/virtqemud-sock ",
        "  read-write  virtqemud (pid 21) ",
        "  everybody (",
        "0666)",
        "PAST THE PROXY, in the place of listener virtqemud",
    ] {
        assert!(qemu.contains(part), "{part}\n{table}");
    }
    assert!(table.contains("may still ask polkit"), "{table}");
    assert!(
        table.ends_with("ways go past the proxy.\n")
            || table.ends_with("1 way goes past the proxy.\n")
    );
}

#[test]
fn behind_the_front_doors_nothing_is_past_the_proxy() {
    let host = Host::with_front_doors();
    let expected = [
        ("/run/libvirt/driver/virtnetworkd-sock", "upstream"),
        ("/run/libvirt/driver/virtqemud-sock", "upstream"),
        ("/run/libvirt/libvirt-sock", "proxy"),
        ("/run/libvirt/libvirt-sock-ro", "proxy"),
        ("/run/libvirt/virtnetworkd-sock", "proxy"),
        ("/run/libvirt/virtqemud-admin-sock", "admin"),
        ("/run/libvirt/virtqemud-sock", "proxy"),
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
        .map(|step| step["mode"].as_str().unwrap())
        .collect();
    assert_eq!(modes, ["0755", "0755", "0755", "0700", "0600"]);
    let table = text(&host.doctor(&[]).stdout);
    assert!(table.contains("upstream qemu, closed"), "{table}");
    assert!(table.contains("in /run/libvirt/driver "), "{table}");
    assert!(table.contains("note: nobody listens for "), "{table}");
    assert!(
        table.ends_with(", nothing goes past the proxy.\n"),
        "{table}"
    );
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
        message.contains("virtqemud-sock: who listens there"),
        "{message}"
    );
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
    assert!(Path::new(POLICY).is_file());
}
