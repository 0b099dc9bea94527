//! Sockets that systemd opened for us.

use std::env;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
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
    /// Where it is bound.
    pub(crate) bound: Bound,
    /// The socket, non-blocking.
    pub(crate) socket: Passed,
}

/// Where a passed socket is bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Bound {
    /// At a path.
    Path(PathBuf),
    /// At an IP address.
    Address(SocketAddr),
    /// At neither.
    Elsewhere,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Address(address) => address.fmt(f),
            Self::Elsewhere => f.write_str("elsewhere"),
        }
    }
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
        let (bound, socket) = taken.map_err(|source| ActivationError::Descriptor {
            fd: index + 3,
            name: name.clone(),
            source,
        })?;
        inherited.push(Inherited {
            name,
            bound,
            socket,
        });
    }
    Ok(inherited)
}

fn take_one(passed: &mut ListenFd, index: usize) -> io::Result<(Bound, Passed)> {
    let missing = || io::Error::from(io::ErrorKind::NotFound);
    // A failed attempt leaves the descriptor where it is.
    if let Ok(listener) = passed.take_unix_listener(index) {
        let listener = listener.ok_or_else(missing)?;
        listener.set_nonblocking(true)?;
        let bound = bound_path(&listener).map_or(Bound::Elsewhere, Bound::Path);
        return Ok((bound, Passed::Unix(listener)));
    }
    let listener = passed.take_tcp_listener(index)?.ok_or_else(missing)?;
    listener.set_nonblocking(true)?;
    let bound = Bound::Address(listener.local_addr()?);
    Ok((bound, Passed::Tcp(listener)))
}

fn bound_path(listener: &UnixListener) -> Option<PathBuf> {
    Some(listener.local_addr().ok()?.as_pathname()?.to_path_buf())
}

/// The listener that an inherited socket serves: the one of its name, else the one of its path or
/// address.
pub(crate) fn matching<'a>(
    name: &str,
    bound: &Bound,
    listeners: &'a [Arc<Listener>],
) -> Option<&'a Arc<Listener>> {
    let by_name = listeners.iter().find(|listener| *listener.name == *name);
    by_name.or_else(|| {
        listeners
            .iter()
            .find(|listener| match (&listener.address, bound) {
                (ListenAddress::Unix { path, .. }, Bound::Path(bound)) => path == bound,
                (tcp @ ListenAddress::Tcp { .. }, Bound::Address(bound)) => tcp.is_at(*bound),
                _ => false,
            })
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is the failed test")]
mod tests {
    use super::*;

    #[test]
    fn sockets_go_to_the_listener_of_their_name_or_address() {
        let text = "version: 1
listeners:
  main: { unix: /run/main }
  tcp: { tcp: '127.0.0.1:16509' }
  tls: { tcp: ['0.0.0.0:16514', '192.0.2.1:16515'], tls: {} }
upstreams: { u: { unix: /run/u } }
routes: [{ uri: x, upstream: u }]
";
        let policy = crate::policy::load("f", text, &|_| None).unwrap().policy;
        let path = |path: &str| Bound::Path(path.into());
        let address = |address: &str| Bound::Address(address.parse().unwrap());
        for (name, bound, expected) in [
            ("main", Bound::Elsewhere, Some("main")),
            ("tls", address("127.0.0.1:1"), Some("tls")),
            ("virtproxyd.socket", path("/run/main"), Some("main")),
            ("virtproxyd.socket", path("/run/other"), None),
            ("virtproxyd-tls.socket", address("[::]:16514"), Some("tls")),
            (
                "virtproxyd-tls.socket",
                address("0.0.0.0:16514"),
                Some("tls"),
            ),
            (
                "virtproxyd-tls.socket",
                address("192.0.2.1:16515"),
                Some("tls"),
            ),
            ("virtproxyd-tls.socket", address("0.0.0.0:16515"), None),
            ("virtproxyd-tcp.socket", address("[::]:16509"), None),
            ("", Bound::Elsewhere, None),
        ] {
            let found = matching(name, &bound, &policy.listeners);
            let found = found.map(|listener| &*listener.name);
            assert_eq!(found, expected, "{name} {bound}");
        }
    }
}
