//! Certificates by rcgen: what is taken, what is refused, and what clients meet.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed unwrap is the failed test"
)]

use std::fs;
use std::net::TcpListener as StdTcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::certificates::{CertificateStore, Certificates, Finding};
use super::handshake::{self, HandshakeError};
use crate::policy::FileOwner;
use crate::policy::facts::ClientFacts;
use crate::policy::model::{ListenAddress, Listener, Policy};
use crate::policy::report::Severity;
use crate::server::transport::Channel;

pub(in crate::server) type Ca = CertifiedIssuer<'static, KeyPair>;

pub(in crate::server) fn ca(name: &str) -> Ca {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn params(name: &str, serial: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "Acme");
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from(serial));
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after = date_time_ymd(2200, 1, 1);
    params
}

/// Certificate and key in PEM.
#[derive(Clone)]
pub(in crate::server) struct Pair {
    pub(in crate::server) cert: String,
    pub(in crate::server) key: String,
}

pub(in crate::server) fn sign(params: CertificateParams, issuer: &Issuer<'_, KeyPair>) -> Pair {
    let key = KeyPair::generate().unwrap();
    let cert = params.signed_by(&key, issuer).unwrap();
    Pair {
        cert: cert.pem(),
        key: key.serialize_pem(),
    }
}

pub(in crate::server) fn crl(ca: &Ca, serials: &[u64], next_year: i32) -> String {
    let revoked = serials.iter().map(|serial| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: date_time_ymd(2020, 1, 1),
        reason_code: None,
        invalidity_date: None,
    });
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2020, 1, 1),
        next_update: date_time_ymd(next_year, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(ca).unwrap().pem().unwrap()
}

/// A policy of this listener.
fn policy_of(listener: &Listener) -> Policy {
    let text = "version: 1\nlisteners: {l: {unix: /run/l}}\nupstreams: {u: {unix: /run/u}}\n\
                routes: [{uri: x, upstream: u}]\n";
    let mut policy = crate::policy::load("f", text, &|_| None).unwrap().policy;
    policy.listeners = vec![Arc::new(listener.clone())];
    policy
}

/// A server's files.
struct Site {
    dir: tempfile::TempDir,
    ca: Ca,
}

