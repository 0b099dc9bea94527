//! The compiled policy: names resolved, patterns built, nothing left that could be wrong.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use super::identity::{Identity, IdentitySet};
pub use super::route::Route;

/// One immutable policy generation. Made by [`load`](super::load) alone.
#[derive(Debug)]
pub struct Policy {
    /// Settings of the daemon as a whole.
    pub daemon: Daemon,
    /// Listeners in file order.
    pub listeners: Vec<Arc<Listener>>,
    /// Driver daemons in file order.
    pub upstreams: Vec<Arc<Upstream>>,
    /// Identities in file order; their places here are what an [`IdentitySet`] holds.
    pub identities: Vec<Identity>,
    /// Routes in file order; the first that matches wins.
    pub routes: Vec<Route>,
    /// Places of the identities, each after those that it refers to.
    pub(super) identity_order: Vec<usize>,
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
}

/// When to ask a silent peer whether it lives, and when to give it up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence after which a ping is sent; `None` never pings.
    pub interval: Option<Duration>,
    /// Unanswered pings after which the connection is closed (0 closes at the first silence).
    pub count: u32,
}

/// A driver daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Its name in the file.
    pub name: Arc<str>,
    /// Read-write socket.
    pub unix: PathBuf,
    /// Socket for read-only clients; `None` uses `unix` and opens read-only.
    pub unix_ro: Option<PathBuf>,
    /// Bound on connecting plus the opening dialogue (authentication, open, identity).
    pub connect_timeout: Duration,
    /// Pings to a silent daemon.
    pub keepalive: Keepalive,
    /// Whether the client's identity is forwarded.
    pub identity: ForwardIdentity,
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
