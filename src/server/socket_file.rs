//! UNIX sockets that the daemon makes itself: bound without a moment of wrong permissions, never
//! at the cost of another daemon, removed only while they are ours.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::access::Access;
use super::lockfile::LockFile;
use super::paths::{self, identity};

/// Connections that may wait to be accepted; a little above libvirt's `max_queued_clients`, so
/// that a storm of clients waits here rather than failing.
const BACKLOG: i32 = 1024;

/// Why a socket could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    /// Something else has the name.
    #[error("{}: exists and is not a socket; not replaced", .0.display())]
    NotASocket(PathBuf),
    /// Another daemon serves this socket.
    #[error("{}: another daemon is listening on this socket", .0.display())]
    InUse(PathBuf),
    /// The group of a listener does not exist.
    #[error("{}: no group named \"{}\"", .path.display(), .group.escape_debug())]
    NoGroup {
        /// The socket.
        path: PathBuf,
        /// The group.
        group: String,
    },
    /// systemd passed a socket of the wrong kind under a listener's name.
    #[error("listener \"{listener}\": systemd passed {found} for it, which is not {wanted}")]
    WrongKind {
        /// The listener.
        listener: Arc<str>,
        /// Where the socket is bound.
        found: String,
        /// What the policy says.
        wanted: &'static str,
    },
    /// A TCP socket cannot be opened.
    #[error("{address}: cannot listen: {source}")]
    Tcp {
        /// Address and port.
        address: SocketAddr,
        /// Why it failed.
        source: io::Error,
    },
    /// A system call failed.
    #[error("{}: cannot {action}: {source}", .path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// The file of a socket of our own. Dropping it removes the file, if it is still ours.
///
/// Drop it before the listening socket is closed: the kernel keeps the inode as long as the
/// socket is open, so that device and inode number are proof until then.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
    access: Access,
    /// Keeps a second instance away, even one that starts in the very same moment.
    _lock: LockFile,
}

