//! `access` as written.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer};
use serde_json::Value;
use std::borrow::Cow;

use super::{FilePath, Lenient, MAX_LIST, Name, OneOrMany, PatternText, Section};
use crate::policy::access::Permission;
use crate::policy::access::sets::NAMED_SETS;
use crate::policy::guard::Forbid;

/// Rules of one file.
const MAX_RULES: usize = 4096;
/// Quotas, owner marks of one file.
const MAX_QUOTAS: usize = 1024;
const MAX_MARKS: usize = 16;

/// What `access` says: a list of rules alone, or a mapping that has them under `rules`.
#[derive(Debug, Clone)]
pub(in crate::policy) enum Access {
    Rules(Vec<Lenient<AccessRule>>),
    Settings(Box<AccessSettings>),
}

impl Access {
    /// From its tree; `None` if it does not fit.
    pub(super) fn read(tree: Value) -> Option<Self> {
        let rules = |rules: Vec<Value>| {
            let rule = |rule| Lenient(serde_json::from_value(rule).ok());
            rules.into_iter().map(rule).collect()
        };
        match tree {
            Value::Array(list) => Some(Self::Rules(rules(list))),
            Value::Object(mut map) => {
                let list = map.shift_remove("rules");
                let settings = serde_json::from_value(Value::Object(map));
                let mut settings: Box<AccessSettings> = settings.ok()?;
                if let Some(Value::Array(list)) = list {
                    settings.rules = rules(list);
                }
                Some(Self::Settings(settings))
            }
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Access {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = Self::read(Value::deserialize(deserializer)?);
        read.ok_or_else(|| serde::de::Error::custom("no access rules"))
    }
}

impl JsonSchema for Access {
    fn schema_name() -> Cow<'static, str> {
        "Access".into()
    }

    /// Without `anyOf`, so that a validator's error says what is wrong and where.
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let rule = generator.subschema_for::<AccessRule>();
        let mut schema = AccessSettings::json_schema(generator);
        schema.insert(
            "description".into(),
            "Who may do what. A list of rules, or a mapping with `rules` and settings. A call is \
             allowed if some rule allows it and none denies it; order carries no meaning. Absent: \
             whoever is routed may do everything."
                .into(),
        );
        schema.insert("type".into(), Value::from(vec!["array", "object"]));
        schema.insert("items".into(), rule.to_value());
        schema.insert("minItems".into(), 1.into());
        schema.insert("maxItems".into(), MAX_RULES.into());
        schema
    }
}

/// Rules and what goes with them.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("required" = ["rules"]))]
pub(in crate::policy) struct AccessSettings {
    /// Whether refusals are carried out. Default: enforce.
    pub(in crate::policy) mode: Option<Mode>,
    /// Where, besides in virtproxyd's own mark, a domain's owner is written in its metadata. All
    /// that are there must name the same owner.
    #[serde(default)]
    #[schemars(with = "Vec<Mark>", length(min = 1, max = MAX_MARKS))]
    pub(in crate::policy) owner: Vec<Lenient<Mark>>,
    /// Sets of permissions, by name, to be named where permissions are.
    #[serde(default)]
    pub(in crate::policy) sets: Section<OneOrMany<PermissionText>>,
    /// What identities may use in total.
    #[serde(default)]
    #[schemars(with = "Vec<Quota>", length(max = MAX_QUOTAS))]
    pub(in crate::policy) quotas: Vec<Lenient<Quota>>,
    /// What is recorded of decisions, and where.
    #[schemars(with = "Option<Audit>")]
    pub(in crate::policy) audit: Option<Lenient<Audit>>,
    /// The rules.
    #[serde(default)]
    #[schemars(with = "Vec<AccessRule>", length(min = 1, max = MAX_RULES))]
    pub(in crate::policy) rules: Vec<Lenient<AccessRule>>,
}

/// Whether refusals are carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::policy) enum Mode {
    /// They are.
    Enforce,
    /// They are recorded only.
    Shadow,
}

/// Where a domain's owner is written in its metadata.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::policy) struct Mark {
    /// XML namespace of the element in `<metadata>`.
    #[schemars(length(min = 1, max = 1024), extend("examples" = ["http://openstack.org/xmlns/libvirt/nova/1.1"]))]
    pub(in crate::policy) namespace: String,
    /// Names of the elements on the way from that element to the one that says it, with `/`
    /// between them. Default: that element itself.
    #[schemars(extend(
        "pattern" = "^[A-Za-z_][A-Za-z0-9_.-]*(/[A-Za-z_][A-Za-z0-9_.-]*)*$",
        "patternErrorMessage" = "names of elements without prefix, with `/` between them, such as `owner/project`",
        "maxLength" = 256,
        "examples" = ["owner/project"]
    ))]
    pub(in crate::policy) element: Option<String>,
    /// Attribute of it that says it. Default: its text does.
    #[schemars(extend(
        "pattern" = "^[A-Za-z_][A-Za-z0-9_.-]*$",
        "patternErrorMessage" = "the name of an attribute without prefix",
        "maxLength" = 64,
        "examples" = ["uuid"]
    ))]
    pub(in crate::policy) attribute: Option<String>,
}

