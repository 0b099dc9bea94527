//! The dialogue that opens one daemon for the client: authentication, `CONNECT_OPEN` with the
//! client's flags, the client's identity, and the registrations that the daemon is to hold. No call
//! of the client's runs before the daemon knows whose it is.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::callbacks::Callbacks;
use super::{
    Action, ClientSaslInput, ClientSaslOutput, Keepalive, Lost, Peer, UpstreamId, action, identity,
};
use crate::policy::facts::ClientFacts;
use crate::policy::model::{ForwardIdentity, Upstream};
use crate::protocol::args::{self, AuthType, ConnectOpen, Feature, OPEN_READONLY};
use crate::protocol::fault;
use crate::protocol::frame::{self, Frame};
use crate::protocol::header::{Header, MessageType, Procedure, Program, Serial, Status};
use crate::protocol::table::remote;
use crate::protocol::xdr::Writer;

const UNREADABLE: Lost = Lost::Protocol(Cow::Borrowed("a reply that cannot be read"));

/// A daemon that is being dialled or opened.
#[derive(Debug)]
pub(super) struct Dialogue {
    id: UpstreamId,
    upstream: Arc<Upstream>,
    open_uri: String,
    flags: u32,
    deadline: Instant,
    /// The connection is there, and carries descriptors or not.
    connected: Option<bool>,
    waiting: Vec<Own>,
    answers_pings: bool,
    /// Features that libvirt's clients ask for after each open.
    features: Option<Features>,
    /// Arguments of `CONNECT_SET_IDENTITY` as the client has sent them, which is trusted to say for
    /// whom it calls.
    forwarded: Option<Arc<[u8]>>,
    /// They are said.
    is_forwarded: bool,
    is_open: bool,
    next_serial: u32,
}

/// What the daemon said of the features that libvirt's clients ask for after each open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Features([Option<i32>; Self::ASKED.len()]);

impl Features {
    const ASKED: [Feature; 2] = [Feature::EVENT_CALLBACK, Feature::CLOSE_CALLBACK];

    /// What was said of one; `None`: it is to be asked.
    pub(super) fn get(&self, feature: Feature) -> Option<i32> {
        let mut all = Self::ASKED.into_iter().zip(self.0);
        all.find(|(asked, _)| *asked == feature)?.1
    }
}

/// A call of the proxy's own that has not been answered.
#[derive(Debug, Clone, Copy)]
struct Own {
    header: Header,
    what: What,
}

/// What a call of the proxy's own is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// A step of the dialogue.
    Step,
    /// The registration of this place, made again.
    Again(usize),
    /// The feature of this place.
    Feature(usize),
}

/// How far it has come.
#[derive(Debug)]
pub(super) enum Progress {
    /// The daemon has not said everything.
    Going,
    /// Done.
    Opened(Opened),
    /// The daemon refused to open, with this error.
    Refused(Vec<u8>),
    /// The daemon cannot be used.
    Lost(Lost),
}

/// A daemon that is open.
#[derive(Debug)]
pub(super) struct Opened {
    /// Runs where the daemon answers pings.
    pub(super) keepalive: Option<Keepalive>,
    /// Its connection carries descriptors.
    pub(super) descriptors: bool,
    pub(super) features: Features,
}

impl Dialogue {
    /// Dials.
    pub(super) fn dial(
        id: UpstreamId,
        upstream: &Arc<Upstream>,
        open_uri: &str,
        flags: u32,
        forwarded: Option<Arc<[u8]>>,
        actions: &mut VecDeque<Action>,
        now: Instant,
    ) -> Self {
        actions.push_back(Action::Connect {
            id,
            upstream: Arc::clone(upstream),
            readonly: flags & OPEN_READONLY != 0,
        });
        Self {
            id,
            upstream: Arc::clone(upstream),
            open_uri: open_uri.to_owned(),
            flags,
            deadline: now + upstream.connect_timeout,
            connected: None,
            waiting: Vec::new(),
            answers_pings: false,
            features: None,
            forwarded,
            is_forwarded: false,
            is_open: false,
            next_serial: u32::MAX,
        }
    }

