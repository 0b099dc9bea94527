//! Dialling a UNIX socket, and waiting for the daemon that is started behind it.

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::time::{Sleep, sleep};

use super::Failed;
use super::start::Starter;
use crate::policy::model::{Address, Upstream};
use crate::server::health::{Standing, Trouble};
use crate::server::transport::Transport;

/// First wait for a daemon whose queue of new connections is full, or that is being started;
/// doubles up to [`LAST_RETRY`].
const FIRST_RETRY: Duration = Duration::from_millis(1);
const LAST_RETRY: Duration = Duration::from_millis(50);

/// A UNIX socket connects at once or not at all, except that a full queue asks to come again.
pub(super) struct Connecting {
    address: Result<SocketAddrUnix, Errno>,
    wait: Option<Pin<Box<Sleep>>>,
    next_wait: Duration,
    /// A program was started that is to listen.
    is_started: bool,
}

impl Connecting {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            address: SocketAddrUnix::new(path),
            wait: None,
            next_wait: FIRST_RETRY,
            is_started: false,
        }
    }

    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        standing: &Standing,
        starter: &Arc<Starter>,
    ) -> Poll<Result<Transport, Failed>> {
        loop {
            if let Some(wait) = &mut self.wait {
                ready!(wait.as_mut().poll(cx));
            }
            let error = match self.connect() {
                Ok(transport) => {
                    if self.is_started
                        && let Some((path, _)) = to_be_started(standing)
                    {
                        starter.listens(path);
                    }
                    return Poll::Ready(Ok(transport));
                }
                Err(error) => error,
            };
            let trouble = match error.kind() {
                io::ErrorKind::WouldBlock => None,
                io::ErrorKind::ConnectionRefused => Some(Trouble::Refused),
                io::ErrorKind::NotFound => Some(Trouble::Absent),
                _ => return Poll::Ready(Err(error.into())),
            };
            if let Some(trouble) = trouble {
                let why = match to_be_started(standing) {
                    Some((path, upstream)) => starter.start(path, upstream, Instant::now()),
                    None => Err(error.to_string()),
                };
                if let Err(why) = why {
                    return Poll::Ready(Err(Failed { why, trouble }));
                }
                self.is_started = true;
            }
            self.wait = Some(Box::pin(sleep(self.next_wait)));
            self.next_wait = LAST_RETRY.min(self.next_wait * 2);
        }
    }

    /// What it is to have had no success in time.
    pub(super) fn too_slow(&self) -> Failed {
        match self.is_started {
            // Who starts it anew waits by itself.
            true => Failed {
                why: "the program that was started does not listen yet".to_owned(),
                trouble: Trouble::Refused,
            },
            false => Failed::costly("its queue of connections is full"),
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

/// The socket by which a daemon is known that is started on demand.
fn to_be_started(standing: &Standing) -> Option<(&Path, &Upstream)> {
    let upstream = standing.upstream();
    match standing.address() {
        Some(Address::Unix { path, .. }) if upstream.start.is_some() => Some((path, upstream)),
        _ => None,
    }
}
