//! TLS of listeners and towards daemons: the files that it needs, with libvirt's own places.

use std::path::PathBuf;

use super::Compiler;
use crate::policy::model::{ClientCert, ClientTls, Crl, Tls, TlsVersion};
use crate::policy::raw;
use crate::policy::report::Problem;
use crate::policy::yaml::Pointer;

/// libvirt's own places.
const SERVER_CERT: &str = "/etc/pki/libvirt/servercert.pem";
const SERVER_KEY: &str = "/etc/pki/libvirt/private/serverkey.pem";
const DEFAULT_CA: &str = "/etc/pki/CA/cacert.pem";
const DEFAULT_CRL: &str = "/etc/pki/CA/cacrl.pem";
const CLIENT_CERT: &str = "/etc/pki/libvirt/clientcert.pem";
const CLIENT_KEY: &str = "/etc/pki/libvirt/private/clientkey.pem";
/// What `cert` says where none is shown.
const NO_CERT: &str = "none";

impl Compiler<'_, '_> {
    /// TLS of a listener.
    pub(super) fn tls(&mut self, tls: &raw::Tls, at: &Pointer) -> Option<Tls> {
        let mut path = |path: &Option<raw::FilePath>, key: &str, default: &str| match path {
            Some(path) => self.file_path(path, &at.key(key)),
            None => Some(PathBuf::from(default)),
        };
        let cert = path(&tls.cert, "cert", SERVER_CERT);
        let key = path(&tls.key, "key", SERVER_KEY);
        let ca = path(&tls.ca, "ca", DEFAULT_CA);
        let crl = self.crl(tls.crl.as_ref(), tls.ca.is_some(), at);
        self.pair(tls.cert.is_some(), tls.key.is_some(), at)?;
        Some(Tls {
            cert: cert?,
            key: key?,
            ca: ca?,
            crl: crl?,
            client_cert: match tls.client_cert {
                None | Some(raw::ClientCert::Required) => ClientCert::Required,
                Some(raw::ClientCert::Optional) => ClientCert::Optional,
                Some(raw::ClientCert::UnsafeNone) => ClientCert::UnsafeNone,
            },
            min_version: tls_version(tls.min_version),
        })
    }

    /// Complains of `cert` in `at` without `key`, and the other way round.
    fn pair(&mut self, has_cert: bool, has_key: bool, at: &Pointer) -> Option<()> {
        let (there, missing) = match (has_cert, has_key) {
            (true, false) => ("cert", "key"),
            (false, true) => ("key", "cert"),
            _ => return Some(()),
        };
        self.problems.push(
            Problem::error(
                "tls",
                Some(self.document.key_place(&at.key(there))),
                format!("`{there}` without `{missing}`"),
            )
            .help("a certificate and its key are named together"),
        );
        None
    }

    /// Revoked certificates (`crl` in `at`). The default list is of the default CA.
    fn crl(&mut self, given: Option<&raw::FilePath>, has_ca: bool, at: &Pointer) -> Option<Crl> {
        match given {
            Some(path) => self.file_path(path, &at.key("crl")).map(Crl::File),
            None if has_ca => Some(Crl::None),
            None => Some(Crl::IfPresent(PathBuf::from(DEFAULT_CRL))),
        }
    }

    /// TLS towards a daemon.
    pub(super) fn client_tls(
        &mut self,
        upstream: &raw::Upstream,
        at: &Pointer,
    ) -> Option<ClientTls> {
        let ca = match &upstream.ca {
            Some(path) => self.file_path(path, &at.key("ca")),
            None => Some(PathBuf::from(DEFAULT_CA)),
        };
        let identity = match (&upstream.cert, &upstream.key) {
            (None, None) => Some(Some((
                PathBuf::from(CLIENT_CERT),
                PathBuf::from(CLIENT_KEY),
            ))),
            (Some(cert), None) if cert.0 == NO_CERT => Some(None),
            (Some(cert), Some(_)) if cert.0 == NO_CERT => {
                let place = Some(self.document.key_place(&at.key("key")));
                self.problems.push(
                    Problem::error("tls", place, "`key` with `cert: none`")
                        .help("remove it, or name its certificate"),
                );
                None
            }
            (Some(cert), Some(key)) => {
                let cert = self.file_path(cert, &at.key("cert"));
                let key = self.file_path(key, &at.key("key"));
                cert.zip(key).map(Some)
            }
            (cert, key) => {
                self.pair(cert.is_some(), key.is_some(), at);
                None
            }
        };
        let crl = self.crl(upstream.crl.as_ref(), upstream.ca.is_some(), at);
        let server_name = match &upstream.server_name {
            Some(name) => self.server_name(name, &at.key("server_name")).map(Some),
            None => Some(None),
        };
        Some(ClientTls {
            ca: ca?,
            identity: identity?,
            crl: crl?,
            server_name: server_name?,
            min_version: tls_version(upstream.min_version),
        })
    }
}

fn tls_version(version: Option<raw::TlsVersion>) -> TlsVersion {
    match version {
        None | Some(raw::TlsVersion::Tls12) => TlsVersion::Tls12,
        Some(raw::TlsVersion::Tls13) => TlsVersion::Tls13,
    }
}
