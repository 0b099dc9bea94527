//! The scripted client against `libvirtd`, and against the scripted upstream.

use std::fs::File;
use std::io::{Read, Write, pipe};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::support::fake_upstream::{FakeUpstream, Next};
use crate::support::libvirtd::Libvirtd;
use crate::support::rpc_client::RpcClient;
use crate::support::tool::{uri_at, virsh};
use crate::support::wait::eventually;
use crate::support::wire::{Frame, KEEPALIVE, REMOTE, RpcError, kind, procedure, status};
use crate::support::xdr::{Reader, TypedValue, Writer};

#[test]
fn the_client_opens_libvirtd_and_reads_its_errors() {
    let daemon = Libvirtd::start();
    let mut client = RpcClient::connect(&daemon.socket());
    assert_eq!(client.auth_list(), [0]);
    let error = client.open(Some("foo:///bar"), 0).unwrap_err();
    assert_eq!(
        error,
        RpcError {
            code: 5,
            domain: 0,
            message: "no connection driver available for foo:///bar".to_owned(),
            level: 2,
        }
    );
    client.open(Some("test:///default"), 0).unwrap();
    let answer = client.call(procedure::CONNECT_GET_VERSION, Vec::new());
    assert_eq!(answer.status, status::OK);
    let mut body = Reader::new(&answer.body);
    assert_eq!(body.u64(), 2);
    assert!(body.is_empty());
    let unknown = Frame {
        program: 0x1234_5678,
        ..client.prepare(4, Vec::new())
    };
    let error = client.exchange(&unknown).error();
    assert_eq!(error.message, "Cannot find program 305419896 version 1");
    client.call(procedure::CONNECT_CLOSE, Vec::new());
    client.expect_closed();
}

#[test]
fn the_client_sends_what_is_no_frame() {
    let daemon = Libvirtd::start();
    let client = RpcClient::connect(&daemon.socket());
    client.send_bytes(&[0, 0, 0, 0]);
    client.expect_closed();
}

#[test]
fn the_upstream_opens_and_echoes() {
    let upstream = FakeUpstream::start();
    let mut client = RpcClient::opened(&upstream.socket(), "test:///default");
    let identity = Writer::new()
        .u32(2)
        .string("user-name")
        .u32(7)
        .string("alice")
        .string("unix-user-id")
        .u32(4)
        .u64(1000)
        .u32(0)
        .end();
    assert_eq!(
        client
            .call(procedure::CONNECT_SET_IDENTITY, identity)
            .status,
        status::OK
    );
    let feature = client.call(
        procedure::CONNECT_SUPPORTS_FEATURE,
        Writer::new().i32(10).end(),
    );
    assert_eq!(Reader::new(&feature.body).i32(), 1);
    assert_eq!(client.call(200, b"echo".to_vec()).body, b"echo");
    let ping = Frame {
        program: KEEPALIVE,
        ..Frame::event(1, Vec::new())
    };
    client.send(&ping);
    let pong = client.receive();
    assert_eq!(
        (pong.program, pong.procedure, pong.kind),
        (KEEPALIVE, 2, kind::MESSAGE)
    );

    assert_eq!(upstream.accepted(), 1);
    assert_eq!(upstream.opened(), [(Some("test:///default".to_owned()), 0)]);
    let identity = &upstream.identities()[0];
    assert_eq!(
        identity["user-name"],
        TypedValue::String("alice".to_owned())
    );
    assert_eq!(identity["unix-user-id"], TypedValue::ULLong(1000));
    assert_eq!(upstream.calls(200)[0].body, b"echo");
    assert_eq!(upstream.received().len(), 6);
    upstream.hang_up();
    client.expect_closed();
}

#[test]
fn the_upstream_satisfies_virsh() {
    let upstream = FakeUpstream::scripted(|stream, frame| {
        if frame.procedure == procedure::CONNECT_GET_HOSTNAME {
            let name = Writer::new().string("scripted").end();
            stream.send(&frame.reply(name)).unwrap();
            return Next::Done;
        }
        Next::Standard
    });
    let uri = uri_at("test:///default", &upstream.socket());
    assert_eq!(virsh(&uri, &["-r", "hostname"]).run().ok(), "scripted");
    let (name, flags) = &upstream.opened()[0];
    assert_eq!(name.as_deref(), Some("test:///default"));
    // Clients that are not root set other bits too.
    assert_eq!(flags & 1, 1, "read-only");
}

#[test]
fn the_upstream_misbehaves_as_told() {
    const TWICE: i32 = 100;
    const UNKNOWN_SERIAL: i32 = 101;
    const GARBAGE: i32 = 102;
    const REFUSE: i32 = 103;
    let refusal = RpcError {
        code: 1,
        domain: 12,
        message: "no".to_owned(),
        level: 2,
    };
    let answer = refusal.clone();
    let upstream = FakeUpstream::scripted(move |stream, frame| {
        match frame.procedure {
            TWICE => {
                stream.send(&frame.reply(Vec::new())).unwrap();
                stream.send(&frame.reply(Vec::new())).unwrap();
            }
            UNKNOWN_SERIAL => {
                stream
                    .send(&Frame {
                        serial: 99,
                        ..frame.reply(Vec::new())
                    })
                    .unwrap();
            }
            REFUSE => stream.send(&frame.error_reply(&answer)).unwrap(),
            GARBAGE => {
                stream.send_bytes(&[0xff; 64]).unwrap();
                return Next::Close;
            }
            _ => return Next::Standard,
        }
        Next::Done
    });
    let mut client = RpcClient::opened(&upstream.socket(), "test:///default");
    assert_eq!(client.call(REFUSE, Vec::new()).error(), refusal);
    let first = client.call(TWICE, Vec::new());
    assert_eq!(client.receive().serial, first.serial);
    let call = client.prepare(UNKNOWN_SERIAL, Vec::new());
    client.send(&call);
    assert_eq!(client.receive().serial, 99);
    let call = client.prepare(GARBAGE, Vec::new());
    client.send(&call);
    let error = client.stream().receive().unwrap_err();
    assert_eq!(error.to_string(), "length 4294967295");
}

