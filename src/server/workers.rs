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
use super::connection::Client;
use super::context::Context;
use super::lookups;
use super::names::Unknown;
use super::peercred::Peer;
use super::socket::UnixSocket;
use super::transport::Channel;
use crate::policy::facts::ClientFacts;
use crate::policy::model::Listener;

/// Threads of a worker for what blocks: as many as questions to the user database can take, as many
/// again for those about the names of hosts, and for passwords, which know nothing of either.
const BLOCKING_THREADS: usize = 3 * lookups::AT_ONCE;

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

    /// Gives a client to the worker with the fewest. One that has died has none, and would get all.
    pub(crate) fn serve(&self, conn: Conn, served: Served, guard: ClientGuard) {
        let least = self
            .workers
            .iter()
            .filter(|worker| !worker.jobs.is_closed())
            .min_by_key(|worker| worker.load.load(Ordering::Relaxed));
        let Some(worker) = least else {
            tracing::error!("no worker thread is alive; a client was turned away");
            return;
        };
        worker.load.fetch_add(1, Ordering::Relaxed);
        let job = Job::Serve {
            conn,
            served,
            guard,
            load: LoadGuard(Arc::clone(&worker.load)),
        };
        if worker.jobs.send(job).is_err() {
            tracing::error!("a worker thread has just died; a client was turned away");
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
            .max_blocking_threads(BLOCKING_THREADS)
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
                        // In a box of its own: what it takes to arrive is large and soon over.
                        let client = Box::pin(attend(conn, served, &ctx)).await;
                        if let Some(client) = client {
                            client.serve(&ctx).await;
                        }
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

/// Finds out who the client is; `None` if it is not to be served.
async fn attend(conn: Conn, served: Served, ctx: &Arc<Context>) -> Option<Box<Client>> {
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
        arrived = arrive(conn, &listener, admits, ctx) => arrived,
        () = pushed_out => {
            tracing::info!(peer, listener = listener_name, "client closed: too many are not authenticated");
            return None;
        }
    };
    match arrived {
        Ok((channel, facts)) => Client::new(channel, facts, waiting, listener, ctx).map(Box::new),
        Err(error) => {
            tracing::warn!(%error, peer, listener = listener_name, "client refused");
            None
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
            Ok((Channel::Unix(UnixSocket::new(conn.into())?), facts))
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
    let unix = match peer.facts(&ctx.names, Unknown::Refuse) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            let shared = Arc::clone(ctx);
            let ask = move || peer.facts(&shared.names, Unknown::Ask);
            ctx.lookups.run(ask).await?
        }
        remembered => remembered?,
    };
    Ok(ClientFacts {
        listener: Arc::clone(&listener.name),
        readonly: listener.readonly,
        unix: Some(unix),
        ..ClientFacts::default()
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is the failed test")]
mod tests {
    use super::*;

    fn served(listener: &Arc<Listener>) -> Served {
        Served {
            listener: Arc::clone(listener),
            admits: None,
        }
    }
    use crate::server::clients::Clients;

    const POLICY: &str = "
version: 1
listeners: { main: { unix: /run/sock } }
upstreams: { one: { unix: /run/one } }
routes: [{ uri: \"*\", upstream: one }]
";

    fn worker() -> (Worker, UnboundedReceiver<Job>) {
        let (jobs, queue) = unbounded_channel();
        let (_, ended) = oneshot::channel();
        let worker = Worker {
            jobs,
            load: Arc::default(),
            answered: Arc::default(),
            ended,
        };
        (worker, queue)
    }

    #[test]
    fn a_dead_worker_gets_no_clients_and_the_others_share_them() {
        let policy = crate::policy::load("f", POLICY, &|_| None).unwrap().policy;
        let listener = policy.listeners.first().unwrap();
        let clients = Clients::new(10);
        let ((dead, gone), (first, mut one), (second, mut two)) = (worker(), worker(), worker());
        drop(gone);
        let workers = Workers {
            workers: vec![dead, first, second],
        };
        for _ in 0..4 {
            let (ours, _theirs) = UnixStream::pair().unwrap();
            workers.serve(Conn::Unix(ours), served(listener), clients.enter());
        }
        assert_eq!((one.len(), two.len(), clients.live()), (2, 2, 4));
        one.close();
        two.close();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        workers.serve(Conn::Unix(ours), served(listener), clients.enter());
        assert_eq!(clients.live(), 4);
    }
}
