//! The bound on connections that are on their way through handshake and authentication.
//!
//! A new one is always let in; where that is one too many, the one that has waited longest is
//! pushed out. Whoever opens connections in heaps and says nothing thus pushes out his own, and
//! those who get on with it pass; a bound that shut the door would shut it to them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// The connections of one kind that have not proven anything yet.
#[derive(Debug, Clone)]
pub(crate) struct Unauthenticated(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    max: usize,
    next: u64,
    /// By the order in which they came.
    waiting: BTreeMap<u64, Arc<Notify>>,
}

/// One of them; it is counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Waiting {
    number: u64,
    pushed_out: Arc<Notify>,
    all: Unauthenticated,
}

impl Unauthenticated {
    /// None yet, `max` at the most.
    pub(crate) fn new(max: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            max,
            next: 0,
            waiting: BTreeMap::new(),
        })))
    }

    /// Changes the bound; it holds from the next that comes.
    pub(crate) fn set_max(&self, max: usize) {
        self.state().max = max;
    }

    /// Counts one more, in the place of the oldest if there are too many.
    pub(crate) fn enter(&self) -> Waiting {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        let pushed_out = Arc::new(Notify::new());
        state.waiting.insert(number, Arc::clone(&pushed_out));
        while state.waiting.len() > state.max.max(1)
            && let Some((_, oldest)) = state.waiting.pop_first()
        {
            oldest.notify_one();
        }
        drop(state);
        Waiting {
            number,
            pushed_out,
            all: self.clone(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Waits until it is pushed out. Cancel-safe, to be waited for in one place at a time.
    pub(crate) fn pushed_out(&self) -> OwnedNotified {
        Arc::clone(&self.pushed_out).notified_owned()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.all.state().waiting.remove(&self.number);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is the failed test")]
mod tests {
    use super::*;
    use std::future::Future;
    use std::task::{Context, Waker};

    fn is_out(waiting: &Waiting) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        std::pin::pin!(waiting.pushed_out())
            .poll(&mut context)
            .is_ready()
    }

    #[test]
    fn the_oldest_makes_room() {
        let all = Unauthenticated::new(2);
        let (one, two) = (all.enter(), all.enter());
        assert!(!is_out(&one));
        let three = all.enter();
        assert!(is_out(&one) && !is_out(&two) && !is_out(&three));
        drop(one);
        // Whoever has proven himself is no longer in the way.
        drop(three);
        let four = all.enter();
        assert!(!is_out(&two) && !is_out(&four));
    }

    #[test]
    fn a_lower_bound_holds_from_the_next_on() {
        let all = Unauthenticated::new(3);
        let old = [all.enter(), all.enter(), all.enter()];
        all.set_max(1);
        assert!(!old.iter().any(is_out));
        let new = all.enter();
        assert!(old.iter().all(is_out) && !is_out(&new));
        assert_eq!(all.state().waiting.len(), 1);
    }
}
