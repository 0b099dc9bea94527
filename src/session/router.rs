//! What a session asks of the policy.

use crate::policy::facts::ClientFacts;
use std::sync::Arc;

use crate::policy::access::Table;
use crate::policy::model::Routed;
use crate::policy::store::Generation;

/// Chooses the daemons for a client, and says what it may do. The policy in force is the one that
/// counts; conversations are tested with tables of a few lines.
pub trait Router {
    /// Which daemons serve this client's URI; the empty URI is "none named".
    fn route(&self, facts: &ClientFacts, uri: &str) -> Routed;

    /// Whether this client is trusted to say for whom it speaks (`CONNECT_SET_IDENTITY`).
    fn may_forward(&self, facts: &ClientFacts) -> bool;

    /// Number of the policy; it moves when another is in force.
    fn generation(&self) -> u64;

    /// What this client may do; `None`: everything.
    fn access(&self, facts: &ClientFacts) -> Option<Arc<Table>>;
}

impl Router for Generation {
    fn route(&self, facts: &ClientFacts, uri: &str) -> Routed {
        self.policy.route(facts, uri)
    }

    fn may_forward(&self, facts: &ClientFacts) -> bool {
        self.policy.may_forward(facts)
    }

    fn generation(&self) -> u64 {
        self.number
    }

    fn access(&self, facts: &ClientFacts) -> Option<Arc<Table>> {
        let restricts = self.policy.has_access_rules();
        restricts.then(|| self.policy.access(facts))
    }
}
