//! Who is at the other end of a UNIX socket: what the kernel recorded when it connected, and what
//! `/proc` says of that process, as far as it is certainly the same one.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::names::{Names, Unknown};
use crate::policy::facts::UnixFacts;

/// Supplementary groups of a client. Directories give their users a few hundred at the most; Linux
/// allows 65536, which a user with a range of ids of his own can take, to be asked about one by one.
const MAX_GROUPS: usize = 1024;

/// Bytes that most files of `/proc` are shorter than.
const FILE: usize = 4096;

/// The kernel's record of the peer.
#[derive(Debug)]
pub(crate) struct Peer {
    pid: i32,
    uid: u32,
    gid: u32,
    handle: Handle,
}

/// A hold on the peer's process that a new process with its pid cannot take.
#[derive(Debug)]
enum Handle {
    /// Refers to the process itself. From Linux 6.5 on.
    Pidfd(OwnedFd),
    /// The kernel has no such thing: compare start times.
    Unsupported,
    /// The process has ended.
    Gone,
}

impl Peer {
    /// Reads the kernel's record. Does not block.
    ///
    /// # Errors
    /// Not a connected UNIX socket, or no descriptor is left for the hold on the process: who
    /// exhausts descriptors must not get a weaker check.
    pub(crate) fn of(socket: &impl AsFd) -> io::Result<Self> {
        // rustix's form of this option cannot hold the pid 0 of a peer in another pid namespace.
        let credentials = getsockopt(socket, sockopt::PeerCredentials)?;
        Ok(Self {
            pid: credentials.pid(),
            uid: credentials.uid(),
            gid: credentials.gid(),
            handle: match getsockopt(socket, sockopt::PeerPidfd) {
                Ok(pidfd) => Handle::Pidfd(pidfd),
                Err(Errno::ENOPROTOOPT) => Handle::Unsupported,
                Err(error @ (Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM)) => {
                    return Err(error.into());
                }
                Err(_) => Handle::Gone,
            },
        })
    }

    /// Everything known of the peer. Blocks on the user database if it may be asked.
    ///
    /// What comes from `/proc` is left out where the process has gone or may be another one, and
    /// where it now runs with other ids than it connected with.
    ///
    /// # Errors
    /// The user database could not be asked, or would have to be asked for too many groups. The
    /// client must then be refused: rules that exclude by name would not see it. Or it must not be
    /// asked, as [`Unknown::Refuse`] has it.
    pub(crate) fn facts(&self, names: &Names, unknown: Unknown) -> io::Result<UnixFacts> {
        let process = self.process().unwrap_or_default();
        if process.groups.len() > MAX_GROUPS {
            let error = format!("a process with more than {MAX_GROUPS} groups");
            return Err(io::Error::other(error));
        }
        let mut group_names = Vec::new();
        for gid in &process.groups {
            group_names.extend(names.group(*gid, unknown)?);
        }
        Ok(UnixFacts {
            pid: self.pid,
            start_time: process.start_time,
            uid: self.uid,
            gid: self.gid,
            groups: process.groups,
            user: names.user(self.uid, unknown)?,
            group: names.group(self.gid, unknown)?,
            group_names,
            selinux: process.label,
            unproven: !process.proven,
        })
    }

    fn process(&self) -> Option<Process> {
        // Pid 0 is a process of another pid namespace, of which our /proc knows nothing.
        if self.pid <= 0 {
            return None;
        }
        let proc = PathBuf::from(format!("/proc/{}", self.pid));
        let read_start =
            || parse_start_time(&String::from_utf8_lossy(&read(&proc.join("stat")).ok()?));
        let start_time = read_start()?;
        let status = read(&proc.join("status")).ok()?;
        let label = read(&proc.join("attr/current")).unwrap_or_default();
        // Only now: if the process still lives, its pid has led to it all along.
        let same = match &self.handle {
            Handle::Pidfd(pidfd) => is_running(pidfd),
            Handle::Unsupported => read_start() == Some(start_time),
            Handle::Gone => false,
        };
        if !same {
            return None;
        }
        let status = parse_status(&String::from_utf8_lossy(&status))?;
        let mut process = Process {
            start_time: Some(start_time),
            ..Process::default()
        };
        if (status.euid, status.egid) == (self.uid, self.gid) {
            process.groups = status.groups;
            process.groups.retain(|gid| *gid != self.gid);
            process.label = parse_label(&label);
            process.proven = true;
        }
        Some(process)
    }
}

