//! The pump's way from the upstreams to the client, and how an upstream goes.

use std::task::{Context, Poll};
use std::time::Instant;

use super::{End, OUTBOX, Pump, Shared};
use crate::protocol::limits;
use crate::server::dial::UpstreamSasl;
use crate::server::health::Standing;
use crate::server::side::Side;
use crate::session::{Lost, Peer, Session, UpstreamId, Verdict};

/// A dialled daemon.
pub(super) struct Upstream {
    pub(super) id: UpstreamId,
    pub(super) side: Side,
    /// The session is done with it; only what it was let to say before is still passed on.
    pub(super) gone: bool,
    /// Nothing can be written to it.
    pub(super) deaf: bool,
    /// It is open for the client.
    pub(super) is_open: bool,
    /// Which daemon it is, and how that stands with all clients.
    pub(super) standing: Standing,
    /// The SASL exchange with it, until it is open.
    pub(super) sasl: Option<Box<UpstreamSasl>>,
}

impl Upstream {
    /// Whether more of what it says can be taken, while the client is owed so many bytes. Nothing
    /// that it says before it is open is for the client, who must not make it look slow to all
    /// others by reading nothing.
    pub(super) fn is_read(&self, owed_to_client: usize) -> bool {
        let Side { inbox, outbox, .. } = &self.side;
        let is_behind = self.is_open && owed_to_client > OUTBOX;
        inbox.has_room() && outbox.len() <= OUTBOX && !is_behind
    }
}

impl Pump<'_> {
    pub(super) fn move_from_upstreams(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut moved = false;
        for place in 0..self.upstreams.len() {
            moved |= self.move_from_upstream(place, cx, now);
            if self.end == End::Closed {
                return true;
            }
        }
        moved | self.retire_upstreams()
    }

    fn move_from_upstream(&mut self, place: usize, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut moved = false;
        loop {
            moved |= self.write_to_client(place, cx);
            let Some(upstream) = self.upstreams.get_mut(place) else {
                return moved;
            };
            if upstream.gone || self.turn == 0 || self.end == End::Closed {
                return moved;
            }
            if decide_upstream(
                upstream,
                &mut self.session,
                self.shared,
                &mut self.turn,
                now,
            ) {
                moved = true;
                self.hearing = Some(upstream.id);
                self.perform_actions();
                self.hearing = None;
                continue;
            }
            let owed_to_client = self.owed_to_client();
            let Some(upstream) = self.upstreams.get_mut(place) else {
                return moved;
            };
            let is_read = upstream.is_read(owed_to_client);
            let side = &mut upstream.side;
            if !side.eof && is_read {
                if side.poll_receive(cx).is_ready() {
                    self.session.handle_heard(Peer::Upstream(upstream.id), now);
                    moved = true;
                    continue;
                }
                side.eof = upstream.deaf;
            }
            if side.eof {
                let id = upstream.id;
                let lost = match side.transport.last_words() {
                    Some(words) => {
                        // The dial could not know: it has but started a program.
                        upstream.standing.unwell(words);
                        Lost::Unreachable(words.to_owned())
                    }
                    None => Lost::Closed,
                };
                self.session.handle_upstream_lost(id, &lost, now);
                upstream.gone = true;
                moved = true;
            }
            return moved;
        }
    }

    /// Drops the upstreams that are gone once what they said has been passed on; then comes what
    /// follows that.
    fn retire_upstreams(&mut self) -> bool {
        if !self.has_gone() {
            return false;
        }
        let before = self.upstreams.len();
        self.upstreams
            .retain(|upstream| !upstream.gone || !upstream.side.decided.is_empty());
        if !self.has_gone() {
            let epilogue = std::mem::take(&mut self.epilogue);
            self.client.outbox.push(&epilogue);
        }
        self.upstreams.len() < before
    }

    /// What some upstream said that is gone is still to be passed on.
    pub(super) fn has_gone(&self) -> bool {
        self.upstreams.iter().any(|upstream| upstream.gone)
    }

    /// Writes what was decided about an upstream's frames, unless the client has a part of another
    /// one's, or waits for what one said that is gone, and what follows that.
    fn write_to_client(&mut self, place: usize, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        let has_run = |upstream: &Upstream| !upstream.side.decided.is_empty();
        if !self.upstreams.get(place).is_some_and(has_run) {
            return false;
        }
        let is_behind = self.has_gone();
        let Some(upstream) = self.upstreams.get_mut(place) else {
            return false;
        };
        while let Some(run) = upstream.side.decided.first() {
            let is_first = match self.writing {
                Some(id) => id == upstream.id,
                None => upstream.gone || !is_behind,
            };
            if !is_first && run.is_told() {
                return moved;
            }
            match run.to {
                Some(Peer::Client) => {
                    let written = upstream.side.poll_first_run(&mut self.client, cx);
                    self.writing = self.client.outbox.mid_frame.then_some(upstream.id);
                    match written {
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(_)) => {
                            self.end = End::Closed;
                            return true;
                        }
                        Poll::Pending => return moved,
                    }
                }
                Some(Peer::Upstream(_)) | None => {
                    let behind = upstream.side.drop_first_run();
                    self.client.outbox.push(&behind);
                }
            }
            moved = true;
        }
        moved
    }
}

/// The upstream of this name, unless the session is done with it.
pub(super) fn open(upstreams: &mut [Upstream], id: UpstreamId) -> Option<&mut Upstream> {
    upstreams
        .iter_mut()
        .find(|upstream| upstream.id == id && !upstream.gone)
}

/// Offers the upstream's frames to the session. Returns whether anything was decided.
fn decide_upstream(
    upstream: &mut Upstream,
    session: &mut Session,
    shared: &Shared,
    turn: &mut usize,
    now: Instant,
) -> bool {
    let Upstream { id, side, gone, .. } = upstream;
    let mut decided = false;
    let generation = shared.policy.peek();
    while *turn > 0 {
        *turn -= 1;
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
        let to = match session.handle_upstream(*id, &frame, &**generation, now) {
            Verdict::Relay(to) => Some(to),
            Verdict::Consumed => None,
            Verdict::Hold => return decided,
        };
        side.decided.push(to, &frame);
        decided = true;
        // What it has made the session say comes right behind it.
        if session.has_actions() {
            return true;
        }
    }
    decided
}
