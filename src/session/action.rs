//! What the shell must do for a session.

use std::collections::VecDeque;
use std::sync::Arc;

use super::access::quota::{Claims, TurnId};
use super::access::refusal::Record;
use super::{SaslInput, UpstreamId};
use crate::policy::model::Upstream;

/// One end of the proxied conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Whoever connected to us.
    Client,
    /// A daemon that we connected to.
    Upstream(UpstreamId),
}

/// Something to do, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Send these whole frames of the proxy's own, at the next frame boundary.
    Send {
        /// To whom.
        to: Peer,
        /// The frames.
        bytes: Vec<u8>,
    },
    /// Dial a daemon; the outcome comes back as `handle_connected` or `handle_upstream_lost`.
    Connect {
        /// Name of the connection from now on.
        id: UpstreamId,
        /// Whom to dial.
        upstream: Arc<Upstream>,
        /// Dial the socket for read-only clients.
        readonly: bool,
    },
    /// This daemon is open for its client: it is well.
    Opened(UpstreamId),
    /// This daemon could be reached and not be opened, or is silent: the next dial should rather
    /// try another address, or wait.
    Unwell {
        /// Which.
        id: UpstreamId,
        /// Why.
        why: String,
    },
    /// Move the SASL exchange with a daemon; the outcome comes back as `handle_upstream_sasl`.
    ProveTo {
        /// Which.
        id: UpstreamId,
        /// What it said.
        input: ClientSaslInput,
    },
    /// What follows to and from this daemon travels in the security layer that the SASL exchange
    /// with it has agreed on.
    SecureUpstream(UpstreamId),
    /// Close this connection at once, finished or not. What it said before still comes before what
    /// is sent to the client from now on.
    Disconnect(UpstreamId),
    /// Ask polkit about the client; the answer comes back as `handle_polkit`.
    Polkit,
    /// Move the client's SASL exchange; the outcome comes back as `handle_sasl`.
    Sasl(SaslInput),
    /// Once everything so far has been written, what follows travels in the security layer that
    /// the SASL exchange has agreed on, in both directions.
    Secure,
    /// The client has proven who it is: it no longer counts as unauthenticated.
    Authenticated,
    /// A proof was refused: to be counted, and logged with the reason, which the client is not told.
    AuthenticationFailed(String),
    /// Wait for the turn of these identities before a daemon, of whatever connections; they are
    /// sorted. It comes back as `handle_acquired`.
    Acquire {
        /// Name of the turn from now on.
        turn: TurnId,
        /// Before whom.
        upstream: Arc<Upstream>,
        /// Whose turn.
        identities: Vec<Arc<str>>,
    },
    /// The call of this turn goes on: others are told of its claims until they are released, and
    /// have their turn at once.
    Claim {
        /// Which.
        turn: TurnId,
        /// What it claims, by identity.
        claimed: Vec<(Arc<str>, Claims)>,
    },
    /// The turn, awaited or had, is given back, and what is claimed in it.
    Release {
        /// Which.
        turn: TurnId,
        /// Whether the daemon shows by now what the call has made, if anything. Else it may still
        /// be at it, and the claims are to stay for a while.
        is_known: bool,
    },
    /// Write this record of a decision.
    Audit(Box<Record>),
    /// Close the client's connection once everything for it has been written.
    Close,
    /// Close the client's connection at once.
    Abort,
}

/// Has frames of the proxy's own sent, if there are any.
pub(super) fn send(actions: &mut VecDeque<Action>, to: Peer, bytes: Vec<u8>) {
    if !bytes.is_empty() {
        actions.push_back(Action::Send { to, bytes });
    }
}

/// What becomes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Pass it on byte for byte, with its descriptors.
    Relay(Peer),
    /// Drop it, and its descriptors: the session has dealt with it.
    Consumed,
    /// Leave it where it is, and offer it again after the next action or upstream frame.
    Hold,
}

/// What a daemon says in a SASL exchange with the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientSaslInput {
    /// The mechanisms that it takes, separated by commas or spaces.
    Mechanisms(String),
    /// Its answer; `None` is none, which differs from an empty one.
    Challenge(Option<Vec<u8>>),
    /// Its last answer: for it, the exchange is complete.
    Complete(Option<Vec<u8>>),
}

/// What the proxy says in a SASL exchange with a daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientSaslOutput {
    /// To begin with: the mechanism, and what it says first, if anything.
    Start(String, Option<Vec<u8>>),
    /// To go on with.
    Step(Option<Vec<u8>>),
    /// The daemon has proven itself as far as the mechanism does that, and what follows may travel;
    /// `layer` says whether in a security layer.
    Done {
        /// There is one.
        layer: bool,
    },
}
