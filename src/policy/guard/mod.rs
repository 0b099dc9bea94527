//! Guards: what the content of calls must keep to.

mod document;
mod forbid;
mod named;
mod owner;

pub use forbid::{Forbid, ForbidSet};
pub use named::{Named, NamedOwner, domain_named, named};
pub use owner::{OwnerMark, owner_in_metadata, stamp};

pub use super::xml::Unreadable;

use super::pattern::Pattern;
use crate::protocol::header::{Procedure, Program};

/// What the content of calls that a rule allows must keep to. `None` is without limit.
#[derive(Debug, Clone, Default)]
pub struct Guards {
    /// Folders that files of the host may be in: absolute, without `.` and `..`, and without a
    /// slash at the end unless it is the root.
    pub host_paths: Option<Vec<String>>,
    pub(in crate::policy) networks: Option<Vec<Pattern>>,
    pub(in crate::policy) pools: Option<Vec<Pattern>>,
    pub(in crate::policy) bridges: Option<Vec<Pattern>>,
    /// What must not be there at all.
    pub forbid: ForbidSet,
    /// How much a domain may have.
    pub max: Max,
    pub(in crate::policy) monitor_commands: Option<Vec<Pattern>>,
    pub(in crate::policy) agent_commands: Option<Vec<Pattern>>,
}

/// How much a domain may have. `None` is without limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Max {
    /// Virtual CPUs.
    pub vcpus: Option<u64>,
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// Disks.
    pub disks: Option<u64>,
}

/// Whether calls of a procedure carry what guards look at.
#[must_use]
pub fn has_content(_: Program, _: Procedure) -> bool {
    true
}

/// Something that guards look at.
#[derive(Debug)]
pub struct Content<'a>(&'a str);

/// What a call carries that guards look at.
pub fn contents<'a>(
    _: Program,
    _: Procedure,
    _: &crate::protocol::payload::Payload<'a>,
) -> Result<Vec<Content<'a>>, Unreadable> {
    Ok(Vec::new())
}

impl Guards {
    /// Whether the content keeps to them.
    pub fn check(&self, _: &Content<'_>) -> Result<(), Unreadable> {
        Ok(())
    }
}
