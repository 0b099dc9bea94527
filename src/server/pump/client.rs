//! The pump's way from the client to the upstreams.

use std::task::{Context, Poll};
use std::time::Instant;

use super::upstream::{Upstream, open};
use super::{End, OUTBOX, Pump};
use crate::session::{Peer, Verdict};

impl Pump<'_> {
    pub(super) fn move_from_client(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut moved = false;
        while self.end == End::Open && self.turn > 0 {
            moved |= self.write_to_upstream(cx);
            moved |= self.perform_actions();
            if self.owed() > OUTBOX || self.is_securing() || self.is_deafened() {
                return moved;
            }
            // A frame on hold may have made the session ask for something.
            if self.decide_client(now) | self.perform_actions() {
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

    /// A daemon is not listened to because the client takes nothing, and the client's calls are
    /// decided on by what the daemons say. Whoever does not read must not keep by that what the
    /// daemon has told is over.
    fn is_deafened(&self) -> bool {
        let unread = |upstream: &Upstream| !upstream.gone && !upstream.side.inbox.has_room();
        self.session.must_hear_first() && self.upstreams.iter().any(unread)
    }

    /// Bytes of the proxy's own frames that the client's frames made and that are still here.
    pub(super) fn owed(&self) -> usize {
        let outboxes = self.upstreams.iter().map(|up| up.side.outbox.len());
        self.owed_to_client() + outboxes.sum::<usize>()
    }

    /// Those of them that are for the client.
    pub(super) fn owed_to_client(&self) -> usize {
        let behind = self.upstreams.iter().map(|up| up.side.decided.behind());
        self.client.outbox.len() + self.epilogue.len() + behind.sum::<usize>()
    }

    /// Offers the client's frames to the session, up to one that the session answers itself: what
    /// is owed counts before the next. Returns whether anything was decided.
    fn decide_client(&mut self, now: Instant) -> bool {
        let (mut decided, client) = (false, &mut self.client);
        self.held = false;
        if client.inbox.holds_just(&client.decided) {
            return false;
        }
        let generation = self.shared.policy.peek();
        while self.turn > 0 {
            self.turn -= 1;
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
            let to = match self.session.handle_client(&frame, &**generation, now) {
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
        decided
    }

    /// Writes what was decided about the client's frames.
    fn write_to_upstream(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while let Some(run) = self.client.decided.first() {
            let to = match run.to {
                Some(Peer::Upstream(id)) => open(&mut self.upstreams, id),
                Some(Peer::Client) | None => None,
            };
            match to.filter(|upstream| !upstream.deaf) {
                // The daemon is gone; the session answers, or has answered, the calls.
                None => _ = self.client.drop_first_run(),
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
}
