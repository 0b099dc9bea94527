//! The worker threads: each runs the connections it is given on a runtime of its own.

use std::io;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::LocalSet;

use super::accept::Served;
use super::access::Access;
use super::auth::handshake::{self, HandshakeError};
use super::auth::unauthenticated::Origin;
use super::clients::ClientGuard;
use super::connection;
use super::context::Context;
use super::peercred::Peer;
use super::transport::Channel;
use crate::policy::facts::ClientFacts;
use crate::policy::model::Listener;

/// Threads on which a worker asks the user database; a stuck directory server holds up only
/// clients whose names are not yet known.
const LOOKUP_THREADS: usize = 8;
/// How long a client may have to wait for its names before it is refused.
const LOOKUP_DEADLINE: Duration = Duration::from_secs(10);

/// How long the end of the daemon waits for its threads.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// The worker threads.
#[derive(Debug)]
pub(crate) struct Workers {
    workers: Vec<Worker>,
}

#[derive(Debug)]
struct Worker {
    /// Unbounded as a type; in truth bounded by the client limit, which counts a connection from
    /// its accept on.
    jobs: UnboundedSender<Job>,
    load: Arc<AtomicUsize>,
    /// The last tick answered.
    answered: Arc<AtomicU64>,
    /// Fails when the thread has ended.
    ended: oneshot::Receiver<()>,
}

enum Job {
    Serve {
        conn: Conn,
        served: Served,
        guard: ClientGuard,
        load: LoadGuard,
    },
    Tick(u64),
}

/// A client that was accepted; its socket is non-blocking.
#[derive(Debug)]
pub(crate) enum Conn {
    /// By a UNIX socket.
    Unix(UnixStream),
    /// By TCP.
    Tcp(TcpStream),
}

impl Conn {
    /// Where it comes from, for the log.
    fn peer(&self) -> String {
        match self {
            Self::Unix(_) => "local".to_owned(),
            Self::Tcp(conn) => match conn.peer_addr() {
                Ok(address) => address.to_string(),
                Err(_) => "gone".to_owned(),
            },
        }
    }

    /// Whom it is counted with until it has proven who it is.
    fn origin(&self) -> Origin {
        let origin = match self {
            Self::Unix(conn) => getsockopt(conn, sockopt::PeerCredentials)
                .ok()
                .map(|peer| Origin::User(peer.uid())),
            Self::Tcp(conn) => conn.peer_addr().ok().map(|peer| peer.ip().into()),
        };
        origin.unwrap_or(Origin::Gone)
    }
}

/// One connection in a worker's load.
struct LoadGuard(Arc<AtomicUsize>);

impl Drop for LoadGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Workers {
    /// Starts `count` workers, at least one.
    ///
    /// # Errors
    /// The system has no thread or descriptor for one of them.
    pub(crate) fn start(count: usize, ctx: &Arc<Context>) -> io::Result<Self> {
        let workers = (0..count.max(1))
            .map(|index| Worker::start(index, Arc::clone(ctx)))
            .collect::<Result<_, _>>()?;
        Ok(Self { workers })
    }

    /// Number of workers.
    pub(crate) fn count(&self) -> usize {
        self.workers.len()
    }

    /// Gives a client to the worker with the fewest.
    pub(crate) fn serve(&self, conn: Conn, served: Served, guard: ClientGuard) {
        let least = self
            .workers
            .iter()
            .min_by_key(|worker| worker.load.load(Ordering::Relaxed));
        let Some(worker) = least else { return };
        worker.load.fetch_add(1, Ordering::Relaxed);
        let job = Job::Serve {
            conn,
            served,
            guard,
            load: LoadGuard(Arc::clone(&worker.load)),
        };
        if worker.jobs.send(job).is_err() {
            tracing::error!("a worker thread has died; a client was turned away");
        }
    }

    /// Asks every worker to answer tick `number`.
    pub(crate) fn tick(&self, number: u64) {
        for worker in &self.workers {
            let _ = worker.jobs.send(Job::Tick(number));
        }
    }

    /// Whether every worker has answered tick `number`.
    pub(crate) fn answered(&self, number: u64) -> bool {
        self.workers
            .iter()
            .all(|worker| worker.answered.load(Ordering::Relaxed) >= number)
    }