impl Site {
    fn new() -> Self {
        let site = Self {
            dir: tempfile::tempdir().unwrap(),
            ca: ca("Test CA"),
        };
        site.write("ca.pem", &site.ca.pem());
        site.server(params("server", 1));
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn server(&self, params: CertificateParams) {
        let pair = sign(params, &self.ca);
        self.write("cert.pem", &pair.cert);
        self.write("key.pem", &pair.key);
    }

    fn client(&self, serial: u64) -> Pair {
        sign(params("ci", serial), &self.ca)
    }

    /// A listener with more of `tls` and more of its own.
    fn listener(&self, tls: &str, more: &str) -> Arc<Listener> {
        let dir = self.dir.path().display();
        let text = format!(
            "version: 1\nlisteners: {{tls: {{tcp: '127.0.0.1:1', tls: {{cert: {dir}/cert.pem, \
             key: {dir}/key.pem, ca: {dir}/ca.pem{tls}}}{more}}}}}\n\
             upstreams: {{u: {{unix: /run/u}}}}\nroutes: [{{uri: x, upstream: u}}]\n"
        );
        let loaded = crate::policy::load("f", &text, &|_| None);
        let loaded = loaded.unwrap_or_else(|report| panic!("{}", report.render_human(false)));
        Arc::clone(&loaded.policy.listeners[0])
    }

    fn load(&self, tls: &str) -> (Option<Certificates>, Vec<Finding>) {
        let mut findings = Vec::new();
        let policy = policy_of(&self.listener(tls, ""));
        let loaded = Certificates::load(&policy, SystemTime::now(), &mut findings);
        (
            loaded,
            findings.into_iter().map(|(_, found)| found).collect(),
        )
    }

    /// The one error that loading gives.
    fn error(&self, tls: &str) -> Finding {
        let (loaded, findings) = self.load(tls);
        assert!(loaded.is_none());
        let mut errors = findings
            .into_iter()
            .filter(|found| found.severity == Severity::Error);
        let error = errors.next().unwrap();
        assert_eq!(errors.next(), None);
        error
    }

    fn assert_error(&self, tls: &str, key: &str, part: &str) {
        let error = self.error(tls);
        assert_eq!(error.key, key, "{}", error.message);
        assert!(error.message.contains(part), "{}", error.message);
    }
}

#[test]
fn good_files_are_taken_without_a_word() {
    let site = Site::new();
    site.write("crl.pem", &crl(&site.ca, &[7], 2200));
    let crl = format!(", crl: {}", site.path("crl.pem").display());
    for tls in ["", ", client_cert: optional", ", min_version: '1.3'", &crl] {
        let (loaded, findings) = site.load(tls);
        assert_eq!(findings, [], "{tls}");
        assert!(loaded.unwrap().of("tls").is_some());
    }
}

#[test]
fn files_that_are_missing_or_something_else_are_named() {
    let site = Site::new();
    let named = format!(", crl: {}", site.path("crl.pem").display());
    site.assert_error(&named, "crl", "No such file");
    site.write("crl.pem", "rubbish");
    site.assert_error(&named, "crl", "no list of revoked certificates");
    site.write("crl.pem", &crl(&ca("Test CA"), &[], 2200));
    site.assert_error(&named, "crl", "did not sign it");

    for (file, key, part) in [
        ("cert.pem", "cert", "no certificate"),
        ("key.pem", "key", "no private key"),
        ("ca.pem", "ca", "no certificate"),
    ] {
        let good = fs::read_to_string(site.path(file)).unwrap();
        site.write(file, "rubbish");
        site.assert_error("", key, part);
        fs::remove_file(site.path(file)).unwrap();
        site.assert_error("", key, "No such file");
        site.write(file, &good);
    }
    assert!(site.load("").0.is_some());
}

#[test]
fn pairs_that_do_not_fit_are_refused() {
    let site = Site::new();
    site.write("key.pem", &KeyPair::generate().unwrap().serialize_pem());
    site.assert_error("", "key", "is not the key of the certificate");

    let site = Site::new();
    site.write("ca.pem", &ca("Other CA").pem());
    site.assert_error("", "cert", "no CA in");

    let site = Site::new();
    site.write("ca.pem", &ca("Test CA").pem());
    site.assert_error("", "cert", "no CA in");

    let site = Site::new();
    let server = fs::read_to_string(site.path("cert.pem")).unwrap();
    site.write("ca.pem", &server);
    site.assert_error("", "ca", "is no CA");
}

#[test]
fn dates_are_checked() {
    let site = Site::new();
    let mut expired = params("server", 1);
    expired.not_after = date_time_ymd(2020, 1, 1);
    site.server(expired);
    site.assert_error("", "cert", "has expired");

    let mut early = params("server", 1);
    early.not_before = date_time_ymd(2199, 1, 1);
    site.server(early);
    site.assert_error("", "cert", "not valid before");

    let mut soon = params("server", 1);
    soon.not_after = (SystemTime::now() + Duration::from_secs(10 * 24 * 3600 + 3600)).into();
    site.server(soon);
    let (loaded, findings) = site.load("");
    assert!(loaded.is_some());
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].severity, Severity::Warning);
    assert!(
        findings[0].message.contains("expires in 10 days"),
        "{}",
        findings[0].message
    );
}

#[test]
fn chains_and_purposes_are_checked() {
    let site = Site::new();
    let mut between = params("Between", 2);
    between.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let between = CertifiedIssuer::signed_by(between, key, &site.ca).unwrap();
    let leaf = sign(params("server", 3), &between);
    site.write("key.pem", &leaf.key);
    site.write("cert.pem", &leaf.cert);
    site.assert_error("", "cert", "no CA in");
    site.write("cert.pem", &format!("{}{}", leaf.cert, between.pem()));
    assert!(site.load("").0.is_some());

    let mut client = params("server", 4);
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    site.server(client);
    site.assert_error("", "cert", "cannot be used as a server's");
}

