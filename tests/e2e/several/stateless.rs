//! Drivers that keep nothing on this host are served by a monolithic daemon beside the others.

use std::fs;
use std::path::Path;

use crate::support::account::Account;
use crate::support::fake_upstream::FakeUpstream;
use crate::support::host::Host;
use crate::support::libvirtd::Libvirtd;
use crate::support::proxy::ProxyBuilder;
use crate::support::tool::virsh;

/// The example, with the proxy's listener and daemons of ours, and root as its operator.
fn example(dir: &Path, qemu: &Path, stateless: &Path) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/stateless.yaml");
    let text = fs::read_to_string(path).unwrap();
    let (text, _tests) = text.split_once("\ntests:").unwrap();
    let mut adapted = text.to_owned();
    for (there, here) in [
        (
            "{ unix: /run/libvirt/libvirt-sock, group: libvirt, mode: \"0660\" }",
            dir.join("sock"),
        ),
        (
            "{ unix: /run/libvirt/virtqemud-sock, unix_ro: /run/libvirt/virtqemud-sock-ro }",
            qemu.to_owned(),
        ),
        (
            "{ unix: /run/libvirt/stateless/libvirt-sock, unix_ro: /run/libvirt/stateless/libvirt-sock-ro }",
            stateless.to_owned(),
        ),
    ] {
        let mode = if there.contains("mode") {
            ", mode: \"0666\""
        } else {
            ""
        };
        assert!(adapted.contains(there), "{there}");
        adapted = adapted.replace(there, &format!("{{ unix: {}{mode} }}", here.display()));
    }
    adapted.replace("unix: { group: esx }", "unix: { user: root }")
}

#[test]
fn the_example_for_stateless_drivers_serves_what_it_names_and_nothing_else() {
    // On no network: what its drivers look for is not to be found.
    let host = Host::start();
    let daemon = Libvirtd::listening_with(
        "listen_tls = 0\nlisten_tcp = 1\nauth_tcp = \"none\"\n",
        &[],
        Some(&host),
    );
    let qemu = FakeUpstream::start();
    let proxy = ProxyBuilder::new(|dir| example(dir, &qemu.socket(), &daemon.socket())).start();
    let uri = proxy.uri("test:///default", "sock");
    let list = ["list", "--all", "--name"];
    assert_eq!(virsh(&uri, &list).run().ok().trim(), "test");
    assert_eq!(
        virsh(&uri, &["capabilities"]).run().ok(),
        virsh(&daemon.uri("test:///default"), &["capabilities"])
            .run()
            .ok()
    );

    // The driver of the daemon answers, in its own words.
    let by_name = |name: &str| proxy.uri(&format!("esx:///?name={name}"), "sock");
    let host_of_esx = "esx://vc1.example.com/dc1/esx7.example.com";
    let there = virsh(&by_name(host_of_esx), &list).run().failed();
    let directly = daemon.uri(&format!("esx:///?name={host_of_esx}"));
    assert_eq!(there, virsh(&directly, &list).run().failed());
    assert!(!there.contains("no connection driver"), "{there}");

    // Others have no such way, and nobody has another.
    let account = Account::unprivileged();
    let refused = virsh(&by_name(host_of_esx), &list)
        .account(&account)
        .run()
        .failed();
    assert!(
        refused.contains("no connection driver available for"),
        "{refused}"
    );
    for name in [
        "esx://elsewhere.example.com/dc1",
        "esx://vc1.example.com/dc1?no_verify=1",
        "nosuch:///default",
        "test:///etc/passwd",
        "qemu%2Bssh://elsewhere/system",
    ] {
        let refused = virsh(&by_name(name), &list).run().failed();
        assert!(
            refused.contains("no connection driver available for"),
            "{name}: {refused}"
        );
    }
    assert_eq!(qemu.accepted(), 0);
    // A daemon that is asked for such a driver says the same.
    let unknown = virsh(&daemon.uri("nosuch:///default"), &list)
        .run()
        .failed();
    assert_eq!(
        unknown,
        virsh(&proxy.uri("nosuch:///default", "sock"), &list)
            .run()
            .failed()
    );
}
