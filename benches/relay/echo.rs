//! The echo upstream: a daemon that knows just enough of the protocol to be opened, and answers at
//! once. It stands where a real daemon would be the slowest part. One thread, and one more for each
//! stream.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, epoll, poll};
use virtproxyd::protocol::frame;
use virtproxyd::protocol::header::{Header, MessageType, Procedure, Program, Serial, Status};
use virtproxyd::protocol::limits::FRAME_MIN;
use virtproxyd::protocol::table::{keepalive, remote};

use super::wire::{self, STREAM_PAYLOAD};

/// Domains in the list.
pub(crate) const DOMAINS: usize = 500;
/// The name of one of them: every other is of the tenant that the rules hide.
pub(crate) fn name(number: usize) -> String {
    let tenant = if number.is_multiple_of(2) {
        "acme"
    } else {
        "globex"
    };
    format!("{tenant}-{number}")
}

/// Listening socket in the epoll set; connections have their index.
const LISTENER: u64 = u64::MAX;

/// Serves until killed.
pub(crate) fn serve(socket: &Path) -> ! {
    let listener = UnixListener::bind(socket).unwrap();
    rustix::net::listen(&listener, 4096).unwrap();
    listener.set_nonblocking(true).unwrap();
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    let (data, readable) = (epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN);
    epoll::add(&epoll, &listener, data, readable).unwrap();
    let mut echo = Echo::new();
    let mut events = Vec::with_capacity(256);
    loop {
        events.clear();
        let waited = epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None);
        if waited.is_err() {
            continue;
        }
        for event in &events {
            if event.data.u64() != LISTENER {
                echo.serve(event.data.u64() as usize);
                continue;
            }
            while let Ok((stream, _)) = listener.accept() {
                let index = echo.adopt(stream);
                let stream = &echo.connections[index].as_ref().unwrap().stream;
                let data = epoll::EventData::new_u64(index as u64);
                epoll::add(&epoll, stream, data, readable).unwrap();
            }
        }
    }
}

struct Echo {
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    subscribers: Vec<usize>,
    list: Vec<u8>,
    buffer: Vec<u8>,
}

struct Connection {
    stream: UnixStream,
    /// A part of a frame.
    rest: Vec<u8>,
}

impl Echo {
    fn new() -> Self {
        let mut list = Vec::new();
        let header = Header::remote_call(remote::CONNECT_LIST_ALL_DOMAINS, Serial(0));
        frame::write(&mut list, header.answer(Status::OK), |writer| {
            writer.u32(DOMAINS as u32);
            for number in 0..DOMAINS {
                writer.string(&name(number));
                writer.raw(&[number as u8; 16]);
                writer.i32(number as i32);
            }
            writer.u32(DOMAINS as u32);
        });
        Self {
            connections: Vec::new(),
            free: Vec::new(),
            subscribers: Vec::new(),
            list,
            buffer: vec![0; 64 * 1024],
        }
    }

    fn adopt(&mut self, stream: UnixStream) -> usize {
        stream.set_nonblocking(true).unwrap();
        let connection = Some(Connection {
            stream,
            rest: Vec::new(),
        });
        match self.free.pop() {
            Some(index) => {
                self.connections[index] = connection;
                index
            }
            None => {
                self.connections.push(connection);
                self.connections.len() - 1
            }
        }
    }

    fn drop_connection(&mut self, index: usize) {
        self.connections[index] = None;
        self.subscribers.retain(|subscriber| *subscriber != index);
        self.free.push(index);
    }

    /// Reads once and answers every whole frame.
    fn serve(&mut self, index: usize) {
        let Some(mut connection) = self.connections[index].take() else {
            return;
        };
        let kept = connection.rest.len();
        self.buffer[..kept].copy_from_slice(&connection.rest);
        connection.rest.clear();
        let count = match connection.stream.read(&mut self.buffer[kept..]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                connection.rest.extend(&self.buffer[..kept]);
                self.connections[index] = Some(connection);
                return;
            }
            Ok(0) | Err(_) => return self.drop_connection(index),
            Ok(count) => kept + count,
        };
        let buffer = std::mem::take(&mut self.buffer);
        let (mut at, mut out, mut fan_out) = (0, Vec::new(), 0);
        while let Some(length) = wire::whole_frame(&buffer[at..count]) {
            let frame = &buffer[at..at + length];
            let header = wire::header(frame);
            at += length;
            match header.procedure {
                remote::STORAGE_VOL_DOWNLOAD | remote::STORAGE_VOL_UPLOAD
                    if header.kind == MessageType::CALL =>
                {
                    _ = send(&connection.stream, &out);
                    stream_on_a_thread(connection, frame, &buffer[at..count]);
                    self.buffer = buffer;
                    self.free.push(index);
                    return;
                }
                remote::CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY => self.subscribers.push(index),
                remote::CONNECT_GET_HOSTNAME => fan_out += 1,
                _ => {}
            }
            self.answer(header, &mut out);
        }
        connection.rest.extend(&buffer[at..count]);
        self.buffer = buffer;
        let sent = send(&connection.stream, &out);
        self.connections[index] = Some(connection);
        if sent.is_err() {
            return self.drop_connection(index);
        }
        for _ in 0..fan_out {
            self.fan_out();
        }
    }

    fn answer(&self, header: Header, out: &mut Vec<u8>) {
        if header.program == Program::KEEPALIVE {
            if header.procedure == keepalive::PING {
                let procedure = keepalive::PONG;
                frame::write(
                    out,
                    Header {
                        procedure,
                        ..header
                    },
                    |_| (),
                );
            }
            return;
        }
        if header.kind != MessageType::CALL {
            return;
        }
        if header.procedure == remote::CONNECT_LIST_ALL_DOMAINS {
            let at = out.len();
            out.extend_from_slice(&self.list);
            wire::set_serial(&mut out[at..], header.serial.0);
            return;
        }
        frame::write(out, header.answer(Status::OK), |writer| {
            match header.procedure {
                remote::AUTH_LIST => _ = writer.u32(1).u32(0),
                remote::CONNECT_SUPPORTS_FEATURE => _ = writer.i32(1),
                remote::CONNECT_GET_LIB_VERSION => _ = writer.u64(9_000_000),
                remote::CONNECT_GET_HOSTNAME => _ = writer.string("echo"),
                remote::CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY => _ = writer.i32(1),
                _ => {}
            }
        });
    }

    /// One lifecycle event for every subscriber.
    fn fan_out(&self) {
        let mut event = Vec::new();
        let header = Header {
            kind: MessageType::MESSAGE,
            ..Header::remote_call(remote::DOMAIN_EVENT_CALLBACK_LIFECYCLE, Serial(0))
        };
        frame::write(&mut event, header, |writer| {
            writer.i32(1).string("domain-1");
            writer.raw(&[1; 16]);
            writer.i32(1).i32(2).i32(0);
        });
        for subscriber in &self.subscribers {
            if let Some(connection) = &self.connections[*subscriber] {
                _ = send(&connection.stream, &event);
            }
        }
    }
}