#[test]
fn what_libvirts_clients_refuse_is_warned_of() {
    let site = Site::new();
    let mut server = params("server", 1);
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    site.server(server.clone());
    let (loaded, findings) = site.load("");
    assert!(loaded.is_some());
    assert_eq!(findings.len(), 1);
    assert!(findings[0].message.contains("clients may refuse it"));
    server.key_usages.push(KeyUsagePurpose::KeyEncipherment);
    site.server(server);
    assert_eq!(site.load("").1, []);
}

#[test]
fn a_key_for_everyone_and_an_old_list_are_warned_of() {
    use std::os::unix::fs::PermissionsExt;
    let site = Site::new();
    fs::set_permissions(site.path("key.pem"), fs::Permissions::from_mode(0o644)).unwrap();
    site.write("crl.pem", &crl(&site.ca, &[], 2021));
    let (loaded, findings) = site.load(&format!(", crl: {}", site.path("crl.pem").display()));
    assert!(loaded.is_some());
    let keys: Vec<&str> = findings.iter().map(|found| found.key).collect();
    assert_eq!(keys, ["key", "crl"]);
}

#[test]
fn files_that_upstreams_have_in_common_are_complained_of_once() {
    let text = "version: 1\nlisteners: {l: {unix: /run/l}}\nroutes: [{uri: x, upstream: u}]\n\
                upstreams: {u: {tls: u, ca: /none, cert: none}, v: {tls: v, ca: /none, cert: none}}\n";
    let policy = crate::policy::load("f", text, &|_| None).unwrap().policy;
    let mut findings = Vec::new();
    assert!(Certificates::load(&policy, SystemTime::now(), &mut findings).is_none());
    let [(owner, found)] = &findings[..] else {
        panic!("{findings:?}")
    };
    assert_eq!(*owner, FileOwner::Upstream("u".into()));
    assert_eq!(found.key, "ca");
}

/// A client that tries once: the confirmation, and then what the server says.
async fn connect(
    address: std::net::SocketAddr,
    ca: &Path,
    pair: Option<&Pair>,
    versions: &[&'static SupportedProtocolVersion],
    before: &[u8],
) -> std::io::Result<Vec<u8>> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(ca).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    let config = match pair {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let chain = CertificateDer::pem_slice_iter(pair.cert.as_bytes());
            let chain = chain.collect::<Result<_, _>>().unwrap();
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    let mut socket = TcpStream::connect(address).await?;
    socket.write_all(before).await?;
    let connector = TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("server.example").unwrap();
    let mut stream = connector.connect(name, socket).await?;
    let mut byte = vec![0; 1];
    stream.read_exact(&mut byte).await?;
    stream.shutdown().await?;
    Ok(byte)
}

const BOTH: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];

