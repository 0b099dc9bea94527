//! The documents that calls carry, read and ready to be checked.

use std::borrow::Cow;

use crate::policy::definition;
use crate::policy::xml::{self, Node, Unreadable};
use crate::protocol::payload::Payload;

/// What a document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Domain,
    /// A device that is changed.
    Device,
    /// A disk that another is copied to.
    Copy,
    /// A device that is added to a domain.
    Attached,
    Snapshot,
    Checkpoint,
    Backup,
    /// What the two sides of a migration tell each other.
    Cookie,
    Network,
    /// A part of a network.
    NetworkSection,
    NetworkPort,
    Pool,
    PoolSource,
    Volume,
    Interface,
    NodeDevice,
    Nwfilter,
    NwfilterBinding,
    Secret,
    Cpu,
}

impl Kind {
    /// Names of its root element; any if there are none.
    fn roots(self) -> &'static [&'static str] {
        match self {
            Self::Domain => &["domain"],
            // A root that libvirt does not know is refused by it, and `<domain>` is no device.
            Self::Device | Self::Attached => &[
                "channel",
                "console",
                "crypto",
                "disk",
                "filesystem",
                "graphics",
                "hostdev",
                "hub",
                "input",
                "interface",
                "iommu",
                "lease",
                "memballoon",
                "memory",
                "parallel",
                "redirdev",
                "rng",
                "serial",
                "shmem",
                "smartcard",
                "sound",
                "tpm",
                "video",
                "vsock",
                "watchdog",
            ],
            Self::Copy => &["disk"],
            Self::Snapshot => &["domainsnapshot"],
            Self::Checkpoint => &["domaincheckpoint"],
            Self::Backup => &["domainbackup"],
            Self::Cookie | Self::NetworkSection => &[],
            Self::Network => &["network"],
            Self::NetworkPort => &["networkport"],
            Self::Pool => &["pool"],
            Self::PoolSource => &["source"],
            Self::Volume => &["volume"],
            Self::Interface => &["interface"],
            Self::NodeDevice => &["device"],
            Self::Nwfilter => &["filter"],
            Self::NwfilterBinding => &["filterbinding"],
            Self::Secret => &["secret"],
            // The CPU's part of a host's capabilities is taken too.
            Self::Cpu => &["cpu", "host", "capabilities"],
        }
    }

    /// Whether it is of the hypervisor: a domain, or something of one.
    pub(super) fn is_of_domain(self) -> bool {
        matches!(
            self,
            Self::Domain
                | Self::Device
                | Self::Copy
                | Self::Attached
                | Self::Snapshot
                | Self::Checkpoint
                | Self::Backup
                | Self::Cookie
        )
    }
}

/// A document that a call carries.
#[derive(Debug)]
pub(super) struct Document<'a> {
    pub(super) kind: Kind,
    xml: xml::Document<'a>,
    /// The name that its domain gets, if not the one in it.
    renamed: Option<&'a str>,
}

impl<'a> Document<'a> {
    pub(super) fn read(
        kind: Kind,
        text: &'a str,
        renamed: Option<&'a str>,
    ) -> Result<Self, Unreadable> {
        let xml = xml::parse(text)?;
        xml::root(&xml, kind.roots())?;
        Ok(Self { kind, xml, renamed })
    }

    pub(super) fn root(&self) -> Node<'_, 'a> {
        self.xml.root_element()
    }

    /// The whole definitions of domains in it.
    pub(super) fn domains(&self) -> impl Iterator<Item = Node<'_, 'a>> {
        let root = self.root();
        let whole = (self.kind == Kind::Domain).then_some(root);
        let inner = matches!(self.kind, Kind::Snapshot | Kind::Checkpoint | Kind::Cookie);
        let inner = inner
            .then_some(root)
            .into_iter()
            .flat_map(|root| root.children());
        let is_domain =
            |node: &Node<'_, '_>| matches!(node.tag_name().name(), "domain" | "inactiveDomain");
        whole.into_iter().chain(inner.filter(is_domain))
    }

    /// The name of the domain that an element is of, if the document is of one domain.
    pub(super) fn domain_name(&self) -> Option<Cow<'_, str>> {
        if let Some(renamed) = self.renamed {
            return Some(renamed.into());
        }
        let [domain] = self.domains().collect::<Vec<_>>()[..] else {
            return None;
        };
        xml::child_text(domain, "name").ok()?
    }
}

/// The XML document in an argument that is a migration's cookie; `None` if it is empty.
pub(super) fn cookie_text<'a>(
    args: &Payload<'a>,
    name: &str,
) -> Result<Option<&'a str>, Unreadable> {
    let cookie = args.opaque(name).filter(|cookie| !cookie.is_empty());
    cookie.map(definition::cookie_text).transpose()
}
