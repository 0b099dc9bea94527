//! From an accepted TCP connection to one that frames travel on: PROXY header, TLS, and what the two
//! say of the client.

use core::net::SocketAddr;
use std::io;
use std::net::TcpStream as StdTcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::error::Elapsed;
use tokio_rustls::TlsAcceptor;

use super::certificates::CertificateStore;
use super::proxy_protocol::{self, HeaderError};
use super::x509::{self, Unreadable};
use crate::policy::facts::{ClientFacts, X509Facts};
use crate::policy::model::Listener;
use crate::server::tls_channel::TlsChannel;
use crate::server::transport::Channel;

/// What libvirt's clients wait for after the handshake, within TLS: their certificate is accepted.
pub(crate) const ACCEPTED: [u8; 1] = [1];
/// Silence on a TCP connection after which the kernel asks whether the peer is still there; it
/// finds the dead that no protocol ping reaches, as the protocol has none before it is opened.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);

/// How long a refused client may take to read why.
const PARTING: Duration = Duration::from_secs(2);
/// What a refused client may still say.
const PARTING_BYTES: u64 = 64 * 1024;

/// Why a client did not come through.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("it took too long")]
    Slow(#[from] Elapsed),
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error("TLS: {0}")]
    Tls(#[source] io::Error),
    #[error(transparent)]
    Certificate(#[from] Unreadable),
    #[error("uid {uid} may not connect: the policy gives the socket mode {mode:04o}")]
    NotAdmitted {
        /// Who it is.
        uid: u32,
        /// Mode of the listener.
        mode: u32,
    },
    #[error("plain TCP is served on this host's own addresses only")]
    NotLoopback,
    #[error("the listener has no certificates in force")]
    NoCertificates,
    #[error("{0}")]
    Socket(#[from] io::Error),
}

/// Takes a connected, non-blocking socket through everything before the first frame, within the
/// listener's bound.
///
/// # Errors
/// The client is not to be served.
pub(crate) async fn arrive(
    socket: StdTcpStream,
    listener: &Listener,
    certificates: &CertificateStore,
) -> Result<(Channel, ClientFacts), HandshakeError> {
    let socket = TcpStream::from_std(socket)?;
    socket.set_nodelay(true)?;
    sockopt::set_socket_keepalive(&socket, true).map_err(io::Error::from)?;
    sockopt::set_tcp_keepidle(&socket, TCP_KEEPALIVE).map_err(io::Error::from)?;
    // An inherited socket may be bound to other addresses than the policy's.
    if listener.is_loopback_only() && !socket.local_addr()?.ip().to_canonical().is_loopback() {
        return Err(HandshakeError::NotLoopback);
    }
    let shake = shake_hands(socket, listener, certificates);
    let (channel, address, x509) =
        tokio::time::timeout(listener.handshake_timeout, shake).await??;
    let facts = ClientFacts {
        listener: Arc::clone(&listener.name),
        readonly: listener.readonly,
        address: Some(address),
        x509: x509.map(Box::new),
        ..ClientFacts::default()
    };
    Ok((channel, facts))
}

async fn shake_hands(
    mut socket: TcpStream,
    listener: &Listener,
    certificates: &CertificateStore,
) -> Result<(Channel, SocketAddr, Option<X509Facts>), HandshakeError> {
    let mut address = canonical(socket.peer_addr()?);
    let balancers = &listener.proxy_protocol;
    if balancers
        .iter()
        .any(|network| network.contains(address.ip()))
    {
        address = proxy_protocol::read(&mut socket).await?.unwrap_or(address);
    }
    if listener.tls.is_none() {
        return Ok((Channel::Tcp(socket), address, None));
    }
    let config = certificates.load().of(&listener.name);
    let config = config.ok_or(HandshakeError::NoCertificates)?;
    let accepted = TlsAcceptor::from(config).accept(socket).into_fallible();
    let mut stream = match accepted.await {
        Ok(stream) => stream,
        Err((error, socket)) => {
            part_from(socket).await;
            return Err(HandshakeError::Tls(error));
        }
    };
    let chain = stream.get_ref().1.peer_certificates();
    let leaf = chain.and_then(|chain| chain.first());
    let x509 = leaf.map(|leaf| x509::facts(leaf)).transpose()?;
    stream
        .write_all(&ACCEPTED)
        .await
        .map_err(HandshakeError::Tls)?;
    stream.flush().await.map_err(HandshakeError::Tls)?;
    Ok((Channel::Tls(TlsChannel::new(stream)), address, x509))
}

/// Lets a client read the alert that it was sent. By TLS 1.3 it takes the handshake to be over before
/// its certificate is judged; what it sends then would meet a closed connection, and `virsh` would
/// die of the signal in place of saying what is wrong.
async fn part_from(mut socket: TcpStream) {
    let read_to_end = async {
        // The client that has gone needs no telling.
        if socket.shutdown().await.is_ok() {
            let mut rest = (&mut socket).take(PARTING_BYTES);
            _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
        }
    };
    _ = tokio::time::timeout(PARTING, read_to_end).await;
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
