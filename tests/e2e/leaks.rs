//! Neither descriptors nor memory, after thousands of clients and of each fault.

use std::fs::File;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::support::fake_upstream::{FakeUpstream, Next};
use crate::support::rpc_client::RpcClient;
use crate::support::scene::{ECHO, Scene, Settings, URI, assert_served};
use crate::support::wait::eventually;
use crate::support::wire::{Frame, kind, procedure, status};
use crate::support::workdir::WorkDir;

/// What thousands of repetitions may add to the proxy's memory, in KiB: the allocator and the
/// kernel's accounting move by so much.
const SLACK_KIB: u64 = 6 * 1024;

/// Rounds before memory is looked at for the first time, by when pools and arenas are there.
const WARM_UP: usize = 500;

/// Repeats `round`, and shows that neither descriptors nor memory grow with it.
#[track_caller]
fn leaks_nothing(scene: &Scene, rounds: usize, mut round: impl FnMut(&Scene)) {
    for _ in 0..WARM_UP {
        round(scene);
    }
    scene.expect_no_fds();
    let before = scene.process().rss_kib();
    for _ in 0..rounds {
        round(scene);
    }
    scene.expect_no_fds();
    let grown = scene.process().rss_kib().saturating_sub(before);
    assert!(grown < SLACK_KIB, "{grown} KiB in {rounds} rounds");
    assert_served(&mut scene.opened());
}

#[test]
fn ten_thousand_clients_that_open_and_close_leak_nothing() {
    let upstream = FakeUpstream::start();
    let scene = Scene::before(&upstream);
    leaks_nothing(&scene, 10_000, |scene| {
        let mut client = scene.opened();
        assert_served(&mut client);
        client.call(procedure::CONNECT_CLOSE, Vec::new());
        client.expect_closed();
    });
    assert!(scene.warnings().is_empty(), "{:#?}", scene.warnings());
}

/// The bytes end the connection, 2,000 times.
#[track_caller]
fn bytes_leak_nothing(bytes: &[u8]) {
    let upstream = FakeUpstream::start();
    let scene = Scene::before(&upstream);
    leaks_nothing(&scene, 2_000, |scene| {
        let client = scene.connected();
        client.send_bytes(bytes);
        client.expect_closed();
    });
}

#[test]
fn lengths_that_cannot_be_leak_nothing() {
    bytes_leak_nothing(&[0; 4]);
    bytes_leak_nothing(&[0xff; 4]);
}

#[test]
fn clients_that_leave_half_a_frame_leak_nothing() {
    let upstream = FakeUpstream::start();
    let scene = Scene::before(&upstream);
    let call = Frame::call(ECHO, 9, vec![0; 100_000]).encode();
    leaks_nothing(&scene, 2_000, |scene| {
        scene.opened().send_bytes(&call[..50_000]);
    });
}

#[test]
fn refused_calls_leak_nothing() {
    let upstream = FakeUpstream::start();
    let scene = Scene::before(&upstream);
    leaks_nothing(&scene, 2_000, |scene| {
        let mut client = scene.connected();
        client.open(Some("no:///where"), 0).unwrap_err();
        client.call(9999, vec![0; 10]);
    });
}

#[test]
fn descriptors_of_lying_clients_do_not_leak() {
    let upstream = FakeUpstream::start();
    let scene = Scene::before(&upstream);
    let fd = Arc::new(OwnedFd::from(File::open("/dev/null").unwrap()));
    let honest = Frame {
        kind: kind::CALL_WITH_FDS,
        fds: vec![Arc::clone(&fd); 3],
        ..Frame::call(ECHO, 9, Vec::new())
    };
    leaks_nothing(&scene, 2_000, |scene| {
        let client = scene.opened();
        assert_eq!(client.exchange(&honest).status, status::OK);
        // Announces three, sends two, and leaves; or sends one too many.
        client.send_bytes(&honest.encode());
        client.send_fd(fd.as_fd());
        client.send_fd(fd.as_fd());
        drop(client);
        let client = scene.connected();
        client.send_fd(fd.as_fd());
        client.expect_closed();
    });
}

