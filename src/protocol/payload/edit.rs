//! Edits of payloads: other bytes for a field, lists with elements left out, other texts in an
//! error. What is not edited keeps its bytes.

use std::ops::Range;

use super::super::limits::STRING;
use super::super::object::Object;
use super::super::shape::types::ERROR;
use super::super::shape::{Field, Shape, Strings};
use super::super::xdr::{Reader, Writer, XdrError};
use super::objects::object_in;

/// The payload with some ranges of its bytes replaced. Ranges are in ascending order and disjoint;
/// one that is not, or that is past the end, is left out. XDR has no offsets, so replacing whole
/// values by values of the same type is always sound.
#[must_use]
pub fn splice(payload: &[u8], edits: &[(Range<usize>, &[u8])]) -> Vec<u8> {
    let growth: usize = edits.iter().map(|(_, bytes)| bytes.len()).sum();
    let mut out = Vec::with_capacity(payload.len() + growth);
    let mut done = 0;
    for (range, bytes) in edits {
        if let Some(kept) = payload.get(done..range.start)
            && payload.get(range.clone()).is_some()
        {
            out.extend_from_slice(kept);
            out.extend_from_slice(bytes);
            done = range.end;
        }
    }
    out.extend_from_slice(payload.get(done..).unwrap_or_default());
    out
}

/// A list reply with only those elements for which `keep` holds: objects, or records with one
/// object in each. Where the reply tells their number in `ret`, that is the number kept.
///
/// An element whose text is not UTF-8 is left out, for no rule can speak of it. A reply without
/// results (`need_results` was 0) has an empty list, so that its number becomes 0: the caller asks
/// for the results and answers by [`count`].
pub fn filter(
    fields: &'static [Field],
    reply: &[u8],
    keep: &mut dyn FnMut(&Object<'_>) -> bool,
) -> Result<Vec<u8>, XdrError> {
    retain(fields, reply, Shape::names_objects, |shape, reader| {
        let found = object_in(shape, reader)?;
        Ok(found.is_some_and(|(object, _)| keep(&object)))
    })
}

/// A list reply as if no results had been asked for: the list is empty and `ret` is the number of
/// elements for which `keep` holds.
pub fn count(
    fields: &'static [Field],
    reply: &[u8],
    keep: &mut dyn FnMut(&Object<'_>) -> bool,
) -> Result<Vec<u8>, XdrError> {
    let mut kept = 0;
    let mut out = filter(fields, reply, &mut |object| {
        kept += u32::from(keep(object));
        false
    })?;
    if matches!(fields.last(), Some(field) if field.name == "ret")
        && let Some(ret) = out.last_chunk_mut()
    {
        *ret = kept.to_be_bytes();
    }
    Ok(out)
}

/// An old-style list reply (names, or UUIDs as text) with only those for which `keep` holds.
pub fn filter_names(
    fields: &'static [Field],
    reply: &[u8],
    keep: &mut dyn FnMut(&str) -> bool,
) -> Result<Vec<u8>, XdrError> {
    let is_string = |shape: &Shape| *shape == Shape::String;
    retain(fields, reply, is_string, |shape, reader| {
        let name = shape.read_or_pass_over(reader, |_, reader| reader.string(STRING).map(Some))?;
        Ok(name.is_some_and(&mut *keep))
    })
}

/// A list reply of records with only those for which `keep` holds of the text of one field; it is
/// given `None` where the text is absent or no text. Where the reply tells their number in `ret`,
/// that is the number kept.
pub fn filter_records(
    fields: &'static [Field],
    reply: &[u8],
    field: &str,
    keep: &mut dyn FnMut(Option<&str>) -> bool,
) -> Result<Vec<u8>, XdrError> {
    let has = |shape: &Shape| match shape {
        Shape::Struct(record) => record.fields.iter().any(|its| its.name == field),
        _ => false,
    };
    retain(fields, reply, has, |shape, reader| {
        let Shape::Struct(record) = shape else {
            return Err(XdrError::NoList);
        };
        let mut text = None;
        for its in record.fields {
            if its.name != field {
                its.shape.skip(reader, Strings::Any)?;
                continue;
            }
            let read = its
                .shape
                .read_or_pass_over(reader, |shape, reader| match shape {
                    Shape::String => reader.string(STRING).map(Some),
                    Shape::Optional(Shape::String) => reader.optional_string(STRING),
                    other => other.skip(reader, Strings::Any).map(|()| None),
                });
            text = read?;
        }
        Ok(keep(text))
    })
}

/// Filters the first array of `wanted` elements. `stays` reads past one element and says whether
/// it stays.
fn retain<'a>(
    fields: &'static [Field],
    reply: &'a [u8],
    wanted: impl Fn(&Shape) -> bool,
    mut stays: impl FnMut(&'static Shape, &mut Reader<'a>) -> Result<bool, XdrError>,
) -> Result<Vec<u8>, XdrError> {
    let mut reader = Reader::new(reply);
    let mut out = Vec::with_capacity(reply.len());
    let mut kept = None;
    for field in fields {
        let start = reader.clone();
        match (&field.shape, kept) {
            (Shape::Array(element, bound), None) if wanted(element) => {
                let count = reader.length(*bound)?;
                let place = out.len();
                out.extend_from_slice(&[0; 4]);
                let mut number = 0_u32;
                // Neighbours that stay are copied together.
                let mut run = reader.clone();
                for _ in 0..count {
                    let before = reader.clone();
                    if stays(element, &mut reader)? {
                        number += 1;
                    } else {
                        copy(&mut out, run, &before)?;
                        run = reader.clone();
                    }
                }
                copy(&mut out, run, &reader)?;
                if let Some(slot) = out.get_mut(place..).and_then(<[u8]>::first_chunk_mut) {
                    *slot = number.to_be_bytes();
                }
                kept = Some(number);
            }
            (Shape::I32 | Shape::U32, Some(number)) if field.name == "ret" => {
                reader.u32()?;
                out.extend_from_slice(&number.to_be_bytes());
            }
            _ => {
                field.shape.skip(&mut reader, Strings::Any)?;
                copy(&mut out, start, &reader)?;
            }
        }
    }
    reader.finish()?;
    kept.map(|_| out).ok_or(XdrError::NoList)
}

/// Copies what lies between two places of one payload.
fn copy(out: &mut Vec<u8>, mut from: Reader<'_>, to: &Reader<'_>) -> Result<(), XdrError> {
    let count = from.remaining().saturating_sub(to.remaining());
    out.extend_from_slice(from.take(count)?);
    Ok(())
}

/// An error with every occurrence of the first of each pair in its texts replaced by the second;
/// for answers about stand-ins. The texts are replaced in one pass, the earlier pair first, so
/// that nothing is replaced in what was put in. One that grows over the bound of a string is an
/// error.
pub fn replace_in_error(
    error: &[u8],
    replacements: &[(String, String)],
) -> Result<Vec<u8>, XdrError> {
    let mut reader = Reader::new(error);
    let mut out = Vec::with_capacity(error.len());
    for field in ERROR.fields {
        let start = reader.clone();
        if field.shape == Shape::Optional(&Shape::String) {
            if reader.present()? {
                let text = replace(reader.opaque(STRING)?, replacements);
                if text.len() > STRING {
                    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
                    return Err(XdrError::TooLong {
                        length,
                        cap: STRING,
                    });
                }
                Writer::new(&mut out).u32(1).opaque(&text);
            } else {
                Writer::new(&mut out).u32(0);
            }
        } else {
            field.shape.skip(&mut reader, Strings::Any)?;
            copy(&mut out, start, &reader)?;
        }
    }
    reader.finish()?;
    Ok(out)
}

/// Works on bytes: daemons repeat what their clients sent, which may be no text.
fn replace(text: &[u8], replacements: &[(String, String)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let hit = replacements.iter().find_map(|(from, to)| {
            let after = rest.strip_prefix(from.as_bytes())?;
            (!from.is_empty()).then_some((after, to))
        });
        if let Some((after, to)) = hit {
            out.extend_from_slice(to.as_bytes());
            rest = after;
        } else {
            out.push(*first);
            rest = after;
        }
    }
    out
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected must fail"
)]
mod tests {
    use super::super::super::fault::{self, Fault};
    use super::*;

