//! A connected socket as the pump sees it: non-blocking, woken by readiness, with descriptors
//! where the socket can carry them.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::task::{Context, Poll, ready};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    self, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

use crate::protocol::limits::FRAME_DESCRIPTORS;

/// Bytes for the descriptors of one `recvmsg`. libvirt sends one at a time; more than a frame may
/// carry is cut off by the kernel, which closes what it cuts.
const CONTROL: usize = rustix::cmsg_space!(ScmRights(FRAME_DESCRIPTORS));

/// A connected stream socket.
#[derive(Debug)]
pub(super) struct Transport {
    socket: UnixStream,
}

impl Transport {
    /// Takes a connected, non-blocking UNIX socket.
    pub(super) fn unix(socket: StdUnixStream) -> io::Result<Self> {
        let socket = UnixStream::from_std(socket)?;
        Ok(Self { socket })
    }

    /// Descriptors can travel.
    #[expect(
        clippy::unused_self,
        reason = "other kinds of socket cannot carry them"
    )]
    pub(super) fn carries_descriptors(&self) -> bool {
        true
    }

    /// Receives into `buffer`, which is not empty, and appends the descriptors that came along.
    /// 0 bytes are the end.
    pub(super) fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        descriptors: &mut VecDeque<OwnedFd>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_read_ready(cx))?;
            let mut received = None;
            let outcome = self.socket.try_io(Interest::READABLE, || {
                let before = descriptors.len();
                let count = self.recv(buffer, descriptors)?;
                received = Some(count);
                // A short read has emptied the socket, unless it ended at a descriptor: the next
                // attempt would only learn that there is nothing.
                let emptied = 0 < count && count < buffer.len() && descriptors.len() == before;
                if emptied {
                    Err(Errno::AGAIN.into())
                } else {
                    Ok(())
                }
            });
            if let Some(count) = received {
                return Poll::Ready(Ok(count));
            }
            retry(outcome)?;
        }
    }

    fn recv(&self, buffer: &mut [u8], descriptors: &mut VecDeque<OwnedFd>) -> Result<usize, Errno> {
        let mut space = [MaybeUninit::uninit(); CONTROL];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let buffers = &mut [IoSliceMut::new(buffer)];
        let received = net::recvmsg(&self.socket, buffers, &mut control, flags)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(Errno::BADMSG);
        }
        Ok(received.bytes)
    }

    /// Sends some of `bytes`, which is not empty; returns how many.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write(cx, bytes.len(), |fd| {
            net::send(fd, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
        })
    }

    /// Sends one byte with one descriptor, as libvirt does for each descriptor of a frame.
    pub(super) fn poll_send_descriptor(
        &self,
        cx: &mut Context<'_>,
        descriptor: BorrowedFd<'_>,
    ) -> Poll<io::Result<()>> {
        let send = |fd: BorrowedFd<'_>| {
            let rights = [descriptor];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            control.push(SendAncillaryMessage::ScmRights(&rights));
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            net::sendmsg(fd, &[IoSlice::new(&[0])], &mut control, flags)
        };
        self.poll_write(cx, 1, send).map_ok(|_| ())
    }

    fn poll_write(
        &self,
        cx: &mut Context<'_>,
        length: usize,
        send: impl Fn(BorrowedFd<'_>) -> Result<usize, Errno>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_write_ready(cx))?;
            let mut sent = None;
            let outcome = self.socket.try_io(Interest::WRITABLE, || {
                let count = send(self.socket.as_fd())?;
                sent = Some(count);
                // A short write has filled the socket.
                if count < length {
                    Err(Errno::AGAIN.into())
                } else {
                    Ok(())
                }
            });
            if let Some(count) = sent {
                return Poll::Ready(Ok(count));
            }
            retry(outcome)?;
        }
    }

    /// Whether the peer has closed both directions: nothing that is sent will be read.
    pub(super) fn is_hung_up(&self) -> bool {
        let mut socket = [PollFd::new(&self.socket, PollFlags::empty())];
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
    pub(super) fn shutdown_write(&self) {
        // A peer that has gone needs no telling.
        _ = net::shutdown(&self.socket, Shutdown::Write);
    }
}

/// Nothing is wrong with an attempt that found the socket not ready, or was interrupted.
fn retry(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(()),
            _ => Err(error),
        },
        Ok(()) => Ok(()),
    }
}
