//! Daemons that fail: the client hears of it, once, and only that client.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;

use crate::support::fake_upstream::{FakeUpstream, Next};
use crate::support::scene::{ECHO, Scene, Settings, URI, assert_served, send_until_stuck};
use crate::support::wait::eventually;
use crate::support::wire::{Frame, RpcError, kind, procedure, status};
use crate::support::workdir::WorkDir;
use crate::support::xdr::Reader;

const GARBAGE: i32 = 101;
const TWICE: i32 = 102;
const UNKNOWN_SERIAL: i32 = 103;
const DIE: i32 = 104;
const DIE_MID_FRAME: i32 = 108;
const STRANGE: i32 = 109;
const DEAF: i32 = 110;
/// Never answered.
const NEVER: i32 = 111;
const WRONG_PROCEDURE: i32 = 112;
const TOO_MANY_FDS: i32 = 113;
const DOWNLOAD: i32 = 209;
const REGISTER_CLOSE_CALLBACK: i32 = 360;
const CONNECTION_CLOSED: i32 = 362;

/// A daemon that fails as the procedure of a call says.
fn failing() -> FakeUpstream {
    FakeUpstream::scripted(|stream, frame| {
        let answer = frame.reply(Vec::new());
        let sent = match (frame.kind, frame.procedure) {
            (kind::CALL, GARBAGE) => stream.send_bytes(&[0xff; 64]),
            (kind::CALL, TWICE) => stream.send(&answer).and_then(|()| stream.send(&answer)),
            (kind::CALL, UNKNOWN_SERIAL) => stream.send(&Frame {
                serial: 77,
                ..answer
            }),
            (kind::CALL, WRONG_PROCEDURE) => stream.send(&Frame {
                procedure: ECHO,
                ..answer
            }),
            (kind::CALL, DIE) => return Next::Close,
            (kind::CALL, DIE_MID_FRAME) => {
                // A client that has gone meanwhile is no concern of the daemon.
                let _gone = stream.send_bytes(&frame.reply(vec![0; 1000]).encode()[..500]);
                return Next::Close;
            }
            (kind::CALL, STRANGE) => stream.send(&Frame { kind: 9, ..answer }),
            (kind::CALL, TOO_MANY_FDS) => {
                let mut bytes = frame.reply(33_u32.to_be_bytes().to_vec()).encode();
                bytes[16..20].copy_from_slice(&kind::REPLY_WITH_FDS.to_be_bytes());
                stream.send_bytes(&bytes)
            }
            (kind::CALL, DEAF) => return Next::StopReading,
            (kind::CALL, NEVER) => Ok(()),
            (kind::CALL, DOWNLOAD) => stream.send(&answer).and_then(|()| {
                let data = frame.stream(status::CONTINUE, vec![7; 65_536]);
                (0..20).try_for_each(|_| stream.send(&data))
            }),
            _ => return Next::Standard,
        };
        if sent.is_ok() {
            Next::Done
        } else {
            Next::Close
        }
    })
}

/// After `call`, the client has outstanding calls, an open stream and a close callback; all of
/// them are told, in that order, then the connection closes. Returns the error of the calls.
#[track_caller]
fn fails_clearly(procedure: i32, why: &str) -> RpcError {
    let upstream = failing();
    let scene = Scene::before(&upstream);
    let mut errors = Vec::new();
    scene.costs_nobody_else(&[why], |scene| {
        let mut client = scene.opened();
        client.call(REGISTER_CLOSE_CALLBACK, Vec::new());
        let download = client.prepare(DOWNLOAD, Vec::new());
        client.exchange(&download);
        for _ in 0..20 {
            assert_eq!(client.receive().body.len(), 65_536);
        }
        let waiting = client.prepare(NEVER, Vec::new());
        client.send(&waiting);
        let call = client.prepare(procedure, Vec::new());
        client.send(&call);
        let frames = client.drain();
        let mut frames = frames.iter().peekable();
        if procedure == TWICE {
            assert_eq!(frames.next().unwrap().serial, call.serial);
        }
        let told: Vec<_> = frames
            .map(|frame| {
                if frame.kind != kind::MESSAGE {
                    errors.push(frame.error());
                }
                (frame.procedure, frame.kind, frame.serial)
            })
            .collect();
        let mut expected = vec![(NEVER, kind::REPLY, waiting.serial)];
        if procedure != TWICE {
            expected.push((procedure, kind::REPLY, call.serial));
        }
        expected.push((DOWNLOAD, kind::STREAM, download.serial));
        expected.push((CONNECTION_CLOSED, kind::MESSAGE, 0));
        assert_eq!(told, expected);
    });
    assert!(
        errors.iter().all(|error| *error == errors[0]),
        "{errors:#?}"
    );
    assert_eq!((errors[0].code, errors[0].domain), (38, 7));
    assert!(
        errors[0]
            .message
            .starts_with("Lost the connection to upstream 'daemon': ")
    );
    assert!(errors[0].message.contains(why), "{errors:#?}");
    errors.remove(0)
}

