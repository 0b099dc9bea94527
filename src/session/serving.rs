//! The open connection: calls, replies, streams and events between a client and its daemons.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::access::quota::{Claims, TurnId};
use super::access::{Access, Line};
use super::callbacks::{self, Fate};
use super::calls::{Call, Calls, Effect};
use super::deadly;
use super::links::{Link, Links, Outgoing, PRIMARY, Place};
use super::streams::{self, Streams};
use super::{Action, Lost, Peer, Phase, Router, Session, Setup, UpstreamId, Verdict, action};
use crate::protocol::args::Feature;
use crate::protocol::fault::Fault;
use crate::protocol::frame::{self, Frame};
use crate::protocol::header::{Header, MessageType, Procedure, Program, Serial, Status};
use crate::protocol::limits;
use crate::protocol::table::{self, remote};
use crate::protocol::xdr::Writer;

/// Calls that one connection may have outstanding; the next waits in the client's socket. libvirt's
/// daemons serve 5 of a client at once and read no more, so that real clients stay far below; the
/// bound keeps the list of outstanding calls small.
const CALLS: usize = 1024;

/// Streams that one connection may hold open. Each costs the daemon a descriptor or a thread.
const STREAMS: usize = 256;

/// An open connection.
#[derive(Debug)]
pub(super) struct Serving {
    pub(super) links: Links,
    /// The client's socket carries descriptors.
    descriptors: bool,
    pub(super) calls: Calls,
    pub(super) streams: Streams,
    /// What the client may do, if that is not everything.
    pub(super) access: Option<Box<Access>>,
    /// Number of the policy that `access` is by; 0 is none.
    generation: u64,
}

impl Serving {
    pub(super) fn new(links: Links, descriptors: bool) -> Self {
        Self {
            links,
            descriptors,
            calls: Calls::default(),
            streams: Streams::default(),
            access: None,
            generation: 0,
        }
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
        self.passes_to(self.links.get(PRIMARY))
    }

    fn passes_to(&self, link: &Link) -> bool {
        self.descriptors && link.carries_descriptors()
    }

    /// There are rules about what the client may do.
    pub(super) fn has_rules(&self) -> bool {
        self.access.is_some()
    }

    /// The answer to a question for a feature, where the daemon has given it before and the rules
    /// let the client ask.
    fn known_feature(&self, frame: &Frame<'_>) -> Option<i32> {
        let (program, procedure) = (frame.header.program, frame.header.procedure);
        if (program, procedure) != (Program::REMOTE, remote::CONNECT_SUPPORTS_FEATURE) {
            return None;
        }
        let access = self.access.as_deref();
        if access.is_some_and(|access| !access.relays(program, procedure)) {
            return None;
        }
        self.links.feature(Feature::decode(frame.arguments()).ok()?)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let access = self.access.as_ref().and_then(|access| access.deadline());
        self.links.deadline().into_iter().chain(access).min()
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
                let access = Access::new(table, generation, setup);
                *none = Some(Box::new(access));
            }
            (None, None) => {}
        }
    }

    /// What decides, where there are rules, and what it decides on.
    pub(super) fn rules<'a>(
        &'a mut self,
        actions: &'a mut VecDeque<Action>,
        now: Instant,
    ) -> Option<(&'a mut Access, Line<'a>)> {
        let out = Outgoing {
            calls: &mut self.calls,
            actions,
            now,
        };
        let line = Line {
            links: &mut self.links,
            streams: &self.streams,
            out,
        };
        Some((self.access.as_deref_mut()?, line))
    }

    /// The daemons, and what calls to them go by.
    pub(super) fn out<'a>(
        &'a mut self,
        actions: &'a mut VecDeque<Action>,
        now: Instant,
    ) -> (&'a mut Links, Outgoing<'a>) {
        let calls = &mut self.calls;
        let out = Outgoing {
            calls,
            actions,
            now,
        };
        (&mut self.links, out)
    }

    /// Records what is not recorded yet of refused calls.
    pub(super) fn record_counts(&mut self, actions: &mut VecDeque<Action>) {
        if let Some(access) = &mut self.access {
            access.record_counts(actions);
        }
    }
}

