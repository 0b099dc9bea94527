//! `virsh` by TLS, with certificates by `certtool`: GnuTLS at both ends of what it was made for.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::support::libvirtd::Libvirtd;
use crate::support::pki::{Pki, free_port};
use crate::support::process::{Output, Process, command};
use crate::support::proxy::{Proxy, ProxyBuilder};
use crate::support::tool::virsh;
use crate::support::wait::eventually;

/// A daemon, the proxy before it with a TLS listener, and certificates.
struct Scene {
    proxy: Proxy,
    pki: Pki,
    port: u16,
    _daemon: Libvirtd,
}

impl Scene {
    /// With more keys of `tls`. Clients named `ci` and `other` are sent to the daemon, others
    /// nowhere.
    fn start(tls: &str) -> Self {
        Self::start_with("", tls)
    }

    /// The same with keys of `daemon`.
    fn start_with(daemon_keys: &str, tls: &str) -> Self {
        let daemon = Libvirtd::start();
        let port = free_port();
        let mut pki = None;
        let builder = ProxyBuilder::new(|dir| {
            let made = Pki::new(&dir.join("pki"));
            made.client("ci", "ca", "");
            made.client("other", "ca", "");
            made.revoke(&[]);
            pki = Some(made);
            format!(
                "daemon: {{{daemon_keys}}}\n{}",
                policy(dir, &daemon.socket(), port, tls)
            )
        });
        let builder = builder.args(&["--verbose"]);
        Self {
            proxy: builder.start(),
            pki: pki.unwrap(),
            port,
            _daemon: daemon,
        }
    }

    fn uri(&self, host: &str, client: Option<&str>, more: &str) -> String {
        let (port, pkipath) = (self.port, self.pki.pkipath(client));
        format!("test+tls://{host}:{port}/default?pkipath={pkipath}{more}")
    }

    fn list(&self, host: &str, client: Option<&str>, more: &str) -> Output {
        virsh(&self.uri(host, client, more), &["list", "--name"]).run()
    }

    /// A line of the proxy's log that has `text`.
    #[track_caller]
    fn wait_for_log(&self, text: &str) {
        self.proxy.process().stderr().wait_for(text);
    }
}

