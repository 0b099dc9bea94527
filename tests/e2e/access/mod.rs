//! What a client may do and see, with real daemons: two tenants of one host, a monitor and an
//! operator, by UNIX socket and by TLS.
//!
//! - [`host`]: the daemon, the tenants, the proxy and its clients; [`calls`] and [`said`]: a call of
//!   every procedure, and what is answered;
//! - [`oracle`]: the verdicts of libvirt's own access driver;
//! - [`tenants`] and [`events`]: each sees and hears of its own; [`attacks`]: what a tenant tries on
//!   another; [`owners`]: what belongs to whom by its metadata; [`leases`]: of a network that tenants
//!   share;
//! - [`change`]: a policy that changes; [`shadow`]: one that is tried out;
//! - [`quotas`], [`limits`]: what a tenant may use in total; [`turns`]: calls that are counted one
//!   after the other.

mod attacks;
mod calls;
mod change;
mod events;
mod host;
mod leases;
mod limits;
mod oracle;
mod owners;
mod quotas;
mod said;
mod shadow;
mod tenants;
mod turns;
