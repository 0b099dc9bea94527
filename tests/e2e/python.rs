//! libvirt-python through the proxy: callbacks, threads, and the loss of a daemon.

use crate::support::libvirtd::Libvirtd;
use crate::support::proxy::Proxy;
use crate::support::rpc_client::RpcClient;
use crate::support::scripts::{CLOSE_CALLBACK, EVENTS, OUTSTANDING, THREADS};
use crate::support::tool::{assert_same, python};
use crate::support::wire::{Frame, kind, procedure};
use crate::support::xdr::Reader;

#[test]
fn domain_network_and_pool_events_come_in_order() {
    let ask = |uri: &str| python(EVENTS, &[uri]).run().ok();
    let direct = ask(&Libvirtd::start().uri("test:///default"));
    let daemon = Libvirtd::start();
    let proxy = Proxy::before(&daemon.socket());
    let said = ask(&proxy.uri("test:///default", "sock"));
    assert!(said.ends_with("\n14 events"), "{said}");
    assert_same(&direct, &said);
}

#[test]
fn thirty_two_threads_on_one_connection_get_their_own_answers() {
    let daemon = Libvirtd::start();
    let proxy = Proxy::before(&daemon.socket());
    let uri = proxy.uri("test:///default", "sock");
    let said = python(THREADS, &[&uri, "32", "10"]).run().ok();
    assert_eq!(said, "2304 calls answered");
}

#[test]
fn the_close_callback_tells_of_a_daemon_that_dies() {
    let mut daemon = Libvirtd::start();
    let proxy = Proxy::before(&daemon.socket());
    let uri = proxy.uri("test:///default", "sock");
    let mut client = python(CLOSE_CALLBACK, &[&uri]).start();
    client.wait_for("READY");
    daemon.kill();
    let said = client.finish().ok();
    assert!(
        said.starts_with("READY\nclosed: reason 1\nnext call: error "),
        "{said}"
    );
}

#[test]
fn calls_of_many_threads_fail_when_the_daemon_dies() {
    let mut daemon = Libvirtd::start();
    let proxy = Proxy::before(&daemon.socket());
    let uri = proxy.uri("test:///default", "sock");
    let mut client = python(OUTSTANDING, &[&uri, "8"]).start();
    client.wait_for("READY");
    daemon.pause();
    daemon.kill();
    let said = client.finish().ok();
    assert_eq!(said, "READY\nclosed: reasons [1]\n8 threads had an error");
}

#[test]
fn every_outstanding_call_is_answered_when_the_daemon_dies() {
    const CALLS: usize = 20;
    const REGISTER_CLOSE_CALLBACK: i32 = 360;
    const CONNECTION_CLOSED: i32 = 362;
    let mut daemon = Libvirtd::start();
    let proxy = Proxy::before(&daemon.socket());
    let mut client = RpcClient::opened(&proxy.socket(), "test:///default");
    client.call(REGISTER_CLOSE_CALLBACK, Vec::new());
    daemon.pause();
    let calls: Vec<Frame> = (0..CALLS)
        .map(|_| client.prepare(procedure::CONNECT_GET_VERSION, Vec::new()))
        .collect();
    for call in &calls {
        client.send(call);
    }
    daemon.kill();
    let mut frames = client.drain();
    let event = frames.pop().unwrap();
    assert_eq!(
        (event.kind, event.procedure),
        (kind::MESSAGE, CONNECTION_CLOSED)
    );
    // VIR_CONNECT_CLOSE_REASON_EOF
    assert_eq!(Reader::new(&event.body).i32(), 1);
    let serials = |frames: &[Frame]| frames.iter().map(|frame| frame.serial).collect::<Vec<_>>();
    assert_eq!(serials(&frames), serials(&calls));
    for frame in &frames {
        let error = frame.error();
        assert_eq!((error.code, error.domain), (38, 7));
        assert!(
            error
                .message
                .starts_with("Lost the connection to upstream 'daemon'"),
            "{error:?}"
        );
    }
}
