//! Frames of the proxy's own that wait to be written to one side.

use std::io;
use std::task::{Context, Poll, ready};

use super::transport::Transport;

/// Bytes to be written between two relayed frames.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    written: usize,
    /// A relayed frame has been written in part: nothing may come between.
    pub(super) mid_frame: bool,
}

impl Outbox {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        // Once it is the larger part: a reader that always lags behind never empties this.
        if self.written > self.bytes.len() / 2 {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    pub(super) fn clear(&mut self) {
        self.bytes = Vec::new();
        self.written = 0;
    }

    /// Writes until all is written. Waits also while a relayed frame is under way: whoever writes
    /// that makes progress itself.
    pub(super) fn poll_write(
        &mut self,
        transport: &mut Transport,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while let Some(rest @ [_, ..]) = self.bytes.get(self.written..) {
            if self.mid_frame {
                return Poll::Pending;
            }
            self.written += ready!(transport.poll_send(cx, rest))?;
        }
        self.clear();
        Poll::Ready(Ok(()))
    }

    /// Writes, and gets what was sent, relayed frames too, out of the transport's layers.
    pub(super) fn poll_flush(
        &mut self,
        transport: &mut Transport,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let written = self.poll_write(transport, cx)?;
        ready!(transport.poll_flush(cx))?;
        written.map(Ok)
    }
}
