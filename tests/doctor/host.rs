//! A made-up host: a directory with libvirt's sockets, and a `/proc` that says who holds them.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_virtproxyd");
pub(crate) const POLICY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/front-doors.yaml");
const HEAD: &str = "Num       RefCount Protocol Flags    Type St Inode Path\n";
const TCP_HEAD: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

/// A host in a directory.
pub(crate) struct Host {
    pub(crate) dir: tempfile::TempDir,
    listeners: Vec<UnixListener>,
    unix: String,
    tcp: String,
    sockets: u64,
}

impl Host {
    pub(crate) fn new() -> Self {
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

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path.trim_start_matches('/'))
    }

    pub(crate) fn directory(&self, path: &str, mode: u32) {
        fs::create_dir_all(self.path(path)).unwrap();
        fs::set_permissions(self.path(path), Permissions::from_mode(mode)).unwrap();
    }

    /// A socket that somebody listens on without being listed.
    pub(crate) fn unlisted(&mut self, path: &str, mode: u32) {
        let listener = UnixListener::bind(self.path(path)).unwrap();
        fs::set_permissions(self.path(path), Permissions::from_mode(mode)).unwrap();
        self.listeners.push(listener);
    }

    /// A socket that the kernel lists; its inode.
    pub(crate) fn socket(&mut self, path: &str, mode: u32) -> u64 {
        self.unlisted(path, mode);
        self.listed(path)
    }

    pub(crate) fn listed(&mut self, name: &str) -> u64 {
        self.sockets += 1;
        let inode = self.sockets;
        self.unix +=
            &format!("0000000000000000: 00000002 00000000 00010000 0001 01 {inode} {name}\n");
        inode
    }

    /// A TCP port on all addresses.
    pub(crate) fn port(&mut self, port: u16) -> u64 {
        self.sockets += 1;
        let inode = self.sockets;
        self.tcp += &format!(
            "   0: 00000000:{port:04X} 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 {inode} 1 0000000000000000 100 0 0 10 0\n"
        );
        inode
    }

    pub(crate) fn process(&self, pid: u32, exe: &str, sockets: &[u64]) {
        let process = format!("proc/{pid}");
        self.directory(&format!("{process}/fd"), 0o755);
        symlink(exe, self.path(&format!("{process}/exe"))).unwrap();
        for inode in sockets {
            let descriptor = self.path(&format!("{process}/fd/{inode}"));
            symlink(format!("socket:[{inode}]"), descriptor).unwrap();
        }
    }

    pub(crate) fn doctor(&self, arguments: &[&str]) -> Output {
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
    pub(crate) fn verdicts(&self) -> (Option<i32>, Vec<(String, String)>) {
        let (code, report) = self.report();
        let doors = report["doors"].as_array().unwrap().iter();
        let doors = doors.map(|door| (word(door, "place"), word(door, "verdict")));
        let mut doors: Vec<(String, String)> = doors.collect();
        doors.sort();
        (code, doors)
    }

    pub(crate) fn report(&self) -> (Option<i32>, Value) {
        let output = self.doctor(&["--format", "json"]);
        (
            output.status.code(),
            serde_json::from_slice(&output.stdout).unwrap(),
        )
    }

    /// Modular daemons as they come, with the proxy in the place of libvirt's own.
    pub(crate) fn modular() -> Self {
        let mut host = Self::new();
        let proxy = [
            host.socket("/run/libvirt/libvirt-sock", 0o666),
            host.socket("/run/libvirt/libvirt-sock-ro", 0o666),
        ];
        let qemu = [
            host.socket("/run/libvirt/virtqemud-sock", 0o666),
            host.socket("/run/libvirt/virtqemud-sock-ro", 0o666),
            host.socket("/run/libvirt/virtqemud-admin-sock", 0o600),
        ];
        let network = [host.socket("/run/libvirt/virtnetworkd-sock", 0o666)];
        let all = [&proxy[..], &qemu, &network].concat();
        host.process(1, "/usr/lib/systemd/systemd", &all);
        host.process(812, "/usr/local/sbin/virtproxyd", &proxy);
        host.process(790, "/usr/sbin/virtqemud", &qemu);
        host
    }

    /// The same after `docs/front-doors.md`.
    pub(crate) fn with_front_doors() -> Self {
        let mut host = Self::new();
        host.directory("run/libvirt/driver", 0o700);
        let proxy = [
            host.socket("/run/libvirt/libvirt-sock", 0o666),
            host.socket("/run/libvirt/libvirt-sock-ro", 0o666),
            host.socket("/run/libvirt/virtqemud-sock", 0o666),
            host.socket("/run/libvirt/virtqemud-sock-ro", 0o666),
            host.socket("/run/libvirt/virtnetworkd-sock", 0o666),
        ];
        let qemu = [
            host.socket("/run/libvirt/driver/virtqemud-sock", 0o600),
            host.socket("/run/libvirt/driver/virtqemud-sock-ro", 0o600),
            host.socket("/run/libvirt/virtqemud-admin-sock", 0o600),
        ];
        let network = [host.socket("/run/libvirt/driver/virtnetworkd-sock", 0o600)];
        let all = [&proxy[..], &qemu, &network].concat();
        host.process(1, "/usr/lib/systemd/systemd", &all);
        // It was upgraded meanwhile.
        host.process(903, "/usr/local/sbin/virtproxyd (deleted)", &proxy);
        host.process(911, "/usr/sbin/virtqemud", &qemu);
        host
    }
}

fn word(door: &Value, key: &str) -> String {
    door[key].as_str().unwrap().to_owned()
}
