//! What is measured, one function for each row of the table.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};
use virtproxyd::protocol::table::remote;

use super::load::{self, Outcome};
use super::peers::{Kind, More, Peer, Running, Tracer, connections};
use super::rows::{Effort, Sample};
use super::upstream::Upstream;
use super::wire::{self, Client, STREAM_PAYLOAD};

const MIB: f64 = 1024.0 * 1024.0;

pub(crate) fn round_trip(peer: &Peer, upstream: &Upstream, effort: &Effort) -> io::Result<Sample> {
    one_call(peer, upstream, effort, wire::small_call())
}

/// On the one domain of the test driver's default node, again and again.
pub(crate) fn domain_call(peer: &Peer, upstream: &Upstream, effort: &Effort) -> io::Result<Sample> {
    one_call(peer, upstream, effort, wire::domain_call())
}

fn one_call(
    peer: &Peer,
    upstream: &Upstream,
    effort: &Effort,
    request: Vec<u8>,
) -> io::Result<Sample> {
    let running = peer.start(upstream)?;
    call_again_and_again(&running, upstream.uri, effort, request)
}

/// One call after the other on one connection that opens `uri`.
pub(crate) fn call_again_and_again(
    running: &Running,
    uri: &str,
    effort: &Effort,
    mut request: Vec<u8>,
) -> io::Result<Sample> {
    let mut client = Client::open(&running.socket, uri)?;
    load::one_at_a_time(&mut client, &mut request, effort.period / 10)?;
    let before = Usage::of(running);
    let mut outcome = load::one_at_a_time(&mut client, &mut request, effort.period)?;
    let usage = Usage::of(running).since(&before);
    let mut more = vec![
        ("p99", outcome.percentile(99.0)),
        ("per second", outcome.per_second()),
    ];
    more.extend(usage.per_call(outcome.calls));
    Ok(Sample {
        value: outcome.percentile(50.0),
        more,
    })
}

pub(crate) fn throughput(
    peer: &Peer,
    upstream: &Upstream,
    effort: &Effort,
    connections: usize,
    depth: usize,
) -> io::Result<Sample> {
    let running = peer.start(upstream)?;
    let open = || load::open_all(&running.socket, upstream.uri, connections);
    let request = wire::small_call();
    load::in_flight(open()?, depth, &request, effort.period / 10)?;
    let (streams, before) = (open()?, Usage::of(&running));
    let mut outcome = load::in_flight(streams, depth, &request, effort.period)?;
    let usage = Usage::of(&running).since(&before);
    let mut more = vec![("p99", outcome.percentile(99.0))];
    more.extend(usage.per_call(outcome.calls));
    Ok(Sample {
        value: outcome.per_second(),
        more,
    })
}

pub(crate) fn connect(peer: &Peer, upstream: &Upstream, effort: &Effort) -> io::Result<Sample> {
    let running = peer.start(upstream)?;
    let mut outcome = Outcome::default();
    // The test driver lives as long as it is open somewhere; it is not what is measured.
    let _holds = Client::open(&upstream.socket, upstream.uri)?;
    let begin = Instant::now();
    while begin.elapsed() < effort.period {
        let now = Instant::now();
        Client::new(wire::connect(&running.socket)?).whole_dialogue(upstream.uri)?;
        outcome.latencies.push(now.elapsed().as_nanos() as u32);
    }
    outcome.elapsed = begin.elapsed();
    outcome.calls = outcome.latencies.len() as u64;
    Ok(Sample {
        more: vec![
            ("p99", outcome.percentile(99.0)),
            ("per second", outcome.per_second()),
        ],
        value: outcome.percentile(50.0),
    })
}

pub(crate) fn list(peer: &Peer, upstream: &Upstream, effort: &Effort) -> io::Result<Sample> {
    let running = peer.start(upstream)?;
    let mut client = Client::open(&running.socket, &upstream.many_domains)?;
    let mut request = wire::list_call();
    load::one_at_a_time(&mut client, &mut request, effort.period / 10)?;
    let mut outcome = load::one_at_a_time(&mut client, &mut request, effort.period)?;
    Ok(Sample {
        more: vec![("p99", outcome.percentile(99.0))],
        value: outcome.percentile(50.0),
    })
}

pub(crate) fn download(peer: &Peer, upstream: &Upstream, effort: &Effort) -> io::Result<Sample> {
    stream(peer, upstream, effort, Client::download)
}

