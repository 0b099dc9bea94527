//! Descriptor counts that lie. The connection is closed, and every descriptor that came with it.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::support::fake_upstream::FakeUpstream;
use crate::support::rpc_client::RpcClient;
use crate::support::scene::{ECHO, Scene, assert_served};
use crate::support::wire::{Frame, kind, status};

const WARNING: &str = "the client broke the protocol";

fn descriptor() -> Arc<OwnedFd> {
    Arc::new(File::open("/dev/null").unwrap().into())
}

/// A call that announces `count` descriptors; they are still to be sent.
fn announcing(count: u32) -> Vec<u8> {
    let body = [&count.to_be_bytes()[..], b"body"].concat();
    let call = Frame::call(ECHO, 9, body);
    let mut bytes = call.encode();
    bytes[16..20].copy_from_slice(&kind::CALL_WITH_FDS.to_be_bytes());
    bytes
}

/// What `fault` sends ends its connection, opened or not.
#[track_caller]
fn closes(fault: impl Fn(&RpcClient)) {
    let upstream = FakeUpstream::start();
    let scene = Scene::before(&upstream);
    for client in [Scene::connected, Scene::opened] {
        scene.costs_nobody_else(&[WARNING], |scene| {
            let client = client(scene);
            fault(&client);
            client.expect_closed();
        });
    }
}

#[test]
fn a_count_above_what_is_sent_closes() {
    closes(|client| {
        client.send_bytes(&announcing(2));
        client.send_fd(descriptor().as_fd());
        client.send_bytes(&Frame::call(ECHO, 10, Vec::new()).encode());
    });
}

#[test]
fn a_count_without_any_descriptor_closes() {
    closes(|client| {
        client.send_bytes(&announcing(1));
        client.send_bytes(&[0]);
    });
}

#[test]
fn a_count_over_32_closes() {
    closes(|client| client.send_bytes(&announcing(33)));
}

#[test]
fn a_negative_count_closes() {
    closes(|client| client.send_bytes(&announcing(u32::MAX)));
}

#[test]
fn a_missing_count_closes() {
    closes(|client| {
        let mut bytes = Frame::call(ECHO, 9, Vec::new()).encode();
        bytes[16..20].copy_from_slice(&kind::CALL_WITH_FDS.to_be_bytes());
        client.send_bytes(&bytes);
    });
}

#[test]
fn a_descriptor_that_was_not_announced_closes() {
    closes(|client| client.send_fd(descriptor().as_fd()));
}

#[test]
fn a_descriptor_beyond_the_count_closes() {
    closes(|client| {
        client.send_bytes(&announcing(1));
        client.send_fd(descriptor().as_fd());
        // That was a call; what comes now is nothing.
        client.receive();
        client.send_fd(descriptor().as_fd());
    });
}

/// On a byte in the middle of a frame, which no frame before announced.
#[test]
fn a_descriptor_inside_a_frame_closes() {
    closes(|client| {
        let bytes = Frame::call(ECHO, 9, vec![0; 8]).encode();
        client.send_bytes(&bytes[..32]);
        client.send_fd(descriptor().as_fd());
    });
}

/// On the last byte of a frame, which is dropped: nothing is left that has to be looked at.
#[test]
fn a_descriptor_on_the_end_of_a_frame_closes() {
    closes(|client| {
        let bytes = Frame::event(ECHO, vec![0; 8]).encode();
        client.send_bytes(&bytes[..bytes.len() - 1]);
        client.send_fd(descriptor().as_fd());
    });
}

/// More on one byte than any frame may carry: the kernel cuts off what is too many.
#[test]
fn a_heap_of_descriptors_closes() {
    let upstream = FakeUpstream::start();
    let scene = Scene::before(&upstream);
    scene.costs_nobody_else(&["cannot receive from a peer"], |scene| {
        let client = scene.opened();
        client.send_bytes(&announcing(32));
        let heap = vec![descriptor(); 40];
        client.stream().send_fds(&heap).unwrap();
        client.expect_closed();
    });
}

/// Several on one byte, as many as announced: no more reach the daemon than are announced.
#[test]
fn descriptors_that_share_a_byte_are_counted() {
    let upstream = FakeUpstream::start();
    let scene = Scene::before(&upstream);
    scene.costs_nobody_else(&[WARNING], |scene| {
        let client = scene.opened();
        client.send_bytes(&announcing(2));
        client.stream().send_fds(&vec![descriptor(); 3]).unwrap();
        // It may be closed already.
        _ = client.stream().send_bytes(&[0]);
        client.drain();
    });
    let passed = |call: &Frame| call.fds.len();
    assert!(
        upstream
            .calls(ECHO)
            .iter()
            .map(passed)
            .all(|count| count <= 2)
    );
}

/// Announced, some sent, and then nothing: it costs what was sent, until the client goes.
#[test]
fn a_client_that_stalls_between_its_descriptors_holds_up_nobody() {
    let upstream = FakeUpstream::start();
    let scene = Scene::before(&upstream);
    scene.costs_nobody_else(&[], |scene| {
        let client = scene.opened();
        client.send_bytes(&announcing(32));
        for _ in 0..31 {
            client.send_fd(descriptor().as_fd());
        }
        crate::support::wait::eventually("they are there", || scene.more_fds() >= 31);
        assert_served(&mut scene.opened());
    });
}

/// A count of none is an ordinary call, and so is one with as many as there may be.
#[test]
fn counts_that_are_true_pass() {
    let upstream = FakeUpstream::start();
    let scene = Scene::before(&upstream);
    scene.costs_nobody_else(&[], |scene| {
        let client = scene.opened();
        for (serial, count) in [(9, 0), (10, 1), (11, 32)] {
            let call = Frame {
                kind: kind::CALL_WITH_FDS,
                fds: vec![descriptor(); count],
                ..Frame::call(ECHO, serial, b"body".to_vec())
            };
            assert_eq!(client.exchange(&call).status, status::OK);
        }
    });
    let counts: Vec<_> = upstream
        .calls(ECHO)
        .iter()
        .map(|call| (call.fds.len(), call.body.len()))
        .collect();
    assert!(counts.contains(&(0, 4)) && counts.contains(&(1, 4)) && counts.contains(&(32, 4)));
}

/// Descriptors of a call that the proxy refuses are closed.
#[test]
fn descriptors_of_a_refused_call_are_closed() {
    let upstream = FakeUpstream::start();
    let scene = Scene::before(&upstream);
    scene.costs_nobody_else(&[], |scene| {
        let before = scene.more_fds();
        let client = scene.connected();
        for serial in 0..100 {
            let call = Frame {
                kind: kind::CALL_WITH_FDS,
                fds: vec![descriptor(); 3],
                ..Frame::call(ECHO, serial, Vec::new())
            };
            assert_eq!(client.exchange(&call).error().code, 1);
        }
        assert_eq!(scene.more_fds(), before + 1, "the client's own");
    });
}
