//! What each fuzz target does with its bytes. The targets in `fuzz/` and the tests over their seeds
//! include this same file.

use virtproxyd::protocol::args::{AuthType, ConnectOpen, Feature, decode_word};
use virtproxyd::protocol::fault;
use virtproxyd::protocol::frame::{self, Next};
use virtproxyd::protocol::limits::{ERROR_TEXT, FRAME_DESCRIPTORS, FRAME_MAX, FRAME_MIN};
use virtproxyd::protocol::xdr::Writer;

#[path = "session.rs"]
mod session;
pub(crate) use session::session;

/// Frames out of a byte stream, in whole and byte by byte: both readings must agree, and no frame
/// may reach past the bytes that are there.
pub(crate) fn frame_reader(bytes: &[u8]) {
    for cap in [FRAME_MIN, 64, FRAME_MAX] {
        let mut rest = bytes;
        loop {
            let taken = match frame::next(rest, cap) {
                Err(_) => break,
                Ok(Next::Incomplete(incomplete)) => {
                    assert!(incomplete.need > rest.len());
                    assert!(incomplete.need <= cap + FRAME_DESCRIPTORS);
                    assert!(incomplete.descriptors <= FRAME_DESCRIPTORS);
                    break;
                }
                Ok(Next::Frame(frame)) => {
                    assert!((FRAME_MIN..=cap).contains(&frame.len()));
                    assert!(frame.descriptors <= FRAME_DESCRIPTORS);
                    assert!(frame.arguments().len() <= frame.payload.len());
                    let mut again = Vec::new();
                    frame::write(&mut again, frame.header, |writer| writer.raw(frame.payload));
                    assert_eq!(again, rest[..frame.len()], "written as it was read");
                    never_early(&rest[..frame.wire_len()], cap);
                    frame.wire_len()
                }
            };
            rest = &rest[taken..];
        }
    }
}

/// No shorter piece of a whole frame is a frame or an error, and each says truly what it lacks.
fn never_early(whole: &[u8], cap: usize) {
    let step = 1 + whole.len() / 64;
    for have in (0..whole.len()).step_by(step) {
        match frame::next(&whole[..have], cap) {
            Ok(Next::Incomplete(incomplete)) => {
                assert!(incomplete.need > have && incomplete.need <= whole.len());
            }
            other => panic!("{other:?} out of {have} of {} bytes", whole.len()),
        }
    }
}

/// Every payload that the proxy reads. What can be read can be written, and reads the same again.
pub(crate) fn xdr_args(bytes: &[u8]) {
    if let Ok(open) = ConnectOpen::decode(bytes) {
        let mut again = Vec::new();
        open.encode(&mut Writer::new(&mut again));
        assert_eq!(ConnectOpen::decode(&again), Ok(open));
        assert!(open.name.is_none_or(|name| !name.contains('\0')));
    }
    if let Ok(Feature(feature)) = Feature::decode(bytes) {
        assert_eq!(feature.to_be_bytes(), bytes);
    }
    if let Ok(word) = decode_word(bytes) {
        assert_eq!(word.to_be_bytes(), bytes);
    }
    if let Ok(auth) = AuthType::decode_list(bytes) {
        let mut again = Vec::new();
        auth.encode_list(&mut Writer::new(&mut again));
        assert_eq!(AuthType::decode_list(&again), Ok(auth));
    }
    if let Ok(text) = fault::message(bytes) {
        // Each byte that is not UTF-8 becomes three.
        assert!(text.len() <= 3 * ERROR_TEXT);
    }
}
