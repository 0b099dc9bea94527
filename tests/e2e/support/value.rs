//! Any value of the protocol by its shape, as the protocol table writes shapes. The tests have
//! their own reader and writer, so that a mistake in the crate's cannot hide itself.

use super::xdr::{Reader, TypedValue, Writer};

/// The fields of the records that occur in calls and lists.
const RECORDS: [(&str, &str); 15] = [
    ("domain", "name:string uuid:uuid id:i32"),
    ("network", "name:string uuid:uuid"),
    ("network_port", "net:network uuid:uuid"),
    ("nwfilter", "name:string uuid:uuid"),
    ("nwfilter_binding", "portdev:string filtername:string"),
    ("interface", "name:string mac:string"),
    ("storage_pool", "name:string uuid:uuid"),
    ("storage_vol", "pool:string name:string key:string"),
    ("node_device", "name:string"),
    ("secret", "uuid:uuid usageType:i32 usageID:string"),
    ("domain_checkpoint", "name:string dom:domain"),
    ("domain_snapshot", "name:string dom:domain"),
    (
        "error",
        "code:i32 domain:i32 message:string? level:i32 dom:domain? str1:string? str2:string? \
         str3:string? int1:i32 int2:i32 net:network?",
    ),
    (
        "domain_stats_record",
        "dom:domain params:typed_param[]<262144>",
    ),
    (
        "network_dhcp_lease",
        "iface:string expirytime:i64 type:i32 mac:string? iaid:string? ipaddr:string prefix:u32 \
         hostname:string? clientid:string?",
    ),
];

/// What a field holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// An integer of 32 bits on the wire, and whether it has a sign.
    Word(bool),
    /// One of 64 bits.
    Long(bool),
    Text,
    Bytes,
    Uuid,
    Param,
    List(Box<Shape>),
    Fixed(Box<Shape>, usize),
    Optional(Box<Shape>),
    Record(&'static str, Vec<Shape>),
    /// A record that no test needs.
    Other(String),
}

impl Shape {
    /// Reads what the table writes after the colon.
    pub(crate) fn parse(text: &str) -> Self {
        if let Some(inner) = text.strip_suffix('?') {
            return Self::Optional(Box::new(Self::parse(inner)));
        }
        if let Some((inner, _bound)) = text.split_once("[]<") {
            return Self::List(Box::new(Self::parse(inner)));
        }
        if text.starts_with("bytes<") {
            return Self::Bytes;
        }
        if let Some((inner, count)) = text.strip_suffix(']').and_then(|text| text.split_once('[')) {
            return Self::Fixed(Box::new(Self::parse(inner)), count.parse().unwrap());
        }
        match text {
            "i8" | "i32" => Self::Word(true),
            "u8" | "u32" => Self::Word(false),
            "i64" => Self::Long(true),
            "u64" => Self::Long(false),
            "string" => Self::Text,
            "uuid" => Self::Uuid,
            "typed_param" => Self::Param,
            name => RECORDS
                .iter()
                .find(|(record, _)| *record == name)
                .map_or_else(
                    || Self::Other(name.to_owned()),
                    |(record, fields)| {
                        let fields = parse_fields(fields);
                        Self::Record(record, fields.into_iter().map(|(_, shape)| shape).collect())
                    },
                ),
        }
    }

    /// The record that this is, or that it holds if present.
    pub(crate) fn record(&self) -> Option<&'static str> {
        match self {
            Self::Record(name, _) => Some(name),
            Self::Optional(inner) => inner.record(),
            _ => None,
        }
    }
}

/// Reads a column `args` or `ret` of the table.
pub(crate) fn parse_fields(column: &str) -> Vec<(&str, Shape)> {
    column
        .split_whitespace()
        .filter(|field| *field != "-")
        .map(|field| field.split_once(':').unwrap())
        .map(|(name, shape)| (name, Shape::parse(shape)))
        .collect()
}

/// A value of any shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// What is not there; where something has to be: zero, empty, or a record of such.
    Nil,
    Int(i64),
    Text(String),
    Bytes(Vec<u8>),
    Uuid([u8; 16]),
    List(Vec<Value>),
    Record(Vec<Value>),
    Param(String, TypedValue),
}

