//! Stand-in for the policy layer: reads the `daemon` and `listeners` parts of the file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::Deserialize;

use crate::policy::model::{Daemon, Keepalive, ListenAddress, Listener, Policy};

/// A policy with its number.
#[derive(Debug)]
pub(crate) struct Generation {
    /// Counts from 1 and up by one with every swap.
    pub(crate) number: u64,
    /// The file that it was read from.
    pub(crate) file: String,
    /// The policy itself.
    pub(crate) policy: Policy,
}

/// Holds the policy in force.
#[derive(Debug)]
pub(crate) struct Store {
    current: ArcSwap<Generation>,
}

impl Store {
    /// Puts the first policy in force, as generation 1.
    pub(crate) fn new(file: impl Into<String>, policy: Policy) -> Self {
        let first = Generation {
            number: 1,
            file: file.into(),
            policy,
        };
        Self {
            current: ArcSwap::from_pointee(first),
        }
    }

    /// The policy in force, to keep.
    pub(crate) fn load(&self) -> Arc<Generation> {
        self.current.load_full()
    }

    /// Replaces the policy in force and returns the new generation's number.
    pub(crate) fn swap(&self, file: impl Into<String>, policy: Policy) -> u64 {
        let number = self.current.load().number + 1;
        self.current.store(Arc::new(Generation {
            number,
            file: file.into(),
            policy,
        }));
        number
    }
}

/// The built-in policy, for when there is no file.
pub(crate) fn builtin(root: bool) -> &'static str {
    if root {
        "listeners:\n  main: { unix: /run/libvirt/libvirt-sock, mode: '0666' }\n"
    } else {
        "listeners:\n  main: { unix: '${XDG_RUNTIME_DIR}/libvirt/libvirt-sock', mode: '0700' }\n"
    }
}

/// Compiles a policy's text.
///
/// # Errors
/// Every problem of the text, one a line.
pub(crate) fn compile(_name: &str, text: &str) -> Result<Policy, String> {
    let raw: Raw = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let mut listeners = Vec::new();
    for (name, raw) in raw.listeners {
        let mode = u32::from_str_radix(&raw.mode, 8).map_err(|error| error.to_string())?;
        let runtime = super::paths::runtime_parent().unwrap_or_default();
        let path = raw
            .unix
            .replace("${XDG_RUNTIME_DIR}", &runtime.to_string_lossy());
        listeners.push(Arc::new(Listener {
            name: name.into(),
            address: ListenAddress::Unix {
                path: PathBuf::from(path),
                mode,
                group: raw.group,
            },
            readonly: raw.readonly,
            keepalive: Keepalive {
                interval: None,
                count: 5,
            },
        }));
    }
    Ok(Policy {
        daemon: Daemon {
            watch: raw.daemon.watch,
            drain: match raw.daemon.drain {
                Some(text) => Duration::from_secs(
                    text.trim_end_matches('s')
                        .parse()
                        .map_err(|_| format!("bad duration {text}"))?,
                ),
                None => Duration::from_secs(30),
            },
            workers: raw.daemon.workers,
            max_clients: raw.daemon.max_clients.unwrap_or(5000),
        },
        listeners,
    })
}

#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    daemon: RawDaemon,
    listeners: BTreeMap<String, RawListener>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawDaemon {
    watch: bool,
    drain: Option<String>,
    workers: Option<usize>,
    max_clients: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawListener {
    unix: String,
    mode: String,
    #[serde(default)]
    group: Option<String>,
    #[serde(default)]
    readonly: bool,
}
