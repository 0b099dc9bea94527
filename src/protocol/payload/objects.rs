//! The objects in a payload.

use std::ops::Range;

use super::super::object::Object;
use super::super::shape::{Shape, Strings};
use super::super::xdr::{Reader, XdrError};
use super::Payload;

/// An object and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<'a> {
    /// The field at the top level that it is in.
    pub field: &'static str,
    /// The object.
    pub object: Object<'a>,
    /// Its bytes in the payload.
    pub range: Range<usize>,
    /// Its place in the array that the field is, if the field is one.
    pub index: Option<usize>,
}

impl<'a> Payload<'a> {
    /// Every object in it, in order of the bytes. A snapshot or checkpoint is reported by its
    /// domain, a record of statistics by the domain that it is of, and a network port is followed
    /// by its network.
    pub fn objects(&self) -> impl Iterator<Item = Found<'a>> {
        let fields = self.fields.iter().enumerate();
        fields
            .filter(|(_, field)| field.shape.names_objects())
            .flat_map(|(place, field)| {
                let place = self.place(place);
                let end = place.end;
                let bytes = self.bytes.get(place).unwrap_or_default();
                elements(&field.shape, bytes).map(move |(index, object, left)| Found {
                    field: field.name,
                    object,
                    range: end.saturating_sub(left.start)..end.saturating_sub(left.end),
                    index,
                })
            })
            .flat_map(|found| {
                let network = network(&found);
                [Some(found), network].into_iter().flatten()
            })
    }
}

/// The objects of one field, each with its index in an array and the number of bytes left in the
/// field before and after it.
fn elements<'a>(
    shape: &'static Shape,
    bytes: &'a [u8],
) -> impl Iterator<Item = (Option<usize>, Object<'a>, Range<usize>)> {
    let mut reader = Reader::new(bytes);
    let (element, count, array) = match shape {
        Shape::Array(element, bound) => (*element, reader.length(*bound).unwrap_or(0), true),
        shape => (shape, 1, false),
    };
    (0..count).filter_map(move |index| {
        let (object, left) = object_in(element, &mut reader).ok()??;
        Some((array.then_some(index), object, left))
    })
}

/// An object, and the number of bytes left to read before and after it.
type Placed<'a> = (Object<'a>, Range<usize>);

/// Reads past one value and gives the object in it, if it has one and its text is text.
pub(super) fn object_in<'a>(
    shape: &'static Shape,
    reader: &mut Reader<'a>,
) -> Result<Option<Placed<'a>>, XdrError> {
    shape.read_or_pass_over(reader, first_object)
}

/// No type of libvirt's holds two objects side by side: the first is the only one.
fn first_object<'a>(
    shape: &'static Shape,
    reader: &mut Reader<'a>,
) -> Result<Option<Placed<'a>>, XdrError> {
    match shape {
        Shape::Struct(record) => {
            if let Some(class) = record.class {
                let before = reader.remaining();
                let object = Object::decode(class, reader)?;
                let after = reader.remaining();
                return Ok(object.map(|object| (object, before..after)));
            }
            let mut found = None;
            for field in record.fields {
                if found.is_none() {
                    found = first_object(&field.shape, reader)?;
                } else {
                    field.shape.skip(reader, Strings::Any)?;
                }
            }
            Ok(found)
        }
        Shape::Optional(inner) => {
            if reader.present()? {
                first_object(inner, reader)
            } else {
                Ok(None)
            }
        }
        shape => {
            shape.skip(reader, Strings::Any)?;
            Ok(None)
        }
    }
}

/// The network that a network port's bytes begin with.
fn network<'a>(found: &Found<'a>) -> Option<Found<'a>> {
    let Object::NetworkPort {
        network,
        network_uuid,
        uuid,
    } = found.object
    else {
        return None;
    };
    Some(Found {
        object: Object::Network {
            name: network,
            uuid: network_uuid,
        },
        range: found.range.start..found.range.end.saturating_sub(uuid.0.len()),
        ..found.clone()
    })
}
