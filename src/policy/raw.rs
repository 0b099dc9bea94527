//! The policy file as written: the types that it is read into and that its schema comes from.
//! Their documentation is what an editor shows to an administrator.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

mod access;
mod routes;
mod self_tests;
mod upstreams;

pub(super) use access::{
    Access, AccessRule, AccessSettings, AnyNumber, Audit, FolderPath, ForbidWord, Guards, Max,
    Mode as AccessMode, On, PermissionText, Quota, Size, Stamp, UsageType, UuidText, Who,
};

pub(super) use routes::{DriverRoute, Drivers, Route};

pub(super) use self_tests::{As, CallText, SelfTest};

pub(super) use upstreams::{ClientSasl, ForwardIdentity, HostText, Upstream, Word};

/// Listeners, upstreams or identities of one file: far beyond use, and keeps checks that compare
/// each with each quick.
const MAX_ENTRIES: usize = 1024;
/// Routes of one file; every `CONNECT_OPEN` walks them.
const MAX_ROUTES: usize = 4096;
/// Tests of one file.
const MAX_TESTS: usize = 1024;
/// Elements of a list of names or patterns.
const MAX_LIST: usize = 256;

/// Policy of virtproxyd: where it listens, which driver daemons there are, and who is sent where.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(
    title = "virtproxyd policy",
    extend("required" = ["version", "listeners", "upstreams", "routes"])
)]
pub(super) struct File {
    /// Version of the policy language.
    #[serde(rename = "version")]
    #[schemars(extend("const" = 1))]
    _version: Option<i64>,
    /// Settings of the daemon as a whole.
    #[serde(default)]
    #[schemars(with = "Option<Daemon>")]
    pub(super) daemon: Lenient<Daemon>,
    /// Sockets that clients connect to, by name. A socket inherited from systemd belongs to the
    /// listener that its `FileDescriptorName=` names.
    #[serde(default)]
    pub(super) listeners: Section<Listener>,
    /// Driver daemons, by name.
    #[serde(default)]
    pub(super) upstreams: Section<Upstream>,
    /// Named classes of clients. A client may have several identities.
    #[serde(default)]
    pub(super) identities: Section<Rule>,
    /// Identities, any of which a client must have to tell the daemons on whose behalf it calls
    /// (`CONNECT_SET_IDENTITY`), as a gateway does. Default: nobody.
    pub(super) trusted_forwarders: Option<OneOrMany<Name>>,
    /// Who is sent where: in order, the first match wins. What matches no route is refused.
    #[serde(default)]
    #[schemars(with = "Vec<Route>", length(min = 1, max = MAX_ROUTES))]
    pub(super) routes: Vec<Lenient<Route>>,
    /// Who may do what. Default: whoever is routed may do everything.
    #[schemars(with = "Option<Access>")]
    pub(super) access: Option<Lenient<Access>>,
    /// What clients can and cannot do. A policy whose tests fail is not put in force.
    #[serde(default)]
    #[schemars(with = "Vec<SelfTest>", length(max = MAX_TESTS))]
    pub(super) tests: Vec<Lenient<SelfTest>>,
}

impl File {
    /// The file from its tree; `None` if it does not fit. The rules are taken out first, for each
    /// level of [`Lenient`] builds anew what is below it.
    pub(super) fn read(mut tree: Value) -> Option<Self> {
        let access = tree.as_object_mut()?.shift_remove("access");
        let mut file: Self = serde_json::from_value(tree).ok()?;
        file.access = access.map(Access::read).map(Lenient);
        Some(file)
    }
}

/// Settings of the daemon as a whole.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Daemon {
    /// Reload when this file changes, not only on SIGHUP. Default: false.
    pub(super) watch: Option<bool>,
    /// How long open connections may go on after SIGTERM. Default: 30s.
    pub(super) drain: Option<Duration>,
    /// Worker threads. Default: one per available core.
    #[schemars(range(min = 1, max = 1024))]
    pub(super) workers: Option<usize>,
    /// Client connections at once; more are not accepted until one ends. Default: 5000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) max_clients: Option<usize>,
    /// Connections that may be on their way through TLS handshake and authentication at once,
    /// counted apart for local and remote clients. A further one takes the place of one of the user
    /// or address that has most of them, the one that has waited longest. Default: 500.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) max_unauthenticated: Option<usize>,
}

