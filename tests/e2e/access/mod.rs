//! What a client may do and see, with real daemons: two tenants of one host, a monitor and an
//! operator, by UNIX socket and by TLS.
//!
//! - [`host`]: the daemon, the tenants, the proxy and its clients; [`calls`] and [`said`]: a call of
//!   every procedure, and what is answered;
//! - [`oracle`]: the verdicts of libvirt's own access driver; [`tenants`]: each sees its own;
//!   [`attacks`]: what a tenant tries on another; [`leases`]: of a network that they share;
//!   [`quotas`]: what a tenant may use in total; [`turns`]: calls that are counted
//!   one after the other.

mod attacks;
mod calls;
mod host;
mod leases;
mod oracle;
mod quotas;
mod said;
mod tenants;
mod turns;
