//! The rows of the table.

use std::io;
use std::time::Duration;

use super::drivers;
use super::measures;
use super::peers::{Kind, Peer, Tracer};
use super::tls;
use super::upstream::Upstream;
use super::wire::STREAM_PAYLOAD;

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
    pub(crate) run: Run,
}

type Run = fn(&Peer, &Upstream, &Effort) -> io::Result<Sample>;

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

    /// A stream's length for the echo upstream, which knows whole frames only.
    pub(crate) fn whole_frames(&self) -> u64 {
        self.stream / STREAM_PAYLOAD as u64 * STREAM_PAYLOAD as u64
    }

    pub(crate) fn quick() -> Self {
        Self {
            period: Duration::from_millis(300),
            stream: 1 << 28,
        }
    }
}

fn every(kind: &Kind) -> bool {
    !kind.has_second_daemon() && *kind != Kind::Stunnel
}

/// Rules cost the same in memory and on streams, and change what an event is sent to.
fn every_without_rules(kind: &Kind) -> bool {
    every(kind) && !matches!(kind, Kind::Ruled(_))
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

/// Those that take clients by TLS.
fn by_tls(kind: &Kind) -> bool {
    *kind == Kind::Direct || proxies_by_tls(kind)
}

fn proxies_by_tls(kind: &Kind) -> bool {
    matches!(kind, Kind::Ours(_) | Kind::Haproxy | Kind::Stunnel)
}

/// Straight to the daemon that owns the object, and the ways there past another daemon.
fn by_driver(kind: &Kind) -> bool {
    *kind == Kind::Direct || kind.has_second_daemon()
}

/// A row of calls per second.
const fn calls(name: &'static str, title: &'static str, behind: Behind, run: Run) -> Measure {
    Measure {
        name,
        title,
        unit: "/s",
        better: Better::Higher,
        behind,
        fits: every,
        slow: false,
        run,
    }
}

/// All rows, in the order of the table.
pub(crate) const MEASURES: &[Measure] = &[
    Measure {
        name: "round-trip",
        title: "round trip of a small call, libvirtd",
        unit: "us",
        better: Better::Lower,
        behind: Behind::Libvirtd,
        fits: every,
        slow: false,
        run: measures::round_trip,
    },
    Measure {
        name: "round-trip-echo",
        title: "the same, echo upstream",
        unit: "us",
        better: Better::Lower,
        behind: Behind::Echo,
        fits: every,
        slow: false,
        run: measures::round_trip,
    },
    Measure {
        name: "domain-call",
        title: "round trip of a small call on a domain, libvirtd",
        unit: "us",
        better: Better::Lower,
        behind: Behind::Libvirtd,
        fits: every,
        slow: false,
        run: measures::domain_call,
    },
    calls(
        "calls-1",
        "calls, 1 connection, libvirtd",
        Behind::Libvirtd,
        |peer, upstream, effort| measures::throughput(peer, upstream, effort, 1, 1),
    ),
    calls(
        "calls-8",
        "calls, 8 connections, libvirtd",
        Behind::Libvirtd,
        |peer, upstream, effort| measures::throughput(peer, upstream, effort, 8, 1),
    ),
    calls(
        "calls-64",
        "calls, 64 connections, libvirtd",
        Behind::Libvirtd,
        |peer, upstream, effort| measures::throughput(peer, upstream, effort, 64, 1),
    ),
    calls(
        "calls-1-echo",
        "calls, 1 connection, echo upstream",
        Behind::Echo,
        |peer, upstream, effort| measures::throughput(peer, upstream, effort, 1, 1),
    ),
    calls(
        "calls-8-echo",
        "calls, 8 connections, echo upstream",
        Behind::Echo,
        |peer, upstream, effort| measures::throughput(peer, upstream, effort, 8, 1),
    ),
    calls(
        "calls-64-echo",
        "calls, 64 connections, echo upstream",
        Behind::Echo,
        |peer, upstream, effort| measures::throughput(peer, upstream, effort, 64, 1),
    ),
    calls(
        "in-flight-32",
        "calls, 1 connection, 32 in flight, libvirtd",
        Behind::Libvirtd,
        |peer, upstream, effort| measures::throughput(peer, upstream, effort, 1, 32),
    ),
    calls(
        "in-flight-32-echo",
        "calls, 1 connection, 32 in flight, echo upstream",
        Behind::Echo,
        |peer, upstream, effort| measures::throughput(peer, upstream, effort, 1, 32),
    ),
    Measure {
        name: "connect",
        title: "connect, open, close as virsh does, libvirtd",
        unit: "us",
        better: Better::Lower,
        behind: Behind::Libvirtd,
        fits: every_without_rules,
        slow: false,
        run: measures::connect,
    },
    Measure {
        name: "connect-echo",
        title: "the same, echo upstream",
        unit: "us",
        better: Better::Lower,
        behind: Behind::Echo,
        fits: every_without_rules,
        slow: false,
        run: measures::connect,
    },
    Measure {
        name: "list-500",
        title: "list of 500 domains, libvirtd",
        unit: "us",
        better: Better::Lower,
        behind: Behind::Libvirtd,
        fits: every,
        slow: false,
        run: measures::list,
    },
    Measure {
        name: "list-500-echo",
        title: "the same, echo upstream",
        unit: "us",
        better: Better::Lower,
        behind: Behind::Echo,
        fits: every,
        slow: false,
        run: measures::list,
    },
    Measure {
        name: "download",
        title: "volume download over UNIX, echo upstream",
        unit: "MiB/s",
        better: Better::Higher,
        behind: Behind::Echo,
        fits: every_without_rules,
        slow: false,
        run: measures::download,
    },
    Measure {
        name: "upload",
        title: "volume upload over UNIX, echo upstream",
        unit: "MiB/s",
        better: Better::Higher,
        behind: Behind::Echo,
        fits: every_without_rules,
        slow: false,
        run: measures::upload,
    },
    Measure {
        name: "tls-download",
        title: "volume download over TLS 1.3, echo upstream (direct: libvirtd's own)",
        unit: "MiB/s",
        better: Better::Higher,
        behind: Behind::Echo,
        fits: by_tls,
        slow: false,
        run: tls::download,
    },
    Measure {
        name: "tls-upload",
        title: "volume upload over TLS 1.3, echo upstream",
        unit: "MiB/s",
        better: Better::Higher,
        behind: Behind::Echo,
        fits: proxies_by_tls,
        slow: false,
        run: tls::upload,
    },
    Measure {
        name: "tls-handshakes",
        title: "TLS 1.3 handshakes (direct: libvirtd's own)",
        unit: "/s",
        better: Better::Higher,
        behind: Behind::Echo,
        fits: by_tls,
        slow: false,
        run: tls::handshakes,
    },
    Measure {
        name: "network-call",
        title: "round trip of a small call on a network that another libvirtd owns",
        unit: "us",
        better: Better::Lower,
        behind: Behind::Libvirtd,
        fits: by_driver,
        slow: false,
        run: drivers::network_call,
    },
    Measure {
        name: "storage-call",
        title: "the same on a storage pool",
        unit: "us",
        better: Better::Lower,
        behind: Behind::Libvirtd,
        fits: by_driver,
        slow: false,
        run: drivers::storage_call,
    },
    Measure {
        name: "driver-download",
        title: "download of a volume that another libvirtd owns",
        unit: "MiB/s",
        better: Better::Higher,
        behind: Behind::Libvirtd,
        fits: by_driver,
        slow: false,
        run: drivers::download,
    },
    Measure {
        name: "events",
        title: "one event to 1,000 subscribers, echo upstream",
        unit: "ms",
        better: Better::Lower,
        behind: Behind::Echo,
        fits: single_process,
        slow: false,
        run: measures::events,
    },
    Measure {
        name: "idle-1000",
        title: "resident memory for each of 1,000 idle connections",
        unit: "KiB",
        better: Better::Lower,
        behind: Behind::Echo,
        fits: single_process_proxies,
        slow: false,
        run: |peer, upstream, _| measures::idle(peer, upstream, 1000),
    },
    Measure {
        name: "idle-10000",
        title: "resident memory for each of 10,000 idle connections",
        unit: "KiB",
        better: Better::Lower,
        behind: Behind::Echo,
        fits: single_process_proxies,
        slow: true,
        run: |peer, upstream, _| measures::idle(peer, upstream, 10_000),
    },
    Measure {
        name: "rest",
        title: "resident after the first client has gone",
        unit: "MiB",
        better: Better::Lower,
        behind: Behind::Echo,
        fits: proxies,
        slow: false,
        run: measures::rest,
    },
    Measure {
        name: "exec",
        title: "exec to first answered call (direct: libvirtd's own)",
        unit: "ms",
        better: Better::Lower,
        behind: Behind::Echo,
        fits: every_without_rules,
        slow: false,
        run: measures::exec,
    },
    Measure {
        name: "reload-storm",
        title: "p99.9 of a small call while 1,000 routes reload 10 times a second",
        unit: "us",
        better: Better::Lower,
        behind: Behind::Echo,
        fits: ours,
        slow: false,
        run: measures::reload_storm,
    },
    Measure {
        name: "system-calls",
        title: "system calls of the proxy for each relayed call (strace)",
        unit: "",
        better: Better::Lower,
        behind: Behind::Echo,
        fits: single_process_proxies,
        slow: true,
        run: |peer, upstream, _| measures::traced(peer, upstream, Tracer::Strace),
    },
    Measure {
        name: "instructions",
        title: "instructions of the proxy for each relayed call (callgrind)",
        unit: "",
        better: Better::Lower,
        behind: Behind::Echo,
        fits: single_process_proxies,
        slow: true,
        run: |peer, upstream, _| measures::traced(peer, upstream, Tracer::Callgrind),
    },
];
