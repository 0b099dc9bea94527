//! Proof of who a client is, as far as its socket alone does not tell, and of who the proxy is, for
//! its daemons.
//!
//! - `authenticator`: one client's authentication, whatever the way.
//! - `handshake`: from an accepted TCP connection to one that frames travel on.
//! - `tls`, `tls_client`, `tls_files`, `certificates`, `revocation`: the files of TLS, checked, and
//!   what is in force of them.
//! - `ec_key`: private keys that GnuTLS writes in its own way.
//! - `x509`: what a certificate says.
//! - `proxy_protocol`: who is behind a load balancer.
//! - `polkit`: asking the host's policy, and through it the user, about a local client.
//! - [`sasl`]: the server's side of a SASL exchange; `scram` and `gssapi` are its larger mechanisms.
//! - `sasl_client`: the client's side, towards daemons, with `scram_client` and `gssapi_client`.
//! - [`passwords`]: what SCRAM and PLAIN are verified against; [`verifier`] is one entry of it,
//!   [`password_file`] changes the file.
//! - `sasl_files`: SASL of a listener, from the policy's words and files.
//! - `unauthenticated`: the bound on those who have not proven anything yet.

pub(crate) mod authenticator;
pub(crate) mod certificates;
mod ec_key;
#[cfg(feature = "gssapi")]
pub mod gssapi;
#[cfg(feature = "gssapi")]
mod gssapi_client;
pub(crate) mod handshake;
pub mod password_file;
pub mod passwords;
pub(crate) mod polkit;
mod proxy_protocol;
mod revocation;
pub mod sasl;
pub(crate) mod sasl_client;
mod sasl_files;
mod scram;
mod scram_client;
mod tls;
mod tls_client;
mod tls_files;
pub(crate) mod unauthenticated;
pub mod verifier;
mod x509;

#[cfg(test)]
pub(super) mod tests;
