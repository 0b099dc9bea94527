//! Daemons on other hosts and behind programs serve like those of this one.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::{OUTLIVED, Three, at, lose_storage_under};
use crate::support::guest::guest_xml;
use crate::support::host::Host;
use crate::support::libvirtd::Libvirtd;
use crate::support::pki::Pki;
use crate::support::process::find_program;
use crate::support::workdir::WorkDir;

/// libvirt's own program for the far end of an SSH connection, on a daemon of this host. It knows
/// sessions of users alone.
fn helper(daemon: &Libvirtd, uri: &str) -> String {
    let account = daemon.account();
    format!(
        "command: [setpriv, --reuid={}, --regid={}, --clear-groups, env, \"XDG_RUNTIME_DIR={}\", \
         {}, \"{uri}\"]",
        account.uid,
        account.gid,
        daemon.dir().join("run").display(),
        find_program("virt-ssh-helper").display()
    )
}

/// A daemon that listens by TLS there, and how it is reached.
fn by_tls(pki: &Pki, host: &Host, address: &str) -> (Libvirtd, String) {
    pki.sign(
        "far",
        "ca",
        &format!("cn = far\nip_address = {address}\ntls_www_server\nencryption_key\nsigning_key\n"),
    );
    pki.client("gateway", "ca", "");
    // It runs as somebody else.
    fs::set_permissions(pki.path("far.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let file = |name: &str| pki.path(name).display().to_string();
    let conf = format!(
        "listen_addr = \"{address}\"\nca_file = \"{}\"\ncert_file = \"{}\"\nkey_file = \"{}\"\n",
        file("ca.pem"),
        file("far.pem"),
        file("far.key"),
    );
    let daemon = Libvirtd::listening_with(&conf, &[], Some(host));
    let upstream = format!(
        "tls: {address}, ca: {}, cert: {}, key: {}",
        file("ca.pem"),
        file("gateway.pem"),
        file("gateway.key")
    );
    (daemon, upstream)
}

#[test]
fn a_session_is_the_same_over_another_host_and_a_program() {
    const FAR: &str = "192.0.2.2";
    let [here, there] = Host::pair(["192.0.2.1", FAR]);
    let dir = WorkDir::new();
    let pki = Pki::new(&dir.join("pki"));
    let [domains, networks] = [(); 2].map(|()| Libvirtd::start());
    let (storage, far) = by_tls(&pki, &there, FAR);
    let upstreams = [at(&domains), helper(&networks, "network:///session"), far];
    let daemons = [domains, networks, storage];
    let mut three = Three::behind(daemons, &upstreams, None, |builder| {
        let (program, network) = here.entrance();
        builder.program(program, &[&network, env!("CARGO_BIN_EXE_virtproxyd")])
    });
    let guest = guest_xml(&three.domains, "echo");
    assert_eq!(lose_storage_under(&mut three, &guest), OUTLIVED);
}