/// A socket that clients connect to. It has either `unix` or `tcp`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Listener {
    /// Path of a UNIX socket.
    pub(super) unix: Option<SocketPath>,
    /// IP addresses and ports of TCP sockets.
    pub(super) tcp: Option<OneOrMany<TcpAddress>>,
    /// Permissions of the socket file. Default: "0600", or "0666" if `readonly`.
    pub(super) mode: Option<Mode>,
    /// Group that owns the socket file. Default: the group that the daemon runs as.
    #[schemars(length(min = 1, max = 255))]
    pub(super) group: Option<String>,
    /// How clients prove who they are, beyond what the kernel tells of the other end of a UNIX
    /// socket and a certificate of its owner. Default: none.
    pub(super) auth: Option<Auth>,
    /// Clients may only read. Default: false.
    pub(super) readonly: Option<bool>,
    /// Pings to clients that are silent.
    pub(super) keepalive: Option<Keepalive>,
    /// TLS on the TCP sockets. `{}` takes libvirt's default places.
    pub(super) tls: Option<Tls>,
    /// SASL, with `auth: sasl`.
    pub(super) sasl: Option<Sasl>,
    /// Lets this listener serve TCP without TLS, and without protection by SASL, for others than
    /// this host: whoever is on the way can read and change everything. Default: false.
    pub(super) unsafe_plain_tcp: Option<bool>,
    /// Networks of the load balancers in front, which must send a PROXY header of version 2 first.
    /// Others must not. Default: none.
    pub(super) proxy_protocol: Option<OneOrMany<NetworkText>>,
    /// Bound on PROXY header and TLS handshake together. Default: 10s.
    pub(super) handshake_timeout: Option<Duration>,
    /// Bound on authentication. Default: 60s, or 5m with polkit, which may ask a person.
    pub(super) auth_timeout: Option<Duration>,
}

/// How clients prove who they are.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Auth {
    /// Not at all.
    None,
    /// By polkit, as libvirt's `org.libvirt.unix.manage` and `org.libvirt.unix.monitor`; on UNIX
    /// sockets.
    Polkit,
    /// By SASL.
    Sasl,
}

/// TLS of a listener.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    /// The server's certificate, and after it those between it and its CA (PEM). Default:
    /// /etc/pki/libvirt/servercert.pem.
    pub(super) cert: Option<FilePath>,
    /// Its private key (PEM). Default: /etc/pki/libvirt/private/serverkey.pem.
    pub(super) key: Option<FilePath>,
    /// Certificates of the CAs that sign clients' certificates (PEM). Default:
    /// /etc/pki/CA/cacert.pem.
    pub(super) ca: Option<FilePath>,
    /// Revoked certificates (PEM or DER). Default: /etc/pki/CA/cacrl.pem if `ca` is left out and
    /// that file exists.
    pub(super) crl: Option<FilePath>,
    /// Whether clients must have a certificate. Default: required.
    pub(super) client_cert: Option<ClientCert>,
    /// Oldest version that is spoken. Default: "1.2".
    pub(super) min_version: Option<TlsVersion>,
}

/// Whether clients must have a certificate.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ClientCert {
    /// They must.
    Required,
    /// One that is shown must be good, but none need be shown.
    Optional,
    /// None is asked for: whoever reaches the port may connect.
    UnsafeNone,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
pub(super) enum TlsVersion {
    /// TLS 1.2 and later.
    #[serde(rename = "1.2")]
    Tls12,
    /// TLS 1.3.
    #[serde(rename = "1.3")]
    Tls13,
}

/// SASL of a listener.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Sasl {
    /// What clients may choose from. Default: SCRAM-SHA-256.
    #[schemars(length(min = 1, max = MAX_LIST))]
    pub(super) mechanisms: Option<Vec<Mechanism>>,
    /// File with the verifiers of passwords, made by `virtproxyd passwd`. SCRAM-SHA-256,
    /// SCRAM-SHA-512 and PLAIN need it.
    pub(super) passwords: Option<FilePath>,
    /// What of the client's certificate is the user of EXTERNAL. Default: cn.
    pub(super) external_user: Option<ExternalUser>,
    /// Strength, in bits of a key, of the security layer that GSSAPI puts around a connection
    /// without TLS. Kerberos' tokens promise 128 at the most. Default: 56.
    #[schemars(range(min = 56, max = 128))]
    pub(super) min_ssf: Option<u16>,
}

