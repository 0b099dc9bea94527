//! What each word of `forbid` is in a document.

use super::document::Kind;
use super::forbid::Forbid;
use super::paths;
use crate::policy::xml::{self, Node};

/// The words that an element is forbidden by.
pub(super) fn words(kind: Kind, node: Node<'_, '_>) -> Vec<Forbid> {
    let mut words = Vec::new();
    words.extend(match xml::passthrough(node) {
        Some("qemu") => Some(Forbid::QemuNamespace),
        Some("lxc") => Some(Forbid::LxcNamespace),
        Some("xen") => Some(Forbid::XenNamespace),
        Some("bhyve") => Some(Forbid::BhyveNamespace),
        Some("dnsmasq") => Some(Forbid::DnsmasqNamespace),
        Some("fs" | "rbd") => Some(Forbid::MountOptions),
        _ => None,
    });
    match kind {
        _ if kind.is_of_domain() => of_domain(kind, Element(node), &mut words),
        Kind::Network | Kind::NetworkSection | Kind::NetworkPort => {
            words.extend(of_network(Element(node)));
        }
        Kind::Pool => words.extend(of_pool(Element(node))),
        _ => {}
    }
    words
}

/// An element as the rules below look at it.
#[derive(Clone, Copy)]
struct Element<'a, 'i>(Node<'a, 'i>);

impl<'a> Element<'a, '_> {
    fn name(self) -> &'a str {
        self.0.tag_name().name()
    }

    fn parent(self) -> Option<Self> {
        self.0.parent_element().map(Self)
    }

    fn is_in(self, names: &[&str]) -> bool {
        self.parent()
            .is_some_and(|parent| names.contains(&parent.name()))
    }

    fn attribute(self, name: &str) -> &'a str {
        self.0.attribute(name).unwrap_or_default()
    }

    fn has(self, name: &str) -> bool {
        !self.attribute(name).is_empty()
    }

    fn children(self) -> impl Iterator<Item = Self> {
        self.0
            .children()
            .filter(|child| child.is_element())
            .map(Self)
    }

    fn child(self, name: &str) -> Option<Self> {
        self.children().find(|child| child.name() == name)
    }

    fn has_text(self) -> bool {
        !xml::own_text(self.0).trim().is_empty()
    }
}

/// Elements that are a disk's image or a part of its chain.
const IMAGES: [&str; 7] = [
    "disk",
    "backingStore",
    "mirror",
    "dataStore",
    "source",
    "target",
    "scratch",
];
/// Elements with a character device in them.
const CHAR_DEVICES: [&str; 7] = [
    "console",
    "serial",
    "parallel",
    "channel",
    "redirdev",
    "smartcard",
    "backend",
];

fn of_domain(kind: Kind, it: Element<'_, '_>, words: &mut Vec<Forbid>) {
    let kind_of = it.attribute("type");
    let image = IMAGES.contains(&it.name());
    let is = |condition: bool, word: Forbid| condition.then_some(word);
    words.extend(match it.name() {
        "hostdev" => Some(Forbid::HostDev),
        "interface" => is(matches!(kind_of, "hostdev" | "vdpa"), Forbid::HostDev),
        "disk" => {
            let raw = it.attribute("device") == "lun" || it.has("rawio") || it.has("sgio");
            is(raw, Forbid::HostDev)
        }
        "smartcard" => is(it.attribute("mode").starts_with("host"), Forbid::HostDev),
        "input" => is(
            matches!(kind_of, "passthrough" | "evdev"),
            Forbid::InputPassthrough,
        ),
        "seclabel" => is(!is_plain_label(it), Forbid::SeclabelOverride),
        "filesystem" => Some(Forbid::Filesystem),
        "emulator" | "bootloader" | "binary" | "script" | "downscript" => Some(Forbid::Emulator),
        "loader" => is(it.has_text(), Forbid::Loader),
        "nvram" | "varstore" => {
            let chosen = it.has_text()
                || it.has("template")
                || it.has("path")
                || it.child("source").is_some();
            is(chosen, Forbid::Loader)
        }
        "kernel" | "initrd" | "dtb" | "shim" => Some(Forbid::KernelPath),
        "table" => is(it.is_in(&["acpi"]), Forbid::KernelPath),
        "shmem" => Some(Forbid::Shmem),
        "vsock" => Some(Forbid::Vsock),
        "secret" => Some(Forbid::Secret),
        "backenddomain" => Some(Forbid::DriverDomain),
        "log" => is(it.has("file"), Forbid::CharDevicePath),
        "path" => {
            let source = it.parent().filter(|parent| parent.name() == "source");
            is(
                source.is_some_and(|source| source.is_in(&["memory"])),
                Forbid::MemoryBackingPath,
            )
        }
        "backend" => is(
            kind_of == "passthrough" && it.is_in(&["tpm"]),
            Forbid::TpmPassthrough,
        ),
        "source" => {
            let memory = it.is_in(&["memoryBacking"]) && kind_of == "file";
            is(memory, Forbid::MemoryBackingPath)
        }
        _ => None,
    });
    words.extend(
        [
            is(image && kind_of == "nvme", Forbid::HostDev),
            is(
                image && (kind_of == "network" || it.has("protocol")),
                Forbid::NetworkDisk,
            ),
            is(image && is_block(kind, it), Forbid::BlockDevice),
            is(is_random_device(it), Forbid::RngDevicePath),
            is(is_char_path(it), Forbid::CharDevicePath),
            is(
                CHAR_DEVICES.contains(&it.name()) && matches!(kind_of, "tcp" | "udp"),
                Forbid::CharDeviceNetwork,
            ),
            is(takes_chain_from_image(kind, it), Forbid::ImageChain),
        ]
        .into_iter()
        .flatten(),
    );
}

