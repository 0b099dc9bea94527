//! Certificates, keys and lists of revoked certificates, read from their files and checked.
//!
//! The TLS library's primitives come from `ring`: they build with a C compiler alone, in seconds, on
//! every platform that libvirt serves; what `aws-lc-rs` has beyond them (P-521, post-quantum key
//! exchange) GnuTLS peers do not ask for by default.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::server::VerifierBuilderError;
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, SupportedProtocolVersion, version};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

use super::revocation::Revoked;
use super::{ec_key, x509};
use crate::policy::model::{Crl, TlsVersion};
use crate::policy::report::Severity;

/// Bytes of a file of certificates: hundreds of them.
const MAX_PEM_BYTES: u64 = 1024 * 1024;
/// Bytes of a list of revoked certificates: a million of them.
const MAX_CRL_BYTES: u64 = 64 * 1024 * 1024;
/// How long before a certificate expires there is a warning.
const EXPIRY_WARNING: i64 = 30 * 24 * 3600;
/// RSA keys of fewer bits are refused.
const MIN_RSA_BITS: usize = 2048;
/// Signatures by SHA-1 or MD5, which can be forged.
const WEAK_SIGNATURES: &[(&str, &str)] = &[
    ("1.2.840.113549.1.1.5", "SHA-1"),
    ("1.2.840.10045.4.1", "SHA-1"),
    ("1.2.840.113549.1.1.4", "MD5"),
];

/// Something wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Key of the policy that names the file, as `cert`.
    pub(crate) key: &'static str,
    /// Whether the configuration can be used nevertheless.
    pub(crate) severity: Severity,
    /// The file and what is wrong with it.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) help: Option<&'static str>,
}

impl Finding {
    /// With this, the configuration cannot be used.
    pub(super) fn error(key: &'static str, message: String, help: Option<&'static str>) -> Self {
        Self {
            key,
            severity: Severity::Error,
            message,
            help,
        }
    }

    /// With this, it can be used nevertheless.
    pub(super) fn warning(key: &'static str, message: String, help: Option<&'static str>) -> Self {
        Self {
            key,
            severity: Severity::Warning,
            message,
            help,
        }
    }
}

/// Reads files and checks what is in them.
pub(super) struct Reader<'a> {
    findings: &'a mut Vec<Finding>,
    /// Now, since the epoch.
    seconds: i64,
    pub(super) now: UnixTime,
    pub(super) provider: Arc<CryptoProvider>,
    /// There was an error.
    pub(super) failed: bool,
}

/// Certificates of CAs.
pub(super) struct Cas {
    certificates: Vec<CertificateDer<'static>>,
    pub(super) roots: Arc<RootCertStore>,
}

