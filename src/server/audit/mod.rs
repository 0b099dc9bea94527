//! Records of decisions: who asked for what, and what became of it.
//!
//! A connection's task makes records and leaves them in a queue; a thread of its own writes them,
//! so that no call waits for a disk or the journal.
//!
//! - [`entry`]: a record as it is written.
//! - `trail`: what the records of one connection have in common.
//! - `queue`: what waits for the thread; `writer`: the thread.
//! - `file`: the file that records are appended to; `log`: the journal.
//! - [`search`]: records that were written, found again.

pub mod entry;
pub(crate) mod file;
mod log;
mod queue;
pub mod search;
mod trail;
mod writer;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ring::rand::{SecureRandom as _, SystemRandom};

pub(crate) use log::TARGET;
pub(crate) use trail::Trail;
pub(crate) use writer::Sinks;

use crate::policy::facts::ClientFacts;
use crate::policy::store::Store;
use crate::session::access::refusal::Record;
use queue::{Job, Queue};

/// How long the end of the daemon waits for what is not written yet.
const FLUSH_DEADLINE: Duration = Duration::from_secs(5);

/// Takes the records of all connections.
#[derive(Debug)]
pub(crate) struct Audit {
    /// Random, and so different from that of every other process.
    process: u32,
    connections: AtomicU64,
    queue: Arc<Queue>,
}

impl Audit {
    /// Starts the thread that writes.
    ///
    /// # Errors
    /// There is no thread to be had, or nothing random.
    pub(crate) fn start(sinks: Sinks) -> io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let audit = Self {
            process: u32::from_be_bytes(random().ok_or_else(no_random)?),
            connections: AtomicU64::new(0),
            queue: Arc::clone(&queue),
        };
        std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || writer::run(&queue, sinks))?;
        Ok(audit)
    }

    /// Random bytes for a connection; `None` if the system has none, which must not be taken for
    /// bytes that anybody could guess.
    pub(crate) fn seed(&self) -> Option<[u8; 16]> {
        random()
    }

    /// The name of a new connection, which no other has: what the ids of its refusals begin with.
    pub(crate) fn name_connection(&self) -> Arc<str> {
        let connection = self.connections.fetch_add(1, Ordering::Relaxed);
        format!("{:08x}-{connection:x}", self.process).into()
    }

    /// Takes a record about a client. `trail` is that of the client's connection, which begins
    /// with its first record.
    pub(crate) fn record(
        &self,
        record: Record,
        trail: &mut Option<Box<Trail>>,
        connection: &Arc<str>,
        client: &ClientFacts,
        policy: &Store,
    ) {
        let trail = Trail::follow(trail, &record, connection, client, policy);
        self.queue.push(trail.entry(record));
    }

    /// Records go there from now on; those that wait still go where they went before.
    pub(crate) fn set_sinks(&self, sinks: Sinks) {
        self.queue.order(Job::SetSinks(sinks));
    }

    /// Opens the file anew: it may have been moved away.
    pub(crate) fn reopen(&self) {
        self.queue.order(Job::Reopen);
    }

    /// Waits until all records so far are written, but not for ever.
    pub(crate) async fn flush(&self) {
        let (done, flushed) = tokio::sync::oneshot::channel();
        self.queue.order(Job::Flush(done));
        if tokio::time::timeout(FLUSH_DEADLINE, flushed).await.is_err() {
            tracing::error!("the audit records could not all be written in {FLUSH_DEADLINE:?}");
        }
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        self.queue.end();
    }
}

fn random<const LENGTH: usize>() -> Option<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(bytes)
}

fn no_random() -> io::Error {
    io::Error::other("the system has no random numbers")
}