#[test]
fn a_daemon_that_answers_garbage_is_given_up() {
    fails_clearly(GARBAGE, "frame length 4294967295 is over 33554436");
}

#[test]
fn a_daemon_that_answers_twice_is_given_up() {
    fails_clearly(TWICE, "a reply that nobody waits for");
}

#[test]
fn a_daemon_that_answers_an_unknown_serial_is_given_up() {
    fails_clearly(UNKNOWN_SERIAL, "a reply that nobody waits for");
}

#[test]
fn a_daemon_that_answers_for_another_procedure_is_given_up() {
    fails_clearly(WRONG_PROCEDURE, "a reply that nobody waits for");
}

#[test]
fn a_daemon_that_sends_a_frame_of_no_known_type_is_given_up() {
    fails_clearly(STRANGE, "a frame that no daemon sends");
}

#[test]
fn a_daemon_that_announces_too_many_descriptors_is_given_up() {
    fails_clearly(TOO_MANY_FDS, "33 descriptors are over 32");
}

#[test]
fn a_daemon_that_dies_mid_stream_is_told_of() {
    fails_clearly(DIE, "the daemon closed the connection");
}

#[test]
fn a_daemon_that_dies_mid_frame_is_told_of() {
    fails_clearly(DIE_MID_FRAME, "the daemon closed the connection");
}

/// Back-pressure reaches the client; nobody else waits, and nothing grows.
#[test]
fn a_daemon_that_never_reads_costs_bounded_memory() {
    let upstream = failing();
    let scene = Scene::before(&upstream);
    scene.costs_nobody_else(&[], |scene| {
        let mut client = scene.opened();
        let call = client.prepare(DEAF, Vec::new());
        client.send(&call);
        let before = scene.process().rss_kib();
        let calls: Vec<u8> = (10..1_000)
            .flat_map(|serial| Frame::call(ECHO, serial, vec![0; 65_536]).encode())
            .collect();
        let sent = send_until_stuck(client.stream().socket(), &calls, calls.len());
        assert!(sent < calls.len(), "all calls were taken");
        assert_served(&mut scene.opened());
        let grown = scene.process().rss_kib().saturating_sub(before);
        assert!(grown < 16 * 1024, "{grown} KiB");
    });
}

/// A proxy before a daemon that does not open: one warning, one error for the client, within the
/// deadline; and the connection may be used to try again.
#[track_caller]
fn does_not_open(socket: &Path, settings: &Settings, why: &str) -> RpcError {
    let scene = Scene::new(socket, settings);
    let mut client = scene.connected();
    client.auth_list();
    let error = client.open(Some(URI), 0).unwrap_err();
    assert_eq!(client.open(Some(URI), 0).unwrap_err(), error);
    drop(client);
    scene.expect_no_fds();
    // The log may come later than the answer.
    eventually("both attempts are logged", || scene.warnings().len() >= 2);
    let warnings = scene.warnings();
    assert_eq!(warnings.len(), 2, "one for each attempt: {warnings:#?}");
    assert!(
        warnings.iter().all(|line| line.contains(why)),
        "{warnings:#?}"
    );
    error
}

#[track_caller]
fn cannot_be_opened(socket: &Path, why: &str) {
    let error = does_not_open(socket, &Settings::default(), why);
    assert_eq!((error.code, error.domain), (38, 7));
    let message = format!("Failed to connect to upstream 'daemon': {why}");
    assert!(error.message.starts_with(&message), "{error:?}");
}

#[test]
fn a_daemon_that_is_not_there_is_told_of() {
    let dir = WorkDir::new();
    cannot_be_opened(&dir.join("none"), "No such file or directory");
    // A socket file that a dead daemon left.
    drop(UnixListener::bind(dir.join("dead")).unwrap());
    cannot_be_opened(&dir.join("dead"), "Connection refused");
}

#[test]
fn a_daemon_that_accepts_and_closes_is_told_of() {
    let dir = WorkDir::new();
    let listener = UnixListener::bind(dir.join("sock")).unwrap();
    thread::spawn(move || listener.incoming().for_each(drop));
    cannot_be_opened(&dir.join("sock"), "the daemon closed the connection");
}

#[test]
fn a_daemon_that_opens_with_garbage_is_told_of() {
    let dir = WorkDir::new();
    let listener = UnixListener::bind(dir.join("sock")).unwrap();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            // It has asked before it is answered; whether it still listens does not matter.
            let _asked = socket.read(&mut [0; 28]);
            let _gone = socket.write_all(b"220 mail.example ESMTP Postfix\r\n");
            let _end = socket.read_to_end(&mut Vec::new());
        }
    });
    cannot_be_opened(
        &dir.join("sock"),
        "the daemon broke the protocol: frame length",
    );
}