    /// Has it ask for what clients ask for first, beside its last step, so that they are answered
    /// without the daemon.
    pub(super) fn with_features(mut self) -> Self {
        self.features = Some(Features::default());
        self
    }

    pub(super) fn id(&self) -> UpstreamId {
        self.id
    }

    /// It must be over by then.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The daemon could be reached.
    pub(super) fn is_connected(&self) -> bool {
        self.connected.is_some()
    }

    /// The daemon answers, and has not opened yet: what takes the time may be what it opens.
    pub(super) fn waits_for_uri(&self) -> bool {
        let [Own { header, .. }] = self.waiting[..] else {
            return false;
        };
        header.procedure == remote::CONNECT_OPEN
    }

    /// The connection is there: says the first words.
    pub(super) fn connected(&mut self, descriptors: bool, actions: &mut VecDeque<Action>) {
        self.connected = Some(descriptors);
        let mut out = Vec::new();
        self.call(&mut out, remote::AUTH_LIST, |_| ());
        self.send(out, actions);
    }

    fn send(&self, bytes: Vec<u8>, actions: &mut VecDeque<Action>) {
        action::send(actions, Peer::Upstream(self.id), bytes);
    }

    /// Appends a call of the main program.
    fn call(
        &mut self,
        out: &mut Vec<u8>,
        procedure: Procedure,
        arguments: impl FnOnce(&mut Writer<'_>),
    ) {
        let call = (Program::REMOTE, procedure);
        self.own_call(out, call, What::Step, arguments);
    }

    /// Appends a call of the proxy's own. No frame of the client's travels before the dialogue is
    /// over, so that these serials, which run downwards, can meet none of its.
    fn own_call(
        &mut self,
        out: &mut Vec<u8>,
        (program, procedure): (Program, Procedure),
        what: What,
        arguments: impl FnOnce(&mut Writer<'_>),
    ) {
        let serial = Serial(self.next_serial);
        self.next_serial = self.next_serial.wrapping_sub(1);
        let header = Header {
            program,
            ..Header::remote_call(procedure, serial)
        };
        self.waiting.push(Own { header, what });
        frame::write(out, header, arguments);
    }

    /// Takes the own call that this reply answers.
    fn answered(&mut self, reply: &Header) -> Option<Own> {
        let place = self
            .waiting
            .iter()
            .position(|own| own.header.answer(reply.status) == *reply)?;
        Some(self.waiting.swap_remove(place))
    }

    /// `CONNECT_OPEN`; and the question whether the daemon answers pings, which needs no open
    /// connection, so that it costs no round trip of its own.
    fn connect_open(&mut self, out: &mut Vec<u8>) {
        if self.upstream.keepalive.interval.is_some() {
            let feature = Feature::KEEPALIVE.0;
            self.call(out, remote::CONNECT_SUPPORTS_FEATURE, |writer| {
                _ = writer.i32(feature)
            });
        }
        let (name, flags) = (std::mem::take(&mut self.open_uri), self.flags);
        self.call(out, remote::CONNECT_OPEN, |writer| {
            ConnectOpen {
                name: Some(&name),
                flags,
            }
            .encode(writer);
        });
    }

    /// A frame of the daemon's.
    pub(super) fn hear(
        &mut self,
        frame: &Frame<'_>,
        facts: &ClientFacts,
        callbacks: &mut Callbacks,
        actions: &mut VecDeque<Action>,
        now: Instant,
    ) -> Progress {
        if frame.header.kind == MessageType::MESSAGE {
            // Of a registration that was just made again, most likely.
            callbacks.keep(frame);
            return Progress::Going;
        }
        let Some(own) = self.answered(&frame.header) else {
            return Progress::Lost(Lost::Protocol("a reply that nobody waits for".into()));
        };
        let mut out = Vec::new();
        let step = match (frame.header.status, own.what) {
            (Status::OK, What::Again(place)) => {
                callbacks.made_again(place, frame.payload);
                Ok(())
            }
            (Status::OK, What::Feature(place)) => {
                self.note_feature(place, frame.payload);
                Ok(())
            }
            // The client may ask.
            (Status::ERROR, What::Feature(_)) => Ok(()),
            (Status::OK, What::Step) => {
                self.step(own.header.procedure, frame, facts, &mut out, actions)
            }
            (Status::ERROR, What::Again(_)) => {
                let error = fault::message(frame.payload).unwrap_or_default();
                let upstream = &*self.upstream.name;
                tracing::warn!(upstream, error, "a registration for events is lost");
                Ok(())
            }
            (Status::ERROR, What::Step) => {
                self.fail_step(own.header.procedure, frame.payload, &mut out)
            }
            _ => Err(Progress::Lost(UNREADABLE)),
        };
        if let Err(end) = step {
            return end;
        }
        if self.waiting.is_empty() && self.is_open && !matches!(own.what, What::Again(_)) {
            for (place, program, register, arguments) in callbacks.again() {
                let again = What::Again(place);
                self.own_call(&mut out, (program, register), again, |writer| {
                    writer.raw(arguments);
                });
            }
        }
        self.send(out, actions);
        self.progress(callbacks, now)
    }

    fn progress(&self, callbacks: &mut Callbacks, now: Instant) -> Progress {
        if !self.waiting.is_empty() || !self.is_open {
            return Progress::Going;
        }
        callbacks.all_made_again();
        let keepalive = if self.answers_pings {
            Keepalive::start(self.upstream.keepalive, now)
        } else {
            None
        };
        Progress::Opened(Opened {
            keepalive,
            descriptors: self.connected == Some(true),
            features: self.features.unwrap_or_default(),
        })
    }

    /// One of the proxy's calls was answered well: makes the next.
    fn step(
        &mut self,
        procedure: Procedure,
        frame: &Frame<'_>,
        facts: &ClientFacts,
        out: &mut Vec<u8>,
        actions: &mut VecDeque<Action>,
    ) -> Result<(), Progress> {
        let payload = frame.payload;
        let unreadable = |_| Progress::Lost(UNREADABLE);
        match procedure {
            remote::AUTH_LIST => match AuthType::decode_list(payload).map_err(unreadable)? {
                AuthType::NONE | AuthType::POLKIT if self.upstream.is_sealed_by_sasl() => {
                    let why = "the daemon asks for no SASL, without which nothing protects the \
                               connection";
                    return Err(Progress::Lost(Lost::Unreachable(why.into())));
                }
                AuthType::NONE => self.connect_open(out),
                AuthType::POLKIT => self.call(out, remote::AUTH_POLKIT, |_| ()),
                AuthType::SASL if self.upstream.sasl.is_some() => {
                    self.call(out, remote::AUTH_SASL_INIT, |_| ());
                }
                AuthType::SASL => {
                    let why = "the daemon asks for SASL, and the policy names no `sasl` for it";
                    return Err(Progress::Lost(Lost::Unreachable(why.into())));
                }
                AuthType(other) => {
                    let why = format!("the daemon asks for authentication of type {other}");
                    return Err(Progress::Lost(Lost::Unreachable(why)));
                }
            },
            remote::AUTH_SASL_INIT => {
                let mechanisms = args::decode_sasl_mechanisms(payload).map_err(unreadable)?;
                self.prove(ClientSaslInput::Mechanisms(mechanisms.to_owned()), actions);
            }
            remote::AUTH_SASL_START | remote::AUTH_SASL_STEP => {
                let (complete, data) = args::decode_sasl_reply(payload).map_err(unreadable)?;
                self.prove(
                    match complete {
                        true => ClientSaslInput::Complete(data),
                        false => ClientSaslInput::Challenge(data),
                    },
                    actions,
                );
            }
            remote::AUTH_POLKIT => self.connect_open(out),
            remote::CONNECT_SUPPORTS_FEATURE => {
                self.answers_pings = args::decode_word(payload).map_err(unreadable)? != 0;
            }
            remote::CONNECT_OPEN => {
                if self.upstream.identity == ForwardIdentity::Never {
                    self.forward(out);
                } else {
                    let params = identity::params(facts);
                    self.call(out, remote::CONNECT_SET_IDENTITY, |writer| {
                        args::encode_identity(&params, writer);
                    });
                }
                self.ask_features(out);
            }
            remote::CONNECT_SET_IDENTITY => self.forward(out),
            _ => {}
        }
        Ok(())
    }

    /// Asks for features, which costs no round trip of its own.
    fn ask_features(&mut self, out: &mut Vec<u8>) {
        if self.features.is_none() {
            return;
        }
        for (place, feature) in Features::ASKED.into_iter().enumerate() {
            let call = (Program::REMOTE, remote::CONNECT_SUPPORTS_FEATURE);
            self.own_call(out, call, What::Feature(place), |writer| {
                _ = writer.i32(feature.0)
            });
        }
    }

    /// Notes an answer that can be read; for others, the client may ask itself.
    fn note_feature(&mut self, place: usize, payload: &[u8]) {
        let features = self.features.as_mut().map(|features| &mut features.0);
        if let Some(slot) = features.and_then(|features| features.get_mut(place)) {
            *slot = args::decode_word(payload).ok();
        }
    }

    /// Says for whom the client calls, after who it is itself.
    fn forward(&mut self, out: &mut Vec<u8>) {
        match self.forwarded.take() {
            Some(arguments) => {
                self.is_forwarded = true;
                self.call(out, remote::CONNECT_SET_IDENTITY, |writer| {
                    writer.raw(&arguments);
                });
            }
            None => self.is_open = true,
        }
    }

    fn prove(&self, input: ClientSaslInput, actions: &mut VecDeque<Action>) {
        let id = self.id;
        actions.push_back(Action::ProveTo { id, input });
    }

    /// What the proxy says next in the SASL exchange.
    pub(super) fn proven(
        &mut self,
        outcome: Result<ClientSaslOutput, String>,
        actions: &mut VecDeque<Action>,
    ) -> Progress {
        let mut out = Vec::new();
        match outcome {
            Err(why) => {
                let why = format!("authentication failed: {why}");
                return Progress::Lost(Lost::Unreachable(why));
            }
            Ok(ClientSaslOutput::Start(mechanism, data)) => {
                self.call(&mut out, remote::AUTH_SASL_START, |writer| {
                    args::encode_sasl_start(&mechanism, data.as_deref(), writer);
                });
            }
            Ok(ClientSaslOutput::Step(data)) => {
                self.call(&mut out, remote::AUTH_SASL_STEP, |writer| {
                    args::encode_sasl_data(data.as_deref(), writer);
                });
            }
            Ok(ClientSaslOutput::Done { layer }) => {
                if layer {
                    actions.push_back(Action::SecureUpstream(self.id));
                }
                self.connect_open(&mut out);
            }
        }
        self.send(out, actions);
        Progress::Going
    }

    /// One of the proxy's calls was answered by an error: goes on without, or ends.
    fn fail_step(
        &mut self,
        procedure: Procedure,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Progress> {
        let text = fault::message(payload).map_err(|_| Progress::Lost(UNREADABLE))?;
        let upstream = &*self.upstream.name;
        match procedure {
            remote::CONNECT_SUPPORTS_FEATURE => Ok(()),
            remote::CONNECT_SET_IDENTITY
                if self.upstream.identity == ForwardIdentity::Try && !self.is_forwarded =>
            {
                tracing::info!(upstream, error = text, "identity refused");
                self.forward(out);
                Ok(())
            }
            remote::CONNECT_OPEN => {
                tracing::info!(upstream, error = text, "open refused");
                Err(Progress::Refused(payload.to_vec()))
            }
            _ => Err(Progress::Lost(Lost::Unreachable(text))),
        }
    }
}
