//! Driver daemons, where they are reached, and which of them serve one client connection.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::model::{Crl, Keepalive, Mechanism, TlsVersion};
use crate::protocol::driver::Driver;

/// A driver daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Its name in the file. One that was made from a template has the value behind it:
    /// `fleet/hv12`.
    pub name: Arc<str>,
    /// Where it is reached; never empty. Several are tried in turn, for connections that do not
    /// exist yet.
    pub addresses: Vec<Address>,
    /// Bound on connecting plus the opening dialogue (authentication, open, identity).
    pub connect_timeout: Duration,
    /// Pings to a silent daemon.
    pub keepalive: Keepalive,
    /// Whether the client's identity is forwarded.
    pub identity: ForwardIdentity,
    /// A connection that is lost is made again, and its clients stay.
    pub reconnect: bool,
    /// What the proxy proves to a daemon that asks for SASL.
    pub sasl: Option<Arc<ClientSasl>>,
    /// Program and arguments that start the daemon where nobody listens; on UNIX sockets alone.
    pub start: Option<Arc<[String]>>,
}

/// Where a daemon is reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// A UNIX socket, the only kind that carries descriptors.
    Unix {
        /// Read-write socket.
        path: PathBuf,
        /// Socket for read-only clients; `None` uses `path` and opens read-only.
        readonly: Option<PathBuf>,
    },
    /// Plain TCP.
    Tcp {
        /// Name or IP address, without brackets.
        host: String,
        /// Never 0.
        port: u16,
    },
    /// TLS over TCP.
    Tls {
        /// Name or IP address, without brackets.
        host: String,
        /// Never 0.
        port: u16,
        /// Whom to trust, and what to show.
        tls: Arc<ClientTls>,
    },
    /// A program whose standard input and output are the connection.
    Command(Arc<[String]>),
}

/// TLS towards a daemon.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientTls {
    /// Certificates of the CAs that the daemon's must be signed by (PEM).
    pub ca: PathBuf,
    /// Certificate that the proxy shows and its private key (PEM); `None` shows none.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Revoked certificates.
    pub crl: Crl,
    /// Name that the daemon's certificate must have; `None`: the host that is dialled.
    pub server_name: Option<String>,
    /// Oldest version that is spoken.
    pub min_version: TlsVersion,
}

/// Who the proxy is by SASL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientSasl {
    /// Mechanisms that may be used, best first; never empty.
    pub mechanisms: Vec<Mechanism>,
    /// User name for mechanisms with passwords.
    pub user: Option<String>,
    /// File whose first line is the password.
    pub password_file: Option<PathBuf>,
}

/// Whether the client's identity is forwarded with `CONNECT_SET_IDENTITY`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardIdentity {
    /// Forward; a daemon that refuses it is not used.
    Require,
    /// Forward; go on if the daemon refuses it.
    Try,
    /// Do not forward: the daemon sees the proxy itself.
    Never,
}

/// Which upstream serves a client and URI, and what to open there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The daemon.
    pub upstream: Arc<Upstream>,
    /// URI for its `CONNECT_OPEN`; the empty string lets the daemon probe.
    pub open_uri: String,
    /// Line of the policy file, from 1, of the route that chose it.
    pub line: usize,
    /// Daemons that serve some drivers in its place; `None`: it serves them all.
    pub drivers: Option<Arc<Drivers>>,
}

/// The daemons that serve single drivers (`drivers:` of a route).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drivers([Option<DriverTarget>; Driver::ALL.len()]);

/// The daemon that serves one driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverTarget {
    /// The daemon.
    pub upstream: Arc<Upstream>,
    /// URI for its `CONNECT_OPEN`.
    pub open_uri: String,
    /// Where it cannot be reached, the primary serves the driver.
    pub fallback: bool,
}

impl Upstream {
    /// How TLS is done, on whichever of its addresses.
    #[must_use]
    pub fn tls(&self) -> Option<&Arc<ClientTls>> {
        self.addresses.iter().find_map(|address| match address {
            Address::Tls { tls, .. } => Some(tls),
            _ => None,
        })
    }

    /// Whether the layer that SASL puts around the connection is all that protects it: a daemon
    /// that does not ask for SASL is not spoken to.
    #[must_use]
    pub fn is_sealed_by_sasl(&self) -> bool {
        let mut addresses = self.addresses.iter();
        self.sasl.is_some() && addresses.any(|address| matches!(address, Address::Tcp { .. }))
    }
}

impl ClientSasl {
    /// Whether every mechanism puts a security layer around the connection where there is no TLS.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.mechanisms.iter().all(|mechanism| mechanism.seals())
    }
}

impl Drivers {
    /// The daemon of a driver; `None` is the primary.
    #[must_use]
    pub fn of(&self, driver: Driver) -> Option<&DriverTarget> {
        self.0.get(driver.place())?.as_ref()
    }

    /// Has a driver served by this daemon.
    pub fn set(&mut self, driver: Driver, target: DriverTarget) {
        if let Some(place) = self.0.get_mut(driver.place()) {
            *place = Some(target);
        }
    }

    /// Each driver that has a daemon of its own.
    pub fn iter(&self) -> impl Iterator<Item = (Driver, &DriverTarget)> {
        let all = Driver::ALL.into_iter().zip(&self.0);
        all.filter_map(|(driver, target)| Some((driver, target.as_ref()?)))
    }
}

impl Address {
    /// In words, for a client that may only read or for others.
    #[must_use]
    pub fn place(&self, is_readonly: bool) -> String {
        match self {
            Self::Unix {
                readonly: Some(path),
                ..
            } if is_readonly => path.display().to_string(),
            _ => self.to_string(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = |host: &str, port| match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        };
        match self {
            Self::Unix { path, .. } => write!(f, "{}", path.display()),
            Self::Tcp { host, port } => write!(f, "tcp:{}", end(host, port)),
            Self::Tls { host, port, .. } => write!(f, "tls:{}", end(host, port)),
            Self::Command(words) => write!(f, "{}", words.join(" ")),
        }
    }
}
