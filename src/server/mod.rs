//! The tokio shell: sockets, threads, signals, the service manager.
//!
//! The main thread accepts, reloads and talks to the service manager; worker threads run the
//! connections.
//!
//! - `accept`, `access`, `activation`, `listeners`, `socket_file`, `tcp_socket`, `lockfile`: the
//!   listening sockets.
//! - `clients`, `context`, `workers`, `connection`: the clients, from accept to close.
//! - `peercred`, `names`, `lookups`: who a client is.
//! - `auth`: who a client is, where that takes a dialogue.
//! - `audit`: records of decisions.
//! - `quotas`: the turns of calls that count towards quotas.
//! - `pump`, `side`, `inbox`, `outbox`: bytes between two connections and a session.
//! - `transport`, `socket`, `tls_channel`, `security_layer`: what a connection is made of.
//! - `dial`: dialling a driver daemon; `health`: whether that is worth while.
//! - `reload`, `renewal`, `file_watch`: the policy file and certificates, read again.
//! - `drain`, `notify`, `watchdog`, `daemonize`, `pid_file`, `logging`, `paths`: a daemon's manners.

use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

mod accept;
mod access;
mod activation;
pub mod audit;
pub mod auth;
mod clients;
mod connection;
mod context;
mod daemonize;
mod dial;
mod drain;
mod file_watch;
mod health;
mod inbox;
mod listeners;
mod lockfile;
mod logging;
mod lookups;
mod names;
mod notify;
mod outbox;
mod paths;
mod peercred;
mod pid_file;
mod pump;
mod quotas;
mod reload;
mod renewal;
mod security_layer;
mod side;
mod socket;
mod socket_file;
mod tcp_socket;
mod tls_channel;
mod transport;
mod watchdog;
mod workers;

use audit::Audit;
use context::Context;
use drain::Drained;
use file_watch::FileWatch;
use listeners::Listeners;
use notify::Notifier;
use pid_file::PidFile;
use reload::{Candidate, Cause, LoadError, Reloader};
use renewal::Renewal;
use watchdog::Watchdog;
use workers::Workers;

pub use daemonize::{BACKGROUND_OPTION, start_in_background};
pub use paths::{pid_file, runtime_parent};
pub use reload::{Contents, Source, check_files};

/// What the command line asks of the daemon. Paths are absolute.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Policy file; `None` looks in the default place and falls back to the built-in policy.
    pub config: Option<PathBuf>,
    /// Pid file to write and hold.
    pub pid_file: Option<PathBuf>,
    /// End when no client has been connected for this long.
    pub idle_timeout: Option<Duration>,
    /// Log debug messages.
    pub verbose: bool,
    /// This is the background process of `--daemon`.
    pub background: bool,
}

/// Why the daemon did not start.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(#[from] Cannot);

/// The reasons, each worded by the module that met it.
#[derive(Debug, thiserror::Error)]
enum Cannot {
    #[error(transparent)]
    Activate(#[from] activation::ActivationError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Listen(#[from] socket_file::BindError),
    #[error(transparent)]
    WritePidFile(#[from] pid_file::PidFileError),
    #[error("{0}")]
    System(#[from] io::Error),
}

impl Cannot {
    /// The reason in one line.
    fn summary(&self) -> String {
        match self {
            Self::Load(error) => error.summary.clone(),
            other => other.to_string(),
        }
    }
}

/// Runs the daemon until it is told to end, or idle for too long.
///
/// Call it from the main thread before any other thread is started or descriptor opened.
///
/// # Errors
/// It could not start. Once it listens it does not fail.
pub fn run(options: Options) -> Result<(), Error> {
    start(options).map_err(Error)
}

fn start(options: Options) -> Result<(), Cannot> {
    // First of all: it changes the environment, and claims descriptors by their number.
    let inherited = activation::take()?;
    if options.background {
        daemonize::enter()?;
    }
    logging::init(options.verbose, options.background);
    raise_descriptor_limit();
    let (reloader, candidate) = Reloader::first(Source::new(options.config))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_start(yield_to_clients)
        .build()?;
    let result = runtime.block_on(async {
        // Before anybody can learn our pid: a signal must not kill us from here on.
        let signals = Signals::install()?;
        let pid_file = options.pid_file.as_deref();
        let _pid_file = pid_file.map(PidFile::write).transpose()?;
        let daemon = Daemon::start(reloader, candidate, inherited)?;
        if options.background {
            daemonize::ready()?;
        }
        daemon.run(signals, options.idle_timeout).await;
        Ok(())
    });
    // A policy that is being read from a dead network file system must not hold us up.
    runtime.shutdown_background();
    result
}

/// On the threads that read policies and certificates: a large policy takes a core for a while, and
/// calls must not wait for that.
fn yield_to_clients() {
    const BELOW_CLIENTS: i32 = 10;
    if let Err(error) = rustix::process::nice(BELOW_CLIENTS) {
        tracing::debug!(%error, "cannot lower the priority of a thread");
    }
}

/// Each client takes two descriptors. The soft limit of 1024 is for programs that use `select`.
fn raise_descriptor_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "cannot raise the descriptor limit");
    }
}

