//! Open streams: which upstream each belongs to, and how they end.
//!
//! A stream is open from the good reply to its call. It ends when the daemon aborts it (`error`),
//! or when the daemon confirms the client's finish or abort. Frames for a stream that is not open
//! are dropped in either direction, as libvirt drops them: each side may have sent them before it
//! learned of the end. Only what a daemon sends between a call and its reply passes already:
//! libvirt starts a stream before it queues the reply, and its client expects either order.

use super::UpstreamId;
use super::calls::Call;
use crate::protocol::header::{Header, MessageType, Procedure, Program, Serial, Status};

/// An open stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stream {
    serial: Serial,
    program: Program,
    version: u32,
    procedure: Procedure,
    upstream: UpstreamId,
}

impl Stream {
    fn owns(&self, header: &Header) -> bool {
        self.serial == header.serial
            && self.program == header.program
            && self.version == header.version
            && self.procedure == header.procedure
    }

    /// Header of a stream frame that aborts it.
    pub(super) fn abort(&self) -> Header {
        Header {
            program: self.program,
            version: self.version,
            procedure: self.procedure,
            kind: MessageType::STREAM,
            serial: self.serial,
            status: Status::ERROR,
        }
    }
}

/// A stream frame of the daemon's after which its stream is no more. Data and holes keep it open;
/// every other status is its end.
pub(super) fn is_end(header: &Header) -> bool {
    header.status != Status::CONTINUE && header.kind != MessageType::STREAM_HOLE
}

/// The open streams of one connection.
#[derive(Debug, Default)]
pub(super) struct Streams(Vec<Stream>);

impl Streams {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The call's good reply has come: its stream is open.
    pub(super) fn open(&mut self, call: &Call) {
        self.0.push(Stream {
            serial: call.serial,
            program: call.program,
            version: call.version,
            procedure: call.procedure,
            upstream: call.upstream,
        });
    }

    /// A stream is open under this serial.
    pub(super) fn has(&self, serial: Serial) -> bool {
        self.0.iter().any(|stream| stream.serial == serial)
    }

    /// Where a stream frame of the client goes.
    pub(super) fn upstream_of(&self, header: &Header) -> Option<UpstreamId> {
        self.0
            .iter()
            .find(|stream| stream.owns(header))
            .map(|stream| stream.upstream)
    }

    /// The stream is open, and this upstream's.
    pub(super) fn is_from(&self, upstream: UpstreamId, header: &Header) -> bool {
        self.upstream_of(header) == Some(upstream)
    }

    /// The daemon has ended the stream.
    pub(super) fn end(&mut self, header: &Header) {
        self.0.retain(|stream| !stream.owns(header));
        if self.0.is_empty() {
            self.0 = Vec::new();
        }
    }

    /// Takes all streams.
    pub(super) fn take(&mut self) -> Vec<Stream> {
        std::mem::take(&mut self.0)
    }

    /// Takes all streams of this upstream.
    pub(super) fn fail(&mut self, upstream: UpstreamId) -> Vec<Stream> {
        self.0
            .extract_if(.., |stream| stream.upstream == upstream)
            .collect()
    }
}
