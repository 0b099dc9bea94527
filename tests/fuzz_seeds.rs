//! The fuzz targets' bodies over the committed seeds, and over bytes at random.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected must fail"
)]

use std::fs;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, any, prop_oneof, proptest};

#[path = "fuzz_seeds/bodies.rs"]
mod bodies;
#[allow(dead_code, reason = "the marks are for tests that break samples")]
#[path = "payloads/sample.rs"]
mod sample;

fn over_seeds(target: &str, body: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut seeds = 0;
    for entry in fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        body(&fs::read(path).unwrap());
        seeds += 1;
    }
    assert!(seeds >= 5, "{seeds} seeds in {}", directory.display());
}

#[test]
fn frame_reader() {
    over_seeds("frame_reader", bodies::frame_reader);
}

#[test]
fn xdr_args() {
    over_seeds("xdr_args", bodies::xdr_args);
}

#[test]
fn payload() {
    over_seeds("payload", bodies::payload);
}

#[test]
fn session() {
    over_seeds("session", bodies::session);
}

#[test]
fn content() {
    over_seeds("content", bodies::content);
}

#[test]
fn policy_text() {
    over_seeds("policy_text", bodies::policy_text);
}

/// The bytes that lead to an open connection with keepalive and descriptors.
const OPENED: [u8; 31] = [
    1, 0, 0, 0, 0, 0, 0, 1, // read-write; keepalive of both sides; identities; descriptors
    0, 0, 0, 0, // the client's CONNECT_OPEN
    5, 1, 1, // the daemon accepts
    5, 1, 0, 0, // AUTH_LIST: none
    5, 1, 0, 0, // CONNECT_SUPPORTS_FEATURE: yes
    5, 1, 0, 0, // CONNECT_OPEN: good
    5, 1, 0, 0, // CONNECT_SET_IDENTITY: good
];

/// The same with daemons for networks and storage; all are dialled again.
const SEVERAL: u8 = 1 + 32 + 64;

/// What documents are made of at random.
const PIECES: [&str; 40] = [
    "<name>",
    "</name>",
    "<name>b</name>",
    "<uuid>",
    "</uuid>",
    "<metadata>",
    "</metadata>",
    "<metadata/>",
    "<metadata a='/>'>",
    "<metadata\n/>",
    "<!--",
    "-->",
    "<![CDATA[",
    "]]>",
    "&#10;",
    "&amp;",
    "&x;",
    "\r\n",
    "\r",
    " ",
    "'",
    "\"",
    ">",
    "<",
    "a",
    "/etc/x",
    "/srv/acme/x",
    "<v:owner xmlns:v='https://virtproxyd.org/xmlns/owner/1'>",
    "</v:owner>",
    "<n:i xmlns:n='urn:nova'>",
    "</n:i>",
    "<owner><project uuid='a'/></owner>",
    "<devices>",
    "</devices>",
    "<disk>",
    "</disk>",
    "<source file='/srv/acme/x'/>",
    "<source dev='/dev/sda'/>",
    " xmlns:x='urn:x'",
    " x:file='a'",
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_session_keeps_its_promises_whatever_happens(bytes in vec(any::<u8>(), 0..400)) {
        bodies::session(&bytes);
    }

    #[test]
    fn an_open_session_keeps_its_promises_whatever_happens(bytes in vec(any::<u8>(), 0..400)) {
        bodies::session(&[&OPENED[..], &bytes].concat());
    }

    #[test]
    fn several_daemons_keep_their_promises_whatever_happens(
        // Small numbers name all that can be done.
        bytes in vec(prop_oneof![6 => 0..21_u8, 1 => any::<u8>()], 0..600),
    ) {
        let mut opened = OPENED;
        opened[7] = SEVERAL;
        bodies::session(&[&opened[..], &bytes].concat());
    }

    #[test]
    fn any_bytes_are_frames_or_an_error(bytes in vec(any::<u8>(), 0..200)) {
        bodies::frame_reader(&bytes);
    }

    #[test]
    fn any_arguments_are_checked_or_refused(bytes in vec(any::<u8>(), 0..200)) {
        bodies::content(&bytes);
    }

    #[test]
    fn any_document_is_checked_or_refused(
        pieces in vec(proptest::sample::select(&PIECES[..]), 0..12),
    ) {
        let inner = pieces.concat();
        bodies::content(format!("<domain><name>a</name>{inner}</domain>").as_bytes());
        bodies::content(format!("<domain><name>{inner}</name></domain>").as_bytes());
        bodies::content(format!("<domain {inner}><name>a</name></domain>").as_bytes());
    }

    #[test]
    fn any_payload_is_read_or_refused(bytes in vec(any::<u8>(), 0..200)) {
        bodies::xdr_args(&bytes);
    }

    #[test]
    fn any_payload_of_any_shape_is_read_or_refused(bytes in vec(any::<u8>(), 0..200)) {
        bodies::payload(&bytes);
    }

    #[test]
    fn a_payload_with_odd_words_is_read_or_refused(
        number: u16,
        odd in vec((any::<proptest::sample::Index>(), 0..4_usize, any::<u8>()), 0..4),
    ) {
        let sample = sample::Sample::of(bodies::fields(number), sample::Fill::Filled);
        let mut bytes = [&number.to_be_bytes()[..], &sample.bytes].concat();
        for (word, place, byte) in odd {
            let words = sample.bytes.len() / 4;
            if words > 0 {
                bytes[2 + word.index(words) * 4 + place] = byte;
            }
        }
        bodies::payload(&bytes);
    }
}
