//! The end of the daemon's life: one signal to every connection, then a wait with a deadline.

use std::time::Duration;

use tokio::sync::watch;

use super::clients::Clients;

/// Tells connections that the daemon is going down. Set once, never taken back.
#[derive(Debug)]
pub(crate) struct Drain {
    begun: watch::Sender<bool>,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drained {
    /// Every client had left.
    Complete,
    /// The deadline passed with this many clients still connected.
    Deadline(usize),
}

impl Drain {
    /// Not draining.
    pub(crate) fn new() -> Self {
        Self {
            begun: watch::Sender::new(false),
        }
    }

    /// Starts the drain.
    pub(crate) fn begin(&self) {
        self.begun.send_replace(true);
    }

    /// Waits until the drain begins; at once if it has. Cancel-safe.
    pub(crate) async fn begun(&self) {
        // The sender lives as long as `self`, so this cannot fail.
        let _ = self.begun.subscribe().wait_for(|begun| *begun).await;
    }
}

/// Waits until no client is connected, at most for `deadline`.
pub(crate) async fn wait(clients: &Clients, deadline: Duration) -> Drained {
    match tokio::time::timeout(deadline, clients.none()).await {
        Ok(()) => Drained::Complete,
        Err(_) => Drained::Deadline(clients.live()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_drain_ends_when_the_last_client_leaves_or_at_the_deadline() {
        let clients = Clients::new(5);
        let first = clients.enter();
        let second = clients.enter();
        assert_eq!(
            wait(&clients, Duration::from_secs(5)).await,
            Drained::Deadline(2)
        );
        let waiter = wait(&clients, Duration::from_secs(5));
        drop((first, second));
        assert_eq!(waiter.await, Drained::Complete);
    }

    #[tokio::test]
    async fn the_signal_reaches_those_who_ask_before_and_after() {
        let drain = Drain::new();
        let (before, ()) = tokio::join!(drain.begun(), async { drain.begin() });
        assert_eq!(before, ());
        drain.begun().await;
    }
}
