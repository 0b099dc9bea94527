//! `tests` as written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Name, OneOrMany};

/// A client, and what it can and cannot do under this policy.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::policy) struct SelfTest {
    /// What is proven of the client. What is not said is not known.
    #[serde(rename = "as")]
    pub(in crate::policy) client: As,
    /// URI that it opens; the empty string if it names none.
    #[schemars(length(max = 4096))]
    pub(in crate::policy) uri: String,
    /// Listener that it connects to. Default: the first that can prove what `as` says.
    pub(in crate::policy) listener: Option<Name>,
    /// The connection may only read. Default: as the listener's.
    pub(in crate::policy) readonly: Option<bool>,
    /// Calls that are allowed, while their content keeps to the guards.
    pub(in crate::policy) can: Option<OneOrMany<CallText>>,
    /// Calls that are refused.
    pub(in crate::policy) cannot: Option<OneOrMany<CallText>>,
}

/// What is proven of an imagined client.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::policy) struct As {
    /// What the kernel tells of the process at the other end of a UNIX socket.
    pub(in crate::policy) unix: Option<AsUnix>,
    /// What its certificate says.
    pub(in crate::policy) x509: Option<AsX509>,
    /// Who it is by SASL.
    pub(in crate::policy) sasl: Option<AsSasl>,
    /// IP address that it comes from.
    #[schemars(length(min = 1, max = 64), extend("examples" = ["192.0.2.1"]))]
    pub(in crate::policy) address: Option<String>,
}

/// The process at the other end of a UNIX socket. Nothing is looked up: name every group.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub(in crate::policy) struct AsUnix {
    /// Name of the user.
    pub(in crate::policy) user: Option<Fact>,
    /// Names of the groups, the primary one first.
    pub(in crate::policy) group: Option<OneOrMany<Fact>>,
    /// Number of the user.
    pub(in crate::policy) uid: Option<u32>,
    /// Numbers of the groups, the primary one first.
    pub(in crate::policy) gid: Option<OneOrMany<u32>>,
    /// Number of the process.
    #[schemars(range(min = 0))]
    pub(in crate::policy) pid: Option<i32>,
    /// SELinux (or other LSM) label.
    pub(in crate::policy) selinux: Option<Fact>,
}

/// A client's certificate.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub(in crate::policy) struct AsX509 {
    /// Distinguished name as a whole, in the form of RFC 4514; its parts need not be said again.
    pub(in crate::policy) dn: Option<Fact>,
    /// Common names.
    pub(in crate::policy) cn: Option<OneOrMany<Fact>>,
    /// Organisations.
    pub(in crate::policy) o: Option<OneOrMany<Fact>>,
    /// Organisational units.
    pub(in crate::policy) ou: Option<OneOrMany<Fact>>,
    /// Countries.
    pub(in crate::policy) c: Option<OneOrMany<Fact>>,
    /// Localities.
    pub(in crate::policy) l: Option<OneOrMany<Fact>>,
    /// States or provinces.
    pub(in crate::policy) st: Option<OneOrMany<Fact>>,
    /// E-mail addresses in the distinguished name.
    pub(in crate::policy) email: Option<OneOrMany<Fact>>,
    /// DNS names among the alternative names.
    pub(in crate::policy) dns: Option<OneOrMany<Fact>>,
    /// IP addresses among the alternative names.
    pub(in crate::policy) ip: Option<OneOrMany<Fact>>,
    /// URIs among the alternative names.
    pub(in crate::policy) uri: Option<OneOrMany<Fact>>,
    /// E-mail addresses among the alternative names.
    pub(in crate::policy) san_email: Option<OneOrMany<Fact>>,
    /// SHA-256 of the certificate, in hexadecimal digits.
    pub(in crate::policy) fingerprint: Option<Fact>,
    /// Distinguished name of the CA.
    pub(in crate::policy) issuer: Option<Fact>,
    /// Serial number, in hexadecimal digits.
    pub(in crate::policy) serial: Option<Fact>,
}

/// Who a client is by SASL.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::policy) struct AsSasl {
    /// Name of the user.
    pub(in crate::policy) user: Fact,
    /// Mechanism that proved it.
    pub(in crate::policy) mechanism: Option<Fact>,
}

/// A text as it is proven: no pattern.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(extend("minLength" = 1, "maxLength" = 1024))]
pub(in crate::policy) struct Fact(pub(in crate::policy) String);

/// A permission or procedure, an object, and what else is known of it, as for `virtproxyd explain`:
/// `domain:start acme-web1`, `storage_vol:delete acme/disk1`, `domain:write new owner=acme`,
/// `DOMAIN_REBOOT acme-web1 flags=2`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(extend(
    "minLength" = 1,
    "maxLength" = 4096,
    "examples" = ["domain:start acme-web1", "storage_vol:delete acme/disk1", "connect:getattr"]
))]
pub(in crate::policy) struct CallText(pub(in crate::policy) String);