/// One rule. It has either `allow` or `deny`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::policy) struct AccessRule {
    /// Identities, any of which the client must have; "*" is everyone.
    pub(in crate::policy) who: OneOrMany<Who>,
    /// What they may do.
    pub(in crate::policy) allow: Option<OneOrMany<PermissionText>>,
    /// What they may not do, whatever other rules allow.
    pub(in crate::policy) deny: Option<OneOrMany<PermissionText>>,
    /// Which objects the rule is about, by class. Of a class that is not named here, it is about
    /// all.
    pub(in crate::policy) on: Option<On>,
    /// What the content of calls must keep to that this rule allows: XML, paths, commands. What
    /// cannot be understood is refused.
    pub(in crate::policy) guards: Option<Guards>,
    /// Owner that is written into what is created without one. `true`: the one that `on` names.
    pub(in crate::policy) stamp: Option<Stamp>,
    /// With `shadow`, what this rule denies and what its guards refuse is recorded, not refused.
    /// What it allows is allowed. Default: enforce.
    pub(in crate::policy) mode: Option<Mode>,
}

/// Which objects a rule is about.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub(in crate::policy) struct On {
    /// Domains, with their snapshots and checkpoints.
    pub(in crate::policy) domain: Option<OneOrMany<OnDomain>>,
    /// Network interfaces of the host.
    pub(in crate::policy) interface: Option<OneOrMany<OnInterface>>,
    /// Virtual networks.
    pub(in crate::policy) network: Option<OneOrMany<OnNetwork>>,
    /// Ports of virtual networks.
    pub(in crate::policy) network_port: Option<OneOrMany<OnNetworkPort>>,
    /// Devices of the host.
    pub(in crate::policy) node_device: Option<OneOrMany<OnNodeDevice>>,
    /// Network filters.
    pub(in crate::policy) nwfilter: Option<OneOrMany<OnNwfilter>>,
    /// Network filters in use.
    pub(in crate::policy) nwfilter_binding: Option<OneOrMany<OnNwfilterBinding>>,
    /// Secrets.
    pub(in crate::policy) secret: Option<OneOrMany<OnSecret>>,
    /// Storage pools.
    pub(in crate::policy) storage_pool: Option<OneOrMany<OnStoragePool>>,
    /// Storage volumes.
    pub(in crate::policy) storage_vol: Option<OneOrMany<OnStorageVol>>,
}

