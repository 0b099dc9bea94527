//! The server's side of SASL against the library that libvirt's clients use.
//!
//! It needs `libsasl2-modules`, and with the feature `gssapi` `libsasl2-modules-gssapi-mit`,
//! `krb5-kdc`, `krb5-admin-server` and `krb5-user`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod cyrus;
#[cfg(feature = "gssapi")]
mod kdc;
#[cfg(feature = "gssapi")]
mod kerberos;
mod passwords;
