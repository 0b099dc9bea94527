//! The pump's part in quotas: turns are waited for, and given back when the session or the
//! connection is done with them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use super::{Pump, Shared};
use crate::policy::model::Address;
use crate::server::quotas::{Claimed, Turn};
use crate::session::Action;
use crate::session::access::quota::{Claims, TurnId};

/// What other calls claim, by identity.
type Others = Vec<(Arc<str>, Claims)>;

/// A turn that is waited for.
type Coming<'a> = Pin<Box<dyn Future<Output = Turn> + 'a>>;

/// The turns of one connection, each of one call that counts.
#[derive(Default)]
pub(super) struct Turns<'a>(Vec<(TurnId, Stage<'a>)>);

/// How far a turn has come.
enum Stage<'a> {
    Awaited(Coming<'a>),
    Had(Turn),
    /// It is over, and what the call claims is counted until the call is.
    Claimed(Vec<Claimed>),
}

impl<'a> Turns<'a> {
    fn acquire(
        &mut self,
        turn: TurnId,
        identities: Vec<Arc<str>>,
        daemon: Address,
        shared: &'a Shared,
    ) {
        let coming = Box::pin(shared.quotas.acquire(daemon, identities));
        self.0.push((turn, Stage::Awaited(coming)));
    }

    /// Takes a turn out.
    fn take(&mut self, turn: TurnId) -> Option<Stage<'a>> {
        let place = self.0.iter().position(|(its, _)| *its == turn)?;
        let (_, stage) = self.0.swap_remove(place);
        Some(stage)
    }

    fn claim(&mut self, turn: TurnId, claimed: Others) {
        let stage = match self.take(turn) {
            Some(Stage::Had(had)) => Stage::Claimed(had.claim(claimed)),
            Some(other) => other,
            None => return,
        };
        self.0.push((turn, stage));
    }

    fn release(&mut self, turn: TurnId, is_known: bool) {
        if let Some(Stage::Claimed(claimed)) = self.take(turn)
            && is_known
        {
            claimed.into_iter().for_each(Claimed::known);
        }
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A turn that has come.
    fn poll(&mut self, cx: &mut Context<'_>) -> Option<(TurnId, Others)> {
        self.0.iter_mut().find_map(|(id, stage)| {
            let Stage::Awaited(coming) = stage else {
                return None;
            };
            let Poll::Ready(turn) = coming.as_mut().poll(cx) else {
                return None;
            };
            let others = turn.others();
            *stage = Stage::Had(turn);
            Some((*id, others))
        })
    }
}

impl Pump<'_> {
    /// Does what the session asks for of turns.
    pub(super) fn move_turn(&mut self, action: Action) {
        let turns = self.turns.get_or_insert_default();
        match action {
            Action::Acquire {
                turn,
                upstream,
                identities,
            } => {
                if let Some(daemon) = upstream.addresses.first() {
                    turns.acquire(turn, identities, daemon.clone(), self.shared);
                }
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
