//! What the service manager is told: every state passes through here, in an order that makes sense.

use std::fmt;
use std::io;
use std::time::Duration;

use sd_notify::NotifyState;

/// What ending may take beyond the time that is given to clients.
const STOPPING_SPARE: Duration = Duration::from_secs(10);

/// Delivers one message; replaced in tests.
type Send = Box<dyn FnMut(&[NotifyState<'_>]) -> io::Result<()>>;

/// Tells the service manager (systemd) how we are; says nothing if there is none.
pub(crate) struct Notifier {
    phase: Phase,
    send: Send,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting,
    Ready,
    Reloading,
    Stopping,
}

impl Notifier {
    /// Talks to the service manager named by `NOTIFY_SOCKET`.
    pub(crate) fn new() -> Self {
        Self::sending(Box::new(sd_notify::notify))
    }

    fn sending(send: Send) -> Self {
        Self {
            phase: Phase::Starting,
            send,
        }
    }

    /// Listening for the first time, or a reload has ended (well or not). `status` says which.
    pub(crate) fn ready(&mut self, status: &str) {
        match self.phase {
            Phase::Starting | Phase::Reloading => {
                self.phase = Phase::Ready;
                self.tell(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
            }
            Phase::Ready => self.tell(&[NotifyState::Status(&one_line(status))]),
            Phase::Stopping => {}
        }
    }

    /// A reload begins, also while an earlier one goes on: the time stamp tells the service
    /// manager that its own request was heard.
    pub(crate) fn reloading(&mut self) {
        if matches!(self.phase, Phase::Ready | Phase::Reloading) {
            self.phase = Phase::Reloading;
            match NotifyState::monotonic_usec_now() {
                Ok(now) => self.tell(&[NotifyState::Reloading, now]),
                Err(_) => self.tell(&[NotifyState::Reloading]),
            }
        }
    }

    /// On the way out, which may take as long as `deadline`; nothing but the watchdog follows.
    /// The service manager is asked for that much patience, and some to spare.
    pub(crate) fn stopping(&mut self, status: &str, deadline: Duration) {
        self.phase = Phase::Stopping;
        let patience = (deadline + STOPPING_SPARE).as_micros();
        self.tell(&[
            NotifyState::Stopping,
            NotifyState::Status(&one_line(status)),
            NotifyState::ExtendTimeoutUsec(patience.try_into().unwrap_or(u32::MAX)),
        ]);
    }

    /// Every part of the daemon has made progress since the last call.
    pub(crate) fn alive(&mut self) {
        self.tell(&[NotifyState::Watchdog]);
    }

    fn tell(&mut self, states: &[NotifyState<'_>]) {
        if let Err(error) = (self.send)(states) {
            tracing::debug!(%error, "cannot tell the service manager");
        }
    }
}

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notifier")
            .field("phase", &self.phase)
            .finish_non_exhaustive()
    }
}

/// Each line of a notification is a command of its own, so a status must stay on its line.
fn one_line(status: &str) -> String {
    status.replace(|c: char| c.is_control(), " ")
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a failed set-up step should stop the test"
)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    fn recorded(act: impl FnOnce(&mut Notifier)) -> Vec<String> {
        let sent = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&sent);
        let mut notifier = Notifier::sending(Box::new(move |states| {
            let text: Vec<String> = states
                .iter()
                .map(|state| match state {
                    NotifyState::MonotonicUsec(_) => "MONOTONIC_USEC".to_owned(),
                    state => state.to_string(),
                })
                .collect();
            record.lock().unwrap().push(text.join(" "));
            Ok(())
        }));
        act(&mut notifier);
        drop(notifier);
        Arc::into_inner(sent).unwrap().into_inner().unwrap()
    }

    #[test]
    fn a_whole_life_in_order() {
        let sent = recorded(|notifier| {
            notifier.ready("one");
            notifier.reloading();
            notifier.ready("two");
            notifier.ready("three");
            notifier.stopping("four", Duration::from_secs(30));
            notifier.alive();
        });
        assert_eq!(
            sent,
            [
                "READY=1 STATUS=one",
                "RELOADING=1 MONOTONIC_USEC",
                "READY=1 STATUS=two",
                "STATUS=three",
                "STOPPING=1 STATUS=four EXTEND_TIMEOUT_USEC=40000000",
                "WATCHDOG=1",
            ]
        );
    }

    #[test]
    fn never_ready_after_stopping_nor_reloading_before_ready() {
        let sent = recorded(|notifier| {
            notifier.reloading();
            notifier.ready("a");
            notifier.reloading();
            notifier.stopping("b", Duration::MAX / 2);
            notifier.ready("c");
            notifier.reloading();
        });
        assert_eq!(
            sent,
            [
                "READY=1 STATUS=a",
                "RELOADING=1 MONOTONIC_USEC",
                "STOPPING=1 STATUS=b EXTEND_TIMEOUT_USEC=4294967295"
            ]
        );
    }

    #[test]
    fn a_status_cannot_smuggle_a_command() {
        let sent = recorded(|notifier| notifier.ready("file\nMAINPID=1"));
        assert_eq!(sent, ["READY=1 STATUS=file MAINPID=1"]);
    }
}
