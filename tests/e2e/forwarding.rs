//! What remote clients prove decides where they are sent, and the daemons are told of it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::support::fake_upstream::FakeUpstream;
use crate::support::libvirtd::Libvirtd;
use crate::support::passwords::{auth_conf, set_password};
use crate::support::pki::{Pki, free_port};
use crate::support::process::Output;
use crate::support::proxy::{Proxy, ProxyBuilder};
use crate::support::remote::by_tls;
use crate::support::rpc_client::RpcClient;
use crate::support::tool::virsh;
use crate::support::wire::procedure;
use crate::support::workdir::WorkDir;
use crate::support::xdr::{TypedValue, Writer};

const URI: &str = "test:///default";

/// What certificates of `ci` are called by the tools, and by libvirt's daemons.
const CI: [&str; 2] = [
    "CN=ci,OU=Ops\\, too,O=Acme,C=DE",
    "C=DE,O=Acme,OU=Ops\\, too,CN=ci",
];

/// A proxy with TLS; certificates of `ci`, `other` and `gateway`; alice with her password.
struct Scene {
    proxy: Proxy,
    pki: Pki,
    port: u16,
    sasl_port: u16,
}

impl Scene {
    /// `rest` is the policy from the upstreams on.
    fn start(rest: &str) -> Self {
        let (port, sasl_port) = (free_port(), free_port());
        let mut pki = None;
        let builder = ProxyBuilder::new(|dir| {
            let made = Pki::new(&dir.join("pki"));
            sign_ci(&made);
            for name in ["other", "gateway"] {
                made.client(name, "ca", "");
            }
            set_password(&dir.join("passwords"), "alice", "pencil");
            pki = Some(made);
            policy(dir, port, sasl_port, rest)
        });
        Self {
            proxy: builder.args(&["--verbose"]).start(),
            pki: pki.unwrap(),
            port,
            sasl_port,
        }
    }

    fn virsh(&self, port: u16, client: &str, more: &str, args: &[&str]) -> Output {
        connect(&self.pki, port, client, more, args)
    }

    fn connect(&self, client: &str) -> Output {
        self.virsh(self.port, client, "", &["connect"])
    }

    fn alice(&self) -> String {
        let path = auth_conf(self.proxy.dir(), "alice", "pencil");
        format!("&authfile={}", path.display())
    }

    /// What the log has seen of the first client that `text` is about.
    fn seen(&self, text: &str) -> String {
        let line = self.proxy.process().stderr().wait_for(text);
        line.split_once("client=").unwrap().1.to_owned()
    }

    fn explain(&self, listener: &str, client: &str) -> String {
        explain(&self.proxy.policy(), listener, client)
    }
}

fn sign_ci(pki: &Pki) {
    let lines = "country = DE\norganization = Acme\nunit = \"Ops, too\"\ncn = ci\n\
                 dns_name = ci.acme.example\ntls_www_client\nsigning_key\nencryption_key\n";
    pki.sign("ci", "ca", lines);
}

/// `virsh` by TLS, with the certificate of `client`.
fn connect(pki: &Pki, port: u16, client: &str, more: &str, args: &[&str]) -> Output {
    let pkipath = pki.pkipath(Some(client));
    let uri = format!("test+tls://localhost:{port}/default?pkipath={pkipath}{more}");
    virsh(&uri, args).run()
}

