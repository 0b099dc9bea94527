//! One client connection as a state machine with no sockets and no clock.
//!
//! The shell offers every whole frame of either side ([`Session::handle_client`],
//! [`Session::handle_upstream`]) and does what the answer says: pass it on untouched, drop it, or
//! offer it again later. Everything else that is to be done comes out of
//! [`Session::poll_action`]; times go in as arguments and come out of [`Session::poll_timeout`].
//!
//! - [`action`]: what the shell is told.
//! - [`router`]: what the session asks of the policy.
//! - `authenticating`: the client proves who it is.
//! - `own`: what the session answers itself.
//! - `opening`: the client's `CONNECT_OPEN`; `dialogue`: what opens one daemon.
//! - `identity`: what the daemon is told of the client.
//! - [`access`]: what the client may do and see, call by call.
//! - `serving`: calls, replies, streams and events once it is open.
//! - `links`: its daemons; `loss`: how they come and go; `callbacks`: what they are to tell of.
//! - `deadly`: calls that no daemon must get.
//! - `calls`, `streams`: what is outstanding.
//! - `keepalive`: pings, and silence that lasts too long.

pub mod access;
pub mod action;
mod authenticating;
mod callbacks;
mod calls;
mod deadly;
mod dialogue;
mod identity;
mod keepalive;
mod links;
mod loss;
mod opening;
mod own;
pub mod router;
mod serving;
mod streams;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use access::quota::{Claims, TurnId};
pub use action::{Action, ClientSaslInput, ClientSaslOutput, Peer, Verdict};
use authenticating::Authenticating;
pub use authenticating::{Auth, SaslInput, SaslProgress};
use keepalive::{Keepalive, Silence};
use opening::Opening;
pub use router::Router;
use serving::Serving;

use crate::policy::facts::ClientFacts;
use crate::policy::model::Keepalive as KeepaliveConfig;
use crate::protocol::fault::Fault;
use crate::protocol::frame::{self, Frame};
use crate::protocol::header::{Header, Program, Serial, Status, VERSION};
use crate::protocol::limits;
use crate::protocol::table::keepalive as ping;
use crate::protocol::xdr::Writer;

/// How long a client may take from connecting to its `CONNECT_OPEN`. libvirt's clients open at
/// once; a socket that is held without using it must not be held for ever.
const OPEN_DEADLINE: Duration = Duration::from_secs(60);

/// Opens that a client may see fail before it is closed. libvirt's clients connect anew for another
/// URI; each try costs a walk through the routes and a line of the log.
const OPENS: u32 = 8;

/// How long a client that is being closed may take to read what it was still owed.
const LINGER: Duration = Duration::from_secs(5);

/// How long the calls may go on that a client left outstanding when it closed the connection, or
/// its own half of it. libvirt's daemon drops them at once; some clients would read the answers.
const LEAVE_DEADLINE: Duration = Duration::from_secs(60);

/// Names one dialled connection. A new dial gets a new name, so that nothing that arrives late from
/// an old connection is taken for the new one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UpstreamId(u32);

/// Why an upstream connection cannot be used, or used any longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lost {
    /// It could not be reached: the system's own words.
    Unreachable(String),
    /// It closed the connection.
    Closed,
    /// It sent something that no daemon sends.
    Protocol(Cow<'static, str>),
    /// It answered no ping.
    Silent,
    /// It did not open in time.
    TimedOut,
}

impl Lost {
    /// It says something of the daemon, whoever its client is. One that cannot be reached is known
    /// by the dial, and one that answers by an error is well.
    fn is_of_daemon(&self) -> bool {
        match self {
            Self::Unreachable(_) => false,
            Self::Closed | Self::Protocol(_) | Self::Silent | Self::TimedOut => true,
        }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => f.write_str(why),
            Self::Closed => f.write_str("the daemon closed the connection"),
            Self::Protocol(what) => write!(f, "the daemon broke the protocol: {what}"),
            Self::Silent => f.write_str("the daemon does not answer"),
            Self::TimedOut => f.write_str("no answer in time"),
        }
    }
}

