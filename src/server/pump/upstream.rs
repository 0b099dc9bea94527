//! The pump's way from the upstream to the client, and how an upstream comes and goes.

use std::task::{Context, Poll};
use std::time::Instant;

use super::{End, OUTBOX, Pump, Shared};
use crate::protocol::limits;
use crate::server::dial::Dialled;
use crate::server::side::Side;
use crate::session::{Lost, Peer, Session, UpstreamId, Verdict};

/// A dialled daemon.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) id: UpstreamId,
    pub(super) side: Side,
    /// The session is done with it; only what it was let to say before is still passed on.
    pub(super) gone: bool,
    /// Nothing can be written to it.
    pub(super) deaf: bool,
    /// Frames of the proxy's own that come after what it said.
    pub(super) epilogue: Vec<u8>,
}

impl Pump<'_> {
    pub(super) fn poll_dial(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let Some(dial) = &mut self.dial else {
            return false;
        };
        let Poll::Ready(outcome) = dial.poll(cx) else {
            return false;
        };
        let id = dial.id;
        self.dial = None;
        match outcome {
            Ok(Dialled {
                transport,
                standing,
            }) => {
                standing.opened();
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
                let lost = Lost::Unreachable(error);
                self.session.handle_upstream_lost(id, &lost, now);
            }
        }
        true
    }

    pub(super) fn move_from_upstream(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
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
            if self.turn == 0 {
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
                self.perform_actions();
                continue;
            }
            let side = &mut upstream.side;
            let owed = side.outbox.len().max(self.client.outbox.len());
            if !side.eof && owed <= OUTBOX && side.inbox.has_room() {
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
}

/// The upstream of this name, unless the session is done with it.
pub(super) fn open(upstream: &mut Option<Upstream>, id: UpstreamId) -> Option<&mut Upstream> {
    upstream
        .as_mut()
        .filter(|upstream| upstream.id == id && !upstream.gone)
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
    }
    decided
}
