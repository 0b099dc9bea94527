//! `cargo bench --bench relay`: this proxy against everything that could stand in its place.
//!
//! - `wire`: the client's side of the protocol.
//! - `load`: many connections and calls in flight.
//! - `echo`: an upstream that answers at once.
//! - `tls`: clients by TLS.
//! - `peers`, `upstream`, `process`: what is measured, started and looked at.
//! - `rows`, `measures`, `drivers`: the rows, and one function for each.
//! - `report`, `targets`, `plot`: what came of it.
//!
//! `docs/performance.md` says what each row means.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark that meets what it does not expect has to stop"
)]

mod drivers;
mod echo;
mod load;
mod measures;
mod peers;
mod plot;
mod process;
mod report;
mod rows;
mod targets;
mod tls;
mod upstream;
mod wire;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use peers::{Kind, Peer};
use report::Row;
use rows::{Behind, Effort, MEASURES, Measure};
use upstream::Upstream;

/// Measures the proxy and its peers in turn.
#[derive(Debug, Parser)]
#[command(name = "relay")]
struct Options {
    /// A run of about a minute.
    #[arg(long)]
    quick: bool,
    /// Only these rows; several with commas.
    #[arg(long, value_delimiter = ',', value_name = "MEASURE")]
    only: Vec<String>,
    /// Only these peers; several with commas.
    #[arg(long, value_delimiter = ',', value_name = "PEER")]
    peers: Vec<String>,
    /// How often everything is measured.
    #[arg(long)]
    rounds: Option<u32>,
    /// Another build of this proxy, measured beside the present one.
    #[arg(long, value_name = "NAME=PATH")]
    also: Vec<String>,
    /// libvirt's own proxy, measured too.
    #[arg(long, value_name = "PATH")]
    libvirt_virtproxyd: Option<PathBuf>,
    /// Prints the results as JSON.
    #[arg(long)]
    json: bool,
    /// Draws them.
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Lists the rows.
    #[arg(long)]
    list: bool,
    /// Serves as the echo upstream.
    #[arg(long, hide = true)]
    echo_upstream: Option<PathBuf>,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("measures nothing; run it by: cargo bench --bench relay");
        return ExitCode::SUCCESS;
    }
    let options = Options::parse();
    if let Some(socket) = &options.echo_upstream {
        echo::serve(socket);
    }
    if options.list {
        for measure in MEASURES {
            println!("{:<18} {}", measure.name, measure.title);
        }
        return ExitCode::SUCCESS;
    }
    match measure(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("relay: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> io::Result<()> {
    raise_descriptor_limit();
    let peers = peers(options)?;
    let measures = measures(options)?;
    let effort = if options.quick {
        Effort::quick()
    } else {
        Effort::full()
    };
    let rounds = options.rounds.unwrap_or(if options.quick { 1 } else { 5 });
    let echo = Upstream::echo()?;
    let libvirtd = match is_installed("libvirtd") {
        true => Some(Upstream::libvirtd()?),
        false => None,
    };
    let mut rows: Vec<Row<'_>> = Vec::new();
    for measure in measures {
        if measure.behind == Behind::Libvirtd && libvirtd.is_none() {
            eprintln!(
                "{}: left out, since libvirtd is not installed",
                measure.name
            );
            continue;
        }
        let fitting = peers.iter().filter(|peer| (measure.fits)(&peer.kind));
        rows.push(Row {
            measure,
            peers: fitting.map(|peer| (peer, Vec::new())).collect(),
        });
    }
    let count = rows.len();
    for round in 1..=rounds {
        for (index, row) in rows.iter_mut().enumerate() {
            let upstream = match row.measure.behind {
                Behind::Echo => &echo,
                Behind::Libvirtd => match &libvirtd {
                    Some(libvirtd) => libvirtd,
                    None => continue,
                },
            };
            for (peer, samples) in &mut row.peers {
                let name = row.measure.name;
                let done = index + 1;
                eprint!(
                    "\r\x1b[Kround {round}/{rounds}, row {done}/{count}: {name}, {}",
                    peer.name
                );
                match (row.measure.run)(peer, upstream, &effort) {
                    Ok(sample) => samples.push(sample),
                    Err(error) => eprintln!("\r\x1b[K{name}, {}: {error}", peer.name),
                }
            }
        }
    }
    eprintln!("\r\x1b[K");
    if options.json {
        println!("{:#}", report::json(&rows));
    } else {
        println!("{}", report::text(&rows));
    }
    if let Some(file) = &options.plot {
        fs::write(file, plot::svg(&rows))?;
    }
    Ok(())
}

/// The peers that are there, in the order of the table.
fn peers(options: &Options) -> io::Result<Vec<Peer>> {
    let peer = |name: &str, kind| Peer {
        name: name.to_owned(),
        kind,
    };
    let ours = PathBuf::from(env!("CARGO_BIN_EXE_virtproxyd"));
    let mut peers = vec![
        peer("direct", Kind::Direct),
        peer("virtproxyd", Kind::Ours(ours.clone())),
        peer("virtproxyd+rules", Kind::Ruled(ours.clone())),
        peer("virtproxyd+drivers", Kind::Routed(ours.clone())),
        peer("forwarding", Kind::Forwarding),
        peer("virtproxyd+forwarding", Kind::BeforeForwarding(ours)),
    ];
    for also in &options.also {
        let (name, path) = also
            .split_once('=')
            .ok_or_else(|| io::Error::other("--also takes NAME=PATH"))?;
        peers.push(peer(name, Kind::Ours(path.into())));
        peers.push(peer(&format!("{name}+drivers"), Kind::Routed(path.into())));
    }
    if is_installed("haproxy") {
        peers.push(peer("haproxy", Kind::Haproxy));
    }
    if is_installed("socat") {
        peers.push(peer("socat", Kind::Socat));
    }
    if is_installed("stunnel") {
        peers.push(peer("stunnel", Kind::Stunnel));
    }
    if let Some(path) = &options.libvirt_virtproxyd {
        peers.push(peer("libvirt", Kind::Libvirt(path.clone())));
    }
    if !options.peers.is_empty() {
        peers.retain(|peer| options.peers.contains(&peer.name));
    }
    Ok(peers)
}

fn measures(options: &Options) -> io::Result<Vec<&'static Measure>> {
    if let Some(unknown) = options
        .only
        .iter()
        .find(|only| MEASURES.iter().all(|measure| measure.name != **only))
    {
        return Err(io::Error::other(format!(
            "no row is called {unknown}; --list has them"
        )));
    }
    let wanted = |measure: &&Measure| match &options.only[..] {
        [] => !(options.quick && measure.slow),
        only => only.iter().any(|only| only == measure.name),
    };
    Ok(MEASURES.iter().filter(wanted).collect())
}

fn is_installed(program: &str) -> bool {
    let run = Command::new(program)
        .arg("-h")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    run.is_ok()
}

/// For this program and all that it starts: beyond the hard limit where we may.
fn raise_descriptor_limit() {
    const WANTED: Option<u64> = Some(25_000);
    let own = getrlimit(Resource::Nofile);
    for maximum in [WANTED, own.maximum] {
        let limit = Rlimit {
            current: maximum,
            maximum,
        };
        if setrlimit(Resource::Nofile, limit).is_ok() {
            return;
        }
    }
}
