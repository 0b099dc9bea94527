//! Dialling a driver daemon.

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::time::{Sleep, sleep};

use super::transport::Transport;
use crate::policy::model::{Address, Upstream};
use crate::session::UpstreamId;

/// First wait for a daemon whose queue of new connections is full; doubles up to [`LAST_RETRY`].
const FIRST_RETRY: Duration = Duration::from_millis(1);
const LAST_RETRY: Duration = Duration::from_millis(50);

/// A connection that is being made. The session bounds how long it may take.
#[derive(Debug)]
pub(super) struct Dial {
    pub(super) id: UpstreamId,
    address: Result<SocketAddrUnix, Errno>,
    wait: Option<Pin<Box<Sleep>>>,
    next_wait: Duration,
}

impl Dial {
    /// Dials the read-only socket if asked and there is one.
    pub(super) fn new(id: UpstreamId, upstream: &Upstream, readonly: bool) -> Self {
        let path = match upstream.addresses.first() {
            Some(Address::Unix {
                readonly: Some(path),
                ..
            }) if readonly => path,
            Some(Address::Unix { path, .. }) => path,
            _ => Path::new(""),
        };
        let address = SocketAddrUnix::new(path);
        Self {
            id,
            address,
            wait: None,
            next_wait: FIRST_RETRY,
        }
    }

    /// Tries until there is an outcome. A UNIX socket connects at once or not at all, except that
    /// a full queue asks to come again.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Transport>> {
        loop {
            if let Some(wait) = &mut self.wait {
                ready!(wait.as_mut().poll(cx));
            }
            match self.connect() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait = Some(Box::pin(sleep(self.next_wait)));
                    self.next_wait = LAST_RETRY.min(self.next_wait * 2);
                }
                outcome => return Poll::Ready(outcome),
            }
        }
    }

    fn connect(&self) -> io::Result<Transport> {
        let address = self
            .address
            .as_ref()
            .map_err(|error| io::Error::from(*error))?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        net::connect(&fd, address)?;
        Transport::unix(fd.into())
    }
}
