//! What is measured, one function for each row of the table.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use virtproxyd::protocol::table::remote;

use super::load::{self, Outcome};
use super::peers::{Kind, Peer, Running, Tracer, Upstream, connections};
use super::wire::{self, Client, STREAM_PAYLOAD};

const MIB: f64 = 1024.0 * 1024.0;

/// One row.
pub(crate) struct Measure {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) better: Better,
    /// The daemon behind the peers.
    pub(crate) behind: Behind,
    /// Which peers it makes sense for.
    pub(crate) fits: fn(&Kind) -> bool,
    /// Left out of a quick run.
    pub(crate) slow: bool,
    pub(crate) run: fn(&Peer, &Upstream, &Effort) -> io::Result<Sample>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    Lower,
    Higher,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behind {
    Echo,
    Libvirtd,
}

/// What one run of one peer gave: the figure of the row, and others beside it.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) value: f64,
    pub(crate) more: Vec<(&'static str, f64)>,
}

/// How much is done in one run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) period: Duration,
    pub(crate) stream: u64,
}

impl Effort {
    pub(crate) fn full() -> Self {
        Self {
            period: Duration::from_millis(1000),
            stream: 1 << 30,
        }
    }

    pub(crate) fn quick() -> Self {
        Self {
            period: Duration::from_millis(300),
            stream: 1 << 28,
        }
    }
}

fn every(_: &Kind) -> bool {
    true
}

/// Rules cost the same in memory and on streams, and change what an event is sent to.
fn every_without_rules(kind: &Kind) -> bool {
    !matches!(kind, Kind::Ruled(_))
}

fn proxies(kind: &Kind) -> bool {
    every_without_rules(kind) && *kind != Kind::Direct
}

/// Those that do not fork for each connection.
fn single_process(kind: &Kind) -> bool {
    every_without_rules(kind) && !matches!(kind, Kind::Socat)
}

fn single_process_proxies(kind: &Kind) -> bool {
    proxies(kind) && single_process(kind)
}

fn ours(kind: &Kind) -> bool {
    matches!(kind, Kind::Ours(_))
}

