//! Asking polkit whether a client of a UNIX socket may connect, under libvirt's action names.
//!
//! - `queue`: how many questions there may be at once.
//! - `authority`: polkit's interface on the system bus.
//!
//! A question runs as a task of its own. Who waits for the answer may stop waiting at any moment;
//! the task then takes the question back and keeps its place in the queue until polkit has let go
//! of it, so that nobody can pile up questions by asking and leaving.

use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::policy::facts::UnixFacts;
use crate::protocol::fault::Fault;

mod authority;
mod queue;
#[cfg(test)]
mod tests;

use authority::{Authority, Question};
use queue::{Place, Queue};

/// How long polkit may take to let go of a question that was taken back, before the connection to
/// the bus counts as dead.
const LET_GO: Duration = Duration::from_secs(10);

/// How to ask.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// How long a client may wait for polkit's answer, the user's thinking included.
    pub(crate) deadline: Duration,
    /// D-Bus address of the system bus; `None` is `DBUS_SYSTEM_BUS_ADDRESS`, or where that is not
    /// set the usual socket.
    pub(crate) bus: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(60),
            bus: None,
        }
    }
}

/// Why a client is not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// The policy says no, or the user could not authenticate.
    #[error("polkit's policy denies it")]
    Denied,
    /// The user closed the agent's question.
    #[error("the user dismissed polkit's question")]
    Dismissed,
    /// The policy wants this action authenticated, and no agent is there to ask the user.
    #[error("polkit knows no agent that could ask the user about '{0}'")]
    NoAgent(&'static str),
    /// The client's process has gone or lives in another pid namespace: polkit could not tell it
    /// from another one.
    #[error("the client's process is not known")]
    UnknownProcess,
    /// Too many clients wait for polkit already, of this user or in all.
    #[error("too many questions to polkit are open")]
    TooMany,
    /// No answer came in time.
    #[error("polkit did not answer in time")]
    Late,
    /// polkit answered with an error, which it does when the process has gone or its pid has passed
    /// to another one.
    #[error("polkit does not decide: {0}")]
    Undecided(String),
    /// polkit could not be asked, with the reason, which is not for the client.
    #[error("polkit cannot be asked: {0}")]
    Unavailable(String),
}

impl Refused {
    /// What the client is told.
    pub(crate) fn fault(&self) -> Fault {
        match self {
            Self::Denied => Fault::polkit_denied(),
            Self::Dismissed => Fault::polkit_dismissed(),
            Self::NoAgent(action) => Fault::polkit_without_agent(action),
            Self::UnknownProcess => Fault::polkit_failed("the client's process is not known"),
            Self::TooMany => Fault::polkit_failed("too many clients are waiting for polkit"),
            Self::Late => Fault::polkit_failed("polkit did not answer in time"),
            Self::Undecided(_) => Fault::polkit_failed("polkit does not decide"),
            Self::Unavailable(_) => Fault::polkit_failed("polkit is not available"),
        }
    }
}

/// Asks polkit; shared by all connections. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Polkit {
    deadline: Duration,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    authority: Authority,
    queue: Arc<Queue>,
}

impl Polkit {
    /// Connects to nothing before the first question.
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            deadline: settings.deadline,
            inner: Arc::new(Inner {
                authority: Authority::new(settings.bus),
                queue: Arc::default(),
            }),
        }
    }

    /// The same, with another [`Settings::deadline`].
    pub(crate) fn within(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Whether this client may connect to a read-only or a read-write socket. root may, and nobody
    /// is asked then, so that it can repair a host without polkit.
    ///
    /// `pidfd` is the process itself (`SO_PEERPIDFD`), which a polkit from 124 on prefers over the
    /// pid and start time.
    ///
    /// May be dropped at any time: the question is then taken back. Must be called in a tokio
    /// runtime.
    ///
    /// # Errors
    /// Anything but a clear yes within the deadline.
    pub(crate) async fn check(
        &self,
        client: &UnixFacts,
        pidfd: Option<OwnedFd>,
        readonly: bool,
    ) -> Result<(), Refused> {
        let action = authority::action(readonly);
        let result = match Question::about(client, pidfd, action) {
            _ if client.uid == 0 => Ok(()),
            Some(question) => self.ask(question).await,
            None => Err(Refused::UnknownProcess),
        };
        let (uid, pid) = (client.uid, client.pid);
        match &result {
            Ok(()) => tracing::debug!(uid, pid, action, "polkit: allowed"),
            Err(error @ Refused::Unavailable(_)) => {
                tracing::error!(uid, pid, action, "refused: {error}");
            }
            Err(error) => tracing::info!(uid, pid, action, "refused: {error}"),
        }
        result
    }

    async fn ask(&self, question: Question) -> Result<(), Refused> {
        let place = self.inner.queue.join(question.uid())?;
        let (answer, wanted) = oneshot::channel();
        let deadline = Instant::now() + self.deadline;
        tokio::spawn(Arc::clone(&self.inner).follow(question, place, answer, deadline));
        wanted
            .await
            .unwrap_or_else(|_| Err(Refused::Unavailable("the daemon is going down".into())))
    }
}

type Answer = Result<(), Refused>;

impl Inner {
    /// The life of one question.
    async fn follow(
        self: Arc<Self>,
        question: Question,
        place: Place,
        mut answer: oneshot::Sender<Answer>,
        deadline: Instant,
    ) {
        let turn_to_ask = async {
            let turn = place.turn().await;
            let connection = self.authority.connection().await?;
            Ok((turn, connection))
        };
        let prepared = tokio::select! {
            () = answer.closed() => return,
            prepared = timeout_at(deadline, turn_to_ask) => prepared,
        };
        let (_turn, connection) = match prepared.unwrap_or(Err(Refused::Late)) {
            Ok(prepared) => prepared,
            Err(refused) => {
                let _left = answer.send(Err(refused));
                return;
            }
        };
        let ticket = self.authority.ticket();
        let mut asked = pin!(authority::check(&connection, question, &ticket));
        tokio::select! {
            result = &mut asked => {
                let _left = answer.send(result);
                return;
            }
            () = answer.closed() => {}
            () = sleep_until(deadline) => {
                let _left = answer.send(Err(Refused::Late));
            }
        }
        let let_go = async {
            authority::cancel(&connection, &ticket).await;
            asked.await
        };
        if timeout(LET_GO, let_go).await.is_err() {
            self.authority.abandon(&connection).await;
        }
    }
}
