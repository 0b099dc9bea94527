//! Who may do what: rules compiled to one table per set of identities, and the decision on one
//! permission and object.
//!
//! - [`permission`]: libvirt's permissions; [`sets`]: the named sets of them.
//! - [`subject`]: what is known of an object; `condition`: what rules ask of it.
//! - [`rule`]: the rules, and everything else that `access` says, as compiled.
//! - [`needs`]: the permissions that procedures need.
//! - [`table`]: what one set of identities may do; [`ruling`]: what it says; `tables`: those in use.
//! - `afterwards`: what is asked of the rules after a refusal.

mod afterwards;
pub(super) mod condition;
pub mod needs;
pub mod permission;
pub mod rule;
pub mod ruling;
pub mod sets;
pub mod subject;
pub mod table;
mod tables;

pub use afterwards::rule_text;
pub use needs::{Need, Needs, needs};
pub use permission::{Permission, PermissionSet};
pub use rule::{Audit, OwnerMark, Quota, RuleId, RuleRef};
pub use ruling::{Allowed, Denial, Gate, Reason, Ruling};
pub use subject::{Attribute, Attributes, Owner, Subject};
pub use table::Table;
pub(super) use tables::Access;
