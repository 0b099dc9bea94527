//! What definitions say that decisions rest on beside names and guards: how much of the host a
//! domain or volume takes, which hardware addresses a domain has, what a disk is on.

use crate::policy::xml::scaled::{child_bytes, number};
use crate::policy::xml::{self, Node, parent_name};

pub use super::xml::Unreadable;

/// What one is where memory has no unit.
pub(super) const KIB: u64 = 1024;

/// What a domain takes of its host at the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DomainSize {
    /// Virtual CPUs, those that can be plugged in with them.
    pub vcpus: u64,
    /// Memory in bytes, that of modules with it; what could be plugged in is not.
    pub memory: u64,
}

impl DomainSize {
    /// The greater of both, each by itself.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            vcpus: self.vcpus.max(other.vcpus),
            memory: self.memory.max(other.memory),
        }
    }

    pub(super) fn of(domain: Node<'_, '_>) -> Result<Self, Unreadable> {
        let vcpus = match xml::child_text(domain, "vcpu")? {
            Some(text) => number(&text)?,
            None => 1,
        };
        let memory = child_bytes(domain, "memory", KIB)?.unwrap_or(0);
        let (mut cells, mut modules) = (0_u64, 0_u64);
        for node in xml::elements(domain) {
            match (parent_name(node), node.tag_name().name()) {
                ("numa", "cell") => {
                    if let Some(text) = node.attribute("memory") {
                        let size = xml::scaled::bytes(text, node.attribute("unit"), KIB)?;
                        cells = cells.saturating_add(size);
                    }
                }
                ("devices", "memory") => modules = modules.saturating_add(module(node)?),
                _ => {}
            }
        }
        // `<memory>` is with its modules. Where there are cells, libvirt adds it up anew.
        Ok(Self {
            vcpus,
            memory: memory.max(cells.saturating_add(modules)),
        })
    }
}

/// The devices of a domain under this name.
pub(super) fn devices<'a, 'x>(
    domain: Node<'a, 'x>,
    name: &'static str,
) -> impl Iterator<Item = Node<'a, 'x>> {
    xml::elements(domain)
        .filter(move |node| (parent_name(*node), node.tag_name().name()) == ("devices", name))
}

/// Bytes of a module of memory, by its device.
fn module(device: Node<'_, '_>) -> Result<u64, Unreadable> {
    let Some(target) = xml::child(device, "target")? else {
        return Ok(0);
    };
    Ok(child_bytes(target, "size", KIB)?.unwrap_or(0))
}

/// The size of the domain that an XML document defines.
///
/// # Errors
/// It cannot be read, or could be read in two ways.
pub fn domain_size(text: &str) -> Result<DomainSize, Unreadable> {
    let document = xml::parse(text)?;
    DomainSize::of(xml::root(&document, &["domain"])?)
}

/// What a domain is after it was reverted to a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reverted {
    /// Its size, running or defined.
    pub size: DomainSize,
    /// The snapshot was made of a running domain, which runs again.
    pub runs: bool,
}

/// What a snapshot's XML document would make of its domain.
///
/// # Errors
/// It cannot be read, or could be read in two ways.
pub fn reverted(text: &str) -> Result<Reverted, Unreadable> {
    let document = xml::parse(text)?;
    let snapshot = xml::root(&document, &["domainsnapshot"])?;
    let mut size = DomainSize::default();
    for name in ["domain", "inactiveDomain"] {
        if let Some(domain) = xml::child(snapshot, name)? {
            size = size.max(DomainSize::of(domain)?);
        }
    }
    let state = xml::child_text(snapshot, "state")?;
    let runs = !matches!(
        state.as_deref(),
        Some("shutoff" | "shutdown" | "crashed" | "disk-snapshot")
    );
    Ok(Reverted { size, runs })
}

/// The most that the domains in a migration's cookie take; `None` if there are none.
///
/// # Errors
/// It is no XML document with a NUL behind it, or could be read in two ways.
pub fn cookie_size(cookie: &[u8]) -> Result<Option<DomainSize>, Unreadable> {
    let document = xml::parse(cookie_text(cookie)?)?;
    let domain = xml::child(document.root_element(), "domain")?;
    domain.map(DomainSize::of).transpose()
}

/// The XML document in a migration's cookie, which has a NUL behind it.
pub(super) fn cookie_text(cookie: &[u8]) -> Result<&str, Unreadable> {
    // To libvirt the text ends at the first NUL.
    let text = match cookie.split_last() {
        Some((0, text)) if !text.contains(&0) => str::from_utf8(text).ok(),
        _ => None,
    };
    text.ok_or_else(|| {
        Unreadable::new("the migration cookie is not one text with a NUL at its end")
    })
}

