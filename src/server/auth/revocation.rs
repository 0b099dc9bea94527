//! Lists of revoked certificates, for connections that are open when a new list comes. Handshakes
//! are checked by the TLS library itself.

use std::collections::{HashMap, HashSet};

use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use super::x509;
use crate::policy::facts::serial;

/// What a list names a certificate by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CertificateId {
    issuer: String,
    pub(crate) serial: String,
}

impl CertificateId {
    /// Of a certificate (DER); `None` if it is none.
    pub(crate) fn of(certificate: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        Some(Self {
            issuer: x509::name(certificate.issuer()),
            serial: serial(&x509::hex(certificate.raw_serial())),
        })
    }
}

/// Revoked certificates by issuer.
#[derive(Debug, Default)]
pub(crate) struct Revoked {
    serials: HashMap<String, HashSet<String>>,
}

/// What is wrong with a list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Flaw {
    #[error("it is no list of revoked certificates: {0}")]
    Form(String),
    #[error("it says that it is by {0:?}, but that CA did not sign it")]
    Signature(String),
    #[error("it is by {0:?}, which is none of the CAs, so it may have no effect")]
    OtherIssuer(String),
    #[error("it should have been renewed by now, so every client certificate is refused")]
    Outdated,
}

impl Flaw {
    /// Whether the list can be used nevertheless.
    pub(crate) fn is_harmless(&self) -> bool {
        matches!(self, Self::OtherIssuer(_) | Self::Outdated)
    }
}

impl Revoked {
    /// Adds a list (DER) and holds it against `cas` (DER), at `now` in seconds since the epoch.
    /// Returns what is wrong; a list with a flaw that is not harmless is not added.
    pub(crate) fn add(&mut self, list: &[u8], cas: &[impl AsRef<[u8]>], now: i64) -> Option<Flaw> {
        let list = match CertificateRevocationList::from_der(list) {
            Ok(([], list)) => list,
            Ok(_) => return Some(Flaw::Form("bytes follow it".to_owned())),
            Err(error) => return Some(Flaw::Form(error.to_string())),
        };
        let issuer = x509::name(list.issuer());
        let cas: Vec<X509Certificate<'_>> = cas
            .iter()
            .filter_map(|ca| X509Certificate::from_der(ca.as_ref()).ok())
            .map(|(_, ca)| ca)
            .filter(|ca| x509::name(ca.subject()) == issuer)
            .collect();
        let signed = cas
            .iter()
            .any(|ca| list.verify_signature(ca.public_key()).is_ok());
        if !cas.is_empty() && !signed {
            return Some(Flaw::Signature(issuer));
        }
        let revoked = list
            .iter_revoked_certificates()
            .map(|entry| serial(&x509::hex(entry.raw_serial())));
        self.serials
            .entry(issuer.clone())
            .or_default()
            .extend(revoked);
        let outdated = |next: i64| next < now;
        if cas.is_empty() {
            Some(Flaw::OtherIssuer(issuer))
        } else if list
            .next_update()
            .is_some_and(|next| outdated(next.timestamp()))
        {
            Some(Flaw::Outdated)
        } else {
            None
        }
    }

    /// Adds everything of `other`.
    pub(crate) fn extend(&mut self, other: Self) {
        for (issuer, serials) in other.serials {
            self.serials.entry(issuer).or_default().extend(serials);
        }
    }

    /// Whether a list names the certificate.
    pub(crate) fn has(&self, certificate: &CertificateId) -> bool {
        self.serials
            .get(&certificate.issuer)
            .is_some_and(|serials| serials.contains(&certificate.serial))
    }
}
