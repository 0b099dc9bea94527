//! Sending and receiving on plain sockets, with as few system calls as there can be: one for each
//! transfer. A transfer that empties or fills the socket says so, and the next one waits for
//! readiness instead of asking in vain.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};

use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::net::{
    self, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;

use crate::protocol::limits::FRAME_DESCRIPTORS;

/// Bytes for the descriptors of one `recvmsg`. libvirt sends one at a time; more than a frame may
/// carry is cut off by the kernel, which closes what it cuts.
const CONTROL: usize = rustix::cmsg_space!(ScmRights(FRAME_DESCRIPTORS));

/// A socket of the runtime's: readiness, and the call itself.
pub(super) trait Socket: AsFd {
    fn poll_ready(&self, cx: &mut Context<'_>, interest: Interest) -> Poll<io::Result<()>>;
    fn try_io(&self, interest: Interest, io: impl FnOnce() -> io::Result<()>) -> io::Result<()>;
}

impl Socket for TcpStream {
    fn poll_ready(&self, cx: &mut Context<'_>, interest: Interest) -> Poll<io::Result<()>> {
        if interest.is_readable() {
            self.poll_read_ready(cx)
        } else {
            self.poll_write_ready(cx)
        }
    }

    fn try_io(&self, interest: Interest, io: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.try_io(interest, io)
    }
}

/// A connected UNIX socket.
///
/// Linux tells the sender of every frame when the receiver has taken it. Nobody waits for that as
/// long as there is room, so the runtime is not asked about room until the socket has been full for
/// the first time: it halves how often a connection wakes up for a call.
#[derive(Debug)]
pub(crate) struct UnixSocket {
    fd: AsyncFd<OwnedFd>,
    /// The runtime is asked about room.
    has_been_full: bool,
}

impl UnixSocket {
    /// Takes a connected, non-blocking socket. Call it within the runtime that is to serve it.
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            fd: register(socket, Interest::READABLE)?,
            has_been_full: false,
        })
    }

    /// Makes one transfer; from the first one for which there is no room, the runtime is asked.
    fn poll_send_with(
        &mut self,
        cx: &mut Context<'_>,
        mut transfer: impl FnMut(BorrowedFd<'_>) -> Result<Transfer, Errno>,
    ) -> Poll<io::Result<usize>> {
        while !self.has_been_full {
            match transfer(self.fd.as_fd()) {
                Ok(Transfer { count, .. }) => return Poll::Ready(Ok(count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    // The runtime takes no second wish for a descriptor that it has.
                    let socket = fcntl_dupfd_cloexec(&self.fd, 0)?;
                    self.fd = register(socket, Interest::READABLE | Interest::WRITABLE)?;
                    self.has_been_full = true;
                    // Whoever waits to receive has to tell the new one.
                    cx.waker().wake_by_ref();
                }
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
        poll_transfer(&self.fd, cx, Interest::WRITABLE, transfer)
    }
}

impl AsFd for UnixSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[expect(
    deprecated,
    reason = "the objection is to types that may name another descriptor each time, which an \
              `OwnedFd` cannot"
)]
fn register(socket: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(socket, interest)
}

impl Socket for AsyncFd<OwnedFd> {
    fn poll_ready(&self, cx: &mut Context<'_>, interest: Interest) -> Poll<io::Result<()>> {
        let ready = if interest.is_readable() {
            self.poll_read_ready(cx)
        } else {
            self.poll_write_ready(cx)
        };
        ready.map_ok(|_| ())
    }

    fn try_io(&self, interest: Interest, io: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.try_io(interest, |_| io())
    }
}

/// What one transfer did: bytes moved, and whether the socket is now known to be empty or full.
struct Transfer {
    count: usize,
    exhausted: bool,
}

/// Makes one transfer as soon as the socket is ready for it.
fn poll_transfer(
    socket: &impl Socket,
    cx: &mut Context<'_>,
    interest: Interest,
    mut transfer: impl FnMut(BorrowedFd<'_>) -> Result<Transfer, Errno>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(socket.poll_ready(cx, interest))?;
        let mut moved = None;
        let outcome = socket.try_io(interest, || {
            let Transfer { count, exhausted } = transfer(socket.as_fd())?;
            moved = Some(count);
            // This is how the runtime is told that readiness is over.
            if exhausted {
                Err(Errno::AGAIN.into())
            } else {
                Ok(())
            }
        });
        match (moved, outcome) {
            (Some(count), _) => return Poll::Ready(Ok(count)),
            (None, Err(error)) if !is_passing(&error) => return Poll::Ready(Err(error)),
            _ => {}
        }
    }
}

/// Not ready after all, or interrupted.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// Receives bytes, and appends the descriptors that came along. 0 bytes are the end.
pub(super) fn poll_recv_unix(
    socket: &UnixSocket,
    cx: &mut Context<'_>,
    buffer: &mut [u8],
    descriptors: &mut VecDeque<OwnedFd>,
) -> Poll<io::Result<usize>> {
    let room = buffer.len();
    poll_transfer(&socket.fd, cx, Interest::READABLE, |fd| {
        let mut space = [MaybeUninit::uninit(); CONTROL];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let buffers = &mut [IoSliceMut::new(buffer)];
        let received = net::recvmsg(fd, buffers, &mut control, flags)?;
        if received.flags.contains(ReturnFlags::CTRUNC) {
            // What was not cut off is closed with `control`.
            return Err(Errno::BADMSG);
        }
        let before = descriptors.len();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        // The kernel ends a read at a descriptor, whatever lies behind.
        let short = received.bytes < room && descriptors.len() == before;
        Ok(Transfer {
            count: received.bytes,
            exhausted: received.bytes > 0 && short,
        })
    })
}

/// Receives bytes. 0 bytes are the end.
pub(super) fn poll_recv_tcp(
    socket: &TcpStream,
    cx: &mut Context<'_>,
    buffer: &mut [u8],
) -> Poll<io::Result<usize>> {
    let room = buffer.len();
    poll_transfer(socket, cx, Interest::READABLE, |fd| {
        let (count, _) = net::recv(fd, &mut *buffer, RecvFlags::DONTWAIT)?;
        Ok(Transfer {
            count,
            exhausted: 0 < count && count < room,
        })
    })
}

/// Sends some of `bytes`; returns how many.
pub(super) fn poll_send_unix(
    socket: &mut UnixSocket,
    cx: &mut Context<'_>,
    bytes: &[u8],
) -> Poll<io::Result<usize>> {
    socket.poll_send_with(cx, |fd| send(fd, bytes))
}

/// Sends some of `bytes`; returns how many.
pub(super) fn poll_send_tcp(
    socket: &TcpStream,
    cx: &mut Context<'_>,
    bytes: &[u8],
) -> Poll<io::Result<usize>> {
    poll_transfer(socket, cx, Interest::WRITABLE, |fd| send(fd, bytes))
}

fn send(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<Transfer, Errno> {
    let count = net::send(fd, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
    Ok(Transfer {
        count,
        exhausted: count < bytes.len(),
    })
}

/// Sends one byte with one descriptor.
pub(super) fn poll_send_descriptor(
    socket: &mut UnixSocket,
    cx: &mut Context<'_>,
    descriptor: BorrowedFd<'_>,
) -> Poll<io::Result<()>> {
    let sent = socket.poll_send_with(cx, |fd| {
        let rights = [descriptor];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&rights));
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let count = net::sendmsg(fd, &[IoSlice::new(&[0])], &mut control, flags)?;
        Ok(Transfer {
            count,
            exhausted: false,
        })
    });
    sent.map_ok(|_| ())
}