/// A SASL mechanism.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
pub(super) enum Mechanism {
    /// Password, proven without being sent.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// The same with a longer hash.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
    /// Password, sent as it is; never on TCP without TLS.
    #[serde(rename = "PLAIN")]
    Plain,
    /// The client's certificate.
    #[serde(rename = "EXTERNAL")]
    External,
    /// Kerberos. The keys of the service are in Kerberos' own keytab, or in the one that KRB5_KTNAME
    /// names in the daemon's environment.
    #[serde(rename = "GSSAPI")]
    Gssapi,
}

/// What of a certificate is the user's name.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum ExternalUser {
    /// The common name; a certificate with none or several is refused.
    Cn,
    /// The whole distinguished name.
    Dn,
}

/// When to ask a silent peer whether it lives, and when to give it up.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Keepalive {
    /// Silence after which a ping is sent; "never" (or -1) sends none. Default: 5s.
    pub(super) interval: Option<KeepaliveInterval>,
    /// Unanswered pings after which the connection is closed; 0 closes at the first silence.
    /// Default: 5.
    #[schemars(range(max = 1000))]
    pub(super) count: Option<u32>,
}

/// Who belongs to an identity: exactly one of these keys.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub(super) struct Rule {
    /// At least one of these holds.
    #[schemars(length(min = 1, max = MAX_LIST))]
    pub(super) any: Option<Vec<Rule>>,
    /// Every one of these holds.
    #[schemars(length(min = 1, max = MAX_LIST))]
    pub(super) all: Option<Vec<Rule>>,
    /// This does not hold.
    pub(super) not: Option<Box<Rule>>,
    /// What the kernel tells of the process at the other end of a UNIX socket.
    pub(super) unix: Option<UnixRule>,
    /// What the client's certificate says, on listeners with TLS.
    pub(super) x509: Option<X509Rule>,
    /// Who the client is by SASL, on listeners with `auth: sasl`.
    pub(super) sasl: Option<SaslRule>,
    /// Network that the client connects from by TCP.
    pub(super) address: Option<OneOrMany<NetworkText>>,
    /// Name of the listener that the client came by.
    pub(super) listener: Option<OneOrMany<PatternText>>,
    /// The client has this other identity.
    pub(super) identity: Option<Name>,
}

/// What the kernel tells of the process at the other end of a UNIX socket. All keys that are
/// there must match; a name that this host does not know matches nothing.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub(super) struct UnixRule {
    /// Name of the user.
    pub(super) user: Option<OneOrMany<PatternText>>,
    /// Name of the primary group or of any supplementary one.
    pub(super) group: Option<OneOrMany<PatternText>>,
    /// Number of the user.
    pub(super) uid: Option<OneOrMany<Id>>,
    /// Number of the primary group or of any supplementary one.
    pub(super) gid: Option<OneOrMany<Id>>,
    /// Number of the process.
    pub(super) pid: Option<OneOrMany<Id>>,
    /// SELinux (or other LSM) label of the process.
    pub(super) selinux: Option<OneOrMany<PatternText>>,
}

/// What the client's certificate says, in whatever order it says it. All keys that are there must
/// match; where the certificate has several values of a kind, one that matches is enough.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub(super) struct X509Rule {
    /// Distinguished name as a whole, in the form of RFC 4514: `CN=ci,OU=Ops,O=Acme,C=DE`. Rather
    /// use its parts: a CA may order them otherwise.
    pub(super) dn: Option<OneOrMany<PatternText>>,
    /// Common name.
    pub(super) cn: Option<OneOrMany<PatternText>>,
    /// Organisation.
    pub(super) o: Option<OneOrMany<PatternText>>,
    /// Organisational unit.
    pub(super) ou: Option<OneOrMany<PatternText>>,
    /// Country.
    pub(super) c: Option<OneOrMany<PatternText>>,
    /// Locality.
    pub(super) l: Option<OneOrMany<PatternText>>,
    /// State or province.
    pub(super) st: Option<OneOrMany<PatternText>>,
    /// E-mail address in the distinguished name.
    pub(super) email: Option<OneOrMany<PatternText>>,
    /// DNS name among the alternative names, in whatever case.
    pub(super) dns: Option<OneOrMany<PatternText>>,
    /// IP address among the alternative names.
    pub(super) ip: Option<OneOrMany<NetworkText>>,
    /// URI among the alternative names, such as a SPIFFE id.
    pub(super) uri: Option<OneOrMany<PatternText>>,
    /// E-mail address among the alternative names.
    pub(super) san_email: Option<OneOrMany<PatternText>>,
    /// SHA-256 of the certificate.
    pub(super) fingerprint: Option<OneOrMany<Fingerprint>>,
    /// Distinguished name of the CA, in the form of RFC 4514.
    pub(super) issuer: Option<OneOrMany<PatternText>>,
    /// Serial number.
    pub(super) serial: Option<OneOrMany<SerialNumber>>,
}

