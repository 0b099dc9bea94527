//! The networks, bridges and pools that a rule lists.

use super::{Violation, against, listed};
use crate::policy::guard::Guards;
use crate::policy::guard::document::{Document, Kind};
use crate::policy::xml::{self, Node};

impl Guards {
    /// Where interfaces lead to. `bridged` is of the whole document, by [`is_bridged`].
    pub(super) fn nets_of(
        &self,
        kind: Kind,
        bridged: bool,
        node: Node<'_, '_>,
    ) -> Result<(), Violation> {
        if self.networks.is_none() && self.bridges.is_none() {
            return Ok(());
        }
        let name = node.tag_name().name();
        let attribute = |name: &str| node.attribute(name).unwrap_or_default();
        match (kind, name) {
            (kind, "interface") if kind.is_of_domain() => self.interface(node),
            (Kind::Network, "network") => match &self.networks {
                Some(_) => {
                    let name = child_text(node, "name");
                    listed("networks", "network", &name, self.networks.as_deref())
                }
                None => Ok(()),
            },
            // Of a network of its own, it is a new one.
            (Kind::Network, "bridge") if self.bridges.is_some() || bridged => {
                self.host_interface("<bridge name>", attribute("name"))
            }
            (Kind::Network | Kind::NetworkSection, "forward" | "interface" | "pf") => {
                self.host_interface("<forward dev>", attribute("dev"))
            }
            (Kind::NetworkPort, "plug") => {
                self.host_interface("<plug bridge>", attribute("bridge"))?;
                self.host_interface("<plug dev>", attribute("dev"))
            }
            (Kind::Interface, "interface") => {
                self.host_interface("<interface name>", attribute("name"))
            }
            // A screen on the address of a network.
            (kind, "listen") if kind.is_of_domain() && self.networks.is_some() => {
                match attribute("network") {
                    "" => Ok(()),
                    name => listed("networks", "network", name, self.networks.as_deref()),
                }
            }
            _ => Ok(()),
        }
    }

    /// An interface of the host that something is put on.
    fn host_interface(&self, what: &str, name: &str) -> Result<(), Violation> {
        if name.is_empty() {
            return Ok(());
        }
        listed("bridges", what, name, self.bridges.as_deref())
    }

    fn net_guard(&self) -> &'static str {
        if self.networks.is_some() {
            "networks"
        } else {
            "bridges"
        }
    }

    fn interface(&self, node: Node<'_, '_>) -> Result<(), Violation> {
        let kind = node.attribute("type").unwrap_or("user");
        let mut sources = node
            .children()
            .filter(|child| child.tag_name().name() == "source");
        let source = match (sources.next(), sources.next()) {
            (source, None) => source,
            _ => return against(self.net_guard(), "an interface has more than one <source>"),
        };
        // It chooses among the networks of others.
        if node
            .children()
            .any(|child| child.tag_name().name() == "vlan")
        {
            return against(self.net_guard(), "an interface has a <vlan> of its own");
        }
        let of = |name: &str| {
            source
                .and_then(|source| source.attribute(name))
                .unwrap_or_default()
        };
        match kind {
            "null" => Ok(()),
            "network" => match &self.networks {
                Some(_) => listed(
                    "networks",
                    "network",
                    of("network"),
                    self.networks.as_deref(),
                ),
                None => Ok(()),
            },
            "bridge" => listed("bridges", "bridge", of("bridge"), self.bridges.as_deref()),
            "direct" => listed("bridges", "interface", of("dev"), self.bridges.as_deref()),
            other => against(
                self.net_guard(),
                format!("an interface of type {other:?} is on the host's own network"),
            ),
        }
    }

    /// Which pools volumes are of.
    pub(super) fn pools_of(&self, kind: Kind, node: Node<'_, '_>) -> Result<(), Violation> {
        let name = node.tag_name().name();
        match kind {
            Kind::Pool if name == "pool" && self.pools.is_some() => listed(
                "pools",
                "pool",
                &child_text(node, "name"),
                self.pools.as_deref(),
            ),
            _ if kind.is_of_domain() => match node.attribute("pool") {
                None => Ok(()),
                // A volume may be any file of the host.
                Some(pool) if self.pools.is_some() || self.host_paths.is_some() => {
                    listed("pools", "pool", pool, self.pools.as_deref())
                }
                Some(_) => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

/// Whether a network puts its guests on a bridge as it is.
pub(super) fn is_bridged(document: &Document<'_>) -> bool {
    document.kind == Kind::Network
        && xml::elements(document.root()).any(|node| {
            let mode = node.attribute("mode");
            node.tag_name().name() == "forward"
                && !matches!(mode, None | Some("nat" | "route" | "open"))
        })
}

fn child_text(node: Node<'_, '_>, name: &str) -> String {
    let text = xml::child_text(node, name).ok().flatten();
    text.unwrap_or_default().into_owned()
}
