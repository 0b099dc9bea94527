//! What is proven about a client. Only the code that saw the evidence makes these values.

use core::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::Serialize;

pub use super::imagined::FactsError;

/// Everything known of one client connection; identities and routes match on it, and it is
/// forwarded to the driver daemons.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ClientFacts {
    /// Name of the listener that accepted the connection.
    pub listener: Arc<str>,
    /// The connection may only read (listener is read-only).
    pub readonly: bool,
    /// Kernel-proven credentials of the peer of a UNIX socket.
    pub unix: Option<UnixFacts>,
    /// Address of the peer of a TCP connection, as the kernel or a trusted load balancer has it.
    pub address: Option<SocketAddr>,
    /// The client's certificate, verified.
    pub x509: Option<Box<X509Facts>>,
    /// Who the client is by SASL.
    pub sasl: Option<SaslFacts>,
}

/// What a verified client certificate says. Attributes that may occur more than once are lists.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct X509Facts {
    /// Distinguished name in RFC 4514 form: `CN=ci,OU=Ops,O=Acme,C=DE`.
    pub dn: String,
    /// Common names.
    pub cn: Vec<String>,
    /// Organisations.
    pub o: Vec<String>,
    /// Organisational units.
    pub ou: Vec<String>,
    /// Countries.
    pub c: Vec<String>,
    /// Localities.
    pub l: Vec<String>,
    /// States or provinces.
    pub st: Vec<String>,
    /// E-mail addresses in the distinguished name.
    pub email: Vec<String>,
    /// DNS names among the alternative names, in lower case.
    pub dns: Vec<String>,
    /// IP addresses among the alternative names.
    pub ip: Vec<IpAddr>,
    /// URIs among the alternative names, such as SPIFFE ids.
    pub uri: Vec<String>,
    /// E-mail addresses among the alternative names.
    pub san_email: Vec<String>,
    /// SHA-256 of the certificate (DER), in lower-case hexadecimal digits without colons.
    pub fingerprint: String,
    /// Distinguished name of the issuer in RFC 4514 form.
    pub issuer: String,
    /// Serial number, in lower-case hexadecimal digits without zeros in front.
    pub serial: String,
    /// When it expires, in seconds since the epoch.
    pub not_after: i64,
}

impl X509Facts {
    /// The distinguished name as libvirt writes it, which is the other way round: what a client's
    /// `tls_allowed_dn_list` and access rules of the driver daemons are written for.
    #[must_use]
    pub fn libvirt_dn(&self) -> String {
        super::dn::reversed(&self.dn)
    }

    /// Adds an attribute of the distinguished name, by its name as [`name_of`] gives it.
    ///
    /// [`name_of`]: super::dn::name_of
    pub(crate) fn add_attribute(&mut self, name: &str, value: String) {
        let part = match name {
            "CN" => &mut self.cn,
            "O" => &mut self.o,
            "OU" => &mut self.ou,
            "C" => &mut self.c,
            "L" => &mut self.l,
            "ST" => &mut self.st,
            "EMAIL" => &mut self.email,
            _ => return,
        };
        part.push(value);
    }
}

/// Who a client is by SASL.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct SaslFacts {
    /// User name.
    pub user: String,
    /// Mechanism that proved it.
    pub mechanism: String,
}

/// Credentials of the process at the other end of a UNIX socket, as the kernel recorded them when
/// it connected.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
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
    /// The process could not be looked at: it had gone, runs with other ids than it connected with,
    /// or lives in another pid namespace. Its groups and label are not known then, which is not to
    /// say that it has none.
    pub unproven: bool,
}

/// A serial number's digits as [`X509Facts::serial`] has them.
pub(crate) fn serial(digits: &str) -> String {
    match digits.trim_start_matches('0') {
        "" => "0".to_owned(),
        digits => digits.to_owned(),
    }
}
