//! Every payload of every procedure, read by its shape: made minimal and filled, then broken in
//! every way that a hostile peer could think of.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected must fail"
)]

#[path = "payloads/filter.rs"]
mod filter;
#[path = "payloads/sample.rs"]
mod sample;

use allocation_counter::measure;
use sample::{Fill, Mark, Sample};
use virtproxyd::protocol::header::Program;
use virtproxyd::protocol::object::Class;
use virtproxyd::protocol::payload::Payload;
use virtproxyd::protocol::shape::{Field, types};
use virtproxyd::protocol::table;
use virtproxyd::protocol::xdr::{Writer, XdrError};

const PROGRAMS: [Program; 5] = [
    Program::REMOTE,
    Program::QEMU,
    Program::LXC,
    Program::ADMIN,
    Program::KEEPALIVE,
];

/// Arguments and replies of every procedure, and the error.
fn payloads() -> Vec<(String, &'static [Field])> {
    let mut all: Vec<_> = PROGRAMS
        .into_iter()
        .flat_map(|program| {
            table::rows(program).iter().flat_map(move |row| {
                [("args", row.args), ("ret", row.ret)]
                    .map(|(part, fields)| (format!("{program:?}.{} {part}", row.name), fields))
            })
        })
        .collect();
    assert_eq!(all.len(), 2 * 483);
    all.push(("error".into(), types::ERROR.fields));
    all
}

/// Every payload, minimal and filled.
fn samples() -> impl Iterator<Item = (String, &'static [Field], Sample)> {
    payloads().into_iter().flat_map(|(name, fields)| {
        [Fill::Minimal, Fill::Filled].map(|fill| {
            let sample = Sample::of(fields, fill);
            (format!("{name} {fill:?}"), fields, sample)
        })
    })
}

/// The sample with other bytes at a place.
fn with(sample: &Sample, start: usize, bytes: &[u8]) -> Vec<u8> {
    let mut broken = sample.bytes.clone();
    broken[start..start + bytes.len()].copy_from_slice(bytes);
    broken
}

fn error(fields: &'static [Field], bytes: &[u8]) -> XdrError {
    let strict = Payload::read(fields, bytes).expect_err("it is broken");
    // Only the text of strings is read more kindly from a daemon.
    if !matches!(strict, XdrError::NotText) {
        assert_eq!(Payload::read_from_daemon(fields, bytes).err(), Some(strict));
    }
    strict
}

#[test]
fn every_payload_is_read_whole() {
    for (name, fields, sample) in samples() {
        let payload = Payload::read(fields, &sample.bytes).expect(&name);
        assert_eq!(payload.bytes(), sample.bytes, "{name}");
        // The fields lie side by side from the first byte to the last.
        let mut end = 0;
        for field in fields {
            let range = payload.range(field.name).expect(&name);
            assert_eq!(range.start, end, "{name} {}", field.name);
            end = range.end;
        }
        assert_eq!(end, sample.bytes.len(), "{name}");
        assert_eq!(payload.range("no such field"), None);
    }
}

#[test]
fn every_object_is_found_in_its_place() {
    let mut seen = 0;
    for (name, fields, sample) in samples() {
        let payload = Payload::read(fields, &sample.bytes).expect(&name);
        let mut found: Vec<_> = payload
            .objects()
            .map(|found| {
                let mut bytes = Vec::new();
                found.object.encode(&mut Writer::new(&mut bytes));
                assert_eq!(bytes, sample.bytes[found.range.clone()], "{name}");
                let field = payload.range(found.field).unwrap();
                assert!(field.start <= found.range.start && found.range.end <= field.end);
                (Mark::Object(found.object.class()), found.range)
            })
            .collect();
        // A sample marks an object once it ends; a port's network before the port.
        found.sort_by_key(|(_, range)| (range.end, range.len()));
        let is_object = |mark: &Mark| matches!(mark, Mark::Object(_));
        let expected: Vec<_> = sample
            .marks
            .iter()
            .filter(|(mark, _)| is_object(mark))
            .cloned()
            .collect();
        assert_eq!(found, expected, "{name}");
        seen += found.len();
    }
    assert!(seen > 500, "{seen} objects");
}

#[test]
fn elements_of_an_array_have_their_index() {
    let row = |procedure| table::lookup(Program::REMOTE, procedure).unwrap();
    let ports = row(table::remote::NETWORK_LIST_ALL_PORTS).ret;
    let sample = Sample::of(ports, Fill::Filled);
    let payload = Payload::read(ports, &sample.bytes).unwrap();
    let places: Vec<_> = payload
        .objects()
        .map(|found| (found.field, found.object.class(), found.index))
        .collect();
    let expected = [
        ("ports", Class::NetworkPort, Some(0)),
        ("ports", Class::Network, Some(0)),
        ("ports", Class::NetworkPort, Some(1)),
        ("ports", Class::Network, Some(1)),
    ];
    assert_eq!(places, expected);
    let stats = row(table::remote::CONNECT_GET_ALL_DOMAIN_STATS);
    let sample = Sample::of(stats.args, Fill::Filled);
    let payload = Payload::read(stats.args, &sample.bytes).unwrap();
    let indices: Vec<_> = payload.objects().map(|found| found.index).collect();
    assert_eq!(indices, [Some(0), Some(1)]);
    let create = row(table::remote::DOMAIN_CREATE).args;
    let sample = Sample::of(create, Fill::Minimal);
    let payload = Payload::read(create, &sample.bytes).unwrap();
    assert_eq!(payload.objects().next().unwrap().index, None);
}

