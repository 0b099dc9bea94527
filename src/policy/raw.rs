//! The policy file as written: the types that it is read into and that its schema comes from.
//! Their documentation is what an editor shows to an administrator.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer};
use serde_json::Value;
use std::borrow::Cow;

/// Listeners, upstreams or identities of one file: far beyond use, and keeps checks that compare
/// each with each quick.
const MAX_ENTRIES: usize = 1024;
/// Routes of one file; every `CONNECT_OPEN` walks them.
const MAX_ROUTES: usize = 4096;
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
    /// Who is sent where: in order, the first match wins. What matches no route is refused.
    #[serde(default)]
    #[schemars(with = "Vec<Route>", length(min = 1, max = MAX_ROUTES))]
    pub(super) routes: Vec<Lenient<Route>>,
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
}

/// A socket that clients connect to.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Listener {
    /// Path of a UNIX socket.
    pub(super) unix: SocketPath,
    /// Permissions of the socket file. Default: "0600", or "0666" if `readonly`.
    pub(super) mode: Option<Mode>,
    /// Group that owns the socket file. Default: the group that the daemon runs as.
    #[schemars(length(min = 1, max = 255))]
    pub(super) group: Option<String>,
    /// How clients prove who they are; the kernel tells who is at the other end of a UNIX socket
    /// in any case. Default: none.
    #[serde(rename = "auth")]
    pub(super) _auth: Option<Auth>,
    /// Clients may only read. Default: false.
    pub(super) readonly: Option<bool>,
    /// Pings to clients that are silent.
    pub(super) keepalive: Option<Keepalive>,
}

/// How clients prove who they are.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Auth {
    /// Not at all.
    None,
}

/// A driver daemon.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Upstream {
    /// Path of its read-write socket.
    pub(super) unix: SocketPath,
    /// Path of its socket for read-only clients. Default: they use `unix`, opened read-only.
    pub(super) unix_ro: Option<SocketPath>,
    /// Bound on connecting and the opening dialogue together. Default: 5s.
    pub(super) connect_timeout: Option<Duration>,
    /// Pings to a daemon that is silent.
    pub(super) keepalive: Option<Keepalive>,
    /// Whether the daemon is told who the client is. Default: require.
    pub(super) identity: Option<ForwardIdentity>,
}

/// Whether the daemon is told who the client is.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum ForwardIdentity {
    /// Tell it; a daemon that refuses to hear is not used.
    Require,
    /// Tell it; go on if it refuses to hear.
    Try,
    /// Do not tell: the daemon sees the proxy itself.
    Never,
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

/// One row of the route table. It has either `upstream` or `probe`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Route {
    /// URI that the client asks for, without transport and host; the empty string stands for a
    /// client that named none.
    pub(super) uri: OneOrMany<UriText>,
    /// Identities, any of which the client must have. Default: everyone.
    pub(super) clients: Option<OneOrMany<Name>>,
    /// Listeners, any of which the client must have come by. Default: all.
    pub(super) listeners: Option<OneOrMany<Name>>,
    /// The driver daemon that serves it.
    pub(super) upstream: Option<Name>,
    /// URI to open there. Default: the client's, without the parameters that `uri` names.
    #[schemars(length(max = 4096))]
    pub(super) open: Option<String>,
    /// For `uri: ""`: URIs to try in turn, each sent through this table. The first whose daemon
    /// is alive serves the client.
    #[schemars(length(min = 1, max = MAX_LIST))]
    pub(super) probe: Option<Vec<ProbeUri>>,
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

impl<'de, T: DeserializeOwned> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let parsed = if value.is_array() {
            serde_json::from_value(value).map(Self::Many)
        } else {
            serde_json::from_value(value).map(Self::One)
        };
        parsed.map_err(serde::de::Error::custom)
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
