//! Who listens, as the kernel tells it: its tables of sockets, and the descriptors of processes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use procfs::net::{TcpNetEntries, TcpState};
use procfs::process::{FDTarget, Process, all_processes_with_root};
use procfs::{FromReadSI, ProcError, current_system_info};
use serde::Serialize;

use super::place::{self, Place};

/// Of `/proc/net/unix`: the socket listens (`__SO_ACCEPTCON`).
const LISTENS: u32 = 1 << 16;

/// What listens on this system.
#[derive(Debug, Default)]
pub(super) struct Kernel {
    /// Inodes of the sockets that listen at a place. More than one where the file was replaced while
    /// somebody held the old one.
    sockets: BTreeMap<Place, Vec<u64>>,
    holders: BTreeMap<u64, Vec<Holder>>,
}

/// A process that holds a socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Holder {
    pub(super) pid: i32,
    pub(super) uid: u32,
    pub(super) exe: PathBuf,
    pub(super) program: Program,
}

/// What kind of program a holder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Program {
    /// It starts a service when somebody connects.
    Systemd,
    /// This proxy.
    Proxy,
    /// A daemon of libvirt's, its own `virtproxyd` too.
    Libvirt,
    Other,
}

impl Kernel {
    /// Reads the tables below `root`.
    ///
    /// # Errors
    /// A table is not there or cannot be read.
    pub(super) fn read(root: &Path) -> Result<Self, String> {
        let proc = root.join("proc");
        // What `/proc/net` leads to is the reader's own network, which another root's is not.
        let net = proc.join(if root == Path::new("/") {
            "net"
        } else {
            "1/net"
        });
        let mut kernel = Self::default();
        let unix = net.join("unix");
        let table = fs::read(&unix).map_err(|error| format!("{}: {error}", unix.display()))?;
        for line in String::from_utf8_lossy(&table).lines() {
            if let Some((place, inode)) = unix_listener(line) {
                kernel.sockets.entry(place).or_default().push(inode);
            }
        }
        for (name, needed) in [("tcp", true), ("tcp6", false)] {
            match TcpNetEntries::from_file(net.join(name), current_system_info()) {
                Ok(TcpNetEntries(entries)) => {
                    let listening = entries
                        .into_iter()
                        .filter(|it| it.state == TcpState::Listen);
                    for entry in listening {
                        let place = Place::Tcp(entry.local_address);
                        kernel.sockets.entry(place).or_default().push(entry.inode);
                    }
                }
                // A kernel without IPv6.
                Err(ProcError::NotFound(_)) if !needed => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        kernel.find_holders(&proc)?;
        Ok(kernel)
    }

    /// All places where somebody listens.
    pub(super) fn places(&self) -> impl Iterator<Item = &Place> {
        self.sockets.keys()
    }

    /// Who holds the socket at a place, as far as can be seen; `None`: nobody listens there.
    pub(super) fn holders(&self, place: &Place) -> Option<Vec<Holder>> {
        let inodes = self.sockets.get(place)?;
        let holders = inodes.iter().filter_map(|inode| self.holders.get(inode));
        Some(holders.flatten().cloned().collect())
    }

    /// Processes come and go meanwhile, and those of others are closed to a user: what cannot be
    /// read is passed over.
    fn find_holders(&mut self, proc: &Path) -> Result<(), String> {
        let wanted: BTreeSet<u64> = self.sockets.values().flatten().copied().collect();
        let processes = all_processes_with_root(proc).map_err(|error| error.to_string())?;
        for process in processes.flatten() {
            let Ok(descriptors) = process.fd() else {
                continue;
            };
            let inodes = descriptors.flatten().filter_map(|fd| match fd.target {
                FDTarget::Socket(inode) if wanted.contains(&inode) => Some(inode),
                _ => None,
            });
            let inodes: BTreeSet<u64> = inodes.collect();
            if inodes.is_empty() {
                continue;
            }
            let Some(holder) = Holder::of(&process, proc) else {
                continue;
            };
            for inode in inodes {
                self.holders.entry(inode).or_default().push(holder.clone());
            }
        }
        Ok(())
    }
}

impl Holder {
    fn of(process: &Process, proc: &Path) -> Option<Self> {
        let exe = process.exe().ok()?;
        // After an upgrade the old program goes on running.
        let exe: PathBuf = exe.to_string_lossy().trim_end_matches(" (deleted)").into();
        Some(Self {
            pid: process.pid(),
            uid: process.uid().ok()?,
            program: program(&exe, || {
                // libvirt's own proxy has the name of ours.
                let maps = proc.join(process.pid().to_string()).join("maps");
                fs::read_to_string(maps).is_ok_and(|maps| maps.contains("/libvirt.so."))
            }),
            exe,
        })
    }

    /// `virtqemud (pid 812)`
    pub(super) fn words(&self) -> String {
        let name = self.exe.file_name().unwrap_or_default().to_string_lossy();
        match self.program {
            Program::Systemd => "systemd".to_owned(),
            Program::Libvirt if name == "virtproxyd" => {
                format!("libvirt's own virtproxyd (pid {})", self.pid)
            }
            _ => format!("{name} (pid {})", self.pid),
        }
    }
}

fn program(exe: &Path, has_libvirt: impl FnOnce() -> bool) -> Program {
    match exe.file_name().and_then(|name| name.to_str()) {
        Some("systemd") => Program::Systemd,
        Some("virtproxyd") if !has_libvirt() => Program::Proxy,
        Some(name) if place::is_daemon(name) => Program::Libvirt,
        _ => Program::Other,
    }
}

/// A line of `/proc/net/unix`, if its socket listens and has a name. Any user can bind names with
/// blanks and broken characters in them, which must spoil no other line.
fn unix_listener(line: &str) -> Option<(Place, u64)> {
    // Num RefCount Protocol Flags Type St Inode Path; only Inode is padded on its left.
    let mut words = line.split_ascii_whitespace();
    let flags = u32::from_str_radix(words.nth(3)?, 16).ok()?;
    let inode: u64 = words.nth(2)?.parse().ok()?;
    let name = words.next()?;
    if flags & LISTENS == 0 {
        return None;
    }
    let place = if name.starts_with('@') {
        Place::Abstract(name.to_owned())
    } else {
        Place::File(name.into())
    };
    Some((place, inode))
}

/// Whether a TCP port is libvirt's: by its number, or because one of its daemons holds it.
pub(super) fn is_port_of_libvirt(address: &SocketAddr, holders: &[Holder]) -> bool {
    let libvirt = |holder: &Holder| holder.program == Program::Libvirt;
    place::PORTS.contains(&address.port()) || holders.iter().any(libvirt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_sockets_that_listen_are_taken() {
        let line = |flags: &str, path: &str| {
            format!("0000000000000000: 00000002 00000000 {flags} 0001 01 {path}")
        };
        assert_eq!(
            unix_listener(&line("00010000", "  4711 /run/libvirt/libvirt-sock")),
            Some((Place::File("/run/libvirt/libvirt-sock".into()), 4711))
        );
        assert_eq!(
            unix_listener(&line("00010000", "12345678 @libvirt-sock")),
            Some((Place::Abstract("@libvirt-sock".into()), 12_345_678))
        );
        for other in [
            line("00000000", "4711 /run/libvirt/libvirt-sock"),
            line("00010000", "4711"),
            "Num       RefCount Protocol Flags    Type St Inode Path".to_owned(),
            "half a name\u{fffd}".to_owned(),
            String::new(),
        ] {
            assert_eq!(unix_listener(&other), None, "{other}");
        }
    }

    #[test]
    fn programs_are_told_by_their_names_and_the_proxies_by_what_they_load() {
        for (exe, has_libvirt, expected) in [
            ("/usr/lib/systemd/systemd", false, Program::Systemd),
            ("/usr/sbin/libvirtd", true, Program::Libvirt),
            ("/usr/sbin/virtqemud", true, Program::Libvirt),
            ("/usr/sbin/virtproxyd", true, Program::Libvirt),
            ("/usr/local/sbin/virtproxyd", false, Program::Proxy),
            ("/usr/libexec/virtiofsd", false, Program::Other),
            ("/usr/sbin/haproxy", false, Program::Other),
        ] {
            assert_eq!(program(Path::new(exe), || has_libvirt), expected, "{exe}");
        }
    }
}
