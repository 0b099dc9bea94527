//! A SASL mechanism's security layer over a connection (RFC 4422, section 3.7): each buffer on the
//! wire is a 4-byte length and a sealed token.

use std::fmt;
use std::io;
use std::task::{Poll, ready};

/// Seals and opens tokens.
pub(crate) trait SecurityLayer: fmt::Debug + Send {
    /// Appends the token that seals `plain`, of at most [`SecurityLayer::max_plain`] bytes.
    fn encode(&mut self, plain: &[u8], out: &mut Vec<u8>) -> io::Result<()>;

    /// Appends what a token holds.
    ///
    /// # Errors
    /// The token is not the peer's.
    fn decode(&mut self, token: &[u8], out: &mut Vec<u8>) -> io::Result<()>;

    /// The most bytes that one token may seal.
    fn max_plain(&self) -> usize;
}

/// The longest token that is taken, in bytes: what libvirt's client offers at most is 64 KiB of
/// plain text, and sealing adds little.
const TOKEN: usize = 128 * 1024;

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

impl Layered {
    pub(super) fn new(layer: Box<dyn SecurityLayer>) -> Self {
        Self {
            layer,
            sealed: Vec::new(),
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
    fn open_token(&mut self) -> io::Result<bool> {
        let Some((word, rest)) = self.sealed.split_first_chunk::<4>() else {
            return Ok(false);
        };
        let length = usize::try_from(u32::from_be_bytes(*word)).unwrap_or(usize::MAX);
        if length > TOKEN {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a sealed token is too long",
            ));
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
        self.outgoing.extend_from_slice(&[0; 4]);
        self.layer.encode(plain, &mut self.outgoing)?;
        let length = u32::try_from(self.outgoing.len() - 4).unwrap_or(u32::MAX);
        if let Some(word) = self.outgoing.first_chunk_mut::<4>() {
            *word = length.to_be_bytes();
        }
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
