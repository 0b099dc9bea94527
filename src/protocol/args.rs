//! Arguments and replies of the few calls that the proxy reads or makes itself.

use std::borrow::Cow;

use super::limits::{AUTH_TYPES, IDENTITY_PARAMS, SASL_DATA, SASL_MECHANISM, STRING};
use super::xdr::{Reader, Writer, XdrError};

/// `CONNECT_OPEN` flag: the connection may only read.
pub const OPEN_READONLY: u32 = 1;

/// Arguments of `CONNECT_OPEN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectOpen<'a> {
    /// The URI; `None` or empty asks the daemon to choose.
    pub name: Option<&'a str>,
    /// [`OPEN_READONLY`] and others of the client's.
    pub flags: u32,
}

impl<'a> ConnectOpen<'a> {
    /// Reads a payload.
    pub fn decode(payload: &'a [u8]) -> Result<Self, XdrError> {
        let mut reader = Reader::new(payload);
        let name = reader.optional_string(STRING)?;
        let flags = reader.u32()?;
        reader.finish()?;
        Ok(Self { name, flags })
    }

    /// Writes a payload.
    pub fn encode(&self, writer: &mut Writer<'_>) {
        writer.optional_string(self.name).u32(self.flags);
    }
}

/// Something that a daemon may support (`CONNECT_SUPPORTS_FEATURE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feature(pub i32);

impl Feature {
    /// Descriptors travel with calls and replies.
    pub const FD_PASSING: Self = Self(8);
    /// The peer answers pings.
    pub const KEEPALIVE: Self = Self(10);
    /// Events come by registrations that have numbers.
    pub const EVENT_CALLBACK: Self = Self(14);
    /// The peer tells of a hypervisor's connection that is lost.
    pub const CLOSE_CALLBACK: Self = Self(15);

    /// Reads the argument.
    pub fn decode(payload: &[u8]) -> Result<Self, XdrError> {
        let mut reader = Reader::new(payload);
        let feature = reader.i32()?;
        reader.finish()?;
        Ok(Self(feature))
    }
}

/// Reads a reply that is one word: a feature's answer.
pub fn decode_word(payload: &[u8]) -> Result<i32, XdrError> {
    let mut reader = Reader::new(payload);
    let word = reader.i32()?;
    reader.finish()?;
    Ok(word)
}

/// How a daemon wants its clients to prove who they are (`AUTH_LIST`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthType(pub i32);

impl AuthType {
    /// Nothing to prove.
    pub const NONE: Self = Self(0);
    /// SASL.
    pub const SASL: Self = Self(1);
    /// polkit.
    pub const POLKIT: Self = Self(2);

    /// Reads the first, and so far only, type of an `AUTH_LIST` reply; an empty list asks nothing.
    pub fn decode_list(payload: &[u8]) -> Result<Self, XdrError> {
        let mut reader = Reader::new(payload);
        let mut first = Self::NONE;
        for i in 0..reader.length(AUTH_TYPES)? {
            let auth = Self(reader.i32()?);
            if i == 0 {
                first = auth;
            }
        }
        reader.finish()?;
        Ok(first)
    }

    /// Writes an `AUTH_LIST` reply of this one type.
    pub fn encode_list(self, writer: &mut Writer<'_>) {
        writer.u32(1).i32(self.0);
    }
}

/// Arguments of `AUTH_SASL_START`.
#[derive(Clone, PartialEq, Eq)]
pub struct SaslStart<'a> {
    /// The mechanism that the client chose.
    pub mechanism: &'a str,
    /// Its first message; none differs from an empty one.
    pub data: Option<Vec<u8>>,
}

impl<'a> SaslStart<'a> {
    /// Reads a payload.
    pub fn decode(payload: &'a [u8]) -> Result<Self, XdrError> {
        let mut reader = Reader::new(payload);
        let mechanism = reader.string(SASL_MECHANISM)?;
        let data = sasl_data(&mut reader)?;
        reader.finish()?;
        Ok(Self { mechanism, data })
    }
}

/// Reads the arguments of `AUTH_SASL_STEP`: the client's next message.
pub fn decode_sasl_step(payload: &[u8]) -> Result<Option<Vec<u8>>, XdrError> {
    let mut reader = Reader::new(payload);
    let data = sasl_data(&mut reader)?;
    reader.finish()?;
    Ok(data)
}

