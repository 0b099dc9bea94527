//! Daemons on other hosts and behind programs serve like those of this one.

use super::{OUTLIVED, Three, at, helper, lose_storage_under};
use crate::support::guest::guest_xml;
use crate::support::host::Host;
use crate::support::libvirtd::Libvirtd;
use crate::support::pki::Pki;
use crate::support::workdir::WorkDir;

#[test]
fn a_session_is_the_same_over_another_host_and_a_program() {
    const FAR: &str = "192.0.2.2";
    let [here, there] = Host::pair(["192.0.2.1", FAR]);
    let dir = WorkDir::new();
    let pki = Pki::new(&dir.join("pki"));
    pki.daemon("far", FAR, "");
    pki.client("gateway", "ca", "");
    let [domains, networks] = [(); 2].map(|()| Libvirtd::start());
    let storage =
        Libvirtd::listening_with(&pki.libvirtd_conf("far", FAR, 16514), &[], Some(&there));
    let upstreams = [
        at(&domains),
        helper(&networks.dir().join("run"), "network:///session"),
        format!("tls: {FAR}, {}", pki.upstream("ca", "gateway")),
    ];
    let daemons = [domains, networks, storage];
    let mut three = Three::behind(daemons, &upstreams, None, |builder| {
        let (program, network) = here.entrance();
        builder.program(program, &[&network, env!("CARGO_BIN_EXE_virtproxyd")])
    });
    let guest = guest_xml(&three.domains, "echo");
    assert_eq!(lose_storage_under(&mut three, &guest), OUTLIVED);
}

/// The other way round: what streams goes through programs, which end with their daemon.
#[test]
fn a_session_is_the_same_with_volumes_and_guests_behind_programs() {
    let [domains, networks, storage] = [(); 3].map(|()| Libvirtd::start());
    let upstreams = [
        helper(&domains.dir().join("run"), "qemu:///session"),
        at(&networks),
        helper(&storage.dir().join("run"), "storage:///session"),
    ];
    let daemons = [domains, networks, storage];
    let mut three = Three::behind(daemons, &upstreams, None, |builder| builder);
    let guest = guest_xml(&three.domains, "echo");
    assert_eq!(lose_storage_under(&mut three, &guest), OUTLIVED);
}
