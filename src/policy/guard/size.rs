//! How much a domain has.

use super::document::{Document, Kind};
use crate::policy::definition::{self, DomainSize, KIB};
use crate::policy::xml::scaled::child_bytes;
use crate::policy::xml::{Node, Unreadable};

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
    let now = DomainSize::of(domain)?;
    // What could be plugged in while it runs.
    let room = child_bytes(domain, "maxMemory", KIB)?.unwrap_or(0);
    let current = child_bytes(domain, "currentMemory", KIB)?.unwrap_or(0);
    let disks = definition::devices(domain, "disk");
    Ok(Size {
        vcpus: now.vcpus,
        memory: now.memory.max(room).max(current),
        disks: u64::try_from(disks.count()).unwrap_or(u64::MAX),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is the failed test")]
mod tests {
    use super::*;

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
