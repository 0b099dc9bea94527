//! Frames on a blocking socket, descriptors included.

use std::fmt;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::wait::DEADLINE;
use super::xdr::{Reader, Writer};

/// Program numbers.
pub(crate) const REMOTE: u32 = 0x2000_8086;
pub(crate) const KEEPALIVE: u32 = 0x6b65_6570;

/// Procedures of the remote program which the scripts name.
pub(crate) mod procedure {
    pub(crate) const CONNECT_OPEN: i32 = 1;
    pub(crate) const CONNECT_CLOSE: i32 = 2;
    pub(crate) const CONNECT_GET_VERSION: i32 = 4;
    pub(crate) const CONNECT_GET_HOSTNAME: i32 = 59;
    pub(crate) const CONNECT_SUPPORTS_FEATURE: i32 = 60;
    pub(crate) const AUTH_LIST: i32 = 66;
    pub(crate) const AUTH_SASL_INIT: i32 = 67;
    pub(crate) const AUTH_SASL_START: i32 = 68;
    pub(crate) const STORAGE_VOL_UPLOAD: i32 = 208;
    pub(crate) const CONNECT_SET_IDENTITY: i32 = 419;
}

/// Message types.
pub(crate) mod kind {
    pub(crate) const CALL: i32 = 0;
    pub(crate) const REPLY: i32 = 1;
    pub(crate) const MESSAGE: i32 = 2;
    pub(crate) const STREAM: i32 = 3;
    pub(crate) const CALL_WITH_FDS: i32 = 4;
    pub(crate) const REPLY_WITH_FDS: i32 = 5;
    pub(crate) const STREAM_HOLE: i32 = 6;
}

/// Message statuses.
pub(crate) mod status {
    pub(crate) const OK: i32 = 0;
    pub(crate) const ERROR: i32 = 1;
    pub(crate) const CONTINUE: i32 = 2;
}

/// One frame. Descriptors go with a frame whose kind carries them: their count, which the wire has
/// before the body, is not part of `body` here.
#[derive(Clone)]
pub(crate) struct Frame {
    pub(crate) program: u32,
    pub(crate) version: u32,
    pub(crate) procedure: i32,
    pub(crate) kind: i32,
    pub(crate) serial: u32,
    pub(crate) status: i32,
    pub(crate) body: Vec<u8>,
    pub(crate) fds: Vec<Arc<OwnedFd>>,
}

impl fmt::Debug for Frame {
    /// With the head of the body: all of a stream's frame would bury what a test has to say.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = &self.body[..self.body.len().min(64)];
        f.debug_struct("Frame")
            .field("program", &self.program)
            .field("procedure", &self.procedure)
            .field("kind", &self.kind)
            .field("serial", &self.serial)
            .field("status", &self.status)
            .field("length", &self.body.len())
            .field("body", &String::from_utf8_lossy(head))
            .field("fds", &self.fds)
            .finish_non_exhaustive()
    }
}

impl Frame {
    /// A call of the remote program.
    pub(crate) fn call(procedure: i32, serial: u32, body: Vec<u8>) -> Self {
        Self {
            program: REMOTE,
            version: 1,
            procedure,
            kind: kind::CALL,
            serial,
            status: status::OK,
            body,
            fds: Vec::new(),
        }
    }

    /// An event of the remote program.
    pub(crate) fn event(procedure: i32, body: Vec<u8>) -> Self {
        Self {
            kind: kind::MESSAGE,
            ..Self::call(procedure, 0, body)
        }
    }

    /// The frame which answers this call with `body`.
    pub(crate) fn reply(&self, body: Vec<u8>) -> Self {
        Self {
            kind: kind::REPLY,
            status: status::OK,
            body,
            fds: Vec::new(),
            ..self.clone()
        }
    }

    /// The same, with descriptors.
    pub(crate) fn reply_with_fds(&self, body: Vec<u8>, fds: Vec<OwnedFd>) -> Self {
        let fds = fds.into_iter().map(Arc::new).collect();
        Self {
            kind: kind::REPLY_WITH_FDS,
            fds,
            ..self.reply(body)
        }
    }

    /// The frame which answers this call with an error.
    pub(crate) fn error_reply(&self, error: &RpcError) -> Self {
        Self {
            status: status::ERROR,
            ..self.reply(error.encode())
        }
    }

    /// A frame of this call's stream: `status::CONTINUE` with data (or none: the end of the data),
    /// `status::OK` to finish, `status::ERROR` to abort.
    pub(crate) fn stream(&self, status: i32, body: Vec<u8>) -> Self {
        Self {
            kind: kind::STREAM,
            status,
            ..self.reply(body)
        }
    }

    fn carries_fds(&self) -> bool {
        matches!(self.kind, kind::CALL_WITH_FDS | kind::REPLY_WITH_FDS)
    }