/// Who the client is by SASL. All keys that are there must match.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub(super) struct SaslRule {
    /// Name of the user; of Kerberos with its realm.
    pub(super) user: Option<OneOrMany<PatternText>>,
    /// Mechanism that proved it.
    pub(super) mechanism: Option<OneOrMany<PatternText>>,
}

macro_rules! text {
    ($(#[$meta:meta])* $name:ident) => {
        #[derive(Debug, Clone, Deserialize, JsonSchema)]
        $(#[$meta])*
        pub(super) struct $name(pub(super) String);
    };
}

text! {
    /// Name of a listener, upstream or identity.
    #[schemars(extend(
        "pattern" = "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$",
        "patternErrorMessage" = "a name has letters, digits, `_`, `.` and `-`, and at most 64 of them"
    ))]
    Name
}
text! {
    /// Absolute path of a UNIX socket, at most 107 bytes; `${NAME}` stands for an environment
    /// variable.
    #[schemars(extend("minLength" = 1, "examples" = ["/run/libvirt/libvirt-sock", "${XDG_RUNTIME_DIR}/libvirt/libvirt-sock"]))]
    SocketPath
}
text! {
    /// IP address and port of a TCP socket. `[::]` and `0.0.0.0` are all addresses, each of its
    /// own kind alone.
    #[schemars(extend("minLength" = 1, "maxLength" = 64, "examples" = ["[::]:16514", "0.0.0.0:16514", "127.0.0.1:16509"]))]
    TcpAddress
}
text! {
    /// A network in CIDR notation, or one IP address.
    #[schemars(extend("minLength" = 1, "maxLength" = 64, "examples" = ["192.0.2.0/24", "2001:db8::/32", "::1"]))]
    NetworkText
}
text! {
    /// Absolute path of a file; `${NAME}` stands for an environment variable.
    #[schemars(extend("minLength" = 1, "maxLength" = 4095, "examples" = ["/etc/pki/libvirt/servercert.pem"]))]
    FilePath
}
text! {
    /// 64 hexadecimal digits in either case, with or without colons.
    #[schemars(extend(
        "pattern" = "^([0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2}$",
        "patternErrorMessage" = "a fingerprint is SHA-256: 64 hexadecimal digits, with or without colons, as `openssl x509 -fingerprint -sha256` prints them"
    ))]
    Fingerprint
}
text! {
    /// Hexadecimal digits in either case, with or without colons.
    #[schemars(extend(
        "pattern" = "^[0-9A-Fa-f]([0-9A-Fa-f:]{0,126}[0-9A-Fa-f])?$",
        "patternErrorMessage" = "a serial number is hexadecimal digits in quotes, with or without colons, as `openssl x509 -serial` prints them"
    ))]
    SerialNumber
}
text! {
    /// A length of time: a whole number followed by `ms`, `s`, `m` or `h`.
    #[schemars(extend(
        "pattern" = "^[0-9]{1,9}(ms|s|m|h)$",
        "patternErrorMessage" = "a length of time is a whole number followed by `ms`, `s`, `m` or `h`, such as \"30s\"",
        "examples" = ["500ms", "5s", "2m", "1h"]
    ))]
    Duration
}
text! {
    /// Permissions of a file, in octal and in quotes.
    #[schemars(extend(
        "pattern" = "^0?[0-7]{3}$",
        "patternErrorMessage" = "a mode is three octal digits, such as \"0660\"",
        "examples" = ["0600", "0660", "0666"]
    ))]
    Mode
}
text! {
    /// A pattern: `*` stands for any text, `?` for any one character; or `regex:` and a regular
    /// expression that matches the whole.
    #[schemars(extend("minLength" = 1, "maxLength" = 1024))]
    PatternText
}
text! {
    /// A pattern over URIs, such as `qemu:///*` or `qemu:///system?host=hv2`. A parameter that it
    /// does not name makes the URI not match, unless the pattern has the parameter `*`. Or `regex:`
    /// and a regular expression over the whole URI. The empty string: the client named no URI.
    #[schemars(extend("maxLength" = 1024, "examples" = ["qemu:///system", "qemu:///system?host=hv2", "*?*", ""]))]
    UriText
}
text! {
    /// A URI that is sent through the route table.
    #[schemars(extend("minLength" = 1, "maxLength" = 4096, "examples" = ["qemu:///system"]))]
    ProbeUri
}

