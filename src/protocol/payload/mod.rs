//! Any payload, read by its shape: its fields by name, the objects in it, and edits that leave
//! the rest of it byte for byte as it is.
//!
//! Reading is strict. What libvirt's own decoder lets pass (leftovers, an odd optional, broken
//! text) is refused here, so that a decision is never about other values than the daemon sees.
//! Only the text that a daemon sends may be any bytes, for it repeats file names and the like.

mod edit;
mod objects;

use std::ops::Range;

use super::args::ParamValue;
use super::limits::STRING;
use super::object::Uuid;
use super::shape::types::FIELDS;
use super::shape::{Field, Shape, Strings};
use super::xdr::{Reader, XdrError};

pub use edit::{count, filter, filter_names, filter_records, replace_in_error, splice};
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
        Self::read_with(fields, bytes, Strings::Text)
    }

    /// Reads a payload that a daemon sent, where one odd file name must not spoil the rest: the
    /// same, but strings may be any bytes. Those that are not UTF-8 or hold a NUL read as absent,
    /// and an object, list element or parameter with one in it is passed over.
    pub fn read_from_daemon(fields: &'static [Field], bytes: &'a [u8]) -> Result<Self, XdrError> {
        Self::read_with(fields, bytes, Strings::Any)
    }

    fn read_with(
        fields: &'static [Field],
        bytes: &'a [u8],
        strings: Strings,
    ) -> Result<Self, XdrError> {
        let mut reader = Reader::new(bytes);
        let mut ends = [0; FIELDS];
        for (field, end) in fields.iter().zip(&mut ends) {
            field.shape.skip(&mut reader, strings)?;
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
            Some((Shape::Array(element, bound), reader)) if is(element) => {
                Some((*element, *bound, reader))
            }
            _ => None,
        };
        list.into_iter()
            .flat_map(move |(element, bound, mut reader)| {
                let count = reader.length(bound).unwrap_or(0);
                (0..count).filter_map(move |_| {
                    element
                        .read_or_pass_over(&mut reader, |_, reader| read(reader).map(Some))
                        .ok()?
                })
            })
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected must fail"
)]
mod tests {
    use super::super::header::{Procedure, Program};
    use super::super::table::{self, ProcedureInfo, qemu, remote};
    use super::super::xdr::Writer;
    use super::*;