macro_rules! on {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        #[schemars(extend("minProperties" = 1))]
        pub(in crate::policy) struct $name {
            $($(#[$field_meta])* pub(in crate::policy) $field: Option<OneOrMany<$type>>,)+
        }
    };
}

on! {
    /// Conditions on domains: all that are there must hold.
    OnDomain {
        /// Name.
        name: PatternText,
        /// UUID.
        uuid: UuidText,
        /// To whom it belongs, as its metadata say.
        owner: PatternText,
    }
}
on! {
    /// Conditions on interfaces of the host: all that are there must hold.
    OnInterface {
        /// Name.
        name: PatternText,
        /// Hardware address, in whatever case.
        mac: PatternText,
    }
}
on! {
    /// Conditions on networks: all that are there must hold.
    OnNetwork {
        /// Name.
        name: PatternText,
        /// UUID.
        uuid: UuidText,
    }
}
on! {
    /// Conditions on ports of networks: all that are there must hold.
    OnNetworkPort {
        /// Name of the network.
        network: PatternText,
        /// UUID of the port.
        uuid: UuidText,
    }
}
on! {
    /// Conditions on devices of the host.
    OnNodeDevice {
        /// Name.
        name: PatternText,
    }
}
on! {
    /// Conditions on network filters: all that are there must hold.
    OnNwfilter {
        /// Name.
        name: PatternText,
        /// UUID.
        uuid: UuidText,
    }
}
on! {
    /// Conditions on network filters in use: all that are there must hold.
    OnNwfilterBinding {
        /// Name of the port device.
        name: PatternText,
        /// Name of the filter.
        filter: PatternText,
    }
}
on! {
    /// Conditions on secrets: all that are there must hold.
    OnSecret {
        /// UUID.
        uuid: UuidText,
        /// What it is for.
        usage_type: UsageType,
        /// The one thing that it is for, such as a volume's path.
        usage: PatternText,
    }
}
on! {
    /// Conditions on storage pools: all that are there must hold.
    OnStoragePool {
        /// Name.
        name: PatternText,
        /// UUID.
        uuid: UuidText,
    }
}
on! {
    /// Conditions on volumes: all that are there must hold.
    OnStorageVol {
        /// Name of the pool.
        pool: PatternText,
        /// Name.
        name: PatternText,
        /// Key, which for files is the path.
        key: PatternText,
    }
}

/// What the content of calls must keep to. A list that is absent is without limit, unless its own
/// default is another; an empty one admits nothing.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub(in crate::policy) struct Guards {
    /// Folders of the host that disks, images, sockets and every other path must be in, after
    /// `..` is resolved in the text. Symbolic links are not followed: keep tenants from making
    /// them there.
    pub(in crate::policy) host_paths: Option<AnyNumber<FolderPath>>,
    /// Networks that interfaces may be on.
    pub(in crate::policy) networks: Option<AnyNumber<PatternText>>,
    /// Pools that volumes may be named of. Default: any, beside `host_paths` none.
    pub(in crate::policy) pools: Option<AnyNumber<PatternText>>,
    /// Bridges and other interfaces of the host that interfaces may be put on. Default: any,
    /// beside `networks` none.
    pub(in crate::policy) bridges: Option<AnyNumber<PatternText>>,
    /// What must not be there at all; `all` is everything that there is a word for, also in later
    /// versions.
    #[schemars(length(min = 1, max = MAX_LIST))]
    pub(in crate::policy) forbid: Option<Vec<ForbidWord>>,
    /// How much a domain may have.
    pub(in crate::policy) max: Option<Max>,
    /// Commands that may be given to QEMU's monitor, such as `query-*`. Default: any, beside
    /// `host_paths`, `networks`, `bridges`, `pools` or `max` none.
    pub(in crate::policy) monitor_commands: Option<AnyNumber<PatternText>>,
    /// Commands that may be given to the guest's agent, such as `guest-ping`.
    pub(in crate::policy) agent_commands: Option<AnyNumber<PatternText>>,
}

/// How much a domain may have.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub(in crate::policy) struct Max {
    /// Virtual CPUs.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(in crate::policy) vcpus: Option<u32>,
    /// Memory.
    pub(in crate::policy) memory: Option<Size>,
    /// Disks.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub(in crate::policy) disks: Option<u32>,
}

/// What an identity may use in total. Counted are the domains that its rules let it start or
/// define, and the volumes that they let it create.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::policy) struct Quota {
    /// The identity; of several, each for itself.
    pub(in crate::policy) who: OneOrMany<Name>,
    /// Domains, defined or running.
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub(in crate::policy) domains: Option<u64>,
    /// Running domains.
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub(in crate::policy) running: Option<u64>,
    /// Virtual CPUs of all of them.
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub(in crate::policy) vcpus: Option<u64>,
    /// Memory of all of them.
    pub(in crate::policy) memory: Option<Size>,
    /// Capacity of all volumes, by name of the pool, which may be a pattern.
    pub(in crate::policy) volumes: Option<Volumes>,
}

/// What is recorded of decisions, and where. Refusals always are.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::policy) struct Audit {
    /// Record also what is allowed, of calls that need any of these.
    pub(in crate::policy) allowed: Option<OneOrMany<PermissionText>>,
    /// File that records are appended to, one line of JSON each.
    pub(in crate::policy) file: Option<FilePath>,
    /// Write records to the journal. Default: true.
    pub(in crate::policy) journal: Option<bool>,
}

/// Owner that is written into what is created.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(in crate::policy) enum Stamp {
    Named(bool),
    Text(String),
}

impl JsonSchema for Stamp {
    fn schema_name() -> Cow<'static, str> {
        "Stamp".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "An owner, or `true` for the only one that `on` names.",
            "type": ["boolean", "string"],
            "minLength": 1,
            "maxLength": 256,
        })
    }
}

/// A word of `forbid`, or all of them.
#[derive(Debug, Clone, Copy)]
pub(in crate::policy) enum ForbidWord {
    All,
    Word(Forbid),
}

impl<'de> Deserialize<'de> for ForbidWord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        if value == "all" {
            return Ok(Self::All);
        }
        let word = serde_json::from_value(value).map(Self::Word);
        word.map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for ForbidWord {
    fn schema_name() -> Cow<'static, str> {
        "ForbidWord".into()
    }

    /// The words and `all`, in one list.
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = Forbid::json_schema(generator);
        if let Some(Value::Array(choices)) = schema.get_mut("oneOf") {
            let all = "Everything that there is a word for, also in later versions.";
            choices.push(serde_json::json!({"const": "all", "description": all, "type": "string"}));
        }
        schema.insert("description".into(), "Something to forbid.".into());
        schema
    }
}

