//! The dialogue that opens an upstream for a client: authentication, `CONNECT_OPEN` with the
//! client's flags, and its identity. The client gets its answer when all of it is done, so that no
//! call of its can run before the daemon knows whose it is.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::access::refusal;
use super::serving::Serving;
use super::{
    Action, Keepalive, Lost, OPEN_DEADLINE, OPENS, Peer, Phase, Router, Session, UpstreamId,
    identity,
};
use crate::policy::access::Gate;
use crate::policy::model::{ForwardIdentity, Routed, Target, Upstream};
use crate::protocol::args::{self, AuthType, ConnectOpen, Feature, OPEN_READONLY};
use crate::protocol::fault::{self, Fault};
use crate::protocol::frame::{self, Frame};
use crate::protocol::header::{Header, Procedure, Program, Serial, Status};
use crate::protocol::limits;
use crate::protocol::table::remote;
use crate::protocol::xdr::Writer;

const UNREADABLE: Lost = Lost::Protocol(Cow::Borrowed("a reply that cannot be read"));

/// An upstream that is being opened.
#[derive(Debug)]
pub(super) struct Opening {
    /// Header of the client's `CONNECT_OPEN`, to be answered.
    call: Header,
    flags: u32,
    target: Target,
    /// What to try if the target is not alive.
    others: VecDeque<Target>,
    id: UpstreamId,
    deadline: Instant,
    descriptors: bool,
    waiting: Vec<Own>,
    answers_pings: bool,
    next_serial: u32,
}

/// A call of the proxy's own that has not been answered.
#[derive(Debug, Clone, Copy)]
struct Own {
    serial: Serial,
    procedure: Procedure,
}

