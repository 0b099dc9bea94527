//! Daemons that are started where nobody listens: each once, whoever asks. They outlive the
//! connection that asked, and the proxy.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::process::Child;

use super::output::{self, Output};
use crate::policy::model::Upstream;

/// Shortest time between two starts of one daemon, and the first wait after a start that failed;
/// doubles up to [`LAST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LAST_WAIT: Duration = Duration::from_secs(60);

/// How long after its start a daemon may take to listen whose program has ended well: it has gone
/// into the background.
const BACKGROUND: Duration = Duration::from_secs(10);

/// Daemons that are remembered after they have ended; far more than a host has.
const MAX_REMEMBERED: usize = 1024;

/// What was started, by the socket that the daemon is to listen on.
#[derive(Debug, Default)]
pub(crate) struct Starter {
    daemons: Mutex<HashMap<PathBuf, Daemon>>,
}

#[derive(Debug)]
struct Daemon {
    is_running: bool,
    /// It was seen listening since it was started.
    listened: bool,
    /// It is not started before then.
    next_start: Instant,
    /// Starts in a row that failed, and why the last one did.
    failures: u32,
    why: String,
}

impl Starter {
    /// Has the upstream's daemon started unless it runs; an error says that this was in vain.
    pub(super) fn start(
        self: &Arc<Self>,
        path: &Path,
        upstream: &Upstream,
        now: Instant,
    ) -> Result<(), String> {
        let mut daemons = self.daemons();
        if daemons.len() >= MAX_REMEMBERED && !daemons.contains_key(path) {
            daemons.retain(|_, daemon| daemon.is_running || daemon.next_start > now);
        }
        let daemon = daemons.entry(path.to_path_buf()).or_insert(Daemon {
            is_running: false,
            listened: false,
            next_start: now,
            failures: 0,
            why: String::new(),
        });
        let left = daemon.next_start.saturating_duration_since(now);
        if daemon.is_running || (daemon.failures == 0 && !left.is_zero()) {
            return Ok(());
        }
        if !left.is_zero() {
            let seconds = left.as_millis().div_ceil(1000);
            return Err(format!("{}; started again in {seconds} s", daemon.why));
        }
        daemon.is_running = true;
        daemon.listened = false;
        daemon.next_start = now + FIRST_WAIT;
        drop(daemons);
        if let Err(why) = self.spawn(path, upstream) {
            self.ended(path, Some(&why), now);
            return Err(why);
        }
        Ok(())
    }

    /// A daemon that was started listens.
    pub(super) fn listens(&self, path: &Path) {
        if let Some(daemon) = self.daemons().get_mut(path) {
            daemon.listened = true;
            daemon.failures = 0;
        }
    }

    fn spawn(self: &Arc<Self>, path: &Path, upstream: &Upstream) -> Result<(), String> {
        let words = upstream.start.as_deref().unwrap_or_default();
        let (mut command, program) = output::command(words).ok_or("no program to start")?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = command
            .spawn()
            .map_err(|error| format!("cannot start {program}: {error}"))?;
        let name = &*upstream.name;
        tracing::info!(upstream = name, pid = child.id(), "started {program}");
        let (starter, path) = (Arc::clone(self), path.to_path_buf());
        let upstream = Arc::clone(&upstream.name);
        tokio::spawn(async move { starter.watch(child, &path, &upstream, &program).await });
        Ok(())
    }

    /// Waits for a daemon to end.
    async fn watch(&self, mut child: Child, path: &Path, upstream: &Arc<str>, program: &Arc<str>) {
        let mut output = Output::of(&mut child, upstream, program);
        let why = match child.wait().await {
            // One that goes into the background succeeds as well.
            Ok(status) if status.success() => {
                tracing::info!(upstream = &**upstream, "{program} has ended");
                None
            }
            Ok(status) => Some(output.obituary(program, status).await),
            Err(error) => Some(format!("cannot wait for {program}: {error}")),
        };
        output.detach();
        if let Some(why) = &why {
            tracing::warn!(upstream = &**upstream, "{why}");
        }
        self.ended(path, why.as_deref(), Instant::now());
    }

    fn ended(&self, path: &Path, failure: Option<&str>, now: Instant) {
        let mut daemons = self.daemons();
        let Some(daemon) = daemons.get_mut(path) else {
            return;
        };
        daemon.is_running = false;
        match failure {
            // One that served has been started well, whatever it has come to since.
            Some(why) if !daemon.listened => {
                let doubled = FIRST_WAIT.saturating_mul(1 << daemon.failures.min(16));
                daemon.next_start = now + doubled.min(LAST_WAIT);
                daemon.failures += 1;
                why.clone_into(&mut daemon.why);
            }
            None if !daemon.listened => {
                daemon.next_start += BACKGROUND.saturating_sub(FIRST_WAIT);
                daemon.failures = 0;
            }
            _ => daemon.failures = 0,
        }
    }

    fn daemons(&self) -> MutexGuard<'_, HashMap<PathBuf, Daemon>> {
        self.daemons.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