/// What a good reply to a call of this procedure changes.
fn effect(program: Program, procedure: Procedure) -> Effect {
    if is_forwarded_identity(program, procedure) {
        return Effect::Identity;
    }
    match table::lookup(program, procedure).and_then(|row| row.stream) {
        Some(_) => Effect::OpenStream,
        None => callbacks::effect(program, procedure),
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
        let place = serving.links.place_for(program, procedure);
        let link = serving.links.get(place);
        let fault = if self.leaving.is_some() {
            Some(Fault::not_open())
        } else if self.draining {
            Some(Fault::draining())
        } else if (program, procedure) == (Program::REMOTE, remote::CONNECT_OPEN) {
            Some(Fault::already_open())
        } else if header.kind == MessageType::CALL_WITH_FDS && !serving.passes_to(link) {
            // Where they could pass later, the frame cannot wait: it is its socket's.
            Some(Fault::no_descriptors())
        } else if effect == Effect::Identity && !serving.links.has_only_primary() {
            Some(Fault::access_denied(
                "for whom a client calls is said before its first call",
            ))
        } else if effect == Effect::Identity && frame.payload.len() > limits::IDENTITY {
            Some(Fault::undecodable())
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
        if let Some(answer) = serving.known_feature(frame) {
            self.reply(header, |writer| _ = writer.i32(answer));
            return Verdict::Consumed;
        }
        if serving.calls.len() >= CALLS
            || serving.links.is_full(place, frame.len())
            || serving.links.is_forwarding()
        {
            return Verdict::Hold;
        }
        if effect == Effect::Identity {
            serving.links.forward(frame.arguments());
        }
        let verdict = if effect != Effect::Identity
            && let Some((access, mut line)) = serving.rules(&mut self.actions, now)
        {
            access.call(frame, effect, &mut line)
        } else {
            let (links, mut out) = serving.out(&mut self.actions, now);
            links.pass(frame, effect, None, &mut out)
        };
        self.fail_hopeless(now);
        verdict
    }

    /// A frame of a daemon's on an open connection.
    pub(super) fn serve_upstream(
        &mut self,
        from: UpstreamId,
        place: Place,
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
            match self.serve_reply(from, place, frame, now) {
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
            let verdict = self.serve_event(place, frame, now);
            return self.settle_after(verdict, now);
        } else {
            "a frame that no daemon sends"
        };
        self.handle_upstream_lost(from, &Lost::Protocol(broken.into()), now);
        Verdict::Consumed
    }

    /// An event, under the number that the client knows its registration by.
    fn serve_event(&mut self, place: Place, frame: &Frame<'_>, now: Instant) -> Verdict {
        let Phase::Serving(serving) = &mut self.phase else {
            return Verdict::Consumed;
        };
        if !serving.links.is_place_of(place, &frame.header) {
            return Verdict::Consumed;
        }
        match serving.links.get_mut(place).callbacks.event(frame) {
            Fate::Same => self.judge_event(frame, now),
            Fate::Other(payload) => {
                self.tell_event(frame.header, &payload, now);
                Verdict::Consumed
            }
            Fate::Kept => Verdict::Consumed,
        }
    }

    /// Whether the client may hear of it.
    fn judge_event(&mut self, frame: &Frame<'_>, now: Instant) -> Verdict {
        if let Phase::Serving(serving) = &mut self.phase
            && let Some((access, mut line)) = serving.rules(&mut self.actions, now)
        {
            return access.event(frame, &mut line);
        }
        Verdict::Relay(Peer::Client)
    }

    /// An event that is not, or no longer, in a frame of the daemon's.
    pub(super) fn tell_event(&mut self, header: Header, payload: &[u8], now: Instant) {
        let frame = Frame {
            header,
            payload,
            descriptors: 0,
        };
        if let Verdict::Relay(to) = self.judge_event(&frame, now) {
            action::send(&mut self.actions, to, frame::encode(header, payload));
        }
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
        place: Place,
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
        if header.kind == MessageType::REPLY_WITH_FDS
            && !serving.passes_to(serving.links.get(place))
        {
            let mut payload = Vec::new();
            Fault::no_descriptors().encode(&mut Writer::new(&mut payload));
            self.fail_calls(vec![call], &payload, now);
            return Some(Verdict::Consumed);
        }
        serving.links.get_mut(place).is_unproven = false;
        let good = header.status == Status::OK;
        match call.effect {
            Effect::OpenStream if good => serving.streams.open(&call),
            Effect::Register | Effect::Deregister => {
                return Some(self.serve_registration(&call, place, frame, now));
            }
            Effect::Identity => serving.links.forwarded(good),
            Effect::OpenStream | Effect::None => {}
        }
        Some(self.pass_reply(&call, frame, now))
    }

    fn pass_reply(&mut self, call: &Call, frame: &Frame<'_>, now: Instant) -> Verdict {
        if let Some(note) = call.note
            && let Phase::Serving(serving) = &mut self.phase
            && let Some((access, mut line)) = serving.rules(&mut self.actions, now)
        {
            return access.reply(note, frame, &mut line);
        }
        Verdict::Relay(Peer::Client)
    }

    /// A reply to a call that registers or deregisters, under the number that the client is to know
    /// the registration by; then the events that came before it.
    fn serve_registration(
        &mut self,
        call: &Call,
        place: Place,
        frame: &Frame<'_>,
        now: Instant,
    ) -> Verdict {
        let Phase::Serving(serving) = &mut self.phase else {
            return Verdict::Consumed;
        };
        let Frame {
            header, payload, ..
        } = *frame;
        let callbacks = &mut serving.links.get_mut(place).callbacks;
        let good = header.status == Status::OK;
        let translated = callbacks.answered(header.serial, good, payload);
        let early = callbacks.take_early();
        let verdict = match translated {
            None => self.pass_reply(call, frame, now),
            Some(payload) => {
                let frame = Frame {
                    payload: &payload,
                    ..*frame
                };
                if let Verdict::Relay(to) = self.pass_reply(call, &frame, now) {
                    action::send(&mut self.actions, to, frame::encode(header, &payload));
                }
                Verdict::Consumed
            }
        };
        for (header, payload) in early {
            self.tell_event(header, &payload, now);
        }
        verdict
    }

    /// The last answer to a client that is leaving, or while draining, closes the connection. The
    /// shell carries out the verdict first, then the action.
    fn settle_after(&mut self, verdict: Verdict, now: Instant) -> Verdict {
        self.settle(now);
        verdict
    }
}

/// Who speaks for whom is not for the access rules but for `trusted_forwarders`, which was asked.
fn is_forwarded_identity(program: Program, procedure: Procedure) -> bool {
    (program, procedure) == (Program::REMOTE, remote::CONNECT_SET_IDENTITY)
}
