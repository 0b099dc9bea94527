//! What one client's session asks of the world outside, to learn who the client is.

use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::polkit::{Polkit, Refused};
use super::sasl::{Channel, Exchange, Outcome, SaslConfig, SecurityLayer};
use crate::policy::facts::{ClientFacts, SaslFacts, UnixFacts};
use crate::protocol::fault::Fault;
use crate::session::{Auth, SaslInput, SaslProgress};

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
    Sasl(tokio::task::JoinHandle<(Exchange, Outcome)>),
    /// The exchange, between two messages of the client's.
    Waiting(Exchange),
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

    /// Moves the SASL exchange. It may derive keys or read files, so that it runs on a thread where
    /// blocking is allowed.
    pub(crate) fn move_exchange(&mut self, input: SaslInput, facts: &Arc<ClientFacts>) {
        let Way::Sasl(config) = &self.way else { return };
        let (config, facts) = (Arc::clone(config), Arc::clone(facts));
        let (over, before) = (self.over, self.asking.take());
        self.asking = match (input, before) {
            (SaslInput::Start { mechanism, data }, _) => {
                Some(Asking::Sasl(tokio::task::spawn_blocking(move || {
                    Exchange::start(&config, &over.channel(&facts), &mechanism, data.as_deref())
                })))
            }
            (SaslInput::Step { data }, Some(Asking::Waiting(mut exchange))) => {
                Some(Asking::Sasl(tokio::task::spawn_blocking(move || {
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
                let stepped = ready!(Pin::new(step).poll(cx));
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
            Self::Tls => Channel::Tls(facts.x509.as_ref()),
            Self::Tcp => Channel::Tcp,
        }
    }
}
