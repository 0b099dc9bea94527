//! Any payload by any shape.

use virtproxyd::protocol::header::Program;
use virtproxyd::protocol::object::{Object, Uuid};
use virtproxyd::protocol::payload::{
    Payload, count, filter, filter_names, replace_in_error, splice,
};
use virtproxyd::protocol::shape::{Field, types};
use virtproxyd::protocol::table;
use virtproxyd::protocol::xdr::Writer;

const PROGRAMS: [Program; 5] = [
    Program::REMOTE,
    Program::QEMU,
    Program::LXC,
    Program::ADMIN,
    Program::KEEPALIVE,
];

/// The fields that a number stands for: arguments and replies of all procedures in turn, then the
/// error.
pub(crate) fn fields(number: u16) -> &'static [Field] {
    let rows = PROGRAMS.into_iter().flat_map(table::rows);
    let all: Vec<_> = rows
        .flat_map(|row| [row.args, row.ret])
        .chain([types::ERROR.fields])
        .collect();
    all[usize::from(number) % all.len()]
}

/// Two bytes say which payload, the others are it. What can be read has its fields side by side
/// and its objects where it says; edits of it read again, and leave out or put in what they should.
pub(crate) fn payload(bytes: &[u8]) {
    let Some((number, bytes)) = bytes.split_first_chunk() else {
        return;
    };
    let fields = fields(u16::from_be_bytes(*number));
    lists(fields, bytes);
    error(bytes);
    let kindly = Payload::read_from_daemon(fields, bytes);
    if let Ok(payload) = kindly {
        whole(&payload);
    }
    let Ok(payload) = Payload::read(fields, bytes) else {
        return;
    };
    assert!(kindly.is_ok(), "strictly but not kindly");
    whole(&payload);
    let mut stand_ins = Vec::new();
    for found in payload.objects() {
        let mut written = Vec::new();
        found.object.encode(&mut Writer::new(&mut written));
        assert_eq!(written, bytes[found.range.clone()], "{found:?}");
        if let Object::Domain { id, .. } = found.object {
            let mut stand_in = Vec::new();
            let (name, uuid) = ("stand-in", Uuid([7; 16]));
            Object::Domain { name, uuid, id }.encode(&mut Writer::new(&mut stand_in));
            stand_ins.push((found.range, stand_in));
        }
    }
    let edits: Vec<_> = stand_ins
        .iter()
        .map(|(range, bytes)| (range.clone(), &bytes[..]))
        .collect();
    let edited = splice(bytes, &edits);
    let edited = Payload::read(fields, &edited).expect("it has the same shape");
    let domains = edited
        .objects()
        .filter(|found| matches!(found.object, Object::Domain { name, .. } if name == "stand-in"));
    assert!(domains.count() >= edits.len());
    assert_eq!(edited.objects().count(), payload.objects().count());
}

fn whole(payload: &Payload<'_>) {
    let mut end = 0;
    for field in payload.fields() {
        let range = payload.range(field.name).expect("it has the field");
        assert_eq!(range.start, end);
        end = range.end;
        let words = payload.word(field.name).is_some();
        let texts = payload.texts(field.name).count() + payload.params(field.name).count();
        assert!(!words || texts == 0);
        assert!(
            payload
                .text(field.name)
                .is_none_or(|text| !text.contains('\0'))
        );
    }
    assert_eq!(end, payload.bytes().len());
}

fn lists(fields: &'static [Field], bytes: &[u8]) {
    let readable = |bytes: &[u8]| Payload::read_from_daemon(fields, bytes).is_ok();
    if let Ok(all) = filter(fields, bytes, &mut |_| true) {
        assert!(readable(bytes) && readable(&all) && all.len() <= bytes.len());
        // What is kept once is kept again.
        assert_eq!(filter(fields, &all, &mut |_| true).as_ref(), Ok(&all));
        let mut number = 0;
        let some = filter(fields, bytes, &mut |_| {
            number += 1;
            number % 3 == 1
        });
        assert!(some.is_ok_and(|some| readable(&some) && some.len() <= all.len()));
        let nothing = filter(fields, bytes, &mut |_| false).expect("it was a list before");
        let emptied = count(fields, bytes, &mut |_| false).expect("it was a list before");
        assert_eq!(nothing, emptied);
    }
    if let Ok(all) = filter_names(fields, bytes, &mut |_| true) {
        assert!(readable(bytes) && all.len() <= bytes.len());
        assert!(Payload::read(fields, &all).is_ok());
    }
}

fn error(bytes: &[u8]) {
    if let Ok(same) = replace_in_error(bytes, &[]) {
        assert_eq!(same, bytes);
        let pairs = [("a".to_owned(), "bcde".to_owned()), ("b".into(), "".into())];
        // Far from the bound of a string: an input has some hundred bytes.
        let replaced = replace_in_error(bytes, &pairs).expect("it was an error before");
        assert!(Payload::read_from_daemon(types::ERROR.fields, &replaced).is_ok());
    }
}
