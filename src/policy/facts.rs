//! What is proven about a client. Only the code that saw the evidence makes these values.

use core::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use serde::Serialize;

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
    pub x509: Option<X509Facts>,
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
    /// DNS names among the alternative names.
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
    /// Serial number, in lower-case hexadecimal digits.
    pub serial: String,
    /// When it expires, in seconds since the epoch.
    pub not_after: i64,
}

/// Who a client is by SASL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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
}

/// Why a description of a client was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FactsError {
    /// Not `key=value`.
    #[error("`{0}` is not of the form key=value")]
    Form(String),
    /// A key that does not exist.
    #[error("unknown key `{0}`; known are user, group, uid, gid, pid and selinux")]
    Key(String),
    /// A number was wanted.
    #[error("`{0}` is no number for `{1}`")]
    Number(String, String),
    /// A key that may be there once.
    #[error("`{0}` is there twice")]
    Twice(String),
}

/// Reads an imagined client, such as `user=alice,group=users,group=libvirt`, for asking what the
/// policy would do with it. `group` and `gid` may be repeated; the first is the primary one. What
/// is not said is unknown and matches no rule: an unsaid uid or gid is 4294967295, which no
/// process has, never 0. A label may have commas of its own (`selinux=a:b:c:s0:c1,c2`).
impl FromStr for UnixFacts {
    type Err = FactsError;

    fn from_str(text: &str) -> Result<Self, FactsError> {
        let mut facts = Self {
            uid: u32::MAX,
            gid: u32::MAX,
            ..Self::default()
        };
        let (mut uid, mut gid, mut pid) = (None, None, None);
        let mut in_label = false;
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let Some((key, value)) = part.split_once('=') else {
                match &mut facts.selinux {
                    Some(label) if in_label => {
                        label.push(',');
                        label.push_str(part);
                        continue;
                    }
                    _ => return Err(FactsError::Form(part.to_owned())),
                }
            };
            in_label = key == "selinux";
            match key {
                "user" => set(&mut facts.user, key, value.to_owned())?,
                "group" if facts.group.is_none() => facts.group = Some(value.to_owned()),
                "group" => facts.group_names.push(value.to_owned()),
                "uid" => set(&mut uid, key, number(key, value)?)?,
                "gid" if gid.is_none() => gid = Some(number(key, value)?),
                "gid" => facts.groups.push(number(key, value)?),
                "pid" => set(&mut pid, key, number(key, value)?)?,
                "selinux" => set(&mut facts.selinux, key, value.to_owned())?,
                _ => return Err(FactsError::Key(key.to_owned())),
            }
        }
        facts.uid = uid.unwrap_or(facts.uid);
        facts.gid = gid.unwrap_or(facts.gid);
        facts.pid = pid.unwrap_or_default();
        Ok(facts)
    }
}

fn set<T>(slot: &mut Option<T>, key: &str, value: T) -> Result<(), FactsError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(FactsError::Twice(key.to_owned())),
    }
}

fn number<T: FromStr>(key: &str, value: &str) -> Result<T, FactsError> {
    value
        .parse()
        .map_err(|_| FactsError::Number(value.to_owned(), key.to_owned()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is the failed test")]
mod tests {
    use super::*;

    #[test]
    fn an_imagined_client_is_read() {
        let facts: UnixFacts =
            "user=alice,group=users,group=libvirt,uid=1000,gid=100,gid=64055,pid=7,selinux=u:r:t:s0:c1,c2"
                .parse()
                .unwrap();
        let expected = UnixFacts {
            pid: 7,
            start_time: None,
            uid: 1000,
            gid: 100,
            groups: vec![64055],
            user: Some("alice".into()),
            group: Some("users".into()),
            group_names: vec!["libvirt".into()],
            selinux: Some("u:r:t:s0:c1,c2".into()),
        };
        assert_eq!(facts, expected);
    }

    #[test]
    fn what_is_not_said_is_not_root() {
        let facts: UnixFacts = "user=alice".parse().unwrap();
        assert_eq!((facts.uid, facts.gid, facts.pid), (u32::MAX, u32::MAX, 0));
    }

    #[test]
    fn mistakes_are_named() {
        let error = |text: &str| text.parse::<UnixFacts>().unwrap_err();
        assert_eq!(error("alice"), FactsError::Form("alice".into()));
        assert_eq!(
            error("user=alice,libvirt"),
            FactsError::Form("libvirt".into())
        );
        assert_eq!(error("usr=alice"), FactsError::Key("usr".into()));
        assert_eq!(
            error("uid=alice"),
            FactsError::Number("alice".into(), "uid".into())
        );
        assert_eq!(error("user=a,user=b"), FactsError::Twice("user".into()));
    }
}
