//! `routes` as written.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde_json::Value;
use std::borrow::Cow;

use super::{MAX_LIST, Name, OneOrMany, ProbeUri, UriText};

/// One row of the route table. It has either `upstream` or `probe`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::policy) struct Route {
    /// URI that the client asks for, without transport and host; the empty string stands for a
    /// client that named none.
    pub(in crate::policy) uri: OneOrMany<UriText>,
    /// Identities, any of which the client must have. Default: everyone.
    pub(in crate::policy) clients: Option<OneOrMany<Name>>,
    /// Listeners, any of which the client must have come by. Default: all.
    pub(in crate::policy) listeners: Option<OneOrMany<Name>>,
    /// The driver daemon that serves it.
    pub(in crate::policy) upstream: Option<Name>,
    /// URI to open there. Default: the client's, without the parameters that `uri` names.
    #[schemars(length(max = 4096))]
    pub(in crate::policy) open: Option<String>,
    /// Daemons that serve networks, storage and so on in place of `upstream`, each opened when it
    /// is first needed. Default: `upstream` serves everything.
    pub(in crate::policy) drivers: Option<Drivers>,
    /// For `uri: ""`: URIs to try in turn, each sent through this table. The first whose daemon
    /// is alive serves the client.
    #[schemars(length(min = 1, max = MAX_LIST))]
    pub(in crate::policy) probe: Option<Vec<ProbeUri>>,
}

/// Daemons by driver.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::policy) struct Drivers {
    /// Networks and their ports: virtnetworkd.
    pub(in crate::policy) network: Option<DriverRoute>,
    /// Storage pools and volumes: virtstoraged.
    pub(in crate::policy) storage: Option<DriverRoute>,
    /// Devices of the host: virtnodedevd.
    pub(in crate::policy) nodedev: Option<DriverRoute>,
    /// Network filters and their bindings: virtnwfilterd.
    pub(in crate::policy) nwfilter: Option<DriverRoute>,
    /// Secrets: virtsecretd.
    pub(in crate::policy) secret: Option<DriverRoute>,
    /// Network interfaces of the host: virtinterfaced.
    pub(in crate::policy) interface: Option<DriverRoute>,
}

/// The daemon of a driver: its name alone, or with how it is opened.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(in crate::policy) enum DriverRoute {
    Upstream(Name),
    Settings(DriverSettings),
}

/// The daemon of a driver, and how it is opened.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::policy) struct DriverSettings {
    /// The driver daemon.
    pub(in crate::policy) upstream: Name,
    /// URI to open there. Default: the driver's own, such as `network:///system`.
    #[schemars(length(max = 4096))]
    pub(in crate::policy) open: Option<String>,
    /// Where the daemon cannot be reached, the route's `upstream` serves the driver. Default:
    /// false, its calls fail.
    pub(in crate::policy) fallback: Option<bool>,
}

impl DriverRoute {
    /// With all of its keys.
    pub(in crate::policy) fn settings(&self) -> Cow<'_, DriverSettings> {
        match self {
            Self::Settings(settings) => Cow::Borrowed(settings),
            Self::Upstream(name) => Cow::Owned(DriverSettings {
                upstream: name.clone(),
                open: None,
                fallback: None,
            }),
        }
    }
}

impl JsonSchema for DriverRoute {
    fn schema_name() -> Cow<'static, str> {
        "DriverRoute".into()
    }

    /// Without `anyOf`, so that a validator's error says what is wrong and where.
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = DriverSettings::json_schema(generator);
        let name = Name::json_schema(generator);
        for key in ["pattern", "patternErrorMessage"] {
            if let Some(value) = name.get(key) {
                schema.insert(key.into(), value.clone());
            }
        }
        schema.insert(
            "description".into(),
            "The driver daemon: the name of an upstream, or a mapping with it under `upstream`."
                .into(),
        );
        schema.insert("type".into(), Value::from(vec!["string", "object"]));
        schema
    }
}
