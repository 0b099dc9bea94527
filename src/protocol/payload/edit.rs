//! Edits of payloads: other bytes for a field, lists with elements left out, other texts in an
//! error. What is not edited keeps its bytes.

use std::ops::Range;

use super::super::limits::STRING;
use super::super::object::Object;
use super::super::shape::types::ERROR;
use super::super::shape::{Field, Shape, Strings};
use super::super::xdr::{Reader, Writer, XdrError};
use super::objects::element_object;

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
        let start = reader.clone();
        match element_object(shape, reader) {
            Ok(found) => Ok(found.is_some_and(|(object, _)| keep(&object))),
            Err(XdrError::NotText) => {
                *reader = start;
                shape.skip(reader, Strings::Any)?;
                Ok(false)
            }
            Err(error) => Err(error),
        }
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
    retain(fields, reply, is_string, |_, reader| {
        let name = reader.opaque(STRING)?;
        Ok(std::str::from_utf8(name).is_ok_and(|name| !name.contains('\0') && keep(name)))
    })
}

/// Filters the first array of `wanted` elements. `stays` reads past one element and says whether
/// it stays.
fn retain<'a>(
    fields: &'static [Field],
    reply: &'a [u8],
    wanted: impl Fn(&Shape) -> bool,
    mut stays: impl FnMut(&Shape, &mut Reader<'a>) -> Result<bool, XdrError>,
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
/// that nothing is replaced in what was put in.
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
