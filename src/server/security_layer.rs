//! A SASL mechanism's security layer over a connection (RFC 4422, section 3.7): each buffer on the
//! wire is a 4-byte length and a sealed token.

use std::io;
use std::task::{Poll, ready};

use super::auth::sasl::{LayerError, SecurityLayer};

/// Bytes read from the socket at once.
const CHUNK: usize = 16 * 1024;

/// A layer with what is under way through it.
#[derive(Debug)]
pub(super) struct Layered {
    layer: Box<dyn SecurityLayer>,
    /// Received, sealed.
    sealed: Vec<u8>,
    /// Received, opened; taken from the front.
    opened: Vec<u8>,
    taken: usize,
    /// To be sent, sealed.
    outgoing: Vec<u8>,
    sent: usize,
}

impl From<LayerError> for io::Error {
    fn from(error: LayerError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

impl Layered {
    /// `received` came behind the last bytes that were not sealed.
    pub(super) fn new(layer: Box<dyn SecurityLayer>, received: Vec<u8>) -> Self {
        Self {
            layer,
            sealed: received,
            opened: Vec::new(),
            taken: 0,
            outgoing: Vec::new(),
            sent: 0,
        }
    }

    /// Receives into `buffer`; `recv` receives sealed bytes.
    pub(super) fn poll_recv(
        &mut self,
        buffer: &mut [u8],
        mut recv: impl FnMut(&mut [u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let rest = self.opened.get(self.taken..).unwrap_or_default();
            let count = rest.len().min(buffer.len());
            if let (Some(to), Some(from), 1..) = (buffer.get_mut(..count), rest.get(..count), count)
            {
                to.copy_from_slice(from);
                self.taken += count;
                return Poll::Ready(Ok(count));
            }
            self.opened.clear();
            self.taken = 0;
            if self.open_token()? {
                continue;
            }
            let mut chunk = [0; CHUNK];
            let count = ready!(recv(&mut chunk))?;
            if count == 0 {
                return Poll::Ready(Ok(0));
            }
            self.sealed
                .extend_from_slice(chunk.get(..count).unwrap_or_default());
        }
    }

    /// Opens the first whole token; `false` if there is none.
    fn open_token(&mut self) -> Result<bool, LayerError> {
        let Some((word, rest)) = self.sealed.split_first_chunk::<4>() else {
            return Ok(false);
        };
        let length = usize::try_from(u32::from_be_bytes(*word)).unwrap_or(usize::MAX);
        if length > self.layer.max_token() {
            return Err(LayerError(format!("a token of {length} bytes")));
        }
        let Some(token) = rest.get(..length) else {
            return Ok(false);
        };
        self.layer.decode(token, &mut self.opened)?;
        self.sealed.drain(..4 + length);
        Ok(true)
    }

    /// Takes some of `bytes`; `send` sends sealed bytes.
    pub(super) fn poll_send(
        &mut self,
        bytes: &[u8],
        send: impl FnMut(&[u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush(send))?;
        let count = bytes.len().min(self.layer.max_plain());
        let plain = bytes.get(..count).unwrap_or_default();
        self.layer.encode(plain, &mut self.outgoing)?;
        Poll::Ready(Ok(count))
    }

    /// Sends what is sealed.
    pub(super) fn poll_flush(
        &mut self,
        mut send: impl FnMut(&[u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<()>> {
        while let Some(rest @ [_, ..]) = self.outgoing.get(self.sent..) {
            self.sent += ready!(send(rest))?;
        }
        self.outgoing.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;

    /// Seals by turning bits over; a token carries at most eight bytes.
    #[derive(Debug)]
    struct Turned;

    impl SecurityLayer for Turned {
        fn encode(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), LayerError> {
            out.extend_from_slice(&u32::try_from(plain.len()).unwrap().to_be_bytes());
            out.extend(plain.iter().map(|byte| !byte));
            Ok(())
        }

        fn decode(&mut self, token: &[u8], out: &mut Vec<u8>) -> Result<(), LayerError> {
            if token.contains(&0) {
                return Err(LayerError("changed".into()));
            }
            out.extend(token.iter().map(|byte| !byte));
            Ok(())
        }

        fn max_plain(&self) -> usize {
            8
        }

        fn max_token(&self) -> usize {
            8
        }
    }

    /// A wire that takes and gives `step` bytes at a time, and then nothing for once.
    struct Wire {
        bytes: Vec<u8>,
        step: usize,
        ready: bool,
    }

    impl Wire {
        fn send(&mut self, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.ready = !self.ready;
            if !self.ready {
                return Poll::Pending;
            }
            let count = bytes.len().min(self.step);
            self.bytes.extend_from_slice(&bytes[..count]);
            Poll::Ready(Ok(count))
        }

        fn recv(&mut self, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
            self.ready = !self.ready;
            if !self.ready {
                return Poll::Pending;
            }
            let count = buffer.len().min(self.step).min(self.bytes.len());
            buffer[..count].copy_from_slice(&self.bytes[..count]);
            self.bytes.drain(..count);
            Poll::Ready(Ok(count))
        }
    }

    #[test]
    fn bytes_pass_whole_and_in_order_however_the_wire_cuts_them() {
        let plain: Vec<u8> = (0..200).collect();
        for step in [1, 3, 7, 100] {
            let mut wire = Wire {
                bytes: Vec::new(),
                step,
                ready: false,
            };
            let mut sender = Layered::new(Box::new(Turned), Vec::new());
            let mut rest = plain.as_slice();
            while !rest.is_empty() {
                if let Poll::Ready(count) = sender.poll_send(rest, |bytes| wire.send(bytes)) {
                    rest = &rest[count.unwrap()..];
                }
            }
            while sender.poll_flush(|bytes| wire.send(bytes)).is_pending() {}
            assert_ne!(wire.bytes, plain);

            // The first bytes came with what was not sealed.
            let early = wire.bytes.drain(..5).collect();
            let mut receiver = Layered::new(Box::new(Turned), early);
            let (mut got, mut buffer) = (Vec::new(), [0; 5]);
            loop {
                let received = receiver.poll_recv(&mut buffer, |bytes| wire.recv(bytes));
                match received.map(Result::unwrap) {
                    Poll::Ready(0) => break,
                    Poll::Ready(count) => got.extend_from_slice(&buffer[..count]),
                    Poll::Pending => {}
                }
            }
            assert_eq!(got, plain);
        }
    }

    #[test]
    fn a_token_that_is_too_long_or_changed_is_an_error() {
        for sealed in [vec![0, 0, 0, 9], vec![0, 0, 0, 2, 7, 0]] {
            let mut layered = Layered::new(Box::new(Turned), sealed);
            let received = layered.poll_recv(&mut [0; 8], |_| Poll::Pending);
            assert!(matches!(received, Poll::Ready(Err(_))));
        }
    }
}
