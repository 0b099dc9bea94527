//! The client proves who it is. Until it has, only authentication calls are served; what they prove
//! becomes part of the client's facts, which only this module adds to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Action, OPEN_DEADLINE, Phase, Session, Verdict};
use crate::policy::facts::SaslFacts;
use crate::protocol::args::{AuthType, SaslReply, SaslStart, decode_sasl_step};
use crate::protocol::fault::Fault;
use crate::protocol::frame::Frame;
use crate::protocol::header::{Header, Program, Serial};
use crate::protocol::table::remote;

/// How long a refusal is held back. A guess costs this much; a mistake hardly shows.
const FAILURE_DELAY: Duration = Duration::from_secs(1);

/// Refusals after which the connection is closed. libvirt's clients give up after the first.
const FAILURES: u32 = 3;

/// How a listener wants its clients to prove who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// The socket's own evidence (credentials, certificate) is enough.
    None,
    /// polkit decides.
    Polkit,
    /// SASL, by one of these mechanisms.
    Sasl(Vec<String>),
}

/// One input to a SASL exchange. No data differs from empty data.
#[derive(Clone, PartialEq, Eq)]
pub enum SaslInput {
    /// Begin, forgetting an exchange that was under way.
    Start {
        /// The mechanism that the client chose.
        mechanism: String,
        /// Its first message.
        data: Option<Vec<u8>>,
    },
    /// Go on.
    Step {
        /// The client's next message.
        data: Option<Vec<u8>>,
    },
}

impl std::fmt::Debug for SaslInput {
    /// Without the data: it may be a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Start { mechanism, .. } => write!(f, "Start({mechanism:?})"),
            Self::Step { .. } => f.write_str("Step"),
        }
    }
}

/// What became of an input to a SASL exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SaslProgress {
    /// The client is to answer this.
    Continue(Option<Vec<u8>>),
    /// It is who it says.
    Done {
        /// The last message.
        data: Option<Vec<u8>>,
        /// Who it is.
        facts: SaslFacts,
        /// Everything after the reply travels in the mechanism's security layer.
        secured: bool,
    },
    /// It is not, or cannot say so, for this reason.
    Failed(String),
}

/// A client that has not proven who it is.
#[derive(Debug)]
pub(super) struct Authenticating {
    /// It must have by then.
    deadline: Instant,
    state: State,
    failures: u32,
    /// A SASL exchange has begun and not ended.
    in_exchange: bool,
}

#[derive(Debug)]
enum State {
    /// Its next call is awaited.
    Idle,
    /// The shell is finding out; then this call is answered.
    Asking(Header),
    /// This call is refused, but not yet.
    Refusing {
        call: Header,
        fault: Fault,
        at: Instant,
    },
}

impl Authenticating {
    pub(super) fn new(deadline: Instant) -> Self {
        Self {
            deadline,
            state: State::Idle,
            failures: 0,
            in_exchange: false,
        }
    }

    pub(super) fn deadline(&self) -> Instant {
        match &self.state {
            State::Refusing { at, .. } => self.deadline.min(*at),
            State::Idle | State::Asking(_) => self.deadline,
        }
    }

    /// A call with this serial waits for its answer.
    pub(super) fn uses(&self, serial: Serial) -> bool {
        match &self.state {
            State::Idle => false,
            State::Asking(call) | State::Refusing { call, .. } => call.serial == serial,
        }
    }
}

impl Session {
    /// A call before authentication is over.
    pub(super) fn authenticate(&mut self, frame: &Frame<'_>, now: Instant) -> Verdict {
        let Phase::Authenticating(auth) = &mut self.phase else {
            return Verdict::Hold;
        };
        if !matches!(auth.state, State::Idle) {
            return Verdict::Hold;
        }
        let (header, in_exchange) = (frame.header, auth.in_exchange);
        match (header.procedure, &self.setup.auth) {
            _ if header.program != Program::REMOTE => self.refuse_unauthenticated(header),
            (remote::AUTH_LIST, auth) => {
                let kind = match auth {
                    Auth::None => AuthType::NONE,
                    Auth::Polkit => AuthType::POLKIT,
                    Auth::Sasl(_) => AuthType::SASL,
                };
                self.reply(header, |writer| kind.encode_list(writer));
            }
            (remote::AUTH_POLKIT, Auth::Polkit) => self.ask(header, Action::Polkit),
            // An empty list would only tell the client that it found nothing in it.
            (remote::AUTH_SASL_INIT, Auth::Sasl(mechanisms)) if !mechanisms.is_empty() => {
                let list = mechanisms.join(",");
                self.reply(header, |writer| _ = writer.string(&list));
            }
            (remote::AUTH_SASL_START, Auth::Sasl(mechanisms)) => {
                match SaslStart::decode(frame.arguments()) {
                    Ok(SaslStart { mechanism, data }) => {
                        if mechanisms.iter().any(|known| known == mechanism) {
                            let mechanism = mechanism.to_owned();
                            self.ask(header, Action::Sasl(SaslInput::Start { mechanism, data }));
                        } else {
                            let why = format!("the mechanism {mechanism:?} is not offered");
                            self.fail_sasl(header, why, now);
                        }
                    }
                    Err(_) => self.refuse(header, &Fault::undecodable()),
                }
            }
            (remote::AUTH_SASL_STEP, Auth::Sasl(_)) if in_exchange => {
                match decode_sasl_step(frame.arguments()) {
                    Ok(data) => self.ask(header, Action::Sasl(SaslInput::Step { data })),
                    Err(_) => self.refuse(header, &Fault::undecodable()),
                }
            }
            (
                remote::AUTH_POLKIT
                | remote::AUTH_SASL_INIT
                | remote::AUTH_SASL_START
                | remote::AUTH_SASL_STEP,
                _,
            ) => {
                let why = "a call that this listener's authentication does not have now";
                self.fail_sasl(header, why.to_owned(), now);
            }
            _ => self.refuse_unauthenticated(header),
        }
        Verdict::Consumed
    }