fn policy(dir: &Path, upstream: &Path, port: u16, tls: &str) -> String {
    let (dir, upstream) = (dir.display(), upstream.display());
    let tls = tls.replace("DIR", &dir.to_string());
    format!(
        "version: 1
listeners:
  tls:
    tcp: [\"127.0.0.1:{port}\", \"[::1]:{port}\"]
    tls: {{ cert: {dir}/pki/server.pem, key: {dir}/pki/server.key, ca: {dir}/pki/ca.pem{tls} }}
upstreams:
  daemon: {{ unix: \"{upstream}\" }}
identities:
  ours: {{ x509: {{ cn: [ci, other], o: Acme }} }}
routes:
  - {{ uri: \"test:///default\", clients: ours, upstream: daemon }}
"
    )
}

#[test]
fn a_client_with_a_certificate_is_served_by_every_address_and_version() {
    let scene = Scene::start("");
    for host in ["127.0.0.1", "[::1]", "localhost"] {
        assert_eq!(
            scene.list(host, Some("ci"), "").ok().trim(),
            "test",
            "{host}"
        );
    }
    for version in ["1.2", "1.3"] {
        let priority = format!("&tls_priority=NORMAL:-VERS-ALL:%2BVERS-TLS{version}");
        let listed = scene.list("localhost", Some("ci"), &priority).ok();
        assert_eq!(listed.trim(), "test", "{version}");
    }
}

#[test]
fn bad_certificates_are_refused_and_the_log_says_why() {
    let scene = Scene::start("");
    scene.pki.ca("stranger", "Other CA");
    scene.pki.client("wrong-ca", "stranger", "");
    scene.pki.client(
        "expired",
        "ca",
        "activation_date = \"2019-01-01 00:00:00\"\nexpiration_date = \"2020-01-01 00:00:00\"\n",
    );
    for (client, why) in [
        (Some("wrong-ca"), "UnknownIssuer"),
        (Some("expired"), "expired"),
        (None, "no certificates"),
    ] {
        // libvirt's client would not even show such a certificate.
        let error = scene.list("localhost", client, "&no_sanity=1").failed();
        assert!(error.contains("failed to connect"), "{error}");
        scene.wait_for_log(why);
    }
    // A good certificate of somebody who has no route.
    scene.pki.client("nobody-we-know", "ca", "");
    let error = scene.list("localhost", Some("nobody-we-know"), "").failed();
    assert!(error.contains("failed to connect"), "{error}");
    assert_eq!(scene.list("localhost", Some("ci"), "").ok().trim(), "test");
}

/// What the log shows can be written into the policy, and is what GnuTLS calls the client.
#[test]
fn the_log_has_the_name_as_certtool_prints_it() {
    let scene = Scene::start("");
    scene.pki.sign(
        "full",
        "ca",
        "dn = \"CN=ci,OU=Ops\\, too,O=Acme,L=Köln,ST=NRW,C=DE\"\ntls_www_client\nsigning_key\nencryption_key\n",
    );
    let printed = scene.pki.describe("full");
    let name = printed
        .lines()
        .find_map(|line| line.trim().strip_prefix("Subject: "));
    let name = name.unwrap();
    assert!(name.contains("Köln"), "{name}");
    assert_eq!(
        scene.list("localhost", Some("full"), "").ok().trim(),
        "test"
    );
    scene.wait_for_log(&format!("dn=\"{name}\""));
}

#[test]
fn versions_below_the_policys_are_refused() {
    let scene = Scene::start(", min_version: \"1.3\"");
    let old = "&tls_priority=NORMAL:-VERS-ALL:%2BVERS-TLS1.2";
    scene.list("localhost", Some("ci"), old).failed();
    assert_eq!(scene.list("localhost", Some("ci"), "").ok().trim(), "test");
}

#[test]
fn a_revoked_client_is_closed_and_not_let_in_again() {
    let scene = Scene::start(", crl: DIR/pki/crl.pem");
    let watch = |client: &str| {
        let uri = scene.uri("localhost", Some(client), "");
        virsh(&uri, &["event", "--all", "--loop"]).start()
    };
    let (mut ci, mut other) = (watch("ci"), watch("other"));
    for client in ["ci", "other"] {
        scene.wait_for_log(&format!("dn=\"CN={client},O=Acme\""));
    }
    scene.pki.revoke(&["ci"]);
    scene.wait_for_log("its certificate is revoked");
    // virsh stays, but has no connection any more.
    scene.list("localhost", Some("ci"), "").failed();
    assert_eq!(
        scene.list("localhost", Some("other"), "").ok().trim(),
        "test"
    );
    assert_eq!(
        scene
            .proxy
            .process()
            .stderr()
            .count("its certificate is revoked"),
        1
    );
    ci.kill();
    other.kill();
}

#[test]
fn a_new_certificate_is_shown_and_a_broken_one_is_not() {
    let scene = Scene::start("");
    let shown = || {
        let mut command = command("gnutls-cli", None);
        let ca = scene.pki.path("ca.pem");
        command.args(["--port", &scene.port.to_string(), "--x509cafile"]);
        command
            .arg(ca)
            .args(["--logfile", "/dev/stderr", "localhost"]);
        Process::start("gnutls-cli", command).finish()
    };
    let serial = |output: Output| {
        let line = output.stderr.lines().find(|line| line.contains("serial"));
        line.unwrap_or_else(|| panic!("{output:?}")).to_owned()
    };
    let before = serial(shown());

    scene.wait_for_log("ready");
    fs::write(scene.pki.path("server.key"), "rubbish").unwrap();
    scene.wait_for_log("the certificates and passwords in force stay");
    assert_eq!(serial(shown()), before);

    fs::remove_file(scene.pki.path("server.key")).unwrap();
    scene.pki.sign(
        "server",
        "ca",
        "cn = localhost\ndns_name = localhost\nip_address = 127.0.0.1\ntls_www_server\nsigning_key\n\
         encryption_key\n",
    );
    fs::set_permissions(
        scene.pki.path("server.key"),
        fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    scene.wait_for_log("certificates and passwords read again");
    assert_ne!(serial(shown()), before);
    assert_eq!(scene.list("localhost", Some("ci"), "").ok().trim(), "test");
}

#[test]
fn heaps_of_silent_connections_keep_nobody_out() {
    let scene = Scene::start_with("max_unauthenticated: 20", "");
    let before = scene.proxy.process().open_fds();
    let connect = |bytes: &[u8]| {
        let mut socket = TcpStream::connect(("127.0.0.1", scene.port)).unwrap();
        // It may have been closed already.
        _ = socket.write_all(bytes);
        socket
    };
    let heap: Vec<TcpStream> = (0..1000)
        .map(|number| match number % 3 {
            0 => connect(b""),
            1 => connect(b"GET / HTTP/1.1\r\n\r\n"),
            _ => connect(b"\x16\x03\x01\x02\x00"),
        })
        .collect();
    // While the heap is being taken in, a client of the same address may be pushed out with it.
    eventually("a client is served meanwhile", || {
        scene.list("127.0.0.1", Some("ci"), "").stdout.trim() == "test"
    });
    // Twenty are let wait, and each new one has taken the place of an old one.
    eventually("most of them are closed", || {
        scene.proxy.process().open_fds() <= before + 20
    });
    drop(heap);
    eventually("nothing of them is left", || {
        scene.proxy.process().open_fds() <= before
    });
    assert_eq!(scene.list("[::1]", Some("other"), "").ok().trim(), "test");
}
