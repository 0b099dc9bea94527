//! Bytes under way while one side is slow: order, fairness, and memory.

use std::io::{Read, Write, pipe};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::fake_upstream::{FakeUpstream, Next};
use crate::support::scene::{Scene, Settings, assert_served, daemon_with, send_until_stuck};
use crate::support::wire::{Frame, KEEPALIVE, kind, procedure, status};
use crate::support::xdr::Writer;

const VOL_DOWNLOAD: i32 = 209;
/// A plain call that the scripts answer with a descriptor.
const GIVE: i32 = 343;

fn ping() -> Frame {
    Frame {
        program: KEEPALIVE,
        ..Frame::event(1, Vec::new())
    }
}

/// Every answer of the proxy's own comes, however late the client reads the first.
#[test]
fn a_client_that_reads_late_is_read_again() {
    const CALLS: usize = 60_000;
    let upstream = FakeUpstream::start();
    let scene = Scene::before(&upstream);
    let client = scene.connected();
    let calls: Vec<u8> = (0..CALLS)
        .flat_map(|serial| Frame::call(procedure::AUTH_LIST, serial as u32, Vec::new()).encode())
        .collect();
    let socket = client.stream().socket();
    let sent = send_until_stuck(socket, &calls, calls.len());
    assert!(sent < calls.len(), "the proxy read on without being heard");
    let mut writer = socket.try_clone().unwrap();
    let rest = calls[sent..].to_vec();
    let sender = thread::spawn(move || writer.write_all(&rest).unwrap());
    for serial in 0..CALLS {
        assert_eq!(client.receive().serial as usize, serial);
    }
    sender.join().unwrap();
}

/// What the proxy owes a client is freed as the client reads it, not when it has read all of it.
#[test]
fn a_client_that_always_lags_behind_costs_no_more_with_time() {
    const LAG: usize = 3_000;
    const BATCH: usize = 500;
    const BATCHES: usize = 1_000;
    let upstream = FakeUpstream::start();
    let scene = Scene::before(&upstream);
    let client = scene.connected();
    let call = Frame::call(9999, 7, Vec::new());
    let answer = client.exchange(&call).encode();
    let socket = client.stream().socket();
    let calls = call.encode().repeat(BATCH);
    let mut answers = vec![0; answer.len() * BATCH];
    (&*socket).write_all(&call.encode().repeat(LAG)).unwrap();
    let round = |answers: &mut [u8]| {
        (&*socket).write_all(&calls).unwrap();
        (&*socket).read_exact(answers).unwrap();
    };
    round(&mut answers);
    let before = scene.process().rss_kib();
    for _ in 0..BATCHES {
        round(&mut answers);
    }
    assert_eq!(answers, answer.repeat(BATCH));
    let grown = scene.process().rss_kib().saturating_sub(before);
    let passed = answers.len() * BATCHES / 1024;
    assert!(
        passed > 60 * 1024 && grown < 16 * 1024,
        "{grown} KiB after {passed}"
    );
}

/// The proxy's answer to a daemon's ping finds its way between the frames of an endless upload.
#[test]
fn a_pong_does_not_wait_for_the_end_of_an_upload() {
    const FRAMES: usize = 1024;
    let (taken, ponged_at) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let upstream = FakeUpstream::scripted({
        let (taken, ponged_at) = (Arc::clone(&taken), Arc::clone(&ponged_at));
        move |stream, frame| {
            match (frame.program, frame.procedure, frame.kind) {
                (KEEPALIVE, 2, _) => {
                    ponged_at.store(taken.load(Ordering::SeqCst), Ordering::SeqCst);
                }
                (_, procedure::STORAGE_VOL_UPLOAD, kind::CALL) => {
                    stream.send(&frame.reply(Vec::new())).unwrap();
                }
                (_, procedure::STORAGE_VOL_UPLOAD, kind::STREAM) => {
                    if frame.status == status::OK {
                        stream.send(&frame.stream(status::OK, Vec::new())).unwrap();
                    }
                    if taken.fetch_add(1, Ordering::SeqCst) == 16 {
                        stream.send(&ping()).unwrap();
                    }
                    // Slower than the client, so that there is always something to relay.
                    thread::sleep(Duration::from_millis(2));
                }
                _ => return Next::Standard,
            }
            Next::Done
        }
    });
    let scene = Scene::before(&upstream);
    let mut client = scene.opened();
    let call = client.prepare(procedure::STORAGE_VOL_UPLOAD, Vec::new());
    client.exchange(&call);
    for _ in 0..FRAMES {
        client.send(&call.stream(status::CONTINUE, vec![7; 65_536]));
    }
    client.exchange(&call.stream(status::OK, Vec::new()));
    let ponged_at = ponged_at.load(Ordering::SeqCst);
    assert!(
        (16..FRAMES / 4).contains(&ponged_at),
        "ponged after {ponged_at} of {FRAMES} frames"
    );
}

