//! Finding out who a client is where its socket alone does not prove it.
//!
//! - `handshake`: from an accepted TCP connection to one that frames travel on.
//! - `tls`, `certificates`, `revocation`: the files of TLS, checked, and what is in force of them.
//! - `ec_key`: private keys that GnuTLS writes in its own way.
//! - `x509`: what a certificate says.
//! - `proxy_protocol`: who is behind a load balancer.
//! - `polkit`: asking the host's policy, and through it the user, about a local client.
//! - `unauthenticated`: the bound on those who have not proven anything yet.

pub(crate) mod certificates;
mod ec_key;
pub(crate) mod handshake;
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "no listener can ask for it yet")
)]
pub(crate) mod polkit;
mod proxy_protocol;
mod revocation;
mod tls;
pub(crate) mod unauthenticated;
mod x509;

#[cfg(test)]
mod tests;