/// All rows, in the order of the table. Rows for routing by driver follow when the policy has it.
pub(crate) const MEASURES: &[Measure] = &[
    Measure {
        name: "round-trip",
        title: "round trip of a small call, libvirtd",
        unit: "us",
        better: Better::Lower,
        behind: Behind::Libvirtd,
        fits: every,
        slow: false,
        run: round_trip,
    },
    Measure {
        name: "round-trip-echo",
        title: "the same, echo upstream",
        unit: "us",
        better: Better::Lower,
        behind: Behind::Echo,
        fits: every,
        slow: false,
        run: round_trip,
    },
    Measure {
        name: "domain-call",
        title: "round trip of a small call on a domain, libvirtd",
        unit: "us",
        better: Better::Lower,
        behind: Behind::Libvirtd,
        fits: every,
        slow: false,
        run: domain_call,
    },
    Measure {
        name: "calls-8",
        title: "calls, 8 connections, libvirtd",
        unit: "/s",
        better: Better::Higher,
        behind: Behind::Libvirtd,
        fits: every,
        slow: false,
        run: |peer, upstream, effort| throughput(peer, upstream, effort, 8, 1),
    },
    Measure {
        name: "calls-64",
        title: "calls, 64 connections, libvirtd",
        unit: "/s",
        better: Better::Higher,
        behind: Behind::Libvirtd,
        fits: every,
        slow: false,
        run: |peer, upstream, effort| throughput(peer, upstream, effort, 64, 1),
    },
    Measure {
        name: "calls-8-echo",
        title: "calls, 8 connections, echo upstream",
        unit: "/s",
        better: Better::Higher,
        behind: Behind::Echo,
        fits: every,
        slow: false,
        run: |peer, upstream, effort| throughput(peer, upstream, effort, 8, 1),
    },
    Measure {
        name: "calls-64-echo",
        title: "calls, 64 connections, echo upstream",
        unit: "/s",
        better: Better::Higher,
        behind: Behind::Echo,
        fits: every,
        slow: false,
        run: |peer, upstream, effort| throughput(peer, upstream, effort, 64, 1),
    },
    Measure {
        name: "in-flight-32",
        title: "calls, 1 connection, 32 in flight, libvirtd",
        unit: "/s",
        better: Better::Higher,
        behind: Behind::Libvirtd,
        fits: every,
        slow: false,
        run: |peer, upstream, effort| throughput(peer, upstream, effort, 1, 32),
    },
    Measure {
        name: "in-flight-32-echo",
        title: "calls, 1 connection, 32 in flight, echo upstream",
        unit: "/s",
        better: Better::Higher,
        behind: Behind::Echo,
        fits: every,
        slow: false,
        run: |peer, upstream, effort| throughput(peer, upstream, effort, 1, 32),
    },
    Measure {
        name: "connect",
        title: "connect, open, close as virsh does, libvirtd",
        unit: "us",
        better: Better::Lower,
        behind: Behind::Libvirtd,
        fits: every_without_rules,
        slow: false,
        run: connect,
    },
    Measure {
        name: "connect-echo",
        title: "the same, echo upstream",
        unit: "us",
        better: Better::Lower,
        behind: Behind::Echo,
        fits: every_without_rules,
        slow: false,
        run: connect,
    },
    Measure {
        name: "list-500",
        title: "list of 500 domains, libvirtd",
        unit: "us",
        better: Better::Lower,
        behind: Behind::Libvirtd,
        fits: every,
        slow: false,
        run: list,
    },
    Measure {
        name: "list-500-echo",
        title: "the same, echo upstream",
        unit: "us",
        better: Better::Lower,
        behind: Behind::Echo,
        fits: every,
        slow: false,
        run: list,
    },
    Measure {
        name: "download",
        title: "volume download over UNIX, echo upstream",
        unit: "MiB/s",
        better: Better::Higher,
        behind: Behind::Echo,
        fits: every_without_rules,
        slow: false,
        run: download,
    },
    Measure {
        name: "upload",
        title: "volume upload over UNIX, echo upstream",
        unit: "MiB/s",
        better: Better::Higher,
        behind: Behind::Echo,
        fits: every_without_rules,
        slow: false,
        run: upload,
    },
    Measure {
        name: "events",
        title: "one event to 1,000 subscribers, echo upstream",
        unit: "ms",
        better: Better::Lower,
        behind: Behind::Echo,
        fits: single_process,
        slow: false,
        run: events,
    },
    Measure {
        name: "idle-1000",
        title: "resident memory for each of 1,000 idle connections",
        unit: "KiB",
        better: Better::Lower,
        behind: Behind::Echo,
        fits: single_process_proxies,
        slow: false,
        run: |peer, upstream, _| idle(peer, upstream, 1000),
    },
    Measure {
        name: "idle-10000",
        title: "resident memory for each of 10,000 idle connections",
        unit: "KiB",
        better: Better::Lower,
        behind: Behind::Echo,
        fits: single_process_proxies,
        slow: true,
        run: |peer, upstream, _| idle(peer, upstream, 10_000),
    },
    Measure {
        name: "rest",
        title: "resident after the first client has gone",
        unit: "MiB",
        better: Better::Lower,
        behind: Behind::Echo,
        fits: proxies,
        slow: false,
        run: rest,
    },
    Measure {
        name: "exec",
        title: "exec to first answered call (direct: libvirtd's own)",
        unit: "ms",
        better: Better::Lower,
        behind: Behind::Echo,
        fits: every_without_rules,
        slow: false,
        run: exec,
    },
    Measure {
        name: "reload-storm",
        title: "p99.9 of a small call while 1,000 routes reload 10 times a second",
        unit: "us",
        better: Better::Lower,
        behind: Behind::Echo,
        fits: ours,
        slow: false,
        run: reload_storm,
    },
    Measure {
        name: "system-calls",
        title: "system calls of the proxy for each relayed call (strace)",
        unit: "",
        better: Better::Lower,
        behind: Behind::Echo,
        fits: single_process_proxies,
        slow: true,
        run: |peer, upstream, _| traced(peer, upstream, Tracer::Strace),
    },
    Measure {
        name: "instructions",
        title: "instructions of the proxy for each relayed call (callgrind)",
        unit: "",
        better: Better::Lower,
        behind: Behind::Echo,
        fits: single_process_proxies,
        slow: true,
        run: |peer, upstream, _| traced(peer, upstream, Tracer::Callgrind),
    },
];

fn round_trip(peer: &Peer, upstream: &Upstream, effort: &Effort) -> io::Result<Sample> {
    one_call(peer, upstream, effort, wire::small_call())
}

/// On the one domain of the test driver's default node, again and again.
fn domain_call(peer: &Peer, upstream: &Upstream, effort: &Effort) -> io::Result<Sample> {
    one_call(peer, upstream, effort, wire::domain_call())
}

