//! The bound on connections that are on their way through handshake and authentication.
//!
//! A new one is always let in; where that is one too many, one of those who have most is pushed out,
//! the one that has waited longest. Whoever opens connections in heaps and says nothing thus pushes
//! out his own, and neither those who get on with it nor a user who is looking for his password; a
//! bound that shut the door would shut it to them.

use core::net::{IpAddr, Ipv6Addr};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// Who opens a connection, as far as is known before anything is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Origin {
    /// A user of this host.
    User(u32),
    /// An address, or of IPv6 the network that a single host has for itself.
    Network(IpAddr),
    /// It has gone already.
    Gone,
}

impl From<IpAddr> for Origin {
    fn from(address: IpAddr) -> Self {
        Self::Network(match address.to_canonical() {
            IpAddr::V6(address) => {
                let bits = address.to_bits() >> 64 << 64;
                Ipv6Addr::from_bits(bits).into()
            }
            four => four,
        })
    }
}

/// The connections of one kind that have not proven anything yet.
#[derive(Debug, Clone)]
pub(crate) struct Unauthenticated(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    max: usize,
    next: u64,
    /// By the order in which they came.
    waiting: BTreeMap<u64, (Origin, Arc<Notify>)>,
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

    /// Counts one more, in the place of another if there are too many.
    pub(crate) fn enter(&self, origin: Origin) -> Waiting {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        let pushed_out = Arc::new(Notify::new());
        state
            .waiting
            .insert(number, (origin, Arc::clone(&pushed_out)));
        while state.waiting.len() > state.max.max(1)
            && let Some(loser) = state.oldest_of_most()
            && let Some((_, loser)) = state.waiting.remove(&loser)
        {
            loser.notify_one();
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

impl State {
    /// The oldest one of the origin that has most; among equals of the one that came first.
    fn oldest_of_most(&self) -> Option<u64> {
        // By origin, the oldest and how many.
        let mut counts: HashMap<Origin, (u64, usize)> = HashMap::new();
        for (number, (origin, _)) in &self.waiting {
            counts.entry(*origin).or_insert((*number, 0)).1 += 1;
        }
        let most = counts
            .into_values()
            .max_by_key(|(oldest, count)| (*count, core::cmp::Reverse(*oldest)));
        most.map(|(oldest, _)| oldest)
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
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed unwrap is the failed test"
)]
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
        let enter = || all.enter(Origin::User(1));
        let (one, two) = (enter(), enter());
        assert!(!is_out(&one));
        let three = enter();
        assert!(is_out(&one) && !is_out(&two) && !is_out(&three));
        drop(one);
        // Whoever has proven himself is no longer in the way.
        drop(three);
        let four = enter();
        assert!(!is_out(&two) && !is_out(&four));
    }

    #[test]
    fn who_opens_heaps_pushes_out_his_own() {
        let all = Unauthenticated::new(4);
        let patient: Vec<_> = (1..=2).map(|uid| all.enter(Origin::User(uid))).collect();
        let heap: Vec<_> = (0..50).map(|_| all.enter(Origin::User(3))).collect();
        assert!(!patient.iter().any(is_out));
        assert!(heap.iter().take(48).all(is_out) && !heap.iter().skip(48).any(is_out));
        // Among equals the oldest goes.
        let fresh: Vec<_> = (4..=6).map(|uid| all.enter(Origin::User(uid))).collect();
        assert!(is_out(&heap[48]) && is_out(&patient[0]) && is_out(&patient[1]));
        assert!(!is_out(&heap[49]) && !fresh.iter().any(is_out));
    }

    #[test]
    fn a_host_has_one_origin_however_many_addresses_it_takes() {
        let origin = |text: &str| Origin::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(origin("2001:db8::1"), origin("2001:db8::ffff:0:0:2"));
        assert_ne!(origin("2001:db8::1"), origin("2001:db8:0:1::1"));
        assert_eq!(origin("::ffff:192.0.2.1"), origin("192.0.2.1"));
        assert_ne!(origin("192.0.2.1"), origin("192.0.2.2"));
    }

    #[test]
    fn a_lower_bound_holds_from_the_next_on() {
        let all = Unauthenticated::new(3);
        let enter = || all.enter(Origin::Gone);
        let old = [enter(), enter(), enter()];
        all.set_max(1);
        assert!(!old.iter().any(is_out));
        let new = enter();
        assert!(old.iter().all(is_out) && !is_out(&new));
        assert_eq!(all.state().waiting.len(), 1);
    }
}
