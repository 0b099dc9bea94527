//! Pings to a silent peer, and when to give it up. Times are arguments; no clock is read.

use std::time::{Duration, Instant};

use crate::policy::model::Keepalive as Config;

/// Watches one peer that is known to answer pings.
#[derive(Debug)]
pub(super) struct Keepalive {
    interval: Duration,
    count: u32,
    /// When the peer was last heard, or last pinged since.
    since: Instant,
    unanswered: u32,
}

/// What a silence asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// Not over yet, or not long enough.
    Short,
    /// Send a ping.
    Ping,
    /// The peer is gone.
    Dead,
}

impl Keepalive {
    /// `None` where the policy says never to ping.
    pub(super) fn start(config: Config, now: Instant) -> Option<Self> {
        let interval = config.interval?;
        Some(Self {
            interval,
            count: config.count,
            since: now,
            unanswered: 0,
        })
    }

    /// Any frame of the peer shows that it lives.
    pub(super) fn heard(&mut self, now: Instant) {
        self.since = now;
        self.unanswered = 0;
    }

    /// When to look again.
    pub(super) fn deadline(&self) -> Instant {
        self.since + self.interval
    }

    /// Looks at the silence so far.
    pub(super) fn check(&mut self, now: Instant) -> Silence {
        if now < self.deadline() {
            return Silence::Short;
        }
        if self.unanswered >= self.count {
            return Silence::Dead;
        }
        self.unanswered += 1;
        self.since = now;
        Silence::Ping
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pings_a_silent_peer_and_gives_it_up_after_its_count() {
        let start = Instant::now();
        let config = Config {
            interval: Some(5 * SECOND),
            count: 2,
        };
        let mut keepalive = Keepalive::start(config, start).unwrap();
        assert_eq!(keepalive.check(start + 4 * SECOND), Silence::Short);
        assert_eq!(keepalive.check(start + 5 * SECOND), Silence::Ping);
        assert_eq!(keepalive.check(start + 9 * SECOND), Silence::Short);
        assert_eq!(keepalive.check(start + 10 * SECOND), Silence::Ping);
        keepalive.heard(start + 11 * SECOND);
        assert_eq!(keepalive.deadline(), start + 16 * SECOND);
        assert_eq!(keepalive.check(start + 16 * SECOND), Silence::Ping);
        assert_eq!(keepalive.check(start + 21 * SECOND), Silence::Ping);
        assert_eq!(keepalive.check(start + 26 * SECOND), Silence::Dead);
    }

    #[test]
    fn count_0_closes_without_asking_and_no_interval_never_asks() {
        let start = Instant::now();
        let mut strict = Keepalive::start(
            Config {
                interval: Some(SECOND),
                count: 0,
            },
            start,
        )
        .unwrap();
        assert_eq!(strict.check(start + SECOND), Silence::Dead);
        assert!(
            Keepalive::start(
                Config {
                    interval: None,
                    count: 5
                },
                start
            )
            .is_none()
        );
    }
}
