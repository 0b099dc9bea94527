//! The open connection: calls, replies, streams and events between a client and its daemon.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::access::quota::{Claims, TurnId};
use super::access::{Access, Line};
use super::calls::{Call, Calls, Effect};
use super::deadly;
use super::keepalive::{Keepalive, Silence};
use super::streams::{self, Streams};
use super::{Action, Lost, Peer, Phase, Router, Session, Setup, UpstreamId, Verdict};
use crate::policy::model::Upstream;
use crate::protocol::fault::Fault;
use crate::protocol::frame::{self, Frame};
use crate::protocol::header::{Header, MessageType, Procedure, Program, Serial, Status, VERSION};
use crate::protocol::table::{self, remote};

/// Calls that one connection may have outstanding; the next waits in the client's socket. libvirt's
/// daemons serve 5 of a client at once and read no more, so that real clients stay far below; the
/// bound keeps the list of outstanding calls small.
const CALLS: usize = 1024;

/// Streams that one connection may hold open. Each costs the daemon a descriptor or a thread.
const STREAMS: usize = 256;

/// `virConnectCloseReason`.
const CLOSED_EOF: i32 = 1;
const CLOSED_KEEPALIVE: i32 = 2;

/// An open connection.
#[derive(Debug)]
pub(super) struct Serving {
    id: UpstreamId,
    upstream: Arc<Upstream>,
    /// Runs where the daemon answers pings.
    keepalive: Option<Keepalive>,
    /// Both sides can carry descriptors.
    descriptors: bool,
    calls: Calls,
    streams: Streams,
    /// The client has registered a close callback.
    watches_close: bool,
    /// What the client may do, if that is not everything.
    access: Option<Box<Access>>,
    /// Number of the policy that `access` is by; 0 is none.
    generation: u64,
}

impl Serving {
    pub(super) fn new(
        id: UpstreamId,
        upstream: Arc<Upstream>,
        keepalive: Option<Keepalive>,
        descriptors: bool,
    ) -> Self {
        Self {
            id,
            upstream,
            keepalive,
            descriptors,
            calls: Calls::default(),
            streams: Streams::default(),
            watches_close: false,
            access: None,
            generation: 0,
        }
    }

    pub(super) fn id(&self) -> UpstreamId {
        self.id
    }

    /// A call or a stream of the client's has this serial.
    pub(super) fn uses(&self, serial: Serial) -> bool {
        self.calls.has(serial) || self.streams.has(serial) || self.waits(serial)
    }

    /// A call of the client's waits for a decision under this serial.
    fn waits(&self, serial: Serial) -> bool {
        let access = self.access.as_deref();
        access.is_some_and(|access| access.uses(serial))
    }

    /// A call of the proxy's own has this serial.
    pub(super) fn occupies(&self, serial: Serial) -> bool {
        let is_own = |access: &Access| access.is_own(&self.calls, serial);
        self.access.as_deref().is_some_and(is_own)
    }

    pub(super) fn has_calls(&self) -> bool {
        match &self.access {
            None => !self.calls.is_empty(),
            Some(access) => access.has_calls(&self.calls),
        }
    }

    pub(super) fn has_streams(&self) -> bool {
        !self.streams.is_empty()
    }

    pub(super) fn passes_descriptors(&self) -> bool {
        self.descriptors
    }

    /// There are rules about what the client may do.
    pub(super) fn has_rules(&self) -> bool {
        self.access.is_some()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let keepalive = self.keepalive.as_ref().map(Keepalive::deadline);
        let access = self.access.as_ref().and_then(|access| access.deadline());
        keepalive.into_iter().chain(access).min()
    }

    pub(super) fn heard(&mut self, now: Instant) {
        if let Some(keepalive) = &mut self.keepalive {
            keepalive.heard(now);
        }
    }

    pub(super) fn check_silence(&mut self, now: Instant) -> Silence {
        self.keepalive
            .as_mut()
            .map_or(Silence::Short, |keepalive| keepalive.check(now))
    }

    /// Looks whether another policy is in force.
    fn refresh(&mut self, router: &dyn Router, setup: &Setup, actions: &mut VecDeque<Action>) {
        let generation = router.generation();
        if self.generation == generation {
            return;
        }
        self.generation = generation;
        // What was refused by the old policy is told apart from what the new one refuses.
        self.record_counts(actions);
        match (&mut self.access, router.access(&setup.facts)) {
            (Some(access), table) => access.set_table(table, generation),
            (none, Some(table)) => {
                let access = Access::new(table, generation, &self.upstream.name, setup);
                *none = Some(Box::new(access));
            }
            (None, None) => {}
        }
    }