    fn row(procedure: Procedure) -> &'static ProcedureInfo {
        table::lookup(Program::REMOTE, procedure).unwrap()
    }

    fn written(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut Writer::new(&mut bytes));
        bytes
    }

    #[test]
    fn integers_of_every_width_are_words() {
        static FIELDS: [Field; 6] = [
            field("i8", Shape::I8),
            field("u8", Shape::U8),
            field("i32", Shape::I32),
            field("u32", Shape::U32),
            field("i64", Shape::I64),
            field("u64", Shape::U64),
        ];
        const fn field(name: &'static str, shape: Shape) -> Field {
            Field { name, shape }
        }
        let bytes = written(|writer| {
            // libvirt keeps the low byte of a `char`, whatever the rest of its word is.
            writer.u32(0x1234_56fe).u32(0x1234_56fe).i32(-2).u32(7);
            writer.i64(-2).u64(u64::MAX);
        });
        let payload = Payload::read(&FIELDS, &bytes).unwrap();
        let minus_two = Some((-2_i64).cast_unsigned());
        assert_eq!(payload.word("i8"), minus_two);
        assert_eq!(payload.word("u8"), Some(0xfe));
        assert_eq!(payload.word("i32"), minus_two);
        assert_eq!(payload.word("u32"), Some(7));
        assert_eq!(payload.word("i64"), minus_two);
        assert_eq!(payload.word("u64"), Some(u64::MAX));
        assert_eq!(payload.word("none"), None);
        assert_eq!(payload.text("i32"), None);
    }

    #[test]
    fn fields_are_read_by_name() {
        let fields = row(remote::DOMAIN_MIGRATE_PERFORM3_PARAMS).args;
        let bytes = written(|writer| {
            writer.string("web").raw(&[7; 16]);
            writer.i32(3).optional_string(Some("qemu://b/"));
            writer.u32(2).string("destination_name");
            ParamValue::Text("db".into()).encode(writer);
            writer.string("bandwidth");
            ParamValue::U64(5).encode(writer);
            writer.opaque(b"\xff\0!").u32(0x21);
        });
        let payload = Payload::read(fields, &bytes).unwrap();
        assert_eq!(payload.text("dconnuri"), Some("qemu://b/"));
        let params: Vec<_> = payload.params("params").collect();
        let expected = [
            ("destination_name", ParamValue::Text("db".into())),
            ("bandwidth", ParamValue::U64(5)),
        ];
        assert_eq!(params, expected);
        assert_eq!(payload.opaque("cookie_in"), Some(&b"\xff\0!"[..]));
        assert_eq!(payload.word("flags"), Some(0x21));
        // Of another type than asked for, or not there.
        assert_eq!(payload.word("dom"), None);
        assert_eq!(payload.text("dom"), None);
        assert_eq!(payload.uuid("dom"), None);
        assert_eq!(payload.opaque("dconnuri"), None);
        assert_eq!(payload.texts("params").count(), 0);
        assert_eq!(payload.params("uri").count(), 0);
    }

    #[test]
    fn an_absent_string_is_none() {
        let fields = row(remote::CONNECT_OPEN).args;
        let payload = Payload::read(fields, &[0; 8]).unwrap();
        assert_eq!(payload.text("name"), None);
        let empty = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        let payload = Payload::read(fields, &empty).unwrap();
        assert_eq!(payload.text("name"), Some(""));
    }

    #[test]
    fn a_uuid_of_its_own_is_no_object() {
        let fields = row(remote::DOMAIN_LOOKUP_BY_UUID).args;
        let payload = Payload::read(fields, &[7; 16]).unwrap();
        assert_eq!(payload.uuid("uuid"), Some(Uuid([7; 16])));
        assert_eq!(payload.objects().count(), 0);
    }

    #[test]
    fn a_node_device_is_text_and_object() {
        let fields = row(remote::NODE_DEVICE_RESET).args;
        let bytes = written(|writer| {
            writer.string("pci_0000");
        });
        let payload = Payload::read(fields, &bytes).unwrap();
        assert_eq!(payload.text("name"), Some("pci_0000"));
        assert_eq!(payload.objects().count(), 1);
    }

    #[test]
    fn old_and_new_events_have_the_same_fields() {
        let bytes = written(|writer| {
            writer.string("web").raw(&[7; 16]);
            writer.i32(3).i32(5).i32(1);
        });
        let old = Payload::read(row(remote::DOMAIN_EVENT_LIFECYCLE).args, &bytes).unwrap();
        let bytes = [&9_u32.to_be_bytes()[..], &bytes].concat();
        let fields = row(remote::DOMAIN_EVENT_CALLBACK_LIFECYCLE).args;
        let new = Payload::read(fields, &bytes).unwrap();
        assert_eq!((old.word("event"), new.word("event")), (Some(5), Some(5)));
        let object =
            |payload: Payload<'_>| format!("{:?}", payload.objects().next().unwrap().object);
        assert_eq!(object(old), object(new));
    }

    #[test]
    fn an_optional_object_is_found_if_it_is_there() {
        let fields = table::lookup(Program::QEMU, qemu::CONNECT_DOMAIN_MONITOR_EVENT_REGISTER);
        let fields = fields.unwrap().args;
        let payload = Payload::read(fields, &[0; 12]).unwrap();
        assert_eq!(payload.objects().count(), 0);
        let bytes = written(|writer| {
            writer.u32(1).string("web").raw(&[7; 16]);
            writer.i32(3).u32(0).u32(0);
        });
        let payload = Payload::read(fields, &bytes).unwrap();
        let found = payload.objects().next().unwrap();
        // Without the word that says that it is there.
        assert_eq!(found.range, 4..bytes.len() - 8);
    }
}
