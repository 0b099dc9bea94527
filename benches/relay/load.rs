//! The load generator: many connections with many calls in flight, driven by one thread, so that
//! the measuring side costs as little of the machine as it can.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use virtproxyd::protocol::header::{MessageType, Program, Status};

use super::wire::{self, Client, PATIENCE};

/// What a run of calls gave.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) calls: u64,
    pub(crate) elapsed: Duration,
    /// Nanoseconds from each call to its reply.
    pub(crate) latencies: Vec<u32>,
}

impl Outcome {
    pub(crate) fn per_second(&self) -> f64 {
        self.calls as f64 / self.elapsed.as_secs_f64()
    }

    /// A percentile of the latencies in microseconds; sorts them.
    pub(crate) fn percentile(&mut self, percent: f64) -> f64 {
        self.latencies.sort_unstable();
        let last = self.latencies.len().saturating_sub(1);
        let place = (last as f64 * percent / 100.0).round() as usize;
        self.latencies
            .get(place)
            .map_or(f64::NAN, |ns| f64::from(*ns) / 1000.0)
    }
}

/// One call after the other on one connection, for `period`.
pub(crate) fn one_at_a_time(
    client: &mut Client<UnixStream>,
    request: &mut [u8],
    period: Duration,
) -> io::Result<Outcome> {
    let mut outcome = Outcome::default();
    let begin = Instant::now();
    let mut now = begin;
    while now - begin < period {
        client.ask(request)?;
        let after = Instant::now();
        outcome.latencies.push((after - now).as_nanos() as u32);
        now = after;
    }
    outcome.calls = outcome.latencies.len() as u64;
    outcome.elapsed = now - begin;
    Ok(outcome)
}

/// Opens so many connections.
pub(crate) fn open_all(socket: &Path, uri: &str, count: usize) -> io::Result<Vec<UnixStream>> {
    (0..count)
        .map(|_| Ok(Client::open(socket, uri)?.stream))
        .collect()
}

/// Stamps of calls in flight, by serial; more than can be in flight.
const STAMPS: usize = 256;

struct Connection {
    stream: UnixStream,
    rest: Vec<u8>,
    next_serial: u32,
    stamps: Box<[Instant; STAMPS]>,
}

/// Keeps `depth` calls in flight on each connection for `period`.
pub(crate) fn in_flight(
    streams: Vec<UnixStream>,
    depth: usize,
    request: &[u8],
    period: Duration,
) -> io::Result<Outcome> {
    assert!(depth < STAMPS);
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let begin = Instant::now();
    let mut connections = Vec::new();
    for (index, stream) in streams.into_iter().enumerate() {
        stream.set_nonblocking(true)?;
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(&epoll, &stream, data, epoll::EventFlags::IN)?;
        connections.push(Connection {
            stream,
            rest: Vec::new(),
            // Its opening took the first ones.
            next_serial: 16,
            stamps: Box::new([begin; STAMPS]),
        });
    }
    let mut scratch = Vec::new();
    for connection in &mut connections {
        connection.send(request, depth, &mut scratch)?;
    }
    let mut outcome = Outcome::default();
    let mut events = Vec::with_capacity(connections.len());
    let mut buffer = vec![0; 256 * 1024];
    let patience = Timespec::try_from(PATIENCE).unwrap();
    while begin.elapsed() < period {
        events.clear();
        let spare = rustix::buffer::spare_capacity(&mut events);
        if epoll::wait(&epoll, spare, Some(&patience))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        for event in &events {
            let connection = &mut connections[event.data.u64() as usize];
            let replies = connection.receive(&mut buffer, &mut outcome.latencies)?;
            connection.send(request, replies, &mut scratch)?;
        }
    }
    outcome.elapsed = begin.elapsed();
    outcome.calls = outcome.latencies.len() as u64;
    Ok(outcome)
}

impl Connection {
    fn send(&mut self, request: &[u8], count: usize, scratch: &mut Vec<u8>) -> io::Result<()> {
        scratch.clear();
        let now = Instant::now();
        for _ in 0..count {
            let at = scratch.len();
            scratch.extend_from_slice(request);
            wire::set_serial(&mut scratch[at..], self.next_serial);
            self.stamps[self.next_serial as usize % STAMPS] = now;
            self.next_serial += 1;
        }
        // Small calls, as many as were answered: there is room for them.
        self.stream.write_all(scratch)
    }

    fn receive(&mut self, buffer: &mut [u8], latencies: &mut Vec<u32>) -> io::Result<usize> {
        let kept = self.rest.len();
        buffer[..kept].copy_from_slice(&self.rest);
        let count = match self.stream.read(&mut buffer[kept..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => kept + count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(error) => return Err(error),
        };
        let now = Instant::now();
        let (mut at, mut replies) = (0, 0);
        while let Some(length) = wire::whole_frame(&buffer[at..count]) {
            let header = wire::header(&buffer[at..]);
            at += length;
            if header.program != Program::REMOTE || header.kind != MessageType::REPLY {
                continue;
            }
            if header.status != Status::OK {
                return Err(io::Error::other(format!("refused: {header:?}")));
            }
            let stamp = self.stamps[header.serial.0 as usize % STAMPS];
            latencies.push((now - stamp).as_nanos() as u32);
            replies += 1;
        }
        self.rest.clear();
        self.rest.extend_from_slice(&buffer[at..count]);
        Ok(replies)
    }
}

/// Waits until each of these connections has been given `each` events. Returns the nanoseconds from
/// `begin` to each arrival.
pub(crate) fn await_events(
    streams: &mut [UnixStream],
    each: usize,
    begin: Instant,
) -> io::Result<Vec<u32>> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for (index, stream) in streams.iter().enumerate() {
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(&epoll, stream, data, epoll::EventFlags::IN)?;
    }
    let wanted = streams.len() * each;
    let mut rests = vec![Vec::new(); streams.len()];
    let (mut arrivals, mut buffer) = (Vec::with_capacity(wanted), vec![0; 64 * 1024]);
    let mut events = Vec::with_capacity(streams.len());
    let patience = Timespec::try_from(PATIENCE).unwrap();
    while arrivals.len() < wanted {
        events.clear();
        let spare = rustix::buffer::spare_capacity(&mut events);
        if epoll::wait(&epoll, spare, Some(&patience))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        for event in &events {
            let index = event.data.u64() as usize;
            let (stream, rest): (&mut UnixStream, &mut Vec<u8>) =
                (&mut streams[index], &mut rests[index]);
            let kept = rest.len();
            buffer[..kept].copy_from_slice(rest);
            let count = kept + stream.read(&mut buffer[kept..])?;
            if count == kept {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let mut at = 0;
            while let Some(length) = wire::whole_frame(&buffer[at..count]) {
                if wire::header(&buffer[at..]).program == Program::REMOTE {
                    arrivals.push(begin.elapsed().as_nanos() as u32);
                }
                at += length;
            }
            rest.clear();
            rest.extend_from_slice(&buffer[at..count]);
        }
    }
    Ok(arrivals)
}
