//! The client's side of the RPC protocol: calls, and one blocking connection.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use virtproxyd::protocol::frame;
use virtproxyd::protocol::header::{Header, MessageType, Procedure, Program, Serial, Status};
use virtproxyd::protocol::limits::FRAME_MIN;
use virtproxyd::protocol::object::Object;
use virtproxyd::protocol::table::remote;
use virtproxyd::protocol::xdr::Writer;

/// UUID of the test driver's own domain.
const TEST_DOMAIN: &str = "6695eb01-f6a4-8304-79aa-97f2502e193f";

/// The volume of the streams: its daemon finds it by these.
pub(crate) const POOL: &str = "pool";
pub(crate) const VOLUME: &str = "volume";

/// How long anything may take to answer before the run is given up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Payload of one frame of stream data, as libvirt sends it.
pub(crate) const STREAM_PAYLOAD: usize = 262_120;
/// Where the serial is in a frame.
const SERIAL: std::ops::Range<usize> = 20..24;

/// A call as bytes.
pub(crate) fn call(procedure: Procedure, arguments: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let header = Header::remote_call(procedure, Serial(0));
    frame::write(&mut bytes, header, arguments);
    bytes
}

/// A frame of a stream as bytes.
pub(crate) fn stream_frame(
    procedure: Procedure,
    serial: u32,
    status: Status,
    data: &[u8],
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FRAME_MIN + data.len());
    let header = Header {
        kind: MessageType::STREAM,
        status,
        ..Header::remote_call(procedure, Serial(serial))
    };
    frame::write(&mut bytes, header, |writer| writer.raw(data));
    bytes
}

/// `CONNECT_GET_LIB_VERSION`: the smallest call that a daemon answers from an open connection.
pub(crate) fn small_call() -> Vec<u8> {
    call(remote::CONNECT_GET_LIB_VERSION, |_| ())
}

/// `DOMAIN_IS_ACTIVE` of the domain that the test driver's default node has.
pub(crate) fn domain_call() -> Vec<u8> {
    call(remote::DOMAIN_IS_ACTIVE, |writer| {
        let uuid = TEST_DOMAIN.parse().unwrap();
        let (name, id) = ("test", 1);
        Object::Domain { name, uuid, id }.encode(writer);
    })
}

/// A call whose only argument is a name: `…_LOOKUP_BY_NAME`.
pub(crate) fn named_call(procedure: Procedure, name: &str) -> Vec<u8> {
    call(procedure, |writer| {
        writer.string(name);
    })
}

/// `CONNECT_LIST_ALL_DOMAINS`, all of them.
pub(crate) fn list_call() -> Vec<u8> {
    call(remote::CONNECT_LIST_ALL_DOMAINS, |writer| {
        writer.i32(1).u32(0);
    })
}

/// `STORAGE_VOL_DOWNLOAD` or `_UPLOAD` of so many bytes.
pub(crate) fn volume_call(procedure: Procedure, length: u64) -> Vec<u8> {
    call(procedure, |writer| {
        writer.string(POOL).string(VOLUME).string("/pool/volume");
        writer.u64(0).u64(length).u32(0);
    })
}

/// Gives a call, or a frame of it, another serial.
pub(crate) fn set_serial(frame: &mut [u8], serial: u32) {
    frame[SERIAL].copy_from_slice(&serial.to_be_bytes());
}

/// The serial of a frame.
pub(crate) fn serial(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[SERIAL].try_into().unwrap())
}

/// The header of a whole frame.
pub(crate) fn header(frame: &[u8]) -> Header {
    Header::decode(frame[4..FRAME_MIN].try_into().unwrap())
}

/// Length of the frame at the head of `bytes`, if all of it is there.
pub(crate) fn whole_frame(bytes: &[u8]) -> Option<usize> {
    let word = bytes.first_chunk::<4>()?;
    let length = u32::from_be_bytes(*word) as usize;
    assert!(length >= FRAME_MIN, "a frame of {length} bytes");
    (bytes.len() >= length).then_some(length)
}

/// Connects; a full queue is waited for.
pub(crate) fn connect(socket: &Path) -> io::Result<UnixStream> {
    let end = Instant::now() + PATIENCE;
    loop {
        match UnixStream::connect(socket) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < end => {
                std::thread::sleep(Duration::from_micros(200));
            }
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                return Ok(stream);
            }
            Err(error) => return Err(error),
        }
    }
}

/// One connection that does one thing at a time.
pub(crate) struct Client<S> {
    pub(crate) stream: S,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    next_serial: u32,
}

impl Client<UnixStream> {
    /// Connects and opens `uri`, with as few calls as a client can.
    pub(crate) fn open(socket: &Path, uri: &str) -> io::Result<Self> {
        let mut client = Self::new(connect(socket)?);
        client.begin(uri)?;
        Ok(client)
    }
}

