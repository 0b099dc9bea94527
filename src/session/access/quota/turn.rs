//! The turns of one connection: waited for, had, and given back.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Claimed, Claims, Turn, TurnId};
use crate::protocol::fault::Fault;
use crate::session::Action;
use crate::session::access::task::{NoTask, Task};
use crate::session::access::{Access, Line};

impl Access {
    /// A task is to wait for its turn. One that it has is of other identities, and given back
    /// first.
    pub(in crate::session::access) fn await_turn(
        &mut self,
        mut task: Task,
        identities: Vec<Arc<str>>,
        line: &mut Line<'_>,
    ) {
        line.release(task.turn.take());
        let turn = TurnId(self.next_turn);
        self.next_turn = self.next_turn.wrapping_add(1);
        task.awaits = Some(turn);
        let upstream = line.upstream_for(task.header.program, task.header.procedure);
        let upstream = Arc::clone(upstream);
        self.tasks.add(task, &[]);
        line.out.actions.push_back(Action::Acquire {
            turn,
            upstream,
            identities,
        });
    }

    /// A turn has come, with what others claim.
    pub(in crate::session) fn acquired(
        &mut self,
        turn: TurnId,
        others: Vec<(Arc<str>, Claims)>,
        line: &mut Line<'_>,
    ) {
        match self.tasks.acquired(turn, others, line.out.now) {
            Ok(Some(task)) => self.resume(task, line),
            Ok(None) => {}
            Err(NoTask) => line.give_back(turn, true),
        }
    }

    /// The time of a call is over that waits for its turn, or to be counted.
    pub(in crate::session::access) fn refuse_late(&mut self, task: &Task, line: &mut Line<'_>) {
        let fault = match task.awaits {
            Some(_) => Fault::quota_busy(),
            None => Fault::undecided(),
        };
        line.answer(task.header, &fault);
        if let Some(turn) = task.turn_id() {
            line.give_back(turn, true);
        }
    }
}

impl Line<'_> {
    /// A call goes on: others count what it claims, and have their turn. Returns the turn that the
    /// reply ends.
    pub(in crate::session::access) fn claim(
        &mut self,
        turn: Option<Turn>,
        claimed: Claimed,
    ) -> Option<TurnId> {
        if claimed.is_empty() {
            self.release(turn);
            return None;
        }
        let turn = turn?.id;
        self.out.actions.push_back(Action::Claim { turn, claimed });
        Some(turn)
    }

    /// A call does not go on.
    pub(in crate::session::access) fn release(&mut self, turn: Option<Turn>) {
        if let Some(turn) = turn {
            self.give_back(turn.id, true);
        }
    }

    pub(in crate::session::access) fn give_back(&mut self, turn: TurnId, is_known: bool) {
        give_back(turn, is_known, self.out.actions);
    }
}

/// The call of this turn is over. `is_known` says that what it has made can be seen by now, or that
/// it has made nothing.
pub(in crate::session::access) fn give_back(
    turn: TurnId,
    is_known: bool,
    actions: &mut VecDeque<Action>,
) {
    actions.push_back(Action::Release { turn, is_known });
}
