//! Whether what a call carries keeps to the guards of a rule.

mod files;
mod nets;

use std::fmt;

use super::content::{Carried, Content};
use super::document::{Document, Kind};
use super::forbid::Forbid;
use super::places::Use;
use super::size::{self, Size};
use super::words::words;
use super::{Guards, command};
use crate::policy::pattern::Pattern;
use crate::policy::xml::{self, Node};

/// A guard that content does not keep to. Printed for the client and for the record, which stays:
/// it names elements, attributes, commands, and paths that are known to be paths, never a value
/// that might be a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The guard, by its key in the policy.
    pub guard: &'static str,
    /// What is against it, and what would not be.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.guard, self.what)
    }
}

impl std::error::Error for Violation {}

fn against<T>(guard: &'static str, what: impl Into<String>) -> Result<T, Violation> {
    Err(Violation {
        guard,
        what: what.into(),
    })
}

/// What would make the other guards vain, each with the guards that it goes round.
const BY_HOST_PATHS: [Forbid; 2] = [Forbid::HostDev, Forbid::DriverDomain];
const BY_ANY_LIMIT: [Forbid; 6] = [
    Forbid::QemuNamespace,
    Forbid::LxcNamespace,
    Forbid::XenNamespace,
    Forbid::BhyveNamespace,
    Forbid::DnsmasqNamespace,
    Forbid::MountOptions,
];

impl Guards {
    /// Whether something that a call carries keeps to these guards.
    ///
    /// # Errors
    /// The first guard that it does not keep to.
    pub fn check(&self, content: &Content<'_>) -> Result<(), Violation> {
        self.check_on(content, None)
    }

    /// The same, where the size of the domain that the call is about is known: of what is added,
    /// it is counted how many there are then.
    ///
    /// # Errors
    /// The first guard that it does not keep to. Without the size, what [`Self::needs_size`] says
    /// is one.
    pub fn check_on(&self, content: &Content<'_>, domain: Option<Size>) -> Result<(), Violation> {
        match &content.0 {
            Carried::Document(document) => self.document(document, domain),
            Carried::Path(argument, path) => self.path(Use::File, None, argument, path),
            Carried::ChainFile(argument, file) => {
                // Without a slash it is a place in the chain, such as `vda[1]`.
                if file.contains('/') {
                    self.path(Use::File, None, argument, file)
                } else {
                    Ok(())
                }
            }
            Carried::Program(argument, path) => self.program(argument, path),
            Carried::Uri(argument, text) => self.uri(argument, text),
            Carried::Vcpus(count) => most("vCPUs", *count, self.max.vcpus),
            Carried::Memory(bytes) => most("bytes of memory", *bytes, self.max.memory),
            Carried::Monitor(command) => {
                let open = !self.limits_content() && !self.forbid.contains(Forbid::MonitorCommand);
                allowed(
                    "monitor_commands",
                    &command.0,
                    self.monitor_commands.as_deref(),
                    open,
                )
            }
            Carried::Agent(command) => {
                let open = !self.forbid.contains(Forbid::AgentCommand);
                allowed(
                    "agent_commands",
                    &command.0,
                    self.agent_commands.as_deref(),
                    open,
                )
            }
            Carried::Opaque(argument) if self.limits_content() => against(
                self.first_limit(),
                format!("what is in {argument:?} cannot be checked, so it is refused"),
            ),
            Carried::Reuse if self.forbid.contains(Forbid::ImageChain) => against(
                "forbid",
                "image-chain: the flag to reuse external files takes backing files from them",
            ),
            Carried::Opaque(_) | Carried::Reuse => Ok(()),
        }
    }

    /// Whether [`check_on`](Self::check_on) has to be told the size of the domain that the call is
    /// about.
    #[must_use]
    pub fn needs_size(&self, content: &Content<'_>) -> bool {
        self.max.disks.is_some() && added_disk(content)
    }

    /// Whether content is limited in some way that other content could go round.
    fn limits_content(&self) -> bool {
        self.host_paths.is_some()
            || self.networks.is_some()
            || self.pools.is_some()
            || self.bridges.is_some()
            || self.max != super::Max::default()
    }

