//! One side of a proxied connection: its socket, what it has sent, and what it is owed.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::task::{Context, Poll, ready};

use super::inbox::Inbox;
use super::outbox::Outbox;
use super::transport::Transport;
use crate::protocol::frame::Frame;
use crate::session::Peer;

/// One side.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) transport: Transport,
    pub(super) inbox: Inbox,
    pub(super) outbox: Outbox,
    pub(super) decided: Decided,
    /// It will send no more.
    pub(super) eof: bool,
}

/// What was decided about the frames at the head of an inbox, in order.
#[derive(Debug, Default)]
pub(super) struct Decided {
    runs: VecDeque<Run>,
    /// Sums over all runs.
    bytes: usize,
    descriptors: usize,
    behind: usize,
}

/// Whole frames, one after the other, that go to one peer byte for byte, or nowhere.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) to: Option<Peer>,
    /// Bytes of frames.
    bytes: usize,
    /// Descriptors, each on a byte of its own, that follow the last frame.
    descriptors: usize,
    /// Some of it has been written. Frames that come now make a run of their own: one that grew
    /// while it is written would never let a frame of the proxy's own through.
    started: bool,
    /// Frames of the proxy's own that this side's made, and that are to come after these.
    behind: Vec<u8>,
}

impl Run {
    /// The client gets something of it, or after it.
    pub(super) fn is_told(&self) -> bool {
        self.to == Some(Peer::Client) || !self.behind.is_empty()
    }
}

impl Decided {
    /// Bytes in the inbox that are decided about.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Descriptors in the inbox that are decided about.
    pub(super) fn descriptors(&self) -> usize {
        self.descriptors
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    pub(super) fn first(&self) -> Option<&Run> {
        self.runs.front()
    }

    /// Bytes of the proxy's own frames that wait behind these.
    pub(super) fn behind(&self) -> usize {
        self.behind
    }

    /// Has frames of the proxy's own wait until all frames so far have gone their way; gives them
    /// back if they have.
    pub(super) fn push_behind(&mut self, bytes: Vec<u8>) -> Option<Vec<u8>> {
        let Some(run) = self.runs.back_mut() else {
            return Some(bytes);
        };
        self.behind += bytes.len();
        run.behind.extend(bytes);
        None
    }

    /// The next frame goes to `to`, or nowhere.
    pub(super) fn push(&mut self, to: Option<Peer>, frame: &Frame<'_>) {
        self.bytes += frame.wire_len();
        self.descriptors += frame.descriptors;
        match self.runs.back_mut() {
            Some(run)
                if run.to == to
                    && run.descriptors == 0
                    && !run.started
                    && run.behind.is_empty() =>
            {
                run.bytes += frame.len();
                run.descriptors = frame.descriptors;
            }
            _ => self.runs.push_back(Run {
                to,
                bytes: frame.len(),
                descriptors: frame.descriptors,
                started: false,
                behind: Vec::new(),
            }),
        }
    }
}

impl Side {
    pub(super) fn new(transport: Transport) -> Self {
        Self {
            transport,
            inbox: Inbox::default(),
            outbox: Outbox::default(),
            decided: Decided::default(),
            eof: false,
        }
    }

    /// Receives once; a connection that was reset has ended like one that was closed, and so has TLS
    /// that was cut: frames have their own length, and libvirt's clients leave that way.
    pub(super) fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (room, descriptors) = self.inbox.room();
        match ready!(self.transport.poll_recv(cx, room, descriptors)) {
            Ok(0) => self.eof = true,
            Err(error) => {
                let left = [io::ErrorKind::ConnectionReset, io::ErrorKind::UnexpectedEof];
                if !left.contains(&error.kind()) {
                    tracing::warn!(%error, "cannot receive from a peer: closing");
                }
                self.eof = true;
            }
            Ok(count) => self.inbox.received(count),
        }
        Poll::Ready(())
    }

    /// Writes this side's first run to `to`. Ready when it is done; an error is `to`'s.
    pub(super) fn poll_first_run(
        &mut self,
        to: &mut Self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(run) = self.decided.runs.front_mut() else {
            return Poll::Ready(Ok(()));
        };
        if !to.outbox.mid_frame {
            // Frames of the proxy's own come first: they are older.
            ready!(to.outbox.poll_write(&mut to.transport, cx))?;
        }
        while run.bytes > 0 {
            let sent = ready!(to.transport.poll_send(cx, self.inbox.head(run.bytes)))?;
            self.inbox.consume(sent);
            self.decided.bytes -= sent;
            run.bytes -= sent;
            run.started = true;
            to.outbox.mid_frame = run.bytes > 0 || run.descriptors > 0;
        }
        while run.descriptors > 0 {
            if let Some(descriptor) = self.inbox.descriptor() {
                ready!(to.transport.poll_send_descriptor(cx, descriptor.as_fd()))?;
            }
            self.inbox.consume(1);
            self.inbox.consume_descriptors(1);
            self.decided.bytes -= 1;
            self.decided.descriptors -= 1;
            run.descriptors -= 1;
            to.outbox.mid_frame = run.descriptors > 0;
        }
        let behind = self.drop_first_run();
        to.outbox.push(&behind);
        Poll::Ready(Ok(()))
    }

    /// Drops what is left of the first run; gives what was to come behind it.
    pub(super) fn drop_first_run(&mut self) -> Vec<u8> {
        let Some(run) = self.decided.runs.pop_front() else {
            return Vec::new();
        };
        self.inbox.consume(run.bytes + run.descriptors);
        self.inbox.consume_descriptors(run.descriptors);
        self.decided.bytes -= run.bytes + run.descriptors;
        self.decided.descriptors -= run.descriptors;
        self.decided.behind -= run.behind.len();
        run.behind
    }
}
