//! The pump over a pair of sockets, polled by hand.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed unwrap is the failed test"
)]

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::policy::model::Keepalive;
use crate::protocol::frame;
use crate::protocol::header::{Header, MessageType, Program, Serial};
use crate::protocol::limits::FRAME_MIN;
use crate::protocol::table::keepalive::PING;
use crate::server::audit::{Audit, Sinks};
use crate::server::auth::certificates::Certificates;
use crate::session::{Auth, Setup};

const POLICY: &str = "
version: 1
listeners: { main: { unix: /run/sock } }
upstreams: { one: { unix: /run/one } }
routes: [{ uri: \"*\", upstream: one }]
";

fn shared() -> Shared {
    let loaded = crate::policy::load("f", POLICY, &|_| None).unwrap();
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
