//! What listeners and daemons are met with, TLS configurations and password files: built whole,
//! swapped at once.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::{ClientConfig, ServerConfig};
use tokio::sync::watch;

pub(crate) use super::revocation::CertificateId;
use super::revocation::Revoked;
use super::sasl::SaslConfig;
use super::sasl_client;
use super::sasl_files::{self, PasswordFiles};
use super::tls::{self, Configured};
use super::tls_client;
pub(crate) use super::tls_files::Finding;
use crate::policy::FileOwner;
use crate::policy::model::{ClientTls, Crl, Policy};
use crate::policy::report::Severity;

/// TLS and SASL of one policy, from one reading of the files.
#[derive(Debug, Default)]
pub(crate) struct Certificates {
    by_listener: HashMap<Arc<str>, Arc<ServerConfig>>,
    /// By what is the same for all daemons that a template makes; `None` if that is of no use.
    towards: HashMap<ClientTls, Option<Arc<ClientConfig>>>,
    sasl: HashMap<Arc<str>, Arc<SaslConfig>>,
    revoked: Revoked,
    stamps: Stamps,
}

/// What tells whether files have changed, of each that is there.
type Stamps = BTreeMap<PathBuf, Option<(u64, u64, u64, i64, i64)>>;

/// How the files of this policy look now. Blocks.
fn stamps(policy: &Policy) -> Stamps {
    let stamp = |path: &PathBuf| {
        let file = path.metadata().ok()?;
        let changed = (file.ctime(), file.ctime_nsec());
        Some((file.dev(), file.ino(), file.len(), changed.0, changed.1))
    };
    let files = files(policy).into_iter();
    files.map(|path| (path.clone(), stamp(&path))).collect()
}

impl Certificates {
    /// Reads the files that listeners and upstreams name and adds what is wrong with them to
    /// `findings`, each with its owner. `None` if one of them is an error. Blocks.
    pub(crate) fn load(
        policy: &Policy,
        now: SystemTime,
        findings: &mut Vec<(FileOwner, Finding)>,
    ) -> Option<Self> {
        // First: what changes from here on is noticed later.
        let mut certificates = Self {
            stamps: stamps(policy),
            ..Self::default()
        };
        let mut password_files = PasswordFiles::default();
        for listener in &policy.listeners {
            let name = &listener.name;
            let mut found = Vec::new();
            if let Some(tls) = &listener.tls
                && let Some(configured) = tls::configure(tls, now, &mut found)
            {
                let Configured { config, revoked } = configured;
                certificates.by_listener.insert(Arc::clone(name), config);
                certificates.revoked.extend(revoked);
            }
            if let Some(sasl) = &listener.sasl
                && let Some(config) = sasl_files::configure(sasl, &mut password_files, &mut found)
            {
                certificates.sasl.insert(Arc::clone(name), config);
            }
            let owner = FileOwner::Listener(Arc::clone(name));
            findings.extend(found.into_iter().map(|found| (owner.clone(), found)));
        }
        for (name, tls) in policy.upstream_tls() {
            // Several upstreams may have the same files, and problems once are enough.
            let Entry::Vacant(place) = certificates.towards.entry(without_name(tls)) else {
                continue;
            };
            let mut found = Vec::new();
            place.insert(tls_client::configure(tls, now, &mut found));
            let owner = FileOwner::Upstream(Arc::clone(name));
            findings.extend(found.into_iter().map(|found| (owner.clone(), found)));
        }
        for (name, sasl) in policy.upstream_sasl() {
            let owner = FileOwner::Upstream(Arc::clone(name));
            let found = sasl_client::check(sasl).into_iter();
            findings.extend(found.map(|found| (owner.clone(), found)));
        }
        let failed = findings
            .iter()
            .any(|(_, found)| found.severity == Severity::Error);
        (!failed).then_some(certificates)
    }

    /// Whether the files are those that were read, as far as can be told from the outside. Blocks.
    pub(crate) fn is_current(&self, policy: &Policy) -> bool {
        self.stamps == stamps(policy)
    }

    /// What handshakes on `listener` are made with; `None` if it has no TLS.
    pub(crate) fn of(&self, listener: &str) -> Option<Arc<ServerConfig>> {
        self.by_listener.get(listener).map(Arc::clone)
    }

    /// What handshakes with daemons of such upstreams are made with; `None` if the policy that was
    /// read has none.
    pub(crate) fn client(&self, tls: &ClientTls) -> Option<Arc<ClientConfig>> {
        self.towards.get(&without_name(tls))?.clone()
    }

    /// What SASL exchanges on `listener` are made with; `None` if it has none.
    pub(crate) fn sasl(&self, listener: &str) -> Option<Arc<SaslConfig>> {
        self.sasl.get(listener).map(Arc::clone)
    }

    /// Whether some list of revoked certificates has one of these.
    pub(crate) fn revokes(&self, chain: &[CertificateId]) -> bool {
        chain
            .iter()
            .any(|certificate| self.revoked.has(certificate))
    }
}

/// The name that a daemon's certificate must have is asked for with each handshake.
fn without_name(tls: &ClientTls) -> ClientTls {
    ClientTls {
        server_name: None,
        ..tls.clone()
    }
}

/// Every file that [`Certificates::load`] keeps something of, there or not.
pub(crate) fn files(policy: &Policy) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let add_crl = |crl: &Crl, files: &mut Vec<PathBuf>| match crl {
        Crl::File(path) | Crl::IfPresent(path) => files.push(path.clone()),
        Crl::None => {}
    };
    for listener in &policy.listeners {
        if let Some(tls) = &listener.tls {
            files.extend([tls.cert.clone(), tls.key.clone(), tls.ca.clone()]);
            add_crl(&tls.crl, &mut files);
        }
        let sasl = listener.sasl.as_ref();
        files.extend(sasl.and_then(|sasl| sasl.passwords.clone()));
    }
    for (_, tls) in policy.upstream_tls() {
        files.push(tls.ca.clone());
        if let Some((cert, key)) = &tls.identity {
            files.extend([cert.clone(), key.clone()]);
        }
        add_crl(&tls.crl, &mut files);
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

    /// Waits until one of the certificates that an open connection rests on is revoked: the client's
    /// or that of a CA between it and ours. What came into force since the handshake counts.
    /// Cancel-safe.
    pub(crate) async fn revoked(&self, chain: &[CertificateId]) {
        let mut current = self.0.subscribe();
        // The sender is here, so this does not fail.
        let _ = current.wait_for(|now| now.revokes(chain)).await;
    }
}