    fn ask(&mut self, call: Header, action: Action) {
        if let Phase::Authenticating(auth) = &mut self.phase {
            auth.state = State::Asking(call);
            self.actions.push_back(action);
        }
    }

    /// polkit has answered.
    pub fn handle_polkit(&mut self, outcome: Result<(), Fault>, now: Instant) {
        let Some(call) = self.asked() else { return };
        match outcome {
            Ok(()) => {
                // `complete`: there is no second step.
                self.reply(call, |writer| _ = writer.i32(1));
                self.authenticated(now);
            }
            Err(fault) => {
                let why = fault.to_string();
                self.fail(call, fault, why, now);
            }
        }
    }

    /// A SASL exchange has moved.
    pub fn handle_sasl(&mut self, progress: SaslProgress, now: Instant) {
        let Some(call) = self.asked() else { return };
        match progress {
            SaslProgress::Continue(data) => {
                if let Phase::Authenticating(auth) = &mut self.phase {
                    auth.in_exchange = true;
                }
                let reply = SaslReply {
                    complete: false,
                    data: data.as_deref(),
                };
                self.reply(call, |writer| reply.encode(writer));
            }
            SaslProgress::Done {
                data,
                facts,
                secured,
            } => {
                let reply = SaslReply {
                    complete: true,
                    data: data.as_deref(),
                };
                self.reply(call, |writer| reply.encode(writer));
                if secured {
                    self.actions.push_back(Action::Secure);
                }
                Arc::make_mut(&mut self.setup.facts).sasl = Some(facts);
                self.authenticated(now);
            }
            SaslProgress::Failed(why) => self.fail_sasl(call, why, now),
        }
    }

    /// Takes the call that the shell was asked about.
    fn asked(&mut self) -> Option<Header> {
        let Phase::Authenticating(auth) = &mut self.phase else {
            return None;
        };
        match std::mem::replace(&mut auth.state, State::Idle) {
            State::Asking(call) => Some(call),
            other => {
                auth.state = other;
                None
            }
        }
    }

    fn authenticated(&mut self, now: Instant) {
        let facts = &self.setup.facts;
        tracing::debug!(listener = &*facts.listener, client = %facts, "client authenticated");
        self.phase = Phase::Unopened {
            deadline: now + OPEN_DEADLINE,
        };
        self.actions.push_back(Action::Authenticated);
        self.settle(now);
    }

    /// Refuses a proof without a word of the reason.
    fn fail_sasl(&mut self, call: Header, why: String, now: Instant) {
        self.fail(call, Fault::authentication_failed(), why, now);
    }

    /// Refuses a proof, after a while.
    fn fail(&mut self, call: Header, fault: Fault, why: String, now: Instant) {
        if let Phase::Authenticating(auth) = &mut self.phase {
            auth.failures += 1;
            auth.in_exchange = false;
            let at = now + FAILURE_DELAY;
            auth.state = State::Refusing { call, fault, at };
            self.actions.push_back(Action::AuthenticationFailed(why));
        }
    }

    /// A deadline of this phase has come.
    pub(super) fn authenticating_timeout(&mut self, now: Instant) {
        let Phase::Authenticating(auth) = &mut self.phase else {
            return;
        };
        if auth.deadline <= now {
            tracing::info!("the client did not authenticate in time: closing");
            self.abort();
            return;
        }
        // Only a refusal that is due is taken; a question to the shell stays asked.
        let due = matches!(&auth.state, State::Refusing { at, .. } if *at <= now);
        if due
            && let State::Refusing { call, fault, .. } =
                std::mem::replace(&mut auth.state, State::Idle)
        {
            let last = auth.failures >= FAILURES;
            self.refuse(call, &fault);
            if last {
                self.close(now);
            }
        }
    }
}