/// Writes all of it to a socket that does not block.
fn send(mut stream: &UnixStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll(&mut [PollFd::new(stream, PollFlags::OUT)], None)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// From its stream on, a connection has a thread of its own, and does nothing else.
fn stream_on_a_thread(connection: Connection, call: &[u8], behind: &[u8]) {
    let Connection { stream, mut rest } = connection;
    let mut call = call.to_vec();
    rest.extend_from_slice(behind);
    std::thread::spawn(move || {
        stream.set_nonblocking(false).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        loop {
            let length = &call[call.len() - 12..call.len() - 4];
            let length = u64::from_be_bytes(length.try_into().unwrap());
            let header = wire::header(&call);
            let done = match header.procedure {
                remote::STORAGE_VOL_DOWNLOAD => download(&stream, header, length, &mut rest),
                _ => upload(&stream, header, &mut rest),
            };
            let next = done.and_then(|()| next_frame(&stream, &mut rest));
            match next {
                Ok(frame) => call = frame,
                Err(_) => return,
            }
        }
    });
}

fn download(
    mut stream: &UnixStream,
    call: Header,
    length: u64,
    rest: &mut Vec<u8>,
) -> io::Result<()> {
    let mut reply = Vec::new();
    frame::write(&mut reply, call.answer(Status::OK), |_| ());
    stream.write_all(&reply)?;
    let (procedure, serial) = (call.procedure, call.serial.0);
    let data = vec![7; STREAM_PAYLOAD];
    let frame = wire::stream_frame(procedure, serial, Status::CONTINUE, &data);
    for _ in 0..length / STREAM_PAYLOAD as u64 {
        stream.write_all(&frame)?;
    }
    stream.write_all(&wire::stream_frame(
        procedure,
        serial,
        Status::CONTINUE,
        &[],
    ))?;
    await_finish(stream, procedure, rest)?;
    stream.write_all(&wire::stream_frame(procedure, serial, Status::OK, &[]))
}

fn upload(mut stream: &UnixStream, call: Header, rest: &mut Vec<u8>) -> io::Result<()> {
    let mut reply = Vec::new();
    frame::write(&mut reply, call.answer(Status::OK), |_| ());
    stream.write_all(&reply)?;
    await_finish(stream, call.procedure, rest)?;
    stream.write_all(&wire::stream_frame(
        call.procedure,
        call.serial.0,
        Status::OK,
        &[],
    ))
}

/// Takes frames up to the one that finishes the stream.
fn await_finish(stream: &UnixStream, procedure: Procedure, rest: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = std::mem::take(rest);
    let mut end = buffer.len();
    buffer.resize(2 * (FRAME_MIN + STREAM_PAYLOAD), 0);
    let mut reader = stream;
    loop {
        let mut at = 0;
        while let Some(length) = wire::whole_frame(&buffer[at..end]) {
            let header = wire::header(&buffer[at..]);
            at += length;
            if header.kind == MessageType::STREAM
                && header.status == Status::OK
                && header.procedure == procedure
            {
                *rest = buffer[at..end].to_vec();
                return Ok(());
            }
        }
        buffer.copy_within(at..end, 0);
        end -= at;
        match reader.read(&mut buffer[end..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => end += count,
        }
    }
}

/// The next stream call; other calls do not come on such a connection.
fn next_frame(mut stream: &UnixStream, rest: &mut Vec<u8>) -> io::Result<Vec<u8>> {
    let mut buffer = [0; 4096];
    loop {
        if let Some(length) = wire::whole_frame(rest) {
            let frame: Vec<u8> = rest.drain(..length).collect();
            let header = wire::header(&frame);
            if header.kind == MessageType::CALL && header.program == Program::REMOTE {
                return Ok(frame);
            }
            continue;
        }
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => rest.extend(&buffer[..count]),
        }
    }
}
