//! The policy: YAML text to a checked, compiled, immutable snapshot, and the decisions made by it.
//!
//! - [`facts`]: what is proven about a client.
//! - [`model`]: the compiled snapshot that the rest of the program reads.

pub mod facts;
pub mod model;
