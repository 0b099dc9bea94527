//! What one client's session asks of the world outside, to learn who the client is.

use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::Semaphore;
use tokio::task::JoinError;

use super::polkit::{Polkit, Refused};
use super::sasl::{Channel, Exchange, Outcome, SaslConfig, SecurityLayer};
use crate::policy::facts::{ClientFacts, SaslFacts, UnixFacts};
use crate::protocol::fault::Fault;
use crate::session::{Auth, SaslInput, SaslProgress};

/// Steps of SASL exchanges that are worked on at once. A step may derive a key or read a file, which
/// takes one of the threads on which a worker also looks up who its local clients are; whoever
/// sends passwords in heaps must leave some of them free. More would not be faster either.
const MAX_STEPS: usize = 4;
static STEPS: Semaphore = Semaphore::const_new(MAX_STEPS);

/// One client's authentication. At most one question is under way; dropping this takes it back.
#[derive(Debug)]
pub(crate) struct Authenticator {
    way: Way,
    over: Over,
    asking: Option<Asking>,
    /// Agreed on by the exchange that has ended well.
    layer: Option<Box<dyn SecurityLayer>>,
}

/// How a listener's clients prove who they are.
#[derive(Debug)]
pub(crate) enum Way {
    /// polkit is asked about the process at the other end.
    Polkit {
        /// Shared by all connections.
        polkit: Polkit,
        /// The process itself, where the kernel gives it.
        pidfd: Option<OwnedFd>,
    },
    /// By a SASL exchange.
    Sasl(Arc<SaslConfig>),
}

enum Asking {
    Polkit(Pin<Box<dyn Future<Output = Result<(), Refused>>>>),
    Sasl(Step<(Exchange, Outcome)>),
    /// The exchange, between two messages of the client's.
    Waiting(Exchange),
}

/// A step of an exchange that is under way.
pub(crate) type Step<T> = Pin<Box<dyn Future<Output = Result<T, JoinError>>>>;

/// Works on a step of an exchange where that may block, once it is its turn. Whoever leaves before
/// takes the step along.
pub(crate) fn step<T: Send + 'static>(
    turns: &'static Semaphore,
    work: impl FnOnce() -> T + Send + 'static,
) -> Step<T> {
    Box::pin(async move {
        // Never closed, which is the only error.
        let turn = turns.acquire().await.ok();
        let work = move || {
            let _turn = turn;
            work()
        };
        tokio::task::spawn_blocking(work).await
    })
}

impl std::fmt::Debug for Asking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Polkit(_) => "Polkit",
            Self::Sasl(_) => "Sasl",
            Self::Waiting(_) => "Waiting",
        })
    }
}

/// What was found out.
#[derive(Debug)]
pub(crate) enum Answer {
    /// polkit's decision.
    Polkit(Result<(), Fault>),
    /// The next step of the exchange.
    Sasl(SaslProgress),
}

impl Authenticator {
    pub(crate) fn new(way: Way, over: Over) -> Self {
        Self {
            way,
            over,
            asking: None,
            layer: None,
        }
    }

    /// What the session is told: how its client has to prove who it is.
    pub(crate) fn auth(&self, facts: &ClientFacts) -> Auth {
        match &self.way {
            Way::Polkit { .. } => Auth::Polkit,
            Way::Sasl(config) => {
                let channel = self.over.channel(facts);
                let offered = config.offered(&channel);
                Auth::Sasl(offered.map(|mechanism| mechanism.name().into()).collect())
            }
        }
    }

    /// Asks polkit about the client.
    pub(crate) fn ask_polkit(&mut self, facts: &ClientFacts) {
        let Way::Polkit { polkit, pidfd } = &mut self.way else {
            return;
        };
        let (polkit, pidfd, readonly) = (polkit.clone(), pidfd.take(), facts.readonly);
        // A client that is no process of this host is none that polkit could know.
        let client: UnixFacts = facts.unix.clone().unwrap_or(UnixFacts {
            uid: u32::MAX,
            ..UnixFacts::default()
        });
        self.asking = Some(Asking::Polkit(Box::pin(async move {
            polkit.check(&client, pidfd, readonly).await
        })));
    }