impl SocketFile {
    /// Makes a listening socket at `path`, and its directory if need be.
    ///
    /// Nobody can connect before the permissions are right, because the socket starts to listen
    /// only then. A socket file that nobody listens on is replaced.
    ///
    /// # Errors
    /// [`BindError`]; the path is then as it was.
    pub(crate) fn bind(path: &Path, access: Access) -> Result<(UnixListener, Self), BindError> {
        let failed = |action| {
            move |source: Errno| BindError::Io {
                path: path.to_path_buf(),
                action,
                source: source.into(),
            }
        };
        let address = SocketAddrUnix::new(path).map_err(failed("use the path"))?;
        paths::make_parent(path).map_err(|source| BindError::Io {
            path: path.to_path_buf(),
            action: "create its directory",
            source,
        })?;
        let lock = lock(path)?;
        remove_stale(path, &address)?;

        let socket = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
        .map_err(failed("create a socket"))?;
        // The file is born with the socket's own mode: nothing until it is set below.
        rustix::fs::fchmod(&socket, Mode::empty()).map_err(failed("close the socket"))?;
        rustix::net::bind(&socket, &address).map_err(failed("bind"))?;
        let mut file = Self {
            path: path.to_path_buf(),
            identity: identity(path).map_err(|source| BindError::Io {
                path: path.to_path_buf(),
                action: "inspect",
                source,
            })?,
            access: Access { mode: 0, gid: None },
            _lock: lock,
        };
        file.set_access(access)?;
        rustix::net::listen(&socket, BACKLOG).map_err(failed("listen"))?;
        Ok((UnixListener::from(socket), file))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Who may connect.
    pub(crate) fn access(&self) -> Access {
        self.access
    }

    /// Changes who may connect. On the way no one may who may in neither state.
    ///
    /// # Errors
    /// The file is no longer ours, or the system refuses.
    pub(crate) fn set_access(&mut self, access: Access) -> Result<(), BindError> {
        if self.access == access {
            return Ok(());
        }
        self.change_access(access).map_err(|source| BindError::Io {
            path: self.path.clone(),
            action: "set mode and group",
            source,
        })?;
        self.access = access;
        Ok(())
    }

    fn change_access(&self, access: Access) -> io::Result<()> {
        let Some(file) = self.open_if_ours()? else {
            return Err(io::Error::other("the file was replaced by another"));
        };
        if self.access.gid != access.gid {
            chmod(&file, self.access.mode & access.mode)?;
            let gid = access
                .gid
                .map_or_else(rustix::process::getegid, Gid::from_raw);
            rustix::fs::chownat(&file, "", None, Some(gid), AtFlags::EMPTY_PATH)?;
        }
        chmod(&file, access.mode)?;
        Ok(())
    }

    /// A handle on the file itself, if the name still leads to our socket.
    fn open_if_ours(&self) -> io::Result<Option<OwnedFd>> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match rustix::fs::open(&self.path, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let stat = rustix::fs::fstat(&file)?;
        Ok(((stat.st_dev, stat.st_ino) == self.identity).then_some(file))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// `fchmod` does not take an `O_PATH` handle; its name under `/proc` leads to the same file.
fn chmod(file: &OwnedFd, mode: u32) -> rustix::io::Result<()> {
    let name = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::chmodat(CWD, name, Mode::from_raw_mode(mode), AtFlags::empty())
}

fn lock(path: &Path) -> Result<LockFile, BindError> {
    match LockFile::beside(path) {
        Ok(Some(lock)) => Ok(lock),
        Ok(None) => Err(BindError::InUse(path.to_path_buf())),
        Err(source) => Err(BindError::Io {
            path: path.to_path_buf(),
            action: "lock",
            source,
        }),
    }
}

/// Removes a socket file that nobody listens on; refuses anything else.
fn remove_stale(path: &Path, address: &SocketAddrUnix) -> Result<(), BindError> {
    let failed = |action, source| BindError::Io {
        path: path.to_path_buf(),
        action,
        source,
    };
    let before = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("inspect", error)),
    };
    if !before.file_type().is_socket() {
        return Err(BindError::NotASocket(path.to_path_buf()));
    }
    match probe(address) {
        // Refused by the kernel: no socket is bound to this file, or none that listens.
        Err(Errno::CONNREFUSED) => {}
        Err(Errno::NOENT) => return Ok(()),
        // Accepted, or too busy to accept: alive.
        Ok(()) | Err(Errno::AGAIN) => return Err(BindError::InUse(path.to_path_buf())),
        Err(error) => return Err(failed("tell whether anybody listens", error.into())),
    }
    if identity(path).ok() != Some((before.dev(), before.ino())) {
        return Err(BindError::InUse(path.to_path_buf()));
    }
    fs::remove_file(path).map_err(|error| failed("remove the stale socket", error))?;
    tracing::info!(path = %path.display(), "replaced a stale socket");
    Ok(())
}

fn probe(address: &SocketAddrUnix) -> rustix::io::Result<()> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    rustix::net::connect(&socket, address)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a failed set-up step should stop the test"
)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    const OPEN: Access = Access {
        mode: 0o660,
        gid: None,
    };

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn bound_with_its_mode_in_a_new_directory_and_removed_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/sock");
        let (listener, file) = SocketFile::bind(&path, OPEN).unwrap();
        assert_eq!(mode(&path), 0o660);
        UnixStream::connect(&path).unwrap();
        listener.accept().unwrap();
        // The name that tools show is the real one.
        assert_eq!(listener.local_addr().unwrap().as_pathname(), Some(&*path));
        drop(file);
        let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }

    #[test]
    fn a_stale_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let (_listener, _file) = SocketFile::bind(&path, OPEN).unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_live_socket_is_not_stolen_even_with_a_full_queue() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        let other = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        rustix::net::bind(&other, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        rustix::net::listen(&other, 0).unwrap();
        let before = identity(&path).unwrap();
        assert!(matches!(
            SocketFile::bind(&path, OPEN),
            Err(BindError::InUse(_))
        ));
        // That probe now fills the queue; the next one meets EAGAIN.
        assert_eq!(
            probe(&SocketAddrUnix::new(&path).unwrap()),
            Err(Errno::AGAIN)
        );
        assert!(matches!(
            SocketFile::bind(&path, OPEN),
            Err(BindError::InUse(_))
        ));
        assert_eq!(identity(&path).unwrap(), before);
    }

    #[test]
    fn a_socket_that_another_of_us_is_setting_up_is_not_taken_for_stale() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        let _lock = lock(&path).unwrap();
        // Bound and not yet listening: to a client it looks as if nobody were there.
        drop(UnixListener::bind(&path).unwrap());
        assert!(matches!(
            SocketFile::bind(&path, OPEN),
            Err(BindError::InUse(_))
        ));
        assert!(path.exists());
    }

    #[test]
    fn what_is_not_a_socket_is_never_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(
            SocketFile::bind(&path, OPEN),
            Err(BindError::NotASocket(_))
        ));
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(
            SocketFile::bind(&link, OPEN),
            Err(BindError::NotASocket(_))
        ));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_socket_put_in_its_place_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        let (_listener, mut file) = SocketFile::bind(&path, OPEN).unwrap();
        fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        let before = mode(&path);
        let access = Access {
            mode: 0o600,
            gid: None,
        };
        assert!(file.set_access(access).is_err());
        assert_eq!(mode(&path), before);
        drop(file);
        assert!(path.exists());
    }

    #[test]
    fn access_changes_on_the_living_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        let (_listener, mut file) = SocketFile::bind(&path, OPEN).unwrap();
        let gid = rustix::process::getegid().as_raw();
        let access = Access {
            mode: 0o600,
            gid: Some(gid),
        };
        file.set_access(access).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(fs::symlink_metadata(&path).unwrap().gid(), gid);
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_a_clear_error() {
        let path = PathBuf::from("/tmp").join("x".repeat(200));
        let error = SocketFile::bind(&path, OPEN).unwrap_err().to_string();
        assert!(error.contains("cannot use the path"), "{error}");
    }
}
