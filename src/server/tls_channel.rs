//! TLS whose records end where frames end.
//!
//! libvirt's clients take one frame out of GnuTLS and then wait for the socket. What else the last
//! record held would stay there, unread, until more comes: an answer that shares a record with an
//! event would wait for the next ping, or for ever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

/// A connection by TLS, after its handshake and the byte that confirms it.
#[derive(Debug)]
pub(crate) struct TlsChannel {
    stream: Box<TlsStream<TcpStream>>,
    /// Bytes of the frame that is being sent and has not been taken as a whole.
    left: usize,
}

impl TlsChannel {
    pub(crate) fn new(stream: impl Into<TlsStream<TcpStream>>) -> Self {
        Self {
            stream: Box::new(stream.into()),
            left: 0,
        }
    }

    /// The socket below.
    pub(super) fn socket(&self) -> &TcpStream {
        self.stream.get_ref().0
    }

    /// What the client sent in the handshake: its certificate, then those between it and a CA.
    pub(super) fn client_chain(&self) -> &[CertificateDer<'static>] {
        self.stream
            .get_ref()
            .1
            .peer_certificates()
            .unwrap_or_default()
    }

    pub(super) fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Takes some of `bytes`, which go on where the bytes before ended and begin with a whole frame
    /// or the rest of one. Nothing behind that frame is taken.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.left == 0 {
            self.left = first_frame(bytes);
        }
        let of_frame = bytes.get(..self.left).unwrap_or(bytes);
        let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, of_frame))?;
        self.left -= sent;
        Poll::Ready(Ok(sent))
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Says that nothing more will come, as far as it can be said at once.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Length of the frame at the head of `bytes`: its first word counts all of it.
fn first_frame(bytes: &[u8]) -> usize {
    let word = bytes.first_chunk::<4>();
    let length = word.map(|word| usize::try_from(u32::from_be_bytes(*word)));
    match length {
        Some(Ok(length @ 1..)) => length,
        // Only whole frames are sent.
        _ => bytes.len(),
    }
}
