//! Good frames that mean nothing. Wherever `libvirtd` has an answer, the proxy has the same: each
//! script is run against both.

use std::path::PathBuf;

use crate::support::fake_upstream::FakeUpstream;
use crate::support::libvirtd::Libvirtd;
use crate::support::rpc_client::RpcClient;
use crate::support::scene::{Scene, Settings, URI, assert_served};
use crate::support::wire::{Frame, REMOTE, RpcError, kind, procedure, status};
use crate::support::xdr::{Reader, Writer};

/// What came in answer: header and, of an error, what it says.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    header: (u32, u32, i32, i32, u32, i32),
    said: Result<Vec<u8>, RpcError>,
}

impl From<Frame> for Answer {
    fn from(frame: Frame) -> Self {
        Self {
            header: (
                frame.program,
                frame.version,
                frame.procedure,
                frame.kind,
                frame.serial,
                frame.status,
            ),
            said: if frame.status == status::ERROR {
                Err(frame.error())
            } else {
                Ok(frame.body)
            },
        }
    }
}

/// A client's exchanges on a new connection.
type Talk = fn(&mut RpcClient) -> Vec<Answer>;

/// Holds the same talk with `libvirtd` and, through the proxy, with it again; the connection
/// still works afterwards in both cases. Returns the errors.
#[track_caller]
fn same_as_libvirtd(talk: Talk) -> Vec<RpcError> {
    let daemon = Libvirtd::start();
    let scene = Scene::new(&daemon.socket(), &Settings::default());
    let hold = |socket: PathBuf| {
        let mut client = RpcClient::connect(&socket);
        let answers = talk(&mut client);
        assert_eq!(client.auth_list(), [0], "the connection works");
        answers
    };
    let direct = hold(daemon.socket());
    let proxied = hold(scene.socket());
    assert_eq!(proxied, direct);
    scene.expect_no_fds();
    assert!(scene.warnings().is_empty(), "{:#?}", scene.warnings());
    direct
        .into_iter()
        .filter_map(|answer| answer.said.err())
        .collect()
}

fn open(client: &mut RpcClient) {
    client.open(Some(URI), 0).unwrap();
}

#[track_caller]
fn assert_messages(errors: &[RpcError], messages: &[&str]) {
    let said: Vec<_> = errors.iter().map(|error| error.message.as_str()).collect();
    assert_eq!(said, messages);
}

fn exchange(client: &mut RpcClient, change: impl Fn(Frame) -> Frame) -> Answer {
    let call = change(client.prepare(procedure::CONNECT_GET_VERSION, Vec::new()));
    client.exchange(&call).into()
}

#[test]
fn an_unknown_program_has_libvirts_error() {
    let errors = same_as_libvirtd(|client| {
        let ask = |client: &mut RpcClient| {
            [0x1234_5678, 0, u32::MAX, 0x0690_0690]
                .map(|program| exchange(client, |call| Frame { program, ..call }))
        };
        let before = ask(client);
        open(client);
        before.into_iter().chain(ask(client)).collect()
    });
    assert_messages(&errors[..1], &["Cannot find program 305419896 version 1"]);
    assert_eq!(errors.len(), 8);
}

#[test]
fn a_wrong_version_has_libvirts_error() {
    let errors = same_as_libvirtd(|client| {
        let ask = |client: &mut RpcClient| {
            [0, 2, u32::MAX].map(|version| exchange(client, |call| Frame { version, ..call }))
        };
        let before = ask(client);
        open(client);
        before.into_iter().chain(ask(client)).collect()
    });
    assert_eq!(errors[1].message, "Cannot find program 536903814 version 2");
    assert_eq!(errors.len(), 6);
}

#[test]
fn an_unknown_procedure_has_libvirts_error() {
    let errors = same_as_libvirtd(|client| {
        let ask = |client: &mut RpcClient| {
            // The last one is an event's number.
            [9999, 0, -1, i32::MIN, 318]
                .map(|procedure| exchange(client, |call| Frame { procedure, ..call }))
        };
        let before = ask(client);
        open(client);
        before.into_iter().chain(ask(client)).collect()
    });
    assert_messages(
        &errors[..3],
        &[
            "unknown procedure: 9999",
            "unknown procedure: 0",
            "unknown procedure: -1",
        ],
    );
    assert_eq!(errors.len(), 10);
}

#[test]
fn a_call_with_a_status_has_libvirts_error() {
    let errors = same_as_libvirtd(|client| {
        let ask = |client: &mut RpcClient| {
            [1, 2, 7].map(|status| exchange(client, |call| Frame { status, ..call }))
        };
        let before = ask(client);
        open(client);
        before.into_iter().chain(ask(client)).collect()
    });
    assert_messages(
        &errors[..3],
        &[
            "Unexpected message status 1",
            "Unexpected message status 2",
            "Unexpected message status 7",
        ],
    );
    assert_eq!(errors.len(), 6);
}

