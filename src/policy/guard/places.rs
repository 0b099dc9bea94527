//! Where paths are in documents.
//!
//! The table is of the places that are understood. Any other value with a slash in it is taken for
//! a path of the host, so that what a newer libvirt brings is refused and not missed.

use super::document::Kind;
use crate::policy::xml::{Node, parent_name};

/// What a value in a document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Always a path of the host.
    Path(Use),
    /// Never one, whatever it looks like.
    NoPath,
    /// A time zone: a name, or to the C library a path.
    TimeZone,
    /// A path of the host if it has a slash.
    Unknown,
}

/// What a path is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    File,
    /// A folder; it may be a listed one itself.
    Folder,
    /// Something that is run.
    Program,
    /// Firmware that is read.
    Firmware,
    /// Where a domain's EFI variables are kept.
    Nvram,
    /// A pseudoterminal that the host chose.
    Terminal,
    /// A source of random numbers.
    Random,
    /// A control group.
    Partition,
}

const FILE: Place = Place::Path(Use::File);
const FOLDER: Place = Place::Path(Use::Folder);
const PROGRAM: Place = Place::Path(Use::Program);

/// What an attribute is.
pub(super) fn attribute(kind: Kind, node: Node<'_, '_>, name: &str) -> Place {
    let element = node.tag_name().name();
    if kind.is_of_domain() {
        return of_domain(kind, node, element, name);
    }
    match (kind, element, name) {
        (Kind::Network | Kind::NetworkSection, "tftp", "root") => FOLDER,
        // On the server of the booting guest, and in what its resolver is told.
        (Kind::Network | Kind::NetworkSection, "bootp", "file") => Place::NoPath,
        (Kind::Network | Kind::NetworkSection, "txt", "value") => Place::NoPath,
        (Kind::Pool | Kind::PoolSource, "device", "path") => FILE,
        (Kind::Pool | Kind::PoolSource, "dir", "path") => FOLDER,
        (Kind::Nwfilter | Kind::NwfilterBinding | Kind::Cpu, ..) => Place::NoPath,
        _ => Place::Unknown,
    }
}

fn of_domain(kind: Kind, node: Node<'_, '_>, element: &str, name: &str) -> Place {
    let parent = parent_name(node);
    match (element, name) {
        ("source", "path") if parent_attribute(node, "type") == Some("pty") => {
            Place::Path(Use::Terminal)
        }
        ("console" | "serial" | "parallel", "tty") => Place::Path(Use::Terminal),
        ("source", "file" | "path" | "socket" | "evdev" | "master" | "slave") => FILE,
        ("source", "dir") => FOLDER,
        // Of an interface it is another interface.
        ("source", "dev") if parent != "interface" => FILE,
        // On another host: a pool's image, an iSCSI target, a path of a web server.
        ("source", "name" | "query")
            if node.has_attribute("protocol")
                && parent_attribute(node, "type") == Some("network") =>
        {
            Place::NoPath
        }
        ("target" | "scratch", "file" | "dev") if kind == Kind::Backup => FILE,
        ("target", "dir") if parent == "filesystem" => Place::NoPath,
        ("target", "path")
        | ("mirror" | "log" | "memory" | "entry" | "config" | "rom", "file")
        | ("host" | "graphics" | "listen" | "server", "socket")
        | ("server" | "device" | "knownHosts" | "audio", "path")
        | ("backend", "tap" | "vhost" | "logFile")
        | ("identity", "keyfile" | "agentsock")
        | (_, "rendernode") => FILE,
        ("binary" | "script" | "downscript", "path") => PROGRAM,
        ("nvram" | "varstore", "template") => Place::Path(Use::Firmware),
        ("varstore", "path") => Place::Path(Use::Nvram),
        ("clock", "timezone") => Place::TimeZone,
        ("graphics", "passwd") | ("parameter" | "vendor_id", "value") => Place::NoPath,
        // Of a file in the firmware's configuration.
        ("entry", "name") if parent == "sysinfo" => Place::NoPath,
        _ => Place::Unknown,
    }
}

/// What an element's text is.
pub(super) fn text(kind: Kind, node: Node<'_, '_>) -> Place {
    let element = node.tag_name().name();
    if matches!(element, "title" | "description") {
        return Place::NoPath;
    }
    if kind.is_of_domain() {
        return text_of_domain(node, element);
    }
    match (kind, element) {
        (Kind::Pool, "path") => FOLDER,
        (Kind::Volume, "path") => FILE,
        // What the host says of a device; nothing is taken from them.
        (Kind::NodeDevice, "path" | "devnode") => Place::NoPath,
        (Kind::Nwfilter | Kind::NwfilterBinding | Kind::Cpu, _) => Place::NoPath,
        _ => Place::Unknown,
    }
}

fn text_of_domain(node: Node<'_, '_>, element: &str) -> Place {
    match (parent_name(node), element) {
        (_, "emulator" | "bootloader") => PROGRAM,
        (_, "loader") => Place::Path(Use::Firmware),
        (_, "nvram") => Place::Path(Use::Nvram),
        (_, "kernel" | "initrd" | "dtb" | "shim" | "path") | ("acpi", "table") => FILE,
        ("rng", "backend") => Place::Path(Use::Random),
        ("resource", "partition") => Place::Path(Use::Partition),
        // Within the guest or container, or told to it.
        ("os", "cmdline" | "root" | "init" | "initarg" | "initdir" | "initenv") => Place::NoPath,
        ("bios" | "system" | "baseBoard" | "chassis" | "oemStrings" | "sysinfo", "entry") => {
            Place::NoPath
        }
        ("disk", "serial" | "vendor" | "product" | "wwn") | ("cookies", "cookie") => Place::NoPath,
        // Data in base 64, where a slash is a digit.
        (
            "launchSecurity",
            "dhCert" | "session" | "idBlock" | "idAuth" | "hostData" | "mrConfigId" | "mrOwner"
            | "mrOwnerConfig",
        ) => Place::NoPath,
        _ => Place::Unknown,
    }
}

fn parent_attribute<'a>(node: Node<'a, '_>, name: &str) -> Option<&'a str> {
    node.parent_element()?.attribute(name)
}
