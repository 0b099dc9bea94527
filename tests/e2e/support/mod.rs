//! What the end-to-end tests stand on.
//!
//! - [`account`], [`workdir`], [`process`], [`wait`]: users, temporary directories, child
//!   processes that cannot outlive the test, waiting for conditions;
//! - [`tool`], [`scripts`]: `virsh` and Python clients; [`libvirtd`]: a real unprivileged daemon; [`guest`]: a
//!   tiny real guest with a console and a display; [`proxy`], [`policy`] and [`notify`]: the
//!   binary under test, its file, and what it tells systemd;
//! - [`wire`], [`xdr`], [`rpc_client`], [`fake_upstream`]: both ends of the protocol by script;
//!   [`relay`]: a proxy that only copies bytes, to test the tests;
//! - [`pki`], [`passwords`], [`bus`]: what clients prove who they are by; [`remote`]: scripted
//!   clients by TCP and TLS;
//! - [`table`], [`value`], [`caller`]: any call of the protocol table, as any user; [`system`]: a
//!   real daemon with all privileges and a polkit of its own; [`tenants`]: two tenants on it;
//! - [`host`]: other hosts, as networks of their own; [`records`]: the audit file;
//! - [`scene`]: the proxy between a scripted client and a scripted upstream, and what is counted
//!   of it.

pub(crate) mod account;
pub(crate) mod bus;
pub(crate) mod caller;
pub(crate) mod fake_upstream;
pub(crate) mod guest;
pub(crate) mod host;
pub(crate) mod libvirtd;
pub(crate) mod notify;
pub(crate) mod passwords;
pub(crate) mod pki;
pub(crate) mod policy;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod records;
pub(crate) mod relay;
pub(crate) mod remote;
pub(crate) mod rpc_client;
pub(crate) mod scene;
pub(crate) mod scripts;
pub(crate) mod system;
pub(crate) mod table;
pub(crate) mod tenants;
pub(crate) mod tool;
pub(crate) mod value;
pub(crate) mod wait;
pub(crate) mod wire;
pub(crate) mod workdir;
pub(crate) mod xdr;