/// Replies, events, streams that are not there and types that nobody knows are not answered.
#[test]
fn an_unknown_type_is_ignored_as_libvirtd_ignores_it() {
    let errors = same_as_libvirtd(|client| {
        let send_all = |client: &mut RpcClient| {
            for kind in [
                kind::REPLY,
                kind::MESSAGE,
                kind::STREAM,
                kind::STREAM_HOLE,
                7,
                -1,
            ] {
                let call = client.prepare(procedure::CONNECT_GET_VERSION, Vec::new());
                client.send(&Frame { kind, ..call });
            }
        };
        send_all(client);
        let before = client.call(procedure::AUTH_LIST, Vec::new()).into();
        open(client);
        send_all(client);
        vec![before, exchange(client, |call| call)]
    });
    assert_messages(&errors, &[]);
}

#[test]
fn truncated_arguments_have_libvirts_error() {
    let errors = same_as_libvirtd(|client| {
        let body = Writer::new().optional(Some(URI)).u32(0).end();
        let mut answers = Vec::new();
        for cut in [0, 3, 4, 7, 12, body.len() - 1] {
            let call = client.prepare(procedure::CONNECT_OPEN, body[..cut].to_vec());
            answers.push(client.exchange(&call).into());
        }
        open(client);
        // DOMAIN_LOOKUP_BY_NAME and a feature.
        for procedure in [23, procedure::CONNECT_SUPPORTS_FEATURE] {
            let call = client.prepare(procedure, vec![0; 3]);
            answers.push(client.exchange(&call).into());
        }
        answers
    });
    assert_messages(&errors, &["Unable to decode message payload"; 8]);
}

#[test]
fn a_string_longer_than_its_frame_has_libvirts_error() {
    let errors = same_as_libvirtd(|client| {
        let mut answers = Vec::new();
        for claimed in [17, 4096, 4_194_304, 4_194_305, 0x7fff_ffff, u32::MAX] {
            let mut body = Writer::new().u32(1).u32(claimed).end();
            body.extend(b"test:///default\0\0\0\0\0");
            let call = client.prepare(procedure::CONNECT_OPEN, body);
            answers.push(client.exchange(&call).into());
        }
        open(client);
        let call = client.prepare(23, Writer::new().u32(400).u32(0).end());
        answers.push(client.exchange(&call).into());
        answers
    });
    assert_messages(&errors[1..], &["Unable to decode message payload"; 6]);
}

#[test]
fn calls_before_the_open_have_libvirts_error() {
    let errors = same_as_libvirtd(|client| {
        let mut answers = vec![exchange(client, |call| call)];
        for feature in [1, 14] {
            let body = Writer::new().i32(feature).end();
            let call = client.prepare(procedure::CONNECT_SUPPORTS_FEATURE, body);
            answers.push(client.exchange(&call).into());
        }
        // Programs QEMU and LXC too.
        for program in [REMOTE + 1, 0x0006_8000] {
            // A domain, a string and flags, as arguments are read first.
            let domain = Writer::new().string("test").u64(0).u64(0).i32(-1);
            let body = domain.string("").u32(0).end();
            answers.push(exchange(client, |call| Frame {
                program,
                procedure: 1,
                body: body.clone(),
                ..call
            }));
        }
        open(client);
        answers.push(exchange(client, |call| call));
        answers
    });
    assert_messages(
        &errors[..3],
        &["internal error: hypervisor connection not open"; 3],
    );
}

#[test]
fn a_second_open_is_refused_as_libvirtd_refuses_it() {
    let errors = same_as_libvirtd(|client| {
        open(client);
        // The first one may be gone then, which is a fault of the daemon's own.
        let body = Writer::new().optional(Some(URI)).u32(0).end();
        vec![client.call(procedure::CONNECT_OPEN, body).into()]
    });
    assert_messages(&errors, &["internal error: connection already open"]);
    // Through the proxy it goes on.
    let upstream = FakeUpstream::start();
    let scene = Scene::before(&upstream);
    let mut client = scene.opened();
    client.open(Some(URI), 0).unwrap_err();
    assert_served(&mut client);
}

#[test]
fn a_uri_that_nobody_serves_is_refused_as_libvirtd_refuses_it() {
    let errors = same_as_libvirtd(|client| {
        let body = |uri| Writer::new().optional(Some(uri)).u32(0).end();
        let mut answers: Vec<Answer> = ["foo:///bar", "bhyve:///system"]
            .map(|uri| client.call(procedure::CONNECT_OPEN, body(uri)).into())
            .into();
        open(client);
        answers.push(exchange(client, |call| call));
        answers
    });
    assert_messages(
        &errors,
        &[
            "no connection driver available for foo:///bar",
            "no connection driver available for bhyve:///system",
        ],
    );
}

/// Where the proxy differs on purpose: it names the client to the daemon itself, and the way in is
/// authenticated already.
#[test]
fn a_client_cannot_name_itself() {
    let daemon = Libvirtd::start();
    let scene = Scene::new(&daemon.socket(), &Settings::default());
    let mut client = scene.opened();
    let nobody = Writer::new().u32(0).u32(0).end();
    let refused = client.call(procedure::CONNECT_SET_IDENTITY, nobody).error();
    assert_eq!((refused.code, refused.domain), (88, 55));
    let version = client.call(procedure::CONNECT_GET_VERSION, Vec::new());
    assert_eq!(Reader::new(&version.body).u64(), 2);
}
