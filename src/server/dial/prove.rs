//! The proxy's side of a SASL exchange with a daemon, off the worker's thread: a step may read the
//! password's file, derive a key from it or ask Kerberos.

use std::task::{Context, Poll, ready};

use tokio::sync::Semaphore;

use crate::policy::model::Address;
use crate::server::auth::authenticator::{Over, Step, step};
use crate::server::auth::sasl::SecurityLayer;
use crate::server::auth::sasl_client::ClientExchange;
use crate::server::health::Standing;
use crate::session::{ClientSaslInput, ClientSaslOutput};

/// Steps that are worked on at once, of all threads: the proxy's clients must not be kept from
/// theirs.
const MAX_STEPS: usize = 4;
static STEPS: Semaphore = Semaphore::const_new(MAX_STEPS);

type Outcome = Result<ClientSaslOutput, String>;

/// One exchange with one daemon. At most one step is under way; dropping this takes it back.
pub(in crate::server) struct UpstreamSasl(State);

enum State {
    /// It is the daemon's turn.
    Waiting(ClientExchange),
    Stepping(Step<(ClientExchange, Outcome)>),
    Broken,
}

impl UpstreamSasl {
    /// With the daemon that was dialled; `None` if the policy has nothing for it to be told.
    pub(in crate::server) fn with(standing: &Standing) -> Option<Self> {
        let sasl = standing.upstream().sasl.as_ref()?;
        let (over, host) = match standing.address()? {
            Address::Unix { .. } => (Over::Unix, "localhost"),
            // What passes through a program is protected as well as the program does it.
            Address::Command(_) => (Over::Unix, "localhost"),
            Address::Tcp { host, .. } => (Over::Tcp, host.as_str()),
            Address::Tls { host, .. } => (Over::Tls, host.as_str()),
        };
        let exchange = ClientExchange::new(sasl.clone(), over, host);
        Some(Self(State::Waiting(exchange)))
    }

    /// Takes what the daemon says; [`poll`](Self::poll) tells what to answer.
    pub(in crate::server) fn step(&mut self, input: ClientSaslInput) {
        self.0 = match std::mem::replace(&mut self.0, State::Broken) {
            State::Waiting(mut exchange) => State::Stepping(step(&STEPS, move || {
                let outcome = exchange.step(&input);
                (exchange, outcome)
            })),
            // The session waits for the answer before it goes on.
            other => other,
        };
    }

    /// The answer to the last step; an error, which has no secrets, is the end. Pending also if
    /// there is nothing to answer.
    pub(in crate::server) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        let State::Stepping(step) = &mut self.0 else {
            return Poll::Pending;
        };
        let stepped = ready!(step.as_mut().poll(cx));
        self.0 = State::Broken;
        Poll::Ready(match stepped {
            Ok((exchange, outcome)) => {
                self.0 = State::Waiting(exchange);
                outcome
            }
            Err(error) => Err(format!("the exchange broke off: {error}")),
        })
    }

    /// Takes the security layer that was agreed on.
    pub(in crate::server) fn take_layer(&mut self) -> Option<Box<dyn SecurityLayer>> {
        match &mut self.0 {
            State::Waiting(exchange) => exchange.take_layer(),
            State::Stepping(_) | State::Broken => None,
        }
    }
}
