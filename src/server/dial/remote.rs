//! Dialling what is no UNIX socket: TCP, TLS, a program.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::{Failed, command};
use crate::policy::model::{Address, ClientTls, Upstream};
use crate::server::auth::handshake::ACCEPTED;
use crate::server::context::Context;
use crate::server::lookups::Lookups;
use crate::server::tls_channel::TlsChannel;
use crate::server::transport::{Channel, Transport};

/// How long an address of a host has before the next one is tried beside it (RFC 8305 section 5).
const STAGGER: Duration = Duration::from_millis(250);

/// Addresses of a host that are tried. More are a mistake, or an attack on others.
const MAX_ADDRESSES: usize = 8;

/// Connects to an address of an upstream.
pub(super) async fn connect(
    upstream: Arc<Upstream>,
    place: usize,
    shared: &Context,
) -> Result<Transport, Failed> {
    let channel = match upstream.addresses.get(place) {
        Some(Address::Tcp { host, port }) => {
            Channel::Tcp(connect_tcp(host, *port, &shared.hosts).await?)
        }
        Some(Address::Tls { host, port, tls }) => {
            let socket = connect_tcp(host, *port, &shared.hosts).await?;
            Channel::Tls(shake_hands(socket, host, tls, shared).await?)
        }
        Some(Address::Command(words)) => return Ok(command::start(&upstream.name, words)?),
        Some(Address::Unix { .. }) | None => {
            return Err(Failed::costly("no address of this kind"));
        }
    };
    Ok(Transport::new(channel))
}

async fn connect_tcp(host: &str, port: u16, hosts: &Lookups) -> io::Result<TcpStream> {
    let addresses = match host.parse::<IpAddr>() {
        Ok(address) => vec![SocketAddr::new(address, port)],
        Err(_) => {
            let name = host.to_owned();
            let look_up = move || Ok((name.as_str(), port).to_socket_addrs()?.collect());
            hosts.run(look_up).await.map_err(|error| {
                io::Error::new(error.kind(), format!("cannot look up {host}: {error}"))
            })?
        }
    };
    let socket = connect_any(addresses).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// The first connection that comes about; each address has a little time before the next is tried
/// beside it.
async fn connect_any(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut addresses = addresses.into_iter().take(MAX_ADDRESSES).peekable();
    let mut attempts = JoinSet::new();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    loop {
        match addresses.next() {
            Some(address) => {
                attempts.spawn(TcpStream::connect(address));
            }
            None if attempts.is_empty() => return Err(last),
            None => {}
        }
        let next = attempts.join_next();
        let outcome = match addresses.peek() {
            Some(_) => match tokio::time::timeout(STAGGER, next).await {
                Ok(outcome) => outcome,
                Err(_) => continue,
            },
            None => next.await,
        };
        match outcome {
            Some(Ok(Ok(socket))) => return Ok(socket),
            Some(Ok(Err(error))) => last = error,
            Some(Err(error)) => last = io::Error::other(error),
            None => {}
        }
    }
}

async fn shake_hands(
    socket: TcpStream,
    host: &str,
    tls: &ClientTls,
    shared: &Context,
) -> Result<TlsChannel, Failed> {
    let name = tls.server_name.as_deref().unwrap_or(host);
    let name = ServerName::try_from(name.to_owned()).map_err(|_| {
        Failed::costly(format!("{name:?} is no name that a certificate could have"))
    })?;
    let config = shared.certificates.load().client(tls);
    let config = config.ok_or_else(|| Failed::costly("its certificates are not in force"))?;
    let connected = TlsConnector::from(config).connect(name, socket).await;
    let mut stream = connected.map_err(|error| Failed::costly(format!("TLS: {error}")))?;
    // By TLS 1.3 our certificate is judged only now.
    let mut byte = [0];
    let why = match stream.read_exact(&mut byte).await {
        Ok(_) if byte == ACCEPTED => return Ok(TlsChannel::new(stream)),
        Ok(_) => String::new(),
        // That it closed the connection says no more.
        Err(error) if error.kind() != io::ErrorKind::InvalidData => String::new(),
        Err(error) => format!(": {error}"),
    };
    let what = match tls.identity {
        Some(_) => "the daemon refused our certificate, or our address",
        None => "the daemon refused us, who show no certificate",
    };
    Err(Failed::costly(format!("{what}{why}")))
}
