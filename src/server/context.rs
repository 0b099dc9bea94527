//! What every connection shares: policy and certificates in force, the drain signal, the counts of
//! clients.

use std::sync::Arc;

use super::audit::Audit;
use super::auth::certificates::{CertificateStore, Certificates};
use super::auth::polkit::{self, Polkit};
use super::auth::unauthenticated::{Origin, Unauthenticated, Waiting};
use super::clients::Clients;
use super::dial::Starter;
use super::drain::Drain;
use super::health::Health;
use super::lookups::Lookups;
use super::names::Names;
use super::quotas::Quotas;
use crate::policy::model::{Auth, ListenAddress, Listener, Policy};
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
    /// Bounds the look-ups of those.
    pub(crate) lookups: Lookups,
    /// Bounds the look-ups of host names, which must not keep those from their turn.
    pub(crate) hosts: Lookups,
    /// What is known of the driver daemons.
    pub(crate) health: Arc<Health>,
    /// Starts driver daemons.
    pub(crate) starter: Arc<Starter>,
    /// Asks polkit about local clients.
    pub(crate) polkit: Polkit,
    /// The certificates and passwords in force.
    pub(crate) certificates: CertificateStore,
    /// Takes the records of what was decided.
    pub(crate) audit: Audit,
    /// Whose calls are being counted.
    pub(crate) quotas: Quotas,
    /// Who has not proven anything yet.
    pub(crate) unauthenticated: UnauthenticatedByKind,
}

impl Context {
    /// Of a daemon that starts with this policy, which was read from `origin`.
    pub(crate) fn new(
        origin: String,
        policy: Policy,
        certificates: Certificates,
        audit: Audit,
    ) -> Self {
        let max_unauthenticated = policy.daemon.max_unauthenticated;
        Self {
            clients: Clients::new(policy.daemon.max_clients),
            policy: Store::new(origin, policy),
            drain: Drain::new(),
            names: Names::default(),
            lookups: Lookups::default(),
            hosts: Lookups::default(),
            health: Arc::default(),
            starter: Arc::default(),
            polkit: Polkit::new(polkit::Settings::default()),
            certificates: CertificateStore::new(certificates),
            audit,
            quotas: Quotas::default(),
            unauthenticated: UnauthenticatedByKind {
                local: Unauthenticated::new(max_unauthenticated),
                remote: Unauthenticated::new(max_unauthenticated),
            },
        }
    }
}

/// Local and remote clients are counted apart, so that the network cannot push out a user who is
/// being asked for his password.
#[derive(Debug)]
pub(crate) struct UnauthenticatedByKind {
    /// Clients of UNIX sockets.
    pub(crate) local: Unauthenticated,
    /// Clients of TCP sockets.
    pub(crate) remote: Unauthenticated,
}

impl UnauthenticatedByKind {
    /// Counts a client of `listener`, if it has anything to prove.
    pub(crate) fn enter(&self, listener: &Listener, origin: Origin) -> Option<Waiting> {
        match listener.address {
            ListenAddress::Unix { .. } if listener.auth == Auth::None => None,
            ListenAddress::Unix { .. } => Some(self.local.enter(origin)),
            ListenAddress::Tcp { .. } => Some(self.remote.enter(origin)),
        }
    }

    /// Changes both bounds.
    pub(crate) fn set_max(&self, max: usize) {
        self.local.set_max(max);
        self.remote.set_max(max);
    }
}