/// The running daemon, owned by the main thread.
#[derive(Debug)]
struct Daemon {
    ctx: Arc<Context>,
    workers: Arc<Workers>,
    listeners: Listeners,
    reloader: Reloader,
    notifier: Notifier,
    watch: Option<FileWatch>,
    file_changed: Arc<Notify>,
    renewal: Renewal,
    watchdog: Watchdog,
    /// What the last reload has come to.
    status: String,
    /// The status that the service manager was told last.
    told: String,
}

#[derive(Debug)]
struct Signals {
    reload: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn install() -> io::Result<Self> {
        Ok(Self {
            reload: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for a signal to end. Cancel-safe.
    async fn end(terminate: &mut Signal, interrupt: &mut Signal) {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

impl Daemon {
    /// Starts the workers and listens. Nothing is accepted before the first await.
    fn start(
        reloader: Reloader,
        candidate: Candidate,
        inherited: Vec<activation::Inherited>,
    ) -> Result<Self, Cannot> {
        let Candidate {
            origin,
            policy,
            groups,
            certificates,
            sinks,
        } = candidate;
        let count = policy.daemon.workers.unwrap_or_else(available_cores);
        let audit = Audit::start(sinks)?;
        let ctx = Arc::new(Context::new(origin, policy, certificates, audit));
        let workers = Arc::new(Workers::start(count, &ctx)?);
        let mut listeners = Listeners::new(Arc::clone(&ctx), Arc::clone(&workers), inherited)?;
        let stage = listeners.stage(&ctx.policy.load().policy, &groups)?;
        listeners.commit(stage);
        let mut daemon = Self {
            ctx,
            workers,
            listeners,
            reloader,
            notifier: Notifier::new(),
            watch: None,
            file_changed: Arc::new(Notify::new()),
            renewal: Renewal::default(),
            watchdog: Watchdog::new(),
            status: String::new(),
            told: String::new(),
        };
        daemon.set_watch();
        daemon.status = daemon.describe();
        tracing::info!("ready: {}", daemon.status);
        daemon.tell_status();
        Ok(daemon)
    }

    async fn run(mut self, mut signals: Signals, idle_timeout: Option<Duration>) {
        let clients = self.ctx.clients.clone();
        let mut idle = pin!(async {
            match idle_timeout {
                Some(period) => clients.idle(period).await,
                None => std::future::pending().await,
            }
        });
        let why = loop {
            tokio::select! {
                () = Signals::end(&mut signals.terminate, &mut signals.interrupt) => break "told to end",
                () = &mut idle => break "no client for long enough",
                _ = signals.reload.recv() => {
                    tracing::info!("reload requested");
                    // Also where the policy turns out to have errors: the file was rotated.
                    self.ctx.audit.reopen();
                    self.notifier.reloading();
                    self.reloader.request(Cause::Signal);
                }
                () = self.file_changed.notified() => self.reloader.request(Cause::File),
                () = self.renewal.step(&self.ctx) => {}
                () = self.ctx.health.changed() => self.tell_health(),
                outcome = self.reloader.finished() => self.reloaded(outcome),
                () = self.watchdog.due() => self.watchdog.check(&self.workers, &mut self.notifier),
            }
        };
        self.end(why, signals).await;
    }

    /// Puts a new policy in force, whole or not at all.
    fn reloaded(&mut self, outcome: Option<Result<Candidate, LoadError>>) {
        if let Some(outcome) = outcome {
            self.notifier.reloading();
            self.status = match self.try_adopt(outcome) {
                Ok(()) => {
                    let status = self.describe();
                    tracing::info!("reloaded: {status}");
                    status
                }
                Err(error) => {
                    tracing::error!("reload failed, the policy in force stays: {error}");
                    format!("{}; reload failed: {}", self.describe(), error.summary())
                }
            };
        }
        // If another request came meanwhile, only its end is the end of reloading.
        self.tell_status();
    }

    /// Tells what the last reload has come to, and which daemons are down.
    fn tell_status(&mut self) {
        if !self.reloader.is_running() {
            self.told = self.full_status();
            self.notifier.ready(&self.told);
        }
    }

    /// Tells which daemons are down, if that is not what was told last.
    fn tell_health(&mut self) {
        if self.told != self.full_status() {
            self.tell_status();
        }
    }

    fn full_status(&self) -> String {
        let policy = &self.ctx.policy.load().policy;
        match self.ctx.health.summary(policy) {
            Some(down) => format!("{}; {down}", self.status),
            None => self.status.clone(),
        }
    }

    fn try_adopt(&mut self, outcome: Result<Candidate, LoadError>) -> Result<(), Cannot> {
        let candidate = outcome?;
        let stage = self.listeners.stage(&candidate.policy, &candidate.groups)?;
        self.adopt(candidate, stage);
        Ok(())
    }

    fn adopt(&mut self, candidate: Candidate, stage: listeners::Stage) {
        let wanted = candidate.policy.daemon.workers;
        if wanted.is_some_and(|wanted| wanted.max(1) != self.workers.count()) {
            tracing::warn!("the number of workers changes only with a restart");
        }
        self.ctx
            .clients
            .set_max(candidate.policy.daemon.max_clients);
        self.ctx
            .unauthenticated
            .set_max(candidate.policy.daemon.max_unauthenticated);
        // No await between these: whom we accept from now on meets the new policy.
        self.ctx.certificates.swap(candidate.certificates);
        self.ctx.audit.set_sinks(candidate.sinks);
        self.ctx.policy.swap(candidate.origin, candidate.policy);
        let policy = &self.ctx.policy.load().policy;
        self.ctx.health.reconsider(policy, Instant::now());
        self.listeners.commit(stage);
        self.set_watch();
    }

    /// Watches the certificates, and the policy file if the policy wants that.
    fn set_watch(&mut self) {
        self.renewal.follow(&self.ctx.policy.load().policy);
        let wanted = self.ctx.policy.load().policy.daemon.watch;
        let path = self.reloader.path().filter(|_| wanted);
        match (path, &self.watch) {
            (None, _) => self.watch = None,
            (Some(_), Some(_)) => {}
            (Some(path), None) => {
                match FileWatch::start(vec![path.to_path_buf()], Arc::clone(&self.file_changed)) {
                    Ok(watch) => self.watch = Some(watch),
                    Err(error) => tracing::error!(
                        %error,
                        "cannot watch the policy file; a change needs a SIGHUP"
                    ),
                }
            }
        }
    }

    fn describe(&self) -> String {
        let generation = self.ctx.policy.load();
        format!(
            "policy generation {} from {}, {} of {} listeners",
            generation.number,
            generation.file,
            self.listeners.serving(),
            generation.policy.listeners.len(),
        )
    }

    /// The orderly end: no new clients, the present ones as long as they need and may.
    async fn end(mut self, why: &str, mut signals: Signals) {
        self.watch = None;
        let deadline = self.ctx.policy.load().policy.daemon.drain;
        self.notifier
            .stopping(&format!("stopping: {why}"), deadline);
        self.listeners.close().await;
        self.ctx.drain.begin();
        tracing::info!(
            clients = self.ctx.clients.live(),
            ?deadline,
            "stopping: {why}"
        );
        let ctx = Arc::clone(&self.ctx);
        let mut drained = pin!(drain::wait(&ctx.clients, deadline));
        loop {
            tokio::select! {
                drained = &mut drained => {
                    match drained {
                        Drained::Complete => tracing::info!("stopped: every client has left"),
                        Drained::Deadline(clients) => {
                            tracing::warn!(clients, "stopped: clients were still connected");
                        }
                    }
                    break;
                }
                () = Signals::end(&mut signals.terminate, &mut signals.interrupt) => {
                    tracing::warn!(clients = ctx.clients.live(), "stopped: told to end at once");
                    break;
                }
                () = self.watchdog.due() => self.watchdog.check(&self.workers, &mut self.notifier),
            }
        }
        drop(self.listeners);
        if let Some(workers) = Arc::into_inner(self.workers) {
            workers.stop().await;
        }
        ctx.audit.flush().await;
    }
}

fn available_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