/// A number, or a pattern over its digits.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum Id {
    Number(u32),
    Text(String),
}

impl JsonSchema for Id {
    fn schema_name() -> Cow<'static, str> {
        "Id".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A number, or a pattern over its decimal digits.",
            "type": ["integer", "string"],
            "minimum": 0,
            "maximum": u32::MAX,
            "minLength": 1,
            "maxLength": 1024,
        })
    }
}

/// Length of time, or never.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum KeepaliveInterval {
    /// -1, libvirt's "never"; the schema leaves no other.
    Number(i64),
    Text(String),
}

impl JsonSchema for KeepaliveInterval {
    fn schema_name() -> Cow<'static, str> {
        "KeepaliveInterval".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A length of time, or \"never\" (also -1, as libvirt writes it).",
            "type": ["string", "integer"],
            "pattern": "^(never|[0-9]{1,9}(ms|s|m|h))$",
            "patternErrorMessage": "an interval is a length of time such as \"5s\", or \"never\"",
            "minimum": -1,
            "maximum": -1,
            "examples": ["5s", "never"],
        })
    }
}

/// One value, or a list that means any of them.
#[derive(Debug, Clone)]
pub(super) enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    /// The values.
    pub(super) fn as_slice(&self) -> &[T] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Many(values) => values,
        }
    }

    /// The same with other values.
    pub(super) fn map<U>(&self, with: impl Fn(&T) -> U) -> OneOrMany<U> {
        match self {
            Self::One(value) => OneOrMany::One(with(value)),
            Self::Many(values) => OneOrMany::Many(values.iter().map(with).collect()),
        }
    }
}

/// Without a detour over [`Value`]: long lists of rules are full of these.
impl<'de, T: DeserializeOwned> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrManyVisitor<T>(PhantomData<T>);

        impl<'de, T: DeserializeOwned> Visitor<'de> for OneOrManyVisitor<T> {
            type Value = OneOrMany<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value or a list")
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Self::Value, E> {
                one(value)
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
                one(value)
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Self::Value, E> {
                one(value)
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Self::Value, E> {
                one(value)
            }

            fn visit_string<E: de::Error>(self, value: String) -> Result<Self::Value, E> {
                one(value)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(OneOrMany::One)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(seq)).map(OneOrMany::Many)
            }
        }

        fn one<T: DeserializeOwned, E: de::Error>(
            value: impl Into<Value>,
        ) -> Result<OneOrMany<T>, E> {
            let one = serde_json::from_value(value.into());
            one.map(OneOrMany::One).map_err(E::custom)
        }

        deserializer.deserialize_any(OneOrManyVisitor(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("OneOrMany{}", T::schema_name()).into()
    }

    /// `T` that may also be a list. Without `anyOf`, so that a validator's error says which of
    /// the two went wrong and where.
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let items = generator.subschema_for::<T>();
        let mut schema = T::json_schema(generator);
        let mut types = match schema.get("type") {
            Some(Value::Array(types)) => types.clone(),
            Some(one) => vec![one.clone()],
            None => Vec::new(),
        };
        types.push("array".into());
        schema.insert("type".into(), types.into());
        schema.insert("items".into(), items.to_value());
        schema.insert("minItems".into(), 1.into());
        schema.insert("maxItems".into(), MAX_LIST.into());
        schema
    }
}

/// A value that may be unreadable on its own: then the schema has said why, and the rest of the
/// file is still checked.
#[derive(Debug, Clone)]
pub(super) struct Lenient<T>(pub(super) Option<T>);

impl<T> Default for Lenient<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(
            serde_json::from_value(Value::deserialize(deserializer)?).ok(),
        ))
    }
}

/// Named entries in file order.
#[derive(Debug, Clone)]
pub(super) struct Section<T>(pub(super) Vec<(String, Lenient<T>)>);

impl<T> Default for Section<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Section<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Value::Object(entries) = Value::deserialize(deserializer)? else {
            return Ok(Self::default());
        };
        let read = |(name, value)| (name, Lenient(serde_json::from_value(value).ok()));
        Ok(Self(entries.into_iter().map(read).collect()))
    }
}

impl<T: JsonSchema> JsonSchema for Section<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Section{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let names = generator.subschema_for::<Name>();
        let values = generator.subschema_for::<T>();
        json_schema!({
            "type": "object",
            "propertyNames": names,
            "additionalProperties": values,
            "minProperties": 1,
            "maxProperties": MAX_ENTRIES,
        })
    }
}
