//! What a tenant tries on another, and on the proxy: nothing may be done to the other, nor may a
//! client tell what the other has from what is not there.
//!
//! - [`every_call`]: every procedure, driven from the table; [`content`]: what is named by XML, files
//!   and new names; [`guards`]: paths and commands; [`numbers`]: calls that there are not;
//!   [`counters`]: what can be counted from outside.

mod content;
mod counters;
mod every_call;
mod guards;
mod numbers;
