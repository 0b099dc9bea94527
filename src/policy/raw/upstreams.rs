//! `upstreams` as written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Duration, FilePath, Keepalive, MAX_LIST, Mechanism, OneOrMany, PatternText, Section,
    SocketPath, TlsVersion,
};

/// A driver daemon. It has exactly one of `unix`, `tls`, `tcp` and `command`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::policy) struct Upstream {
    /// Path of its read-write socket. Of several, the first that answers is taken.
    pub(in crate::policy) unix: Option<OneOrMany<SocketPath>>,
    /// Path of its socket for read-only clients, with one path in `unix`. Default: they use `unix`,
    /// opened read-only.
    pub(in crate::policy) unix_ro: Option<SocketPath>,
    /// Name or IP address, and port, that it serves TLS on. Of several, the first that answers is
    /// taken. Default of the port: 16514.
    pub(in crate::policy) tls: Option<OneOrMany<HostText>>,
    /// Name or IP address, and port, that it serves TCP on, without TLS. Default of the port:
    /// 16509.
    pub(in crate::policy) tcp: Option<OneOrMany<HostText>>,
    /// Program and arguments whose standard input and output are the connection.
    #[schemars(length(min = 1, max = MAX_LIST))]
    pub(in crate::policy) command: Option<Vec<Word>>,
    /// With `tls`: certificates of the CAs that sign the daemon's certificate (PEM). Default:
    /// /etc/pki/CA/cacert.pem.
    pub(in crate::policy) ca: Option<FilePath>,
    /// With `tls`: certificate that the proxy shows (PEM), or `none`. Default:
    /// /etc/pki/libvirt/clientcert.pem.
    pub(in crate::policy) cert: Option<FilePath>,
    /// With `tls`: its private key (PEM). Default: /etc/pki/libvirt/private/clientkey.pem.
    pub(in crate::policy) key: Option<FilePath>,
    /// With `tls`: revoked certificates (PEM or DER). Default: /etc/pki/CA/cacrl.pem if `ca` is
    /// left out and that file exists.
    pub(in crate::policy) crl: Option<FilePath>,
    /// With `tls`: name or IP address that the daemon's certificate must be for. Default: the one
    /// in `tls`.
    pub(in crate::policy) server_name: Option<HostText>,
    /// With `tls`: oldest version that is spoken. Default: "1.2".
    pub(in crate::policy) min_version: Option<TlsVersion>,
    /// Lets `tcp` lead to other hosts unprotected: whoever is on the way can read and change
    /// everything. Default: false.
    pub(in crate::policy) unsafe_plain_tcp: Option<bool>,
    /// What the proxy proves to a daemon that asks for SASL. Default: such a daemon is not used.
    pub(in crate::policy) sasl: Option<ClientSasl>,
    /// Bound on connecting and the opening dialogue together. Default: 5s.
    pub(in crate::policy) connect_timeout: Option<Duration>,
    /// Pings to a daemon that is silent.
    pub(in crate::policy) keepalive: Option<Keepalive>,
    /// Whether the daemon is told who the client is. Default: require.
    pub(in crate::policy) identity: Option<ForwardIdentity>,
    /// A connection that is lost is made again, and its clients stay. Default: false.
    pub(in crate::policy) reconnect: Option<bool>,
    /// With `unix`: program and arguments that start the daemon where nobody listens.
    #[schemars(length(min = 1, max = MAX_LIST))]
    pub(in crate::policy) start: Option<Vec<Word>>,
    /// What may stand for each `{name}` in the addresses and `server_name` of this upstream. The
    /// client says it by the parameter of that name in its URI, or by what the group of that name in
    /// a `regex:` of the route matches.
    #[serde(default)]
    pub(in crate::policy) values: Section<OneOrMany<PatternText>>,
}

/// Whether the daemon is told who the client is.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::policy) enum ForwardIdentity {
    /// Tell it; a daemon that refuses to hear is not used.
    Require,
    /// Tell it; go on if it refuses to hear.
    Try,
    /// Do not tell: the daemon sees the proxy itself.
    Never,
}

/// Who the proxy is to a daemon, by SASL.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::policy) struct ClientSasl {
    /// What may be used, best first. Default: SCRAM-SHA-512 and SCRAM-SHA-256 with `user`, else
    /// GSSAPI.
    #[schemars(length(min = 1, max = MAX_LIST))]
    pub(in crate::policy) mechanisms: Option<Vec<Mechanism>>,
    /// Name of the user, for mechanisms with passwords.
    #[schemars(length(min = 1, max = 256))]
    pub(in crate::policy) user: Option<String>,
    /// File whose first line is the user's password.
    pub(in crate::policy) password_file: Option<FilePath>,
}

/// Name or IP address, perhaps with a port; `${NAME}` stands for an environment variable. IPv6
/// addresses are in brackets.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(extend("minLength" = 1, "maxLength" = 1024, "examples" = ["hv1.example.com", "hv1.example.com:16514", "[2001:db8::1]:16514"]))]
pub(in crate::policy) struct HostText(pub(in crate::policy) String);

/// Program or argument; `${NAME}` stands for an environment variable.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(extend("maxLength" = 4096))]
pub(in crate::policy) struct Word(pub(in crate::policy) String);
