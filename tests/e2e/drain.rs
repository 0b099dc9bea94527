//! `SIGTERM`: who is idle is closed, who waits is answered, and there is an end to it.

use std::sync::{Arc, Condvar, Mutex};

use rustix::process::Signal;

use crate::support::fake_upstream::{FakeUpstream, Next};
use crate::support::rpc_client::RpcClient;
use crate::support::scene::{ECHO, Scene, Settings, daemon_with};
use crate::support::wait::eventually;
use crate::support::wire::{Frame, kind, procedure, status};

/// Answered when the test says so.
const SLOW: i32 = 101;
const DOWNLOAD: i32 = 209;

/// A door that scripts wait at.
#[derive(Debug, Default)]
struct Door {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Door {
    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    fn wait(&self) {
        let open = self.open.lock().unwrap();
        drop(self.opened.wait_while(open, |open| !*open).unwrap());
    }
}

fn draining_for(time: &'static str) -> Settings {
    Settings {
        daemon: time,
        ..Settings::default()
    }
}

#[test]
fn idle_clients_are_closed_at_once() {
    let upstream = FakeUpstream::start();
    let mut scene = Scene::new(&upstream.socket(), &draining_for("drain: 1h"));
    let unopened = scene.connected();
    let opened: Vec<_> = (0..20).map(|_| scene.opened()).collect();
    let exit = scene.proxy.terminate();
    assert!(exit.success(), "{exit}");
    unopened.expect_closed();
    opened.iter().for_each(RpcClient::expect_closed);
    assert!(!scene.socket().exists(), "the socket file is removed");
    assert_eq!(scene.process().stderr().count("every client has left"), 1);
}

#[test]
fn an_outstanding_call_is_answered_and_new_ones_are_refused() {
    let door = Arc::new(Door::default());
    let upstream = daemon_with(SLOW, {
        let door = Arc::clone(&door);
        move |stream, call| {
            door.wait();
            stream.send(&call.reply(b"late".to_vec())).unwrap();
            Next::Done
        }
    });
    let mut scene = Scene::new(&upstream.socket(), &draining_for("drain: 1h"));
    let mut busy = scene.opened();
    let idle = scene.opened();
    let call = busy.prepare(SLOW, Vec::new());
    busy.send(&call);
    eventually("the daemon has the call", || {
        upstream.calls(SLOW).len() == 1
    });
    scene.proxy.signal(Signal::TERM);
    idle.expect_closed();
    assert!(RpcClient::try_connect(&scene.socket()).is_err());
    let refused = busy.call(ECHO, Vec::new()).error();
    assert_eq!((refused.code, refused.domain), (39, 7));
    door.open();
    let answer = busy.receive();
    assert_eq!(
        (answer.serial, answer.body),
        (call.serial, b"late".to_vec())
    );
    busy.expect_closed();
    let exit = scene.proxy.wait();
    assert!(exit.success(), "{exit}");
}

/// A proxy whose client has a stream open, and the client.
fn with_a_stream(drain: &'static str) -> (FakeUpstream, Scene, RpcClient, Frame) {
    let upstream = FakeUpstream::scripted(|stream, frame| match frame.procedure {
        DOWNLOAD if frame.kind == kind::STREAM => {
            stream.send(&frame.stream(status::OK, Vec::new())).unwrap();
            Next::Done
        }
        _ => Next::Standard,
    });
    let scene = Scene::new(&upstream.socket(), &draining_for(drain));
    let mut client = scene.opened();
    let download = client.prepare(DOWNLOAD, Vec::new());
    client.exchange(&download);
    (upstream, scene, client, download)
}

#[test]
fn a_stream_may_go_on_to_its_end() {
    let (upstream, mut scene, client, download) = with_a_stream("drain: 1h");
    scene.proxy.signal(Signal::TERM);
    scene.proxy.wait_notified("STOPPING=1", 0);
    upstream.send_to_all(&download.stream(status::CONTINUE, b"data".to_vec()));
    assert_eq!(client.receive().body, b"data");
    let end = client.exchange(&download.stream(status::OK, Vec::new()));
    assert_eq!((end.kind, end.status), (kind::STREAM, status::OK));
    client.expect_closed();
    let exit = scene.proxy.wait();
    assert!(exit.success(), "{exit}");
}

#[test]
fn a_stream_is_cut_off_at_the_deadline() {
    let (_upstream, mut scene, client, _) = with_a_stream("drain: 200ms");
    let exit = scene.proxy.terminate();
    assert!(exit.success(), "{exit}");
    client.expect_closed();
    scene
        .process()
        .stderr()
        .wait_for("clients were still connected");
    assert_eq!(scene.warnings().len(), 1);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let (_upstream, mut scene, client, _) = with_a_stream("drain: 1h");
    scene.proxy.signal(Signal::TERM);
    scene.proxy.wait_notified("STOPPING=1", 0);
    // It says so before it waits.
    scene.process().stderr().wait_for("stopping: told to end");
    let exit = scene.proxy.terminate();
    assert!(exit.success(), "{exit}");
    client.expect_closed();
    scene.process().stderr().wait_for("told to end at once");
}

/// An opening that is under way is finished, so that the client hears of it.
#[test]
fn an_opening_under_way_is_answered() {
    let door = Arc::new(Door::default());
    let upstream = daemon_with(procedure::CONNECT_OPEN, {
        let door = Arc::clone(&door);
        move |_, _| {
            door.wait();
            Next::Standard
        }
    });
    let mut scene = Scene::new(&upstream.socket(), &draining_for("drain: 1h"));
    let mut client = scene.connected();
    client.auth_list();
    let body = crate::support::xdr::Writer::new()
        .optional(Some(crate::support::scene::URI))
        .u32(0)
        .end();
    let open = client.prepare(procedure::CONNECT_OPEN, body);
    client.send(&open);
    eventually("the daemon has the call", || !upstream.opened().is_empty());
    scene.proxy.signal(Signal::TERM);
    scene.process().stderr().wait_for("stopping: told to end");
    door.open();
    assert_eq!(client.receive().serial, open.serial);
    client.expect_closed();
    let exit = scene.proxy.wait();
    assert!(exit.success(), "{exit}");
}