/// Bytes of the module of memory that a device's XML document describes; `None` if it is another
/// device.
///
/// # Errors
/// It cannot be read, or could be read in two ways.
pub fn memory_module(text: &str) -> Result<Option<u64>, Unreadable> {
    let document = xml::parse(text)?;
    let device = document.root_element();
    if device.tag_name().name() != "memory" {
        return Ok(None);
    }
    module(device).map(Some)
}

/// What a volume's definition says of its size, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VolumeSize {
    /// Its capacity; one on a backing store, or a copy, need not say any.
    pub capacity: Option<u64>,
    /// What is allocated at once. Raw files become as big as that.
    pub allocation: u64,
}

/// The size of the volume that an XML document defines.
///
/// # Errors
/// It cannot be read, or could be read in two ways.
pub fn volume_size(text: &str) -> Result<VolumeSize, Unreadable> {
    let document = xml::parse(text)?;
    let volume = xml::root(&document, &["volume"])?;
    Ok(VolumeSize {
        capacity: child_bytes(volume, "capacity", 1)?,
        allocation: child_bytes(volume, "allocation", 1)?.unwrap_or(0),
    })
}

/// The hardware addresses of a domain's interfaces, in small letters.
///
/// # Errors
/// The document cannot be read, or could be read in two ways.
pub fn macs(text: &str) -> Result<Vec<String>, Unreadable> {
    let document = xml::parse(text)?;
    let domain = xml::root(&document, &["domain"])?;
    let mut macs = Vec::new();
    for node in devices(domain, "interface") {
        if let Some(mac) = xml::child(node, "mac")?
            && let Some(address) = mac.attribute("address")
        {
            macs.push(address.to_ascii_lowercase());
        }
    }
    Ok(macs)
}

/// What a disk is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskSource {
    /// A file, a block device, or what is at this place of a network's store.
    Path(String),
    /// A volume, by the names of its pool and itself.
    Volume(String, String),
}

