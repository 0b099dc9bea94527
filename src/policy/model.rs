//! The compiled policy: names resolved, patterns built, nothing left that could be wrong.

use core::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::access::Access;
pub use super::identity::{Identity, IdentitySet};
pub use super::network::{Network, NetworkError};
pub use super::route::Route;
use super::template::Template;
pub use super::upstream::{
    Address, ClientSasl, ClientTls, DriverTarget, Drivers, ForwardIdentity, Target, Upstream,
};

/// One immutable policy generation. Made by [`load`](super::load) alone.
#[derive(Debug)]
pub struct Policy {
    /// Tells its text from others: the first 16 hexadecimal digits of the text's SHA-256.
    pub digest: Arc<str>,
    /// Settings of the daemon as a whole.
    pub daemon: Daemon,
    /// Listeners in file order.
    pub listeners: Vec<Arc<Listener>>,
    /// Driver daemons in file order, without those that are made from templates.
    pub upstreams: Vec<Arc<Upstream>>,
    /// Templates of driver daemons in file order.
    pub(super) templates: Vec<Arc<Template>>,
    /// Identities in file order; their places here are what an [`IdentitySet`] holds.
    pub identities: Vec<Identity>,
    /// Routes in file order; the first that matches wins.
    pub routes: Vec<Route>,
    /// Identities whose clients may tell the daemons on whose behalf they call
    /// (`trusted_forwarders:` in the file).
    pub(super) trusted_forwarders: Vec<usize>,
    /// Places of the identities, each after those that it refers to.
    pub(super) identity_order: Vec<usize>,
    /// What `access:` says.
    pub(super) access: Access,
}

impl Policy {
    /// What TLS towards daemons needs, by the name of the upstream. That of a template has the
    /// files of all daemons made from it; only `server_name` may be another for each of them, and
    /// has `{name}` here where values go.
    pub fn upstream_tls(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<ClientTls>)> {
        self.entries()
            .filter_map(|upstream| Some((&upstream.name, upstream.tls()?)))
    }

    /// What SASL towards daemons needs, by the name of the upstream. That of a template is that of
    /// all daemons made from it.
    pub fn upstream_sasl(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<ClientSasl>)> {
        self.entries()
            .filter_map(|upstream| Some((&upstream.name, upstream.sasl.as_ref()?)))
    }

    /// Fixed upstreams, and what those of each template have in common.
    fn entries(&self) -> impl Iterator<Item = &Upstream> {
        let templates = self.templates.iter().map(|template| &template.upstream);
        let fixed = self.upstreams.iter().map(|upstream| &**upstream);
        fixed.chain(templates)
    }
}

/// Settings of the daemon as a whole (`daemon:` in the file).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Daemon {
    /// Reload when the policy file changes on disk.
    pub watch: bool,
    /// How long open connections may go on after SIGTERM.
    pub drain: Duration,
    /// Worker threads, each with a current-thread runtime. `None`: one per available core.
    pub workers: Option<usize>,
    /// Client connections at once; more are not accepted until one ends.
    pub max_clients: usize,
    /// Connections of either kind, local and remote, that may be on their way through handshake
    /// and authentication at once. Never 0.
    pub max_unauthenticated: usize,
}

/// A socket that clients connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Its name in the file, and the systemd `FileDescriptorName=`.
    pub name: Arc<str>,
    /// Where it listens.
    pub address: ListenAddress,
    /// Connections through it may only read.
    pub readonly: bool,
    /// Pings to a silent client.
    pub keepalive: Keepalive,
    /// How clients prove who they are, after the kernel or TLS has told what it knows.
    pub auth: Auth,
    /// TLS on a TCP socket.
    pub tls: Option<Tls>,
    /// How SASL is done; there if and only if `auth` is [`Auth::Sasl`].
    pub sasl: Option<Sasl>,
    /// Load balancers that send a PROXY header (version 2) first, on a TCP socket. Others must
    /// not.
    pub proxy_protocol: Vec<Network>,
    /// Bound on PROXY header and TLS handshake together.
    pub handshake_timeout: Duration,
    /// Bound on authentication.
    pub auth_timeout: Duration,
    /// The file says that this TCP socket may be reached without protection.
    pub unsafe_plain_tcp: bool,
}

impl Listener {
    /// Whether only addresses of this host may reach it: what passes is neither secret nor
    /// protected from change, and the file does not allow that elsewhere.
    #[must_use]
    pub fn is_loopback_only(&self) -> bool {
        let ListenAddress::Tcp { .. } = self.address else {
            return false;
        };
        let sealed = self.sasl.as_ref().is_some_and(Sasl::is_sealed);
        self.tls.is_none() && !self.unsafe_plain_tcp && !sealed
    }