    /// Ends all workers; connections that are still open are closed. A thread that hangs is not
    /// waited for: it ends with the process.
    pub(crate) async fn stop(self) {
        let ended: Vec<_> = self
            .workers
            .into_iter()
            .map(|worker| worker.ended)
            .collect();
        let all = async {
            for ended in ended {
                let _ = ended.await;
            }
        };
        if tokio::time::timeout(STOP_DEADLINE, all).await.is_err() {
            tracing::error!("a worker thread hangs; ending without it");
        }
    }
}

impl Worker {
    fn start(index: usize, ctx: Arc<Context>) -> io::Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(LOOKUP_THREADS)
            .build()?;
        let (jobs, queue) = unbounded_channel();
        let answered = Arc::new(AtomicU64::new(0));
        let (alive, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn({
                let answered = Arc::clone(&answered);
                move || {
                    // Dropped at the end, however that comes.
                    let _alive: oneshot::Sender<()> = alive;
                    work(runtime, queue, &answered, &ctx);
                }
            })?;
        Ok(Self {
            jobs,
            load: Arc::new(AtomicUsize::new(0)),
            answered,
            ended,
        })
    }
}

/// The life of a worker thread.
fn work(
    runtime: Runtime,
    mut queue: UnboundedReceiver<Job>,
    answered: &AtomicU64,
    ctx: &Arc<Context>,
) {
    let connections = LocalSet::new();
    runtime.block_on(connections.run_until(async {
        while let Some(job) = queue.recv().await {
            match job {
                Job::Tick(number) => answered.store(number, Ordering::Relaxed),
                Job::Serve {
                    conn,
                    served,
                    guard,
                    load,
                } => {
                    let ctx = Arc::clone(ctx);
                    tokio::task::spawn_local(async move {
                        attend(conn, served, ctx).await;
                        drop((guard, load));
                    });
                }
            }
        }
    }));
    drop(connections);
    // A look-up that hangs must not hold up the end of the daemon.
    runtime.shutdown_background();
}

/// Finds out who the client is, then serves it.
async fn attend(conn: Conn, served: Served, ctx: Arc<Context>) {
    let Served { listener, admits } = served;
    let waiting = ctx.unauthenticated.enter(&listener, conn.origin());
    let pushed_out = async {
        match &waiting {
            Some(waiting) => waiting.pushed_out().await,
            None => std::future::pending().await,
        }
    };
    let peer = conn.peer();
    let listener_name = &*listener.name;
    let arrived = tokio::select! {
        arrived = arrive(conn, &listener, admits, &ctx) => arrived,
        () = pushed_out => {
            tracing::info!(peer, listener = listener_name, "client closed: too many are not authenticated");
            return;
        }
    };
    match arrived {
        Ok((channel, facts)) => connection::serve(channel, facts, waiting, listener, ctx).await,
        Err(error) => {
            tracing::warn!(%error, peer, listener = listener_name, "client refused");
        }
    }
}

async fn arrive(
    conn: Conn,
    listener: &Listener,
    admits: Option<Access>,
    ctx: &Arc<Context>,
) -> Result<(Channel, ClientFacts), HandshakeError> {
    match conn {
        Conn::Unix(conn) => {
            let facts = gather(&conn, listener, ctx).await?;
            if let (Some(access), Some(unix)) = (admits, &facts.unix)
                && !access.admits(unix)
            {
                let Access { mode, .. } = access;
                return Err(HandshakeError::NotAdmitted {
                    uid: unix.uid,
                    mode,
                });
            }
            Ok((
                Channel::Unix(tokio::net::UnixStream::from_std(conn)?),
                facts,
            ))
        }
        Conn::Tcp(conn) => handshake::arrive(conn, listener, &ctx.certificates).await,
    }
}

async fn gather(
    conn: &UnixStream,
    listener: &Listener,
    ctx: &Arc<Context>,
) -> io::Result<ClientFacts> {
    let peer = Peer::of(conn)?;
    let ctx = Arc::clone(ctx);
    let look_up = tokio::task::spawn_blocking(move || peer.facts(&ctx.names));
    let unix = tokio::time::timeout(LOOKUP_DEADLINE, look_up).await???;
    Ok(ClientFacts {
        listener: Arc::clone(&listener.name),
        readonly: listener.readonly,
        unix: Some(unix),
        ..ClientFacts::default()
    })
}
