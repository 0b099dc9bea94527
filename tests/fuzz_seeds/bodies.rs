//! What each fuzz target does with its bytes. The targets in `fuzz/` and the tests over their seeds
//! include this same file.

use virtproxyd::policy::facts::{ClientFacts, UnixFacts};
use virtproxyd::policy::model::Routed;
use virtproxyd::policy::{self, Report};
use virtproxyd::protocol::args::{
    AuthType, ConnectOpen, Feature, SaslStart, decode_sasl_step, decode_word,
};
use virtproxyd::protocol::fault;
use virtproxyd::protocol::frame::{self, Next};
use virtproxyd::protocol::limits::{ERROR_TEXT, FRAME_DESCRIPTORS, FRAME_MAX, FRAME_MIN};
use virtproxyd::protocol::xdr::Writer;

#[path = "content.rs"]
mod content;
#[path = "payload.rs"]
mod payload;
#[path = "session.rs"]
mod session;
pub(crate) use content::content;
pub(crate) use payload::{fields, payload};
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
    if let Ok(start) = SaslStart::decode(bytes) {
        assert!(start.data.is_none_or(|data| data.len() * 4 <= bytes.len()));
    }
    if let Ok(data) = decode_sasl_step(bytes) {
        assert!(data.is_none_or(|data| data.len() * 4 <= bytes.len()));
    }
    if let Ok(text) = fault::message(bytes) {
        // Each byte that is not UTF-8 becomes three.
        assert!(text.len() <= 3 * ERROR_TEXT);
    }
}

/// A policy file. What can be loaded decides on any URI, its own lines included, and explains the
/// same decision; what cannot is answered with a report that can be shown.
pub(crate) fn policy_text(bytes: &[u8]) {
    let name = "routes.yaml";
    let text = match policy::decode(name, bytes) {
        Ok(text) => text,
        Err(report) => return shows(&report),
    };
    let loaded = match policy::load(name, text, &|_| None) {
        Ok(loaded) => loaded,
        Err(report) => return shows(&report),
    };
    assert_eq!(loaded.warnings.errors(), 0);
    _ = (
        loaded.warnings.render_human(false),
        loaded.warnings.to_json(),
    );
    let policy = loaded.policy;
    let listener = policy
        .listeners
        .first()
        .map(|listener| listener.name.clone());
    let facts = ClientFacts {
        listener: listener.unwrap_or_default(),
        unix: Some(UnixFacts {
            user: Some("root".into()),
            ..UnixFacts::default()
        }),
        ..ClientFacts::default()
    };
    for uri in ["", "qemu:///system", "test:///default?host=a"]
        .into_iter()
        .chain(text.lines())
    {
        if let Routed::Try(targets) = policy.route(&facts, uri) {
            assert!(!targets.is_empty(), "{uri:?}");
            for target in targets {
                // Those of templates have the value behind the name.
                let is_made = target.upstream.name.contains('/');
                assert!(is_made || policy.upstreams.contains(&target.upstream));
            }
        }
        _ = policy.explain(&facts, uri);
    }
}

/// The report names at least one error, and every form of it can be made.
fn shows(report: &Report) {
    assert!(report.errors() > 0);
    assert!(!report.render_human(false).is_empty() && !report.render_human(true).is_empty());
    assert!(!report.one_line().contains(char::is_control));
    assert!(!report.to_json().is_null());
}
