//! Where log records go, and which.

use std::env;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

use tracing_subscriber::filter::{Directive, EnvFilter, LevelFilter};
use tracing_subscriber::prelude::*;

use super::audit;

/// Own messages from `info` up, those of libraries from `warn` up.
const NORMAL: &str = "warn,virtproxyd=info";
/// With `--verbose`.
const VERBOSE: &str = "warn,virtproxyd=debug";

/// Sends records to the journal if stderr leads there (or is about to be closed), else to stderr.
///
/// `VIRTPROXYD_LOG`, else `RUST_LOG`, chooses what is logged, in the syntax of
/// [`EnvFilter`]; without them `verbose` does. Records of decisions pass in any case. Call it once.
pub(crate) fn init(verbose: bool, background: bool) {
    let default = if verbose { VERBOSE } else { NORMAL };
    let wanted = env::var("VIRTPROXYD_LOG").or_else(|_| env::var("RUST_LOG"));
    let (filter, unusable) = match wanted.map(EnvFilter::try_new) {
        Ok(Ok(filter)) => (filter, None),
        Ok(Err(error)) => (EnvFilter::new(default), Some(error)),
        Err(_) => (EnvFilter::new(default), None),
    };
    // Whether there are records is for the policy to say.
    let records = Directive::from(LevelFilter::INFO);
    let records = format!("{}=info", audit::TARGET).parse().unwrap_or(records);
    let filter = filter.add_directive(records);
    let journal = (background || stderr_is_journal())
        .then(|| tracing_journald::layer().ok())
        .flatten()
        .map(|layer| layer.with_syslog_identifier("virtproxyd".to_owned()));
    let lines = journal.is_none().then(|| {
        tracing_subscriber::fmt::layer()
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal())
    });
    let installed = tracing_subscriber::registry()
        .with(filter)
        .with(journal)
        .with(lines)
        .try_init();
    if let Err(error) = installed {
        eprintln!("virtproxyd: logging: {error}");
    }
    if let Some(error) = unusable {
        tracing::warn!(%error, "unusable log filter in the environment; using the default");
    }
}

/// systemd names the journal's stream in the environment; a child whose stderr was redirected
/// since still has the variable, so compare.
fn stderr_is_journal() -> bool {
    let Ok(stream) = env::var("JOURNAL_STREAM") else {
        return false;
    };
    rustix::fs::fstat(io::stderr().as_fd())
        .is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}
