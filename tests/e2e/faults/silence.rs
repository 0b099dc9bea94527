//! Keepalive while one side is not read: who cannot be heard is not taken for dead.

use std::thread;
use std::time::Duration;

use crate::support::fake_upstream::Next;
use crate::support::scene::{ECHO, Scene, Settings, daemon_with, send_until_stuck};
use crate::support::wire::{Frame, KEEPALIVE, kind, procedure, status};
use crate::support::xdr::{Reader, Writer};

const DOWNLOAD: i32 = 209;
/// After it the daemon reads nothing for a while.
const PAUSE: i32 = 101;

/// Pings after half a second, and the end after four that are not answered.
const PINGS: &str = "keepalive: { interval: 500ms, count: 4 }";

/// Twice as long as it takes to be given up. Not a wait for something: nothing is to happen.
const LONG_SILENCE: Duration = Duration::from_secs(5);

/// A download that its client lets lie: the daemon, whose data waits, answers no ping.
#[test]
fn a_daemon_whose_data_waits_is_not_silent() {
    const FRAMES: usize = 200;
    let upstream = daemon_with(DOWNLOAD, |stream, call| {
        if call.kind == kind::CALL {
            stream.send(&call.reply(Vec::new())).unwrap();
            let data = call.stream(status::CONTINUE, vec![7; 65_536]);
            (0..FRAMES).for_each(|_| stream.send(&data).unwrap());
        } else {
            stream.send(&call.stream(status::OK, Vec::new())).unwrap();
        }
        Next::Done
    });
    let settings = Settings {
        upstream: PINGS,
        ..Settings::default()
    };
    let scene = Scene::new(&upstream.socket(), &settings);
    scene.costs_nobody_else(&[], |scene| {
        let mut client = scene.opened();
        let download = client.prepare(DOWNLOAD, Vec::new());
        client.exchange(&download);
        thread::sleep(LONG_SILENCE);
        for _ in 0..FRAMES {
            let data = client.receive();
            assert_eq!((data.kind, data.status), (kind::STREAM, status::CONTINUE));
        }
        let end = client.exchange(&download.stream(status::OK, Vec::new()));
        assert_eq!(end.status, status::OK);
    });
}

/// Calls that the daemon does not take: the client's answers to pings wait behind them.
#[test]
fn a_client_whose_calls_wait_is_not_silent() {
    let upstream = daemon_with(PAUSE, |stream, call| {
        thread::sleep(LONG_SILENCE);
        stream.send(&call.reply(Vec::new())).unwrap();
        Next::Done
    });
    let settings = Settings {
        listener: PINGS,
        ..Settings::default()
    };
    let scene = Scene::new(&upstream.socket(), &settings);
    scene.costs_nobody_else(&[], |scene| {
        let mut client = scene.opened();
        let feature = Writer::new().i32(10).end();
        let answer = client.call(procedure::CONNECT_SUPPORTS_FEATURE, feature);
        assert_eq!(Reader::new(&answer.body).i32(), 1);
        let calls: Vec<u8> = (0..40)
            .map(|serial| (if serial == 0 { PAUSE } else { ECHO }, serial + 10))
            .flat_map(|(procedure, serial)| {
                Frame::call(procedure, serial, vec![0; 65_536]).encode()
            })
            .collect();
        let sent = send_until_stuck(client.stream().socket(), &calls, calls.len());
        let socket = client.stream().try_clone().unwrap();
        let rest = calls[sent..].to_vec();
        let sender = thread::spawn(move || socket.send_bytes(&rest).unwrap());
        let mut serials = Vec::new();
        while serials.len() < 40 {
            let frame = client.receive();
            if frame.program != KEEPALIVE {
                serials.push(frame.serial);
            }
        }
        assert_eq!(serials, (10..50).collect::<Vec<_>>());
        sender.join().unwrap();
    });
}