impl<S: Read + Write> Client<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            buffer: vec![0; 2048],
            start: 0,
            end: 0,
            next_serial: 0,
        }
    }

    /// `AUTH_LIST` and `CONNECT_OPEN`.
    pub(crate) fn begin(&mut self, uri: &str) -> io::Result<()> {
        self.ask(&mut call(remote::AUTH_LIST, |_| ()))?;
        self.ask(&mut open_call(uri))
    }

    /// Everything that `virsh` says before and after its first command, one after the other.
    pub(crate) fn whole_dialogue(&mut self, uri: &str) -> io::Result<()> {
        self.ask(&mut call(remote::AUTH_LIST, |_| ()))?;
        self.ask(&mut feature_call(10))?;
        self.ask(&mut open_call(uri))?;
        self.ask(&mut feature_call(14))?;
        self.ask(&mut feature_call(15))?;
        for procedure in [
            remote::CONNECT_REGISTER_CLOSE_CALLBACK,
            remote::CONNECT_UNREGISTER_CLOSE_CALLBACK,
            remote::CONNECT_CLOSE,
        ] {
            self.ask(&mut call(procedure, |_| ()))?;
        }
        Ok(())
    }

    /// Makes a call and waits for its good reply.
    pub(crate) fn ask(&mut self, call: &mut [u8]) -> io::Result<()> {
        let serial = self.send(call)?;
        loop {
            let header = header(self.receive()?);
            if header.program != Program::REMOTE || header.serial != Serial(serial) {
                continue; // a ping or an event
            }
            if header.kind == MessageType::REPLY && header.status == Status::OK {
                return Ok(());
            }
            return Err(io::Error::other(format!("refused: {header:?}")));
        }
    }

    /// Sends a call and returns its serial.
    pub(crate) fn send(&mut self, call: &mut [u8]) -> io::Result<u32> {
        let serial = self.next_serial;
        self.next_serial += 1;
        set_serial(call, serial);
        self.stream.write_all(call)?;
        Ok(serial)
    }

    /// The next frame, which lies in the buffer until the next call.
    pub(crate) fn receive(&mut self) -> io::Result<&[u8]> {
        loop {
            if let Some(length) = whole_frame(&self.buffer[self.start..self.end]) {
                let from = self.start;
                self.start += length;
                return Ok(&self.buffer[from..from + length]);
            }
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.end == self.buffer.len() {
                self.buffer.resize(2 * self.buffer.len().max(64 * 1024), 0);
            }
            match self.stream.read(&mut self.buffer[self.end..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.end += count,
            }
        }
    }

    /// Reads `length` bytes of a volume, all of which have to come.
    pub(crate) fn download(&mut self, length: u64) -> io::Result<()> {
        let procedure = remote::STORAGE_VOL_DOWNLOAD;
        let serial = self.send(&mut volume_call(procedure, length))?;
        let mut missing = length;
        loop {
            let frame = self.receive()?;
            let header = header(frame);
            if header.serial != Serial(serial) || header.program != Program::REMOTE {
                continue;
            }
            let data = frame.len() - FRAME_MIN;
            match (header.kind, header.status) {
                (MessageType::REPLY, Status::OK) => {}
                (MessageType::STREAM, Status::CONTINUE) if data > 0 => {
                    missing = missing.saturating_sub(data as u64);
                }
                (MessageType::STREAM, Status::CONTINUE) => {
                    let finish = stream_frame(procedure, serial, Status::OK, &[]);
                    self.stream.write_all(&finish)?;
                }
                (MessageType::STREAM, Status::OK) if missing == 0 => return Ok(()),
                _ => {
                    let text = format!("download: {header:?}, {missing} bytes missing");
                    return Err(io::Error::other(text));
                }
            }
        }
    }

    /// Writes a volume of `length` bytes, and waits until the daemon says that it has it.
    pub(crate) fn upload(&mut self, length: u64) -> io::Result<()> {
        let procedure = remote::STORAGE_VOL_UPLOAD;
        let mut open = volume_call(procedure, length);
        self.ask(&mut open)?;
        let serial = serial(&open);
        let data = vec![7; STREAM_PAYLOAD];
        let frame = stream_frame(procedure, serial, Status::CONTINUE, &data);
        for _ in 0..length / STREAM_PAYLOAD as u64 {
            self.stream.write_all(&frame)?;
        }
        let finish = stream_frame(procedure, serial, Status::OK, &[]);
        self.stream.write_all(&finish)?;
        loop {
            let header = header(self.receive()?);
            match (header.kind, header.status) {
                (MessageType::STREAM, Status::OK) => return Ok(()),
                (MessageType::MESSAGE, _) => {}
                _ => return Err(io::Error::other(format!("upload: {header:?}"))),
            }
        }
    }
}

fn open_call(uri: &str) -> Vec<u8> {
    call(remote::CONNECT_OPEN, |writer| {
        writer.optional_string(Some(uri)).u32(0);
    })
}

fn feature_call(feature: i32) -> Vec<u8> {
    call(remote::CONNECT_SUPPORTS_FEATURE, |writer| {
        writer.i32(feature);
    })
}
