//! The pump's timers: the session's next deadline, and the glance at a client that is not read.

use std::future::Future;
use std::task::Context;
use std::time::{Duration, Instant};

use tokio::time::{sleep, sleep_until};

use super::{End, OUTBOX, Pump};
use crate::session::Peer;

/// How often a client that is not read is looked at for whether it has left, which is otherwise
/// seen by reading.
const GLANCE: Duration = Duration::from_secs(1);

impl Pump<'_> {
    /// Keeps one timer at the session's next deadline. A deadline that moves away is followed only
    /// when the timer fires: the hot path never touches it.
    pub(super) fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
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

    /// Ends the connection of a client that has left while it was not read. The timer stays once
    /// it is there, until it fires: a transfer fills and empties its buffers all the time.
    pub(super) fn poll_glance(&mut self, cx: &mut Context<'_>) {
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
        let owed_to_client = self.owed_to_client();
        // A daemon that takes nothing keeps the client from being read.
        let is_kept_waiting = self.owed() - owed_to_client > OUTBOX;
        if is_kept_waiting || !self.client.inbox.has_room() {
            self.session.handle_heard(Peer::Client, now);
        }
        for upstream in &self.upstreams {
            if !upstream.is_read(owed_to_client) {
                self.session.handle_heard(Peer::Upstream(upstream.id), now);
            }
        }
    }
}
