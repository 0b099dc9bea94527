//! The task of one client connection: bytes between sockets and session, bounded both ways.
//!
//! Each side's frames are read into its inbox and offered to the session; what may pass is written
//! to the other side from where it lies. While one side takes nothing, the other is read no further
//! than its buffer: back-pressure reaches the sender instead of memory. One task drives both
//! directions. It is a hand-written future because each direction must go on while the other waits,
//! on the same state.
//!
//! - `client`: from the client to the upstreams.
//! - `upstream`: from the upstreams to the client.
//! - `dialled`: an upstream until it is open.
//! - `clock`: timers.
//! - `proof`: finding out who the client is.
//! - `turns`: calls that count towards quotas.

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]
mod allocations;
mod client;
mod clock;
mod dialled;
mod proof;
#[cfg(test)]
mod tests;
mod turns;
mod upstream;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::time::Sleep;

use super::audit::Trail;
use super::context::Context as Shared;
use super::dial::Dial;
use super::side::Side;
use super::transport::Transport;
use crate::session::access::refusal::Record;
use crate::session::{Action, Peer, Session, UpstreamId};
pub(super) use proof::Unproven;
use turns::Turns;
use upstream::{Upstream, open};

/// Bytes of the proxy's own frames that may wait for a side. A side over it is read no further: one
/// that asks and never listens costs this much.
const OUTBOX: usize = 256 * 1024;

/// Daemons that are lost and of which the client has not read all that they said. Each holds a buffer
/// and a socket; a client that lets more of them heap up while they are dialled again is closed.
const GONE: usize = 8;

/// Frames that are decided on before the other connections of the thread have their turn. A client
/// whose every frame is dropped or answered here is bounded by nothing else.
const TURN: usize = 1024;

/// A client connection and its upstreams.
pub(super) struct Pump<'a> {
    session: Session,
    shared: &'a Shared,
    drain: Option<Pin<Box<dyn Future<Output = ()> + 'a>>>,
    client: Side,
    upstreams: Vec<Upstream>,
    dials: Vec<Dial<'a>>,
    /// Whose frame the client has been given a part of.
    writing: Option<UpstreamId>,
    /// Frames of the proxy's own for the client that come after what a daemon said that is gone.
    epilogue: Vec<u8>,
    /// Whose frames the session is being offered.
    hearing: Option<UpstreamId>,
    timer: Option<Pin<Box<Sleep>>>,
    glance: Option<Pin<Box<Sleep>>>,
    end: End,
    /// What is there until the client has proven who it is.
    unproven: Option<Box<Unproven>>,
    /// What the records of this connection have in common, if there are any.
    trail: Option<Box<Trail>>,
    /// What is there while calls count.
    turns: Option<Box<Turns<'a>>>,
    /// The session has asked for the client's next frame to be offered again.
    held: bool,
    /// The session knows that the client sends no more.
    eof_told: bool,
    /// Frames that are left of this turn.
    turn: usize,
}

/// How far the client's connection has come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Open.
    Open,
    /// To be closed once the client has been given what it is owed.
    Flushing,
    /// All is written and the client has been told; it may still be reading.
    Lingering,
    /// Over.
    Closed,
}

impl<'a> Pump<'a> {
    /// Serves a client until either side ends, or the daemon does.
    pub(super) fn new(
        client: Transport,
        session: Session,
        unproven: Option<Unproven>,
        shared: &'a Shared,
    ) -> Self {
        Self {
            session,
            shared,
            drain: Some(Box::pin(shared.drain.begun())),
            unproven: unproven.map(Box::new),
            trail: None,
            turns: None,
            client: Side::new(client),
            upstreams: Vec::new(),
            dials: Vec::new(),
            writing: None,
            epilogue: Vec::new(),
            hearing: None,
            timer: None,
            glance: None,
            end: End::Open,
            held: false,
            eof_told: false,
            turn: TURN,
        }
    }

    /// Goes on until nothing moves, or the turn is over.
    fn advance(&mut self, cx: &mut Context<'_>) {
        let now = Instant::now();
        self.turn = TURN;
        if self
            .drain
            .as_mut()
            .is_some_and(|drain| drain.as_mut().poll(cx).is_ready())
        {
            self.drain = None;
            self.session.handle_drain(now);
        }
        loop {
            let mut moved = self.perform_actions();
            moved |= self.poll_proof(cx, now);
            moved |= self.poll_turns(cx, now);
            moved |= self.poll_dials(cx, now);
            moved |= self.poll_sasl(cx, now);
            moved |= self.move_from_client(cx, now);
            moved |= self.move_from_upstreams(cx, now);
            moved |= self.poll_outboxes(cx);
            if self.end == End::Closed {
                return;
            }
            if moved && self.turn > 0 {
                continue;
            }
            // Once all else is still, or as often as a turn ends: what moves also moves the next
            // deadline.
            self.poll_glance(cx);
            // Where the turn ended, not everything was asked to wake us.
            if self.turn == 0 {
                self.poll_timer(cx);
                cx.waker().wake_by_ref();
                return;
            }
            if self.end == End::Closed || !self.poll_timer(cx) {
                return;
            }
        }
    }

