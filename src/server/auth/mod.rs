//! Finding out who a client is where its socket alone does not prove it.
//!
//! - `polkit`: asking the host's policy, and through it the user, about a local client.

#[cfg_attr(
    not(test),
    expect(dead_code, reason = "no listener can ask for it yet")
)]
pub(crate) mod polkit;