    /// Moves the SASL exchange.
    pub(crate) fn move_exchange(&mut self, input: SaslInput, facts: &Arc<ClientFacts>) {
        let Way::Sasl(config) = &self.way else { return };
        let (config, facts) = (Arc::clone(config), Arc::clone(facts));
        let (over, before) = (self.over, self.asking.take());
        self.asking = match (input, before) {
            (SaslInput::Start { mechanism, data }, _) => {
                Some(Asking::Sasl(step(&STEPS, move || {
                    Exchange::start(&config, &over.channel(&facts), &mechanism, data.as_deref())
                })))
            }
            (SaslInput::Step { data }, Some(Asking::Waiting(mut exchange))) => {
                Some(Asking::Sasl(step(&STEPS, move || {
                    let outcome = exchange.step(data.as_deref());
                    (exchange, outcome)
                })))
            }
            // The session offers no step without a start.
            (SaslInput::Step { .. }, before) => before,
        };
    }

    /// The answer to the question under way. Pending also if there is none.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Answer> {
        match &mut self.asking {
            Some(Asking::Polkit(question)) => {
                let decision = ready!(question.as_mut().poll(cx));
                self.asking = None;
                let decision = decision.map_err(|refused| refused.fault());
                Poll::Ready(Answer::Polkit(decision))
            }
            Some(Asking::Sasl(step)) => {
                let stepped = ready!(step.as_mut().poll(cx));
                self.asking = None;
                Poll::Ready(Answer::Sasl(match stepped {
                    Ok((exchange, outcome)) => self.progress(exchange, outcome),
                    Err(error) => SaslProgress::Failed(format!("the exchange broke off: {error}")),
                }))
            }
            Some(Asking::Waiting(_)) | None => Poll::Pending,
        }
    }

    fn progress(&mut self, exchange: Exchange, outcome: Outcome) -> SaslProgress {
        match outcome {
            Outcome::Continue(data) => {
                self.asking = Some(Asking::Waiting(exchange));
                SaslProgress::Continue(data)
            }
            Outcome::Done {
                data,
                user,
                mechanism,
                layer,
            } => {
                let secured = layer.is_some();
                self.layer = layer;
                let mechanism = mechanism.to_owned();
                let facts = SaslFacts { user, mechanism };
                SaslProgress::Done {
                    data,
                    facts,
                    secured,
                }
            }
            Outcome::Failed(failure) => SaslProgress::Failed(failure.to_string()),
        }
    }

    /// Takes the security layer that was agreed on.
    pub(crate) fn take_layer(&mut self) -> Option<Box<dyn SecurityLayer>> {
        self.layer.take()
    }
}

/// What a client's connection is made of, as far as SASL asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    /// A UNIX socket.
    Unix,
    /// TLS.
    Tls,
    /// TCP without TLS.
    Tcp,
}

impl Over {
    fn channel(self, facts: &ClientFacts) -> Channel<'_> {
        match self {
            Self::Unix => Channel::Unix,
            Self::Tls => Channel::Tls(facts.x509.as_deref()),
            Self::Tcp => Channel::Tcp,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is the failed test")]
mod tests {
    use super::*;
    use crate::server::auth::passwords::Passwords;
    use crate::server::auth::sasl::{ExternalUser, Mechanism};
    use std::future::poll_fn;
    use std::sync::Weak;
    use std::task::Waker;

    fn with_a_password(config: &Arc<SaslConfig>) -> Authenticator {
        let mut authenticator = Authenticator::new(Way::Sasl(Arc::clone(config)), Over::Unix);
        let start = SaslInput::Start {
            mechanism: "PLAIN".into(),
            data: Some(b"\0alice\0wrong".to_vec()),
        };
        authenticator.move_exchange(start, &Arc::default());
        authenticator
    }

    #[tokio::test]
    async fn passwords_in_heaps_wait_their_turn_and_go_with_who_sent_them() {
        let config = Arc::new(SaslConfig {
            mechanisms: vec![Mechanism::Plain],
            passwords: Arc::new(Passwords::default()),
            external_user: ExternalUser::default(),
            min_ssf: 56,
        });
        let all = u32::try_from(MAX_STEPS).unwrap();
        let busy = STEPS.acquire_many(all).await.unwrap();
        let mut heap: Vec<_> = (0..100).map(|_| with_a_password(&config)).collect();
        for authenticator in &mut heap {
            let mut cx = Context::from_waker(Waker::noop());
            assert!(authenticator.poll(&mut cx).is_pending());
        }
        let mut last = heap.pop().unwrap();
        let data: Weak<SaslConfig> = Arc::downgrade(&config);
        assert!(data.strong_count() > 100);
        drop(heap);
        // Nothing of them is left in any queue.
        assert_eq!(data.strong_count(), 3);
        drop(busy);
        let answer = poll_fn(|cx| last.poll(cx)).await;
        assert!(matches!(answer, Answer::Sasl(SaslProgress::Failed(_))));
    }
}
