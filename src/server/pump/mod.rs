//! The task of one client connection: bytes between sockets and session, bounded both ways.
//!
//! Each side's frames are read into its inbox and offered to the session; what may pass is written
//! to the other side from where it lies. While one side takes nothing, the other is read no further
//! than its buffer: back-pressure reaches the sender instead of memory. One task drives both
//! directions. It is a hand-written future because each direction must go on while the other waits,
//! on the same state.

mod proof;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep, sleep_until};

use super::context::Context as Shared;
use super::side::Side;
use super::transport::Transport;
use super::upstream::Dial;
use crate::protocol::limits;
pub(super) use proof::Unproven;

use crate::session::{Action, Lost, Peer, Session, UpstreamId, Verdict};

/// Bytes of the proxy's own frames that may wait for a side. A side over it is read no further: one
/// that asks and never listens costs this much.
const OUTBOX: usize = 256 * 1024;

/// How often a client that is not read is looked at for whether it has left, which is otherwise
/// seen by reading.
const GLANCE: Duration = Duration::from_secs(1);

/// A client connection and its upstream.
pub(super) struct Pump<'a> {
    session: Session,
    shared: &'a Shared,
    drain: Option<Pin<Box<dyn Future<Output = ()> + 'a>>>,
    client: Side,
    upstream: Option<Upstream>,
    dial: Option<Dial>,
    timer: Option<Pin<Box<Sleep>>>,
    glance: Option<Pin<Box<Sleep>>>,
    end: End,
    /// What is there until the client has proven who it is.
    unproven: Option<Box<Unproven>>,
    /// The session has asked for the client's next frame to be offered again.
    held: bool,
    /// The session knows that the client sends no more.
    eof_told: bool,
}