/// The same towards the client: an answer of the proxy's own during a download that the client
/// takes slowly.
#[test]
fn an_own_answer_does_not_wait_for_the_end_of_a_download() {
    const FRAMES: usize = 1024;
    let upstream = daemon_with(VOL_DOWNLOAD, |stream, call| {
        if call.kind == kind::CALL {
            stream.send(&call.reply(Vec::new())).unwrap();
            let data = call.stream(status::CONTINUE, vec![7; 65_536]);
            // The client goes before all of it has been sent.
            let _gone = (0..FRAMES).try_for_each(|_| stream.send(&data));
        }
        Next::Done
    });
    let scene = Scene::before(&upstream);
    let mut client = scene.opened();
    let call = client.prepare(VOL_DOWNLOAD, Vec::new());
    client.exchange(&call);
    client.send(&ping());
    let mut data = 0;
    while client.receive().program != KEEPALIVE {
        data += 1;
        // Slower than the daemon, so that there is always something to relay.
        thread::sleep(Duration::from_millis(2));
    }
    assert!(
        data < FRAMES / 4,
        "the pong came after {data} of {FRAMES} frames"
    );
}

/// A daemon that dies is not overtaken by the news of it.
#[test]
fn what_a_daemon_said_before_its_death_comes_before_the_abort() {
    let upstream = FakeUpstream::scripted(|stream, frame| {
        if frame.kind != kind::CALL {
            return Next::Standard;
        }
        match frame.procedure {
            VOL_DOWNLOAD => {
                stream.send(&frame.reply(Vec::new())).unwrap();
                Next::Done
            }
            GIVE => {
                let download = Frame::call(VOL_DOWNLOAD, frame.serial - 1, Vec::new());
                let data = |byte| download.stream(status::CONTINUE, vec![byte; 100_000]);
                for byte in 0..5 {
                    stream.send(&data(byte)).unwrap();
                }
                let (reader, _writer) = pipe().unwrap();
                stream
                    .send(&frame.reply_with_fds(Vec::new(), vec![reader.into()]))
                    .unwrap();
                stream.send(&data(5)).unwrap();
                Next::Close
            }
            _ => Next::Standard,
        }
    });
    let scene = Scene::before(&upstream);
    let mut client = scene.opened();
    let download = client.prepare(VOL_DOWNLOAD, Vec::new());
    client.exchange(&download);
    let give = client.prepare(GIVE, Vec::new());
    client.send(&give);
    // The client reads nothing until the proxy knows that the daemon has gone.
    scene.process().stderr().wait_for("upstream lost");
    let frames = client.drain();
    let seen: Vec<_> = frames
        .iter()
        .map(|frame| (frame.procedure, frame.status, frame.body.first().copied()))
        .collect();
    let data = |byte| (VOL_DOWNLOAD, status::CONTINUE, Some(byte));
    let abort = (VOL_DOWNLOAD, status::ERROR, Some(0));
    let answer = (GIVE, status::OK, None);
    assert_eq!(
        seen,
        [
            data(0),
            data(1),
            data(2),
            data(3),
            data(4),
            answer,
            data(5),
            abort
        ]
    );
    assert_eq!(frames[5].fds.len(), 1);
}

/// A length is a claim; memory is for what has come.
#[test]
fn a_claimed_length_costs_no_memory() {
    const CLIENTS: usize = 8;
    let upstream = FakeUpstream::start();
    let scene = Scene::before(&upstream);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| scene.opened()).collect();
    let before = scene.process().rss_kib();
    let mut frame = Frame::call(100, 9, vec![1; 40_000]).encode();
    frame[..4].copy_from_slice(&33_554_436_u32.to_be_bytes());
    for client in &clients {
        client.send_bytes(&frame);
    }
    scene.wait_until_quiet();
    assert_served(&mut scene.opened());
    let grown = scene.process().rss_kib().saturating_sub(before);
    assert!(grown < 32 * 1024, "{grown} KiB for {CLIENTS} half frames");
    // The claim made good: the call is answered.
    let mut left = 33_554_436 - frame.len();
    let client = clients.pop().unwrap();
    let rest = vec![1; 1 << 20];
    let socket = client.stream().try_clone().unwrap();
    let sender = thread::spawn(move || {
        while left > 0 {
            let part = left.min(rest.len());
            socket.send_bytes(&rest[..part]).unwrap();
            left -= part;
        }
    });
    assert_eq!(client.receive().body.len(), 33_554_408);
    sender.join().unwrap();
}

