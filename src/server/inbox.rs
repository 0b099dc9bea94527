//! What one side has sent and the other has not been given yet.
//!
//! Bytes are read into one buffer and written from the same place. A connection that waits holds
//! no buffer: buffers are lent by their thread, and a half frame that stays behind moves to a
//! vector of just its size.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use super::side::Decided;
use crate::protocol::frame::{self, Frame, FrameError, Next};
use crate::protocol::limits::FRAME_DESCRIPTORS;

/// Bytes of a lent buffer: a frame of stream data (262144 bytes and its header) and about as much
/// again, so that a socket's worth of data can be read behind a frame that is being written.
const BUFFER: usize = 512 * 1024;

/// Buffers that a thread keeps for the next connection; more than these were a burst.
const SPARE: usize = 4;

/// A half frame of at most this many bytes gives its buffer back.
const SMALL: usize = 16 * 1024;

thread_local! {
    static BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

fn borrow_buffer() -> Vec<u8> {
    let spare = BUFFERS.with_borrow_mut(Vec::pop);
    spare.unwrap_or_else(|| vec![0; BUFFER])
}

fn return_buffer(buffer: Vec<u8>) {
    if buffer.len() == BUFFER {
        BUFFERS.with_borrow_mut(|spare| {
            if spare.len() < SPARE {
                spare.push(buffer);
            }
        });
    }
}

/// Why a side cannot be read any further.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// A frame that cannot be.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// Descriptors came where no frame announced them, or did not come where one did.
    #[error("descriptors do not match what the frames announce")]
    Descriptors,
}

/// Bytes and descriptors received and not yet passed on, in order.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    buffer: Vec<u8>,
    /// What is left begins here.
    start: usize,
    /// What was received ends here.
    end: usize,
    descriptors: VecDeque<OwnedFd>,
    /// Bytes that must be there before the frame at the head is whole; 0 if it is.
    need: usize,
}

impl Inbox {
    /// Bytes received and left.
    pub(super) fn len(&self) -> usize {
        self.end - self.start
    }

    /// There is nothing that is not decided about, no descriptor either.
    pub(super) fn holds_just(&self, decided: &Decided) -> bool {
        self.len() == decided.bytes() && self.descriptors.len() == decided.descriptors()
    }

    /// There is room to receive more now. An incomplete frame has fewer descriptors than a frame
    /// may carry, so that a whole one is there, and goes before more are taken, if there are as
    /// many.
    pub(super) fn has_room(&self) -> bool {
        self.len() < BUFFER.max(self.need) && self.descriptors.len() < FRAME_DESCRIPTORS
    }

    /// Room to receive into, not empty, and where descriptors go. Call only if
    /// [`Inbox::has_room`]; say with [`Inbox::received`] how much came.
    pub(super) fn room(&mut self) -> (&mut [u8], &mut VecDeque<OwnedFd>) {
        if self.buffer.len() < BUFFER {
            let mut buffer = borrow_buffer();
            let kept = self.buffer.get(self.start..self.end).unwrap_or_default();
            if let Some(head) = buffer.get_mut(..kept.len()) {
                head.copy_from_slice(kept);
            }
            (self.start, self.end) = (0, kept.len());
            self.buffer = buffer;
        }
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        let cramped = self.need > self.buffer.len() - self.start || self.end == self.buffer.len();
        if cramped && self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        // A length is a claim: as much again as has come is all that is held ready for it.
        let wanted = self.need.min(BUFFER.max(2 * self.len()));
        if wanted > self.buffer.len() {
            self.buffer.resize(wanted, 0);
        }
        (
            self.buffer.get_mut(self.end..).unwrap_or_default(),
            &mut self.descriptors,
        )
    }

    /// So many bytes came into [`Inbox::room`].
    pub(super) fn received(&mut self, count: usize) {
        self.end = self.buffer.len().min(self.end + count);
    }

    /// The frame that begins `skip` bytes after the head, if all of it is there. `claimed`
    /// descriptors belong to the frames before it.
    pub(super) fn frame(
        &mut self,
        skip: usize,
        claimed: usize,
        cap: usize,
    ) -> Result<Option<Frame<'_>>, Broken> {
        let bytes = self
            .buffer
            .get(self.start + skip..self.end)
            .unwrap_or_default();
        let descriptors = self.descriptors.len().saturating_sub(claimed);
        match frame::next(bytes, cap)? {
            Next::Frame(frame) if frame.descriptors > descriptors => Err(Broken::Descriptors),
            Next::Frame(frame) => Ok(Some(frame)),
            Next::Incomplete(incomplete) if descriptors > incomplete.descriptors => {
                Err(Broken::Descriptors)
            }
            Next::Incomplete(incomplete) => {
                // Only the frame at the head gets more than the usual room: those behind others
                // wait for them to go.
                self.need = if skip == 0 { incomplete.need } else { 0 };
                Ok(None)
            }
        }
    }

    /// The next bytes to be written on.
    pub(super) fn head(&self, count: usize) -> &[u8] {
        self.buffer
            .get(self.start..self.end.min(self.start + count))
            .unwrap_or_default()
    }

    /// The next descriptor to be passed on.
    pub(super) fn descriptor(&self) -> Option<&OwnedFd> {
        self.descriptors.front()
    }

    /// Drops bytes from the head.
    pub(super) fn consume(&mut self, count: usize) {
        self.start = self.end.min(self.start + count);
        self.need = self.need.saturating_sub(count);
    }

    /// Drops descriptors from the head, closing them.
    pub(super) fn consume_descriptors(&mut self, count: usize) {
        self.descriptors.drain(..count.min(self.descriptors.len()));
    }

    /// Takes all bytes behind the first `skip`.
    pub(super) fn take_behind(&mut self, skip: usize) -> Vec<u8> {
        let from = self.end.min(self.start + skip);
        let taken = self.buffer.get(from..self.end).unwrap_or_default().to_vec();
        self.end = from;
        taken
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        self.consume(self.len());
        self.descriptors.clear();
    }

    /// The connection waits: gives the buffer back if little or nothing is in it.
    pub(super) fn park(&mut self) {
        let parked = self.buffer.len() <= SMALL && self.len() > 0;
        if self.buffer.is_empty() || parked || self.len() > SMALL {
            return;
        }
        let kept = self
            .buffer
            .get(self.start..self.end)
            .unwrap_or_default()
            .to_vec();
        (self.start, self.end) = (0, kept.len());
        return_buffer(std::mem::replace(&mut self.buffer, kept));
        if self.descriptors.is_empty() {
            self.descriptors = VecDeque::new();
        }
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        return_buffer(std::mem::take(&mut self.buffer));
    }
}