/// One client against one handshake: what either side has of it.
async fn meet(
    site: &Site,
    listener: &Listener,
    pair: Option<&Pair>,
    versions: &[&'static SupportedProtocolVersion],
    before: &[u8],
) -> (
    Result<(Channel, ClientFacts), HandshakeError>,
    std::io::Result<Vec<u8>>,
) {
    let policy = policy_of(listener);
    let certificates = Certificates::load(&policy, SystemTime::now(), &mut Vec::new());
    let store = CertificateStore::new(certificates.unwrap());
    let server = StdTcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let ca = site.path("ca.pem");
    let serve = async {
        let server = tokio::net::TcpListener::from_std({
            server.set_nonblocking(true).unwrap();
            server
        })
        .unwrap();
        let (socket, _) = server.accept().await.unwrap();
        handshake::arrive(socket.into_std().unwrap(), listener, &store).await
    };
    tokio::join!(serve, connect(address, &ca, pair, versions, before))
}

fn site_with_san() -> Site {
    let site = Site::new();
    let mut server = params("server", 1);
    server.subject_alt_names = vec![SanType::DnsName("server.example".try_into().unwrap())];
    site.server(server);
    site
}

#[tokio::test]
async fn a_good_client_is_known_by_its_certificate_and_confirmed() {
    let site = site_with_san();
    let mut client = params("ci", 0x0aff);
    client.subject_alt_names = vec![
        SanType::DnsName("CI.example".try_into().unwrap()),
        SanType::IpAddress("2001:db8::1".parse().unwrap()),
        SanType::URI("spiffe://acme/ci".try_into().unwrap()),
        SanType::Rfc822Name("ci@example".try_into().unwrap()),
    ];
    let client = sign(client, &site.ca);
    let listener = site.listener("", "");
    for versions in [BOTH, &[&version::TLS12], &[&version::TLS13]] {
        let (served, met) = meet(&site, &listener, Some(&client), versions, b"").await;
        assert_eq!(met.unwrap(), [1]);
        let (channel, facts) = served.unwrap();
        assert!(matches!(channel, Channel::Tls(_)));
        assert!(facts.address.unwrap().ip().is_loopback());
        let x509 = facts.x509.unwrap();
        assert_eq!((&*x509.dn, &*x509.issuer), ("CN=ci,O=Acme", "CN=Test CA"));
        assert_eq!((x509.cn, x509.o), (vec!["ci".into()], vec!["Acme".into()]));
        assert_eq!((&*x509.serial, x509.fingerprint.len()), ("aff", 64));
        assert_eq!(x509.dns, ["ci.example"]);
        assert_eq!(x509.ip[0].to_string(), "2001:db8::1");
        assert_eq!(
            (&*x509.uri[0], &*x509.san_email[0]),
            ("spiffe://acme/ci", "ci@example")
        );
        assert_eq!(x509.not_after, 7_258_118_400);
    }
}

#[tokio::test]
async fn bad_clients_are_refused() {
    let site = site_with_san();
    site.write("crl.pem", &crl(&site.ca, &[7], 2200));
    let listener = site.listener(&format!(", crl: {}", site.path("crl.pem").display()), "");
    let mut expired = params("ci", 5);
    expired.not_after = date_time_ymd(2020, 1, 1);
    let mut server_only = params("ci", 6);
    server_only.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let stranger = ca("Test CA");
    for (what, pair, why) in [
        ("none", None, "no certificates"),
        (
            "another CA of that name",
            Some(sign(params("ci", 9), &stranger)),
            "BadSignature",
        ),
        (
            "another CA",
            Some(sign(params("ci", 9), &ca("Other"))),
            "UnknownIssuer",
        ),
        ("expired", Some(sign(expired, &site.ca)), "expired"),
        (
            "another purpose",
            Some(sign(server_only, &site.ca)),
            "extended key usage",
        ),
        ("revoked", Some(site.client(7)), "Revoked"),
    ] {
        for versions in [&[&version::TLS12][..], &[&version::TLS13]] {
            let (served, met) = meet(&site, &listener, pair.as_ref(), versions, b"").await;
            let error = served.map(|_| ()).unwrap_err().to_string();
            assert!(met.is_err(), "{what}: it was confirmed");
            assert!(error.contains(why), "{what}: {error}");
        }
    }
    let (served, met) = meet(&site, &listener, Some(&site.client(8)), BOTH, b"").await;
    assert!(served.is_ok() && met.is_ok());

    site.write("crl.pem", &crl(&site.ca, &[], 2021));
    let (served, met) = meet(&site, &listener, Some(&site.client(8)), BOTH, b"").await;
    assert!(served.is_err() && met.is_err(), "the list is outdated");
}

#[tokio::test]
async fn client_certificates_may_be_optional_or_unwanted_but_never_bad() {
    let site = site_with_san();
    let stranger = sign(params("ci", 9), &ca("Other"));
    let optional = site.listener(", client_cert: optional", "");
    let (served, met) = meet(&site, &optional, None, BOTH, b"").await;
    assert!(served.unwrap().1.x509.is_none() && met.is_ok());
    let (served, met) = meet(&site, &optional, Some(&site.client(3)), BOTH, b"").await;
    assert!(served.unwrap().1.x509.is_some() && met.is_ok());
    let (served, met) = meet(&site, &optional, Some(&stranger), BOTH, b"").await;
    assert!(served.is_err() && met.is_err());
    let unwanted = site.listener(", client_cert: unsafe_none", "");
    let (served, met) = meet(&site, &unwanted, Some(&stranger), BOTH, b"").await;
    assert!(served.unwrap().1.x509.is_none() && met.is_ok());
}

#[tokio::test]
async fn the_oldest_version_is_as_the_policy_says() {
    let site = site_with_san();
    let client = site.client(3);
    let listener = site.listener(", min_version: '1.3'", "");
    let (served, met) = meet(&site, &listener, Some(&client), &[&version::TLS12], b"").await;
    assert!(served.is_err() && met.is_err());
    let (served, met) = meet(&site, &listener, Some(&client), &[&version::TLS13], b"").await;
    assert!(served.is_ok() && met.is_ok());
}

const HEADER: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x7f\0\0\x01\x12\x34\x40\x82";

#[tokio::test]
async fn a_balancer_tells_the_address_and_nobody_else() {
    let site = site_with_san();
    let client = site.client(3);
    let behind = site.listener("", ", proxy_protocol: 127.0.0.0/8");
    let (served, met) = meet(&site, &behind, Some(&client), BOTH, HEADER).await;
    assert!(met.is_ok());
    assert_eq!(
        served.unwrap().1.address.unwrap().to_string(),
        "192.0.2.7:4660"
    );
    let (served, _) = meet(&site, &behind, Some(&client), BOTH, b"").await;
    assert!(matches!(served, Err(HandshakeError::Header(_))));
    for other in ["", ", proxy_protocol: 192.0.2.0/24"] {
        let (served, met) = meet(
            &site,
            &site.listener("", other),
            Some(&client),
            BOTH,
            HEADER,
        )
        .await;
        assert!(matches!(served, Err(HandshakeError::Tls(_))) && met.is_err());
    }
}

#[tokio::test]
async fn silence_ends_with_the_deadline() {
    let site = site_with_san();
    for more in ["", ", proxy_protocol: 127.0.0.1"] {
        let listener = site.listener("", &format!("{more}, handshake_timeout: 50ms"));
        let store = CertificateStore::new(site.load("").0.unwrap());
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _silent = TcpStream::connect(server.local_addr().unwrap())
            .await
            .unwrap();
        let (socket, _) = server.accept().await.unwrap();
        let served = handshake::arrive(socket.into_std().unwrap(), &listener, &store).await;
        assert!(matches!(served, Err(HandshakeError::Slow(_))));
    }
}

#[tokio::test]
async fn plain_tcp_for_loopback_stays_there() {
    let site = Site::new();
    let mut listener = Listener::clone(&site.listener("", ""));
    listener.tls = None;
    assert!(matches!(listener.address, ListenAddress::Tcp { .. }) && listener.is_loopback_only());
    let store = CertificateStore::new(Certificates::default());
    let server = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = server.local_addr().unwrap().port();
    let _client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (socket, _) = server.accept().await.unwrap();
    let served = handshake::arrive(socket.into_std().unwrap(), &listener, &store).await;
    assert!(matches!(served.unwrap().0, Channel::Tcp(_)));
    // Another address of this host's own is enough to tell.
    let Some(other) = own_address() else { return };
    let _client = TcpStream::connect((other, port)).await.unwrap();
    let (socket, _) = server.accept().await.unwrap();
    let served = handshake::arrive(socket.into_std().unwrap(), &listener, &store).await;
    assert!(matches!(served, Err(HandshakeError::NotLoopback)));
}

/// The address that packets to elsewhere would leave from, if there is one.
fn own_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback()).then_some(address)
}

