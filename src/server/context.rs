//! What every connection shares: the policy store, the drain signal, the client count.

use super::clients::Clients;
use super::drain::Drain;
use super::names::Names;
use crate::policy::store::Store;

/// Shared by the main thread, the workers and every connection, behind one [`std::sync::Arc`].
#[derive(Debug)]
pub(crate) struct Context {
    /// The policy in force.
    pub(crate) policy: Store,
    /// Whether the daemon is going down.
    pub(crate) drain: Drain,
    /// How many clients are connected.
    pub(crate) clients: Clients,
    /// Names of user and group ids.
    pub(crate) names: Names,
}