    #[test]
    fn ranges_are_replaced() {
        let splice = |edits: &[(Range<usize>, &[u8])]| splice(b"0123456789", edits);
        assert_eq!(splice(&[]), b"0123456789");
        assert_eq!(
            splice(&[(2..4, b"abc"), (4..5, b""), (9..10, b"z")]),
            b"01abc5678z"
        );
        assert_eq!(splice(&[(0..0, b"a"), (10..10, b"z")]), b"a0123456789z");
        assert_eq!(splice(&[(0..10, b"")]), b"");
        // What is out of order or out of bounds is left out.
        assert_eq!(splice(&[(4..6, b"a"), (5..7, b"b")]), b"0123a6789");
        assert_eq!(splice(&[(8..11, b"a")]), b"0123456789");
        #[allow(clippy::reversed_empty_ranges, reason = "what is tested")]
        let reversed = splice(&[(6..4, b"a")]);
        assert_eq!(reversed, b"0123456789");
    }

    fn error(texts: [Option<&[u8]>; 4]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        let text = |writer: &mut Writer<'_>, text: Option<&[u8]>| {
            writer.u32(text.is_some().into());
            if let Some(text) = text {
                writer.opaque(text);
            }
        };
        let [message, str1, str2, str3] = texts;
        writer.i32(42).i32(10);
        text(&mut writer, message);
        writer.i32(2).u32(0);
        for each in [str1, str2, str3] {
            text(&mut writer, each);
        }
        writer.i32(-1).i32(7).u32(0);
        out
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let pairs = pairs.iter();
        pairs.map(|(a, b)| ((*a).into(), (*b).into())).collect()
    }

    #[test]
    fn texts_of_an_error_are_replaced_in_all_its_places() {
        let before = error([
            Some(b"Domain not found: no domain with matching name 'stand-in' (stand-in)"),
            Some(b"Domain not found: %s"),
            None,
            Some(b"stand-in"),
        ]);
        let after = error([
            Some("Domain not found: no domain with matching name 'wäb' (wäb)".as_bytes()),
            Some(b"Domain not found: %s"),
            None,
            Some("wäb".as_bytes()),
        ]);
        let replaced = replace_in_error(&before, &pairs(&[("stand-in", "wäb")]));
        assert_eq!(replaced, Ok(after));
    }

    #[test]
    fn an_error_without_the_text_is_the_same() {
        let mut payload = Vec::new();
        Fault::no_connection("foo:///").encode(&mut Writer::new(&mut payload));
        assert_eq!(replace_in_error(&payload, &[]).as_ref(), Ok(&payload));
        let replaced = replace_in_error(&payload, &pairs(&[("bar", "x"), ("", "y")]));
        assert_eq!(replaced.as_ref(), Ok(&payload));
    }

    #[test]
    fn what_was_put_in_is_left_alone_and_odd_bytes_stay() {
        let before = error([Some(b"\xffab:b:\0a"), None, None, None]);
        let after = error([Some(b"\xff[b]a:a:\0[b]"), None, None, None]);
        let replaced =
            replace_in_error(&before, &pairs(&[("ab", "[b]a"), ("a", "[b]"), ("b", "a")]));
        assert_eq!(replaced, Ok(after));
    }

    #[test]
    fn a_replaced_error_can_be_read() {
        for length in 0..6 {
            let name = "x".repeat(length);
            let before = error([Some(b"no 'stand-in'!"), None, None, None]);
            let replaced = replace_in_error(&before, &pairs(&[("stand-in", &name)])).unwrap();
            assert_eq!(fault::message(&replaced), Ok(format!("no '{name}'!")));
        }
    }

    #[test]
    fn no_text_grows_over_its_bound() {
        let before = error([Some(&[b'a'; 2048]), None, None, None]);
        let replace = |length| replace_in_error(&before, &pairs(&[("a", &"b".repeat(length))]));
        assert!(replace(2048).is_ok());
        let (length, cap) = (2048 * 2049, STRING);
        assert_eq!(replace(2049), Err(XdrError::TooLong { length, cap }));
    }

    #[test]
    fn a_broken_error_is_refused() {
        let whole = error([Some(b"text"), None, None, Some(b"more")]);
        for end in 0..whole.len() {
            let cut = whole.get(..end).unwrap();
            assert_eq!(replace_in_error(cut, &[]), Err(XdrError::Truncated));
        }
        let longer = [&whole[..], &[0; 4]].concat();
        assert_eq!(replace_in_error(&longer, &[]), Err(XdrError::Trailing(4)));
    }

    #[test]
    fn records_are_kept_by_the_text_of_one_of_their_fields() {
        use super::super::super::header::Program;
        use super::super::super::table::{self, remote};
        let row = table::lookup(Program::REMOTE, remote::NETWORK_GET_DHCP_LEASES).unwrap();
        let leases = |macs: &[Option<&[u8]>]| {
            let mut out = Vec::new();
            let count = u32::try_from(macs.len()).unwrap();
            let mut writer = Writer::new(&mut out);
            writer.u32(count);
            for mac in macs {
                writer.string("br").i64(1).i32(0).u32(mac.is_some().into());
                if let Some(mac) = mac {
                    writer.opaque(mac);
                }
                writer.optional_string(Some("iaid")).string("::1").u32(64);
                writer.optional_string(None).optional_string(Some("id"));
            }
            writer.u32(count);
            out
        };
        let all = leases(&[Some(b"a"), None, Some(b"\xff"), Some(b"b"), Some(b"a\0")]);
        let filter = |keep: &dyn Fn(Option<&str>) -> bool| {
            filter_records(row.ret, &all, "mac", &mut |mac| keep(mac))
        };
        assert_eq!(filter(&|_| true).as_ref(), Ok(&all));
        assert_eq!(filter(&|mac| mac == Some("b")), Ok(leases(&[Some(b"b")])));
        assert_eq!(filter(&|_| false), Ok(leases(&[])));
        let nameless = filter(&|mac| mac.is_none());
        assert_eq!(nameless, Ok(leases(&[None, Some(b"\xff"), Some(b"a\0")])));
        for end in 0..all.len() {
            let cut = all.get(..end).unwrap();
            let cut = filter_records(row.ret, cut, "mac", &mut |_| true);
            assert_eq!(cut, Err(XdrError::Truncated));
        }
        let none = filter_records(row.ret, &all, "colour", &mut |_| true);
        assert_eq!(none, Err(XdrError::NoList));
    }
}
