//! Waiting for conditions, never for a time.

use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up on it. Generous, as it is only reached by a
/// failing test: a loaded machine must not fail a good one.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(10);

/// Returns what `condition` found as soon as it finds something, or `None` at the [`DEADLINE`].
pub(crate) fn poll<T>(mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = condition() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(INTERVAL);
    }
}

/// Waits until `condition` holds.
///
/// # Panics
/// At the [`DEADLINE`], naming `what` was waited for.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let held = poll(|| condition().then_some(())).is_some();
    assert!(held, "waited {DEADLINE:?} in vain until {what}");
}
