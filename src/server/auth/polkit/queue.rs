//! How many questions there may be at once, of each user and in all.
//!
//! A user's scripts may start dozens of clients together, which should wait for one another and
//! not fail; but nobody may take all of polkit, nor hold more than a bounded number of places.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::Refused;

/// Questions put to polkit at once. The system bus allows a connection 128 unanswered calls, and
/// each question may need a second one to take it back.
const MAX_ASKED: usize = 64;
/// Questions put to polkit at once for one user: one who leaves agents unanswered must not hold up
/// the others. A user's agent shows one at a time anyway.
const MAX_ASKED_FOR_USER: usize = 8;
/// Questions of one user, waiting ones included.
const MAX_OF_USER: usize = 64;
/// Questions of all users, waiting ones included.
const MAX: usize = 1024;

/// The places of all questions.
#[derive(Debug)]
pub(super) struct Queue {
    asked: Semaphore,
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    taken: usize,
    users: HashMap<u32, User>,
}

#[derive(Debug)]
struct User {
    taken: usize,
    asked: Arc<Semaphore>,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            asked: Semaphore::new(MAX_ASKED),
            places: Mutex::default(),
        }
    }
}

impl Queue {
    /// Takes a place for a question about a client of this user.
    pub(super) fn join(self: &Arc<Self>, uid: u32) -> Result<Place, Refused> {
        let mut places = self.places();
        if places.taken >= MAX {
            return Err(Refused::TooMany);
        }
        let user = places.users.entry(uid).or_insert_with(|| User {
            taken: 0,
            asked: Arc::new(Semaphore::new(MAX_ASKED_FOR_USER)),
        });
        if user.taken >= MAX_OF_USER {
            return Err(Refused::TooMany);
        }
        user.taken += 1;
        let user_asked = Arc::clone(&user.asked);
        places.taken += 1;
        drop(places);
        Ok(Place {
            queue: Arc::clone(self),
            uid,
            user_asked,
        })
    }

    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        self.places().taken
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One question's place, free again when dropped.
#[derive(Debug)]
pub(super) struct Place {
    queue: Arc<Queue>,
    uid: u32,
    user_asked: Arc<Semaphore>,
}

/// The right to put a question to polkit.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    _of_user: Option<SemaphorePermit<'a>>,
    _of_all: Option<SemaphorePermit<'a>>,
}

impl Place {
    /// Waits for its turn, first among the user's own questions, then among all.
    pub(super) async fn turn(&self) -> Turn<'_> {
        // Neither semaphore is ever closed, which is the only error.
        Turn {
            _of_user: self.user_asked.acquire().await.ok(),
            _of_all: self.queue.asked.acquire().await.ok(),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.queue.places();
        places.taken -= 1;
        if let Entry::Occupied(mut user) = places.users.entry(self.uid) {
            user.get_mut().taken -= 1;
            if user.get().taken == 0 {
                user.remove();
            }
        }
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a failed set-up step should stop the test"
)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    fn now<T>(future: impl Future<Output = T>) -> Option<T> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_user_and_all_users_have_a_bounded_number_of_places() {
        let queue = Arc::<Queue>::default();
        let mut places: Vec<_> = (0..MAX_OF_USER).map(|_| queue.join(1).unwrap()).collect();
        assert_eq!(queue.join(1).unwrap_err(), Refused::TooMany);
        places.extend((MAX_OF_USER..MAX).map(|n| queue.join(u32::try_from(n).unwrap()).unwrap()));
        assert_eq!(queue.join(0).unwrap_err(), Refused::TooMany);
        places.pop();
        assert!(queue.join(0).is_ok());
        drop(places);
        assert!(queue.places().users.is_empty());
        assert_eq!(queue.places().taken, 0);
    }

    #[test]
    fn a_user_who_asks_a_lot_waits_for_himself_and_not_others_for_him() {
        let queue = Arc::<Queue>::default();
        let places: Vec<_> = (0..MAX_OF_USER).map(|_| queue.join(1).unwrap()).collect();
        let turns: Vec<_> = places.iter().map_while(|place| now(place.turn())).collect();
        assert_eq!(turns.len(), MAX_ASKED_FOR_USER);
        let other = queue.join(2).unwrap();
        assert!(now(other.turn()).is_some());
        drop(turns);
        assert!(
            places
                .last()
                .is_some_and(|place| now(place.turn()).is_some())
        );
    }

    #[test]
    fn polkit_is_asked_a_bounded_number_of_questions_at_once() {
        let queue = Arc::<Queue>::default();
        let places: Vec<_> = (0..100).map(|uid| queue.join(uid).unwrap()).collect();
        let turns: Vec<_> = places.iter().map_while(|place| now(place.turn())).collect();
        assert_eq!(turns.len(), MAX_ASKED);
    }
}