impl<'a> Reader<'a> {
    /// What is found goes to `findings`.
    pub(super) fn new(now: SystemTime, findings: &'a mut Vec<Finding>) -> Self {
        let since_epoch = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            findings,
            seconds: i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX),
            now: UnixTime::since_unix_epoch(since_epoch),
            provider: Arc::new(rustls::crypto::ring::default_provider()),
            failed: false,
        }
    }

    /// Our own certificate, and those between it and a CA.
    pub(super) fn chain(&mut self, path: &Path) -> Option<Vec<CertificateDer<'static>>> {
        let chain = self.certificates("cert", path)?;
        for (index, der) in chain.iter().enumerate() {
            let certificate = self.parsed("cert", path, der)?;
            self.dates("cert", path, &certificate, index == 0);
            self.strength("cert", path, &certificate, true);
        }
        Some(chain)
    }

    /// Our own private key.
    pub(super) fn key(&mut self, path: &Path) -> Option<PrivateKeyDer<'static>> {
        let pem = self.read("key", path, MAX_PEM_BYTES)?;
        if let Ok(metadata) = path.metadata()
            && metadata.permissions().mode() & 0o007 != 0
        {
            let message = format!("every user of this host can reach {}", path.display());
            self.warn("key", message, Some("a private key has mode 0600 or 0640"));
        }
        if let Ok(key) = PrivateKeyDer::from_pem_slice(&pem) {
            return Some(ec_key::at_full_length(key));
        }
        let encrypted = pem
            .windows(ENCRYPTED.len())
            .any(|window| window == ENCRYPTED);
        let (what, help) = if encrypted {
            (
                "is encrypted",
                "nobody is there to enter its passphrase: remove that with `openssl pkey`",
            )
        } else {
            (
                "has no private key",
                "it must be PEM: PKCS#8, PKCS#1 or SEC1",
            )
        };
        self.error("key", format!("{} {what}", path.display()), Some(help));
        None
    }

    /// The CAs that are trusted.
    pub(super) fn cas(&mut self, path: &Path) -> Option<Cas> {
        let certificates = self.certificates("ca", path)?;
        let mut roots = RootCertStore::empty();
        for der in &certificates {
            let certificate = self.parsed("ca", path, der)?;
            self.dates("ca", path, &certificate, true);
            self.strength("ca", path, &certificate, false);
            if !certificate.is_ca() || roots.add(der.clone()).is_err() {
                let subject = x509::name(certificate.subject());
                let message = format!("{}: {subject:?} is no CA", path.display());
                self.error("ca", message, None);
                return None;
            }
        }
        Some(Cas {
            certificates,
            roots: Arc::new(roots),
        })
    }

    /// The certificate with its key, if they fit.
    pub(super) fn pair(
        &mut self,
        (cert, key_file): (&Path, &Path),
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Option<CertifiedKey> {
        let key = match self.provider.key_provider.load_private_key(key) {
            Ok(key) => key,
            Err(error) => {
                let message = format!("{}: this key cannot be used: {error}", key_file.display());
                let help = "use RSA of 2048 bits or more, ECDSA with P-256 or P-384, or Ed25519";
                self.error("key", message, Some(help));
                return None;
            }
        };
        let pair = CertifiedKey::new(chain, key);
        if pair.keys_match().is_err() {
            let (key, cert) = (key_file.display(), cert.display());
            let message = format!("{key} is not the key of the certificate in {cert}");
            self.error("key", message, None);
            return None;
        }
        Some(pair)
    }

    /// The lists of revoked certificates.
    pub(super) fn revoked(
        &mut self,
        crl: &Crl,
        cas: &Cas,
    ) -> Option<(Vec<CertificateRevocationListDer<'static>>, Revoked)> {
        let mut revoked = Revoked::default();
        let path = match crl {
            Crl::None => return Some((Vec::new(), revoked)),
            Crl::IfPresent(path) if is_absent(path) => return Some((Vec::new(), revoked)),
            Crl::IfPresent(path) | Crl::File(path) => path,
        };
        let bytes = self.read("crl", path, MAX_CRL_BYTES)?;
        let lists: Result<Vec<_>, _> =
            CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
        let lists = match lists {
            Ok(lists) if !lists.is_empty() => lists,
            // Not PEM: one list as it is.
            _ => vec![CertificateRevocationListDer::from(bytes)],
        };
        for list in &lists {
            let Some(flaw) = revoked.add(list, &cas.certificates, self.seconds) else {
                continue;
            };
            let message = format!("{}: {flaw}", path.display());
            if flaw.is_harmless() {
                self.warn("crl", message, None);
            } else {
                self.error(
                    "crl",
                    message,
                    Some("it must be PEM or DER, signed by the CA"),
                );
                return None;
            }
        }
        Some((lists, revoked))
    }

    /// The verifier of a peer's certificate, which nothing but these lists can keep from being made.
    pub(super) fn built<V>(&mut self, verifier: Result<V, VerifierBuilderError>) -> Option<V> {
        verifier
            .map_err(|error| {
                let message = format!("the list of revoked certificates: {error}");
                self.error("crl", message, None);
            })
            .ok()
    }

    fn certificates(
        &mut self,
        key: &'static str,
        path: &Path,
    ) -> Option<Vec<CertificateDer<'static>>> {
        let pem = self.read(key, path, MAX_PEM_BYTES)?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        match found {
            Ok(found) if !found.is_empty() => Some(found),
            _ => {
                let message = format!("{} has no certificate in PEM", path.display());
                self.error(key, message, None);
                None
            }
        }
    }

    fn parsed<'d>(
        &mut self,
        key: &'static str,
        path: &Path,
        der: &'d CertificateDer<'static>,
    ) -> Option<X509Certificate<'d>> {
        match X509Certificate::from_der(der) {
            Ok((_, certificate)) => Some(certificate),
            Err(error) => {
                let message = format!("{}: unreadable certificate: {error}", path.display());
                self.error(key, message, None);
                None
            }
        }
    }

    fn dates(
        &mut self,
        key: &'static str,
        path: &Path,
        certificate: &X509Certificate<'_>,
        warn: bool,
    ) {
        let validity = certificate.validity();
        let subject = x509::name(certificate.subject());
        let begin = format!("{}: the certificate of {subject:?}", path.display());
        let left = validity.not_after.timestamp() - self.seconds;
        if left < 0 {
            let message = format!("{begin} has expired on {}", validity.not_after);
            self.error(key, message, Some("renew it"));
        } else if validity.not_before.timestamp() > self.seconds {
            let message = format!("{begin} is not valid before {}", validity.not_before);
            self.error(key, message, Some("is the clock right?"));
        } else if left < EXPIRY_WARNING && warn {
            let days = left / (24 * 3600);
            let message = format!("{begin} expires in {days} days, on {}", validity.not_after);
            self.warn(key, message, Some("renew it"));
        }
    }

    fn strength(
        &mut self,
        key: &'static str,
        path: &Path,
        certificate: &X509Certificate<'_>,
        its_signature: bool,
    ) {
        let subject = x509::name(certificate.subject());
        let begin = format!("{}: the certificate of {subject:?}", path.display());
        if let Ok(PublicKey::RSA(rsa)) = certificate.public_key().parsed()
            && rsa.key_size() < MIN_RSA_BITS
        {
            let message = format!("{begin} is weak: RSA of {} bits", rsa.key_size());
            self.error(key, message, Some("use 2048 bits or more"));
        }
        let algorithm = certificate.signature_algorithm.algorithm.to_id_string();
        let weak = WEAK_SIGNATURES
            .iter()
            .find(|(known, _)| *known == algorithm);
        if let Some((_, hash)) = weak.filter(|_| its_signature) {
            let message = format!("{begin} is weak: it is signed by way of {hash}");
            self.error(key, message, Some("have it signed anew, with SHA-256"));
        }
    }

    fn read(&mut self, key: &'static str, path: &Path, max: u64) -> Option<Vec<u8>> {
        match read(path, max) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                self.error(key, format!("{}: {error}", path.display()), None);
                None
            }
        }
    }

    pub(super) fn error(&mut self, key: &'static str, message: String, help: Option<&'static str>) {
        self.failed = true;
        self.findings.push(Finding::error(key, message, help));
    }

    pub(super) fn warn(&mut self, key: &'static str, message: String, help: Option<&'static str>) {
        self.findings.push(Finding::warning(key, message, help));
    }
}

/// In the PEM of keys that need a passphrase, of either form.
const ENCRYPTED: &[u8] = b"ENCRYPTED";

fn read(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(io::Error::other(format!("more than {max} bytes")));
    }
    Ok(bytes)
}

/// Only then; what cannot be looked at may be there.
fn is_absent(path: &Path) -> bool {
    path.metadata()
        .is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// From that version on.
pub(super) fn versions(min: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static BOTH: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
    static NEWEST: [&SupportedProtocolVersion; 1] = [&version::TLS13];
    match min {
        TlsVersion::Tls12 => &BOTH,
        TlsVersion::Tls13 => &NEWEST,
    }
}
