//! The service manager's watchdog, fed by real progress.

use tokio::time::{Interval, MissedTickBehavior};

use super::notify::Notifier;
use super::workers::Workers;

/// Feeds the service manager's watchdog, as long as every thread makes progress.
#[derive(Debug)]
pub(crate) struct Watchdog {
    interval: Option<Interval>,
    tick: u64,
}

impl Watchdog {
    /// Three looks in each period that the service manager allows, so that one may come late.
    pub(crate) fn new() -> Self {
        let interval = sd_notify::watchdog_enabled()
            .map(|period| period / 3)
            .filter(|period| !period.is_zero())
            .map(|period| {
                let mut interval = tokio::time::interval(period);
                interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
                interval
            });
        Self { interval, tick: 0 }
    }

    pub(crate) async fn due(&mut self) {
        match &mut self.interval {
            Some(interval) => {
                interval.tick().await;
            }
            None => std::future::pending().await,
        }
    }

    /// Feeds the watchdog if every worker has answered since it was last fed. That this runs at
    /// all is the main thread's own answer.
    pub(crate) fn check(&mut self, workers: &Workers, notifier: &mut Notifier) {
        if workers.answered(self.tick) {
            notifier.alive();
            self.tick += 1;
            workers.tick(self.tick);
        }
    }
}
