//! Daemons by plain TCP that ask for a ticket, and Kerberos' layer around the whole connection.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::{ADDRESS, tcp_conf};
use crate::kdc::Kdc;
use crate::kerberos::carries_a_volume;
use crate::support::account::Account;
use crate::support::libvirtd::Libvirtd;
use crate::support::pki::free_port;
use crate::support::policy::{CONNECT, listeners};
use crate::support::proxy::{Proxy, ProxyBuilder};
use crate::support::tool::virsh;
use crate::support::workdir::{WorkDir, give, make_dir};

/// What a daemon of another user has of the realm: its service's keys, and how to use them.
fn service(dir: &WorkDir, kdc: &Kdc) -> [(&'static str, String); 4] {
    let account = Account::unprivileged();
    let own = dir.join("krb5");
    make_dir(&own, &account);
    for name in ["krb5.conf", "keytab"] {
        let path = own.join(name);
        fs::copy(kdc.path(name), &path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        give(&path, &account);
    }
    // The service is `localhost`, whatever this host is called.
    let conf = own.join("krb5.conf");
    let text = fs::read_to_string(&conf).unwrap();
    let text = text.replace(
        "[libdefaults]\n",
        "[libdefaults]\n ignore_acceptor_hostname = true\n",
    );
    fs::write(&conf, text).unwrap();
    let text = format!("mech_list: gssapi\nkeytab: {}/keytab\n", own.display());
    fs::write(own.join("libvirt.conf"), text).unwrap();
    let path = |name: &str| own.join(name).display().to_string();
    [
        ("SASL_CONF_PATH", path("")),
        ("KRB5_CONFIG", path("krb5.conf")),
        ("KRB5_KTNAME", path("keytab")),
        ("KRB5RCACHEDIR", path("")),
    ]
}

fn daemon(auth: &str, port: u16, env: &[(&'static str, String)]) -> Libvirtd {
    let env: Vec<_> = env
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    Libvirtd::listening_with(&tcp_conf(ADDRESS, port, auth), &env, None)
}

/// The proxy with the tickets of that cache.
fn proxy(kdc: &Kdc, cache: &Path, port: u16) -> Proxy {
    let mut builder = ProxyBuilder::new(|dir| {
        listeners(dir, "")
            + &format!(
                "upstreams:
  hv: {{ tcp: \"localhost:{port}\", sasl: {{ mechanisms: [GSSAPI] }}, {CONNECT} }}
routes:
  - {{ uri: \"*:///*\", upstream: hv }}
"
            )
    });
    for (name, value) in kdc.environment() {
        let value = if name == "KRB5CCNAME" { cache } else { &value };
        builder = builder.env(name, &value.display().to_string());
    }
    builder.start()
}

#[test]
fn a_ticket_opens_a_far_daemon_and_its_layer_carries_volumes() {
    let (kdc, dir) = (Kdc::start(), WorkDir::new());
    kdc.log_in();
    let port = free_port();
    let daemon = daemon("sasl", port, &service(&dir, &kdc));
    let proxy = proxy(&kdc, &kdc.path("alice"), port);
    let uri = proxy.uri("test:///default", "sock");
    assert_eq!(virsh(&uri, &["list", "--name"]).run().ok().trim(), "test");

    let uri = proxy.uri("qemu:///session", "sock");
    carries_a_volume(&daemon, |args| virsh(&uri, args).run().ok());
}

#[test]
fn without_a_ticket_the_daemon_is_not_used_and_the_client_hears_why() {
    let (kdc, dir) = (Kdc::start(), WorkDir::new());
    let port = free_port();
    let _daemon = daemon("sasl", port, &service(&dir, &kdc));
    let proxy = proxy(&kdc, &kdc.path("nobody"), port);
    let uri = proxy.uri("test:///default", "sock");
    let error = virsh(&uri, &["list"]).run().failed();
    assert!(
        error.contains("upstream 'hv': authentication failed: GSSAPI: "),
        "{error}"
    );
}

/// Whoever is on the way to it could say the same.
#[test]
fn a_daemon_that_asks_for_no_ticket_is_not_spoken_to() {
    let kdc = Kdc::start();
    kdc.log_in();
    let port = free_port();
    let _daemon = daemon("none", port, &[]);
    let proxy = proxy(&kdc, &kdc.path("alice"), port);
    let uri = proxy.uri("test:///default", "sock");
    let error = virsh(&uri, &["list"]).run().failed();
    assert!(error.contains("the daemon asks for no SASL"), "{error}");
}
