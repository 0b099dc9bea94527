//! What a session asks of the policy.

use crate::policy::facts::ClientFacts;
use crate::policy::model::{Policy, Routed};

/// Chooses the daemons for a client. The compiled [`Policy`] is the one that counts; conversations
/// are tested with tables of a few lines.
pub trait Router {
    /// Which daemons serve this client's URI; the empty URI is "none named".
    fn route(&self, facts: &ClientFacts, uri: &str) -> Routed;

    /// Whether this client is trusted to say for whom it speaks (`CONNECT_SET_IDENTITY`).
    fn may_forward(&self, facts: &ClientFacts) -> bool;
}

impl Router for Policy {
    fn route(&self, facts: &ClientFacts, uri: &str) -> Routed {
        Self::route(self, facts, uri)
    }

    fn may_forward(&self, facts: &ClientFacts) -> bool {
        Self::may_forward(self, facts)
    }
}