    fn first_limit(&self) -> &'static str {
        if self.host_paths.is_some() {
            "host_paths"
        } else if self.networks.is_some() {
            "networks"
        } else if self.pools.is_some() {
            "pools"
        } else if self.bridges.is_some() {
            "bridges"
        } else {
            "max"
        }
    }

    fn document(&self, document: &Document<'_>, domain: Option<Size>) -> Result<(), Violation> {
        let kind = document.kind;
        // Each is a search through the document: one for every element would be quadratic.
        let name = document.domain_name();
        let bridged = nets::is_bridged(document);
        for node in xml::elements(document.root()) {
            self.forbidden(kind, node)?;
            self.paths_of(kind, name.as_deref(), node)?;
            self.nets_of(kind, bridged, node)?;
            self.pools_of(kind, node)?;
        }
        for domain in document.domains() {
            let size = size::of_domain(domain).or_else(|error| {
                if self.max == super::Max::default() {
                    Ok(Size::default())
                } else {
                    against("max", error.to_string())
                }
            })?;
            most("vCPUs", size.vcpus, self.max.vcpus)?;
            most("bytes of memory", size.memory, self.max.memory)?;
            most("disks", size.disks, self.max.disks)?;
        }
        if is_added_disk(document) {
            match (self.max.disks, domain) {
                (None, _) => {}
                (Some(_), Some(size)) => most("disks", size.disks + 1, self.max.disks)?,
                (Some(_), None) => {
                    return against("max", "the disks of the domain cannot be counted");
                }
            }
        }
        Ok(())
    }

    fn forbidden(&self, kind: Kind, node: Node<'_, '_>) -> Result<(), Violation> {
        for word in words(kind, node) {
            if self.forbid.contains(word) {
                return against(
                    "forbid",
                    format!("{}: {} is not allowed", word.word(), tag(node)),
                );
            }
            if self.host_paths.is_some() && BY_HOST_PATHS.contains(&word) {
                return against(
                    "host_paths",
                    format!(
                        "{} reaches the host past its paths ({})",
                        tag(node),
                        word.word()
                    ),
                );
            }
            if self.limits_content() && BY_ANY_LIMIT.contains(&word) {
                return against(
                    self.first_limit(),
                    format!(
                        "{} goes round what is checked ({}); a rule with guards on content refuses \
                         it",
                        tag(node),
                        word.word()
                    ),
                );
            }
        }
        Ok(())
    }
}

fn added_disk(content: &Content<'_>) -> bool {
    match &content.0 {
        Carried::Document(document) => is_added_disk(document),
        _ => false,
    }
}

fn is_added_disk(document: &Document<'_>) -> bool {
    document.kind == Kind::Attached && document.root().tag_name().name() == "disk"
}

fn most(what: &str, count: u64, most: Option<u64>) -> Result<(), Violation> {
    match most {
        Some(most) if count > most => against("max", format!("{count} {what}; at most {most}")),
        _ => Ok(()),
    }
}

fn allowed(
    guard: &'static str,
    command: &str,
    patterns: Option<&[Pattern]>,
    open: bool,
) -> Result<(), Violation> {
    match patterns {
        Some(patterns) if patterns.iter().any(|it| it.matches(command)) => Ok(()),
        None if open => Ok(()),
        // Its arguments may be passwords.
        _ => listed(guard, "command", command::first_word(command), None),
    }
}

fn listed(
    guard: &'static str,
    what: &str,
    name: &str,
    patterns: Option<&[Pattern]>,
) -> Result<(), Violation> {
    let mut patterns = patterns.unwrap_or_default().iter();
    if patterns.any(|pattern| pattern.matches(name)) {
        return Ok(());
    }
    against(
        guard,
        format!("{what} {name:?} is not among those of the rule"),
    )
}

fn tag(node: Node<'_, '_>) -> String {
    let kind = node.attribute("type");
    let kind = kind.map_or(String::new(), |kind| format!(" type={kind:?}"));
    format!("<{}{kind}>", node.tag_name().name())
}