/// A SASL message: whether there is none, and its bytes, each of them a whole word (they are an
/// XDR array of `char`, not opaque data).
fn sasl_data(reader: &mut Reader<'_>) -> Result<Option<Vec<u8>>, XdrError> {
    let none = reader.present()?;
    let count = reader.length(SASL_DATA)?;
    let mut data = Vec::new();
    for _ in 0..count {
        let [.., byte] = reader.u32()?.to_be_bytes();
        data.push(byte);
    }
    Ok((!none).then_some(data))
}

/// Reply to `AUTH_SASL_START` and `AUTH_SASL_STEP`.
#[derive(Debug, Clone, Copy)]
pub struct SaslReply<'a> {
    /// The exchange is over.
    pub complete: bool,
    /// The daemon's message.
    pub data: Option<&'a [u8]>,
}

impl SaslReply<'_> {
    /// Writes a payload.
    pub fn encode(&self, writer: &mut Writer<'_>) {
        writer.u32(self.complete.into());
        encode_sasl_data(self.data, writer);
    }
}

/// Reads a reply to `AUTH_SASL_START` or `AUTH_SASL_STEP`: whether the exchange is complete, and the
/// daemon's message.
pub fn decode_sasl_reply(payload: &[u8]) -> Result<(bool, Option<Vec<u8>>), XdrError> {
    let mut reader = Reader::new(payload);
    let complete = reader.present()?;
    let data = sasl_data(&mut reader)?;
    reader.finish()?;
    Ok((complete, data))
}

/// Reads a reply to `AUTH_SASL_INIT`: the mechanisms that the daemon takes.
pub fn decode_sasl_mechanisms(payload: &[u8]) -> Result<&str, XdrError> {
    let mut reader = Reader::new(payload);
    let mechanisms = reader.string(STRING)?;
    reader.finish()?;
    Ok(mechanisms)
}

/// Writes the arguments of `AUTH_SASL_START`.
pub fn encode_sasl_start(mechanism: &str, data: Option<&[u8]>, writer: &mut Writer<'_>) {
    writer.string(mechanism);
    encode_sasl_data(data, writer);
}

/// Writes a SASL message, which is the arguments of `AUTH_SASL_STEP`. One that is too long is cut,
/// and will be refused.
pub fn encode_sasl_data(message: Option<&[u8]>, writer: &mut Writer<'_>) {
    let data = message.unwrap_or_default();
    let data = data.get(..SASL_DATA).unwrap_or(data);
    writer.u32(message.is_none().into());
    writer.u32(u32::try_from(data.len()).unwrap_or(0));
    for byte in data {
        writer.i32(byte.cast_signed().into());
    }
}

/// A value of a typed parameter (`virTypedParameterType`).
#[derive(Debug, Clone, PartialEq)]
pub enum ParamValue<'a> {
    /// `int`.
    I32(i32),
    /// `unsigned int`.
    U32(u32),
    /// `long long`.
    I64(i64),
    /// `unsigned long long`.
    U64(u64),
    /// `double`.
    F64(f64),
    /// Boolean.
    Bool(bool),
    /// String.
    Text(Cow<'a, str>),
}

impl<'a> ParamValue<'a> {
    /// Reads one: the word that says its kind, and the value.
    pub fn decode(reader: &mut Reader<'a>) -> Result<Self, XdrError> {
        Ok(match reader.u32()? {
            1 => Self::I32(reader.i32()?),
            2 => Self::U32(reader.u32()?),
            3 => Self::I64(reader.i64()?),
            4 => Self::U64(reader.u64()?),
            5 => Self::F64(f64::from_bits(reader.u64()?)),
            6 => Self::Bool(reader.present()?),
            7 => Self::Text(reader.string(STRING)?.into()),
            kind => return Err(XdrError::UnknownKind(kind)),
        })
    }