/// What the disk of this target is on, by its domain's XML document; `None` if nothing, or if there
/// is no such disk.
///
/// # Errors
/// The document cannot be read, or could be read in two ways.
pub fn disk_source(text: &str, target: &str) -> Result<Option<DiskSource>, Unreadable> {
    let document = xml::parse(text)?;
    let domain = xml::root(&document, &["domain"])?;
    for node in devices(domain, "disk") {
        let dev = xml::child(node, "target")?.and_then(|it| it.attribute("dev"));
        if dev != Some(target) {
            continue;
        }
        let Some(source) = xml::child(node, "source")? else {
            return Ok(None);
        };
        if let (Some(pool), Some(volume)) = (source.attribute("pool"), source.attribute("volume")) {
            return Ok(Some(DiskSource::Volume(pool.to_owned(), volume.to_owned())));
        }
        let mut keys = ["file", "dev", "name"].into_iter();
        let path = keys.find_map(|key| source.attribute(key));
        return Ok(path.map(|path| DiskSource::Path(path.to_owned())));
    }
    Ok(None)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is the failed test")]
mod tests {
    use super::*;

    fn size(inner: &str) -> Result<(u64, u64), Unreadable> {
        let size = domain_size(&format!("<domain>{inner}</domain>"))?;
        Ok((size.vcpus, size.memory))
    }

    #[test]
    fn a_domain_counts_with_all_that_it_may_use_without_more_being_plugged_in() {
        assert_eq!(size("").unwrap(), (1, 0));
        let plain = "<vcpu current='1'>4</vcpu><memory unit='MiB'>1</memory>\
                     <currentMemory>1</currentMemory>";
        assert_eq!(size(plain).unwrap(), (4, 1 << 20));
        let room = "<memory>1</memory><maxMemory slots='1' unit='GiB'>1</maxMemory>";
        assert_eq!(size(room).unwrap(), (1, 1024));
        let cells = "<memory>1</memory><cpu><numa><cell memory='1' unit='MiB'/>\
                     <cell memory='1024'/></numa></cpu>";
        assert_eq!(size(cells).unwrap(), (1, 2 << 20));
        let module = "<memory model='dimm'><target><size unit='MiB'>1</size></target></memory>";
        let with_modules =
            format!("<memory unit='MiB'>3</memory><devices>{module}{module}</devices>");
        assert_eq!(size(&with_modules).unwrap(), (1, 3 << 20));
        let both = format!(
            "<memory>1</memory><cpu><numa><cell memory='1024'/></numa></cpu>\
                            <devices>{module}</devices>"
        );
        assert_eq!(size(&both).unwrap(), (1, 2 << 20));
        let in_metadata = "<metadata><x:devices xmlns:x='urn:x'><x:memory/></x:devices></metadata>";
        assert_eq!(size(in_metadata).unwrap(), (1, 0));
    }

    #[test]
    fn a_size_that_could_be_read_in_two_ways_is_not_read() {
        for inner in [
            "<vcpu>1</vcpu><vcpu>2</vcpu>",
            "<vcpu>1<a/>0</vcpu>",
            "<vcpu>-1</vcpu>",
            "<memory>-1</memory>",
            "<memory unit='Q'>1</memory>",
            "<memory>1</memory><memory>2</memory>",
            "<cpu><numa><cell memory='x'/></numa></cpu>",
        ] {
            assert!(size(inner).is_err(), "{inner}");
        }
        assert!(domain_size("<network/>").is_err());
        assert!(domain_size("<domain>").is_err());
    }

    #[test]
    fn a_snapshot_brings_its_domains_back() {
        let snapshot = |inner: &str| reverted(&format!("<domainsnapshot>{inner}</domainsnapshot>"));
        let big = "<domain><vcpu>8</vcpu><memory>1</memory></domain>";
        let bigger = "<inactiveDomain><vcpu>1</vcpu><memory>9</memory></inactiveDomain>";
        let all = snapshot(&format!(
            "<state>running</state><memory snapshot='no'/>{big}{bigger}"
        ));
        let size = DomainSize {
            vcpus: 8,
            memory: 9 * 1024,
        };
        assert_eq!(all.unwrap(), Reverted { size, runs: true });
        for (state, runs) in [
            ("paused", true),
            ("shutoff", false),
            ("disk-snapshot", false),
        ] {
            let reverted = snapshot(&format!("<state>{state}</state>{big}")).unwrap();
            assert_eq!(reverted.runs, runs, "{state}");
        }
        // Without a word on it, it may run.
        assert!(snapshot(big).unwrap().runs);
    }

    #[test]
    fn a_cookie_may_bring_a_domain() {
        let cookie = b"<qemu-migration><domain><vcpu>3</vcpu></domain></qemu-migration>\0";
        assert_eq!(cookie_size(cookie).unwrap().map(|size| size.vcpus), Some(3));
        assert_eq!(cookie_size(b"<qemu-migration/>\0").unwrap(), None);
        assert!(cookie_size(b"<qemu-migration/>").is_err());
        assert!(cookie_size(b"").is_err());
    }

    #[test]
    fn only_memory_is_memory() {
        let module = "<memory model='dimm'><target><size unit='KiB'>7</size></target></memory>";
        assert_eq!(memory_module(module).unwrap(), Some(7 * 1024));
        assert_eq!(
            memory_module("<disk><target><size>1</size></target></disk>").unwrap(),
            None
        );
        assert!(memory_module("<memory><target><size>x</size></target></memory>").is_err());
    }

    #[test]
    fn volumes_say_bytes_unless_they_say_more() {
        let volume = |inner: &str| volume_size(&format!("<volume>{inner}</volume>"));
        let both = volume("<capacity unit='M'>1</capacity><allocation>7</allocation>").unwrap();
        assert_eq!((both.capacity, both.allocation), (Some(1 << 20), 7));
        assert_eq!(volume("").unwrap(), VolumeSize::default());
        assert!(volume("<capacity>1</capacity><capacity>2</capacity>").is_err());
        assert!(volume("<capacity></capacity>").is_err());
    }

    const DEVICES: &str = "<domain><devices>
        <interface type='network'><mac address='52:54:00:AB:CD:EF'/></interface>
        <interface type='user'/>
        <interface type='bridge'><mac address='52:54:00:00:00:01'/></interface>
        <disk type='file'><source file='/a.img'/><target dev='vda'/></disk>
        <disk type='block'><source dev='/dev/b'/><target dev='vdb'/></disk>
        <disk type='volume'><source pool='p' volume='v'/><target dev='vdc'/></disk>
        <disk type='network'><source protocol='rbd' name='p/i'/><target dev='vdd'/></disk>
        <disk device='cdrom'><target dev='sda'/></disk>
      </devices></domain>";

    #[test]
    fn addresses_and_disks_are_found() {
        assert_eq!(
            macs(DEVICES).unwrap(),
            ["52:54:00:ab:cd:ef", "52:54:00:00:00:01"]
        );
        let path = |path: &str| Some(DiskSource::Path(path.to_owned()));
        for (target, expected) in [
            ("vda", path("/a.img")),
            ("vdb", path("/dev/b")),
            ("vdc", Some(DiskSource::Volume("p".into(), "v".into()))),
            ("vdd", path("p/i")),
            ("sda", None),
            ("vdz", None),
        ] {
            assert_eq!(disk_source(DEVICES, target).unwrap(), expected, "{target}");
        }
    }
}
