//! The command line: that of libvirt's virtproxyd, and commands about the policy file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use virtproxyd::server::{self, Options};

use crate::passwd::Passwd;

const EXIT_CODES: &str = "\
Exit codes:
  0  ended as told, or idle for the time given by --timeout; for `check`: no errors
  1  could not start, or the policy has errors; the reason is on standard error
  2  wrong usage, or a file that cannot be read";

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
    pub(crate) daemon: bool,

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
    pub(crate) listen: bool,

    /// Set by --daemon on the process that it starts.
    #[arg(long, hide = true)]
    background: bool,

    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// Commands about the policy file; none of them touches a running daemon
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
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
    /// Tell which route serves a client and URI
    Explain {
        /// URI as the client names it to the daemon, empty for none
        #[arg(long)]
        uri: String,
        /// The client: user=NAME,uid=ID,group=NAME,gid=ID, any of them; group and gid may repeat
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
}

/// Form of a command's output
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    #[default]
    Human,
    /// For programs
    Json,
}

impl Cli {
    /// What the daemon is to do.
    pub(crate) fn options(&self) -> Options {
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

    /// Whether this process is only to start the background one.
    pub(crate) fn starts_background(&self) -> bool {
        self.daemon && !self.background
    }
}

/// The background process leaves the directory that paths are relative to.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}
