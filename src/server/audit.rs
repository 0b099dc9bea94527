//! Records of decisions: who asked for what, and what became of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ring::rand::{SecureRandom as _, SystemRandom};

use crate::policy::facts::ClientFacts;
use crate::session::access::refusal::Record;

/// Writes the records of all connections.
#[derive(Debug)]
pub(crate) struct Audit {
    /// Random, and so different from that of every other process.
    process: u32,
    connections: AtomicU64,
}

impl Audit {
    pub(crate) fn new() -> Self {
        let mut process = [0; 4];
        // Only the ids of refusals would be less different without it.
        _ = SystemRandom::new().fill(&mut process);
        Self {
            process: u32::from_be_bytes(process),
            connections: AtomicU64::new(0),
        }
    }

    /// Random bytes for a connection.
    pub(crate) fn seed(&self) -> [u8; 16] {
        let mut seed = [0; 16];
        _ = SystemRandom::new().fill(&mut seed);
        seed
    }

    /// What the ids of a new connection's refusals begin with.
    pub(crate) fn prefix(&self) -> Arc<str> {
        let connection = self.connections.fetch_add(1, Ordering::Relaxed);
        format!("{:08x}-{connection:x}", self.process).into()
    }

    /// Writes a record about a client.
    pub(crate) fn write(&self, record: &Record, client: &ClientFacts) {
        tracing::info!(
            id = &*record.id,
            verdict = ?record.verdict,
            procedure = record.procedure_name(),
            object = record.object,
            reason = record.reason,
            %client,
            "decision"
        );
    }
}