fn policy(dir: &Path, port: u16, sasl_port: u16, rest: &str) -> String {
    let dir = dir.display();
    let tls = format!(
        "{{ cert: {dir}/pki/server.pem, key: {dir}/pki/server.key, ca: {dir}/pki/ca.pem }}"
    );
    format!(
        "version: 1
listeners:
  tls: {{ tcp: \"127.0.0.1:{port}\", tls: {tls} }}
  sasl:
    {{ tcp: \"127.0.0.1:{sasl_port}\", tls: {tls}, auth: sasl, sasl: {{ passwords: {dir}/passwords }} }}
  local: {{ unix: {dir}/sock }}
{rest}"
    )
}

fn explain(policy: &Path, listener: &str, client: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_virtproxyd"));
    command.arg("explain").arg("-f").arg(policy);
    command.args(["--uri", URI, "--listener", listener, "--as", client]);
    let output = command.output().unwrap();
    assert!(output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn upstream(name: &str, socket: &Path) -> String {
    format!(
        "  {name}: {{ unix: {}, connect_timeout: 60s }}\n",
        socket.display()
    )
}

fn text(text: &str) -> TypedValue {
    TypedValue::String(text.to_owned())
}

/// `CONNECT_SET_IDENTITY` of a user.
fn identity(user: &str) -> Vec<u8> {
    let param = Writer::new().u32(1).string("user-name").u32(7).string(user);
    param.u32(0).end()
}

#[test]
fn two_certificates_lead_to_two_daemons_which_are_told_whose_they_are() {
    let (one, two) = (FakeUpstream::start(), FakeUpstream::start());
    let scene = Scene::start(&format!(
        "upstreams:\n{}{}identities:
  ci: {{ x509: {{ cn: ci, o: Acme, ou: Ops* }} }}
  other: {{ x509: {{ o: Acme, cn: other }} }}
routes:
  - {{ uri: \"{URI}\", clients: ci, upstream: one }}
  - {{ uri: \"{URI}\", clients: other, upstream: two }}
",
        upstream("one", &one.socket()),
        upstream("two", &two.socket())
    ));
    scene.connect("ci").ok();
    scene.connect("other").ok();
    scene.connect("gateway").failed();
    for (daemon, dn) in [(&one, CI[1]), (&two, "O=Acme,CN=other")] {
        // Nothing but what is known: it has no process here.
        let expected = BTreeMap::from([("x509-distinguished-name".to_owned(), text(dn))]);
        let identities = daemon.identities();
        assert!(!identities.is_empty());
        for identity in identities {
            assert_eq!(identity, expected);
        }
    }
}

#[test]
fn a_real_daemon_hears_of_certificate_and_user() {
    let daemon = Libvirtd::start_with(&[
        ("LIBVIRT_LOG_FILTERS", "1:daemon.remote 4:*"),
        ("LIBVIRT_LOG_OUTPUTS", "1:stderr"),
    ]);
    let scene = Scene::start(&format!(
        "upstreams:\n{}identities:
  alice: {{ all: [{{ sasl: {{ user: alice }} }}, {{ x509: {{ cn: ci }} }}, {{ address: 127.0.0.0/8 }}] }}
routes:
  - {{ uri: \"{URI}\", clients: alice, upstream: one }}
",
        upstream("one", &daemon.socket())
    ));
    let list = ["list", "--name"];
    let listed = scene.virsh(scene.sasl_port, "ci", &scene.alice(), &list);
    assert_eq!(listed.ok().trim(), "test");
    let log = daemon.process().stderr();
    log.wait_for("params[\"sasl-user-name\"]=(string)alice");
    log.wait_for("params[\"x509-distinguished-name\"]=(string)C=DE,O=Acme,OU=Ops");
    // The right password behind another certificate is somebody else.
    let error = scene
        .virsh(scene.sasl_port, "other", &scene.alice(), &list)
        .failed();
    assert!(!error.contains("authentication failed"), "{error}");
}

/// What libvirtd finds in a certificate itself is what the proxy tells of it.
#[test]
fn the_daemon_is_told_the_name_that_it_would_have_seen_itself() {
    let dir = WorkDir::new();
    let pki = Pki::new(&dir.join("pki"));
    sign_ci(&pki);
    for name in ["ca.pem", "server.pem", "server.key"] {
        // It runs as somebody else.
        fs::set_permissions(pki.path(name), fs::Permissions::from_mode(0o644)).unwrap();
    }
    let file = |name: &str| pki.path(name).display().to_string();
    let port = free_port();
    let conf = format!(
        "listen_addr = \"127.0.0.1\"\ntls_port = \"{port}\"\nca_file = \"{}\"\ncert_file = \"{}\"\n\
         key_file = \"{}\"\nlog_filters = \"1:rpc 4:*\"\nlog_outputs = \"1:stderr\"\n",
        file("ca.pem"),
        file("server.pem"),
        file("server.key"),
    );
    let daemon = Libvirtd::listening(&conf);
    connect(&pki, port, "ci", "", &["connect"]).ok();
    let line = daemon.process().stderr().wait_for("Peer DN is");
    assert!(line.ends_with(&format!("Peer DN is {}", CI[1])), "{line}");
}

#[test]
fn only_who_is_trusted_speaks_for_others() {
    let daemon = FakeUpstream::start();
    let scene = Scene::start(&format!(
        "upstreams:\n{}identities:
  gateway: {{ x509: {{ cn: gateway }} }}
trusted_forwarders: gateway
routes:
  - {{ uri: \"{URI}\", upstream: one }}
",
        upstream("one", &daemon.socket())
    ));
    let set = |client: &mut RpcClient| {
        client.auth_list();
        client.open(Some(URI), 0).unwrap();
        client.call(procedure::CONNECT_SET_IDENTITY, identity("carol"))
    };
    let mut gateway = by_tls(scene.port, &scene.pki, Some("gateway"));
    let answer = set(&mut gateway);
    assert_eq!(answer.status, 0, "{answer:?}");
    let identities = daemon.identities();
    assert_eq!(
        identities[0]["x509-distinguished-name"],
        text("O=Acme,CN=gateway")
    );
    assert_eq!(identities[1]["user-name"], text("carol"));

    let local = RpcClient::connect(&scene.proxy.socket());
    for mut client in [by_tls(scene.port, &scene.pki, Some("ci")), local] {
        let error = set(&mut client).error();
        assert_eq!((error.code, error.domain), (88, 55));
        assert!(error.message.contains("access denied"), "{}", error.message);
    }
    // Of the two, only what the proxy itself says.
    assert_eq!(daemon.identities().len(), 4);
}

#[test]
fn what_the_log_shows_of_a_client_can_be_explained_and_written_into_the_policy() {
    let daemon = FakeUpstream::start();
    let rest = |dn: &str| {
        format!(
            "upstreams:\n{}identities:
  known: {{ x509: {{ dn: '{dn}' }} }}
routes:
  - {{ uri: \"{URI}\", clients: known, upstream: one }}
",
            upstream("one", &daemon.socket())
        )
    };
    let mut scene = Scene::start(&rest("CN=nobody"));
    scene.connect("ci").failed();
    // It is refused at the usual level of the log; and seen from its first moment with `--verbose`.
    let seen = scene.seen("no route");
    assert_eq!(scene.seen("client connected"), seen);
    let dn = format!("dn=\"{}\"", CI[0]);
    for fact in [
        &*dn,
        "x509.dns=ci.acme.example",
        "x509.issuer=\"CN=Test CA\"",
        "x509.serial=",
        "x509.fingerprint=",
        "address=127.0.0.1:",
    ] {
        assert!(seen.contains(fact), "{fact}: {seen}");
    }
    let before = scene.explain("tls", &seen);
    assert!(before.contains("the client is not `known`"), "{before}");

    let dn = seen
        .strip_prefix("dn=\"")
        .unwrap()
        .split_once('"')
        .unwrap()
        .0;
    let policy = policy(scene.proxy.dir(), scene.port, scene.sasl_port, &rest(dn));
    fs::write(scene.proxy.policy(), policy).unwrap();
    let after = scene.explain("tls", &seen);
    assert!(after.contains("identities: `known`"), "{after}");
    assert!(after.contains("=> upstream `one`"), "{after}");
    scene.proxy.reload();
    scene.connect("ci").ok();
    scene.connect("other").failed();
}

#[test]
fn explain_takes_every_kind_of_fact() {
    let scene = Scene::start(&format!(
        "upstreams:\n  one: {{ unix: /run/one }}\n  two: {{ unix: /run/two }}\nidentities:
  person: {{ all: [{{ sasl: {{ user: \"*@EXAMPLE.COM\" }} }}, {{ address: 192.0.2.0/24 }}] }}
  machine: {{ x509: {{ cn: \"ci-*\", o: Acme }} }}
routes:
  - {{ uri: \"{URI}\", clients: person, upstream: one }}
  - {{ uri: \"{URI}\", clients: machine, upstream: two }}
"
    ));
    for (listener, client, expected) in [
        (
            "sasl",
            "sasl=alice@EXAMPLE.COM,address=192.0.2.7",
            "upstream `one`",
        ),
        (
            "sasl",
            "sasl=alice@EXAMPLE.COM,address=198.51.100.7",
            "no route",
        ),
        ("tls", "x509.cn=ci-1,x509.o=Acme", "upstream `two`"),
        ("tls", "dn=\"O=Acme,CN=ci-1\"", "upstream `two`"),
        ("tls", "x509.cn=ci-1", "no route"),
    ] {
        let said = scene.explain(listener, client);
        assert!(said.contains(expected), "{client}: {said}");
    }
}
