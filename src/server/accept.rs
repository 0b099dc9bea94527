//! Accepting: one task for each listening socket, on the main thread.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

use super::access::Access;
use super::context::Context;
use super::workers::{Conn, Workers};
use crate::policy::model::Listener;

/// First pause after an accept that failed for want of descriptors or memory.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// Longest pause: how late we may notice that there are descriptors again.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What clients of a listening socket get.
#[derive(Debug, Clone)]
pub(crate) struct Served {
    /// The listener of the policy in force.
    pub(crate) listener: Arc<Listener>,
    /// Who may connect, where the socket's file does not say it.
    pub(crate) admits: Option<Access>,
}

/// A listening socket.
#[derive(Debug)]
pub(crate) enum Socket {
    /// A UNIX socket.
    Unix(UnixListener),
    /// A TCP socket.
    Tcp(TcpListener),
}

impl Socket {
    /// The next client, out of this thread's reactor.
    fn poll_accept(&self, context: &mut TaskContext<'_>) -> Poll<io::Result<Conn>> {
        match self {
            Self::Unix(listener) => listener
                .poll_accept(context)
                .map(|accepted| accepted?.0.into_std().map(Conn::Unix)),
            Self::Tcp(listener) => listener
                .poll_accept(context)
                .map(|accepted| accepted?.0.into_std().map(Conn::Tcp)),
        }
    }
}

/// Accepts on one socket until dropped, and hands clients to the workers.
///
/// `serves` is the listener that the socket belongs to in the policy in force. While it is
/// `None`, clients are accepted and closed at once, so that they do not hang in the queue.
pub(crate) async fn run(
    socket: Socket,
    serves: watch::Receiver<Option<Served>>,
    ctx: Arc<Context>,
    workers: Arc<Workers>,
) {
    let mut exhausted = None;
    loop {
        ctx.clients.room().await;
        // The question, the accept and the count happen in one poll: the limit holds exactly,
        // whatever the other accept tasks do.
        let accepted = poll_fn(|context| {
            if !ctx.clients.has_room() {
                return Poll::Ready(None);
            }
            let polled = socket.poll_accept(context);
            // Only an empty queue ends it. A daemon at its limit can take one client for each
            // that leaves, and would else report both each time.
            if polled.is_pending() && exhausted.take().is_some() {
                tracing::info!("accepting clients again");
            }
            polled.map(Some)
        });
        match accepted.await {
            None => {}
            Some(Ok(conn)) => {
                exhausted = exhausted.map(|_| FIRST_PAUSE);
                let served = serves.borrow().clone();
                if let Some(served) = served {
                    workers.serve(conn, served, ctx.clients.enter());
                }
            }
            Some(Err(error)) if is_exhaustion(&error) => {
                let pause = exhausted.unwrap_or_else(|| {
                    tracing::warn!(%error, "cannot accept clients; trying again until it works");
                    FIRST_PAUSE
                });
                exhausted = Some(LONGEST_PAUSE.min(pause * 2));
                tokio::time::sleep(pause).await;
            }
            // A client that left before it was accepted, or an error pending on its connection,
            // which Linux reports here too: nothing to do with the next one.
            Some(Err(error)) => tracing::debug!(%error, "a client was lost before it was accepted"),
        }
    }
}

fn is_exhaustion(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(
        errno,
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS)
    )
}
