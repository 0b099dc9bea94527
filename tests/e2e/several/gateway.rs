//! One gateway before many hosts: a client says by its URI which one it wants, and reaches that one
//! or none.

use std::fs;
use std::os::unix::fs::symlink;

use crate::support::fake_upstream::FakeUpstream;
use crate::support::libvirtd::Libvirtd;
use crate::support::pki::{Pki, free_port};
use crate::support::policy::{CONNECT, listeners};
use crate::support::proxy::{Proxy, ProxyBuilder};
use crate::support::rpc_client::RpcClient;
use crate::support::tool::virsh;
use crate::support::workdir::WorkDir;

/// Values that are no plain words, or none at all, as a URI has them.
const TRICKY: [&str; 24] = [
    "?host=..",
    "?host=%2e%2e",
    "?host=.",
    "?host=-oProxyCommand",
    "?host=-o",
    "?host=",
    "?host",
    "",
    "?HOST=11",
    "?host=11&host=12",
    "?host=11&HOST=12",
    "?host=11%2f..%2f12",
    "?host=11/../12",
    "?host=12%00",
    "?host=12%0a",
    "?host=12%20",
    "?host=12.",
    "?host=%2531%2531",
    "?host=1%",
    "?host=12#",
    "?host=12;x=y",
    "?host={host}",
    "?host=１２",
    "?host=12@elsewhere",
];

fn open(proxy: &Proxy, uri: &str) -> Result<(), String> {
    let mut client = RpcClient::connect(&proxy.socket());
    client.auth_list();
    client
        .open(Some(uri), 0)
        .map_err(|error| format!("{} {}", error.code, error.message))
}

#[test]
fn each_value_reaches_its_own_host_and_no_other_value_any() {
    let dir = WorkDir::new();
    let pki = Pki::new(&dir.join("pki"));
    pki.client("gateway", "ca", "");
    pki.client("ci", "ca", "");
    let (front, port) = (free_port(), free_port());
    let hosts = ["11", "12", "13"];
    let daemons = hosts.map(|host| {
        let address = format!("127.0.0.{host}");
        pki.daemon(host, &address, "");
        let daemon = Libvirtd::listening(&pki.libvirtd_conf(host, &address, port));
        daemon.dir_pool(&format!("of-{host}"));
        daemon
    });
    let trap = FakeUpstream::start();
    let proxy = ProxyBuilder::new(|dir| {
        let racks = dir.join("racks");
        for (host, daemon) in hosts.iter().zip(&daemons) {
            fs::create_dir_all(racks.join(host)).unwrap();
            symlink(daemon.socket(), racks.join(host).join("sock")).unwrap();
        }
        // Where `..` would lead.
        symlink(trap.socket(), dir.join("sock-trap")).unwrap();
        listeners(dir, "")
            + &format!(
                "  tls:
    tcp: \"127.0.0.1:{front}\"
    tls: {{ cert: {cert}, key: {key}, ca: {ca} }}
upstreams:
  fleet: {{ tls: \"127.0.0.{{host}}:{port}\", {keys}, {CONNECT}, values: {{ host: [\"11\", \"1?\"] }} }}
  rack: {{ unix: \"{racks}/{{host}}/sock\", {CONNECT}, values: {{ host: \"regex:1[0-9]\" }} }}
  trap: {{ unix: \"{trap}\", {CONNECT} }}
routes:
  - {{ uri: \"qemu:///session?host=*\", upstream: fleet }}
  - {{ uri: \"regex:qemu:///rack/(?P<host>[^/]*)\", upstream: rack, open: \"qemu:///session\" }}
  - {{ uri: \"qemu:///session?host=*&*\", upstream: trap }}
  - {{ uri: \"qemu:///rack/*?*\", upstream: trap }}
",
                cert = pki.path("server.pem").display(),
                key = pki.path("server.key").display(),
                ca = pki.path("ca.pem").display(),
                keys = pki.upstream("ca", "gateway"),
                racks = racks.display(),
                trap = trap.socket().display(),
            )
    })
    .start();
    let pools = |uri: &str| virsh(uri, &["pool-list", "--name"]).run().ok();
    let pkipath = pki.pkipath(Some("ci"));
    for host in hosts {
        let expected = format!("of-{host}");
        for uri in ["qemu:///session?host=", "qemu:///rack/"] {
            let uri = proxy.uri(&format!("{uri}{host}"), "sock");
            assert_eq!(pools(&uri).trim(), expected, "{uri}");
        }
        // As the clients of a gateway write it.
        let uri = format!("qemu+tls://localhost:{front}/session?host={host}&pkipath={pkipath}");
        assert_eq!(pools(&uri).trim(), expected, "{uri}");
    }
    // A value is decoded once, as libvirt's own parameters are.
    open(&proxy, "qemu:///session?host=%31%32").unwrap();
    // What is allowed and not there is told of, by its own name.
    let error = open(&proxy, "qemu:///session?host=19").unwrap_err();
    assert!(error.contains("'fleet/19'"), "{error}");

    let in_query = TRICKY.iter().map(|value| format!("qemu:///session{value}"));
    let in_path = ["..", "-o", "", "1", "111", "%31%32", "12%00", "１２"];
    let in_path = in_path.iter().map(|value| format!("qemu:///rack/{value}"));
    for uri in in_query.chain(in_path) {
        let refused = open(&proxy, &uri).unwrap_err();
        assert!(refused.starts_with("5 "), "{uri}: {refused}");
    }
    assert_eq!(trap.accepted(), 0);
}

/// Patterns that let nearly everything through do not let through what is more than a word.
#[test]
fn a_value_never_leaves_its_place_whatever_the_patterns_say() {
    const WIDE: &str = "values: { host: [\"-*\", \".*\", \"1*\", \"H*\", \"{*\", \"regex:\"] }";
    let trap = FakeUpstream::start();
    let proxy = ProxyBuilder::new(|dir| {
        fs::create_dir(dir.join("racks")).unwrap();
        symlink(trap.socket(), dir.join("racks/sock")).unwrap();
        symlink(trap.socket(), dir.join("racks/-o")).unwrap();
        let path = dir.display();
        listeners(dir, "")
            + &format!(
                "upstreams:
  rack: {{ unix: \"{path}/racks/{{host}}/../sock\", {WIDE} }}
  bare: {{ unix: \"{path}/racks/{{host}}\", {WIDE} }}
  program: {{ command: [sh, -c, 'echo \"$0\" >> {path}/ran', \"{{host}}\"], {WIDE} }}
routes:
  - {{ uri: \"a:///?host=*\", upstream: rack }}
  - {{ uri: \"b:///?host=*\", upstream: bare }}
  - {{ uri: \"c:///?host=*\", upstream: program }}
"
            )
    })
    .start();
    for scheme in ["a", "b", "c"] {
        for value in TRICKY {
            let refused = open(&proxy, &format!("{scheme}:///{value}")).unwrap_err();
            assert!(refused.starts_with("5 "), "{scheme} {value}: {refused}");
        }
    }
    assert_eq!(trap.accepted(), 0);
    assert!(!proxy.dir().join("ran").exists());
    // An upper-case letter is but a letter where the patterns take it.
    let error = open(&proxy, "c:///?host=HV1").unwrap_err();
    assert!(
        error.contains("upstream 'program/HV1': sh has ended"),
        "{error}"
    );
    let ran = fs::read_to_string(proxy.dir().join("ran")).unwrap();
    assert_eq!(ran, "HV1\n");
}
