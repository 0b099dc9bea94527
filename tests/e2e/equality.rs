//! The proxy changes nothing that a client sees: the same calls give the same results, codes,
//! domains and texts.

use std::fmt::Write;

use crate::support::libvirtd::Libvirtd;
use crate::support::proxy::Proxy;
use crate::support::scripts::SCRIPT_OF_CALLS;
use crate::support::tool::{assert_same, python, virsh};

#[test]
fn the_script_of_calls_gives_the_same_directly_and_through_the_proxy() {
    let ask = |uri: &str| python(SCRIPT_OF_CALLS, &[uri]).run().ok();
    let direct = ask(&Libvirtd::start().uri("test:///default"));
    assert!(direct.lines().count() > 350, "{direct}");
    let daemon = Libvirtd::start();
    let proxy = Proxy::before(&daemon.socket());
    assert_same(&direct, &ask(&proxy.uri("test:///default", "sock")));
}

#[test]
fn virsh_says_the_same_of_qemu_directly_and_through_the_proxy() {
    const COMMANDS: [&[&str]; 16] = [
        &["uri"],
        &["version", "--daemon"],
        &["capabilities"],
        &["domcapabilities"],
        &["list", "--all"],
        &["pool-list", "--all", "--details"],
        &["pool-dumpxml", "pool"],
        &["vol-list", "pool", "--details"],
        &["vol-dumpxml", "volume", "pool"],
        &["net-list", "--all"],
        &["nodedev-list"],
        &["secret-list"],
        &["domstate", "no-such-domain"],
        &["net-info", "no-such-network"],
        &["vol-info", "no-such-volume", "pool"],
        &["define", "/dev/null"],
    ];
    let daemon = Libvirtd::start();
    daemon.dir_pool("pool");
    daemon.volume("pool", "volume", 1);
    let proxy = Proxy::before(&daemon.socket());
    let ask = |uri: &str| {
        let mut said = String::new();
        for command in COMMANDS {
            let output = virsh(uri, command).run();
            let (status, command) = (output.status, command.join(" "));
            writeln!(
                said,
                "{command}: {status}\n{}\n{}",
                output.stdout, output.stderr
            )
            .unwrap();
        }
        // `uri` prints what the client was given, which is how it comes here.
        said.replace(uri, "URI")
    };
    let direct = ask(&daemon.uri("qemu:///session"));
    assert!(direct.contains("failed to get domain 'no-such-domain'"));
    assert_same(&direct, &ask(&proxy.uri("qemu:///session", "sock")));
}
