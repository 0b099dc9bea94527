//! Streams through the proxy: both ways, sparse, aborted, many at once, and left in the middle.

use crate::support::fake_upstream::{FakeUpstream, Next};
use crate::support::guest::guest_xml;
use crate::support::libvirtd::Libvirtd;
use crate::support::proxy::Proxy;
use crate::support::rpc_client::RpcClient;
use crate::support::scripts::{CONSOLE, PARALLEL, STREAMS};
use crate::support::tool::{python, virsh};
use crate::support::wait::eventually;
use crate::support::wire::{kind, procedure, status};
use crate::support::xdr::Writer;

const STORAGE_VOL_DOWNLOAD: i32 = 209;

#[test]
fn volumes_go_up_and_down_sparse_and_whole_and_may_be_aborted() {
    let daemon = Libvirtd::start();
    let proxy = Proxy::before(&daemon.socket());
    daemon.dir_pool("pool");
    daemon.volume("pool", "volume", 8);
    let uri = proxy.uri("qemu:///session", "sock");
    let said = python(STREAMS, &[&uri, "pool", "volume", "8"]).run().ok();
    assert_eq!(
        said,
        "sparse: 8388608 bytes equal\ndata: 8388608 bytes equal\naborted: connection works"
    );
}

#[test]
fn a_console_runs_both_ways_at_once() {
    let daemon = Libvirtd::start();
    let proxy = Proxy::before(&daemon.socket());
    let xml = guest_xml(&daemon, "echo");
    let uri = proxy.uri("qemu:///session", "sock");
    let args = [&uri, xml.to_str().unwrap(), "4096"];
    let said = python(CONSOLE, &args).run().ok();
    assert_eq!(said, "greeted\nechoed 4096 bytes");
}

#[test]
fn twenty_downloads_run_beside_twenty_uploads_on_one_connection() {
    let daemon = Libvirtd::start();
    let proxy = Proxy::before(&daemon.socket());
    daemon.dir_pool("pool");
    let uri = proxy.uri("qemu:///session", "sock");
    let said = python(PARALLEL, &[&uri, "pool", "20", "2"]).run().ok();
    assert_eq!(said, "20 down beside 20 up: equal");
}

#[test]
fn a_client_that_quits_in_the_middle_of_a_download_costs_nothing() {
    const MIB: u32 = 64;
    let daemon = Libvirtd::start();
    let proxy = Proxy::before(&daemon.socket());
    let target = daemon.dir_pool("pool");
    daemon.volume("pool", "volume", MIB);
    let volume = target.join("volume");
    let mut keeper = RpcClient::opened(&proxy.socket(), "qemu:///session");
    let fds = || (proxy.process().open_fds(), daemon.process().open_fds());
    let before = fds();

    let mut client = RpcClient::opened(&proxy.socket(), "qemu:///session");
    let path = volume.to_str().unwrap();
    // A volume is its pool's name, its own, and its key.
    let args = Writer::new().string("pool").string("volume").string(path);
    let args = args.u64(0).u64(u64::from(MIB) << 20).u32(0).end();
    let call = client.prepare(STORAGE_VOL_DOWNLOAD, args);
    client.send(&call);
    // libvirt sends them in either order.
    let mut kinds = [client.receive(), client.receive()].map(|frame| {
        assert_ne!(frame.status, status::ERROR, "{frame:?}");
        frame.kind
    });
    kinds.sort_unstable();
    assert_eq!(kinds, [kind::REPLY, kind::STREAM]);
    assert_ne!(fds(), before, "the daemon serves the client");
    drop(client);
    eventually("proxy and daemon have closed what was the client's", || {
        fds() == before
    });
    let answer = keeper.call(procedure::CONNECT_GET_VERSION, Vec::new());
    assert_eq!(answer.status, status::OK);
    let uri = proxy.uri("qemu:///session", "sock");
    virsh(&uri, &["vol-info", "volume", "pool"]).run().ok();
}

#[test]
fn an_endless_stream_waits_for_a_client_that_does_not_read_and_ends_with_it() {
    let upstream = FakeUpstream::scripted(|stream, frame| {
        if frame.procedure != STORAGE_VOL_DOWNLOAD {
            return Next::Standard;
        }
        stream.send(&frame.reply(Vec::new())).unwrap();
        // Until nobody takes it any more.
        while stream
            .send(&frame.stream(status::CONTINUE, vec![7; 200_000]))
            .is_ok()
        {}
        Next::Close
    });
    let proxy = Proxy::before(&upstream.socket());
    let mut client = RpcClient::opened(&proxy.socket(), "test:///default");
    let before = proxy.process().rss_kib();
    let call = client.prepare(STORAGE_VOL_DOWNLOAD, Vec::new());
    client.send(&call);
    // By then 20 MB have passed, and as much as it likes could have been sent behind them.
    for _ in 0..100 {
        client.receive();
    }
    let grown = proxy.process().rss_kib().saturating_sub(before);
    assert!(grown < 8192, "the proxy holds {grown} KiB more");
    let mut other = RpcClient::opened(&proxy.socket(), "test:///default");
    let answer = other.call(200, b"echo".to_vec());
    assert_eq!(answer.body, b"echo");
    drop(client);
    eventually("the daemon's end is closed", || upstream.closed() == 1);
}