#[derive(Debug, Default)]
struct Process {
    start_time: Option<u64>,
    groups: Vec<u32>,
    label: Option<String>,
    /// Groups and label are those of the process that connected.
    proven: bool,
}

/// All of a file of `/proc`, which says of none how long it is: most come in one piece.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(FILE);
    File::open(path)?.take(u64::MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A pidfd becomes readable when its process ends.
fn is_running(pidfd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&Timespec::default())), Ok(0))
}

/// Field 22 of `/proc/PID/stat`. Field 2, the command's name, may hold spaces and parentheses, so
/// counting starts after the last closing one.
fn parse_start_time(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[derive(Debug, PartialEq, Eq)]
struct Status {
    euid: u32,
    egid: u32,
    groups: Vec<u32>,
}

/// Effective ids and groups in `/proc/PID/status`; `None` if any is missing or malformed. The
/// command's name is escaped there, so a line is what it seems.
fn parse_status(status: &str) -> Option<Status> {
    let values = |key: &str| {
        status.lines().find_map(|line| {
            let values = line.strip_prefix(key)?.strip_prefix(':')?;
            Some(values.split_ascii_whitespace())
        })
    };
    Some(Status {
        euid: values("Uid")?.nth(1)?.parse().ok()?,
        egid: values("Gid")?.nth(1)?.parse().ok()?,
        groups: values("Groups")?
            .map(str::parse)
            .collect::<Result<_, _>>()
            .ok()?,
    })
}

/// `/proc/PID/attr/current`: a label, or nothing worth the name.
fn parse_label(raw: &[u8]) -> Option<String> {
    let label = std::str::from_utf8(raw).ok()?;
    let label = label.trim_end_matches(['\0', '\n']);
    (!label.is_empty() && label != "unconfined").then(|| label.to_owned())
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a failed set-up step should stop the test"
)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn start_time_behind_a_hostile_command_name() {
        let fields: Vec<String> = (3..=52).map(|field| field.to_string()).collect();
        let stat = format!("1234 (a) 1 (b c)) {}", fields.join(" "));
        assert_eq!(parse_start_time(&stat), Some(22));
        assert_eq!(parse_start_time("1234 (cut short) S 1 2"), None);
        assert_eq!(parse_start_time(""), None);
    }

    #[test]
    fn status_gives_effective_ids_and_groups() {
        let text = "Name:\tx\\nGroups:\t0\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \n";
        assert_eq!(
            parse_status(text),
            Some(Status {
                euid: 2,
                egid: 6,
                groups: vec![9, 10]
            })
        );
        assert_eq!(parse_status("Uid:\t1\t2\nGid:\t5\t6\n"), None);
        assert_eq!(parse_status("Uid:\t1\t2\nGid:\t5\t6\nGroups:\tx\n"), None);
    }

    #[test]
    fn labels_lose_their_terminator() {
        let label = |raw: &[u8]| parse_label(raw);
        assert_eq!(
            label(b"system_u:system_r:virtd_t:s0\0").as_deref(),
            Some("system_u:system_r:virtd_t:s0")
        );
        assert_eq!(
            label(b"virt (enforce)\n").as_deref(),
            Some("virt (enforce)")
        );
        assert_eq!(label(b"unconfined\n"), None);
        assert_eq!(label(b"\0"), None);
        assert_eq!(label(b"\xff"), None);
    }

    #[test]
    fn the_facts_of_this_very_process() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let facts = Peer::of(&ours)
            .unwrap()
            .facts(&Names::default(), Unknown::Ask)
            .unwrap();
        assert_eq!(facts.pid, i32::try_from(std::process::id()).unwrap());
        assert_eq!(facts.uid, rustix::process::geteuid().as_raw());
        assert!(facts.start_time.is_some());
        let mut groups: Vec<u32> = rustix::process::getgroups()
            .unwrap()
            .iter()
            .map(|gid| gid.as_raw())
            .filter(|gid| *gid != facts.gid)
            .collect();
        groups.sort_unstable();
        let mut seen = facts.groups.clone();
        seen.sort_unstable();
        assert_eq!(seen, groups);

        // The same on a kernel without pidfds for peers.
        let mut peer = Peer::of(&ours).unwrap();
        peer.handle = Handle::Unsupported;
        assert_eq!(peer.facts(&Names::default(), Unknown::Ask).unwrap(), facts);
    }

    #[test]
    fn a_process_that_has_gone_or_changed_its_ids_proves_nothing_more() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut peer = Peer::of(&ours).unwrap();
        peer.uid += 1;
        let process = peer.process().unwrap();
        assert!(process.start_time.is_some());
        assert_eq!((process.groups, process.label), (vec![], None));

        peer.pid = 0;
        assert!(peer.process().is_none());
    }

    /// A process, as root one with these groups and user 65534, that has connected and waits.
    fn connected_process(groups: &str) -> (UnixStream, std::process::Child) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        let listener = UnixListener::bind(&path).unwrap();
        let script = "import os, socket, sys; s = socket.socket(socket.AF_UNIX); \
                      s.connect(sys.argv[1]); \
                      os.getuid() or (os.setgroups(eval(sys.argv[2])), os.setresgid(*3 * [65534]), \
                      os.setresuid(*3 * [65534])); \
                      t = socket.socket(socket.AF_UNIX); t.connect_ex(sys.argv[1]); sys.stdin.read()";
        std::fs::set_permissions(
            dir.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777))
            .unwrap();
        let child = std::process::Command::new("/usr/bin/python3")
            .args(["-c", script])
            .args([path.as_os_str(), groups.as_ref()])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let (_before, _) = listener.accept().unwrap();
        let (conn, _) = listener.accept().unwrap();
        (conn, child)
    }

    #[test]
    fn supplementary_groups_are_those_of_the_process() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root can choose groups");
            return;
        }
        let (conn, mut child) = connected_process("[1, 2]");
        let facts = Peer::of(&conn)
            .unwrap()
            .facts(&Names::default(), Unknown::Ask)
            .unwrap();
        assert_eq!((facts.uid, facts.gid), (65534, 65534));
        assert_eq!(facts.groups, [1, 2]);
        assert_eq!(facts.group_names, ["daemon", "bin"]);
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    #[test]
    fn a_process_with_groups_without_end_is_refused() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root can choose groups");
            return;
        }
        let (conn, mut child) = connected_process("range(100000, 165536)");
        let facts = Peer::of(&conn)
            .unwrap()
            .facts(&Names::default(), Unknown::Ask);
        let error = facts.unwrap_err().to_string();
        assert!(error.contains("more than 1024 groups"), "{error}");
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    #[test]
    fn a_process_that_has_ended_is_noticed() {
        let (conn, mut child) = connected_process("[]");
        let peer = Peer::of(&conn).unwrap();
        assert_eq!(peer.pid, i32::try_from(child.id()).unwrap());
        assert!(peer.process().is_some());
        drop(child.stdin.take());
        child.wait().unwrap();
        if let Handle::Pidfd(pidfd) = &peer.handle {
            assert!(!is_running(pidfd));
        }
        assert!(peer.process().is_none());
        // The record made after the end still tells who it was, and nothing of the process.
        let late = Peer::of(&conn).unwrap();
        assert_eq!(late.uid, peer.uid);
        assert!(late.process().is_none());
    }
}