    /// Writes one.
    pub fn encode(&self, writer: &mut Writer<'_>) {
        match self {
            Self::I32(value) => writer.u32(1).i32(*value),
            Self::U32(value) => writer.u32(2).u32(*value),
            Self::I64(value) => writer.u32(3).i64(*value),
            Self::U64(value) => writer.u32(4).u64(*value),
            Self::F64(value) => writer.u32(5).u64(value.to_bits()),
            Self::Bool(value) => writer.u32(6).u32((*value).into()),
            Self::Text(value) => writer.u32(7).string(value),
        };
    }
}

/// Writes the arguments of `CONNECT_SET_IDENTITY`: typed parameters, and no flags. Parameters over
/// the protocol's cap are left out; the proxy knows half as many.
pub fn encode_identity(params: &[(&str, ParamValue<'_>)], writer: &mut Writer<'_>) {
    encode_params(params.get(..IDENTITY_PARAMS).unwrap_or(params), writer);
    writer.u32(0);
}

/// Writes typed parameters.
pub fn encode_params(params: &[(&str, ParamValue<'_>)], writer: &mut Writer<'_>) {
    writer.u32(u32::try_from(params.len()).unwrap_or(0));
    for (field, value) in params {
        writer.string(field);
        value.encode(writer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connect_open_is_read_as_virsh_writes_it() {
        let mut payload = Vec::new();
        let open = ConnectOpen {
            name: Some("test:///default"),
            flags: OPEN_READONLY,
        };
        open.encode(&mut Writer::new(&mut payload));
        let on_the_wire = b"\0\0\0\x01\0\0\0\x0ftest:///default\0\0\0\0\x01";
        assert_eq!(payload, on_the_wire);
        assert_eq!(ConnectOpen::decode(&payload), Ok(open));
    }

    #[test]
    fn connect_open_without_a_name() {
        let payload = [0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(
            ConnectOpen::decode(&payload),
            Ok(ConnectOpen {
                name: None,
                flags: 0
            })
        );
    }

    #[test]
    fn an_auth_list_gives_its_first_type() {
        assert_eq!(AuthType::decode_list(&[0, 0, 0, 0]), Ok(AuthType::NONE));
        let two = [0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 0];
        assert_eq!(AuthType::decode_list(&two), Ok(AuthType::POLKIT));
        let many = [0, 0, 0, 21];
        assert!(AuthType::decode_list(&many).is_err());
    }

    #[test]
    fn identity_parameters_carry_their_type() {
        let mut payload = Vec::new();
        let params = [
            ("process-id", ParamValue::I64(5)),
            ("user-name", ParamValue::Text("u".into())),
        ];
        encode_identity(&params, &mut Writer::new(&mut payload));
        let expected = b"\0\0\0\x02\
            \0\0\0\x0aprocess-id\0\0\0\0\0\x03\0\0\0\0\0\0\0\x05\
            \0\0\0\x09user-name\0\0\0\0\0\0\x07\0\0\0\x01u\0\0\0\
            \0\0\0\0";
        assert_eq!(payload, expected);
    }

    #[test]
    fn values_of_every_kind_are_read_as_they_were_written() {
        let values = [
            (ParamValue::I32(-1), 1),
            (ParamValue::U32(u32::MAX), 2),
            (ParamValue::I64(i64::MIN), 3),
            (ParamValue::U64(u64::MAX), 4),
            (ParamValue::F64(-0.5), 5),
            (ParamValue::Bool(true), 6),
            (ParamValue::Text("ä".into()), 7),
        ];
        for (value, kind) in values {
            let mut bytes = Vec::new();
            value.encode(&mut Writer::new(&mut bytes));
            assert_eq!(bytes.get(..4), Some(&[0, 0, 0, kind][..]));
            let mut reader = Reader::new(&bytes);
            let read = ParamValue::decode(&mut reader);
            assert_eq!((read, reader.finish()), (Ok(value), Ok(())));
        }
        for kind in [0, 8] {
            let bytes = [0, 0, 0, kind, 0, 0, 0, 0];
            let mut reader = Reader::new(&bytes);
            let read = ParamValue::decode(&mut reader);
            assert_eq!(read, Err(XdrError::UnknownKind(kind.into())));
        }
        let mut truth = Reader::new(&[0, 0, 0, 6, 0, 0, 0, 2]);
        assert_eq!(ParamValue::decode(&mut truth), Err(XdrError::NotBoolean(2)));
    }
}