    /// What decides, where there are rules, and what it decides on.
    fn rules<'a>(
        &'a mut self,
        actions: &'a mut VecDeque<Action>,
        now: Instant,
    ) -> Option<(&'a mut Access, Line<'a>)> {
        let line = Line {
            upstream: self.id,
            calls: &mut self.calls,
            streams: &self.streams,
            actions,
            now,
        };
        Some((self.access.as_deref_mut()?, line))
    }

    /// The client's call behind an outstanding one that the daemon will not answer; `None` if it
    /// is the proxy's own.
    fn original(&mut self, call: &Call, actions: &mut VecDeque<Action>) -> Option<Header> {
        match &mut self.access {
            None => Some(call.header()),
            Some(access) => access.original(call, actions),
        }
    }

    /// Records what is not recorded yet of refused calls.
    pub(super) fn record_counts(&mut self, actions: &mut VecDeque<Action>) {
        if let Some(access) = &mut self.access {
            access.record_counts(actions);
        }
    }

    /// Notes a good reply.
    fn note_reply(&mut self, call: &Call) {
        match call.effect {
            Effect::None => {}
            Effect::OpenStream => self.streams.open(call),
            Effect::WatchClose => self.watches_close = true,
            Effect::UnwatchClose => self.watches_close = false,
        }
    }
}

/// What a good reply to a call of this procedure changes.
fn effect(program: Program, procedure: Procedure) -> Effect {
    match (program, procedure) {
        (Program::REMOTE, remote::CONNECT_REGISTER_CLOSE_CALLBACK) => Effect::WatchClose,
        (Program::REMOTE, remote::CONNECT_UNREGISTER_CLOSE_CALLBACK) => Effect::UnwatchClose,
        _ => match table::lookup(program, procedure).and_then(|row| row.stream) {
            Some(_) => Effect::OpenStream,
            None => Effect::None,
        },
    }
}

impl Session {
    /// A frame of the client's on an open connection.
    pub(super) fn serve_client(
        &mut self,
        frame: &Frame<'_>,
        router: &dyn Router,
        now: Instant,
    ) -> Verdict {
        let Phase::Serving(serving) = &mut self.phase else {
            return Verdict::Hold;
        };
        let header = frame.header;
        if header.kind.is_call() {
            return self.serve_call(frame, router, now);
        }
        if !header.kind.is_stream() {
            // Replies, events and unknown types: libvirt's daemon ignores them from a client.
            return Verdict::Consumed;
        }
        match serving.streams.upstream_of(&header) {
            Some(upstream) => Verdict::Relay(Peer::Upstream(upstream)),
            // It may be of a call that is not decided on yet.
            None if serving.waits(header.serial) => Verdict::Hold,
            None => Verdict::Consumed,
        }
    }

    fn serve_call(&mut self, frame: &Frame<'_>, router: &dyn Router, now: Instant) -> Verdict {
        let header = frame.header;
        let Phase::Serving(serving) = &mut self.phase else {
            return Verdict::Hold;
        };
        serving.refresh(router, &self.setup, &mut self.actions);
        let (program, procedure) = (header.program, header.procedure);
        let effect = effect(program, procedure);
        let fault = if self.leaving.is_some() {
            Some(Fault::not_open())
        } else if self.draining {
            Some(Fault::draining())
        } else if (program, procedure) == (Program::REMOTE, remote::CONNECT_OPEN) {
            Some(Fault::already_open())
        } else if header.kind == MessageType::CALL_WITH_FDS && !serving.descriptors {
            Some(Fault::no_descriptors())
        } else if deadly::is_deadly(frame) {
            tracing::warn!(?procedure, "a call that would kill the daemon is refused");
            Some(Fault::deadly())
        } else if effect == Effect::OpenStream
            && serving.streams.len() + serving.calls.streams() >= STREAMS
        {
            Some(Fault::too_many_streams())
        } else {
            None
        };
        if let Some(fault) = fault {
            self.refuse(header, &fault);
            return Verdict::Consumed;
        }
        if serving.calls.len() >= CALLS {
            return Verdict::Hold;
        }
        if !is_forwarded_identity(program, procedure)
            && let Some((access, mut line)) = serving.rules(&mut self.actions, now)
        {
            return access.call(frame, effect, &mut line);
        }
        let call = Call::new(&header, serving.id, effect, None);
        serving.calls.push(call);
        Verdict::Relay(Peer::Upstream(serving.id))
    }

    /// A frame of the daemon's on an open connection.
    pub(super) fn serve_upstream(
        &mut self,
        from: UpstreamId,
        frame: &Frame<'_>,
        router: &dyn Router,
        now: Instant,
    ) -> Verdict {
        let Phase::Serving(serving) = &mut self.phase else {
            return Verdict::Consumed;
        };
        serving.refresh(router, &self.setup, &mut self.actions);
        let header = frame.header;
        let broken = if header.kind.is_reply() {
            match self.serve_reply(from, frame, now) {
                Some(verdict) => return self.settle_after(verdict, now),
                None => "a reply that nobody waits for",
            }
        } else if header.kind.is_stream() {
            if serving.streams.is_from(from, &header) {
                if streams::is_end(&header) {
                    serving.streams.end(&header);
                }
            } else if !serving.calls.note_early_stream(from, &header) {
                return Verdict::Consumed;
            }
            return self.settle_after(Verdict::Relay(Peer::Client), now);
        } else if header.kind == MessageType::MESSAGE {
            return match serving.rules(&mut self.actions, now) {
                Some((access, mut line)) => access.event(frame, &mut line),
                None => Verdict::Relay(Peer::Client),
            };
        } else {
            "a frame that no daemon sends"
        };
        self.handle_upstream_lost(from, &Lost::Protocol(broken.into()), now);
        Verdict::Consumed
    }