#[test]
fn every_cut_is_noticed() {
    for (name, fields, sample) in samples() {
        for end in 0..sample.bytes.len() {
            assert_eq!(
                error(fields, &sample.bytes[..end]),
                XdrError::Truncated,
                "{name} at {end}"
            );
        }
    }
}

#[test]
fn leftovers_are_refused() {
    for (_, fields, sample) in samples() {
        for extra in [1, 4] {
            let longer = [&sample.bytes[..], &vec![0; extra]].concat();
            assert_eq!(error(fields, &longer), XdrError::Trailing(extra));
        }
    }
}

#[test]
fn an_optional_is_there_or_not() {
    let mut seen = 0;
    for (name, fields, sample) in samples() {
        for place in sample.places(|mark| *mark == Mark::Optional) {
            for odd in [2, 0x100, 0x0100_0000, u32::MAX] {
                let broken = with(&sample, place.start, &odd.to_be_bytes());
                assert_eq!(error(fields, &broken), XdrError::NotBoolean(odd), "{name}");
                seen += 1;
            }
        }
    }
    assert!(seen > 500, "{seen}");
}

#[test]
fn lengths_are_bounded_and_cost_nothing_whatever_they_say() {
    let mut seen = 0;
    for (name, fields, sample) in samples() {
        for (mark, place) in &sample.marks {
            let Mark::Length(bound) = *mark else { continue };
            let bound_word = u32::try_from(bound).unwrap();
            for length in [bound_word + 1, i32::MAX.cast_unsigned(), u32::MAX] {
                let broken = with(&sample, place.start, &length.to_be_bytes());
                let expected = XdrError::TooLong { length, cap: bound };
                assert_eq!(error(fields, &broken), expected, "{name}");
            }
            // As many as are allowed, but they are not there.
            let broken = with(&sample, place.start, &bound_word.to_be_bytes());
            let mut read = Ok(());
            let cost = measure(|| read = Payload::read(fields, &broken).map(drop));
            assert!(read.is_err(), "{name}");
            assert_eq!(cost.count_total, 0, "{name}");
            seen += 1;
        }
    }
    assert!(seen > 1000, "{seen}");
}

#[test]
fn arrays_of_arrays_end_with_the_bytes() {
    // 16,384 records of 262,144 parameters each, as far as the counts go.
    let stats = table::lookup(Program::REMOTE, table::remote::CONNECT_GET_ALL_DOMAIN_STATS);
    let fields = stats.unwrap().ret;
    let mut bytes = 16_384_u32.to_be_bytes().to_vec();
    for _ in 0..1000 {
        bytes.extend([0; 4 + 16 + 4]);
        bytes.extend(262_144_u32.to_be_bytes());
    }
    let mut read = Ok(());
    let cost = measure(|| read = Payload::read(fields, &bytes).map(drop));
    assert!(read.is_err());
    assert_eq!(cost.count_total, 0);
}

#[test]
fn reading_allocates_nothing() {
    for (name, fields, sample) in samples() {
        let mut objects = 0;
        let cost = measure(|| {
            let payload = Payload::read(fields, &sample.bytes).unwrap();
            objects = payload.objects().count();
            for field in fields {
                std::hint::black_box((payload.word(field.name), payload.text(field.name)));
                payload.texts(field.name).for_each(drop);
                payload.params(field.name).for_each(drop);
            }
        });
        assert_eq!(cost.count_total, 0, "{name} with {objects} objects");
    }
}

#[test]
fn strings_are_text() {
    let mut seen = 0;
    for (name, fields, sample) in samples() {
        for place in sample.places(|mark| *mark == Mark::Text) {
            for odd in [0, 0xff] {
                let broken = with(&sample, place.start, &[odd]);
                assert_eq!(error(fields, &broken), XdrError::NotText, "{name}");
                let payload = Payload::read_from_daemon(fields, &broken).expect(&name);
                // Whatever holds the string is not there, and the rest is.
                let whole = Payload::read(fields, &sample.bytes).unwrap();
                for field in fields {
                    let hit = payload.range(field.name).unwrap().contains(&place.start);
                    let texts = payload.texts(field.name).count();
                    let params = payload.params(field.name).count();
                    if hit {
                        assert_eq!(payload.text(field.name), None);
                        assert_eq!(texts, whole.texts(field.name).count().saturating_sub(1));
                        assert_eq!(params, whole.params(field.name).count().saturating_sub(1));
                    } else {
                        assert_eq!(payload.text(field.name), whole.text(field.name));
                        assert_eq!(texts, whole.texts(field.name).count());
                        assert_eq!(params, whole.params(field.name).count());
                    }
                }
                for found in payload.objects() {
                    assert!(!found.range.contains(&place.start), "{name}: {found:?}");
                }
                seen += 1;
            }
        }
    }
    assert!(seen > 1000, "{seen}");
}

#[test]
fn padding_is_zero() {
    let mut seen = 0;
    for (name, fields, sample) in samples() {
        for place in sample.places(|mark| *mark == Mark::Padding) {
            let broken = with(&sample, place.end - 1, &[1]);
            assert_eq!(error(fields, &broken), XdrError::Padding, "{name}");
            seen += 1;
        }
    }
    assert!(seen > 500, "{seen}");
}

#[test]
fn a_parameter_is_of_a_known_kind() {
    let mut seen = 0;
    for (name, fields, sample) in samples() {
        for place in sample.places(|mark| *mark == Mark::Kind) {
            for kind in [0, 8, u32::MAX] {
                let broken = with(&sample, place.start, &kind.to_be_bytes());
                assert_eq!(
                    error(fields, &broken),
                    XdrError::UnknownKind(kind),
                    "{name}"
                );
                seen += 1;
            }
        }
    }
    assert!(seen > 100, "{seen}");
}
