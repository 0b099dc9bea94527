//! Bytes to meaning: the libvirt RPC protocol, knowing no sockets and no policy.
//!
//! - [`limits`]: every length and count cap, with its reason.
//! - [`header`]: program, procedure, serial, type and status as newtypes; the 24-byte header.
//! - [`frame`]: one whole frame in a buffer, and the incremental reader that finds it.
//! - [`xdr`]: bounded cursor and writer over slices.
//! - [`args`]: arguments and replies of the few calls that the proxy reads or makes itself.
//! - [`driver`]: which daemon serves a procedure.
//! - [`table`]: one static row per procedure of the five programs.
//! - [`shape`]: of what types a payload is made.
//! - [`object`]: domains, networks, … as they travel.
//! - [`payload`]: any payload read by its shape: fields, objects, edits that keep the rest.
//! - [`fault`]: errors as libvirt error replies.

pub mod args;
pub mod driver;
pub mod fault;
pub mod frame;
pub mod header;
pub mod limits;
pub mod object;
pub mod payload;
pub mod shape;
pub mod table;
pub mod xdr;
