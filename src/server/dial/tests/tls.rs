//! TLS to daemons, which are played by the TLS library and by what libvirt's do after it.

use rcgen::{CertificateParams, SerialNumber};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::server::auth::tests::{self, Ca, Pair, ca, crl};

const SERIAL: u64 = 7;

/// For a host or a client.
fn sign(ca: &Ca, host: &str) -> Pair {
    let mut params = CertificateParams::new([host.to_owned()]).unwrap();
    params.serial_number = Some(SerialNumber::from(SERIAL));
    tests::sign(params, ca)
}

/// What a daemon says once the handshake is done from its side.
#[derive(Clone, Copy)]
enum Then {
    Accept,
    Close,
}

/// A daemon for `host` that wants a certificate of the CA, and serves one connection.
async fn serve(ca: &Ca, host: &str, listener: TcpListener, then: Then) {
    let Pair { cert, key } = sign(ca, host);
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(ca.pem().as_bytes()).unwrap();
    roots.add(ca).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider));
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let (socket, _) = listener.accept().await.unwrap();
    let Ok(mut stream) = TlsAcceptor::from(Arc::new(config)).accept(socket).await else {
        return;
    };
    if let Then::Accept = then {
        stream.write_all(&[1]).await.unwrap();
        stream.write_all(b"frame").await.unwrap();
        let mut said = [0; 4];
        if stream.read_exact(&mut said).await.is_ok() {
            stream.write_all(&said).await.unwrap();
        }
    }
    _ = stream.shutdown().await;
}

/// One dial to such a daemon, with `more` in the policy.
async fn dial(host: &str, then: Then, more: &str) -> (Scene, Result<Dialled, String>) {
    let dir = tempfile::tempdir().unwrap();
    let (ours, others) = (ca("Ours"), ca("Others"));
    for (name, text) in [
        ("ca.pem", ours.pem()),
        ("other.pem", others.pem()),
        ("revoked.crl", crl(&ours, &[SERIAL], 2200)),
        ("good.crl", crl(&ours, &[SERIAL + 1], 2200)),
    ] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    for (name, ca) in [("client", &ours), ("stranger", &others)] {
        let Pair { cert, key } = sign(ca, "client");
        fs::write(dir.path().join(format!("{name}.pem")), cert).unwrap();
        fs::write(dir.path().join(format!("{name}.key")), key).unwrap();
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let scene = Scene::with(dir, |dir| {
        let more = more.replace("DIR", &dir.display().to_string());
        format!("tls: \"localhost:{port}\", {more}")
    });
    let dialling = async {
        let mut outcome = scene.dial().await;
        if let Ok(Dialled { transport, .. }) = &mut outcome {
            assert_eq!(receive(transport).await.unwrap(), b"frame");
            send(transport, b"ping").await;
            assert_eq!(receive(transport).await.unwrap(), b"ping");
        }
        outcome
    };
    let serving = async {
        serve(&ours, host, listener, then).await;
        std::future::pending().await
    };
    let outcome = tokio::select! {
        outcome = dialling => outcome,
        never = serving => never,
    };
    (scene, outcome)
}

const CLIENT: &str = "ca: DIR/ca.pem, cert: DIR/client.pem, key: DIR/client.key";

#[tokio::test]
async fn both_ends_know_each_other_by_their_certificates() {
    for more in [
        "",
        ", min_version: \"1.3\"",
        ", crl: DIR/good.crl",
        ", server_name: localhost",
    ] {
        let (scene, outcome) = dial("localhost", Then::Accept, &format!("{CLIENT}{more}")).await;
        let dialled = outcome.unwrap_or_else(|why| panic!("{more}: {why}"));
        assert!(!dialled.transport.carries_descriptors());
        assert_eq!(scene.down(), []);
    }
}

#[tokio::test]
async fn a_daemon_that_is_another_is_not_spoken_to() {
    for (host, more, word) in [
        ("elsewhere", CLIENT.to_owned(), "NotValidForName"),
        (
            "localhost",
            format!("{CLIENT}, server_name: hv.example.com"),
            "NotValidForName",
        ),
        (
            "localhost",
            format!("{CLIENT}, crl: DIR/revoked.crl"),
            "Revoked",
        ),
        (
            "localhost",
            CLIENT.replace("DIR/ca.pem", "DIR/other.pem"),
            "UnknownIssuer",
        ),
    ] {
        let (scene, outcome) = dial(host, Then::Accept, &more).await;
        let why = outcome.err().unwrap();
        assert!(why.starts_with("TLS: "), "{why}");
        assert!(
            why.contains(word) || why.to_lowercase().contains("not valid for"),
            "{word}: {why}"
        );
        assert_eq!(scene.down().len(), 1);
    }
}

#[tokio::test]
async fn a_daemon_that_refuses_us_is_told_of_in_clear_words() {
    for (then, more, expected) in [
        (
            Then::Close,
            CLIENT,
            "the daemon refused our certificate, or our address",
        ),
        (
            Then::Accept,
            "ca: DIR/ca.pem, cert: DIR/stranger.pem, key: DIR/stranger.key",
            "the daemon refused our certificate, or our address: ",
        ),
        (
            Then::Accept,
            "ca: DIR/ca.pem, cert: none",
            "the daemon refused us, who show no certificate: ",
        ),
    ] {
        let (_, outcome) = dial("localhost", then, more).await;
        let why = outcome.err().unwrap();
        assert!(why.starts_with(expected), "{why}");
    }
}

#[tokio::test]
async fn daemons_of_a_template_have_their_files_in_common_and_names_of_their_own() {
    let (scene, outcome) = dial("localhost", Then::Accept, CLIENT).await;
    outcome.unwrap();
    let upstream = Arc::clone(&scene.shared.policy.load().policy.upstreams[0]);
    let mut tls = upstream.tls().unwrap().as_ref().clone();
    let certificates = scene.shared.certificates.load();
    let config = certificates.client(&tls).unwrap();
    tls.server_name = Some("hv12.example.com".to_owned());
    assert!(Arc::ptr_eq(&certificates.client(&tls).unwrap(), &config));
    tls.identity = None;
    assert!(certificates.client(&tls).is_none());
}