/// Descriptors that wait are bounded like bytes that wait.
#[test]
fn descriptors_that_wait_are_few() {
    let upstream = FakeUpstream::scripted(|_, frame| {
        if frame.procedure == procedure::AUTH_LIST {
            Next::StopReading
        } else {
            Next::Standard
        }
    });
    let patient = Settings {
        upstream: "connect_timeout: 1h, keepalive: { interval: never }",
        ..Settings::default()
    };
    let scene = Scene::new(&upstream.socket(), &patient);
    let client = scene.connected();
    let open = Writer::new().optional(Some("test:///default")).u32(0).end();
    client.send(&Frame::call(procedure::CONNECT_OPEN, 0, open));
    let fd = Arc::new(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
    let socket = client.stream().try_clone().unwrap();
    socket
        .socket()
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let full = (1..500)
        .map(|serial| with_fds(serial, &fd, 32))
        .try_for_each(|call| socket.send(&call));
    assert!(full.is_err(), "the proxy took 16,000 descriptors");
    let held = scene.more_fds();
    assert!(held < 128, "{held} descriptors");
    // That it has left is noticed although nobody reads what it sent.
    drop((client, socket));
    scene.expect_no_fds();
}

fn with_fds(serial: u32, fd: &Arc<OwnedFd>, count: usize) -> Frame {
    Frame {
        kind: kind::CALL_WITH_FDS,
        fds: vec![Arc::clone(fd); count],
        ..Frame::call(100, serial, Vec::new())
    }
}

/// Nothing that waits uses the processor.
#[test]
fn clients_and_daemons_that_wait_use_no_processor_time() {
    /// Never answered.
    const NEVER: i32 = 101;
    /// After it the daemon reads no more.
    const DEAF: i32 = 102;
    let upstream = FakeUpstream::scripted(|_, frame| match frame.procedure {
        NEVER => Next::Done,
        DEAF => Next::StopReading,
        _ => Next::Standard,
    });
    let scene = Scene::before(&upstream);
    let silent = scene.connected();
    let idle = scene.opened();
    let mut half_closed = scene.opened();
    let call = half_closed.prepare(NEVER, Vec::new());
    half_closed.send(&call);
    half_closed
        .stream()
        .socket()
        .shutdown(std::net::Shutdown::Write)
        .unwrap();
    let half_frame = scene.opened();
    half_frame.send_bytes(&Frame::call(100, 9, vec![0; 64]).encode()[..40]);
    // Calls beyond the number that may be outstanding.
    let held = scene.opened();
    let mut serials = 10..;
    let calls: Vec<u8> = serials
        .by_ref()
        .take(3_000)
        .flat_map(|serial| Frame::call(NEVER, serial, Vec::new()).encode())
        .collect();
    send_until_stuck(held.stream().socket(), &calls, calls.len());
    // Answers that are never read, of the daemon and of the proxy.
    let unheard = scene.opened();
    let calls: Vec<u8> = serials
        .by_ref()
        .take(1_000)
        .flat_map(|serial| Frame::call(100, serial, vec![0; 65_536]).encode())
        .collect();
    send_until_stuck(unheard.stream().socket(), &calls, calls.len());
    let unheard_too = scene.connected();
    let calls = Frame::call(9999, 1, Vec::new()).encode().repeat(10_000);
    send_until_stuck(unheard_too.stream().socket(), &calls, calls.len());
    // Calls that the daemon does not read.
    let mut blocked = scene.opened();
    let call = blocked.prepare(DEAF, Vec::new());
    blocked.send(&call);
    let calls: Vec<u8> = serials
        .by_ref()
        .take(1_000)
        .flat_map(|serial| Frame::call(100, serial, vec![0; 65_536]).encode())
        .collect();
    send_until_stuck(blocked.stream().socket(), &calls, calls.len());
    scene.assert_idle();
    // And nobody else waits for them.
    assert_served(&mut scene.opened());
    drop((
        silent,
        idle,
        half_closed,
        half_frame,
        held,
        unheard,
        unheard_too,
        blocked,
    ));
}