    /// Does what the session asks for.
    fn perform_actions(&mut self) -> bool {
        let mut moved = false;
        while let Some(action) = self.session.poll_action() {
            moved = true;
            match action {
                Action::Send {
                    to: Peer::Client,
                    bytes,
                } => self.tell_client(bytes),
                Action::Send {
                    to: Peer::Upstream(id),
                    bytes,
                } => {
                    if let Some(upstream) = open(&mut self.upstreams, id) {
                        upstream.side.outbox.push(&bytes);
                    }
                }
                Action::Connect {
                    id,
                    upstream,
                    readonly,
                } => {
                    let gone = self.upstreams.iter().filter(|upstream| upstream.gone);
                    if gone.count() >= GONE {
                        tracing::info!(
                            "the client reads nothing of daemons that are lost: closing"
                        );
                        self.end = End::Closed;
                        return true;
                    }
                    let dial = Dial::new(id, &upstream, readonly, self.shared);
                    self.dials.reserve_exact(1);
                    self.dials.push(dial);
                }
                Action::Disconnect(id) => {
                    self.dials.retain(|dial| dial.id != id);
                    self.dials.shrink_to_fit();
                    if let Some(upstream) = open(&mut self.upstreams, id) {
                        upstream.gone = true;
                    }
                }
                Action::Opened(_)
                | Action::Unwell { .. }
                | Action::ProveTo { .. }
                | Action::SecureUpstream(_) => self.tend(action),
                Action::Polkit
                | Action::Sasl(_)
                | Action::Secure
                | Action::Authenticated
                | Action::AuthenticationFailed(_) => self.prove(action),
                Action::Audit(record) => self.record(*record),
                Action::Acquire { .. } | Action::Claim { .. } | Action::Release { .. } => {
                    self.move_turn(action);
                }
                Action::Close if self.end == End::Open => self.end = End::Flushing,
                Action::Close => {}
                Action::Abort => self.end = End::Closed,
            }
        }
        moved
    }

    /// Sends frames of the proxy's own to the client. What a daemon has said before what made them
    /// comes before them: an event must not overtake the reply that names its registration.
    fn tell_client(&mut self, bytes: Vec<u8>) {
        let heard = self.hearing.and_then(|id| open(&mut self.upstreams, id));
        let bytes = match heard {
            Some(upstream) => upstream.side.decided.push_behind(bytes),
            None => Some(bytes),
        };
        let Some(bytes) = bytes else { return };
        if self.has_gone() {
            self.epilogue.extend(bytes);
        } else {
            self.client.outbox.push(&bytes);
        }
    }

    fn record(&mut self, record: Record) {
        let Shared { audit, policy, .. } = self.shared;
        let session = &self.session;
        let trail = &mut self.trail;
        audit.record(record, trail, session.name(), session.facts(), policy);
    }

    /// Writes the proxy's own frames, and ends the client's connection after the last.
    fn poll_outboxes(&mut self, cx: &mut Context<'_>) -> bool {
        let before = self.owed();
        for upstream in &mut self.upstreams {
            let Side {
                outbox, transport, ..
            } = &mut upstream.side;
            if let Poll::Ready(Err(_)) = outbox.poll_flush(transport, cx) {
                upstream.deaf = true;
                outbox.clear();
            }
        }
        let flushed = match self
            .client
            .outbox
            .poll_flush(&mut self.client.transport, cx)
        {
            Poll::Ready(Ok(())) => {
                let said = |upstream: &Upstream| upstream.side.decided.is_empty();
                self.epilogue.is_empty() && self.upstreams.iter().all(said)
            }
            Poll::Ready(Err(_)) => {
                self.end = End::Closed;
                return true;
            }
            Poll::Pending => false,
        };
        if flushed && self.end == End::Open && self.is_securing() {
            self.secure();
            return true;
        }
        if self.end != End::Flushing || !flushed {
            // A side that was not read because of what it was owed may be read again.
            return self.owed() < before;
        }
        self.client.transport.shutdown_write(cx);
        self.client.inbox.clear();
        self.end = if self.client.eof {
            End::Closed
        } else {
            End::Lingering
        };
        true
    }
}

/// However a connection ends, what was decided on it is recorded.
impl Drop for Pump<'_> {
    fn drop(&mut self) {
        self.session.handle_end();
        while let Some(action) = self.session.poll_action() {
            if let Action::Audit(record) = action {
                self.record(*record);
            }
        }
    }
}

impl Future for Pump<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.advance(cx);
        if self.end == End::Closed {
            return Poll::Ready(());
        }
        self.client.inbox.park();
        for upstream in &mut self.upstreams {
            upstream.side.inbox.park();
        }
        Poll::Pending
    }
}
