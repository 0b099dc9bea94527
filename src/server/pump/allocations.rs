//! A relayed call allocates nothing once its connection is warm.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use tokio::sync::oneshot;

use crate::policy::{self, facts::ClientFacts};
use crate::protocol::frame;
use crate::protocol::header::{Header, Procedure, Serial, Status};
use crate::protocol::table::remote;
use crate::protocol::xdr::Writer;
use crate::server::audit::{Audit, Sinks};
use crate::server::auth::certificates::Certificates;
use crate::server::connection::Client;
use crate::server::context::Context;
use crate::server::socket::UnixSocket;
use crate::server::transport::Channel;

const WARM_UP: u32 = 100;
const CALLS: u32 = 1000;

fn context(upstream: &Path) -> Context {
    // No timer ends during the test, which would be none of a call's business.
    let text = format!(
        "version: 1
listeners: {{ main: {{ unix: /main, keepalive: {{ interval: never }} }} }}
upstreams: {{ daemon: {{ unix: \"{}\", keepalive: {{ interval: never }} }} }}
routes: [{{ uri: \"*?*\", upstream: daemon }}]
",
        upstream.display()
    );
    let policy = policy::load("routes.yaml", &text, &|_| None)
        .unwrap()
        .policy;
    let audit = Audit::start(Sinks::default()).unwrap();
    Context::new("routes.yaml".into(), policy, Certificates::default(), audit)
}

fn read_frame(mut socket: &UnixStream) -> Option<(Header, Vec<u8>)> {
    let mut word = [0; 4];
    socket.read_exact(&mut word).ok()?;
    let mut rest = vec![0; u32::from_be_bytes(word) as usize - 4];
    socket.read_exact(&mut rest).ok()?;
    let payload = rest.split_off(24);
    Some((Header::decode(rest.try_into().unwrap()), payload))
}

fn write_frame(mut socket: &UnixStream, header: Header, payload: impl FnOnce(&mut Writer<'_>)) {
    let mut bytes = Vec::new();
    frame::write(&mut bytes, header, payload);
    socket.write_all(&bytes).unwrap();
}

/// A daemon that agrees to everything.
fn answer_everything(listener: &UnixListener) {
    let (socket, _) = listener.accept().unwrap();
    while let Some((header, _)) = read_frame(&socket) {
        write_frame(&socket, header.answer(Status::OK), |writer| {
            if header.procedure == remote::AUTH_LIST {
                writer.u32(1).u32(0);
            } else {
                writer.u64(9_000_000);
            }
        });
    }
}

/// A client that opens, makes calls, says that it is warm, makes the rest, and says so.
fn call(socket: &UnixStream, warm: oneshot::Sender<()>, done: oneshot::Sender<()>) {
    let ask = |procedure: Procedure, serial: u32, payload: &dyn Fn(&mut Writer<'_>)| {
        write_frame(
            socket,
            Header::remote_call(procedure, Serial(serial)),
            payload,
        );
        let (reply, _) = read_frame(socket).unwrap();
        assert_eq!((reply.serial, reply.status), (Serial(serial), Status::OK));
    };
    ask(remote::CONNECT_OPEN, 0, &|writer| {
        writer.optional_string(Some("test:///default")).u32(0);
    });
    let calls = |serials: std::ops::Range<u32>| {
        serials.for_each(|serial| ask(remote::CONNECT_GET_LIB_VERSION, serial, &|_| ()));
    };
    calls(1..WARM_UP);
    warm.send(()).unwrap();
    calls(WARM_UP..WARM_UP + CALLS);
    done.send(()).unwrap();
}

#[test]
fn a_relayed_call_allocates_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("daemon");
    let listener = UnixListener::bind(&path).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let (is_warm, warm) = oneshot::channel();
    let (is_done, mut done) = oneshot::channel();
    thread::scope(|scope| {
        scope.spawn(|| answer_everything(&listener));
        // Its socket stays open behind it: to close is none of a call's business.
        scope.spawn(|| call(&theirs, is_warm, is_done));

        let ctx = context(&path);
        let main = Arc::clone(&ctx.policy.load().policy.listeners[0]);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let mut served = Box::pin(async {
            let channel = Channel::Unix(UnixSocket::new(ours.into()).unwrap());
            let facts = ClientFacts::default();
            let client = Client::new(channel, facts, None, main, &ctx).unwrap();
            Box::new(client).serve(&ctx).await;
        });
        runtime.block_on(async {
            tokio::select! {
                () = &mut served => panic!("closed before it was warm"),
                warm = warm => warm.unwrap(),
            }
        });
        let allocated = allocation_counter::measure(|| {
            runtime.block_on(async {
                tokio::select! {
                    () = &mut served => panic!("closed before all calls were made"),
                    done = &mut done => done.unwrap(),
                }
            });
        });
        drop(served);
        assert_eq!(allocated.count_total, 0, "in {CALLS} calls: {allocated:?}");
    });
}
