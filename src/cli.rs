//! The command line: that of libvirt's virtproxyd, and commands about the policy file.

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use virtproxyd::server::{self, Options};

mod client;
mod commands;
mod doctor;
mod explain_id;
mod passwd;

use doctor::Doctor;
use passwd::Passwd;

/// Exit code for wrong usage, or a file that cannot be read; clap uses the same.
const USAGE: u8 = 2;

const EXIT_CODES: &str = "\
Exit codes:
  0  ended as told, or idle for the time given by --timeout; `check`: no errors;
     `explain`: there is a route, and what was asked is allowed; there is a record;
     `doctor`: nothing goes past the proxy
  1  could not start, or the policy has errors; `explain`: there is no route, or what was
     asked is refused or depends on what was not said; there is no record; `doctor`: something
     goes past the proxy
  2  wrong usage; `check` and `explain`: the file cannot be read; `doctor`: it cannot be told";

/// A policy-driven proxy in front of libvirt's driver daemons
#[derive(Debug, Parser)]
#[command(name = "virtproxyd", version, after_help = EXIT_CODES, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    /// Policy file [default: routes.yaml in /etc/libvirt/virtproxyd as root, else in
    /// ~/.config/libvirt/virtproxyd; a built-in policy if there is none]
    #[arg(short = 'f', long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Run in the background and write a pid file
    #[arg(short, long)]
    daemon: bool,

    /// Pid file [default with --daemon: /run/virtproxyd.pid as root, else
    /// $XDG_RUNTIME_DIR/libvirt/virtproxyd.pid]
    #[arg(short, long, value_name = "FILE")]
    pid_file: Option<PathBuf>,

    /// Exit when no client has been connected for this long
    #[arg(short, long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=u64::from(u32::MAX)))]
    timeout: Option<u64>,

    /// Log debug messages too
    #[arg(short, long)]
    verbose: bool,

    /// Of libvirt's daemons, refused by name: here the policy lists the TCP listeners.
    #[arg(short, long, hide = true)]
    listen: bool,

    /// Set by --daemon on the process that it starts.
    #[arg(long, hide = true)]
    background: bool,

    #[command(subcommand)]
    command: Option<Command>,
}

/// Commands about the policy file; none of them touches a running daemon
#[derive(Debug, Subcommand)]
enum Command {
    /// Check a policy file
    Check {
        /// The policy file
        file: PathBuf,
        /// How to print problems
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        /// Treat warnings as errors
        #[arg(long)]
        deny_warnings: bool,
    },
    /// Print the JSON schema of the policy file
    Schema,
    /// Tell which route serves a client and URI, and what it may do there; or why a call was
    /// refused
    Explain {
        /// What the client might do: a permission (domain:start) or procedure (DOMAIN_CREATE), an
        /// object (NAME, POOL/VOLUME, NETWORK/PORT-UUID), and what else is known of it
        /// (owner=NAME, uuid=UUID, flags=NUMBER). Or alone, the id of a refusal from the client's
        /// error: the records and the policy file say all that is asked
        #[arg(value_name = "CALL | ID")]
        call: Vec<String>,
        /// URI as the client names it to the daemon, empty for none
        #[arg(long)]
        uri: Option<String>,
        /// The client: user=NAME,uid=ID,group=NAME,gid=ID, any of them; group and gid may repeat.
        /// A remote one: dn="CN=NAME,O=NAME" or x509.KEY=VALUE, sasl=USER, address=IP
        #[arg(long = "as", value_name = "CLIENT")]
        client: Option<String>,
        /// Listener that the client connects to [default: the first of the file]
        #[arg(long, value_name = "NAME")]
        listener: Option<String>,
        /// Policy file [default: as for the daemon]
        #[arg(short = 'f', long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// How to print the answer
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    Passwd(Passwd),
    Doctor(Doctor),
}

/// Form of a command's output
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    #[default]
    Human,
    /// For programs
    Json,
}

impl Cli {
    /// Does what the command line asks for.
    pub(crate) fn run(self) -> ExitCode {
        if self.listen {
            return refuse("--listen: TCP and TLS sockets are listeners of the policy file");
        }
        if let Some(command) = self.command {
            return commands::run(command);
        }
        if self.daemon && !self.background {
            return start_in_background();
        }
        match server::run(self.options()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error),
        }
    }

    /// What the daemon is to do.
    fn options(&self) -> Options {
        let in_background = self.daemon || self.background;
        let default_pid_file = || in_background.then(server::pid_file).flatten();
        Options {
            config: self.config.as_deref().map(absolute),
            pid_file: self
                .pid_file
                .as_deref()
                .map(absolute)
                .or_else(default_pid_file),
            idle_timeout: self.timeout.map(Duration::from_secs),
            verbose: self.verbose,
            background: self.background,
        }
    }
}

fn start_in_background() -> ExitCode {
    if env::var_os("LISTEN_FDS").is_some() {
        return refuse(
            "--daemon: not together with socket activation, which is for this very process",
        );
    }
    match server::start_in_background() {
        Ok(true) => ExitCode::SUCCESS,
        // The background process has said why.
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail(&error),
    }
}

fn refuse(message: &str) -> ExitCode {
    eprintln!("virtproxyd: {message}");
    ExitCode::from(USAGE)
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("virtproxyd: {error}");
    ExitCode::FAILURE
}

/// The background process leaves the directory that paths are relative to.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}
