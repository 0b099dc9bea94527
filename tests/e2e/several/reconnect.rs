//! A daemon restarts, and its clients stay.

use crate::support::libvirtd::Libvirtd;
use crate::support::policy::everything_to;
use crate::support::proxy::ProxyBuilder;
use crate::support::scripts::RESTARTS;
use crate::support::tool::python;

#[test]
fn a_client_with_callbacks_lives_through_twenty_restarts_under_load() {
    const ROUNDS: usize = 20;
    let mut daemon = Libvirtd::start();
    let settings = "reconnect: true";
    let proxy = ProxyBuilder::new(|dir| everything_to(dir, &daemon.socket(), settings)).start();
    let uri = proxy.uri("test:///default", "sock");
    let socket = daemon.socket();
    let args = [&uri, socket.to_str().unwrap(), &ROUNDS.to_string(), "4"];
    let mut client = python(RESTARTS, &args).start();
    for round in 0..ROUNDS {
        client.wait_for(&format!("ROUND {round}"));
        daemon.restart();
    }
    let said = client.finish().ok();
    let end = format!("{ROUNDS} restarts; good calls: True, lost: True");
    assert!(said.ends_with(&end), "{said}");
    assert_eq!(proxy.process().stderr().count("upstream lost"), ROUNDS);
}