/// A dialled daemon.
#[derive(Debug)]
struct Upstream {
    id: UpstreamId,
    side: Side,
    /// The session is done with it; only what it was let to say before is still passed on.
    gone: bool,
    /// Nothing can be written to it.
    deaf: bool,
    /// Frames of the proxy's own that come after what it said.
    epilogue: Vec<u8>,
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
            client: Side::new(client),
            upstream: None,
            dial: None,
            timer: None,
            glance: None,
            end: End::Open,
            held: false,
            eof_told: false,
        }
    }

    /// Goes on until nothing moves.
    fn advance(&mut self, cx: &mut Context<'_>) {
        let now = Instant::now();
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
            moved |= self.poll_dial(cx, now);
            moved |= self.move_from_client(cx, now);
            moved |= self.move_from_upstream(cx, now);
            moved |= self.poll_outboxes(cx);
            moved |= self.poll_timer(cx);
            self.poll_glance(cx);
            if !moved || self.end == End::Closed {
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
                } => match &mut self.upstream {
                    Some(upstream) if upstream.gone => upstream.epilogue.extend(bytes),
                    _ => self.client.outbox.push(&bytes),
                },
                Action::Send {
                    to: Peer::Upstream(id),
                    bytes,
                } => {
                    if let Some(upstream) = open(&mut self.upstream, id) {
                        upstream.side.outbox.push(&bytes);
                    }
                }
                Action::Connect {
                    id,
                    upstream,
                    readonly,
                } => {
                    self.dial = Some(Dial::new(id, &upstream, readonly));
                }
                Action::Disconnect(id) => {
                    self.dial.take_if(|dial| dial.id == id);
                    if let Some(upstream) = open(&mut self.upstream, id) {
                        upstream.gone = true;
                    }
                }
                Action::Polkit
                | Action::Sasl(_)
                | Action::Secure
                | Action::Authenticated
                | Action::AuthenticationFailed(_) => self.prove(action),
                Action::Close if self.end == End::Open => self.end = End::Flushing,
                Action::Close => {}
                Action::Abort => self.end = End::Closed,
            }
        }
        moved
    }

    fn poll_dial(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let Some(dial) = &mut self.dial else {
            return false;
        };
        let Poll::Ready(outcome) = dial.poll(cx) else {
            return false;
        };
        let id = dial.id;
        self.dial = None;
        match outcome {
            Ok(transport) => {
                let descriptors = transport.carries_descriptors();
                let side = Side::new(transport);
                self.retire_upstream();
                self.upstream = Some(Upstream {
                    id,
                    side,
                    gone: false,
                    deaf: false,
                    epilogue: Vec::new(),
                });
                self.session.handle_connected(id, descriptors);
            }
            Err(error) => {
                let lost = Lost::Unreachable(error.to_string());
                self.session.handle_upstream_lost(id, &lost, now);
            }
        }
        true
    }

    fn move_from_client(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut moved = false;
        while self.end == End::Open {
            moved |= self.write_to_upstream(cx);
            moved |= self.perform_actions();
            if self.owed() > OUTBOX || self.is_securing() {
                return moved;
            }
            if self.decide_client(now) {
                moved = true;
                continue;
            }
            if self.client.eof {
                return moved | self.end_client(now);
            }
            if !self.client.inbox.has_room() {
                return moved;
            }
            if self.client.poll_receive(cx).is_pending() {
                return moved;
            }
            self.session.handle_heard(Peer::Client, now);
            moved = true;
        }
        while self.end == End::Lingering && self.client.poll_receive(cx).is_ready() {
            self.client.inbox.clear();
            if self.client.eof {
                self.end = End::Closed;
            }
            moved = true;
        }
        moved
    }

    /// Bytes of the proxy's own frames that the client's frames made and that are still here.
    fn owed(&self) -> usize {
        let to_upstream = self.upstream.as_ref().map_or(0, |upstream| {
            upstream.side.outbox.len() + upstream.epilogue.len()
        });
        self.client.outbox.len() + to_upstream
    }

    /// Offers the client's frames to the session, up to one that the session answers itself: what
    /// is owed counts before the next. Returns whether anything was decided.
    fn decide_client(&mut self, now: Instant) -> bool {
        let (mut decided, client) = (false, &mut self.client);
        self.held = false;
        if client.inbox.len() == client.decided.bytes() {
            return false;
        }
        let generation = self.shared.policy.peek();
        loop {
            let cap = self.session.client_frame_cap();
            let (skip, claimed) = (client.decided.bytes(), client.decided.descriptors());
            let frame = match client.inbox.frame(skip, claimed, cap) {
                Ok(Some(frame)) => frame,
                Ok(None) => return decided,
                Err(broken) => {
                    tracing::warn!(why = %broken, "the client broke the protocol: closing");
                    self.end = End::Closed;
                    return true;
                }
            };
            let to = match self.session.handle_client(&frame, &generation.policy, now) {
                Verdict::Relay(to) => Some(to),
                Verdict::Consumed => None,
                Verdict::Hold => {
                    self.held = true;
                    return decided;
                }
            };
            client.decided.push(to, &frame);
            decided = true;
            if to.is_none() {
                return true;
            }
        }
    }

    /// Writes what was decided about the client's frames.
    fn write_to_upstream(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while let Some(run) = self.client.decided.first() {
            let to = match run.to {
                Some(Peer::Upstream(id)) => open(&mut self.upstream, id),
                Some(Peer::Client) | None => None,
            };
            match to.filter(|upstream| !upstream.deaf) {
                // The daemon is gone; the session answers, or has answered, the calls.
                None => self.client.drop_first_run(),
                Some(upstream) => match self.client.poll_first_run(&mut upstream.side, cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => upstream.deaf = true,
                    Poll::Pending => return moved,
                },
            }
            moved = true;
        }
        moved
    }

    /// The client sends no more, and what it has sent is decided about.
    fn end_client(&mut self, now: Instant) -> bool {
        if self.client.transport.is_hung_up() && self.client.decided.is_empty() {
            self.end = End::Closed;
            return true;
        }
        if self.eof_told || self.held {
            return false;
        }
        self.eof_told = true;
        self.session.handle_client_eof(now);
        true
    }

    fn move_from_upstream(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut moved = false;
        loop {
            moved |= self.write_to_client(cx);
            let Some(upstream) = &mut self.upstream else {
                return moved;
            };
            if upstream.gone {
                if !upstream.side.decided.is_empty() {
                    return moved;
                }
                self.retire_upstream();
                return true;
            }
            if decide_upstream(upstream, &mut self.session, now) {
                moved = true;
                continue;
            }
            let side = &mut upstream.side;
            if !side.eof && side.outbox.len() <= OUTBOX && side.inbox.has_room() {
                if side.poll_receive(cx).is_ready() {
                    self.session.handle_heard(Peer::Upstream(upstream.id), now);
                    moved = true;
                    continue;
                }
                side.eof = upstream.deaf;
            }
            if side.eof {
                let id = upstream.id;
                self.session.handle_upstream_lost(id, &Lost::Closed, now);
                upstream.gone = true;
                moved = true;
            }
            return moved;
        }
    }

    /// Drops the upstream. What it said has been passed on, and what follows that can be.
    fn retire_upstream(&mut self) {
        if let Some(upstream) = self.upstream.take() {
            self.client.outbox.push(&upstream.epilogue);
        }
    }

    /// Writes what was decided about the upstream's frames.
    fn write_to_client(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        let Some(upstream) = &mut self.upstream else {
            return false;
        };
        while let Some(run) = upstream.side.decided.first() {
            match run.to {
                Some(Peer::Client) => match upstream.side.poll_first_run(&mut self.client, cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => {
                        self.end = End::Closed;
                        return true;
                    }
                    Poll::Pending => return moved,
                },
                Some(Peer::Upstream(_)) | None => upstream.side.drop_first_run(),
            }
            moved = true;
        }
        moved
    }

    /// Writes the proxy's own frames, and ends the client's connection after the last.
    fn poll_outboxes(&mut self, cx: &mut Context<'_>) -> bool {
        let before = self.owed();
        if let Some(upstream) = &mut self.upstream {
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
            Poll::Ready(Ok(())) => self.upstream.as_ref().is_none_or(|upstream| {
                upstream.side.decided.is_empty() && upstream.epilogue.is_empty()
            }),
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

    /// Keeps one timer at the session's next deadline. A deadline that moves away is followed only
    /// when the timer fires: the hot path never touches it.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = self.session.poll_timeout() else {
            self.timer = None;
            return false;
        };
        let deadline = tokio::time::Instant::from_std(deadline);
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        while timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if deadline.into_std() <= now {
                self.timer = None;
                self.excuse_silence(now);
                self.session.handle_timeout(now);
                return true;
            }
            timer.as_mut().reset(deadline);
        }
        false
    }
}

