//! Scripted clients by TCP and TLS: their frames go through a socket pair.

use std::io::Result;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::thread;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::pki::Pki;
use super::rpc_client::RpcClient;

/// A client by plain TCP. It is closed with the client, and the client with it.
#[cfg(feature = "gssapi")]
pub(crate) fn by_tcp(port: u16) -> RpcClient {
    bridged(move || TcpStream::connect(loopback(port)))
}

/// A client by TLS, with the certificate called `name` if any. What the server says after the
/// handshake is read already. The connection is closed with the client, and the client with it.
pub(crate) fn by_tls(port: u16, pki: &Pki, name: Option<&str>) -> RpcClient {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(pki.path("ca.pem")).unwrap();
    roots.add(ca).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match name {
        None => config.with_no_client_auth(),
        Some(name) => {
            let cert = CertificateDer::from_pem_file(pki.path(&format!("{name}.pem"))).unwrap();
            let key = PrivateKeyDer::from_pem_file(pki.path(&format!("{name}.key"))).unwrap();
            config.with_client_auth_cert(vec![cert], key).unwrap()
        }
    };
    let connector = TlsConnector::from(Arc::new(config));
    bridged(move || async move {
        let socket = TcpStream::connect(loopback(port)).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = connector.connect(name, socket).await?;
        let mut accepted = [0];
        stream.read_exact(&mut accepted).await?;
        assert_eq!(accepted, [1]);
        Ok(stream)
    })
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn bridged<S, F>(connect: impl FnOnce() -> F + Send + 'static) -> RpcClient
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = Result<S>>,
{
    let (ours, theirs) = StdUnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut theirs = UnixStream::from_std(theirs).unwrap();
            // A connection that fails is one that closes, which the test sees.
            if let Ok(mut stream) = connect().await {
                let _ended = copy_bidirectional(&mut theirs, &mut stream).await;
            }
        });
    });
    RpcClient::over(ours)
}