    /// Whether it learns this of its clients.
    pub(super) fn proves(&self, evidence: Evidence) -> bool {
        let is_unix = matches!(self.address, ListenAddress::Unix { .. });
        match evidence {
            Evidence::Process => is_unix,
            Evidence::Address => !is_unix,
            Evidence::Certificate => self
                .tls
                .as_ref()
                .is_some_and(|tls| tls.client_cert != ClientCert::UnsafeNone),
            Evidence::Sasl => self.auth == Auth::Sasl,
        }
    }
}

/// What may be proven of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Evidence {
    /// The process at the other end of a UNIX socket.
    Process,
    Address,
    Certificate,
    /// A user by SASL.
    Sasl,
}

/// How clients prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// Not at all.
    None,
    /// By polkit, on a UNIX socket.
    Polkit,
    /// By a SASL exchange.
    Sasl,
}

/// TLS of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The server's certificate and those between it and its CA (PEM).
    pub cert: PathBuf,
    /// Its private key (PEM).
    pub key: PathBuf,
    /// Certificates of the CAs that clients' certificates must be signed by (PEM).
    pub ca: PathBuf,
    /// Revoked certificates (PEM or DER).
    pub crl: Crl,
    /// What is asked of clients.
    pub client_cert: ClientCert,
    /// Oldest version that is spoken.
    pub min_version: TlsVersion,
}

/// Where revoked certificates are listed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Crl {
    /// A file that must be there.
    File(PathBuf),
    /// A file that counts if it is there: libvirt's default place.
    IfPresent(PathBuf),
    /// Nowhere.
    None,
}

/// Whether clients must have a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCert {
    /// They must.
    Required,
    /// One that is shown must be good.
    Optional,
    /// None is asked for.
    UnsafeNone,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TlsVersion {
    /// 1.2
    Tls12,
    /// 1.3
    Tls13,
}

/// SASL of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sasl {
    /// What clients may choose from; never empty, each once.
    pub mechanisms: Vec<Mechanism>,
    /// Verifiers of passwords; there if a mechanism needs them.
    pub passwords: Option<PathBuf>,
    /// What of the certificate is the user of [`Mechanism::External`].
    pub external_user: ExternalUser,
    /// Strength, in bits of a key, that a security layer must have where there is no TLS.
    pub min_ssf: u16,
}

impl Sasl {
    /// Whether every mechanism can put a security layer around the connection.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.mechanisms.iter().all(|mechanism| mechanism.seals())
    }
}

/// A SASL mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// SCRAM-SHA-256
    ScramSha256,
    /// SCRAM-SHA-512
    ScramSha512,
    /// PLAIN
    Plain,
    /// EXTERNAL: the client's certificate
    External,
    /// GSSAPI: Kerberos
    Gssapi,
}

impl Mechanism {
    /// Its registered name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
            Self::Plain => "PLAIN",
            Self::External => "EXTERNAL",
            Self::Gssapi => "GSSAPI",
        }
    }

    /// Whether it puts a security layer around a connection that has no TLS.
    pub(super) fn seals(self) -> bool {
        self == Self::Gssapi
    }

    /// Whether it needs [`Sasl::passwords`].
    #[must_use]
    pub fn has_passwords(self) -> bool {
        matches!(self, Self::ScramSha256 | Self::ScramSha512 | Self::Plain)
    }
}

/// What of a certificate is the user's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExternalUser {
    /// The common name; there must be exactly one.
    Cn,
    /// The whole distinguished name.
    Dn,
}

/// Where a listener listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// A UNIX socket.
    Unix {
        /// Absolute path.
        path: PathBuf,
        /// Permission bits of the socket file.
        mode: u32,
        /// Owning group of the socket file; `None` leaves the process's own.
        group: Option<String>,
    },
    /// TCP sockets. An IPv6 address takes no IPv4 clients.
    Tcp {
        /// Address and port of each; never empty, no port is 0.
        addresses: Vec<SocketAddr>,
    },
}

impl ListenAddress {
    /// Whether a TCP socket bound there is one of these. systemd's `ListenStream=16514` is `[::]`,
    /// which may take IPv4 clients too, so that all addresses of one port are one.
    #[must_use]
    pub fn is_at(&self, bound: SocketAddr) -> bool {
        let Self::Tcp { addresses } = self else {
            return false;
        };
        addresses.iter().any(|address| {
            let both_wide = address.ip().is_unspecified() && bound.ip().is_unspecified();
            address.port() == bound.port() && (both_wide || address.ip() == bound.ip())
        })
    }
}

/// When to ask a silent peer whether it lives, and when to give it up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence after which a ping is sent; `None` never pings.
    pub interval: Option<Duration>,
    /// Unanswered pings after which the connection is closed (0 closes at the first silence).
    pub count: u32,
}

/// Outcome of routing one `CONNECT_OPEN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Routed {
    /// Open these in turn; the first that is alive serves the client. More than one only for
    /// `probe` routes. Never empty.
    Try(Vec<Target>),
    /// No route serves this client and URI.
    NoRoute,
}
