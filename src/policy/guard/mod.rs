//! Guards: what the content of calls must keep to, and what it names.
//!
//! - [`named`]: the objects that a call names by its content.
//! - `owner`: the owner in a domain's metadata.
//! - `document`: the documents that calls carry.

mod document;
mod forbid;
mod named;
mod owner;

pub use forbid::{Forbid, ForbidSet};
pub use named::{Named, NamedOwner, domain_named, named};
pub use owner::{OwnerMark, owner_in_metadata, stamp};

pub use super::xml::Unreadable;