/// A block device of the host as an image.
fn is_block(kind: Kind, it: Element<'_, '_>) -> bool {
    let device = it.name() == "source" && it.has("dev") && it.is_in(&IMAGES);
    // Of a disk's target it is the name in the guest.
    let of_backup = kind == Kind::Backup && it.has("dev");
    let file = paths::normalised(it.attribute("file"));
    let file = file.is_some_and(|file| paths::is_below(&file, "/dev"));
    it.attribute("type") == "block" || device || of_backup || file
}

/// A label that libvirt chooses, as it writes it into a domain's XML itself.
fn is_plain_label(it: Element<'_, '_>) -> bool {
    it.is_in(&["domain", "inactiveDomain"])
        && it.attribute("type") == "dynamic"
        && matches!(it.attribute("relabel"), "" | "yes")
        && it
            .children()
            .all(|child| matches!(child.name(), "label" | "imagelabel"))
}

fn is_random_device(it: Element<'_, '_>) -> bool {
    if it.name() != "backend" || !it.is_in(&["rng"]) {
        return false;
    }
    let text = xml::own_text(it.0);
    let chosen = !text.trim().is_empty() && !paths::is_random(text.trim());
    let own = it.attribute("model") == "random" && chosen;
    own || it.attribute("model") == "egd"
}

/// The far end of a character device, or of what works like one, on a path. A terminal is the
/// host's choice.
fn is_char_path(it: Element<'_, '_>) -> bool {
    if it.name() != "source" {
        return false;
    }
    let terminal = it
        .parent()
        .is_some_and(|parent| parent.attribute("type") == "pty");
    (it.has("path") && !terminal) || it.has("master") || it.has("slave")
}

/// A disk in a format that has backing files, and without all of them in the XML: libvirt takes the
/// rest from what the image says.
fn takes_chain_from_image(kind: Kind, it: Element<'_, '_>) -> bool {
    // What is copied to is made new, as are the disks of snapshots and backups.
    if it.name() != "disk" || kind == Kind::Copy || it.is_in(&["disks"]) {
        return false;
    }
    // Without one it is raw.
    let driver = it.child("driver");
    let mut format = driver.map_or("", |driver| driver.attribute("type"));
    let mut image = it;
    loop {
        if matches!(format, "" | "raw") {
            return false;
        }
        let Some(backing) = image.child("backingStore") else {
            return true;
        };
        if backing.child("source").is_none() {
            // The end of the chain, said so.
            return false;
        }
        format = backing
            .child("format")
            .map_or("qcow2", |format| format.attribute("type"));
        image = backing;
    }
}

fn of_network(it: Element<'_, '_>) -> Option<Forbid> {
    let host = match it.name() {
        "forward" => it.attribute("mode") == "hostdev",
        "pf" => true,
        "address" => it.is_in(&["forward", "plug"]),
        "plug" => it.attribute("type") == "hostdev-pci",
        _ => false,
    };
    host.then_some(Forbid::HostDev)
}

fn of_pool(it: Element<'_, '_>) -> Option<Forbid> {
    if it.name() != "pool" {
        return None;
    }
    match it.attribute("type") {
        "netfs" | "iscsi" | "iscsi-direct" | "rbd" | "sheepdog" | "gluster" | "vstorage" => {
            Some(Forbid::NetworkDisk)
        }
        "fs" | "logical" | "disk" | "scsi" | "mpath" | "zfs" => Some(Forbid::BlockDevice),
        _ => None,
    }
}
