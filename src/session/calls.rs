//! Outstanding calls: which serial waits for whom. Nothing is allocated per call once the list has
//! grown to the connection's usual depth.

use super::UpstreamId;
use super::access::NoteId;
use super::streams::is_end;
use crate::protocol::header::{Header, Procedure, Program, Serial};

/// A call that has not been answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) serial: Serial,
    pub(super) program: Program,
    pub(super) version: u32,
    pub(super) procedure: Procedure,
    /// Who is to answer.
    pub(super) upstream: UpstreamId,
    /// What a good reply changes here.
    pub(super) effect: Effect,
    /// What the reply is for, if it is not just for the client.
    pub(super) note: Option<NoteId>,
}

/// What a good reply to a call changes in the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing.
    None,
    /// A stream is open under the call's serial.
    OpenStream,
    /// The daemon holds a registration for events.
    Register,
    /// It no longer does.
    Deregister,
    /// The client has said for whom it calls.
    Identity,
}

impl Call {
    /// The call with this header.
    pub(super) fn new(
        header: &Header,
        upstream: UpstreamId,
        effect: Effect,
        note: Option<NoteId>,
    ) -> Self {
        Self {
            serial: header.serial,
            program: header.program,
            version: header.version,
            procedure: header.procedure,
            upstream,
            effect,
            note,
        }
    }

    /// The header of the call.
    pub(super) fn header(&self) -> Header {
        Header {
            program: self.program,
            version: self.version,
            ..Header::remote_call(self.procedure, self.serial)
        }
    }

    fn answered_by(&self, upstream: UpstreamId, reply: &Header) -> bool {
        self.serial == reply.serial
            && self.upstream == upstream
            && self.program == reply.program
            && self.procedure == reply.procedure
            && self.version == reply.version
    }
}

/// The outstanding calls of one connection. A linear search: few connections have more than a
/// handful, and the session bounds them.
#[derive(Debug, Default)]
pub(super) struct Calls(Vec<Call>);

impl Calls {
    /// A list as deep as this is given back when it has emptied; a shallower one is kept.
    const KEEP: usize = 32;

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A call is outstanding under this serial.
    pub(super) fn has(&self, serial: Serial) -> bool {
        self.0.iter().any(|call| call.serial == serial)
    }

    /// The call that is outstanding under this serial.
    pub(super) fn find(&self, serial: Serial) -> Option<&Call> {
        self.0.iter().find(|call| call.serial == serial)
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Call> {
        self.0.iter()
    }

    /// Streams that are open once their calls are answered well.
    pub(super) fn streams(&self) -> usize {
        let opens = |call: &&Call| call.effect == Effect::OpenStream;
        self.0.iter().filter(opens).count()
    }

    /// Whether this stream frame belongs to a call that will open the stream. If the frame ends the
    /// stream, a good reply opens none any more.
    pub(super) fn note_early_stream(&mut self, upstream: UpstreamId, frame: &Header) -> bool {
        let call = self
            .0
            .iter_mut()
            .find(|call| call.effect == Effect::OpenStream && call.answered_by(upstream, frame));
        match call {
            Some(call) if is_end(frame) => {
                call.effect = Effect::None;
                true
            }
            call => call.is_some(),
        }
    }

    pub(super) fn push(&mut self, call: Call) {
        self.0.push(call);
    }

    /// Takes the call that this reply answers.
    pub(super) fn answer(&mut self, upstream: UpstreamId, reply: &Header) -> Option<Call> {
        let place = self
            .0
            .iter()
            .position(|call| call.answered_by(upstream, reply))?;
        let call = self.0.swap_remove(place);
        if self.0.is_empty() && self.0.capacity() > Self::KEEP {
            self.0 = Vec::new();
        }
        Some(call)
    }

    /// Takes all calls.
    pub(super) fn take(&mut self) -> Vec<Call> {
        std::mem::take(&mut self.0)
    }

    /// Calls that wait for one connection wait for another now.
    pub(super) fn rename(&mut self, from: UpstreamId, to: UpstreamId) {
        for call in self.0.iter_mut().filter(|call| call.upstream == from) {
            call.upstream = to;
        }
    }

    /// Takes all calls that wait for this upstream.
    pub(super) fn fail(&mut self, upstream: UpstreamId) -> Vec<Call> {
        self.0
            .extract_if(.., |call| call.upstream == upstream)
            .collect()
    }
}
