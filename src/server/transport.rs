//! A connection as the pump sees it: non-blocking, woken by readiness, with descriptors where the
//! socket can carry them, and with whatever layers lie over the socket.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::task::{Context, Poll, ready};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{self, Shutdown};
use tokio::net::TcpStream;

use super::auth::authenticator::Over;
use super::auth::certificates::CertificateId;
use super::auth::sasl::SecurityLayer;
use super::dial::Program;
use super::security_layer::Layered;
use super::socket::{self, UnixSocket};
use super::tls_channel::TlsChannel;

/// A connection. What is sent may lie in a layer until [`Transport::poll_flush`] is ready.
#[derive(Debug)]
pub(super) struct Transport {
    channel: Channel,
    /// A SASL mechanism's security layer, over everything else.
    layer: Option<Box<Layered>>,
}

/// What a connection is made of.
#[derive(Debug)]
pub(crate) enum Channel {
    /// A UNIX socket, the only one that carries descriptors.
    Unix(UnixSocket),
    /// Plain TCP.
    Tcp(TcpStream),
    /// TLS over TCP, after its handshake.
    Tls(TlsChannel),
    /// A program of ours.
    Program(Box<Program>),
}

impl Channel {
    /// The certificates that the client showed by TLS, its own first; empty if it has none.
    pub(super) fn client_chain(&self) -> Vec<CertificateId> {
        match self {
            Self::Unix(_) | Self::Tcp(_) | Self::Program(_) => Vec::new(),
            Self::Tls(channel) => {
                let chain = channel.client_chain().iter();
                chain.filter_map(|der| CertificateId::of(der)).collect()
            }
        }
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        descriptors: &mut VecDeque<OwnedFd>,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Unix(socket) => socket::poll_recv_unix(socket, cx, buffer, descriptors),
            Self::Tcp(socket) => socket::poll_recv_tcp(socket, cx, buffer),
            Self::Tls(channel) => channel.poll_recv(cx, buffer),
            Self::Program(program) => program.poll_recv(cx, buffer, descriptors),
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Unix(socket) => socket::poll_send_unix(socket, cx, bytes),
            Self::Tcp(socket) => socket::poll_send_tcp(socket, cx, bytes),
            Self::Tls(channel) => channel.poll_send(cx, bytes),
            Self::Program(program) => program.poll_send(cx, bytes),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Unix(_) | Self::Tcp(_) | Self::Program(_) => Poll::Ready(Ok(())),
            Self::Tls(channel) => channel.poll_flush(cx),
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(socket) => socket.as_fd(),
            Self::Tcp(socket) => socket.as_fd(),
            Self::Tls(channel) => channel.socket().as_fd(),
            Self::Program(program) => program.as_fd(),
        }
    }
}

impl Transport {
    /// Over a channel that is ready for the first frame.
    pub(super) fn new(channel: Channel) -> Self {
        Self {
            channel,
            layer: None,
        }
    }

    /// Takes a connected, non-blocking UNIX socket.
    pub(super) fn unix(socket: StdUnixStream) -> io::Result<Self> {
        Ok(Self::new(Channel::Unix(UnixSocket::new(socket.into())?)))
    }

    /// Puts a security layer over what is sent from now on, and over what is received behind
    /// `received`, which has come already.
    pub(super) fn secure(&mut self, layer: Box<dyn SecurityLayer>, received: Vec<u8>) {
        self.layer = Some(Box::new(Layered::new(layer, received)));
    }

    /// What it is made of.
    pub(super) fn over(&self) -> Over {
        match self.channel {
            // Who can reach its pipes is who could reach a socket of its.
            Channel::Unix(_) | Channel::Program(_) => Over::Unix,
            Channel::Tcp(_) => Over::Tcp,
            Channel::Tls(_) => Over::Tls,
        }
    }

    /// How the program behind it has ended, if it never said anything.
    pub(super) fn last_words(&self) -> Option<&str> {
        match &self.channel {
            Channel::Program(program) => program.last_words(),
            _ => None,
        }
    }

    /// Descriptors can travel.
    pub(super) fn carries_descriptors(&self) -> bool {
        matches!(self.channel, Channel::Unix(_)) && self.layer.is_none()
    }

    /// Receives into `buffer`, which is not empty, and appends the descriptors that came along.
    /// 0 bytes are the end.
    pub(super) fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        descriptors: &mut VecDeque<OwnedFd>,
    ) -> Poll<io::Result<usize>> {
        match &mut self.layer {
            None => self.channel.poll_recv(cx, buffer, descriptors),
            Some(layer) => layer.poll_recv(buffer, |sealed| {
                self.channel.poll_recv(cx, sealed, descriptors)
            }),
        }
    }

    /// Sends some of `bytes`, which is not empty; returns how many.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.layer {
            None => self.channel.poll_send(cx, bytes),
            Some(layer) => layer.poll_send(bytes, |sealed| self.channel.poll_send(cx, sealed)),
        }
    }

    /// Sends one byte with one descriptor, as libvirt does for each descriptor of a frame.
    pub(super) fn poll_send_descriptor(
        &mut self,
        cx: &mut Context<'_>,
        descriptor: BorrowedFd<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.channel {
            Channel::Unix(socket) if self.layer.is_none() => {
                socket::poll_send_descriptor(socket, cx, descriptor)
            }
            // The session lets no descriptor pass to here.
            _ => Poll::Ready(Err(io::ErrorKind::Unsupported.into())),
        }
    }

    /// Ready once nothing of what was sent lies in a layer.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(layer) = &mut self.layer {
            ready!(layer.poll_flush(|sealed| self.channel.poll_send(cx, sealed)))?;
        }
        self.channel.poll_flush(cx)
    }

    /// Whether the peer has closed both directions: nothing that is sent will be read.
    pub(super) fn is_hung_up(&self) -> bool {
        let mut socket = [PollFd::new(&self.channel, PollFlags::empty())];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        poll(&mut socket, Some(&now)).is_err()
            || socket
                .iter()
                .any(|fd| fd.revents().contains(PollFlags::HUP))
    }

    /// Tells the peer that nothing more will come.
    pub(super) fn shutdown_write(&mut self, cx: &mut Context<'_>) {
        // A peer that has gone needs no telling, and one that takes nothing is not waited for.
        match &mut self.channel {
            Channel::Tls(channel) => _ = channel.poll_shutdown(cx),
            channel => _ = net::shutdown(channel, Shutdown::Write),
        }
    }
}