#[test]
fn a_daemon_that_dies_in_each_step_of_the_opening_is_told_of() {
    for step in [
        procedure::AUTH_LIST,
        procedure::CONNECT_OPEN,
        procedure::CONNECT_SET_IDENTITY,
    ] {
        let upstream = FakeUpstream::scripted(move |_, frame| {
            if frame.procedure == step {
                Next::Close
            } else {
                Next::Standard
            }
        });
        cannot_be_opened(&upstream.socket(), "the daemon closed the connection");
    }
}

/// `connect_timeout` bounds the connection and each step of the dialogue, and one client pays it.
#[test]
fn a_daemon_that_never_answers_the_opening_is_given_up_in_time() {
    let hasty = Settings {
        upstream: "connect_timeout: 300ms, keepalive: { interval: never }",
        ..Settings::default()
    };
    let timed_out = |socket: &Path, is_blamed: bool| {
        let scene = Scene::new(socket, &hasty);
        let mut client = scene.connected();
        client.auth_list();
        let error = client.open(Some(URI), 0).unwrap_err();
        assert_eq!((error.code, error.domain), (68, 7));
        assert_eq!(
            error.message,
            "Timed out during operation: connecting to upstream 'daemon'"
        );
        drop(client);
        let is_told = || {
            let mut next = scene.connected();
            next.auth_list();
            let error = next.open(Some(URI), 0).unwrap_err();
            let is_known = error
                .message
                .contains(": no answer in time; tried again in");
            assert!(!is_known || (error.code, error.domain) == (38, 7));
            is_known
        };
        if is_blamed {
            // Whoever comes next is not made to wait for the same, unless it is time to try again.
            eventually("others are told", is_told);
        } else {
            assert!(!is_told());
        }
        scene.expect_no_fds();
    };
    // Nobody accepts; the kernel makes the connection all the same.
    let dir = WorkDir::new();
    let _listener = UnixListener::bind(dir.join("sock")).unwrap();
    timed_out(&dir.join("sock"), true);
    for step in [
        procedure::AUTH_LIST,
        procedure::CONNECT_OPEN,
        procedure::CONNECT_SET_IDENTITY,
    ] {
        let upstream = FakeUpstream::scripted(move |_, frame| {
            if frame.procedure == step {
                Next::Done
            } else {
                Next::Standard
            }
        });
        // What a client asks to be opened may be what takes the time.
        timed_out(&upstream.socket(), step != procedure::CONNECT_OPEN);
    }
}

/// A daemon that comes back serves the next client, and the same one if it tries again.
#[test]
fn a_daemon_that_comes_back_is_used_again() {
    let dir = WorkDir::new();
    let socket = dir.join("sock");
    let scene = Scene::new(&socket, &Settings::default());
    let mut client = scene.connected();
    client.auth_list();
    client.open(Some(URI), 0).unwrap_err();
    let upstream = FakeUpstream::start();
    std::os::unix::fs::symlink(upstream.socket(), &socket).unwrap();
    client.open(Some(URI), 0).unwrap();
    assert_served(&mut client);
    upstream.hang_up();
    client.expect_closed();
    let mut next = scene.opened();
    assert_served(&mut next);
    drop(next);
    eventually("the daemon has no connection", || upstream.connected() == 0);
}

/// Its events, streams and replies go to the client that they are for.
#[test]
fn a_daemon_that_names_a_stream_of_nobody_is_not_listened_to() {
    let upstream = failing();
    let scene = Scene::before(&upstream);
    scene.costs_nobody_else(&[], |_| {
        upstream.send_to_all(
            &Frame::call(DOWNLOAD, 55, Vec::new()).stream(status::CONTINUE, b"data".to_vec()),
        );
        upstream
            .send_to_all(&Frame::call(DOWNLOAD, 55, Vec::new()).stream(status::ERROR, vec![0; 64]));
    });
}

/// A daemon that answers no ping is given up, and the client is told why.
#[test]
fn a_daemon_that_falls_silent_is_given_up() {
    let upstream = FakeUpstream::scripted(|_, frame| match frame.procedure {
        NEVER => Next::StopReading,
        _ => Next::Standard,
    });
    let settings = Settings {
        upstream: "keepalive: { interval: 100ms, count: 2 }",
        ..Settings::default()
    };
    let scene = Scene::new(&upstream.socket(), &settings);
    scene.costs_nobody_else(&["the daemon does not answer"], |scene| {
        let mut client = scene.opened();
        client.call(REGISTER_CLOSE_CALLBACK, Vec::new());
        let call = client.prepare(NEVER, Vec::new());
        client.send(&call);
        let frames = client.drain();
        assert_eq!(frames.len(), 2);
        assert!(
            frames[0]
                .error()
                .message
                .ends_with("the daemon does not answer")
        );
        // VIR_CONNECT_CLOSE_REASON_KEEPALIVE
        assert_eq!(Reader::new(&frames[1].body).i32(), 2);
    });
}
