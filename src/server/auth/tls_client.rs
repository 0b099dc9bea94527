//! TLS towards a daemon: its files as a configuration for the TLS library.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::ClientConfig;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::sign::SingleCertAndKey;

use super::tls_files::{Finding, Reader, versions};
use crate::policy::model::ClientTls;

/// Reads and checks the files at `now`; `None` if some finding is an error. Blocks.
pub(crate) fn configure(
    tls: &ClientTls,
    now: SystemTime,
    findings: &mut Vec<Finding>,
) -> Option<Arc<ClientConfig>> {
    let mut reader = Reader::new(now, findings);
    let cas = reader.cas(&tls.ca);
    let own = tls.identity.as_ref().map(|(cert, key_file)| {
        let (chain, key) = (reader.chain(cert), reader.key(key_file));
        reader.pair((cert, key_file), chain?, key?)
    });
    let cas = cas?;
    let (lists, _) = reader.revoked(&tls.crl, &cas)?;
    let builder = WebPkiServerVerifier::builder_with_provider(
        Arc::clone(&cas.roots),
        Arc::clone(&reader.provider),
    );
    let builder = builder.with_crls(lists).enforce_revocation_expiration();
    let verifier = reader.built(builder.build())?;
    if reader.failed {
        return None;
    }
    let builder = ClientConfig::builder_with_provider(Arc::clone(&reader.provider))
        .with_protocol_versions(versions(tls.min_version))
        .ok()?
        .with_webpki_verifier(verifier);
    let mut config = match own {
        Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own?))),
        None => builder.with_no_client_auth(),
    };
    // A resumed session would not be held against today's list of revoked certificates.
    config.resumption = Resumption::disabled();
    Some(Arc::new(config))
}
