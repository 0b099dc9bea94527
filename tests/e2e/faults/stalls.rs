//! Clients that stop in the middle, flood, or never listen.

use std::io::Write;
use std::net::Shutdown;
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};

use crate::support::fake_upstream::{FakeUpstream, Next};
use crate::support::policy::everything_to;
use crate::support::proxy::ProxyBuilder;
use crate::support::rpc_client::RpcClient;
use crate::support::scene::{ECHO, Scene, URI, assert_served, daemon_with, send_until_stuck};
use crate::support::wait::eventually;
use crate::support::wire::{Frame, procedure, status};
use crate::support::xdr::Writer;

/// Never answered by the daemon.
const NEVER: i32 = 101;
/// Answered by the daemon with this many bytes.
const BIG: i32 = 103;
const BIG_BYTES: usize = 1 << 20;

/// Memory that one client may cost beyond what it costs at rest, in KiB: a buffer for each
/// direction, its own frames, and what the allocator makes of it.
const CLIENT_KIB: u64 = 16 * 1024;

#[test]
fn a_client_that_sends_half_a_frame_and_stalls_holds_up_nobody() {
    let upstream = FakeUpstream::start();
    let scene = Scene::before(&upstream);
    for client in [Scene::connected, Scene::opened] {
        scene.costs_nobody_else(&[], |scene| {
            let stalled: Vec<_> = [2, 4, 20, 40]
                .map(|cut| {
                    let client = client(scene);
                    client.send_bytes(&Frame::call(ECHO, 9, vec![0; 64]).encode()[..cut]);
                    client
                })
                .into();
            scene.assert_idle();
            assert_served(&mut scene.opened());
            drop(stalled);
        });
    }
}

/// A frame that comes a byte at a time is a frame.
#[test]
fn a_frame_in_single_bytes_is_served() {
    let upstream = FakeUpstream::start();
    let scene = Scene::before(&upstream);
    scene.costs_nobody_else(&[], |scene| {
        let client = scene.opened();
        for byte in Frame::call(ECHO, 9, b"body".to_vec()).encode() {
            client.send_bytes(&[byte]);
        }
        assert_eq!(client.receive().body, b"body");
    });
}

/// It asks for big answers for ever: it is read no further than there is room for, and what it
/// does not read stays with the daemon.
#[test]
fn a_client_that_never_reads_costs_bounded_memory() {
    let upstream = daemon_with(BIG, |stream, call| {
        match stream.send(&call.reply(vec![7; BIG_BYTES])) {
            Ok(()) => Next::Done,
            Err(_) => Next::Close,
        }
    });
    let scene = Scene::before(&upstream);
    scene.costs_nobody_else(&[], |scene| {
        let client = scene.opened();
        let before = scene.process().rss_kib();
        let calls: Vec<u8> = (10..200_000)
            .flat_map(|serial| Frame::call(BIG, serial, vec![0; 100]).encode())
            .collect();
        let sent = send_until_stuck(client.stream().socket(), &calls, calls.len());
        assert!(sent < calls.len(), "all calls were taken");
        assert_served(&mut scene.opened());
        let grown = scene.process().rss_kib().saturating_sub(before);
        assert!(grown < CLIENT_KIB, "{grown} KiB");
    });
}

/// The same where the proxy itself answers, with more than it was asked.
#[test]
fn a_client_that_never_reads_the_proxys_own_answers_costs_bounded_memory() {
    let upstream = FakeUpstream::start();
    let scene = Scene::before(&upstream);
    scene.costs_nobody_else(&[], |scene| {
        let client = scene.connected();
        let before = scene.process().rss_kib();
        let calls = Frame::call(9999, 1, Vec::new()).encode().repeat(100_000);
        let sent = send_until_stuck(client.stream().socket(), &calls, calls.len());
        assert!(sent < calls.len(), "all calls were taken");
        assert_served(&mut scene.opened());
        let grown = scene.process().rss_kib().saturating_sub(before);
        assert!(grown < CLIENT_KIB, "{grown} KiB");
    });
}

/// What the daemon tells of changes lies behind what a client does not read; by not reading it must
/// not keep what is over.
#[test]
fn a_client_under_rules_that_does_not_read_is_not_served_either() {
    /// `DOMAIN_EVENT_CALLBACK_METADATA_CHANGE`
    const METADATA_CHANGE: i32 = 379;
    let upstream = FakeUpstream::start();
    let rules = "access: [{ who: '*', allow: ['*'], on: { domain: { name: 'acme-*' } } }]\n";
    let socket = upstream.socket();
    let proxy = ProxyBuilder::new(|dir| everything_to(dir, &socket, "") + rules).start();
    let mut client = RpcClient::opened(&proxy.socket(), URI);
    // The rules come with the first call.
    client.call(procedure::CONNECT_GET_HOSTNAME, Vec::new());
    let served = upstream.calls(procedure::CONNECT_GET_HOSTNAME).len();
    // More than all buffers hold on the way.
    let domain = Writer::new().string("acme-1").raw(&[1; 16]).i32(-1);
    let long = "x".repeat(3 << 20);
    let body = Writer::new().i32(1).then(domain).i32(2);
    let event = Frame::event(METADATA_CHANGE, body.optional(Some(&long)).end());
    upstream.send_to_all(&event);
    let mut ready = [PollFd::new(client.stream().socket(), PollFlags::IN)];
    poll(&mut ready, None).unwrap();
    // It is on its way to the client, and stuck there.
    let call = client.prepare(procedure::CONNECT_GET_HOSTNAME, Vec::new());
    client.send(&call);
    let mut other = RpcClient::opened(&proxy.socket(), URI);
    for _ in 0..50 {
        other.call(procedure::CONNECT_GET_VERSION, Vec::new());
    }
    assert_eq!(
        upstream.calls(procedure::CONNECT_GET_HOSTNAME).len(),
        served
    );
    assert_eq!(client.receive().procedure, METADATA_CHANGE);
    assert_eq!(client.receive().serial, call.serial);
}

