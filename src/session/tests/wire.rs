//! Frames on their way, and the calls that tests make.

use super::*;

/// A frame on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Msg {
    pub(super) header: Header,
    pub(super) payload: Vec<u8>,
    pub(super) descriptors: usize,
}

impl Msg {
    pub(super) fn new(header: Header, payload: impl FnOnce(&mut Writer<'_>)) -> Self {
        let mut bytes = Vec::new();
        payload(&mut Writer::new(&mut bytes));
        Self {
            header,
            payload: bytes,
            descriptors: 0,
        }
    }

    pub(super) fn with(self, change: impl FnOnce(&mut Header)) -> Self {
        let mut msg = self;
        change(&mut msg.header);
        msg
    }

    /// The same frame with descriptors.
    pub(super) fn with_descriptors(self, count: u32) -> Self {
        let mut msg = self;
        msg.header.kind = if msg.header.kind.is_call() {
            MessageType::CALL_WITH_FDS
        } else {
            MessageType::REPLY_WITH_FDS
        };
        msg.payload.splice(..0, count.to_be_bytes());
        msg.descriptors = count as usize;
        msg
    }

    /// A good reply to this call.
    pub(super) fn reply(&self, payload: impl FnOnce(&mut Writer<'_>)) -> Self {
        Self::new(self.header.answer(Status::OK), payload)
    }

    /// An error reply to this call, as daemons send it.
    pub(super) fn error(&self, text: &str) -> Self {
        Self::new(self.header.answer(Status::ERROR), |writer| {
            writer.i32(38).i32(20).optional_string(Some(text));
            writer.i32(2).u32(0).u32(0).u32(0).u32(0);
            writer.i32(-1).i32(-1).u32(0);
        })
    }

    /// A frame of the stream that this call opened.
    pub(super) fn stream(&self, status: Status, data: &str) -> Self {
        let header = Header {
            kind: MessageType::STREAM,
            status,
            ..self.header
        };
        let payload = data.as_bytes().to_vec();
        Self {
            header,
            payload,
            descriptors: 0,
        }
    }

    /// A hole in the stream that this call opened.
    pub(super) fn hole(&self) -> Self {
        Self::new(self.header, |writer| _ = writer.i64(4096).u32(0)).with(|header| {
            header.kind = MessageType::STREAM_HOLE;
            header.status = Status::CONTINUE;
        })
    }

    pub(super) fn frame(&self) -> Frame<'_> {
        Frame {
            header: self.header,
            payload: &self.payload,
            descriptors: self.descriptors,
        }
    }

    /// Code and text of an error reply or of an aborted stream.
    pub(super) fn fault(&self) -> (i32, String) {
        assert_eq!(self.header.status, Status::ERROR, "{self:?}");
        let mut reader = Reader::new(&self.payload);
        let code = reader.i32().unwrap();
        reader.i32().unwrap();
        let text = reader.optional_string(1 << 22).unwrap().unwrap_or_default();
        (code, text.to_owned())
    }
}

/// A call of program `remote` without arguments.
pub(super) fn call(procedure: Procedure, serial: u32) -> Msg {
    Msg::new(Header::remote_call(procedure, Serial(serial)), |_| ())
}

pub(super) fn connect_open(serial: u32, name: Option<&str>, flags: u32) -> Msg {
    let header = Header::remote_call(remote::CONNECT_OPEN, Serial(serial));
    Msg::new(header, |writer| ConnectOpen { name, flags }.encode(writer))
}

pub(super) fn feature(serial: u32, feature: i32) -> Msg {
    let header = Header::remote_call(remote::CONNECT_SUPPORTS_FEATURE, Serial(serial));
    Msg::new(header, |writer| _ = writer.i32(feature))
}

pub(super) fn message(program: Program, procedure: Procedure) -> Msg {
    let header = Header {
        program,
        version: VERSION,
        procedure,
        kind: MessageType::MESSAGE,
        serial: Serial(0),
        status: Status::OK,
    };
    Msg::new(header, |_| ())
}

pub(super) fn a_ping() -> Msg {
    message(Program::KEEPALIVE, ping::PING)
}

pub(super) fn a_pong() -> Msg {
    message(Program::KEEPALIVE, ping::PONG)
}

/// The whole frames that these bytes must be.
pub(super) fn split(mut bytes: &[u8]) -> Vec<Msg> {
    let mut all = Vec::new();
    assert!(!bytes.is_empty(), "nothing sent");
    while !bytes.is_empty() {
        let Ok(Next::Frame(frame)) = frame::next(bytes, FRAME_MAX) else {
            panic!("not a frame: {bytes:?}");
        };
        all.push(Msg {
            header: frame.header,
            payload: frame.payload.to_vec(),
            descriptors: frame.descriptors,
        });
        bytes = &bytes[frame.wire_len()..];
    }
    all
}
