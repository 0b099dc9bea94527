//! End-to-end tests: real clients, a real `libvirtd`, the real binary.
//!
//! One binary, one module per area. [`support`] starts daemons and clients; `selftest` shows that
//! it works by itself, against `libvirtd` directly. What has to be installed: `README.md`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod access;
mod audit;
mod definitions;
mod descriptors;
mod doctor;
mod drain;
mod equality;
mod faults;
mod forwarding;
mod identity;
#[cfg(feature = "gssapi")]
#[path = "../sasl/kdc.rs"]
mod kdc;
mod keepalive;
#[cfg(feature = "gssapi")]
mod kerberos;
mod leaks;
mod polkit;
mod python;
mod reload;
mod remote;
mod routing;
mod sasl;
mod selftest;
mod several;
mod shapes;
mod streams;
mod support;
mod tls;
mod unauthenticated;
mod virsh;
