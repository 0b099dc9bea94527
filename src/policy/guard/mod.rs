//! Guards: what the content of calls must keep to, and the objects that it names.
//!
//! - [`contents`]: what a call carries, by the `table` of all arguments: each `document`, path,
//!   `command`, number.
//! - [`Guards::check`]: `words` has what each word of `forbid` is in a document, `places` where paths
//!   are in it, `paths` and `uri` which of them are good; `size` is for `max`.
//! - [`named`]: the objects that a call names by its content.
//! - [`references`]: the objects that it refers to.
//! - `owner`: the owner in a domain's metadata.

mod check;
mod command;
mod content;
mod document;
mod forbid;
mod named;
mod owner;
mod paths;
mod places;
mod references;
mod size;
mod table;
mod uri;
mod words;

pub use check::Violation;
pub use content::{Content, contents};
pub use forbid::{Forbid, ForbidSet};
pub use named::{Named, NamedOwner, domain_named, named};
pub use owner::{owner_in_metadata, stamp};
pub use references::references;
pub use size::{Size, domain_size};
pub use table::{has_content, why_unchecked};

pub use super::xml::Unreadable;

use super::pattern::Pattern;

/// What the content of calls that a rule allows must keep to. `None` is without limit, unless what
/// the list is about would go round another guard.
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

impl Guards {
    /// Whether they list the networks that may be referred to.
    #[must_use]
    pub fn lists_networks(&self) -> bool {
        self.networks.is_some()
    }

    /// Whether they list the pools that may be referred to.
    #[must_use]
    pub fn lists_pools(&self) -> bool {
        self.pools.is_some()
    }
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

#[cfg(test)]
mod tests;