pub(crate) fn upload(peer: &Peer, upstream: &Upstream, effort: &Effort) -> io::Result<Sample> {
    stream(peer, upstream, effort, Client::upload)
}

fn stream(
    peer: &Peer,
    upstream: &Upstream,
    effort: &Effort,
    transfer: impl Fn(&mut Client<UnixStream>, u64) -> io::Result<()>,
) -> io::Result<Sample> {
    let running = peer.start(upstream)?;
    let client = Client::open(&running.socket, upstream.uri)?;
    transfer_once(&running, client, effort.whole_frames(), transfer)
}

/// So many bytes in one stream, after a part of them to begin with.
pub(crate) fn transfer_once<S: Read + Write>(
    running: &Running,
    mut client: Client<S>,
    length: u64,
    transfer: impl Fn(&mut Client<S>, u64) -> io::Result<()>,
) -> io::Result<Sample> {
    let frames = length / 16 / STREAM_PAYLOAD as u64;
    transfer(&mut client, frames * STREAM_PAYLOAD as u64)?;
    let (before, own) = (Usage::of(running), Usage::own());
    let begin = Instant::now();
    transfer(&mut client, length)?;
    let elapsed = begin.elapsed();
    let (usage, own) = (Usage::of(running).since(&before), Usage::own().since(&own));
    let gib = length as f64 / MIB / 1024.0;
    let mut more = vec![("client CPU s/GiB", own.cpu.as_secs_f64() / gib)];
    if usage.is_known {
        more.push(("CPU s/GiB", usage.cpu.as_secs_f64() / gib));
    }
    Ok(Sample {
        value: gib * 1024.0 / elapsed.as_secs_f64(),
        more,
    })
}

pub(crate) fn events(peer: &Peer, upstream: &Upstream, _: &Effort) -> io::Result<Sample> {
    const SUBSCRIBERS: usize = 1000;
    const BURSTS: usize = 20;
    let running = peer.start(upstream)?;
    let mut streams = Vec::new();
    for _ in 0..SUBSCRIBERS {
        let mut client = Client::open(&running.socket, upstream.uri)?;
        let register = remote::CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY;
        client.ask(&mut wire::call(register, |writer| {
            writer.i32(0).u32(0);
        }))?;
        streams.push(client.stream);
    }
    let mut trigger = Client::open(&upstream.socket, upstream.uri)?;
    let mut last = Outcome::default();
    for _ in 0..BURSTS {
        let begin = Instant::now();
        trigger.send(&mut wire::call(remote::CONNECT_GET_HOSTNAME, |_| ()))?;
        let arrivals = load::await_events(&mut streams, 1, begin)?;
        last.latencies.extend(arrivals.last());
    }
    Ok(Sample {
        more: vec![("slowest", last.percentile(100.0) / 1000.0)],
        value: last.percentile(50.0) / 1000.0,
    })
}

pub(crate) fn idle(peer: &Peer, upstream: &Upstream, count: usize) -> io::Result<Sample> {
    let running = peer.start(upstream)?;
    let process = running.process.as_ref().ok_or(io::ErrorKind::NotFound)?;
    // What is there once and for all is not counted to the first connections.
    let warm = load::open_all(&running.socket, upstream.uri, 16)?;
    let before = process.resident();
    // Where the descriptors do not reach, it is measured on as many as they do.
    let count = count.min(connections() as usize - 100);
    let held = load::open_all(&running.socket, upstream.uri, count)?;
    let after = process.resident();
    drop((warm, held));
    let value = after.saturating_sub(before) as f64 / count as f64 / 1024.0;
    Ok(Sample {
        value,
        more: Vec::new(),
    })
}

pub(crate) fn rest(peer: &Peer, upstream: &Upstream, _: &Effort) -> io::Result<Sample> {
    let running = peer.start(upstream)?;
    let process = running.process.as_ref().ok_or(io::ErrorKind::NotFound)?;
    Ok(Sample {
        value: process.resident() as f64 / MIB,
        more: Vec::new(),
    })
}

pub(crate) fn exec(peer: &Peer, upstream: &Upstream, _: &Effort) -> io::Result<Sample> {
    let mut outcome = Outcome::default();
    for _ in 0..3 {
        let begin = Instant::now();
        let _running: Running = match peer.kind {
            Kind::Direct => Upstream::libvirtd()?.into(),
            _ => peer.start(upstream)?,
        };
        outcome.latencies.push(begin.elapsed().as_nanos() as u32);
    }
    Ok(Sample {
        value: outcome.percentile(50.0) / 1000.0,
        more: Vec::new(),
    })
}

