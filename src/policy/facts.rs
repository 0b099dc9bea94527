//! What is proven about a client. Only the code that saw the evidence makes these values.

use std::sync::Arc;

/// Everything known of one client connection; identities and routes match on it, and it is
/// forwarded to the driver daemons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFacts {
    /// Name of the listener that accepted the connection.
    pub listener: Arc<str>,
    /// The connection may only read (listener is read-only).
    pub readonly: bool,
    /// Kernel-proven credentials of the peer of a UNIX socket.
    pub unix: Option<UnixFacts>,
}

/// Credentials of the process at the other end of a UNIX socket, as the kernel recorded them when
/// it connected.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UnixFacts {
    /// Process id; 0 if the peer lives in another pid namespace.
    pub pid: i32,
    /// Start time of that process in clock ticks since boot (`/proc/PID/stat` field 22), so that a
    /// reused pid is not mistaken for it. `None` if the process had already gone.
    pub start_time: Option<u64>,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Supplementary group ids, `gid` not included.
    pub groups: Vec<u32>,
    /// Name of `uid`, if the user database has one.
    pub user: Option<String>,
    /// Name of `gid`, if the group database has one.
    pub group: Option<String>,
    /// Names of `groups`, those that have one.
    pub group_names: Vec<String>,
    /// SELinux (or other LSM) label of the process.
    pub selinux: Option<String>,
}
