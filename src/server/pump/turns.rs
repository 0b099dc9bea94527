//! The pump's part in quotas: turns are waited for, and given back when the session or the
//! connection is done with them.

use std::collections::HashMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use super::{Pump, Shared};
use crate::server::quotas::{Claimed, Turn};
use crate::session::Action;
use crate::session::access::quota::{Claims, TurnId};

/// What other calls claim, by identity.
type Others = Vec<(Arc<str>, Claims)>;

/// A turn that is waited for.
type Coming<'a> = Pin<Box<dyn Future<Output = Turn> + 'a>>;

/// The turns of one connection, in each of its calls that count.
#[derive(Default)]
pub(super) struct Turns<'a> {
    waiting: Vec<(TurnId, Coming<'a>)>,
    had: HashMap<TurnId, Turn>,
    claimed: HashMap<TurnId, Vec<Claimed>>,
}

impl<'a> Turns<'a> {
    fn acquire(
        &mut self,
        turn: TurnId,
        identities: Vec<Arc<str>>,
        daemon: PathBuf,
        shared: &'a Shared,
    ) {
        let acquired = Box::pin(shared.quotas.acquire(daemon, identities));
        self.waiting.push((turn, acquired));
    }

    fn claim(&mut self, turn: TurnId, claimed: Others) {
        if let Some(had) = self.had.remove(&turn) {
            self.claimed.insert(turn, had.claim(claimed));
        }
    }

    fn release(&mut self, turn: TurnId, is_known: bool) {
        self.waiting.retain(|(waiting, _)| *waiting != turn);
        self.had.remove(&turn);
        let claimed = self.claimed.remove(&turn).unwrap_or_default();
        if is_known {
            claimed.into_iter().for_each(Claimed::known);
        }
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.had.is_empty() && self.claimed.is_empty()
    }

    /// A turn that has come.
    fn poll(&mut self, cx: &mut Context<'_>) -> Option<(TurnId, Others)> {
        let come = self
            .waiting
            .iter_mut()
            .enumerate()
            .find_map(|(place, (_, turn))| match turn.as_mut().poll(cx) {
                Poll::Ready(turn) => Some((place, turn)),
                Poll::Pending => None,
            });
        let (place, turn) = come?;
        let (id, _) = self.waiting.swap_remove(place);
        let others = turn.others();
        self.had.insert(id, turn);
        Some((id, others))
    }
}

impl Pump<'_> {
    /// Does what the session asks for of turns.
    pub(super) fn move_turn(&mut self, action: Action) {
        let turns = self.turns.get_or_insert_default();
        match action {
            Action::Acquire { turn, identities } => {
                // There is one: what is counted is on it.
                let daemon = self.daemon.as_ref().map(|daemon| daemon.unix.clone());
                turns.acquire(turn, identities, daemon.unwrap_or_default(), self.shared);
            }
            Action::Claim { turn, claimed } => turns.claim(turn, claimed),
            Action::Release { turn, is_known } => turns.release(turn, is_known),
            _ => {}
        }
        if turns.is_empty() {
            self.turns = None;
        }
    }

    /// Tells the session of a turn that has come.
    pub(super) fn poll_turns(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let Some(turns) = &mut self.turns else {
            return false;
        };
        let Some((turn, others)) = turns.poll(cx) else {
            return false;
        };
        let generation = self.shared.policy.peek();
        self.session
            .handle_acquired(turn, others, &**generation, now);
        true
    }
}
