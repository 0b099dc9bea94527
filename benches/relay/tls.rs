//! Clients by TLS: everything with the same version, cipher, key exchange and kind of certificate,
//! since the client offers nothing else. Both ends show a certificate, as with libvirt.

use std::fs;
use std::io::{self, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

use super::load::Outcome;
use super::measures::{Usage, transfer_once};
use super::peers::{Kind, More, Peer, Running};
use super::rows::{Effort, Sample};
use super::upstream::{OBJECTS, Upstream, await_answer, work_dir};
use super::wire::{Client, PATIENCE};

/// The one cipher, as OpenSSL calls it too: what libvirt's clients and daemons agree on by default.
pub(crate) const CIPHER: &str = "TLS_AES_256_GCM_SHA384";

/// Clients of the handshakes, each with a thread of its own.
const CLIENTS: usize = 4;

/// Reads in large pieces: by itself, rustls takes 4 KiB at a time.
const BUFFER: usize = 256 * 1024;

/// Where a peer is to listen by TLS, with its files, and how a client gets in.
pub(crate) struct Tls {
    dir: TempDir,
    pub(crate) port: u16,
    config: Arc<ClientConfig>,
    /// The peer speaks libvirt's protocol: after the handshake it says that it takes the client.
    confirms: bool,
}

pub(crate) type Stream = StreamOwned<ClientConnection, Socket>;

impl Tls {
    fn new(kind: &Kind) -> io::Result<Self> {
        let dir = work_dir()?;
        let config = Arc::new(certificates(dir.path()).map_err(io::Error::other)?);
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()?
            .port();
        let confirms = matches!(kind, Kind::Direct | Kind::Ours(_));
        Ok(Self {
            dir,
            port,
            config,
            confirms,
        })
    }

    /// `ca.pem`, `server.pem`, `server.key`, or `both.pem`, which has these two.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Connects, with a whole handshake.
    fn connect(&self) -> io::Result<Stream> {
        let mut socket = Socket::connect(self.port)?;
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let connection = ClientConnection::new(Arc::clone(&self.config), name);
        let mut connection = connection.map_err(io::Error::other)?;
        connection.set_buffer_limit(None);
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        Ok(StreamOwned::new(connection, socket))
    }

    /// Connects and opens `uri`.
    pub(crate) fn open(&self, uri: &str) -> io::Result<Client<Stream>> {
        let mut stream = self.connect()?;
        if self.confirms {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            if byte != [1] {
                return Err(io::Error::other("the certificate was not taken"));
            }
        }
        let mut client = Client::new(stream);
        client.begin(uri)?;
        Ok(client)
    }

    /// A handshake up to the first that the server says after it, by which it has judged the
    /// client's certificate: libvirt's confirmation, or tickets for a resumption that never comes.
    fn shake_hands(&self) -> io::Result<()> {
        let mut stream = self.connect()?;
        if stream.conn.read_tls(&mut stream.sock)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let state = stream.conn.process_new_packets();
        let state = state.map_err(io::Error::other)?;
        if self.confirms && state.plaintext_bytes_to_read() != 1 {
            return Err(io::Error::other("no confirmation"));
        }
        stream.conn.send_close_notify();
        stream.conn.write_tls(&mut stream.sock)?;
        Ok(())
    }
}

/// A running peer and the way in.
struct Door {
    running: Running,
    tls: Tls,
    /// What a client opens there.
    uri: String,
}

impl Door {
    /// Nothing stands before libvirtd's own listener; it has a real volume for the streams.
    fn start(peer: &Peer, upstream: &Upstream, volume: Option<u64>) -> io::Result<Self> {
        let tls = Tls::new(&peer.kind)?;
        if peer.kind != Kind::Direct {
            let more = More {
                tls: Some(&tls),
                ..More::default()
            };
            let running = peer.start_with(upstream, &more, None)?;
            return Ok(Self {
                running,
                tls,
                uri: upstream.uri.to_owned(),
            });
        }
        let mut daemon = Upstream::libvirtd_listening(&tls)?;
        if let Some(length) = volume {
            daemon.make_objects(length)?;
        }
        let (process, dir) = (&mut daemon.process, daemon.dir.path());
        await_answer(|| tls.open(OBJECTS), process, dir)?;
        Ok(Self {
            running: daemon.into(),
            tls,
            uri: OBJECTS.to_owned(),
        })
    }
}

pub(crate) fn download(peer: &Peer, upstream: &Upstream, effort: &Effort) -> io::Result<Sample> {
    transfer(peer, upstream, effort, Client::download)
}

pub(crate) fn upload(peer: &Peer, upstream: &Upstream, effort: &Effort) -> io::Result<Sample> {
    transfer(peer, upstream, effort, Client::upload)
}

fn transfer(
    peer: &Peer,
    upstream: &Upstream,
    effort: &Effort,
    transfer: impl Fn(&mut Client<Stream>, u64) -> io::Result<()>,
) -> io::Result<Sample> {
    let length = effort.whole_frames();
    let door = Door::start(peer, upstream, Some(length))?;
    let client = door.tls.open(&door.uri)?;
    transfer_once(&door.running, client, length, transfer)
}

pub(crate) fn handshakes(peer: &Peer, upstream: &Upstream, effort: &Effort) -> io::Result<Sample> {
    let door = Door::start(peer, upstream, None)?;
    door.tls.shake_hands()?;
    let (before, own) = (Usage::of(&door.running), Usage::own());
    let begin = Instant::now();
    let shake = || -> io::Result<Vec<u32>> {
        let mut latencies = Vec::new();
        while begin.elapsed() < effort.period {
            let now = Instant::now();
            door.tls.shake_hands()?;
            latencies.push(now.elapsed().as_nanos() as u32);
        }
        Ok(latencies)
    };
    let mut outcome = Outcome::default();
    std::thread::scope(|scope| -> io::Result<()> {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(shake)).collect();
        for client in clients {
            outcome.latencies.extend(client.join().unwrap()?);
        }
        Ok(())
    })?;
    outcome.elapsed = begin.elapsed();
    outcome.calls = outcome.latencies.len() as u64;
    let each = |usage: Usage| usage.cpu.as_secs_f64() * 1e6 / outcome.calls as f64;
    let more = vec![
        ("CPU us each", each(Usage::of(&door.running).since(&before))),
        ("client CPU us each", each(Usage::own().since(&own))),
        ("p99", outcome.percentile(99.0)),
    ];
    Ok(Sample {
        value: outcome.per_second(),
        more,
    })
}