/// What the shell knows of a connection when it makes its session.
#[derive(Debug)]
pub struct Setup {
    /// What is proven about the client.
    pub facts: Arc<ClientFacts>,
    /// When to ping it.
    pub keepalive: KeepaliveConfig,
    /// The client's socket can carry descriptors.
    pub descriptors: bool,
    /// How the client is to prove who it is.
    pub auth: Auth,
    /// How long it may take for that.
    pub auth_timeout: Duration,
    /// Random bytes of the connection's own.
    pub seed: [u8; 16],
    /// What the ids of its refusals begin with; no other connection's do.
    pub refusals: Arc<str>,
}

/// One client connection.
#[derive(Debug)]
pub struct Session {
    setup: Setup,
    phase: Phase,
    /// Runs from the moment that the client says that it answers pings.
    keepalive: Option<Keepalive>,
    /// The proxy is to end.
    draining: bool,
    /// The client has closed; what it is still owed ends by then.
    leaving: Option<Instant>,
    next_upstream: u32,
    /// Opens that have failed.
    failed_opens: u32,
    actions: VecDeque<Action>,
}

/// Where the connection stands.
#[derive(Debug)]
enum Phase {
    /// The client has to prove who it is.
    Authenticating(Box<Authenticating>),
    /// Nothing is open yet.
    Unopened {
        /// The client must have opened by then.
        deadline: Instant,
    },
    /// The client waits for its `CONNECT_OPEN`.
    Opening(Box<Opening>),
    /// Open.
    Serving(Box<Serving>),
    /// Over; what is written may still be read until the deadline.
    Closing {
        /// The client is cut off then.
        deadline: Instant,
    },
    /// Over.
    Closed,
}

impl Session {
    /// A session for a client that has just connected.
    #[must_use]
    pub fn new(setup: Setup, now: Instant) -> Self {
        let phase = match setup.auth {
            Auth::None => Phase::Unopened {
                deadline: now + OPEN_DEADLINE,
            },
            Auth::Polkit | Auth::Sasl(_) => {
                let deadline = now + setup.auth_timeout;
                Phase::Authenticating(Box::new(Authenticating::new(deadline)))
            }
        };
        Self {
            setup,
            phase,
            keepalive: None,
            draining: false,
            leaving: None,
            next_upstream: 0,
            failed_opens: 0,
            actions: VecDeque::new(),
        }
    }

    /// What is proven about the client by now.
    #[must_use]
    pub fn facts(&self) -> &Arc<ClientFacts> {
        &self.setup.facts
    }