#[test]
fn the_upstream_stops_reading_and_the_socket_fills() {
    let upstream = FakeUpstream::scripted(|_, _| Next::StopReading);
    let client = RpcClient::connect(&upstream.socket());
    client.send(&Frame::call(procedure::AUTH_LIST, 0, Vec::new()));
    eventually("the call has arrived", || upstream.received().len() == 1);
    let mut socket = client.stream().socket();
    socket.set_nonblocking(true).unwrap();
    let full = std::iter::repeat_with(|| socket.write(&[0; 65536])).find_map(Result::err);
    assert_eq!(full.unwrap().kind(), std::io::ErrorKind::WouldBlock);
    assert_eq!(upstream.received().len(), 1);
}

#[test]
fn the_upstream_sends_events_and_streams() {
    let upstream = FakeUpstream::scripted(|stream, frame| {
        match (frame.kind, frame.procedure) {
            (kind::CALL, procedure::STORAGE_VOL_UPLOAD) => {
                stream.send(&frame.reply(Vec::new())).unwrap();
            }
            (kind::STREAM, _) if frame.status == status::OK => {
                stream.send(&frame.stream(status::OK, Vec::new())).unwrap();
            }
            (kind::STREAM, _) if frame.body == b"die" => {
                stream
                    .send(&frame.stream(status::CONTINUE, b"last words".to_vec()))
                    .unwrap();
                return Next::Close;
            }
            _ => return Next::Standard,
        }
        Next::Done
    });
    let mut client = RpcClient::opened(&upstream.socket(), "test:///default");
    upstream.send_to_all(&Frame::event(318, b"event".to_vec()));
    let event = client.receive();
    assert_eq!(
        (event.program, event.kind, event.serial),
        (REMOTE, kind::MESSAGE, 0)
    );

    let call = client.prepare(procedure::STORAGE_VOL_UPLOAD, Vec::new());
    client.exchange(&call);
    client.send(&call.stream(status::CONTINUE, b"data".to_vec()));
    let hole = Writer::new().u64(4096).u32(0).end();
    client.send(&Frame {
        kind: kind::STREAM_HOLE,
        ..call.stream(status::CONTINUE, hole)
    });
    let end = client.exchange(&call.stream(status::OK, Vec::new()));
    assert_eq!((end.kind, end.status), (kind::STREAM, status::OK));
    client.send(&call.stream(status::CONTINUE, b"die".to_vec()));
    let frames = client.drain();
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0].body, b"last words");
}

#[test]
fn descriptors_pass_both_ways() {
    const TAKE: i32 = 309;
    const GIVE: i32 = 343;
    let upstream = FakeUpstream::scripted(|stream, frame| {
        if frame.kind == kind::CALL_WITH_FDS {
            // Writes into every pipe that it was given, in order.
            for (number, fd) in frame.fds.iter().enumerate() {
                let mut file = File::from(fd.try_clone().unwrap());
                file.write_all(number.to_string().as_bytes()).unwrap();
            }
            stream.send(&frame.reply(Vec::new())).unwrap();
            return Next::Done;
        }
        if frame.procedure == GIVE {
            let (reader, mut writer) = pipe().unwrap();
            writer.write_all(b"from upstream").unwrap();
            stream
                .send(&frame.reply_with_fds(b"body".to_vec(), vec![reader.into()]))
                .unwrap();
            return Next::Done;
        }
        Next::Standard
    });
    let mut client = RpcClient::opened(&upstream.socket(), "test:///default");

    let pipes = [pipe().unwrap(), pipe().unwrap()];
    let (mut readers, mut writers) = (Vec::new(), Vec::new());
    for (reader, writer) in pipes {
        readers.push(reader);
        writers.push(Arc::new(OwnedFd::from(writer)));
    }
    let call = client.prepare(TAKE, b"xml".to_vec());
    let call = Frame {
        kind: kind::CALL_WITH_FDS,
        fds: writers,
        ..call
    };
    assert_eq!(client.exchange(&call).status, status::OK);
    assert_eq!(upstream.calls(TAKE)[0].fds.len(), 2);
    for (number, reader) in readers.iter_mut().enumerate() {
        let mut byte = [0];
        reader.read_exact(&mut byte).unwrap();
        assert_eq!(byte, number.to_string().as_bytes());
    }

    let answer = client.call(GIVE, Vec::new());
    assert_eq!(
        (answer.kind, answer.body.as_slice()),
        (kind::REPLY_WITH_FDS, &b"body"[..])
    );
    let mut text = String::new();
    File::from(answer.fds[0].try_clone().unwrap())
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "from upstream");

    // A count that lies: two announced, one sent, then a byte without one.
    let lie = Frame {
        fds: call.fds.clone(),
        ..call.clone()
    };
    client.send_bytes(&lie.encode());
    client.send_fd(call.fds[0].as_fd());
    client.send_bytes(&[0]);
    client.expect_closed();
}
