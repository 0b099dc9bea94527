//! Kerberos over plain TCP with a real KDC: tickets, and its layer around the whole connection.

use std::fs;
use std::path::Path;

use crate::kdc::{Kdc, REALM};
use crate::support::libvirtd::Libvirtd;
use crate::support::pki::free_port;
use crate::support::proxy::{Proxy, ProxyBuilder};
use crate::support::remote::by_tcp;
use crate::support::rpc_client::RpcClient;
use crate::support::tool::{Tool, virsh};
use crate::support::wire::procedure;
use crate::support::workdir::WorkDir;
use crate::support::xdr::{Reader, Writer};

/// A realm with a ticket of alice; a real daemon; the proxy before it, by TCP for Kerberos alone.
struct Scene {
    proxy: Proxy,
    daemon: Libvirtd,
    kdc: Kdc,
    port: u16,
}

impl Scene {
    fn start() -> Self {
        let kdc = Kdc::start();
        kdc.log_in();
        let (daemon, port) = (Libvirtd::start(), free_port());
        let mut builder = ProxyBuilder::new(|_| policy(port, &daemon.socket()));
        for (name, value) in kdc.environment() {
            builder = builder.env(name, &value.display().to_string());
        }
        Self {
            proxy: builder.args(&["--verbose"]).start(),
            daemon,
            kdc,
            port,
        }
    }

    fn virsh(&self, driver: &str, path: &str, args: &[&str]) -> Tool {
        let uri = format!("{driver}+tcp://localhost:{}/{path}", self.port);
        let environment = self.kdc.environment().into_iter();
        environment.fold(virsh(&uri, args), |tool, (name, value)| {
            tool.env(name, value)
        })
    }
}

fn policy(port: u16, upstream: &Path) -> String {
    format!(
        "version: 1
listeners:
  tcp:
    {{ tcp: \"0.0.0.0:{port}\", auth: sasl, sasl: {{ mechanisms: [GSSAPI], min_ssf: 112 }} }}
upstreams:
  daemon: {{ unix: {}, connect_timeout: 60s }}
identities:
  alice: {{ sasl: {{ user: alice@{REALM}, mechanism: GSSAPI }} }}
routes:
  - {{ uri: [\"test:///default\", \"qemu:///session\"], clients: alice, upstream: daemon }}
",
        upstream.display()
    )
}

#[test]
fn a_ticket_lets_its_user_in_and_seals_the_connection() {
    let scene = Scene::start();
    let listed = scene.virsh("test", "default", &["list", "--name"]).run();
    assert_eq!(listed.ok().trim(), "test");
    let log = scene.proxy.process().stderr();
    log.wait_for(&format!("client=sasl=alice@{REALM},sasl.mechanism=GSSAPI"));

    carries_a_volume(&scene.daemon, |args| {
        scene.virsh("qemu", "session", args).run().ok()
    });
}

/// A volume goes up and comes down unchanged on connections to `qemu:///session` that `virsh` makes.
#[track_caller]
pub(crate) fn carries_a_volume(daemon: &Libvirtd, virsh: impl Fn(&[&str]) -> String) {
    let dir = WorkDir::new();
    let volume = daemon.dir_pool("pool").join("data");
    // No whole number of the layer's buffers, and not the same twice.
    let words = (0_u64..).flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    let bytes: Vec<u8> = words.take((9 << 20) + 4321).collect();
    let (up, down) = (dir.join("up"), dir.join("down"));
    fs::write(&up, &bytes).unwrap();
    let size = bytes.len().to_string();
    virsh(&["vol-create-as", "pool", "data", &size, "--format", "raw"]);
    virsh(&["vol-upload", "data", up.to_str().unwrap(), "--pool", "pool"]);
    assert!(fs::read(&volume).unwrap() == bytes, "the upload differs");
    let down_path = down.to_str().unwrap();
    virsh(&["vol-download", "data", down_path, "--pool", "pool"]);
    assert!(fs::read(&down).unwrap() == bytes, "the download differs");
}

#[test]
fn without_a_ticket_nobody_comes_in() {
    let scene = Scene::start();
    let nobody = scene.virsh("test", "default", &["list"]);
    let nobody = nobody.env("KRB5CCNAME", scene.kdc.path("nobody"));
    let error = nobody.run().failed();
    assert!(error.contains("SASL"), "{error}");
    // What does not come from Kerberos is refused, and the log says so.
    let mut client: RpcClient = by_tcp(scene.port);
    assert_eq!(client.auth_list(), [1]);
    let list = client.call(procedure::AUTH_SASL_INIT, Vec::new());
    assert_eq!(Reader::new(&list.body).string(), "GSSAPI");
    let rubbish = Writer::new().string("GSSAPI").u32(0).u32(1).u32(7).end();
    let error = client.call(procedure::AUTH_SASL_START, rubbish).error();
    assert_eq!(
        error.message,
        "authentication failed: authentication failed"
    );
    scene.proxy.process().stderr().wait_for("why=\"GSSAPI: ");
}

#[test]
fn a_keytab_without_the_service_is_warned_of() {
    let kdc = Kdc::start();
    let start = |keytab: &str| {
        let mut builder = ProxyBuilder::new(|_| policy(free_port(), Path::new("/run/none")));
        for (name, value) in kdc.environment() {
            builder = builder.env(name, &value.display().to_string());
        }
        let keytab = kdc.path(keytab).display().to_string();
        let proxy = builder.env("KRB5_KTNAME", &keytab).start();
        proxy.process().stderr().count("libvirt/HOST")
    };
    assert_eq!(start("keytab"), 0);
    assert_eq!(start("other.keytab"), 1);
}