impl Value {
    #[track_caller]
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            other => panic!("no text: {other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn int(&self) -> i64 {
        match self {
            Self::Int(int) => *int,
            other => panic!("no integer: {other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn list(&self) -> &[Value] {
        match self {
            Self::List(values) => values,
            other => panic!("no list: {other:?}"),
        }
    }

    /// A field of a record by its place.
    #[track_caller]
    pub(crate) fn field(&self, place: usize) -> &Value {
        match self {
            Self::Record(values) => &values[place],
            other => panic!("no record: {other:?}"),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(int: i64) -> Self {
        Self::Int(int)
    }
}

/// Appends `value` in this shape.
///
/// # Panics
/// If it does not fit.
#[track_caller]
pub(crate) fn write(shape: &Shape, value: &Value, writer: Writer) -> Writer {
    match (shape, value) {
        (Shape::Word(_), Value::Int(int)) => {
            let word = i32::try_from(*int).map_or_else(
                |_| u32::try_from(*int).expect("32 bits"),
                i32::cast_unsigned,
            );
            writer.u32(word)
        }
        (Shape::Word(_), Value::Nil) => writer.u32(0),
        (Shape::Long(_), Value::Int(int)) => writer.u64(int.cast_unsigned()),
        (Shape::Long(_), Value::Nil) => writer.u64(0),
        (Shape::Text, Value::Text(text)) => writer.string(text),
        (Shape::Text, Value::Nil) => writer.string(""),
        (Shape::Text | Shape::Bytes, Value::Bytes(bytes)) => writer.opaque(bytes),
        (Shape::Bytes, Value::Nil) => writer.opaque(&[]),
        (Shape::Uuid, Value::Uuid(uuid)) => writer.fixed(uuid),
        (Shape::Uuid, Value::Nil) => writer.fixed(&[0; 16]),
        (Shape::Param, Value::Param(name, value)) => writer.string(name).typed_value(value),
        (Shape::List(inner), Value::List(values)) => {
            let writer = writer.u32(u32::try_from(values.len()).unwrap());
            values
                .iter()
                .fold(writer, |writer, value| write(inner, value, writer))
        }
        (Shape::List(_) | Shape::Optional(_), Value::Nil) => writer.u32(0),
        (Shape::Optional(inner), value) => write(inner, value, writer.u32(1)),
        (Shape::Record(_, fields), Value::Record(values)) => {
            assert_eq!(fields.len(), values.len(), "{shape:?}: {values:?}");
            let fields = fields.iter().zip(values);
            fields.fold(writer, |writer, (shape, value)| write(shape, value, writer))
        }
        (Shape::Record(_, fields), Value::Nil) => fields
            .iter()
            .fold(writer, |writer, shape| write(shape, &Value::Nil, writer)),
        (shape, value) => panic!("{value:?} is no {shape:?}"),
    }
}

/// Takes a value of this shape; `None` if it has a record which no test needs.
pub(crate) fn read(shape: &Shape, reader: &mut Reader<'_>) -> Option<Value> {
    Some(match shape {
        Shape::Word(true) => Value::Int(reader.i32().into()),
        Shape::Word(false) => Value::Int(reader.u32().into()),
        Shape::Long(_) => Value::Int(reader.u64().cast_signed()),
        Shape::Text => Value::Text(reader.string()),
        Shape::Bytes => Value::Bytes(reader.opaque()),
        Shape::Uuid => Value::Uuid(reader.fixed()),
        Shape::Param => Value::Param(reader.string(), reader.typed_value()),
        Shape::List(inner) => {
            let count = reader.u32();
            let values: Option<_> = (0..count).map(|_| read(inner, reader)).collect();
            Value::List(values?)
        }
        Shape::Fixed(inner, count) => {
            let values: Option<_> = (0..*count).map(|_| read(inner, reader)).collect();
            Value::List(values?)
        }
        Shape::Optional(inner) => match reader.u32() {
            0 => Value::Nil,
            _ => read(inner, reader)?,
        },
        Shape::Record(_, fields) => {
            let values: Option<_> = fields.iter().map(|shape| read(shape, reader)).collect();
            Value::Record(values?)
        }
        Shape::Other(_) => return None,
    })
}