fn one_call(
    peer: &Peer,
    upstream: &Upstream,
    effort: &Effort,
    mut request: Vec<u8>,
) -> io::Result<Sample> {
    let running = peer.start(upstream)?;
    let mut client = Client::open(&running.socket, upstream.uri)?;
    load::one_at_a_time(&mut client, &mut request, effort.period / 10)?;
    let before = Usage::of(&running);
    let mut outcome = load::one_at_a_time(&mut client, &mut request, effort.period)?;
    let usage = Usage::of(&running).since(&before);
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

fn throughput(
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

fn connect(peer: &Peer, upstream: &Upstream, effort: &Effort) -> io::Result<Sample> {
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
    Ok(Sample {
        more: vec![("p99", outcome.percentile(99.0))],
        value: outcome.percentile(50.0),
    })
}

fn list(peer: &Peer, upstream: &Upstream, effort: &Effort) -> io::Result<Sample> {
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

fn download(peer: &Peer, upstream: &Upstream, effort: &Effort) -> io::Result<Sample> {
    stream(peer, upstream, effort, |client, length| {
        client.download(length).map(drop)
    })
}

fn upload(peer: &Peer, upstream: &Upstream, effort: &Effort) -> io::Result<Sample> {
    stream(peer, upstream, effort, Client::upload)
}

fn stream(
    peer: &Peer,
    upstream: &Upstream,
    effort: &Effort,
    transfer: impl Fn(&mut Client<std::os::unix::net::UnixStream>, u64) -> io::Result<()>,
) -> io::Result<Sample> {
    let running = peer.start(upstream)?;
    let whole = |length: u64| length / STREAM_PAYLOAD as u64 * STREAM_PAYLOAD as u64;
    let mut client = Client::open(&running.socket, upstream.uri)?;
    transfer(&mut client, whole(effort.stream / 16))?;
    let before = Usage::of(&running);
    let begin = Instant::now();
    let length = whole(effort.stream);
    transfer(&mut client, length)?;
    let elapsed = begin.elapsed();
    let usage = Usage::of(&running).since(&before);
    let gib = length as f64 / MIB / 1024.0;
    let more = match running.process {
        Some(_) => vec![("CPU s/GiB", usage.cpu.as_secs_f64() / gib)],
        None => Vec::new(),
    };
    Ok(Sample {
        value: gib * 1024.0 / elapsed.as_secs_f64(),
        more,
    })
}

fn events(peer: &Peer, upstream: &Upstream, _: &Effort) -> io::Result<Sample> {
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

fn idle(peer: &Peer, upstream: &Upstream, count: usize) -> io::Result<Sample> {
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

fn rest(peer: &Peer, upstream: &Upstream, _: &Effort) -> io::Result<Sample> {
    let running = peer.start(upstream)?;
    let process = running.process.as_ref().ok_or(io::ErrorKind::NotFound)?;
    Ok(Sample {
        value: process.resident() as f64 / MIB,
        more: Vec::new(),
    })
}

fn exec(peer: &Peer, upstream: &Upstream, _: &Effort) -> io::Result<Sample> {
    let mut outcome = Outcome::default();
    for _ in 0..3 {
        let begin = Instant::now();
        if peer.kind == Kind::Direct {
            drop(Upstream::libvirtd()?);
        } else {
            let running = peer.start(upstream)?;
            outcome.latencies.push(begin.elapsed().as_nanos() as u32);
            drop(running);
            continue;
        }
        outcome.latencies.push(begin.elapsed().as_nanos() as u32);
    }
    Ok(Sample {
        value: outcome.percentile(50.0) / 1000.0,
        more: Vec::new(),
    })
}

fn reload_storm(peer: &Peer, upstream: &Upstream, effort: &Effort) -> io::Result<Sample> {
    const ROUTES: usize = 1000;
    const PAUSE: Duration = Duration::from_millis(100);
    let mut routes = String::new();
    for number in 0..ROUTES {
        _ = writeln!(
            routes,
            "  - {{ uri: \"qemu:///system?host=host-{number}\", upstream: daemon }}"
        );
    }
    let running = peer.start_with(upstream, &routes, None)?;
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
fn traced(peer: &Peer, upstream: &Upstream, tracer: Tracer) -> io::Result<Sample> {
    const FEW: u32 = 500;
    const MANY: u32 = 2500;
    let count = |calls: u32| -> io::Result<f64> {
        let mut running = peer.start_with(upstream, "", Some(tracer))?;
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
struct Usage {
    cpu: Duration,
    sleeps: u64,
    is_known: bool,
}

impl Usage {
    fn of(running: &Running) -> Self {
        running
            .process
            .as_ref()
            .map_or(Self::default(), |process| Self {
                cpu: process.cpu(),
                sleeps: process.sleeps(),
                is_known: true,
            })
    }

    fn since(self, before: &Self) -> Self {
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
