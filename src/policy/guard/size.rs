//! How much a domain has.

use super::document::{Document, Kind};
use crate::policy::xml::{self, Node, Unreadable};

/// How much a domain has, at the most that its definition lets it have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// Virtual CPUs.
    pub vcpus: u64,
    /// Memory in bytes.
    pub memory: u64,
    /// Disks.
    pub disks: u64,
}

/// The size of the domain that an XML document defines.
///
/// # Errors
/// It cannot be read, or could be read in two ways.
pub fn domain_size(text: &str) -> Result<Size, Unreadable> {
    let document = Document::read(Kind::Domain, text, None)?;
    of_domain(document.root())
}

pub(super) fn of_domain(domain: Node<'_, '_>) -> Result<Size, Unreadable> {
    let vcpus = match xml::child_text(domain, "vcpu")? {
        Some(text) => number(&text)?,
        None => 1,
    };
    let mut memory = child_bytes(domain, "memory")?.unwrap_or(0);
    memory = memory.max(child_bytes(domain, "currentMemory")?.unwrap_or(0));
    let maximum = child_bytes(domain, "maxMemory")?.unwrap_or(0);
    let (mut cells, mut modules, mut disks) = (0_u64, 0_u64, 0_u64);
    for node in xml::elements(domain) {
        let parent = node.parent_element();
        let parent = parent.map_or("", |parent| parent.tag_name().name());
        match (parent, node.tag_name().name()) {
            ("devices", "disk") => disks += 1,
            ("numa", "cell") => {
                if let Some(text) = node.attribute("memory") {
                    cells = cells.saturating_add(bytes(text, node.attribute("unit"))?);
                }
            }
            ("devices", "memory") => {
                if let Some(target) = xml::child(node, "target")? {
                    let size = child_bytes(target, "size")?.unwrap_or(0);
                    modules = modules.saturating_add(size);
                }
            }
            _ => {}
        }
    }
    // `<memory>` counts the modules too. With cells it does not count at all.
    let memory = memory.max(cells.saturating_add(modules)).max(maximum);
    Ok(Size {
        vcpus,
        memory,
        disks,
    })
}

fn child_bytes(node: Node<'_, '_>, name: &str) -> Result<Option<u64>, Unreadable> {
    let Some(child) = xml::child(node, name)? else {
        return Ok(None);
    };
    bytes(&xml::text(child)?, child.attribute("unit")).map(Some)
}

fn number(text: &str) -> Result<u64, Unreadable> {
    let digits = text.trim_ascii();
    let plain = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    let number = plain.then(|| digits.parse().ok()).flatten();
    number.ok_or_else(|| Unreadable::new(format!("{text:?} is not a number")))
}

/// libvirt's units: KiB if there is none; `k` and `KiB` are 1024, `KB` 1000.
fn bytes(text: &str, unit: Option<&str>) -> Result<u64, Unreadable> {
    let unit = unit.unwrap_or("KiB").to_ascii_lowercase();
    let wrong = || Unreadable::new(format!("{unit:?} is not a unit of memory"));
    let scale = match unit.as_str() {
        "" => 1024,
        "b" | "byte" | "bytes" => 1,
        _ => {
            let (prefix, rest) = unit.split_at_checked(1).ok_or_else(wrong)?;
            let base: u64 = match rest {
                "" | "ib" => 1024,
                "b" => 1000,
                _ => return Err(wrong()),
            };
            let power = "kmgtpe".find(prefix).ok_or_else(wrong)?;
            base.saturating_pow(u32::try_from(power).unwrap_or(u32::MAX) + 1)
        }
    };
    Ok(number(text)?.saturating_mul(scale))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is the failed test")]
mod tests {
    use super::*;

    #[test]
    fn units_are_those_of_libvirt() {
        for (text, unit, expected) in [
            ("1", None, 1024),
            (" 2\n", Some("KiB"), 2048),
            ("2", Some("k"), 2048),
            ("2", Some("KB"), 2000),
            ("1", Some("MiB"), 1 << 20),
            ("1", Some("g"), 1 << 30),
            ("1", Some("GB"), 1_000_000_000),
            ("7", Some("bytes"), 7),
            ("99999999", Some("EiB"), u64::MAX),
        ] {
            assert_eq!(bytes(text, unit).unwrap(), expected, "{text} {unit:?}");
        }
        for (text, unit) in [
            ("-1", None),
            ("1x", None),
            ("", None),
            ("1", Some("X")),
            ("1", Some("kbit")),
        ] {
            assert!(bytes(text, unit).is_err(), "{text} {unit:?}");
        }
    }

    #[test]
    fn a_domain_is_as_big_as_it_may_become() {
        let size = |inner: &str| domain_size(&format!("<domain>{inner}</domain>"));
        assert_eq!(size("").unwrap().vcpus, 1);
        let inner = "<vcpu current='1'>4</vcpu><memory unit='MiB'>1</memory>\
                     <currentMemory>1</currentMemory><devices><disk/><disk/></devices>";
        let expected = Size {
            vcpus: 4,
            memory: 1 << 20,
            disks: 2,
        };
        assert_eq!(size(inner).unwrap(), expected);
        let maximum = "<memory>1</memory><maxMemory slots='1' unit='GiB'>1</maxMemory>";
        assert_eq!(size(maximum).unwrap().memory, 1 << 30);
        let cells = "<memory>1</memory><cpu><numa><cell memory='1' unit='MiB'/>\
                     <cell memory='1024'/></numa></cpu>";
        assert_eq!(size(cells).unwrap().memory, 2 << 20);
        let module = "<memory>1</memory><devices><memory model='dimm'><target>\
                      <size unit='MiB'>1</size></target></memory></devices>";
        assert_eq!(size(module).unwrap().memory, 1 << 20);
        assert!(size("<vcpu>1</vcpu><vcpu>2</vcpu>").is_err());
        assert!(size("<vcpu>1<a/>0</vcpu>").is_err());
        assert!(size("<memory>-1</memory>").is_err());
    }
}
