//! `virtproxyd doctor`: the ways to libvirt on this host, and which of them go past the proxy.
//!
//! It reads files, modes and the kernel's tables alone. `place` knows the names, `reach` who can
//! open a path, `kernel` who listens; `scan` puts them together to a `door` each, which has the
//! verdict.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use virtproxyd::policy::model::{ListenAddress, Policy};
use virtproxyd::server::Source;

use super::commands::{show, told};
use super::{Format, USAGE};

mod door;
mod kernel;
mod place;
mod reach;
mod report;
mod scan;

use door::{Door, Proxy, Role, Verdict};
use kernel::{Kernel, Program};
use place::Kind;
use reach::Ids;
use report::Report;
use scan::Found;

/// Where clients of `qemu:///system` look first, those of `qemu+ssh` with `virt-ssh-helper` too.
const HELPER: &str = "/run/libvirt/virtqemud-sock";

/// Report every socket and port of libvirt's on this host, who can open it, and whether it goes
/// past the proxy
///
/// Only root sees all. Nothing is changed and no daemon is started.
#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// Policy file [default: as for the daemon]
    #[arg(short = 'f', long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How to print the report
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Look at the system whose files, /proc among them, are below this directory
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

impl Doctor {
    pub(super) fn run(self) -> ExitCode {
        let report = match self.look() {
            Ok(report) => report,
            Err(code) => return code,
        };
        for unseen in &report.unseen {
            eprintln!("virtproxyd: not known: {unseen}");
        }
        let code = match report.findings() {
            0 if report.unseen.is_empty() => ExitCode::SUCCESS,
            0 => ExitCode::from(USAGE),
            _ => ExitCode::FAILURE,
        };
        match self.format {
            Format::Human => show(report.for_people(), code),
            Format::Json => show(format_args!("{:#}\n", report.for_programs()), code),
        }
    }

    /// `Err` is the exit code, its reason already told.
    fn look(&self) -> Result<Report, ExitCode> {
        let failed = |error: String| {
            eprintln!("virtproxyd: {error}");
            ExitCode::from(USAGE)
        };
        let contents = Source::new(self.config.clone())
            .read()
            .map_err(told(USAGE))?;
        let policy = contents.load().map_err(told(USAGE))?.policy;
        let root = self.root.canonicalize();
        let root = root.map_err(|error| failed(format!("{}: {error}", self.root.display())))?;
        let kernel = Kernel::read(&root).map_err(failed)?;
        let Found { doors, mut unseen } = scan::scan(&root, &kernel, &policy);
        let is_here = root == Path::new("/");
        let proxy = proxy(&doors, is_here);
        let mut doors: Vec<(Verdict, Door)> = doors
            .into_iter()
            .map(|door| (door.verdict(proxy), door))
            .collect();
        // Findings first; what has the same verdict stays in the order of the places.
        doors.sort_by_key(|(verdict, _)| *verdict);
        unseen.extend(doors.iter().filter_map(unknown_holder));
        Ok(Report {
            policy: contents.name,
            notes: notes(&policy, &doors),
            doors,
            unseen,
            ids: if is_here { Ids::Names } else { Ids::Numbers },
        })
    }
}

/// The proxy, by the process at its listeners. If there is none, it is taken to be started by whoever
/// asks.
fn proxy(doors: &[Door], is_here: bool) -> Proxy {
    let listeners = doors
        .iter()
        .filter(|door| matches!(door.role, Some(Role::Listener(_))));
    let mut holders = listeners.flat_map(Door::holders);
    let holder = holders.find(|holder| holder.program == Program::Proxy);
    let ours = if is_here {
        rustix::process::geteuid().as_raw()
    } else {
        0
    };
    Proxy {
        uid: holder.map_or(ours, |holder| holder.uid),
        is_running: holder.is_some(),
    }
}

/// Why it is not certain that the proxy has a door of its policy.
fn unknown_holder((verdict, door): &(Verdict, Door)) -> Option<String> {
    if *verdict != Verdict::Proxy || door.is_held_by(Program::Proxy) {
        return None;
    }
    let why = if door.holders().is_empty() {
        "who listens there: ask as root"
    } else {
        "what systemd starts there: start virtproxyd, which then holds what is its own"
    };
    Some(format!("{}: {why}", door.place))
}

fn notes(policy: &Policy, doors: &[(Verdict, Door)]) -> Vec<String> {
    let mut notes = Vec::new();
    let open = |it: &&(Verdict, Door)| it.0 == Verdict::Past && it.1.kind == Kind::ReadWrite;
    let everybody = doors
        .iter()
        .filter(open)
        .any(|(_, door)| door.reach().is_everybody());
    if everybody {
        notes.push(
            "behind a read-write socket that everybody can open, the daemon may still ask polkit; \
             whom polkit lets in is past the policy"
                .to_owned(),
        );
    }
    let live = |name: &str| {
        doors.iter().any(|(verdict, door)| {
            *verdict != Verdict::Dead && door.role == Some(Role::Listener(name.to_owned()))
        })
    };
    let listeners = policy.listeners.iter().map(|listener| &*listener.name);
    let idle: Vec<&str> = listeners.filter(|name| !live(name)).collect();
    if !idle.is_empty() {
        notes.push(format!("nobody listens for {}", idle.join(", ")));
    }
    let unix = policy.listeners.iter().filter_map(|it| match &it.address {
        ListenAddress::Unix { path, .. } => Some(path.as_path()),
        ListenAddress::Tcp { .. } => None,
    });
    let paths: Vec<&Path> = unix.collect();
    let is_system = paths.iter().any(|path| path.starts_with("/run/libvirt"));
    if is_system && !paths.contains(&Path::new(HELPER)) {
        notes.push(format!(
            "clients of qemu:///system and qemu+ssh take {HELPER} where it is there: \
             the policy has no listener at it"
        ));
    }
    notes
}
