//! Conversations with a session: no sockets, no clock.
//!
//! A `Rig` stands between a scripted client and scripted daemons as the shell does: it offers
//! frames in order, passes on what is to be relayed, offers held frames again, and carries out
//! actions. A test says what one side sends and what the other side then gets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected must fail"
)]

mod access;
mod audit;
mod authenticating;
mod callbacks;
mod calls;
mod descriptors;
mod dialogue;
mod ending;
mod host;
mod keepalive;
mod leases;
mod links;
mod loss;
mod opening;
mod quotas;
mod reconnect;
mod refusals;
mod rig;
mod several;
mod streams;
mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{
    Action, Auth, Lost, OPENS, Peer, Router, SaslInput, SaslProgress, Session, Setup, UpstreamId,
    Verdict,
};
use crate::policy::facts::{ClientFacts, SaslFacts, UnixFacts};
use crate::policy::model::{
    Address, DriverTarget, Drivers, ForwardIdentity, Keepalive, Routed, Target, Upstream,
};
use crate::protocol::args::{ConnectOpen, Feature};
use crate::protocol::driver::Driver;
use crate::protocol::fault::Fault;
use crate::protocol::frame::{self, Frame, Next};
use crate::protocol::header::{Header, MessageType, Procedure, Program, Serial, Status, VERSION};
use crate::protocol::limits::FRAME_MAX;
use crate::protocol::table::{keepalive as ping, remote};
use crate::protocol::xdr::{Reader, Writer};
use rig::*;
use wire::*;

const SECOND: Duration = Duration::from_secs(1);