impl Pump<'_> {
    /// Ends the connection of a client that has left while it was not read. The timer stays once
    /// it is there, until it fires: a transfer fills and empties its buffers all the time.
    fn poll_glance(&mut self, cx: &mut Context<'_>) {
        let is_read = self.client.inbox.has_room() && self.owed() <= OUTBOX;
        let wanted = self.end == End::Open && !self.client.eof && !is_read;
        if wanted && self.glance.is_none() {
            self.glance = Some(Box::pin(sleep(GLANCE)));
        }
        while let Some(glance) = &mut self.glance
            && glance.as_mut().poll(cx).is_ready()
        {
            if !wanted {
                self.glance = None;
                return;
            }
            if self.client.transport.is_hung_up() {
                self.end = End::Closed;
                return;
            }
            glance.as_mut().reset(tokio::time::Instant::now() + GLANCE);
        }
    }

    /// A side whose bytes wait because the other side takes none is not silent.
    fn excuse_silence(&mut self, now: Instant) {
        if !self.client.inbox.has_room() {
            self.session.handle_heard(Peer::Client, now);
        }
        if let Some(upstream) = &self.upstream
            && !upstream.side.inbox.has_room()
        {
            self.session.handle_heard(Peer::Upstream(upstream.id), now);
        }
    }
}

/// The upstream of this name, unless the session is done with it.
fn open(upstream: &mut Option<Upstream>, id: UpstreamId) -> Option<&mut Upstream> {
    upstream
        .as_mut()
        .filter(|upstream| upstream.id == id && !upstream.gone)
}

/// Offers the upstream's frames to the session. Returns whether anything was decided.
fn decide_upstream(upstream: &mut Upstream, session: &mut Session, now: Instant) -> bool {
    let Upstream { id, side, gone, .. } = upstream;
    let mut decided = false;
    loop {
        let (skip, claimed) = (side.decided.bytes(), side.decided.descriptors());
        let frame = match side.inbox.frame(skip, claimed, limits::FRAME_MAX) {
            Ok(Some(frame)) => frame,
            Ok(None) => return decided,
            Err(broken) => {
                let lost = Lost::Protocol(broken.to_string().into());
                session.handle_upstream_lost(*id, &lost, now);
                *gone = true;
                return true;
            }
        };
        let to = match session.handle_upstream(*id, &frame, now) {
            Verdict::Relay(to) => Some(to),
            Verdict::Consumed => None,
            Verdict::Hold => return decided,
        };
        side.decided.push(to, &frame);
        decided = true;
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
        if let Some(upstream) = &mut self.upstream {
            upstream.side.inbox.park();
        }
        Poll::Pending
    }
}