impl Opening {
    pub(super) fn id(&self) -> UpstreamId {
        self.id
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The client's `CONNECT_OPEN` has this serial.
    pub(super) fn uses(&self, serial: Serial) -> bool {
        self.call.serial == serial
    }

    fn upstream(&self) -> &Arc<Upstream> {
        &self.target.upstream
    }

    /// The first frames for a new connection.
    pub(super) fn begin(&mut self, descriptors: bool) -> Vec<u8> {
        self.descriptors = descriptors;
        let mut out = Vec::new();
        self.call(&mut out, remote::AUTH_LIST, |_| ());
        out
    }

    /// Appends a call of the proxy's own. No frame of the client's travels before the dialogue is
    /// over, so that these serials, which run downwards, can meet none of its.
    fn call(
        &mut self,
        out: &mut Vec<u8>,
        procedure: Procedure,
        arguments: impl FnOnce(&mut Writer<'_>),
    ) {
        let serial = Serial(self.next_serial);
        self.next_serial = self.next_serial.wrapping_sub(1);
        self.waiting.push(Own { serial, procedure });
        frame::write(out, Header::remote_call(procedure, serial), arguments);
    }

    /// Takes the own call that this reply answers.
    fn answered(&mut self, reply: &Header) -> Option<Procedure> {
        let place = self.waiting.iter().position(|own| {
            Header::remote_call(own.procedure, own.serial).answer(reply.status) == *reply
        })?;
        Some(self.waiting.swap_remove(place).procedure)
    }

    /// `CONNECT_OPEN`; and the question whether the daemon answers pings, which needs no open
    /// connection, so that it costs no round trip of its own.
    fn connect_open(&mut self, out: &mut Vec<u8>) {
        if self.upstream().keepalive.interval.is_some() {
            let feature = Feature::KEEPALIVE.0;
            self.call(out, remote::CONNECT_SUPPORTS_FEATURE, |writer| {
                _ = writer.i32(feature)
            });
        }
        let (name, flags) = (self.target.open_uri.clone(), self.flags);
        self.call(out, remote::CONNECT_OPEN, |writer| {
            ConnectOpen {
                name: Some(&name),
                flags,
            }
            .encode(writer);
        });
    }
}

impl Session {
    /// The client's `CONNECT_OPEN`: routes it and dials the first target.
    pub(super) fn open(&mut self, frame: &Frame<'_>, router: &dyn Router, now: Instant) {
        let call = frame.header;
        match self.find_targets(frame, router) {
            Ok((flags, target, others)) => self.dial(call, flags, target, others, now),
            Err(fault) => {
                self.refuse(call, &fault);
                self.note_failed_open(now);
            }
        }
    }

    /// The flags to open with, the first target, and what to try if it is not alive.
    fn find_targets(
        &mut self,
        frame: &Frame<'_>,
        router: &dyn Router,
    ) -> Result<(u32, Target, VecDeque<Target>), Fault> {
        let open = ConnectOpen::decode(frame.arguments()).map_err(|_| Fault::undecodable())?;
        if self.draining {
            return Err(Fault::draining());
        }
        let uri = open.name.unwrap_or_default();
        if uri.len() > limits::URI {
            return Err(Fault::no_connection(uri));
        }
        let facts = &self.setup.facts;
        let flags = if facts.readonly {
            open.flags | OPEN_READONLY
        } else {
            open.flags
        };
        if let Some(table) = router.access(facts)
            && let Gate::Refuse(denial) = table.gate(Program::REMOTE, remote::CONNECT_OPEN)
        {
            tracing::info!(uri, client = %facts, "the access rules let the client open nothing");
            // No other refusal of this connection has such an id: these are before any daemon.
            let id = format!("{}-o{}", self.setup.refusals, self.failed_opens + 1);
            let record = refusal::of_open(id.into(), denial, &table, router.generation());
            let fault = Fault::denied(&record.reason, &record.id);
            self.actions.push_back(Action::Audit(Box::new(record)));
            return Err(fault);
        }
        let mut targets = match router.route(facts, uri) {
            Routed::Try(targets) => VecDeque::from(targets),
            Routed::NoRoute => VecDeque::new(),
        };
        match targets.pop_front() {
            Some(target) => Ok((flags, target, targets)),
            None => {
                tracing::info!(uri, listener = &*facts.listener, client = %facts, "no route");
                Err(Fault::no_connection(uri))
            }
        }
    }

    fn dial(
        &mut self,
        call: Header,
        flags: u32,
        target: Target,
        others: VecDeque<Target>,
        now: Instant,
    ) {
        let id = UpstreamId(self.next_upstream);
        self.next_upstream = self.next_upstream.wrapping_add(1);
        let upstream = Arc::clone(&target.upstream);
        let deadline = now + upstream.connect_timeout;
        self.phase = Phase::Opening(Box::new(Opening {
            call,
            flags,
            target,
            others,
            id,
            deadline,
            descriptors: false,
            waiting: Vec::new(),
            answers_pings: false,
            next_serial: u32::MAX,
        }));
        let readonly = flags & OPEN_READONLY != 0;
        self.actions.push_back(Action::Connect {
            id,
            upstream,
            readonly,
        });
    }

    /// The target cannot be used: the next one, or an error for the client.
    pub(super) fn try_next_target(&mut self, lost: &Lost, now: Instant) {
        let fault = |upstream: &str| Fault::unreachable(upstream, &lost.to_string());
        self.leave_target(fault, &lost.to_string(), now);
    }

    /// The target has not opened in time.
    pub(super) fn fail_opening_in_time(&mut self, now: Instant) {
        self.leave_target(Fault::open_timeout, "no answer in time", now);
    }

    fn leave_target(&mut self, fault: impl FnOnce(&str) -> Fault, why: &str, now: Instant) {
        let Phase::Opening(opening) = &mut self.phase else {
            return;
        };
        let upstream = Arc::clone(opening.upstream());
        tracing::warn!(upstream = &*upstream.name, why, "cannot open the upstream");
        let (call, flags) = (opening.call, opening.flags);
        let mut others = std::mem::take(&mut opening.others);
        self.disconnect();
        match others.pop_front() {
            Some(target) => self.dial(call, flags, target, others, now),
            None => {
                self.refuse(call, &fault(&upstream.name));
                self.reopen(now);
            }
        }
    }

    /// Back to the beginning after a failed open: the client may try another URI.
    fn reopen(&mut self, now: Instant) {
        self.phase = Phase::Unopened {
            deadline: now + OPEN_DEADLINE,
        };
        self.note_failed_open(now);
        self.settle(now);
    }

    fn note_failed_open(&mut self, now: Instant) {
        self.failed_opens += 1;
        if self.failed_opens >= OPENS {
            tracing::info!("the client has failed to open {OPENS} times: closing");
            self.close(now);
        }
    }

    /// A frame from the upstream that is being opened.
    pub(super) fn handle_opening_reply(&mut self, frame: &Frame<'_>, now: Instant) {
        let Phase::Opening(opening) = &mut self.phase else {
            return;
        };
        let Some(procedure) = opening.answered(&frame.header) else {
            let lost = Lost::Protocol("a reply that nobody waits for".into());
            self.try_next_target(&lost, now);
            return;
        };
        let outcome = match frame.header.status {
            Status::OK => self.step_opening(procedure, frame.payload),
            Status::ERROR => self.fail_opening_step(procedure, frame.payload, now),
            _ => Err(UNREADABLE),
        };
        match outcome {
            Err(lost) => self.try_next_target(&lost, now),
            Ok(()) => self.finish_opening(now),
        }
    }

    /// One of the proxy's calls was answered well: makes the next.
    fn step_opening(&mut self, procedure: Procedure, payload: &[u8]) -> Result<(), Lost> {
        let Phase::Opening(opening) = &mut self.phase else {
            return Ok(());
        };
        let mut out = Vec::new();
        match procedure {
            remote::AUTH_LIST => match AuthType::decode_list(payload) {
                Ok(AuthType::NONE) => opening.connect_open(&mut out),
                Ok(AuthType::POLKIT) => opening.call(&mut out, remote::AUTH_POLKIT, |_| ()),
                Ok(AuthType(other)) => {
                    let why = format!("the daemon asks for authentication of type {other}");
                    return Err(Lost::Unreachable(why));
                }
                Err(_) => return Err(UNREADABLE),
            },
            remote::AUTH_POLKIT => opening.connect_open(&mut out),
            remote::CONNECT_SUPPORTS_FEATURE => {
                let supported = args::decode_word(payload).map_err(|_| UNREADABLE)?;
                opening.answers_pings = supported != 0;
            }
            remote::CONNECT_OPEN if opening.upstream().identity != ForwardIdentity::Never => {
                let params = identity::params(&self.setup.facts);
                opening.call(&mut out, remote::CONNECT_SET_IDENTITY, |writer| {
                    args::encode_identity(&params, writer);
                });
            }
            _ => {}
        }
        if !out.is_empty() {
            let to = Peer::Upstream(opening.id());
            self.actions.push_back(Action::Send { to, bytes: out });
        }
        Ok(())
    }

    /// One of the proxy's calls was answered by an error: goes on without, gives the target up, or
    /// tells the client.
    fn fail_opening_step(
        &mut self,
        procedure: Procedure,
        payload: &[u8],
        now: Instant,
    ) -> Result<(), Lost> {
        let Phase::Opening(opening) = &self.phase else {
            return Ok(());
        };
        let upstream = opening.upstream();
        let text = fault::message(payload).map_err(|_| UNREADABLE)?;
        match procedure {
            remote::CONNECT_SUPPORTS_FEATURE => Ok(()),
            remote::CONNECT_SET_IDENTITY if upstream.identity == ForwardIdentity::Try => {
                tracing::info!(upstream = &*upstream.name, error = text, "identity refused");
                Ok(())
            }
            remote::CONNECT_OPEN => {
                tracing::info!(upstream = &*upstream.name, error = text, "open refused");
                self.refuse_open(payload, now);
                Ok(())
            }
            _ => Err(Lost::Unreachable(text)),
        }
    }

    /// The daemon refused to open: the client is told in its own words, as it would be without a
    /// proxy.
    fn refuse_open(&mut self, error: &[u8], now: Instant) {
        let Phase::Opening(opening) = &self.phase else {
            return;
        };
        let mut bytes = Vec::new();
        frame::write(&mut bytes, opening.call.answer(Status::ERROR), |writer| {
            writer.raw(error);
        });
        self.disconnect();
        let to = Peer::Client;
        self.actions.push_back(Action::Send { to, bytes });
        self.reopen(now);
    }

    /// Opens the connection to the client once nothing is outstanding.
    fn finish_opening(&mut self, now: Instant) {
        let Phase::Opening(opening) = &self.phase else {
            return;
        };
        if !opening.waiting.is_empty() {
            return;
        }
        let call = opening.call;
        let upstream = Arc::clone(opening.upstream());
        let keepalive = if opening.answers_pings {
            Keepalive::start(upstream.keepalive, now)
        } else {
            None
        };
        let descriptors = opening.descriptors && self.setup.descriptors;
        let serving = Serving::new(opening.id(), upstream, keepalive, descriptors);
        self.phase = Phase::Serving(Box::new(serving));
        self.reply(call, |_| ());
        self.settle(now);
    }
}
