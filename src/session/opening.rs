//! A client's `CONNECT_OPEN`: it is routed, the daemon is dialled and opened, and the client gets its
//! answer when all of that is done.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::access::refusal;
use super::callbacks::Callbacks;
use super::dialogue::{Dialogue, Opened, Progress};
use super::links::Links;
use super::serving::Serving;
use super::{
    Action, ClientSaslOutput, Lost, OPEN_DEADLINE, OPENS, Phase, Router, Session, UpstreamId,
};
use crate::policy::access::Gate;
use crate::policy::model::{Routed, Target, Upstream};
use crate::protocol::args::{ConnectOpen, OPEN_READONLY};
use crate::protocol::fault::Fault;
use crate::protocol::frame::{self, Frame};
use crate::protocol::header::{Header, Program, Serial, Status};
use crate::protocol::limits;
use crate::protocol::table::remote;

/// An upstream that is being opened.
#[derive(Debug)]
pub(super) struct Opening {
    /// Header of the client's `CONNECT_OPEN`, to be answered.
    call: Header,
    flags: u32,
    target: Target,
    /// What to try if the target is not alive.
    others: VecDeque<Target>,
    dialogue: Dialogue,
    /// Times that the target was dialled. One that is reached at several addresses may answer at
    /// another, and one that is started on demand may have been about to end, being idle.
    dials: usize,
}

impl Opening {
    pub(super) fn id(&self) -> UpstreamId {
        self.dialogue.id()
    }

    pub(super) fn deadline(&self) -> Instant {
        self.dialogue.deadline()
    }

    /// The client's `CONNECT_OPEN` has this serial.
    pub(super) fn uses(&self, serial: Serial) -> bool {
        self.call.serial == serial
    }

    /// The connection is there.
    pub(super) fn connected(&mut self, descriptors: bool, actions: &mut VecDeque<Action>) {
        self.dialogue.connected(descriptors, actions);
    }

    fn upstream(&self) -> &Arc<Upstream> {
        &self.target.upstream
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
        let dialogue = self.begin(&target, flags, now);
        self.phase = Phase::Opening(Box::new(Opening {
            call,
            flags,
            target,
            others,
            dialogue,
            dials: 1,
        }));
    }

    fn begin(&mut self, target: &Target, flags: u32, now: Instant) -> Dialogue {
        let id = UpstreamId(self.next_upstream);
        self.next_upstream = self.next_upstream.wrapping_add(1);
        let (upstream, uri) = (&target.upstream, &target.open_uri);
        Dialogue::dial(id, upstream, uri, flags, None, &mut self.actions, now).with_features()
    }

    /// The target cannot be used: the next one, or an error for the client.
    pub(super) fn try_next_target(&mut self, lost: &Lost, now: Instant) {
        let Phase::Opening(opening) = &self.phase else {
            return;
        };
        let upstream = Arc::clone(opening.upstream());
        let (id, why) = (opening.id(), lost.to_string());
        let is_restarted = upstream.start.is_some() && *lost == Lost::Closed && opening.dials == 1;
        if !is_restarted {
            tracing::warn!(upstream = &*upstream.name, why, "cannot open the upstream");
            if matches!(lost, Lost::TimedOut) && opening.dialogue.waits_for_uri() {
                // A client may choose what to open, such as a host that is not there. For others
                // the daemon is well: it has answered.
                self.actions.push_back(Action::Opened(id));
            } else if lost.is_of_daemon() {
                self.actions.push_back(Action::Unwell { id, why });
            }
        }
        self.disconnect();
        let Phase::Opening(opening) = &mut self.phase else {
            return;
        };
        let has_another =
            opening.dialogue.is_connected() && opening.dials < upstream.addresses.len();
        if is_restarted || has_another {
            let (target, flags) = (opening.target.clone(), opening.flags);
            let dialogue = self.begin(&target, flags, now);
            if let Phase::Opening(opening) = &mut self.phase {
                opening.dialogue = dialogue;
                opening.dials += 1;
            }
            return;
        }
        let (call, flags) = (opening.call, opening.flags);
        let mut others = std::mem::take(&mut opening.others);
        match others.pop_front() {
            Some(target) => self.dial(call, flags, target, others, now),
            None => {
                let fault = match lost {
                    Lost::TimedOut => Fault::open_timeout(&upstream.name),
                    lost => Fault::unreachable(&upstream.name, &lost.to_string()),
                };
                self.refuse(call, &fault);
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
        if let Phase::Opening(opening) = &mut self.phase {
            let (facts, actions) = (&self.setup.facts, &mut self.actions);
            // Nothing is registered before it is open.
            let none = &mut Callbacks::default();
            let progress = opening.dialogue.hear(frame, facts, none, actions, now);
            self.go_on_opening(progress, now);
        }
    }

    /// The SASL exchange with the upstream that is being opened has moved.
    pub(super) fn handle_opening_sasl(
        &mut self,
        outcome: Result<ClientSaslOutput, String>,
        now: Instant,
    ) {
        if let Phase::Opening(opening) = &mut self.phase {
            let progress = opening.dialogue.proven(outcome, &mut self.actions);
            self.go_on_opening(progress, now);
        }
    }

    fn go_on_opening(&mut self, progress: Progress, now: Instant) {
        match progress {
            Progress::Going => {}
            Progress::Lost(lost) => self.try_next_target(&lost, now),
            Progress::Refused(error) => self.refuse_open(&error, now),
            Progress::Opened(opened) => self.finish_opening(opened, now),
        }
    }

    /// The daemon refused to open: the client is told in its own words, as it would be without a
    /// proxy.
    fn refuse_open(&mut self, error: &[u8], now: Instant) {
        let Phase::Opening(opening) = &self.phase else {
            return;
        };
        let bytes = frame::encode(opening.call.answer(Status::ERROR), error);
        // It is well: it has answered.
        self.actions.push_back(Action::Opened(opening.id()));
        self.disconnect();
        self.tell(bytes);
        self.reopen(now);
    }

    /// Opens the connection to the client.
    fn finish_opening(&mut self, opened: Opened, now: Instant) {
        let Phase::Opening(opening) = &self.phase else {
            return;
        };
        let (call, id) = (opening.call, opening.id());
        let links = Links::new(
            id,
            &opening.target,
            opened,
            opening.flags,
            self.next_upstream,
        );
        self.actions.push_back(Action::Opened(id));
        let serving = Serving::new(links, self.setup.descriptors);
        self.phase = Phase::Serving(Box::new(serving));
        self.reply(call, |_| ());
        self.settle(now);
    }
}
