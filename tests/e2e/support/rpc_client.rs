//! A scripted client: any frame or bytes out, frames in.

use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::wait::DEADLINE;
use super::wire::{Frame, FrameStream, RpcError, procedure, status};
use super::xdr::{Reader, Writer};

/// A connection of the scripted client. Its serials count from 0 as libvirt's own do.
#[derive(Debug)]
pub(crate) struct RpcClient {
    stream: FrameStream,
    next_serial: u32,
}

impl RpcClient {
    /// Connects, and does nothing else.
    ///
    /// # Panics
    /// If nobody listens at `socket`.
    #[track_caller]
    pub(crate) fn connect(socket: &Path) -> Self {
        Self::try_connect(socket).unwrap_or_else(|error| panic!("{}: {error}", socket.display()))
    }

    /// Connects, if somebody listens at `socket`.
    pub(crate) fn try_connect(socket: &Path) -> std::io::Result<Self> {
        UnixStream::connect(socket).map(Self::over)
    }

    /// On a connection that is there.
    pub(crate) fn over(socket: UnixStream) -> Self {
        Self {
            stream: FrameStream::new(socket),
            next_serial: 0,
        }
    }

    /// Connects and opens `uri`.
    ///
    /// # Panics
    /// If the other side refuses.
    #[track_caller]
    pub(crate) fn opened(socket: &Path, uri: &str) -> Self {
        let mut client = Self::connect(socket);
        client.auth_list();
        client.open(Some(uri), 0).unwrap();
        client
    }

    /// The connection, for what has no method here.
    pub(crate) fn stream(&self) -> &FrameStream {
        &self.stream
    }

    /// A call of the remote program with the next serial, not yet sent.
    pub(crate) fn prepare(&mut self, procedure: i32, body: Vec<u8>) -> Frame {
        let serial = self.next_serial;
        self.next_serial += 1;
        Frame::call(procedure, serial, body)
    }

    #[track_caller]
    pub(crate) fn send(&self, frame: &Frame) {
        self.stream.send(frame).unwrap();
    }

    #[track_caller]
    pub(crate) fn send_bytes(&self, bytes: &[u8]) {
        self.stream.send_bytes(bytes).unwrap();
    }

    #[track_caller]
    pub(crate) fn send_fd(&self, fd: BorrowedFd<'_>) {
        self.stream.send_fd(fd).unwrap();
    }

    /// The next frame.
    ///
    /// # Panics
    /// If the connection closes or nothing comes within the deadline.
    #[track_caller]
    pub(crate) fn receive(&self) -> Frame {
        match self.stream.receive() {
            Ok(Some(frame)) => frame,
            Ok(None) => panic!("the connection closed where a frame was expected"),
            Err(error) => panic!("no frame within {DEADLINE:?}: {error}"),
        }
    }

    /// Sends a call of the remote program and returns the next frame, which must be its answer.
    #[track_caller]
    pub(crate) fn call(&mut self, procedure: i32, body: Vec<u8>) -> Frame {
        let call = self.prepare(procedure, body);
        self.exchange(&call)
    }

    /// Sends a frame and returns the next one, which must bear the same serial and procedure.
    #[track_caller]
    pub(crate) fn exchange(&self, call: &Frame) -> Frame {
        self.send(call);
        let answer = self.receive();
        let key = |frame: &Frame| (frame.program, frame.procedure, frame.serial);
        assert_eq!(
            key(&answer),
            key(call),
            "{answer:?} does not answer {call:?}"
        );
        answer
    }

    /// `AUTH_LIST`: the kinds of authentication offered.
    #[track_caller]
    pub(crate) fn auth_list(&mut self) -> Vec<i32> {
        let answer = self.call(procedure::AUTH_LIST, Vec::new());
        let mut reader = Reader::new(&answer.body);
        (0..reader.u32()).map(|_| reader.i32()).collect()
    }

    /// `CONNECT_OPEN`; flag 1 is read-only.
    #[track_caller]
    pub(crate) fn open(&mut self, uri: Option<&str>, flags: u32) -> Result<(), RpcError> {
        let body = Writer::new().optional(uri).u32(flags).end();
        let answer = self.call(procedure::CONNECT_OPEN, body);
        if answer.status == status::OK {
            Ok(())
        } else {
            Err(answer.error())
        }
    }

    /// Waits until the other side closes, and returns the frames that came before.
    ///
    /// # Panics
    /// If it does not close within the deadline.
    #[track_caller]
    pub(crate) fn drain(&self) -> Vec<Frame> {
        let next = || {
            self.stream
                .receive()
                .unwrap_or_else(|error| panic!("not closed: {error}"))
        };
        std::iter::from_fn(next).collect()
    }

    /// Waits until the other side closes without another frame.
    #[track_caller]
    pub(crate) fn expect_closed(&self) {
        let frames = self.drain();
        assert!(frames.is_empty(), "frames before the close: {frames:?}");
    }
}
