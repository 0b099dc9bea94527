//! The pump over a pair of sockets, polled by hand.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed unwrap is the failed test"
)]

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::policy::model::Keepalive;
use crate::protocol::frame;
use crate::protocol::header::{Header, MessageType, Program, Serial, Status};
use crate::protocol::limits::{self, FRAME_MIN};
use crate::protocol::table::keepalive::{PING, PONG};
use crate::protocol::table::remote;
use crate::server::audit::{Audit, Sinks};
use crate::server::auth::certificates::Certificates;
use crate::server::health::Ailing;
use crate::session::{Auth, Setup};

fn shared() -> Shared {
    shared_with("unix: /run/one")
}

/// With an upstream that has this in the policy.
fn shared_with(upstream: &str) -> Shared {
    let text = format!(
        "version: 1
listeners: {{ main: {{ unix: /run/sock }} }}
upstreams: {{ one: {{ {upstream} }} }}
routes: [{{ uri: \"*?*\", upstream: one }}]
"
    );
    let loaded = crate::policy::load("f", &text, &|_| None).unwrap();
    let audit = Audit::start(Sinks::default()).unwrap();
    Shared::new("f".into(), loaded.policy, Certificates::default(), audit)
}

fn session() -> Session {
    let setup = Setup {
        facts: Arc::default(),
        keepalive: Keepalive {
            interval: None,
            count: 0,
        },
        descriptors: true,
        auth: Auth::None,
        auth_timeout: Duration::from_secs(1),
        seed: [7; 16],
        refusals: "r".into(),
    };
    Session::new(setup, Instant::now())
}

/// A non-blocking pair: the client's own end, and the pump's.
fn pair() -> (UnixStream, Transport) {
    let (client, ours) = UnixStream::pair().unwrap();
    client.set_nonblocking(true).unwrap();
    ours.set_nonblocking(true).unwrap();
    (client, Transport::unix(ours).unwrap())
}

fn ping() -> Vec<u8> {
    let header = Header {
        program: Program::KEEPALIVE,
        kind: MessageType::MESSAGE,
        ..Header::remote_call(PING, Serial(0))
    };
    let mut bytes = Vec::new();
    frame::write(&mut bytes, header, |_| ());
    bytes
}

/// Bytes that can be read now.
fn read_all(mut socket: &UnixStream) -> usize {
    let (mut total, mut buffer) = (0, vec![0; 1 << 20]);
    loop {
        match socket.read(&mut buffer) {
            Ok(count) => total += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return total,
            Err(error) => unreachable!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_heap_of_small_frames_is_worked_off_in_turns() {
    let (client, ours) = pair();
    let pings = ping().repeat(16 * TURN);
    let mut left = pings.as_slice();
    let shared = shared();
    let mut pump = std::pin::pin!(Pump::new(ours, session(), None, &shared));
    let (mut answered, mut turns) = (0, 0);
    std::future::poll_fn(|cx| {
        if let Ok(count) = (&client).write(left) {
            left = &left[count..];
        }
        assert!(pump.as_mut().poll(cx).is_pending());
        let frames = read_all(&client) / FRAME_MIN;
        assert!(frames <= TURN, "{frames} at once");
        answered += frames;
        turns += usize::from(frames > 0);
        if answered * FRAME_MIN == pings.len() {
            return Poll::Ready(());
        }
        Poll::Pending
    })
    .await;
    assert!(turns >= 16);
}

/// Whatever can be received now, as frames.
fn frames(mut socket: &UnixStream, rest: &mut Vec<u8>) -> Vec<Header> {
    let mut buffer = vec![0; 1 << 20];
    while let Ok(count @ 1..) = socket.read(&mut buffer) {
        rest.extend(&buffer[..count]);
    }
    let mut headers = Vec::new();
    while let Ok(frame::Next::Frame(frame)) = frame::next(rest, limits::FRAME_MAX) {
        headers.push(frame.header);
        let length = frame.len();
        rest.drain(..length);
    }
    headers
}

/// A daemon that agrees to everything, in steps.
struct Daemon {
    listener: UnixListener,
    socket: Option<UnixStream>,
    rest: Vec<u8>,
}

impl Daemon {
    fn at(path: &Path) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self {
            listener,
            socket: None,
            rest: Vec::new(),
        }
    }

    /// Answers what has come by `answer`; says what it was asked.
    fn answer(&mut self, answer: &mut dyn FnMut(&Header) -> Vec<u8>) -> Vec<Header> {
        if self.socket.is_none()
            && let Ok((socket, _)) = self.listener.accept()
        {
            socket.set_nonblocking(true).unwrap();
            self.socket = Some(socket);
        }
        let Some(socket) = &self.socket else {
            return Vec::new();
        };
        let asked = frames(socket, &mut self.rest);
        for header in &asked {
            (&*socket).write_all(&answer(header)).unwrap();
        }
        asked
    }
}

/// Says yes.
fn yes(header: &Header) -> Vec<u8> {
    let mut bytes = Vec::new();
    if header.program == Program::KEEPALIVE {
        let pong = Header {
            procedure: PONG,
            ..*header
        };
        frame::write(&mut bytes, pong, |_| ());
        return bytes;
    }
    frame::write(&mut bytes, header.answer(Status::OK), |writer| {
        if header.procedure == remote::AUTH_LIST {
            writer.u32(1).u32(0);
        } else {
            writer.u32(1);
        }
    });
    bytes
}

fn open_call(serial: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let header = Header::remote_call(remote::CONNECT_OPEN, Serial(serial));
    frame::write(&mut bytes, header, |writer| {
        writer.optional_string(Some("test:///default")).u32(0);
    });
    bytes
}

/// A client sends `before`, reading little, until `is_stuck` says so of what the daemon is asked; then
/// `after`, reading nothing. Returns what is known to be wrong with the daemon a while later.
async fn read_nothing(
    upstream: &str,
    [before, after]: [&[u8]; 2],
    mut is_stuck: impl FnMut(&[Header]) -> bool,
) -> Vec<Ailing> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("one");
    let mut daemon = Daemon::at(&path);
    let shared = shared_with(&format!("unix: {}, {upstream}", path.display()));
    let (client, ours) = pair();
    let mut left = before;
    let mut pump = std::pin::pin!(Pump::new(ours, session(), None, &shared));
    let (mut stuck, mut buffer) = (None, [0; 4096]);
    let down = || shared.health.snapshot(Instant::now());
    while stuck.is_none_or(|since: Instant| since.elapsed() < Duration::from_secs(1))
        && down().is_empty()
    {
        while let Ok(count @ 1..) = (&client).write(left) {
            left = &left[count..];
        }
        if is_stuck(&daemon.answer(&mut yes)) && stuck.is_none() {
            stuck = Some(Instant::now());
            left = if left.is_empty() { after } else { left };
        }
        if stuck.is_none() {
            _ = (&client).read(&mut buffer);
        }
        let polled = std::future::poll_fn(|cx| Poll::Ready(pump.as_mut().poll(cx))).await;
        assert!(polled.is_pending());
        tokio::time::sleep(Duration::from_micros(50)).await;
    }
    assert!(stuck.is_some());
    down()
}

#[tokio::test]
async fn who_reads_nothing_does_not_make_a_daemon_look_slow() {
    let pings = ping().repeat(100_000);
    let bytes = [&pings[..], &open_call(1), &pings].concat();
    let mut asked = 0;
    let down = read_nothing("connect_timeout: 300ms", [&bytes, &[]], |asks| {
        asked += asks.len();
        asked > 0
    });
    assert_eq!(down.await, []);
}

#[tokio::test]
async fn who_reads_nothing_does_not_make_a_daemon_look_dead() {
    let pings = ping().repeat(100_000);
    let (open, mut is_open) = (open_call(1), false);
    let keepalive = "keepalive: { interval: 100ms, count: 2 }";
    let down = read_nothing(keepalive, [&open, &pings], |asks| {
        is_open |= asks
            .iter()
            .any(|header| header.procedure == remote::CONNECT_SET_IDENTITY);
        is_open
    });
    assert_eq!(down.await, []);
}

#[tokio::test]
async fn an_event_that_came_too_early_comes_behind_the_reply_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("one");
    let mut daemon = Daemon::at(&path);
    let shared = shared_with(&format!("unix: {}", path.display()));
    let (client, ours) = pair();
    let register = remote::CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY;
    let lifecycle = remote::DOMAIN_EVENT_CALLBACK_LIFECYCLE;
    let call = Header::remote_call(register, Serial(2));
    let mut bytes = open_call(1);
    frame::write(&mut bytes, call, |writer| _ = writer.i32(0).u32(0));
    (&client).write_all(&bytes).unwrap();
    let mut answer = |header: &Header| {
        if *header != call {
            return yes(header);
        }
        let event = Header {
            kind: MessageType::MESSAGE,
            ..Header::remote_call(lifecycle, Serial(0))
        };
        let mut bytes = Vec::new();
        frame::write(&mut bytes, event, |writer| _ = writer.u32(1));
        [bytes, yes(header)].concat()
    };
    let mut pump = std::pin::pin!(Pump::new(ours, session(), None, &shared));
    let (mut got, mut rest) = (Vec::new(), Vec::new());
    while got.len() < 3 {
        daemon.answer(&mut answer);
        let polled = std::future::poll_fn(|cx| Poll::Ready(pump.as_mut().poll(cx))).await;
        assert!(polled.is_pending());
        tokio::time::sleep(Duration::from_micros(50)).await;
        got.extend(frames(&client, &mut rest));
    }
    let procedures: Vec<_> = got.iter().map(|header| header.procedure).collect();
    assert_eq!(procedures, [remote::CONNECT_OPEN, register, lifecycle]);
}

#[tokio::test]
async fn a_program_that_ends_without_a_word_is_known_to_all() {
    let shared = shared_with("command: [sh, -c, \"echo no such host >&2; exit 255\"]");
    let (client, ours) = pair();
    (&client).write_all(&open_call(1)).unwrap();
    let mut pump = Box::pin(Pump::new(ours, session(), None, &shared));
    let (mut got, mut rest) = (Vec::new(), Vec::new());
    while got.is_empty() {
        let polled = std::future::poll_fn(|cx| Poll::Ready(pump.as_mut().poll(cx))).await;
        assert!(polled.is_pending());
        tokio::time::sleep(Duration::from_millis(1)).await;
        got.extend(frames(&client, &mut rest));
    }
    assert_eq!(got[0].status, Status::ERROR);
    let down = shared.health.snapshot(Instant::now());
    assert!(down[0].why.ends_with("no such host"), "{down:?}");
}

#[tokio::test]
async fn who_reads_nothing_does_not_heap_up_what_lost_daemons_said() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("one");
    let mut daemon = Daemon::at(&path);
    let shared = shared_with(&format!("unix: {}, reconnect: true", path.display()));
    let (client, ours) = pair();
    (&client).write_all(&open_call(1)).unwrap();
    let event = Header {
        kind: MessageType::MESSAGE,
        ..Header::remote_call(remote::DOMAIN_EVENT_LIFECYCLE, Serial(0))
    };
    let mut said = Vec::new();
    frame::write(&mut said, event, |writer| writer.raw(&[0; 400_000]));
    let mut pump = Box::pin(Pump::new(ours, session(), None, &shared));
    let begun = Instant::now();
    loop {
        let asked = daemon.answer(&mut yes);
        let is_open = |header: &Header| header.procedure == remote::CONNECT_SET_IDENTITY;
        if asked.iter().any(is_open) {
            // All of it is taken, whoever reads it, and then it dies.
            let socket = daemon.socket.take().unwrap();
            let mut left = said.as_slice();
            while !left.is_empty() {
                if let Ok(count) = (&socket).write(left) {
                    left = &left[count..];
                }
                _ = std::future::poll_fn(|cx| Poll::Ready(pump.as_mut().poll(cx))).await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        if std::future::poll_fn(|cx| Poll::Ready(pump.as_mut().poll(cx)))
            .await
            .is_ready()
        {
            return;
        }
        assert!(pump.upstreams.len() < 10 && begun.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
