//! The TLS configurations of all listeners: built whole, swapped at once.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::ServerConfig;
use tokio::sync::watch;

use super::revocation::Revoked;
pub(crate) use super::tls::Finding;
use super::tls::{self, Configured};
use crate::policy::facts::X509Facts;
use crate::policy::model::{Crl, Listener};
use crate::policy::report::Severity;

/// TLS of the listeners of one policy, from one reading of the files.
#[derive(Debug, Default)]
pub(crate) struct Certificates {
    by_listener: HashMap<Arc<str>, Arc<ServerConfig>>,
    revoked: Revoked,
}

impl Certificates {
    /// Reads the files that the listeners name and adds what is wrong with them to `findings`,
    /// each with its listener. `None` if one of them is an error. Blocks.
    pub(crate) fn load(
        listeners: &[Arc<Listener>],
        now: SystemTime,
        findings: &mut Vec<(Arc<str>, Finding)>,
    ) -> Option<Self> {
        let mut certificates = Self::default();
        for listener in listeners {
            let Some(tls) = &listener.tls else { continue };
            let mut found = Vec::new();
            let configured = tls::configure(tls, now, &mut found);
            findings.extend(
                found
                    .into_iter()
                    .map(|found| (Arc::clone(&listener.name), found)),
            );
            if let Some(Configured { config, revoked }) = configured {
                certificates
                    .by_listener
                    .insert(Arc::clone(&listener.name), config);
                certificates.revoked.extend(revoked);
            }
        }
        let failed = findings
            .iter()
            .any(|(_, found)| found.severity == Severity::Error);
        (!failed).then_some(certificates)
    }

    /// What handshakes on `listener` are made with; `None` if it has no TLS.
    pub(crate) fn of(&self, listener: &str) -> Option<Arc<ServerConfig>> {
        self.by_listener.get(listener).map(Arc::clone)
    }

    /// Whether some list of revoked certificates has this one.
    pub(crate) fn is_revoked(&self, x509: &X509Facts) -> bool {
        self.revoked.has(x509)
    }
}

/// Every file that [`Certificates::load`] reads, there or not.
pub(crate) fn files(listeners: &[Arc<Listener>]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for tls in listeners
        .iter()
        .filter_map(|listener| listener.tls.as_ref())
    {
        files.extend([tls.cert.clone(), tls.key.clone(), tls.ca.clone()]);
        if let Crl::File(path) | Crl::IfPresent(path) = &tls.crl {
            files.push(path.clone());
        }
    }
    files.sort();
    files.dedup();
    files
}

/// The certificates in force, for every connection.
#[derive(Debug)]
pub(crate) struct CertificateStore(watch::Sender<Arc<Certificates>>);

impl CertificateStore {
    /// Puts the first ones in force.
    pub(crate) fn new(certificates: Certificates) -> Self {
        Self(watch::Sender::new(Arc::new(certificates)))
    }

    /// Those in force, for one handshake.
    pub(crate) fn load(&self) -> Arc<Certificates> {
        Arc::clone(&self.0.borrow())
    }

    /// Replaces them. Open connections are told, see [`revoked`](Self::revoked).
    pub(crate) fn swap(&self, certificates: Certificates) {
        self.0.send_replace(Arc::new(certificates));
    }

    /// Waits until the certificate of an open connection is revoked, for ever if it has none.
    /// What came into force since its handshake counts. Cancel-safe.
    pub(crate) async fn revoked(&self, x509: Option<&X509Facts>) {
        let Some(x509) = x509 else {
            return std::future::pending().await;
        };
        let mut current = self.0.subscribe();
        // The sender is here, so this does not fail.
        let _ = current.wait_for(|now| now.is_revoked(x509)).await;
    }
}