pub(crate) fn reload_storm(
    peer: &Peer,
    upstream: &Upstream,
    effort: &Effort,
) -> io::Result<Sample> {
    const ROUTES: usize = 1000;
    const PAUSE: Duration = Duration::from_millis(100);
    let mut routes = String::new();
    for number in 0..ROUTES {
        _ = writeln!(
            routes,
            "  - {{ uri: \"qemu:///system?host=host-{number}\", upstream: daemon }}"
        );
    }
    let running = peer.start_with(
        upstream,
        &More {
            routes: &routes,
            ..More::default()
        },
        None,
    )?;
    let process = running.process.as_ref().ok_or(io::ErrorKind::NotFound)?;
    let mut client = Client::open(&running.socket, upstream.uri)?;
    let mut request = wire::small_call();
    load::one_at_a_time(&mut client, &mut request, effort.period / 10)?;
    let period = 2 * effort.period;
    let mut calm = load::one_at_a_time(&mut client, &mut request, period)?;
    let over = AtomicBool::new(false);
    let mut storm = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                process.signal(Signal::HUP);
                std::thread::sleep(PAUSE);
            }
        });
        let storm = load::one_at_a_time(&mut client, &mut request, period);
        over.store(true, Ordering::Relaxed);
        storm
    })?;
    let (calm, storm_p50) = (calm.percentile(99.9), storm.percentile(50.0));
    let value = storm.percentile(99.9);
    let more = vec![
        ("without", calm),
        ("ratio", value / calm),
        ("p50", storm_p50),
    ];
    Ok(Sample { value, more })
}

/// What each of many calls adds to a count that a tracer gives at the end.
pub(crate) fn traced(peer: &Peer, upstream: &Upstream, tracer: Tracer) -> io::Result<Sample> {
    const FEW: u32 = 500;
    const MANY: u32 = 2500;
    let count = |calls: u32| -> io::Result<f64> {
        let mut running = peer.start_with(upstream, &More::default(), Some(tracer))?;
        let mut client = Client::open(&running.socket, upstream.uri)?;
        let mut request = wire::small_call();
        for _ in 0..calls {
            client.ask(&mut request)?;
        }
        drop(client);
        if let Some(process) = &mut running.process {
            process.terminate();
        }
        let (file, key) = match tracer {
            Tracer::Callgrind => ("log", "Collected : "),
            Tracer::Strace => ("strace", "total"),
        };
        let text = fs::read_to_string(running.dir.path().join(file))?;
        let found = text.lines().find_map(|line| match tracer {
            Tracer::Callgrind => line.split(key).nth(1)?.trim().parse().ok(),
            // % time, seconds, usecs/call, calls, errors
            Tracer::Strace if line.ends_with(key) => line.split_whitespace().nth(3)?.parse().ok(),
            Tracer::Strace => None,
        });
        found.ok_or_else(|| io::Error::other(format!("no count in:\n{text}")))
    };
    let value = (count(MANY)? - count(FEW)?) / f64::from(MANY - FEW);
    Ok(Sample {
        value,
        more: Vec::new(),
    })
}

/// What a peer has used of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    sleeps: u64,
    is_known: bool,
}

impl Usage {
    pub(crate) fn of(running: &Running) -> Self {
        running
            .process
            .as_ref()
            .map_or(Self::default(), |process| Self {
                cpu: process.cpu(),
                sleeps: process.sleeps(),
                is_known: true,
            })
    }

    /// Of the load generator itself.
    pub(crate) fn own() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        Self {
            cpu: Duration::new(cpu.tv_sec as u64, cpu.tv_nsec as u32),
            ..Self::default()
        }
    }

    pub(crate) fn since(self, before: &Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            sleeps: self.sleeps.saturating_sub(before.sleeps),
            ..self
        }
    }

    fn per_call(&self, calls: u64) -> Vec<(&'static str, f64)> {
        if !self.is_known {
            return Vec::new();
        }
        let calls = calls as f64;
        vec![
            ("CPU us/call", self.cpu.as_secs_f64() * 1e6 / calls),
            ("wake-ups/call", self.sleeps as f64 / calls),
        ]
    }
}
