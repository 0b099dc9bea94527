//! Sockets that systemd opened for us.

use std::env;
use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use listenfd::ListenFd;

use crate::policy::model::{ListenAddress, Listener};

/// Sockets that may be passed; a bound on what the environment can make us allocate.
const MAX_SOCKETS: usize = 256;

/// A socket that was open when we started.
#[derive(Debug)]
pub(crate) struct Inherited {
    /// `FileDescriptorName=`, empty if none was given.
    pub(crate) name: String,
    /// Where it is bound, if that is a path.
    pub(crate) path: Option<PathBuf>,
    /// The socket, non-blocking.
    pub(crate) socket: Passed,
}

/// A passed socket, by kind.
#[derive(Debug)]
pub(crate) enum Passed {
    /// A UNIX socket.
    Unix(UnixListener),
    /// A TCP socket.
    Tcp(TcpListener),
}

/// Why the passed sockets cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ActivationError {
    /// The environment makes no sense.
    #[error("socket activation: LISTEN_FDS={0:?} is not a number of sockets up to {MAX_SOCKETS}")]
    Count(String),
    /// A descriptor is no listening stream socket.
    #[error("socket activation: descriptor {fd} (\"{name}\"): {source}")]
    Descriptor {
        /// Its number.
        fd: usize,
        /// Its name.
        name: String,
        /// What is wrong with it.
        source: io::Error,
    },
}

/// Takes the sockets that systemd passed, if any. Call it once, before any thread is started and
/// any descriptor opened.
///
/// # Errors
/// Something was passed that we cannot listen on.
pub(crate) fn take() -> Result<Vec<Inherited>, ActivationError> {
    // Strictly ours: listenfd would also take sockets with no LISTEN_PID at all.
    let for_us = env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string());
    if !for_us {
        return Ok(Vec::new());
    }
    let count = env::var("LISTEN_FDS").unwrap_or_default();
    if !count.parse().is_ok_and(|count: usize| count <= MAX_SOCKETS) {
        return Err(ActivationError::Count(count));
    }
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut passed = ListenFd::from_env();
    let mut inherited = Vec::with_capacity(passed.len());
    for index in 0..passed.len() {
        let name = names.next().unwrap_or_default().to_owned();
        let taken = take_one(&mut passed, index);
        let (path, socket) = taken.map_err(|source| ActivationError::Descriptor {
            fd: index + 3,
            name: name.clone(),
            source,
        })?;
        inherited.push(Inherited { name, path, socket });
    }
    Ok(inherited)
}

fn take_one(passed: &mut ListenFd, index: usize) -> io::Result<(Option<PathBuf>, Passed)> {
    let missing = || io::Error::from(io::ErrorKind::NotFound);
    // A failed attempt leaves the descriptor where it is.
    if let Ok(listener) = passed.take_unix_listener(index) {
        let listener = listener.ok_or_else(missing)?;
        listener.set_nonblocking(true)?;
        return Ok((bound_path(&listener), Passed::Unix(listener)));
    }
    let listener = passed.take_tcp_listener(index)?.ok_or_else(missing)?;
    listener.set_nonblocking(true)?;
    Ok((None, Passed::Tcp(listener)))
}

fn bound_path(listener: &UnixListener) -> Option<PathBuf> {
    Some(listener.local_addr().ok()?.as_pathname()?.to_path_buf())
}

/// The listener that an inherited socket serves: the one of its name, else the one of its path.
pub(crate) fn matching<'a>(
    name: &str,
    path: Option<&Path>,
    listeners: &'a [Arc<Listener>],
) -> Option<&'a Arc<Listener>> {
    let by_name = listeners.iter().find(|listener| *listener.name == *name);
    by_name.or_else(|| {
        let path = path?;
        listeners.iter().find(|listener| {
            matches!(&listener.address, ListenAddress::Unix { path: wanted, .. } if wanted == path)
        })
    })
}