/// A socket that is read in large pieces.
pub(crate) struct Socket(BufReader<TcpStream>);

impl Socket {
    fn connect(port: u16) -> io::Result<Self> {
        let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self(BufReader::with_capacity(BUFFER, socket)))
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.get_mut().write(bytes)
    }

    fn write_vectored(&mut self, pieces: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.get_mut().write_vectored(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A CA, and of it a server and a client, all with keys on P-256.
fn certificates(dir: &Path) -> Result<ClientConfig, Box<dyn std::error::Error + Send + Sync>> {
    let params = |name: &str| -> Result<CertificateParams, rcgen::Error> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        Ok(params)
    };
    let mut authority = params("relay")?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let sign = |name: &str, purpose| -> Result<_, rcgen::Error> {
        let mut params = params(name)?;
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate()?;
        Ok((params.signed_by(&key, &authority)?, key))
    };
    let (server, server_key) = sign("localhost", ExtendedKeyUsagePurpose::ServerAuth)?;
    let (client, client_key) = sign("client", ExtendedKeyUsagePurpose::ClientAuth)?;
    let (cert, key) = (server.pem(), server_key.serialize_pem());
    fs::write(dir.join("ca.pem"), authority.pem())?;
    fs::write(dir.join("server.pem"), &cert)?;
    fs::write(dir.join("server.key"), &key)?;
    fs::write(dir.join("both.pem"), cert + &key)?;

    let mut provider = ring::default_provider();
    provider.cipher_suites = vec![ring::cipher_suite::TLS13_AES_256_GCM_SHA384];
    provider.kx_groups = vec![ring::kx_group::X25519];
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone())?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![client.der().clone()],
            PrivateKeyDer::from_pem_slice(client_key.serialize_pem().as_bytes())?,
        )?;
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}
