//! Proof of who a client is, as far as its socket alone does not tell.
//!
//! - `polkit`: asking the host's policy, and through it the user, about a local client.
//! - [`sasl`]: the server's side of a SASL exchange; `scram` and `gssapi` are its larger mechanisms.
//! - [`passwords`]: what SCRAM and PLAIN are verified against; [`verifier`] is one entry of it,
//!   [`password_file`] changes the file.

#[cfg(feature = "gssapi")]
pub mod gssapi;
pub mod password_file;
pub mod passwords;
pub(crate) mod polkit;
pub mod sasl;
mod scram;
pub mod verifier;
