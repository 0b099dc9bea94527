//! The pump's part in finding out who the client is: the session's questions go out, the answers
//! come back, and a security layer that was agreed on is put in place.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::sync::futures::OwnedNotified;

use super::{End, Pump};
use crate::server::auth::authenticator::{Answer, Authenticator};
use crate::server::auth::unauthenticated::Waiting;
use crate::session::Action;

/// A client that has not proven who it is.
#[derive(Debug)]
pub(crate) struct Unproven {
    authenticator: Authenticator,
    /// Its place among those; given back with the proof.
    place: Option<(Waiting, Pin<Box<OwnedNotified>>)>,
    /// A layer is to be put over the connection once what is owed has been written.
    securing: bool,
}

impl Unproven {
    pub(crate) fn new(authenticator: Authenticator, waiting: Waiting) -> Self {
        let pushed_out = Box::pin(waiting.pushed_out());
        Self {
            authenticator,
            place: Some((waiting, pushed_out)),
            securing: false,
        }
    }
}

/// Proofs that were refused since the start.
static REFUSED: AtomicU64 = AtomicU64::new(0);

impl Pump<'_> {
    /// Does what the session asks for on its way to a proof.
    pub(super) fn prove(&mut self, action: Action) {
        let Some(unproven) = &mut self.unproven else {
            return;
        };
        let facts = self.session.facts();
        match action {
            Action::Polkit => unproven.authenticator.ask_polkit(facts),
            Action::Sasl(input) => unproven.authenticator.move_exchange(input, facts),
            Action::Secure => unproven.securing = true,
            Action::AuthenticationFailed(why) => {
                let total = REFUSED.fetch_add(1, Ordering::Relaxed) + 1;
                let listener = &*facts.listener;
                tracing::warn!(listener, why, total, client = %facts, "authentication failed");
            }
            Action::Authenticated if unproven.securing => unproven.place = None,
            Action::Authenticated => self.unproven = None,
            _ => {}
        }
    }

    /// Takes the answer to a question, or the client's place if it is wanted by another.
    pub(super) fn poll_proof(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let Some(unproven) = &mut self.unproven else {
            return false;
        };
        if let Some((_, pushed_out)) = &mut unproven.place
            && pushed_out.as_mut().poll(cx).is_ready()
        {
            let facts = self.session.facts();
            let listener = &*facts.listener;
            tracing::info!(listener, client = %facts, "client closed: too many are not authenticated");
            self.end = End::Closed;
            return true;
        }
        match unproven.authenticator.poll(cx) {
            Poll::Ready(Answer::Polkit(decision)) => self.session.handle_polkit(decision, now),
            Poll::Ready(Answer::Sasl(progress)) => self.session.handle_sasl(progress, now),
            Poll::Pending => return false,
        }
        true
    }

    /// Whether the client's bytes wait for a security layer.
    pub(super) fn is_securing(&self) -> bool {
        self.unproven
            .as_ref()
            .is_some_and(|unproven| unproven.securing)
    }

    /// Puts the security layer in place: all that is outside of it has been written.
    pub(super) fn secure(&mut self) {
        let layer = self
            .unproven
            .take()
            .and_then(|mut unproven| unproven.authenticator.take_layer());
        match layer {
            Some(layer) => {
                let client = &mut self.client;
                let received = client.inbox.take_behind(client.decided.bytes());
                client.transport.secure(layer, received);
            }
            // Without the layer that was promised nothing may pass.
            None => self.end = End::Closed,
        }
    }
}
