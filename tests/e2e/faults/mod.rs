//! Bad input from either side: it costs its own connection at most.
//!
//! - `frames`: frames that cannot be; `calls`: good frames that mean nothing, compared with
//!   `libvirtd`; `descriptors`: counts that lie;
//! - `silence`: who is not listened to is not silent;
//! - `stalls`: clients that stop, flood or never listen; `flow`: order, fairness and memory while
//!   they do;
//! - `upstreams`: daemons that fail.

mod calls;
mod descriptors;
mod flow;
mod frames;
mod silence;
mod stalls;
mod upstreams;