    /// Counts the call whose turn has come.
    pub(super) fn count_in_turn(
        &mut self,
        turn: TurnId,
        others: Vec<(Arc<str>, Claims)>,
        router: &dyn Router,
        now: Instant,
    ) {
        if let Phase::Serving(serving) = &mut self.phase {
            serving.refresh(router, &self.setup, &mut self.actions);
            if let Some((access, mut line)) = serving.rules(&mut self.actions, now) {
                access.acquired(turn, others, &mut line);
                return;
            }
        }
        let is_known = true;
        self.actions.push_back(Action::Release { turn, is_known });
    }

    /// Gives up what has waited too long for a decision.
    pub(super) fn give_up_decisions(&mut self, now: Instant) {
        if let Phase::Serving(serving) = &mut self.phase
            && let Some((access, mut line)) = serving.rules(&mut self.actions, now)
        {
            access.give_up(&mut line);
        }
    }

    /// A reply; `None` if it answers nothing.
    fn serve_reply(
        &mut self,
        from: UpstreamId,
        frame: &Frame<'_>,
        now: Instant,
    ) -> Option<Verdict> {
        let Phase::Serving(serving) = &mut self.phase else {
            return None;
        };
        let header = &frame.header;
        let Some(call) = serving.calls.answer(from, header) else {
            // A stream whose hole could not be written is ended by an error reply.
            let ends_stream = header.kind == MessageType::REPLY
                && header.status == Status::ERROR
                && serving.streams.is_from(from, header);
            if !ends_stream {
                return None;
            }
            serving.streams.end(header);
            return Some(Verdict::Relay(Peer::Client));
        };
        if header.kind == MessageType::REPLY_WITH_FDS && !serving.descriptors {
            if let Some(called) = serving.original(&call, &mut self.actions) {
                self.refuse(called, &Fault::no_descriptors());
            }
            return Some(Verdict::Consumed);
        }
        if header.status == Status::OK {
            serving.note_reply(&call);
        }
        if let Some(note) = call.note
            && let Some((access, mut line)) = serving.rules(&mut self.actions, now)
        {
            return Some(access.reply(note, frame, &mut line));
        }
        Some(Verdict::Relay(Peer::Client))
    }

    /// The last answer to a client that is leaving, or while draining, closes the connection. The
    /// shell carries out the verdict first, then the action.
    fn settle_after(&mut self, verdict: Verdict, now: Instant) -> Verdict {
        self.settle(now);
        verdict
    }

    /// The daemon is gone: every call gets an answer, every stream its abort, and the client hears
    /// of it before the connection closes.
    pub(super) fn lose_upstream(&mut self, lost: &Lost, now: Instant) {
        let Phase::Serving(serving) = &mut self.phase else {
            return;
        };
        let id = serving.id;
        let name = &*serving.upstream.name;
        tracing::warn!(upstream = name, why = %lost, "upstream lost");
        let fault = Fault::upstream_lost(name, &lost.to_string());
        let mut bytes = Vec::new();
        for call in serving.calls.fail(id) {
            if let Some(call) = serving.original(&call, &mut self.actions) {
                fault.answer(call, &mut bytes);
            }
        }
        if let Some(access) = &mut serving.access {
            for call in access.abandon(&mut self.actions) {
                fault.answer(call, &mut bytes);
            }
        }
        for stream in serving.streams.fail(id) {
            frame::write(&mut bytes, stream.abort(), |writer| fault.encode(writer));
        }
        if serving.watches_close {
            let silent = matches!(lost, Lost::Silent);
            let reason = if silent { CLOSED_KEEPALIVE } else { CLOSED_EOF };
            frame::write(&mut bytes, connection_closed(), |writer| {
                _ = writer.i32(reason)
            });
        }
        // First of all, so that nothing of this overtakes what the daemon said.
        self.disconnect();
        if !bytes.is_empty() {
            let to = Peer::Client;
            self.actions.push_back(Action::Send { to, bytes });
        }
        self.finish(now);
    }
}

/// Who speaks for whom is not for the access rules but for `trusted_forwarders`, which was asked.
fn is_forwarded_identity(program: Program, procedure: Procedure) -> bool {
    (program, procedure) == (Program::REMOTE, remote::CONNECT_SET_IDENTITY)
}

/// Header of the event that tells a client of its lost connection.
fn connection_closed() -> Header {
    Header {
        program: Program::REMOTE,
        version: VERSION,
        procedure: remote::CONNECT_EVENT_CONNECTION_CLOSED,
        kind: MessageType::MESSAGE,
        serial: Serial(0),
        status: Status::OK,
    }
}
