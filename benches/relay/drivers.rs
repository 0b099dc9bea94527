//! Routing by driver, against a daemon that passes calls on to the one that owns the object.
//!
//! libvirt's hypervisor daemons forward by their own remote driver. Here a second `libvirtd` does,
//! since a client has it open a URI that leads to the first one.

use std::io;

use virtproxyd::protocol::table::remote;

use super::measures::{call_again_and_again, transfer_once};
use super::peers::{Kind, More, Peer, Running};
use super::rows::{Effort, Sample};
use super::upstream::{NETWORK, OBJECTS, Upstream};
use super::wire::{Client, POOL, named_call};

pub(crate) fn network_call(peer: &Peer, owner: &Upstream, effort: &Effort) -> io::Result<Sample> {
    let request = named_call(remote::NETWORK_LOOKUP_BY_NAME, NETWORK);
    let way = Way::start(peer, owner, effort)?;
    call_again_and_again(&way.running, &way.uri, effort, request)
}

pub(crate) fn storage_call(peer: &Peer, owner: &Upstream, effort: &Effort) -> io::Result<Sample> {
    let request = named_call(remote::STORAGE_POOL_LOOKUP_BY_NAME, POOL);
    let way = Way::start(peer, owner, effort)?;
    call_again_and_again(&way.running, &way.uri, effort, request)
}

pub(crate) fn download(peer: &Peer, owner: &Upstream, effort: &Effort) -> io::Result<Sample> {
    let way = Way::start(peer, owner, effort)?;
    let client = Client::open(&way.running.socket, &way.uri)?;
    transfer_once(&way.running, client, effort.stream, Client::download)
}

/// A running peer on the way to the daemon that owns the networks and the storage.
struct Way {
    running: Running,
    /// What a client opens there.
    uri: String,
    /// The daemon for everything else, if it is not the peer itself.
    _second: Option<Upstream>,
}

impl Way {
    fn start(peer: &Peer, owner: &Upstream, effort: &Effort) -> io::Result<Self> {
        owner.make_objects(effort.stream)?;
        if peer.kind == Kind::Direct {
            return Ok(Self {
                running: peer.start(owner)?,
                uri: OBJECTS.to_owned(),
                _second: None,
            });
        }
        let second = Upstream::libvirtd()?;
        let owners = owner.socket.display();
        let forwarded = format!("qemu+unix:///session?socket={owners}");
        let (running, uri) = match peer.kind {
            Kind::Forwarding => {
                return Ok(Self {
                    running: second.into(),
                    uri: forwarded,
                    _second: None,
                });
            }
            Kind::Routed(_) => {
                let upstreams = format!("  owner: {{ unix: \"{owners}\" }}\n");
                let more = More {
                    upstreams: &upstreams,
                    routes: ROUTES,
                    ..More::default()
                };
                (peer.start_with(&second, &more, None)?, OBJECTS.to_owned())
            }
            _ => (peer.start(&second)?, forwarded),
        };
        Ok(Self {
            running,
            uri,
            _second: Some(second),
        })
    }
}

/// The owner opens what the forwarding daemon opens there.
const ROUTES: &str = "  - uri: \"qemu:///session\"\n    upstream: daemon\n    \
    drivers:\n      network: { upstream: owner, open: \"qemu:///session\" }\n      \
    storage: { upstream: owner, open: \"qemu:///session\" }\n";
