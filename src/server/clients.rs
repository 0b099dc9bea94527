//! The exact number of connected clients, its limit, and the waits on both.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// Counts the connected clients. Cheap to clone; all clones count together.
///
/// Only the main thread adds (it asks [`has_room`](Self::has_room) right before it accepts, with
/// no await in between), so the limit is never passed; any thread may take away.
#[derive(Debug, Clone)]
pub(crate) struct Clients {
    state: Arc<watch::Sender<State>>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    live: usize,
    max: usize,
}

/// One connected client; it leaves the count when this is dropped.
#[derive(Debug)]
pub(crate) struct ClientGuard {
    state: Arc<watch::Sender<State>>,
}

impl Clients {
    /// No client yet, `max` at the most.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            state: Arc::new(watch::Sender::new(State { live: 0, max })),
        }
    }

    /// Changes the limit. Clients above a lower one stay; no more come until there is room.
    pub(crate) fn set_max(&self, max: usize) {
        self.state.send_modify(|state| state.max = max);
    }

    /// Clients connected now.
    pub(crate) fn live(&self) -> usize {
        self.state.borrow().live
    }

    /// Whether one more client may come.
    pub(crate) fn has_room(&self) -> bool {
        let state = self.state.borrow();
        state.live < state.max
    }

    /// Counts one client until the guard is dropped.
    pub(crate) fn enter(&self) -> ClientGuard {
        self.state.send_modify(|state| state.live += 1);
        ClientGuard {
            state: Arc::clone(&self.state),
        }
    }

    /// Waits until one more client may come.
    pub(crate) async fn room(&self) {
        self.wait(|state| state.live < state.max).await;
    }

    /// Waits until no client is connected.
    pub(crate) async fn none(&self) {
        self.wait(|state| state.live == 0).await;
    }

    /// Waits until no client has been connected for `period`. The period starts anew with each
    /// client that leaves (and when the limit is changed, which is a sign of use too).
    pub(crate) async fn idle(&self, period: Duration) {
        let mut changes = self.state.subscribe();
        loop {
            if changes.wait_for(|state| state.live == 0).await.is_err() {
                return;
            }
            let quiet = tokio::time::timeout(period, changes.changed()).await;
            if quiet.is_err() && self.live() == 0 {
                return;
            }
        }
    }

    async fn wait(&self, condition: impl FnMut(&State) -> bool) {
        // The sender lives as long as `self`, so this cannot fail.
        let _ = self.state.subscribe().wait_for(condition).await;
    }
}

impl Drop for ClientGuard {
    fn drop(&mut self) {
        self.state
            .send_modify(|state| state.live = state.live.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn the_idle_period_starts_when_the_last_client_leaves() {
        let clients = Clients::new(10);
        let start = Instant::now();
        let guard = clients.enter();
        let visit = async {
            tokio::time::sleep(Duration::from_secs(100)).await;
            drop(guard);
            // A client that comes and goes within one instant counts too.
            tokio::time::sleep(Duration::from_secs(20)).await;
            drop(clients.enter());
        };
        tokio::join!(visit, clients.idle(Duration::from_secs(30)));
        assert_eq!(start.elapsed().as_secs(), 150);
    }

    #[tokio::test]
    async fn room_comes_back_with_a_leaver_or_a_higher_limit() {
        let clients = Clients::new(1);
        let guard = clients.enter();
        assert!(!clients.has_room());
        tokio::join!(clients.room(), async { drop(guard) });
        assert!(clients.has_room());
        let _guard = clients.enter();
        tokio::join!(clients.room(), async { clients.set_max(2) });
        assert_eq!(clients.live(), 1);
    }
}
