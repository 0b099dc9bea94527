//! The support works by itself: against a real `libvirtd` directly, through a relay that only
//! copies bytes, and between its own scripted ends.

mod daemons;
mod wire;
