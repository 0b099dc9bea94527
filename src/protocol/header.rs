//! The 24-byte header of every frame. Numbers are newtypes with the known values beside them, so
//! that a number of a newer libvirt is carried and printed, not lost.

use std::fmt;

use super::limits::HEADER;
use super::table;

/// An RPC program number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Program(pub u32);

impl Program {
    /// The hypervisor-neutral API.
    pub const REMOTE: Self = Self(0x2000_8086);
    /// QEMU's own calls.
    pub const QEMU: Self = Self(0x2000_8087);
    /// LXC's own calls.
    pub const LXC: Self = Self(0x0006_8000);
    /// Administration of the daemon itself.
    pub const ADMIN: Self = Self(0x0690_0690);
    /// Pings and pongs.
    pub const KEEPALIVE: Self = Self(0x6b65_6570);

    /// The program's name, if it is a known one.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::REMOTE => "remote",
            Self::QEMU => "qemu",
            Self::LXC => "lxc",
            Self::ADMIN => "admin",
            Self::KEEPALIVE => "keepalive",
            _ => return None,
        })
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{:#010x}", self.0),
        }
    }
}

/// Version of all five programs.
pub const VERSION: u32 = 1;

/// A procedure number within its program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Procedure(pub i32);

/// Ties a reply, and the frames of a stream, to their call. Chosen by the caller; 0 in events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Serial(pub u32);

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageType(pub u32);

impl MessageType {
    /// A call, client to daemon.
    pub const CALL: Self = Self(0);
    /// The answer to a call.
    pub const REPLY: Self = Self(1);
    /// An event or a keepalive message; nobody answers it.
    pub const MESSAGE: Self = Self(2);
    /// Data of a stream, its end or its abort.
    pub const STREAM: Self = Self(3);
    /// A call with descriptors.
    pub const CALL_WITH_FDS: Self = Self(4);
    /// A reply with descriptors.
    pub const REPLY_WITH_FDS: Self = Self(5);
    /// A hole in a sparse stream.
    pub const STREAM_HOLE: Self = Self(6);

    /// A call, with descriptors or without.
    #[must_use]
    pub fn is_call(self) -> bool {
        self == Self::CALL || self == Self::CALL_WITH_FDS
    }

    /// A reply, with descriptors or without.
    #[must_use]
    pub fn is_reply(self) -> bool {
        self == Self::REPLY || self == Self::REPLY_WITH_FDS
    }

    /// A frame of a stream: data, a hole, the end or an abort.
    #[must_use]
    pub fn is_stream(self) -> bool {
        self == Self::STREAM || self == Self::STREAM_HOLE
    }

    /// The frame says how many descriptors follow it.
    #[must_use]
    pub fn carries_descriptors(self) -> bool {
        self == Self::CALL_WITH_FDS || self == Self::REPLY_WITH_FDS
    }
}

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status(pub u32);

impl Status {
    /// A call, a good reply, or the end of a stream.
    pub const OK: Self = Self(0);
    /// The payload is an error.
    pub const ERROR: Self = Self(1);
    /// Stream data; more may come.
    pub const CONTINUE: Self = Self(2);
}

/// The header of a frame.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Program.
    pub program: Program,
    /// Its version.
    pub version: u32,
    /// Procedure of that program.
    pub procedure: Procedure,
    /// What the frame is.
    pub kind: MessageType,
    /// Which call it belongs to.
    pub serial: Serial,
    /// How it went.
    pub status: Status,
}

impl Header {
    /// Header of a call of program `remote`.
    #[must_use]
    pub fn remote_call(procedure: Procedure, serial: Serial) -> Self {
        Self {
            program: Program::REMOTE,
            version: VERSION,
            procedure,
            kind: MessageType::CALL,
            serial,
            status: Status::OK,
        }
    }

    /// Header of a message that answers nothing: an event, or a keepalive's.
    #[must_use]
    pub fn message(program: Program, procedure: Procedure) -> Self {
        Self {
            program,
            kind: MessageType::MESSAGE,
            ..Self::remote_call(procedure, Serial(0))
        }
    }

    /// Header of the answer to this frame: a stream frame is answered in its stream, everything
    /// else by a reply.
    #[must_use]
    pub fn answer(self, status: Status) -> Self {
        let kind = if self.kind == MessageType::STREAM {
            self.kind
        } else {
            MessageType::REPLY
        };
        Self {
            kind,
            status,
            ..self
        }
    }

    /// Reads the 24 bytes after the length word. Any six words are a header: what they mean is
    /// decided by whoever acts on them.
    #[must_use]
    pub fn decode(bytes: [u8; HEADER]) -> Self {
        let word = |i: usize| match bytes.get(i * 4..i * 4 + 4) {
            Some(&[a, b, c, d]) => u32::from_be_bytes([a, b, c, d]),
            _ => 0,
        };
        Self {
            program: Program(word(0)),
            version: word(1),
            procedure: Procedure(word(2).cast_signed()),
            kind: MessageType(word(3)),
            serial: Serial(word(4)),
            status: Status(word(5)),
        }
    }

    /// The header's words, in wire order.
    #[must_use]
    pub fn words(self) -> [u32; 6] {
        [
            self.program.0,
            self.version,
            self.procedure.0.cast_unsigned(),
            self.kind.0,
            self.serial.0,
            self.status.0,
        ]
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match table::lookup(self.program, self.procedure) {
            Some(row) => write!(f, "{:?}.{}", self.program, row.name)?,
            None => write!(f, "{:?}.{}", self.program, self.procedure.0)?,
        }
        write!(
            f,
            " type={} serial={} status={}",
            self.kind.0, self.serial.0, self.status.0
        )
    }
}