#[test]
fn a_huge_number_of_calls_in_flight_is_answered_in_full() {
    const CALLS: u32 = 100_000;
    let upstream = FakeUpstream::start();
    let scene = Scene::before(&upstream);
    scene.costs_nobody_else(&[], |scene| {
        let client = scene.opened();
        let before = scene.process().rss_kib();
        let calls: Vec<u8> = (10..10 + CALLS)
            .flat_map(|serial| Frame::call(ECHO, serial, serial.to_be_bytes().to_vec()).encode())
            .collect();
        let mut writer = client.stream().socket().try_clone().unwrap();
        let sender = thread::spawn(move || writer.write_all(&calls).unwrap());
        for serial in 10..10 + CALLS {
            let answer = client.receive();
            assert_eq!((answer.status, answer.serial), (status::OK, serial));
            assert_eq!(answer.body, serial.to_be_bytes());
            if serial == 10 + CALLS / 2 {
                assert_served(&mut scene.opened());
            }
        }
        sender.join().unwrap();
        let grown = scene.process().rss_kib().saturating_sub(before);
        assert!(grown < CLIENT_KIB, "{grown} KiB");
    });
}

/// Calls beyond the bound wait in the client's socket; those before it reach the daemon.
#[test]
fn a_huge_number_of_calls_that_are_never_answered_costs_bounded_memory() {
    let upstream = daemon_with(NEVER, |_, _| Next::Done);
    let scene = Scene::before(&upstream);
    scene.costs_nobody_else(&[], |scene| {
        let client = scene.opened();
        let before = scene.process().rss_kib();
        let calls: Vec<u8> = (10..100_000)
            .flat_map(|serial| Frame::call(NEVER, serial, Vec::new()).encode())
            .collect();
        let sent = send_until_stuck(client.stream().socket(), &calls, calls.len());
        assert!(sent < calls.len(), "all calls were taken");
        eventually("as many calls as may be are outstanding", || {
            upstream.calls(NEVER).len() == 1024
        });
        assert_served(&mut scene.opened());
        let grown = scene.process().rss_kib().saturating_sub(before);
        assert!(grown < CLIENT_KIB, "{grown} KiB");
    });
    assert_eq!(upstream.calls(NEVER).len(), 1024);
}

/// `CONNECT_CLOSE` behind calls: every one is answered, then the connection closes.
#[test]
fn calls_before_a_close_are_answered() {
    let upstream = FakeUpstream::start();
    let scene = Scene::before(&upstream);
    scene.costs_nobody_else(&[], |scene| {
        let client = scene.opened();
        let mut bytes: Vec<u8> = (10..110)
            .flat_map(|serial| Frame::call(ECHO, serial, Vec::new()).encode())
            .collect();
        bytes.extend(Frame::call(procedure::CONNECT_CLOSE, 110, Vec::new()).encode());
        client.send_bytes(&bytes);
        let mut answers: Vec<_> = client
            .drain()
            .iter()
            .map(|answer| (answer.serial, answer.status))
            .collect();
        answers.sort_unstable();
        let expected: Vec<_> = (10..=110).map(|serial| (serial, status::OK)).collect();
        assert_eq!(answers, expected);
    });
}

/// A client that has closed its half is answered, where `libvirtd` drops it.
#[test]
fn a_half_closed_client_gets_its_answers() {
    let upstream = FakeUpstream::start();
    let scene = Scene::before(&upstream);
    scene.costs_nobody_else(&[], |scene| {
        let client = scene.opened();
        let bytes: Vec<u8> = (10..110)
            .flat_map(|serial| Frame::call(ECHO, serial, vec![0; 10_000]).encode())
            .collect();
        let mut writer = client.stream().socket().try_clone().unwrap();
        let sender = thread::spawn(move || {
            writer.write_all(&bytes).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let answers = client.drain();
        sender.join().unwrap();
        let serials: Vec<_> = answers.iter().map(|answer| answer.serial).collect();
        assert_eq!(serials, (10..110).collect::<Vec<_>>());
    });
}

/// A client that goes away with calls outstanding takes its upstream with it.
#[test]
fn a_client_that_leaves_in_the_middle_leaves_nothing() {
    let upstream = daemon_with(NEVER, |_, _| Next::Done);
    let scene = Scene::before(&upstream);
    scene.costs_nobody_else(&[], |scene| {
        let mut client = scene.opened();
        let call = client.prepare(NEVER, Vec::new());
        client.send(&call);
        eventually("the call has arrived", || upstream.calls(NEVER).len() == 1);
    });
    eventually("the daemon has no connection", || upstream.connected() == 0);
}
