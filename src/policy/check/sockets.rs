//! Sockets that cannot be as written: two listeners on one, a listener's own as an upstream.

use core::net::SocketAddr;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use super::Checker;
use crate::policy::model::{Address, ListenAddress};
use crate::policy::report::Problem;
use crate::policy::template::Destination;
use crate::policy::yaml::Pointer;

impl Checker<'_, '_> {
    /// Two listeners on one socket, or a listener's own socket as an upstream.
    pub(super) fn sockets(&self, problems: &mut Vec<Problem>) {
        let mut taken: BTreeMap<&Path, &Pointer> = BTreeMap::new();
        let mut ports: Vec<(SocketAddr, Pointer)> = Vec::new();
        for entry in &self.draft.listeners {
            let Some(listener) = &entry.value else {
                continue;
            };
            match &listener.address {
                ListenAddress::Unix { path, .. } => match taken.get(path.as_path()) {
                    Some(first) => {
                        let (at, first) = (entry.at.key("unix"), first.key("unix"));
                        problems.push(self.same_socket(&at, &first));
                    }
                    None => {
                        taken.insert(path, &entry.at);
                    }
                },
                ListenAddress::Tcp { addresses } => {
                    for address in addresses {
                        let at = entry.at.key("tcp");
                        match ports.iter().find(|(other, _)| overlap(other, address)) {
                            Some((_, first)) => problems.push(self.same_socket(&at, first)),
                            None => ports.push((*address, at)),
                        }
                    }
                }
            }
        }
        for entry in &self.draft.upstreams {
            let Some(destination) = &entry.value else {
                continue;
            };
            let sockets = destination.upstream().addresses.iter().enumerate();
            let sockets = sockets.flat_map(|(index, address)| match address {
                Address::Unix { path, readonly } => [
                    Some((entry.at.key("unix").index(index), path)),
                    readonly
                        .as_ref()
                        .map(|path| (entry.at.key("unix_ro"), path)),
                ],
                _ => [None, None],
            });
            for (at, path) in sockets.flatten() {
                let first = match destination {
                    Destination::Fixed(_) => taken.get(path.as_path()),
                    Destination::Template(template) => taken
                        .iter()
                        .find(|(socket, _)| template.can_be(&text_of(path), &text_of(socket)))
                        .map(|(_, first)| first),
                };
                let Some(first) = first else { continue };
                problems.push(
                    Problem::error(
                        "loop",
                        Some(self.document.place(&at)),
                        "this is a listener's own socket: the proxy would connect to itself",
                    )
                    .related(self.document.place(&first.key("unix")), "the listener")
                    .help(
                        "name the socket of a driver daemon, such as /run/libvirt/virtqemud-sock",
                    ),
                );
            }
        }
    }

    fn same_socket(&self, at: &Pointer, first: &Pointer) -> Problem {
        let place = Some(self.document.place(at));
        Problem::error(
            "duplicate-address",
            place,
            "another listener has this socket",
        )
        .related(self.document.place(first), "here")
    }
}

fn text_of(path: &Path) -> Cow<'_, str> {
    path.to_string_lossy()
}

/// Whether both cannot listen at once. IPv6 sockets take no IPv4 clients.
fn overlap(one: &SocketAddr, other: &SocketAddr) -> bool {
    let same_kind = one.is_ipv4() == other.is_ipv4();
    let (a, b) = (one.ip(), other.ip());
    let wide = a.is_unspecified() || b.is_unspecified();
    one.port() == other.port() && same_kind && (wide || one == other)
}
