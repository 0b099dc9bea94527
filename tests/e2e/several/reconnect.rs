//! A daemon restarts, and its clients stay.

use super::{by_tls, certificates};
use crate::support::libvirtd::Libvirtd;
use crate::support::policy::{CONNECT, everything_to, listeners};
use crate::support::proxy::{Proxy, ProxyBuilder};
use crate::support::scripts::RESTARTS;
use crate::support::tool::python;
use crate::support::workdir::WorkDir;

/// A client with callbacks lives through so many restarts under load.
fn live_through(rounds: usize, mut daemon: Libvirtd, proxy: &Proxy) {
    let uri = proxy.uri("test:///default", "sock");
    let socket = daemon.socket();
    let args = [&uri, socket.to_str().unwrap(), &rounds.to_string(), "4"];
    let mut client = python(RESTARTS, &args).start();
    for round in 0..rounds {
        client.wait_for(&format!("ROUND {round}"));
        daemon.restart();
    }
    let said = client.finish().ok();
    let end = format!("{rounds} restarts; good calls: True, lost: True");
    assert!(said.ends_with(&end), "{said}");
    assert_eq!(proxy.process().stderr().count("upstream lost"), rounds);
}

#[test]
fn a_client_with_callbacks_lives_through_twenty_restarts_under_load() {
    let daemon = Libvirtd::start();
    let settings = "reconnect: true";
    let proxy = ProxyBuilder::new(|dir| everything_to(dir, &daemon.socket(), settings)).start();
    live_through(20, daemon, &proxy);
}

/// Dials to another host are not free: in between they are left alone for a while.
#[test]
fn a_client_with_callbacks_lives_through_restarts_of_a_far_daemon() {
    let dir = WorkDir::new();
    let (daemon, far) = by_tls(&certificates(&dir));
    let proxy = ProxyBuilder::new(|dir| {
        listeners(dir, "")
            + &format!(
                "upstreams:
  daemon: {{ {far}, {CONNECT}, reconnect: true }}
routes:
  - {{ uri: \"*?*\", upstream: daemon }}
"
            )
    });
    live_through(3, daemon, &proxy.start());
}
