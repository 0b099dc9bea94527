//! Any payload, read by its shape: its fields by name, the objects in it, and edits that leave
//! the rest of it byte for byte as it is.
//!
//! Reading is strict. What libvirt's own decoder lets pass (leftovers, an odd optional, broken
//! text) is refused here, so that a decision is never about other values than the daemon sees.

mod edit;
mod objects;

use std::ops::Range;

use super::args::ParamValue;
use super::limits::STRING;
use super::object::Uuid;
use super::shape::types::FIELDS;
use super::shape::{Field, Shape, Strings};
use super::xdr::{Reader, XdrError};

pub use edit::{count, filter, filter_names, replace_in_error, splice};
pub use objects::Found;

/// A payload that has been read. The values stay where they are; only the ends of the fields are
/// kept.
#[derive(Debug, Clone, Copy)]
pub struct Payload<'a> {
    fields: &'static [Field],
    bytes: &'a [u8],
    ends: [usize; FIELDS],
}

impl<'a> Payload<'a> {
    /// Reads a payload of these fields, all of it: bounds, padding, optionals, text, and nothing
    /// left over.
    pub fn read(fields: &'static [Field], bytes: &'a [u8]) -> Result<Self, XdrError> {
        let mut reader = Reader::new(bytes);
        let mut ends = [0; FIELDS];
        for (field, end) in fields.iter().zip(&mut ends) {
            field.shape.skip(&mut reader, Strings::Text)?;
            *end = bytes.len() - reader.remaining();
        }
        reader.finish()?;
        Ok(Self {
            fields,
            bytes,
            ends,
        })
    }

    /// All of it.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Its fields.
    #[must_use]
    pub fn fields(&self) -> &'static [Field] {
        self.fields
    }

    /// An integer of any width; a signed one as the bits of an `i64`.
    #[must_use]
    pub fn word(&self, name: &str) -> Option<u64> {
        let (shape, mut reader) = self.field(name)?;
        let word = match shape {
            Shape::I8 => {
                let [.., byte] = reader.fixed::<4>().ok()?;
                i64::from(byte.cast_signed()).cast_unsigned()
            }
            Shape::U8 => {
                let [.., byte] = reader.fixed::<4>().ok()?;
                byte.into()
            }
            Shape::I32 => i64::from(reader.i32().ok()?).cast_unsigned(),
            Shape::U32 => reader.u32().ok()?.into(),
            Shape::I64 | Shape::U64 => reader.u64().ok()?,
            _ => return None,
        };
        Some(word)
    }

    /// A string, an optional string that is there, or the name that a node device is.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&'a str> {
        let (shape, mut reader) = self.field(name)?;
        match shape {
            Shape::String => reader.string(STRING).ok(),
            Shape::Optional(Shape::String) => reader.optional_string(STRING).ok()?,
            Shape::Struct(record) => match record.fields {
                [only] if only.shape == Shape::String => reader.string(STRING).ok(),
                _ => None,
            },
            _ => None,
        }
    }

    /// The strings of a list of strings; none if there is no such list.
    pub fn texts(&self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.list(
            name,
            |element| *element == Shape::String,
            |reader| reader.string(STRING),
        )
    }

    /// Opaque data.
    #[must_use]
    pub fn opaque(&self, name: &str) -> Option<&'a [u8]> {
        match self.field(name)? {
            (Shape::Bytes(bound), mut reader) => reader.opaque(*bound).ok(),
            _ => None,
        }
    }

    /// A UUID that stands by itself.
    #[must_use]
    pub fn uuid(&self, name: &str) -> Option<Uuid> {
        match self.field(name)? {
            (Shape::Uuid, mut reader) => reader.fixed().map(Uuid).ok(),
            _ => None,
        }
    }

    /// The parameters of a list of typed parameters, in order, a name as often as it is there;
    /// none if there is no such list.
    pub fn params(&self, name: &str) -> impl Iterator<Item = (&'a str, ParamValue<'a>)> + use<'a> {
        self.list(
            name,
            |element| matches!(element, Shape::Struct(record) if record.name == "typed_param"),
            |reader| Ok((reader.string(STRING)?, ParamValue::decode(reader)?)),
        )
    }

    /// Where a field is in [`bytes`](Self::bytes).
    #[must_use]
    pub fn range(&self, name: &str) -> Option<Range<usize>> {
        let place = self.fields.iter().position(|field| field.name == name)?;
        Some(self.place(place))
    }

    fn place(&self, place: usize) -> Range<usize> {
        let end = |place: usize| self.ends.get(place).copied().unwrap_or(self.bytes.len());
        place.checked_sub(1).map_or(0, end)..end(place)
    }

    fn field(&self, name: &str) -> Option<(&'static Shape, Reader<'a>)> {
        let place = self.fields.iter().position(|field| field.name == name)?;
        let bytes = self.bytes.get(self.place(place))?;
        Some((&self.fields.get(place)?.shape, Reader::new(bytes)))
    }

    fn list<T>(
        &self,
        name: &str,
        is: fn(&Shape) -> bool,
        read: fn(&mut Reader<'a>) -> Result<T, XdrError>,
    ) -> impl Iterator<Item = T> + use<'a, T> {
        let list = match self.field(name) {
            Some((Shape::Array(element, bound), reader)) if is(element) => Some((reader, *bound)),
            _ => None,
        };
        list.into_iter().flat_map(move |(mut reader, bound)| {
            let count = reader.length(bound).unwrap_or(0);
            (0..count).map_while(move |_| read(&mut reader).ok())
        })
    }
}