    /// Names the connection in records: what the ids of its refusals begin with.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.setup.refusals
    }

    /// The longest frame that is taken from the client now, in bytes.
    #[must_use]
    pub fn client_frame_cap(&self) -> usize {
        match self.phase {
            Phase::Authenticating(_) => limits::FRAME_MAX_UNAUTHENTICATED,
            Phase::Unopened { .. } | Phase::Opening(_) => limits::FRAME_MAX_UNOPENED,
            Phase::Serving(_) | Phase::Closing { .. } | Phase::Closed => limits::FRAME_MAX,
        }
    }

    /// Calls of the client's are decided on by what the daemon tells of changes, so that what it has
    /// said must be heard before the next is.
    #[must_use]
    pub fn must_hear_first(&self) -> bool {
        matches!(&self.phase, Phase::Serving(serving) if serving.has_rules())
    }

    /// What to do next, until there is nothing.
    pub fn poll_action(&mut self) -> Option<Action> {
        let action = self.actions.pop_front();
        if action.is_none() && self.actions.capacity() > 0 {
            self.actions = VecDeque::new();
        }
        action
    }

    /// [`Session::poll_action`] has something to do.
    #[must_use]
    pub fn has_actions(&self) -> bool {
        !self.actions.is_empty()
    }

    /// When [`Session::handle_timeout`] is to be called at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let phase = match &self.phase {
            Phase::Unopened { deadline } | Phase::Closing { deadline } => Some(*deadline),
            Phase::Closed => None,
            Phase::Authenticating(auth) => Some(auth.deadline()),
            Phase::Opening(opening) => Some(opening.deadline()),
            Phase::Serving(serving) => serving.deadline().into_iter().chain(self.leaving).min(),
        };
        let keepalive = self.keepalive.as_ref().map(Keepalive::deadline);
        phase.into_iter().chain(keepalive).min()
    }

    /// Decides on a frame of the client's.
    pub fn handle_client(
        &mut self,
        frame: &Frame<'_>,
        router: &dyn Router,
        now: Instant,
    ) -> Verdict {
        if let Some(keepalive) = &mut self.keepalive {
            keepalive.heard(now);
        }
        if let Phase::Closing { .. } | Phase::Closed = self.phase {
            return Verdict::Consumed;
        }
        let header = frame.header;
        if let Some(verdict) = self.handle_ping(Peer::Client, &header) {
            return verdict;
        }
        if header.kind.is_call() {
            // Checked in every phase, before anything looks at the procedure: a call that is odd in
            // one field must not get past a check on another.
            if self.occupies(header.serial) {
                return Verdict::Hold;
            }
            if self.uses(header.serial) {
                tracing::warn!(?header, "the client uses a serial twice: closing");
                self.abort();
                return Verdict::Consumed;
            }
            if header.program == Program::REMOTE && header.version != VERSION {
                let fault = Fault::unknown_program(header.program, header.version);
                self.refuse(header, &fault);
                return Verdict::Consumed;
            }
            if header.status != Status::OK {
                self.refuse(header, &Fault::unexpected_status(header.status));
                return Verdict::Consumed;
            }
            if let Phase::Authenticating(_) = self.phase {
                return self.authenticate(frame, now);
            }
            if let Some(verdict) = self.handle_own_procedure(frame, router, now) {
                return verdict;
            }
        }
        match self.phase {
            // Not a call: there is nothing that it could belong to.
            Phase::Authenticating(_) => Verdict::Consumed,
            Phase::Unopened { .. } => {
                if header.kind.is_call() {
                    self.handle_unopened(frame, router, now);
                }
                Verdict::Consumed
            }
            Phase::Opening(_) => Verdict::Hold,
            Phase::Serving(_) => self.serve_client(frame, router, now),
            Phase::Closing { .. } | Phase::Closed => Verdict::Consumed,
        }
    }

    /// Decides on a frame of a daemon's.
    pub fn handle_upstream(
        &mut self,
        from: UpstreamId,
        frame: &Frame<'_>,
        router: &dyn Router,
        now: Instant,
    ) -> Verdict {
        if let Phase::Opening(opening) = &self.phase
            && opening.id() == from
        {
            return self
                .handle_ping(Peer::Upstream(from), &frame.header)
                .unwrap_or_else(|| {
                    self.handle_opening_reply(frame, now);
                    Verdict::Consumed
                });
        }
        // What arrives late from an upstream that was given up concerns nobody.
        let Some(place) = self.place(from) else {
            return Verdict::Consumed;
        };
        if let Some(verdict) = self.handle_ping(Peer::Upstream(from), &frame.header) {
            self.handle_heard(Peer::Upstream(from), now);
            return verdict;
        }
        if let Phase::Serving(serving) = &mut self.phase {
            let link = serving.links.get_mut(place);
            link.heard(now);
            if !link.is_open() {
                self.open_link(place, frame, now);
                return Verdict::Consumed;
            }
        }
        self.serve_upstream(from, place, frame, router, now)
    }

    /// The dialled connection is there; `descriptors` says whether it can carry them.
    pub fn handle_connected(&mut self, id: UpstreamId, descriptors: bool) {
        let place = self.place(id);
        match &mut self.phase {
            Phase::Opening(opening) if opening.id() == id => {
                opening.connected(descriptors, &mut self.actions);
            }
            Phase::Serving(serving) => {
                let opening = place.and_then(|place| serving.links.get_mut(place).opening());
                if let Some((dialogue, _)) = opening {
                    dialogue.connected(descriptors, &mut self.actions);
                }
            }
            _ => {}
        }
    }

    /// The proxy's SASL exchange with a daemon has moved.
    pub fn handle_upstream_sasl(
        &mut self,
        id: UpstreamId,
        outcome: Result<ClientSaslOutput, String>,
        now: Instant,
    ) {
        match &self.phase {
            Phase::Opening(opening) if opening.id() == id => self.handle_opening_sasl(outcome, now),
            _ => {
                if let Some(place) = self.place(id) {
                    self.prove_to_link(place, outcome, now);
                }
            }
        }
    }

    /// An upstream connection could not be made, or has ended.
    pub fn handle_upstream_lost(&mut self, id: UpstreamId, lost: &Lost, now: Instant) {
        match &self.phase {
            Phase::Opening(opening) if opening.id() == id => self.try_next_target(lost, now),
            _ => {
                if let Some(place) = self.place(id) {
                    self.lose_link(place, lost, now);
                }
            }
        }
    }

    /// The daemon of an open connection that this connection is to.
    fn place(&self, id: UpstreamId) -> Option<links::Place> {
        match &self.phase {
            Phase::Serving(serving) => serving.links.find(id),
            _ => None,
        }
    }

    /// A turn has come that was to be acquired; `others` is what other calls on their way claim of
    /// each of its identities.
    pub fn handle_acquired(
        &mut self,
        turn: TurnId,
        others: Vec<(Arc<str>, Claims)>,
        router: &dyn Router,
        now: Instant,
    ) {
        self.count_in_turn(turn, others, router, now);
        self.fail_hopeless(now);
        self.settle(now);
    }

    /// A peer lives although no whole frame of it has been offered: part of one has arrived, or
    /// the shell leaves its bytes unread for now (a frame on hold, a full buffer for the other
    /// side). Called before [`Session::handle_timeout`], it keeps a peer that is not listened to
    /// from being taken for silent.
    pub fn handle_heard(&mut self, from: Peer, now: Instant) {
        match (from, &mut self.phase) {
            (Peer::Client, _) => {
                if let Some(keepalive) = &mut self.keepalive {
                    keepalive.heard(now);
                }
            }
            (Peer::Upstream(id), Phase::Serving(serving)) => {
                if let Some(place) = serving.links.find(id) {
                    serving.links.get_mut(place).heard(now);
                }
            }
            (Peer::Upstream(_), _) => {}
        }
    }

    /// The client will send no more, and every frame that it sent has been decided on. Calls that
    /// it made are still answered, within a bound; then it is closed. Its streams are not waited
    /// for: it can finish none of them, and a console would never end by itself.
    pub fn handle_client_eof(&mut self, now: Instant) {
        self.leaving.get_or_insert(now + LEAVE_DEADLINE);
        self.settle(now);
    }

    /// The daemon is to end: close as soon as nothing is outstanding, and take no new calls.
    pub fn handle_drain(&mut self, now: Instant) {
        self.draining = true;
        self.settle(now);
    }

    /// Answers what waits in vain, and closes the connection if it is to end and nothing is
    /// outstanding.
    fn settle(&mut self, now: Instant) {
        self.fail_hopeless(now);
        let leaving = self.leaving.is_some();
        let busy = match &self.phase {
            Phase::Authenticating(_) | Phase::Unopened { .. } => false,
            Phase::Serving(serving) => serving.has_calls() || (!leaving && serving.has_streams()),
            Phase::Opening(_) | Phase::Closing { .. } | Phase::Closed => true,
        };
        if (leaving || self.draining) && !busy {
            self.close(now);
        }
    }

    /// The connection is over, however it stands: what is left to be recorded of it comes out of
    /// [`Session::poll_action`].
    pub fn handle_end(&mut self) {
        if let Phase::Serving(serving) = &mut self.phase {
            serving.record_counts(&mut self.actions);
        }
    }

    /// The time of [`Session::poll_timeout`] has come; earlier calls do no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self
            .keepalive
            .as_mut()
            .map(|keepalive| keepalive.check(now))
        {
            Some(Silence::Ping) => self.send_ping(Peer::Client, ping::PING),
            Some(Silence::Dead) => {
                tracing::info!("the client answers no ping: closing");
                self.abort();
            }
            Some(Silence::Short) | None => {}
        }
        self.give_up_decisions(now);
        self.fail_hopeless(now);
        self.settle(now);
        match &mut self.phase {
            Phase::Authenticating(_) => self.authenticating_timeout(now),
            Phase::Unopened { deadline } if *deadline <= now => {
                tracing::info!("the client opened no connection in {OPEN_DEADLINE:?}: closing");
                self.abort();
            }
            Phase::Closing { deadline } if *deadline <= now => self.abort(),
            Phase::Opening(opening) if opening.deadline() <= now => {
                self.try_next_target(&Lost::TimedOut, now);
            }
            Phase::Serving(_) => self.look_at_links(now),
            _ => {}
        }
        if let Phase::Serving(_) = self.phase
            && self.leaving.is_some_and(|deadline| deadline <= now)
        {
            tracing::info!("the client left, and its calls do not end: closing");
            self.close(now);
        }
    }

    fn reply(&mut self, to: Header, payload: impl FnOnce(&mut Writer<'_>)) {
        let mut bytes = Vec::new();
        frame::write(&mut bytes, to.answer(Status::OK), payload);
        self.tell(bytes);
    }

    fn refuse(&mut self, to: Header, fault: &Fault) {
        let mut bytes = Vec::new();
        fault.answer(to, &mut bytes);
        self.tell(bytes);
    }

    fn tell(&mut self, bytes: Vec<u8>) {
        action::send(&mut self.actions, Peer::Client, bytes);
    }

    /// Ends the connection once the client has read what it is owed.
    fn close(&mut self, now: Instant) {
        self.disconnect();
        self.finish(now);
    }

    /// The upstream has been given up; the client still reads what it is owed.
    fn finish(&mut self, now: Instant) {
        self.phase = Phase::Closing {
            deadline: now + LINGER,
        };
        self.keepalive = None;
        self.actions.push_back(Action::Close);
    }

    /// Ends the connection at once.
    fn abort(&mut self) {
        self.disconnect();
        self.phase = Phase::Closed;
        self.keepalive = None;
        self.actions.push_back(Action::Abort);
    }

    /// Gives all upstreams up; the phase changes next.
    fn disconnect(&mut self) {
        self.handle_end();
        match &mut self.phase {
            Phase::Opening(opening) => {
                let id = opening.id();
                self.actions.push_back(Action::Disconnect(id));
            }
            Phase::Serving(serving) => serving.links.disconnect(&mut self.actions),
            Phase::Authenticating(_)
            | Phase::Unopened { .. }
            | Phase::Closing { .. }
            | Phase::Closed => {}
        }
    }

    /// The client waits for something under this serial, so that a second answer could not be told
    /// from the first.
    fn uses(&self, serial: Serial) -> bool {
        match &self.phase {
            Phase::Authenticating(auth) => auth.uses(serial),
            Phase::Opening(opening) => opening.uses(serial),
            Phase::Serving(serving) => serving.uses(serial),
            Phase::Unopened { .. } | Phase::Closing { .. } | Phase::Closed => false,
        }
    }

    /// A call of the proxy's own has this serial, and will be answered soon.
    fn occupies(&self, serial: Serial) -> bool {
        match &self.phase {
            Phase::Serving(serving) => serving.occupies(serial),
            _ => false,
        }
    }

    /// Descriptors pass as far as is known: before the upstream is open, the client's side decides.
    fn passes_descriptors(&self) -> bool {
        match &self.phase {
            Phase::Serving(serving) => serving.passes_descriptors(),
            _ => self.setup.descriptors,
        }
    }
}
