//! Descriptors through the proxy: each arrives once, and none stays.

use std::fs::File;
use std::io::{Read, Write, pipe};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::support::fake_upstream::{FakeUpstream, Next};
use crate::support::guest::guest_xml;
use crate::support::libvirtd::Libvirtd;
use crate::support::proxy::Proxy;
use crate::support::rpc_client::RpcClient;
use crate::support::scripts::DESCRIPTORS;
use crate::support::tool::{python, virsh};
use crate::support::wait::eventually;
use crate::support::wire::{Frame, kind, status};
use crate::support::xdr::Writer;

const DOMAIN_CREATE_XML_WITH_FILES: i32 = 309;
const DOMAIN_OPEN_GRAPHICS_FD: i32 = 343;

#[test]
fn they_reach_a_real_guest_and_come_back_and_leave_nothing_behind() {
    let daemon = Libvirtd::start();
    let proxy = Proxy::before(&daemon.socket());
    let uri = proxy.uri("qemu:///session", "sock");
    let xml = guest_xml(&daemon, "display");
    // Whatever is opened once and kept is open now.
    virsh(&uri, &["list"]).run().ok();
    let before = proxy.process().open_fds();
    let said = python(DESCRIPTORS, &[&uri, xml.to_str().unwrap(), "20"])
        .run()
        .ok();
    assert_eq!(
        said,
        "openGraphicsFD 20\nopenGraphics 20\nqemuMonitorCommandWithFiles 1"
    );
    eventually("the proxy has as many descriptors as before", || {
        proxy.process().open_fds() == before
    });
}

/// A daemon that takes the descriptors of a call and writes its place into each, and gives a pipe
/// with a word in it when asked.
fn pipe_fitter() -> FakeUpstream {
    FakeUpstream::scripted(|stream, frame| match frame.procedure {
        DOMAIN_CREATE_XML_WITH_FILES => {
            for (number, fd) in frame.fds.iter().enumerate() {
                let mut file = File::from(fd.try_clone().unwrap());
                file.write_all(&[u8::try_from(number).unwrap()]).unwrap();
            }
            stream.send(&frame.reply(b"taken".to_vec())).unwrap();
            Next::Done
        }
        DOMAIN_OPEN_GRAPHICS_FD => {
            let (reader, mut writer) = pipe().unwrap();
            writer.write_all(b"from the daemon").unwrap();
            let reply = frame.reply_with_fds(b"given".to_vec(), vec![reader.into()]);
            stream.send(&reply).unwrap();
            Next::Done
        }
        _ => Next::Standard,
    })
}

#[test]
fn as_many_as_a_frame_may_have_pass_in_their_order_among_other_calls() {
    const MOST: usize = 32;
    let upstream = pipe_fitter();
    let proxy = Proxy::before(&upstream.socket());
    let mut client = RpcClient::opened(&proxy.socket(), "test:///default");
    for count in [0, 1, 2, MOST] {
        let (mut readers, mut writers) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let (reader, writer) = pipe().unwrap();
            readers.push(reader);
            writers.push(Arc::new(OwnedFd::from(writer)));
        }
        let plain = client.prepare(200, vec![1; 100]);
        let with_files = Frame {
            kind: kind::CALL_WITH_FDS,
            fds: writers,
            ..client.prepare(
                DOMAIN_CREATE_XML_WITH_FILES,
                Writer::new().string("<domain/>").u32(0).end(),
            )
        };
        let back = client.prepare(DOMAIN_OPEN_GRAPHICS_FD, Vec::new());
        for call in [&plain, &with_files, &back, &plain_again(&mut client)] {
            client.send(call);
        }
        drop(with_files);
        let answers: Vec<Frame> = (0..4).map(|_| client.receive()).collect();
        assert!(answers.iter().all(|answer| answer.status == status::OK));
        assert_eq!(answers[0].body, vec![1; 100]);
        assert_eq!(answers[1].body, b"taken");
        assert_eq!(answers[3].body, b"after");
        for (number, reader) in readers.iter_mut().enumerate() {
            let mut byte = [0xff];
            reader.read_exact(&mut byte).unwrap();
            assert_eq!(usize::from(byte[0]), number);
        }
        assert_eq!(
            (answers[2].kind, answers[2].fds.len()),
            (kind::REPLY_WITH_FDS, 1)
        );
        let mut text = String::new();
        let mut pipe = File::from(answers[2].fds[0].try_clone().unwrap());
        // Its writer is closed in the daemon, so there is an end, unless the proxy keeps a copy.
        pipe.read_to_string(&mut text).unwrap();
        assert_eq!(text, "from the daemon");
    }
}

fn plain_again(client: &mut RpcClient) -> Frame {
    client.prepare(200, b"after".to_vec())
}
