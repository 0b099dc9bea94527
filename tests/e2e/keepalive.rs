//! Peers that fall silent, and peers that only seem to.

use std::io::{ErrorKind, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::fake_upstream::{FakeUpstream, Next};
use crate::support::libvirtd::Libvirtd;
use crate::support::policy::{every_route_to, listeners};
use crate::support::proxy::{Proxy, ProxyBuilder};
use crate::support::relay::Relay;
use crate::support::rpc_client::RpcClient;
use crate::support::scripts::OUTSTANDING;
use crate::support::tool::{python, uri_at, virsh};
use crate::support::wait::{DEADLINE, eventually};
use crate::support::wire::{Frame, KEEPALIVE, kind, procedure, status};
use crate::support::xdr::{Reader, Writer};

const STORAGE_VOL_DOWNLOAD: i32 = 209;
const NEVER: &str = "keepalive: { interval: never }";
/// Six seconds: a peer that is only slow must not be given up.
const SOON: &str = "keepalive: { interval: 1s, count: 5 }";

/// A proxy before everything at one daemon; `clients` and `daemon` say when it pings whom.
fn proxy_pinging(upstream: &Path, clients: &str, daemon: &str) -> Proxy {
    ProxyBuilder::new(|dir| listeners(dir, clients) + &every_route_to(upstream, daemon)).start()
}

/// Makes the proxy ping this client from now on.
fn say_that_it_answers_pings(client: &mut RpcClient) {
    let body = Writer::new().i32(10).end();
    let call = client.prepare(procedure::CONNECT_SUPPORTS_FEATURE, body);
    client.send(&call);
    let answer = answer_to(client, &call);
    assert_eq!(Reader::new(&answer.body).i32(), 1);
}

#[test]
fn a_paused_daemon_is_given_up_when_the_policy_says_and_its_clients_are_told() {
    let mut daemon = Libvirtd::start();
    let soon = proxy_pinging(&daemon.socket(), "", SOON);
    let never = proxy_pinging(&daemon.socket(), "", NEVER);
    let mut client = python(OUTSTANDING, &[&soon.uri("test:///default", "sock"), "8"]).start();
    client.wait_for("READY");
    let mut patient = RpcClient::opened(&never.socket(), "test:///default");
    daemon.pause();
    let call = patient.prepare(procedure::CONNECT_GET_VERSION, Vec::new());
    patient.send(&call);
    // VIR_CONNECT_CLOSE_REASON_KEEPALIVE
    let said = client.finish().ok();
    assert_eq!(said, "READY\nclosed: reasons [2]\n8 threads had an error");
    soon.process()
        .stderr()
        .wait_for("the daemon does not answer");
    // Nobody was to give it up here.
    daemon.resume();
    let answer = patient.receive();
    assert_eq!((answer.serial, answer.status), (call.serial, status::OK));
}

#[test]
fn a_clients_own_pings_are_answered_while_its_daemon_is_paused() {
    const COUNT: usize = 3;
    const PONG: usize = 28;
    let mut daemon = Libvirtd::start();
    let proxy = proxy_pinging(&daemon.socket(), NEVER, NEVER);
    // The driver forgets everything whenever its last connection closes.
    let _keeps_the_state = RpcClient::opened(&daemon.socket(), "test:///default");
    let relay = Relay::start(&proxy.socket());
    let uri = uri_at("test:///default", &relay.socket());
    let count = COUNT.to_string();
    let args = ["-k", "1", "-K", &count, "event", "--all", "--loop"];
    let mut watcher = virsh(&uri, &args).start();
    let seen = |daemon: &Libvirtd| {
        let direct = daemon.uri("test:///default");
        let before = watcher.stdout().lines().len();
        eventually("virsh sees an event", || {
            virsh(&direct, &["suspend", "test"]).run().ok();
            virsh(&direct, &["resume", "test"]).run().ok();
            watcher.stdout().lines().len() > before
        });
    };
    seen(&daemon);
    daemon.pause();
    let before = relay.bytes_back();
    eventually("the proxy has answered more pings than may fail", || {
        relay.bytes_back() >= before + (COUNT + 2) * PONG
    });
    daemon.resume();
    seen(&daemon);
    watcher.signal(Signal::INT);
    assert!(watcher.wait().success());
}

#[test]
fn a_paused_client_is_dropped_and_harms_no_other() {
    let daemon = Libvirtd::start();
    let proxy = proxy_pinging(&daemon.socket(), SOON, NEVER);
    let uri = proxy.uri("test:///default", "sock");
    // Asks all the time, and reads no answer once it is paused.
    let mut paused = python(OUTSTANDING, &[&uri, "4"]).start();
    paused.wait_for("READY");
    let before = proxy.process().open_fds();
    paused.signal(Signal::STOP);
    virsh(&uri, &["list"]).run().ok();
    proxy
        .process()
        .stderr()
        .wait_for("the client answers no ping");
    eventually("both its connections are closed", || {
        proxy.process().open_fds() < before
    });
    virsh(&uri, &["list"]).run().ok();
    assert_eq!(
        proxy.process().stderr().count("the client answers no ping"),
        1
    );
    paused.signal(Signal::CONT);
    // It had answers to read, so that it may find out by what it writes or by what it reads.
    let said = paused.finish().ok();
    let ends = ["0", "1"]
        .map(|reason| format!("READY\nclosed: reasons [{reason}]\n4 threads had an error"));
    assert!(ends.contains(&said), "{said}");
}

/// Waits until a client that connects only now has been given up: whoever was silent before must
/// have been, too.
fn outwait_a_silent_client(proxy: &Proxy) {
    let mut client = RpcClient::connect(&proxy.socket());
    say_that_it_answers_pings(&mut client);
    client.drain();
}

#[test]
fn a_client_whose_upload_waits_for_the_daemon_is_not_taken_for_silent() {
    const SIZE: u64 = 64 << 20;
    let mut daemon = Libvirtd::start();
    let target = daemon.dir_pool("pool");
    daemon.volume("pool", "volume", 64);
    let proxy = proxy_pinging(&daemon.socket(), SOON, NEVER);
    let mut client = RpcClient::opened(&proxy.socket(), "qemu:///session");
    say_that_it_answers_pings(&mut client);
    let path = target.join("volume");
    let args = Writer::new()
        .string("pool")
        .string("volume")
        .string(path.to_str().unwrap());
    let args = args.u64(0).u64(SIZE).u32(0).end();
    let call = client.prepare(procedure::STORAGE_VOL_UPLOAD, args);
    client.send(&call);
    assert_eq!(answer_to(&client, &call).status, status::OK);
    daemon.pause();
    let rest = send_until_nobody_takes(&client, &call.stream(status::CONTINUE, vec![7; 262_120]));
    outwait_a_silent_client(&proxy);
    daemon.resume();
    client.send_bytes(&rest);
    client.send(&call.stream(status::OK, Vec::new()));
    let end = answer_to(&client, &call);
    assert_eq!((end.kind, end.status), (kind::STREAM, status::OK));
}

#[test]
fn a_daemon_whose_download_waits_for_the_client_is_not_taken_for_silent() {
    // Sockets and buffers on the way hold a few frames.
    const MOST: usize = 40;
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    // Sends without an end, or is silent for ever; it answers pings in neither case.
    let upstream = FakeUpstream::scripted(move |stream, frame| {
        if frame.program == KEEPALIVE {
            return Next::Done;
        }
        if frame.procedure != STORAGE_VOL_DOWNLOAD {
            return Next::Standard;
        }
        stream.send(&frame.reply(Vec::new())).unwrap();
        let data = frame.stream(status::CONTINUE, vec![7; 200_000]);
        while stream.send(&data).is_ok() {
            count.fetch_add(1, Ordering::SeqCst);
        }
        Next::Close
    });
    let proxy = proxy_pinging(&upstream.socket(), NEVER, SOON);
    let mut client = RpcClient::opened(&proxy.socket(), "test:///default");
    let call = client.prepare(STORAGE_VOL_DOWNLOAD, Vec::new());
    client.send(&call);
    assert_eq!(client.receive().kind, kind::REPLY);
    // The first may fall silent together with the one that waits, the second does so later.
    for _ in 0..2 {
        RpcClient::opened(&proxy.socket(), "test:///default").expect_closed();
    }
    let taken = sent.load(Ordering::SeqCst);
    assert!(
        taken < MOST,
        "the proxy takes what it cannot pass on: {taken} frames"
    );
    for _ in 0..2 * MOST {
        let data = client.receive();
        assert_eq!((data.kind, data.status), (kind::STREAM, status::CONTINUE));
    }
}

/// The next frame that answers `call`; pings may come before it.
fn answer_to(client: &RpcClient, call: &Frame) -> Frame {
    loop {
        let frame = client.receive();
        if frame.program != KEEPALIVE {
            assert_eq!(
                (frame.procedure, frame.serial),
                (call.procedure, call.serial)
            );
            return frame;
        }
    }
}

/// Sends the frame over and over until no more bytes are taken, and returns what is left of the
/// last one.
fn send_until_nobody_takes(client: &RpcClient, frame: &Frame) -> Vec<u8> {
    // Sockets and buffers on the way hold a few of them.
    const MOST: usize = 40;
    let bytes = frame.encode();
    let mut rest = bytes.as_slice();
    let mut socket = client.stream().socket();
    // A socket may be full for a moment because the proxy is slow; this long, nobody reads it.
    let patience = Duration::from_secs(1);
    socket.set_write_timeout(Some(patience)).unwrap();
    let mut sent = 0;
    loop {
        match socket.write(rest) {
            Ok(count) => rest = &rest[count..],
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                break;
            }
        }
        if rest.is_empty() {
            sent += 1;
            assert!(sent < MOST, "the proxy takes what it cannot pass on");
            rest = &bytes;
        }
    }
    socket.set_write_timeout(Some(DEADLINE)).unwrap();
    rest.to_vec()
}
