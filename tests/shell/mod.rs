//! Runs the real daemon in a directory of its own and plays service manager to it.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "shared by test programs that each use a part"
)]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_virtproxyd");

/// Bound on every wait: long enough for a busy machine, never waited out by a passing test.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `condition` gives something.
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A place for one or more daemons: a directory, a policy file in it, and a notification socket.
pub struct Place {
    dir: tempfile::TempDir,
    manager: UnixDatagram,
}

impl Place {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let manager = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        manager.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { dir, manager }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn policy_file(&self) -> PathBuf {
        self.path("routes.yaml")
    }

    /// A policy with these lines under `listeners:`; `$DIR` is the directory.
    pub fn policy_text(&self, daemon: &str, listeners: &[&str]) -> String {
        let dir = self.dir.path().to_str().unwrap();
        let mut text = format!("version: 1\ndaemon: {{ {daemon} }}\nlisteners:\n");
        for listener in listeners {
            text += &format!("  {}\n", listener.replace("$DIR", dir));
        }
        text += "upstreams:\n  qemu: { unix: /run/libvirt/virtqemud-sock }\n";
        text += "routes:\n  - { uri: \"qemu:///system\", upstream: qemu }\n";
        text
    }

    pub fn write_policy(&self, daemon: &str, listeners: &[&str]) {
        fs::write(self.policy_file(), self.policy_text(daemon, listeners)).unwrap();
    }

    /// The daemon's command, with its log in `log`.
    pub fn command(&self, program: &str, log: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("NOTIFY_SOCKET", self.path("notify"))
            .env_remove("RUST_LOG")
            .env_remove("VIRTPROXYD_LOG")
            .stdin(Stdio::null())
            .stderr(File::create(self.path(log)).unwrap());
        command
    }

    pub fn spawn(&self, arguments: &[&str]) -> Daemon {
        let mut command = self.command(PROGRAM, "log");
        command.arg("-f").arg(self.policy_file()).args(arguments);
        Daemon::new(command, self.path("log"))
    }

    /// Starts a daemon and waits until it is ready.
    pub fn start(&self, arguments: &[&str]) -> Daemon {
        let daemon = self.spawn(arguments);
        self.expect("READY=1");
        daemon
    }

    /// The next notification that has `part` in it; earlier ones are dropped.
    pub fn expect(&self, part: &str) -> String {
        let mut buffer = [0; 4096];
        let mut dropped = Vec::new();
        loop {
            let read = self.manager.recv(&mut buffer);
            let length = read.unwrap_or_else(|error| panic!("no {part}: {error}; {dropped:?}"));
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if message.contains(part) {
                return message;
            }
            dropped.push(message);
        }
    }

    /// Everything that was notified up to now.
    pub fn notified(&self) -> Vec<String> {
        self.manager.set_nonblocking(true).unwrap();
        let mut buffer = [0; 4096];
        let mut messages = Vec::new();
        while let Ok(length) = self.manager.recv(&mut buffer) {
            messages.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        self.manager.set_nonblocking(false).unwrap();
        messages
    }

    pub fn connect(&self, socket: &str) -> UnixStream {
        UnixStream::connect(self.path(socket)).unwrap()
    }
}

/// A running daemon, killed with the test.
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    pub fn new(mut command: Command, log: PathBuf) -> Self {
        Self {
            child: command.spawn().unwrap(),
            log,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, signal).unwrap();
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> ExitStatus {
        eventually("the daemon ends", || self.child.try_wait().unwrap())
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Inodes of its sockets: one more for each client.
    pub fn sockets(&self) -> BTreeSet<String> {
        sockets(self.child.id())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Inodes of a process's UNIX stream sockets. Its datagram sockets come and go with each
/// notification.
pub fn sockets(pid: u32) -> BTreeSet<String> {
    let held = links(pid).into_iter().filter_map(|target| inode(&target));
    let streams = unix_sockets("0001");
    held.filter(|inode| streams.contains(inode)).collect()
}

/// Number of a process's open descriptors, datagram sockets left out.
pub fn descriptors(pid: u32) -> usize {
    let datagrams = unix_sockets("0002");
    let is_datagram = |target: &String| inode(target).is_some_and(|it| datagrams.contains(&it));
    links(pid)
        .iter()
        .filter(|target| !is_datagram(target))
        .count()
}

fn links(pid: u32) -> Vec<String> {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| Some(fs::read_link(entry.ok()?.path()).ok()?.to_str()?.to_owned()))
        .collect()
}

fn inode(link: &str) -> Option<String> {
    Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
}

/// Inodes of all UNIX sockets of a type.
fn unix_sockets(wanted: &str) -> BTreeSet<String> {
    // Columns: address, references, protocol, flags, type, state, inode, path.
    let table = fs::read_to_string("/proc/net/unix").unwrap();
    let inodes = table.lines().filter_map(|line| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        (*columns.get(4)? == wanted)
            .then(|| columns.get(6).copied())
            .flatten()
    });
    inodes.map(str::to_owned).collect()
}

/// Whether the other end has closed; waits for that.
pub fn is_turned_away(mut client: UnixStream) -> bool {
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    match client.read(&mut [0]) {
        Ok(length) => length == 0,
        // Closed before what we were about to read was read by the other end.
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

/// Whether the connection is open at this moment.
pub fn is_open(client: &UnixStream) -> bool {
    client.set_nonblocking(true).unwrap();
    let read = (&*client).read(&mut [0]);
    matches!(read, Err(error) if error.kind() == ErrorKind::WouldBlock)
}

pub fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::MetadataExt;
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}
