//! Frames that cannot be, before the connection is open and after. `libvirtd` closes without a word
//! in each of these cases, and so does the proxy.

use crate::support::fake_upstream::FakeUpstream;
use crate::support::libvirtd::Libvirtd;
use crate::support::rpc_client::RpcClient;
use crate::support::scene::Scene;
use crate::support::wire::Frame;

/// The proxy's warning.
const WARNING: &str = "the client broke the protocol";

fn length(word: u32) -> Vec<u8> {
    let mut bytes = Frame::call(1, 1, vec![0; 64]).encode();
    bytes[..4].copy_from_slice(&word.to_be_bytes());
    bytes
}

/// The bytes end their connection, opened or not, without an answer, with one line in the log.
#[track_caller]
fn closes(bytes: &[u8]) {
    let upstream = FakeUpstream::start();
    let scene = Scene::before(&upstream);
    for client in [Scene::connected, Scene::opened] {
        scene.costs_nobody_else(&[WARNING], |scene| {
            let client = client(scene);
            client.send_bytes(bytes);
            client.expect_closed();
        });
    }
}

/// `libvirtd` does the same.
#[track_caller]
fn closes_as_libvirtd_does(bytes: &[u8]) {
    let daemon = Libvirtd::start();
    let client = RpcClient::connect(&daemon.socket());
    client.send_bytes(bytes);
    // It waits for as many bytes as were announced, if it can.
    client
        .stream()
        .socket()
        .shutdown(std::net::Shutdown::Write)
        .unwrap();
    client.expect_closed();
    closes(bytes);
}

#[test]
fn a_length_of_0_closes() {
    closes_as_libvirtd_does(&length(0));
}

#[test]
fn a_length_that_covers_only_itself_closes() {
    closes_as_libvirtd_does(&length(4));
}

#[test]
fn a_length_one_short_of_the_header_closes() {
    closes_as_libvirtd_does(&length(27));
}

#[test]
fn a_length_one_over_the_limit_closes() {
    closes_as_libvirtd_does(&length(33_554_437));
}

#[test]
fn a_negative_length_closes() {
    closes_as_libvirtd_does(&length(0x8000_0000));
    closes(&length(u32::MAX));
}

/// Before the connection is open nothing long is to be said.
#[test]
fn a_long_frame_before_the_open_closes() {
    let upstream = FakeUpstream::start();
    let scene = Scene::before(&upstream);
    scene.costs_nobody_else(&[WARNING], |scene| {
        let client = scene.connected();
        client.send_bytes(&length(65_537));
        client.expect_closed();
    });
}

#[test]
fn garbage_closes() {
    closes(&[0xff; 4096]);
    closes(b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: none\r\n\r\n");
}

/// A good call before the garbage is lost with it, as nobody can tell where the next one begins;
/// what was answered before that is not.
#[test]
fn garbage_after_good_calls_closes() {
    let upstream = FakeUpstream::start();
    let scene = Scene::before(&upstream);
    scene.costs_nobody_else(&[WARNING], |scene| {
        let mut client = scene.opened();
        crate::support::scene::assert_served(&mut client);
        client.send_bytes(&[0xff; 28]);
        client.expect_closed();
    });
}

/// Half a frame and no more: nothing is said, as `libvirtd` says nothing.
#[test]
fn half_a_frame_and_an_end_closes() {
    let upstream = FakeUpstream::start();
    let scene = Scene::before(&upstream);
    for cut in [1, 3, 4, 27, 40] {
        scene.costs_nobody_else(&[], |scene| {
            let client = scene.opened();
            client.send_bytes(&Frame::call(100, 9, vec![0; 64]).encode()[..cut]);
            client
                .stream()
                .socket()
                .shutdown(std::net::Shutdown::Write)
                .unwrap();
            client.expect_closed();
        });
    }
}
