//! What holds for the one daemon that a client opens holds for each that serves a driver of its
//! connection: whom it is told of, what a reader may do, who is missed and who is not.

use std::path::Path;

use super::{Three, at};
use crate::support::libvirtd::Libvirtd;
use crate::support::policy::{CONNECT, listeners};
use crate::support::process::Log;
use crate::support::proxy::ProxyBuilder;
use crate::support::rpc_client::RpcClient;
use crate::support::scripts::Script;
use crate::support::table::procedure;
use crate::support::tool::{python, virsh};
use crate::support::wait::eventually;
use crate::support::wire::{RpcError, status};
use crate::support::xdr::Writer;

const URI: &str = "qemu:///session";
/// A call of each of the daemons of [`Three`].
const COUNTS: [&str; 3] = [
    "CONNECT_NUM_OF_DOMAINS",
    "CONNECT_NUM_OF_NETWORKS",
    "CONNECT_NUM_OF_STORAGE_POOLS",
];

fn count(client: &mut RpcClient, name: &str) -> Result<(), RpcError> {
    let answer = client.call(procedure(name).number, Vec::new());
    match answer.status {
        status::OK => Ok(()),
        _ => Err(answer.error()),
    }
}

#[test]
fn each_daemon_is_told_who_the_client_is_and_again_after_its_restart() {
    let daemons = [(); 3].map(|()| {
        Libvirtd::start_with(&[
            ("LIBVIRT_LOG_FILTERS", "1:daemon.remote 4:*"),
            ("LIBVIRT_LOG_OUTPUTS", "1:stderr"),
        ])
    });
    let upstreams = daemons.each_ref().map(|it| at(it) + ", reconnect: true");
    let mut three = Three::behind(daemons, &upstreams, None, |builder| builder);
    let mut client = RpcClient::opened(&three.proxy.socket(), URI);
    for name in COUNTS {
        count(&mut client, name).unwrap();
    }
    let is_told = |log: &Log| {
        log.wait_for("Received forwarded identity");
        let own = std::process::id();
        log.wait_for(&format!("params[\"process-id\"]=(llong){own}"));
    };
    for daemon in [&three.domains, &three.networks, &three.storage] {
        is_told(daemon.process().stderr());
    }
    for daemon in [&mut three.domains, &mut three.networks, &mut three.storage] {
        daemon.restart();
    }
    for name in COUNTS {
        eventually("it serves again", || count(&mut client, name).is_ok());
    }
    for daemon in [&three.domains, &three.networks, &three.storage] {
        is_told(daemon.process().stderr());
    }
}

#[test]
fn who_only_reads_writes_to_none_of_the_daemons() {
    let three = Three::start(None);
    three.define_one_of_each();
    let readonly = three.proxy.uri(URI, "sock-ro");
    for (list, end, function) in [
        ("list", "undefine", "virDomainUndefine"),
        ("net-list", "net-undefine", "virNetworkUndefine"),
        ("pool-list", "pool-undefine", "virStoragePoolUndefine"),
    ] {
        let lists = || virsh(&readonly, &[list, "--all", "--name"]).run().ok();
        assert_eq!(lists().trim(), "here", "{list}");
        // Its library knows nothing of the limit: the daemon says so.
        let refused = virsh(&readonly, &[end, "here"]).run().failed();
        let expected = format!("read only access prevents {function}");
        assert!(refused.contains(&expected), "{refused}");
        assert_eq!(lists().trim(), "here", "{list}");
    }
}

/// Every feature that libvirt's clients might ask for, and more.
#[test]
fn the_features_are_those_of_one_daemon() {
    let ask = |socket: &Path| {
        let mut client = RpcClient::opened(socket, URI);
        for name in COUNTS {
            count(&mut client, name).unwrap();
        }
        let number = procedure("CONNECT_SUPPORTS_FEATURE").number;
        let answers = (0..32).map(|feature| {
            let answer = client.call(number, Writer::new().i32(feature).end());
            (feature, answer.status, answer.body)
        });
        answers.collect::<Vec<_>>()
    };
    let direct = Libvirtd::start();
    let three = Three::start(None);
    assert_eq!(ask(&three.proxy.socket()), ask(&direct.socket()));
}

#[test]
fn the_primary_serves_a_driver_whose_daemon_is_missing_where_the_policy_says_so() {
    let [primary, mut storage, mut networks] = [(); 3].map(|()| Libvirtd::start());
    storage.kill();
    networks.kill();
    let proxy = ProxyBuilder::new(|dir| {
        let daemons = [
            ("primary", &primary),
            ("storage", &storage),
            ("networks", &networks),
        ];
        let upstreams =
            daemons.map(|(name, daemon)| format!("  {name}: {{ {}, {CONNECT} }}\n", at(daemon)));
        listeners(dir, "")
            + "upstreams:\n"
            + &upstreams.concat()
            + "routes:
  - uri: \"qemu:///session\"
    upstream: primary
    drivers:
      storage: { upstream: storage, fallback: true }
      network: networks
"
    })
    .start();
    let pools = |uri: &str| virsh(uri, &["pool-list", "--name"]).run().ok();
    let uri = proxy.uri(URI, "sock");
    primary.dir_pool("of-primary");
    assert_eq!(pools(&uri).trim(), "of-primary");
    let mut client = RpcClient::opened(&proxy.socket(), URI);
    count(&mut client, "CONNECT_NUM_OF_STORAGE_POOLS").unwrap();
    let missing = count(&mut client, "CONNECT_NUM_OF_NETWORKS").unwrap_err();
    assert!(
        missing.code == 38 && missing.message.contains("upstream 'networks'"),
        "{missing:?}"
    );
    count(&mut client, "CONNECT_NUM_OF_DOMAINS").unwrap();

    storage.restart();
    networks.restart();
    storage.dir_pool("of-storage");
    assert_eq!(pools(&uri).trim(), "of-storage");
    eventually("it is dialled by the next calls", || {
        count(&mut client, "CONNECT_NUM_OF_NETWORKS").is_ok()
    });
}

/// Waits until calls of storage fail, and then for the end of the connection.
const LOSSES: Script = Script {
    name: "losses",
    text: "
import sys, threading, libvirt
closed = threading.Event()
def on_close(_conn, reason, _opaque):
    print(f'closed: {reason}', flush=True)
    closed.set()
def run_loop():
    while True:
        libvirt.virEventRunDefaultImpl()
libvirt.virEventRegisterDefaultImpl()
libvirt.registerErrorHandler(lambda _context, _error: None, None)
threading.Thread(target=run_loop, daemon=True).start()
conn = libvirt.open(sys.argv[1])
conn.registerCloseCallback(on_close, None)
conn.listAllStoragePools()
print('UP', flush=True)
try:
    while True:
        conn.listAllStoragePools()
except libvirt.libvirtError as error:
    print(f'storage: {error.get_error_code()} {error.get_error_domain()}')
conn.listAllDomains()
conn.listAllNetworks()
print('LOST', closed.is_set(), flush=True)
if not closed.wait(60):
    sys.exit('not closed')
",
};

#[test]
fn a_client_hears_of_the_loss_of_its_primary_alone() {
    let mut three = Three::start(None);
    let mut client = python(LOSSES, &[&three.uri(URI)]).start();
    client.wait_for("UP");
    three.storage.kill();
    client.wait_for("LOST");
    three.domains.kill();
    let said = client.finish().ok();
    assert_eq!(said, "UP\nstorage: 38 7\nLOST False\nclosed: 1");
}
