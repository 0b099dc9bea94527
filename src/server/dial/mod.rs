//! Dialling a driver daemon, wherever it is.
//!
//! - `unix`: a socket of this host, by far the most, and without any allocation.
//! - `start`: the program that is started where nobody listens on such a socket.
//! - `remote`: TCP and TLS.
//! - `command`: a program whose standard input and output are the connection.
//! - `output`: what programs say, to the log.
//! - `prove`: the proxy's side of a SASL exchange with a daemon.

mod command;
mod output;
mod prove;
mod remote;
mod start;
mod unix;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep};

use super::context::Context;
use super::health::{Standing, Trouble};
use super::transport::Transport;
use crate::policy::model::{Address, Upstream};
use crate::session::UpstreamId;

pub(super) use command::Program;
pub(super) use prove::UpstreamSasl;
pub(super) use start::Starter;
use unix::Connecting;

/// A dial that ends this much before its time was up is taken to have had all of it: whoever gives
/// it up has begun to count before we have.
const SLACK: Duration = Duration::from_millis(50);

/// A connection that is being made. The session bounds how long it may take, and drops it: one that
/// had its whole time was too slow, one that had not was not wanted any more, and says nothing of
/// the daemon.
pub(super) struct Dial<'a> {
    pub(super) id: UpstreamId,
    dialling: Dialling<'a>,
}

/// The same, whatever the session calls it.
struct Dialling<'a> {
    upstream: Arc<Upstream>,
    readonly: bool,
    shared: &'a Context,
    begun: Instant,
    /// Places of the addresses in the order to try them, where there are several.
    order: Vec<usize>,
    /// How many were tried.
    tried: usize,
    attempt: Option<Attempt<'a>>,
    /// Why it was nothing with those before, in words.
    failures: String,
}

/// A daemon that was reached.
pub(super) struct Dialled {
    pub(super) transport: Transport,
    pub(super) standing: Standing,
}

/// Why an address could not be reached.
#[derive(Debug)]
struct Failed {
    why: String,
    trouble: Trouble,
}

impl Failed {
    fn costly(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            trouble: Trouble::Costly,
        }
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::costly(error.to_string())
    }
}

/// One address being tried.
struct Attempt<'a> {
    standing: Standing,
    way: Way<'a>,
    /// When it is the next one's turn.
    share: Option<Pin<Box<Sleep>>>,
}

enum Way<'a> {
    Unix(Connecting),
    Other(Pin<Box<dyn Future<Output = Result<Transport, Failed>> + 'a>>),
}

impl<'a> Dial<'a> {
    /// `readonly`: by the socket for read-only clients where there is one.
    pub(super) fn new(
        id: UpstreamId,
        upstream: &Arc<Upstream>,
        readonly: bool,
        shared: &'a Context,
    ) -> Self {
        let dialling = Dialling::new(upstream, readonly, shared);
        Self { id, dialling }
    }

    /// Tries until there is an outcome; an error is for the log and the client.
    pub(super) fn poll(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<Dialled, String>> {
        self.dialling.poll(cx)
    }
}

impl<'a> Dialling<'a> {
    fn new(upstream: &Arc<Upstream>, readonly: bool, shared: &'a Context) -> Self {
        let begun = Instant::now();
        let order = match upstream.addresses.len() {
            0 | 1 => Vec::new(),
            _ => shared.health.order(upstream, begun),
        };
        Self {
            upstream: Arc::clone(upstream),
            readonly,
            shared,
            begun,
            order,
            tried: 0,
            attempt: None,
            failures: String::new(),
        }
    }

    fn poll(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<Dialled, String>> {
        loop {
            let Some(attempt) = &mut self.attempt else {
                match self.next_place() {
                    Some(place) => self.attempt(place),
                    None => return Poll::Ready(Err(std::mem::take(&mut self.failures))),
                }
                continue;
            };
            let failed = match attempt.way.poll(cx, self.shared, &attempt.standing) {
                Poll::Ready(Ok(transport)) => {
                    return match self.attempt.take() {
                        Some(Attempt { standing, .. }) => Poll::Ready(Ok(Dialled {
                            transport,
                            standing,
                        })),
                        None => Poll::Pending,
                    };
                }
                Poll::Ready(Err(failed)) => failed,
                Poll::Pending => match &mut attempt.share {
                    Some(share) => {
                        ready!(share.as_mut().poll(cx));
                        attempt.too_slow()
                    }
                    None => return Poll::Pending,
                },
            };
            let now = Instant::now();
            attempt.standing.failed(&failed.why, failed.trouble, now);
            let address = attempt.standing.address();
            let place = address.map(|address| address.place(self.readonly));
            self.attempt = None;
            self.failed(place.as_deref(), &failed.why);
        }
    }

    fn next_place(&mut self) -> Option<usize> {
        let place = match self.order.get(self.tried) {
            Some(place) => *place,
            None if self.tried == 0 => 0,
            None => return None,
        };
        self.tried += 1;
        (place < self.upstream.addresses.len()).then_some(place)
    }

    /// Begins to try an address, unless it is known to be down.
    fn attempt(&mut self, place: usize) {
        let (upstream, now) = (&self.upstream, Instant::now());
        let standing = match self.shared.health.admit(upstream, place, now) {
            Ok(standing) => standing,
            Err(why) => return self.failed(None, &why),
        };
        let way = match upstream.addresses.get(place) {
            Some(Address::Unix { path, readonly }) => {
                let readonly = readonly.as_ref().filter(|_| self.readonly);
                Way::Unix(Connecting::new(readonly.unwrap_or(path)))
            }
            _ => {
                let (upstream, shared) = (Arc::clone(upstream), self.shared);
                Way::Other(Box::pin(remote::connect(upstream, place, shared)))
            }
        };
        // The last one has what is left; the session bounds that.
        let left = u32::try_from(self.order.len().saturating_sub(self.tried)).unwrap_or(u32::MAX);
        let time = upstream
            .connect_timeout
            .saturating_sub(self.begun.elapsed());
        let share = (left > 0).then(|| Box::pin(sleep(time / left.saturating_add(1))));
        self.attempt = Some(Attempt {
            standing,
            way,
            share,
        });
    }

    fn failed(&mut self, place: Option<&str>, why: &str) {
        if !self.failures.is_empty() {
            self.failures.push_str("; ");
        }
        // With a single address it is clear which.
        if let Some(place) = place.filter(|_| self.order.len() > 1) {
            self.failures.push_str(place);
            self.failures.push_str(": ");
        }
        self.failures.push_str(why);
    }
}

impl Attempt<'_> {
    fn too_slow(&self) -> Failed {
        match &self.way {
            Way::Unix(connecting) => connecting.too_slow(),
            Way::Other(_) => Failed::costly("connection timed out"),
        }
    }
}

impl Drop for Dialling<'_> {
    fn drop(&mut self) {
        if let Some(attempt) = &self.attempt
            && self.begun.elapsed() + SLACK >= self.upstream.connect_timeout
        {
            let Failed { why, trouble } = attempt.too_slow();
            attempt.standing.failed(&why, trouble, Instant::now());
        }
    }
}

impl Way<'_> {
    fn poll(
        &mut self,
        cx: &mut task::Context<'_>,
        shared: &Context,
        standing: &Standing,
    ) -> Poll<Result<Transport, Failed>> {
        match self {
            Self::Unix(connecting) => connecting.poll(cx, standing, &shared.starter),
            Self::Other(connecting) => connecting.as_mut().poll(cx),
        }
    }
}
