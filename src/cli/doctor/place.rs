//! Where libvirt's daemons can be listening, and what the names of their sockets say.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};
use serde::{Serialize, Serializer};

/// libvirt's ports, plain and TLS.
pub(super) const PORTS: [u16; 2] = [16509, 16514];

/// Where something listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// A UNIX socket's file.
    File(PathBuf),
    /// A UNIX socket without a file, which has no owner and no mode.
    Abstract(String),
    /// A TCP port.
    Tcp(SocketAddr),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Abstract(name) => f.write_str(name),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    ReadWrite,
    ReadOnly,
    Admin,
    Tcp,
    Other,
}

impl Kind {
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::ReadWrite => "read-write",
            Self::ReadOnly => "read-only",
            Self::Admin => "admin",
            Self::Tcp => "tcp",
            Self::Other => "other",
        }
    }
}

/// The daemon and the kind that a socket's name tells, if it is one of libvirt's: `libvirt-sock`,
/// `virtqemud-sock-ro`, `virtqemud-admin-sock`. The first is a monolithic daemon's, or a proxy's.
pub(super) fn named(path: &Path) -> Option<(String, Kind)> {
    let name = path.file_name()?.to_str()?;
    let (daemon, kind) = if let Some(daemon) = name.strip_suffix("-admin-sock") {
        (daemon, Kind::Admin)
    } else if let Some(daemon) = name.strip_suffix("-sock-ro") {
        (daemon, Kind::ReadOnly)
    } else {
        (name.strip_suffix("-sock")?, Kind::ReadWrite)
    };
    if daemon == "libvirt" {
        return Some(("libvirtd".to_owned(), kind));
    }
    is_daemon(daemon).then(|| (daemon.to_owned(), kind))
}

/// Whether a program of this name is one of libvirt's daemons; `virtproxyd` may be ours.
pub(super) fn is_daemon(name: &str) -> bool {
    let middle = name
        .strip_prefix("virt")
        .and_then(|rest| rest.strip_suffix('d'));
    let driver = middle.is_some_and(|driver| {
        driver != "iofs" && driver.bytes().all(|byte| byte.is_ascii_lowercase())
    });
    driver || name == "libvirtd"
}

/// Where a path of a system is, whose files are below `root`.
pub(super) fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// The path without symbolic links, as `/var/run` is one; `None`: nothing is there. Links are
/// followed as they lead for the system's own programs, and never out of `root`.
pub(super) fn real(root: &Path, path: &Path) -> Option<PathBuf> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let top = open(root, flags | OFlags::DIRECTORY, Mode::empty()).ok()?;
    let file = openat2(top, path, flags, Mode::empty(), ResolveFlags::IN_ROOT).ok()?;
    let found = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
    Some(Path::new("/").join(found.strip_prefix(root).ok()?))
}

/// The same, or the path as it is.
pub(super) fn real_or_same(root: &Path, path: &Path) -> PathBuf {
    real(root, path).unwrap_or_else(|| path.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_daemon_and_the_kind() {
        for (path, expected) in [
            (
                "/run/libvirt/libvirt-sock",
                Some(("libvirtd", Kind::ReadWrite)),
            ),
            ("/x/libvirt-sock-ro", Some(("libvirtd", Kind::ReadOnly))),
            ("/x/libvirt-admin-sock", Some(("libvirtd", Kind::Admin))),
            ("/x/virtqemud-sock", Some(("virtqemud", Kind::ReadWrite))),
            ("/x/virtchd-sock-ro", Some(("virtchd", Kind::ReadOnly))),
            ("/x/virtlogd-admin-sock", Some(("virtlogd", Kind::Admin))),
            ("@/x/virtlxcd-sock", Some(("virtlxcd", Kind::ReadWrite))),
            ("/x/virtiofsd-sock", None),
            ("/x/virtio-serial-sock", None),
            ("/x/pulse-sock", None),
            ("/x/libvirt", None),
            ("/", None),
        ] {
            let found = named(Path::new(path));
            let found = found.as_ref().map(|(daemon, kind)| (&**daemon, *kind));
            assert_eq!(found, expected, "{path}");
        }
    }
}
