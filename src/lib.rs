//! A policy-driven proxy in front of libvirt's driver daemons.
//!
//! The crate has four layers; each knows only those to its right:
//!
//! - [`server`]: the tokio shell. Sockets, timers, signals, systemd, reload.
//! - [`session`]: one client connection as a state machine with no sockets and no clock.
//! - [`policy`]: the YAML file as a checked, compiled, immutable snapshot, and its decisions.
//! - [`protocol`]: frames, XDR, the procedure table, error replies.
//!
//! `protocol`, `policy` and `session` are pure: no sockets, files, clocks or runtime (held by
//! `tests/layering.rs`), so that everything subtle is tested without a network.

pub mod policy;
pub mod protocol;
pub mod server;
pub mod session;