#[test]
fn clients_that_leave_in_the_middle_leak_nothing() {
    let upstream = FakeUpstream::scripted(|stream, frame| match frame.procedure {
        209 if frame.kind == kind::CALL => {
            let data = frame.stream(status::CONTINUE, vec![0; 65_536]);
            let sent = stream.send(&frame.reply(Vec::new()));
            let sent = sent.and_then(|()| (0..8).try_for_each(|_| stream.send(&data)));
            if sent.is_ok() {
                Next::Done
            } else {
                Next::Close
            }
        }
        101 => Next::Done,
        _ => Next::Standard,
    });
    let scene = Scene::before(&upstream);
    leaks_nothing(&scene, 2_000, |scene| {
        let mut client = scene.opened();
        let never = client.prepare(101, Vec::new());
        client.send(&never);
        let download = client.prepare(209, Vec::new());
        client.exchange(&download);
    });
    eventually("the daemon has no connection", || upstream.connected() == 0);
}

#[test]
fn half_closed_clients_leak_nothing() {
    let upstream = FakeUpstream::start();
    let scene = Scene::before(&upstream);
    leaks_nothing(&scene, 2_000, |scene| {
        let mut client = scene.opened();
        let call = client.prepare(ECHO, Vec::new());
        client.send(&call);
        client.stream().socket().shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.drain().len(), 1);
    });
}

/// The daemon fails in answer to a call, 2,000 times; the client is told and closed.
#[track_caller]
fn failures_leak_nothing(fail: impl Fn(&Frame) -> (Vec<u8>, Next) + Send + Sync + 'static) {
    let upstream = FakeUpstream::scripted(move |stream, frame| {
        if frame.procedure != 101 {
            return Next::Standard;
        }
        let (bytes, next) = fail(frame);
        match stream.send_bytes(&bytes) {
            Ok(()) => next,
            Err(_) => Next::Close,
        }
    });
    let scene = Scene::before(&upstream);
    leaks_nothing(&scene, 2_000, |scene| {
        let mut client = scene.opened();
        let call = client.prepare(101, Vec::new());
        client.send(&call);
        let answers = client.drain();
        assert_eq!(answers[0].serial, call.serial);
    });
    eventually("the daemon has no connection", || upstream.connected() == 0);
}

#[test]
fn daemons_that_answer_garbage_leak_nothing() {
    failures_leak_nothing(|_| (vec![0xff; 64], Next::Done));
}

#[test]
fn daemons_that_answer_twice_leak_nothing() {
    failures_leak_nothing(|call| (call.reply(Vec::new()).encode().repeat(2), Next::Done));
}

#[test]
fn daemons_that_answer_an_unknown_serial_leak_nothing() {
    failures_leak_nothing(|call| {
        let other = Frame {
            serial: 99,
            ..call.reply(Vec::new())
        };
        (other.encode(), Next::Done)
    });
}

#[test]
fn daemons_that_die_mid_frame_leak_nothing() {
    failures_leak_nothing(|call| {
        let answer = call.reply(vec![0; 1000]).encode();
        (answer[..500].to_vec(), Next::Close)
    });
}

#[test]
fn daemons_that_are_not_there_leak_nothing() {
    let dir = WorkDir::new();
    let scene = Scene::new(&dir.join("none"), &Settings::default());
    let mut rounds = 0;
    let mut round = |scene: &Scene| {
        rounds += 1;
        scene.connected().open(Some(URI), 0).unwrap_err();
    };
    (0..WARM_UP).for_each(|_| round(&scene));
    let before = scene.process().rss_kib();
    (0..2_000).for_each(|_| round(&scene));
    scene.expect_no_fds();
    let grown = scene.process().rss_kib().saturating_sub(before);
    assert!(grown < SLACK_KIB, "{grown} KiB");
    eventually("each is logged once", || scene.warnings().len() == rounds);
}

/// Connections that wait keep no buffers. What one costs is printed.
#[test]
fn a_thousand_idle_clients_cost_little() {
    const CLIENTS: usize = 1_000;
    let upstream = FakeUpstream::start();
    let scene = Scene::before(&upstream);
    let open = |count| -> Vec<RpcClient> {
        (0..count)
            .map(|_| {
                let mut client = scene.opened();
                // So that each has had a buffer.
                assert_served(&mut client);
                client
            })
            .collect()
    };
    drop(open(50));
    scene.expect_no_fds();
    let before = scene.process().rss_kib();
    let clients = open(CLIENTS);
    let used = scene.process().rss_kib().saturating_sub(before);
    let each = used as f64 / CLIENTS as f64;
    println!("an idle connection costs {each:.1} KiB of the proxy's memory");
    assert!(each < 32.0, "{each:.1} KiB for an idle connection");
    assert_eq!(scene.more_fds(), 2 * CLIENTS);
    scene.assert_idle();
    drop(clients);
    scene.expect_no_fds();
}
