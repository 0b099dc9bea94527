//! TLS of a listener: its files, read and held against each other, as a configuration for the TLS
//! library.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::server::{
    NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier, danger::ClientCertVerifier,
};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, ServerConfig};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::revocation::Revoked;
use super::tls_files::{Cas, Finding, Reader, versions};
use crate::policy::model::{ClientCert, Tls};

/// TLS of a listener, ready for handshakes.
#[derive(Debug)]
pub(crate) struct Configured {
    /// For the TLS library.
    pub(crate) config: Arc<ServerConfig>,
    /// What its list of revoked certificates has.
    pub(crate) revoked: Revoked,
}

/// Reads and checks the files at `now`; `None` if some finding is an error. Blocks.
pub(crate) fn configure(
    tls: &Tls,
    now: SystemTime,
    findings: &mut Vec<Finding>,
) -> Option<Configured> {
    let mut reader = Reader::new(now, findings);
    let chain = reader.chain(&tls.cert);
    if let Some(leaf) = chain.as_ref().and_then(|chain| chain.first()) {
        reader.usage(&tls.cert, leaf);
    }
    let key = reader.key(&tls.key);
    let cas = reader.cas(&tls.ca);
    let own = match (chain, key) {
        (Some(chain), Some(key)) => reader.pair((&tls.cert, &tls.key), chain, key),
        _ => None,
    };
    if let (Some(own), Some(cas)) = (&own, &cas) {
        reader.signed(tls, own, cas);
    }
    let (own, cas) = (own?, cas?);
    let (lists, revoked) = reader.revoked(&tls.crl, &cas)?;
    let verifier = reader.verifier(tls, &cas, lists)?;
    if reader.failed {
        return None;
    }
    let builder = ServerConfig::builder_with_provider(reader.provider);
    let mut config = builder
        .with_protocol_versions(versions(tls.min_version))
        .ok()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
    // A resumed session would not be held against today's list of revoked certificates, and
    // libvirt's clients stay connected anyway.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Some(Configured {
        config: Arc::new(config),
        revoked,
    })
}

impl Reader<'_> {
    /// Whether one of the CAs signed our own certificate.
    fn signed(&mut self, tls: &Tls, own: &CertifiedKey, cas: &Cas) {
        let Some((leaf, between)) = own.cert.split_first() else {
            return;
        };
        let verdict = ParsedCertificate::try_from(leaf).and_then(|leaf| {
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(
                &leaf, &cas.roots, between, self.now, algorithms,
            )
        });
        let Err(error) = verdict else { return };
        let (cert, ca) = (tls.cert.display(), tls.ca.display());
        let (message, help) = match error {
            // Said already.
            rustls::Error::InvalidCertificate(
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. },
            ) => return,
            rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            ) => (
                format!("no CA in {ca} signed the certificate in {cert}"),
                Some("certificates between the two belong into the file of the first, after it"),
            ),
            other => (
                format!("{cert} cannot be used as a server's: {other}"),
                None,
            ),
        };
        self.error("cert", message, help);
    }

    fn verifier(
        &mut self,
        tls: &Tls,
        cas: &Cas,
        lists: Vec<CertificateRevocationListDer<'static>>,
    ) -> Option<Arc<dyn ClientCertVerifier>> {
        let builder = WebPkiClientVerifier::builder_with_provider(
            Arc::clone(&cas.roots),
            Arc::clone(&self.provider),
        );
        // Without names of CAs, clients send what they have, and the log says what is wrong with it.
        let builder = builder
            .clear_root_hint_subjects()
            .with_crls(lists)
            .enforce_revocation_expiration();
        let verifier = match tls.client_cert {
            ClientCert::Required => builder.build(),
            ClientCert::Optional => builder.allow_unauthenticated().build(),
            ClientCert::UnsafeNone => return Some(WebPkiClientVerifier::no_client_auth()),
        };
        self.built(verifier)
    }

    /// What libvirt's clients ask of a server's certificate beyond what TLS does; newer ones ask
    /// less of keys of elliptic curves.
    fn usage(&mut self, path: &Path, leaf: &CertificateDer<'_>) {
        // What cannot be read has been told of.
        let Ok((_, certificate)) = X509Certificate::from_der(leaf) else {
            return;
        };
        let Ok(Some(usage)) = certificate.key_usage() else {
            return;
        };
        let enough = usage.value.digital_signature() && usage.value.key_encipherment();
        if usage.critical && !enough {
            let message = format!(
                "{}: libvirt's clients may refuse it: it is not for signatures and key encipherment",
                path.display()
            );
            let help = "make it with an RSA key, and `signing_key` and `encryption_key` in the \
                        template of certtool";
            self.warn("cert", message, Some(help));
        }
    }
}
