//! The policy in force: one pointer load to read it, one swap to replace it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Guard};

use super::model::Policy;

/// A policy with its number.
#[derive(Debug)]
pub struct Generation {
    /// Counts from 1 and up by one with every swap.
    pub number: u64,
    /// The file that it was read from, as named to [`load`](super::load).
    pub file: String,
    /// The policy itself.
    pub policy: Policy,
}

/// Holds the policy in force.
#[derive(Debug)]
pub struct Store {
    current: ArcSwap<Generation>,
    /// That of `current`, written after it: who sees a number here gets that generation or a
    /// later one from `current`.
    number: AtomicU64,
    /// Held by a swap, so that numbers and policies are published in one order.
    swapping: Mutex<()>,
}

impl Store {
    /// Puts the first policy in force, as generation 1.
    #[must_use]
    pub fn new(file: impl Into<String>, policy: Policy) -> Self {
        let first = Generation {
            number: 1,
            file: file.into(),
            policy,
        };
        Self {
            current: ArcSwap::from_pointee(first),
            number: AtomicU64::new(1),
            swapping: Mutex::new(()),
        }
    }

    /// The policy in force, to keep.
    #[must_use]
    pub fn load(&self) -> Arc<Generation> {
        self.current.load_full()
    }

    /// The policy in force, for a decision that is over soon; cheaper than [`load`](Self::load).
    #[must_use]
    pub fn peek(&self) -> Guard<Arc<Generation>> {
        self.current.load()
    }

    /// Replaces the policy in force and returns the new generation's number.
    pub fn swap(&self, file: impl Into<String>, policy: Policy) -> u64 {
        let _swapping = self.swapping.lock().unwrap_or_else(PoisonError::into_inner);
        let number = self.number.load(Ordering::Relaxed) + 1;
        self.current.store(Arc::new(Generation {
            number,
            file: file.into(),
            policy,
        }));
        self.number.store(number, Ordering::Release);
        number
    }

    /// Number of the generation in force: one atomic load, to ask whether it moved.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }
}