#[tokio::test]
async fn a_new_list_is_felt_by_those_it_names() {
    let site = site_with_san();
    let named = format!(", crl: {}", site.path("crl.pem").display());
    let between = {
        let mut params = params("Between", 9);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &site.ca).unwrap()
    };
    let publish = |serials: &[u64]| {
        let lists = crl(&site.ca, serials, 2200) + &crl(&between, &[], 2200);
        site.write("crl.pem", &lists);
    };
    publish(&[]);
    let listener = site.listener(&named, "");
    let mut indirect = sign(params("ci", 7), &between);
    indirect.cert += &between.pem();
    let mut chains = Vec::new();
    for pair in [&site.client(7), &site.client(8), &indirect] {
        let (served, _) = meet(&site, &listener, Some(pair), BOTH, b"").await;
        chains.push(served.unwrap().0.client_chain());
    }
    let [seven, eight, indirect] = &chains[..] else {
        unreachable!()
    };
    assert_eq!((seven.len(), indirect.len()), (1, 2));

    let store = CertificateStore::new(site.load(&named).0.unwrap());
    let mut closed = std::pin::pin!(store.revoked(seven));
    assert!(poll_once(closed.as_mut()).is_none());
    publish(&[7]);
    store.swap(site.load(&named).0.unwrap());
    closed.await;
    // A serial number is its CA's.
    for other in [eight, indirect] {
        assert!(poll_once(std::pin::pin!(store.revoked(other))).is_none());
    }
    // With a CA go all whom it has signed.
    publish(&[9]);
    store.swap(site.load(&named).0.unwrap());
    assert!(poll_once(std::pin::pin!(store.revoked(indirect))).is_some());
    assert!(poll_once(std::pin::pin!(store.revoked(eight))).is_none());
    assert!(poll_once(std::pin::pin!(store.revoked(&[]))).is_none());
}

fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.poll(&mut context) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

/// The names of certificates made by other tools, as those tools print them.
#[test]
fn names_are_written_as_gnutls_writes_them() {
    use rcgen::DnValue;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let name = &mut params.distinguished_name;
    name.push(DnType::CountryName, "DE");
    name.push(DnType::OrganizationName, "Acme, \"Inc\"+<x>;\\");
    name.push(
        DnType::CustomDnType(vec![1, 2, 840, 113_549, 1, 9, 1]),
        DnValue::Ia5String("a@b".try_into().unwrap()),
    );
    name.push(DnType::CustomDnType(vec![1, 2, 3, 4, 5]), "hello");
    name.push(DnType::CommonName, "#x ");
    let key = KeyPair::generate().unwrap();
    let cert = params.self_signed(&key).unwrap();
    let facts = super::x509::facts(cert.der()).unwrap();
    assert_eq!(
        facts.dn,
        r#"CN=\#x\ ,1.2.3.4.5=#0c0568656c6c6f,EMAIL=a@b,O=Acme\, \"Inc\"\+\<x\>\;\\,C=DE"#
    );
    assert_eq!(
        facts.libvirt_dn(),
        r#"C=DE,O=Acme\, \"Inc\"\+\<x\>\;\\,EMAIL=a@b,1.2.3.4.5=#0c0568656c6c6f,CN=\#x\ "#
    );
    assert_eq!(facts.o, [r#"Acme, "Inc"+<x>;\"#]);
    assert_eq!(facts.email, ["a@b"]);
}

#[test]
fn bytes_that_are_no_certificate_are_refused() {
    let site = Site::new();
    let der = CertificateDer::from_pem_slice(site.client(1).cert.as_bytes()).unwrap();
    assert!(super::x509::facts(&der).is_ok());
    for end in 0..der.len() {
        assert!(super::x509::facts(&der[..end]).is_err(), "{end}");
    }
    let longer = [&der[..], b"x"].concat();
    assert!(super::x509::facts(&longer).is_err());
    for at in 0..der.len() {
        let mut other = der.to_vec();
        other[at] ^= 0xff;
        let _ = super::x509::facts(&other);
    }
}