    /// The bytes of the frame, without those that carry descriptors.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut header = Writer::new()
            .u32(self.program)
            .u32(self.version)
            .i32(self.procedure)
            .i32(self.kind)
            .u32(self.serial)
            .i32(self.status);
        if self.carries_fds() {
            header = header.u32(u32::try_from(self.fds.len()).unwrap());
        }
        let header = header.end();
        let len = u32::try_from(4 + header.len() + self.body.len()).unwrap();
        [&len.to_be_bytes()[..], &header, &self.body].concat()
    }

    /// The error that this reply carries.
    ///
    /// # Panics
    /// If it is no error.
    #[track_caller]
    pub(crate) fn error(&self) -> RpcError {
        assert_eq!(self.status, status::ERROR, "not an error: {self:?}");
        RpcError::decode(&self.body)
    }
}

/// A libvirt error as it travels, without the objects that it may name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RpcError {
    pub(crate) code: i32,
    pub(crate) domain: i32,
    pub(crate) message: String,
    pub(crate) level: i32,
}

impl RpcError {
    fn decode(body: &[u8]) -> Self {
        let mut reader = Reader::new(body);
        let (code, domain) = (reader.i32(), reader.i32());
        let message = reader.optional().unwrap_or_default();
        Self {
            code,
            domain,
            message,
            level: reader.i32(),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        Writer::new()
            .i32(self.code)
            .i32(self.domain)
            .optional(Some(&self.message))
            .i32(self.level)
            .u32(0)
            .optional(None)
            .optional(None)
            .optional(None)
            .i32(0)
            .i32(0)
            .u32(0)
            .end()
    }
}

/// A connected socket that frames are read from and written to, each way within the deadline.
#[derive(Debug)]
pub(crate) struct FrameStream {
    socket: UnixStream,
}

impl FrameStream {
    pub(crate) fn new(socket: UnixStream) -> Self {
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.set_write_timeout(Some(DEADLINE)).unwrap();
        Self { socket }
    }

    pub(crate) fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// A second handle of the same connection.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        self.socket.try_clone().map(|socket| Self { socket })
    }

    /// Sends any bytes.
    pub(crate) fn send_bytes(&self, bytes: &[u8]) -> io::Result<()> {
        (&self.socket).write_all(bytes)
    }

    /// Sends a frame, then its descriptors, each with a byte of its own.
    pub(crate) fn send(&self, frame: &Frame) -> io::Result<()> {
        self.send_bytes(&frame.encode())?;
        frame.fds.iter().try_for_each(|fd| self.send_fd(fd.as_fd()))
    }

    /// Sends one byte with one descriptor.
    pub(crate) fn send_fd(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [fd];
        assert!(
            control.push(SendAncillaryMessage::ScmRights(&fds)),
            "room for one descriptor"
        );
        sendmsg(
            &self.socket,
            &[IoSlice::new(&[0])],
            &mut control,
            SendFlags::NOSIGNAL,
        )?;
        Ok(())
    }

    /// Sends one byte with many descriptors.
    pub(crate) fn send_fds(&self, fds: &[Arc<OwnedFd>]) -> io::Result<()> {
        let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let rights = SendAncillaryMessage::ScmRights(&fds);
        assert!(control.push(rights), "room for {} descriptors", fds.len());
        let byte = [IoSlice::new(&[0])];
        sendmsg(&self.socket, &byte, &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    fn receive_fd(&self) -> io::Result<Arc<OwnedFd>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let mut parts = [IoSliceMut::new(&mut byte)];
        recvmsg(
            &self.socket,
            &mut parts,
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        control
            .drain()
            .find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut fds) => fds.next().map(Arc::new),
                _ => None,
            })
            .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "a byte without its descriptor"))
    }

    /// Reads the next frame with its descriptors; `None` when the other side has closed.
    pub(crate) fn receive(&self) -> io::Result<Option<Frame>> {
        let mut length = [0; 4];
        match (&self.socket).read_exact(&mut length) {
            Ok(()) => {}
            Err(error) if closed(&error) => return Ok(None),
            Err(error) => return Err(error),
        }
        let length = u32::from_be_bytes(length) as usize;
        if !(28..=33_554_436).contains(&length) {
            return Err(io::Error::new(
                ErrorKind::InvalidData,
                format!("length {length}"),
            ));
        }
        let mut bytes = vec![0; length - 4];
        (&self.socket).read_exact(&mut bytes)?;
        let mut header = Reader::new(&bytes);
        let mut frame = Frame {
            program: header.u32(),
            version: header.u32(),
            procedure: header.i32(),
            kind: header.i32(),
            serial: header.u32(),
            status: header.i32(),
            body: Vec::new(),
            fds: Vec::new(),
        };
        let mut start = 24;
        if frame.carries_fds() {
            start += 4;
            for _ in 0..header.u32() {
                frame.fds.push(self.receive_fd()?);
            }
        }
        frame.body = bytes.split_off(start);
        Ok(Some(frame))
    }
}

/// Whether the other side has gone: it may have left bytes of ours unread, which resets.
fn closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
    )
}
