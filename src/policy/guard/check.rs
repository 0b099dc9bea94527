//! Whether what a call carries keeps to the guards of a rule.

use std::fmt;

use super::content::{Carried, Content};
use super::document::{Document, Kind};
use super::forbid::Forbid;
use super::places::{self, Place, Use};
use super::size::{self, Size};
use super::words::words;
use super::{Guards, paths, uri};
use crate::policy::pattern::Pattern;
use crate::policy::xml::{self, Node};

/// A guard that content does not keep to. Printed for the client and the record.
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
        for node in xml::elements(document.root()) {
            self.forbidden(document.kind, node)?;
            self.paths_of(document, node)?;
            self.nets_of(document.kind, node)?;
            self.pools_of(document.kind, node)?;
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

    fn paths_of(&self, document: &Document<'_>, node: Node<'_, '_>) -> Result<(), Violation> {
        if self.host_paths.is_none() || xml::is_metadata(node) {
            return Ok(());
        }
        let kind = document.kind;
        for attribute in node.attributes() {
            let place = places::attribute(kind, node, attribute.name());
            let what = || format!("<{} {}>", node.tag_name().name(), attribute.name());
            self.value(document, place, what, attribute.value())?;
        }
        let text = xml::own_text(node);
        let place = places::text(kind, node);
        let parent = node.children().any(|child| child.is_element());
        let blank = text.trim().is_empty();
        if parent && !blank && place != Place::NoPath {
            return against(
                "host_paths",
                format!("{} has both text and elements in it", tag(node)),
            );
        }
        if parent {
            // Some readers would put the texts of all elements in it together.
            let whole = matches!(place, Place::Path(Use::File | Use::Program | Use::Firmware));
            if whole && node.tag_name().name() != "loader" {
                return against("host_paths", format!("{} has elements in it", tag(node)));
            }
        } else if !(blank && place == Place::Unknown) {
            self.value(document, place, || tag(node), &text)?;
        }
        self.other_paths(document, node)
    }

    /// What reaches files of the host without a path.
    fn other_paths(&self, document: &Document<'_>, node: Node<'_, '_>) -> Result<(), Violation> {
        let name = node.tag_name().name();
        match (document.kind, name) {
            (kind, "shmem") if kind.is_of_domain() => {
                let server = node
                    .children()
                    .any(|child| child.tag_name().name() == "server");
                let memory = node.attribute("name").unwrap_or_default();
                if server {
                    return Ok(());
                }
                self.path(
                    Use::File,
                    None,
                    "shared memory",
                    &format!("/dev/shm/{memory}"),
                )
            }
            (Kind::Pool, "pool") => {
                let kind = node.attribute("type").unwrap_or_default();
                if matches!(kind, "logical" | "scsi" | "mpath" | "zfs") {
                    return against(
                        "host_paths",
                        format!("a pool of type {kind:?} is of devices of the host, not of files"),
                    );
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn value(
        &self,
        document: &Document<'_>,
        place: Place,
        what: impl Fn() -> String,
        value: &str,
    ) -> Result<(), Violation> {
        match place {
            Place::NoPath => Ok(()),
            Place::Path(_) if value.is_empty() => Ok(()),
            Place::Path(Use::Program) => self.program(&what(), value),
            Place::Path(used) => self.path(used, document.domain_name().as_deref(), &what(), value),
            Place::TimeZone => {
                if value.starts_with(['/', ':']) || value.split('/').any(|part| part == "..") {
                    return self.path(Use::File, None, &what(), value);
                }
                Ok(())
            }
            Place::Unknown if value.contains('/') => {
                self.path(Use::File, None, &what(), value.trim())
            }
            Place::Unknown => Ok(()),
        }
    }

    fn path(
        &self,
        used: Use,
        domain: Option<&str>,
        what: &str,
        path: &str,
    ) -> Result<(), Violation> {
        let Some(folders) = &self.host_paths else {
            return Ok(());
        };
        let Some(path) = paths::normalised(path) else {
            return against(
                "host_paths",
                format!("{what}: {path:?} is not a path from the root"),
            );
        };
        let mut listed = folders.iter();
        let allowed = listed.any(|folder| {
            paths::is_below(&path, folder)
                || (used == Use::Folder && paths::is_folder(&path, folder))
        });
        let usual = match used {
            Use::Firmware => paths::is_firmware(&path),
            Use::Nvram => domain.is_some_and(|domain| paths::is_own_nvram(&path, domain)),
            Use::Terminal => paths::is_terminal(&path),
            Use::Random => paths::is_random(&path),
            Use::Partition => path == "/machine",
            Use::File | Use::Folder | Use::Program => false,
        };
        if allowed || usual {
            return Ok(());
        }
        against(
            "host_paths",
            format!("{what}: {path:?} is not {}", within(folders)),
        )
    }

    /// What is run has to come from a package or to be listed itself: in a folder of a tenant, it
    /// would be a program of the tenant's.
    fn program(&self, what: &str, path: &str) -> Result<(), Violation> {
        if self.forbid.contains(Forbid::Emulator) {
            return against(
                "forbid",
                format!("emulator: {what} {path:?} is not allowed"),
            );
        }
        let Some(listed) = &self.host_paths else {
            return Ok(());
        };
        let known = paths::normalised(path).is_some_and(|path| {
            paths::is_program(&path) || listed.iter().any(|listed| paths::is_folder(&path, listed))
        });
        if known {
            return Ok(());
        }
        against(
            "host_paths",
            format!(
                "{what}: {path:?} is no program of a hypervisor's package; leave it out, or list \
                 the program itself"
            ),
        )
    }

    fn uri(&self, what: &str, text: &str) -> Result<(), Violation> {
        if self.host_paths.is_none() {
            return Ok(());
        }
        match uri::migration(text) {
            uri::Target::Host => Ok(()),
            uri::Target::Socket(path) => self.path(Use::File, None, what, path),
            uri::Target::Other => against(
                "host_paths",
                format!(
                    "{what}: {text:?} may reach files or programs of the host; use a plain \
                     tcp://host, unix:///path, or driver+tls://host/system"
                ),
            ),
        }
    }

    /// Where interfaces lead to.
    fn nets_of(&self, kind: Kind, node: Node<'_, '_>) -> Result<(), Violation> {
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
            (Kind::Network, "bridge") => self.host_interface("<bridge name>", attribute("name")),
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
            _ => Ok(()),
        }
    }

    fn host_interface(&self, what: &str, name: &str) -> Result<(), Violation> {
        if name.is_empty() || self.bridges.is_none() {
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
    fn pools_of(&self, kind: Kind, node: Node<'_, '_>) -> Result<(), Violation> {
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
        None if open => Ok(()),
        patterns => listed(guard, "command", command, patterns),
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

fn child_text(node: Node<'_, '_>, name: &str) -> String {
    let text = xml::child_text(node, name).ok().flatten();
    text.unwrap_or_default().into_owned()
}

/// The folders, as far as a message has room for them.
fn within(folders: &[String]) -> String {
    const SHOWN: usize = 4;
    let shown: Vec<_> = folders.iter().take(SHOWN).map(String::as_str).collect();
    match folders.len() {
        0 => "in a folder: none is listed".into(),
        count if count > SHOWN => format!("below {} or others of the rule", shown.join(", ")),
        _ => format!("below {}", shown.join(", ")),
    }
}