/// Sizes by name of a pool.
#[derive(Debug, Clone)]
pub(in crate::policy) struct Volumes(pub(in crate::policy) Vec<(String, Size)>);

impl<'de> Deserialize<'de> for Volumes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map = serde_json::Map::deserialize(deserializer)?;
        let read = |(name, value)| serde_json::from_value(value).map(|size| (name, size));
        let sizes = map.into_iter().map(read).collect::<Result<_, _>>();
        sizes.map(Self).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Volumes {
    fn schema_name() -> Cow<'static, str> {
        "Volumes".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let sizes = generator.subschema_for::<Size>();
        json_schema!({
            "description": "Sizes by name of a pool, which may be a pattern.",
            "type": "object",
            "additionalProperties": sizes,
            "minProperties": 1,
            "maxProperties": MAX_LIST,
        })
    }
}

/// One value, or a list of them that may be empty.
#[derive(Debug, Clone)]
pub(in crate::policy) struct AnyNumber<T>(pub(in crate::policy) OneOrMany<T>);

impl<'de, T: DeserializeOwned> Deserialize<'de> for AnyNumber<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        OneOrMany::deserialize(deserializer).map(Self)
    }
}

impl<T: JsonSchema> JsonSchema for AnyNumber<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("AnyNumber{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = OneOrMany::<T>::json_schema(generator);
        schema.remove("minItems");
        schema
    }
}

/// A permission, a pattern over permissions, or a named set.
#[derive(Debug, Clone, Deserialize)]
pub(in crate::policy) struct PermissionText(pub(in crate::policy) String);

impl JsonSchema for PermissionText {
    fn schema_name() -> Cow<'static, str> {
        "PermissionText".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // What an editor offers.
        let sets = NAMED_SETS.iter().map(|set| set.name.to_owned());
        let permissions = Permission::all().map(|permission| permission.to_string());
        let examples: Vec<String> = ["*".to_owned(), "domain:*".to_owned()]
            .into_iter()
            .chain(sets)
            .chain(permissions)
            .collect();
        json_schema!({
            "description": "One of libvirt's permissions (`domain:start`, words joined by `_` or \
                `-`), a pattern over them (`domain:*`, `*:read`, `*` for everything), or the name \
                of a set: `read-only`, `viewer`, `operator`, `owner`, `volume-owner`, or one of \
                `sets`.",
            "type": "string",
            "minLength": 1,
            "maxLength": 128,
            "examples": examples,
        })
    }
}

macro_rules! text {
    ($(#[$meta:meta])* $name:ident) => {
        #[derive(Debug, Clone, Deserialize, JsonSchema)]
        $(#[$meta])*
        pub(in crate::policy) struct $name(pub(in crate::policy) String);
    };
}

text! {
    /// Name of an identity, or "*" for everyone.
    #[schemars(extend(
        "pattern" = "^([*]|[A-Za-z0-9_][A-Za-z0-9_.-]{0,63})$",
        "patternErrorMessage" = "the name of an identity, or \"*\" for everyone"
    ))]
    Who
}
text! {
    /// What a secret is for: `none`, `volume`, `ceph`, `iscsi`, `tls` or `vtpm`.
    #[schemars(extend(
        "pattern" = "^(none|volume|ceph|iscsi|tls|vtpm)$",
        "patternErrorMessage" = "a secret is for `none`, `volume`, `ceph`, `iscsi`, `tls` or `vtpm`",
        "examples" = ["none", "volume", "ceph", "iscsi", "tls", "vtpm"]
    ))]
    UsageType
}
text! {
    /// A UUID, or a pattern over its lower-case text with hyphens.
    #[schemars(extend("minLength" = 1, "maxLength" = 1024, "examples" = ["7a3b1c9e-0a3c-4f21-9b66-2a54b1f2c6d8"]))]
    UuidText
}
text! {
    /// Absolute path of a folder of the host; `${NAME}` stands for an environment variable.
    #[schemars(extend("minLength" = 1, "maxLength" = 4095, "examples" = ["/srv/acme"]))]
    FolderPath
}
text! {
    /// A size: a whole number followed by `B`, `KiB`, `MiB`, `GiB`, `TiB` or `PiB`.
    #[schemars(extend(
        "pattern" = "^[0-9]{1,15}(B|KiB|MiB|GiB|TiB|PiB)$",
        "patternErrorMessage" = "a size is a whole number followed by `B`, `KiB`, `MiB`, `GiB`, `TiB` or `PiB`, such as \"64GiB\"",
        "examples" = ["64GiB", "2TiB"]
    ))]
    Size
}
