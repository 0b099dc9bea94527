//! The little XDR that scripted clients and upstreams need. The tests have their own, so that a
//! mistake in the crate's cannot hide itself.

use std::collections::BTreeMap;

/// Appends XDR values to a message body.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn u32(mut self, value: u32) -> Self {
        self.bytes.extend(value.to_be_bytes());
        self
    }

    pub(crate) fn i32(self, value: i32) -> Self {
        self.u32(value.cast_unsigned())
    }

    pub(crate) fn u64(mut self, value: u64) -> Self {
        self.bytes.extend(value.to_be_bytes());
        self
    }

    /// Bytes that are XDR already.
    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend(bytes);
        self
    }

    /// What another writer has written.
    pub(crate) fn then(self, other: Self) -> Self {
        self.raw(&other.bytes)
    }

    pub(crate) fn string(self, value: &str) -> Self {
        self.opaque(value.as_bytes())
    }

    /// `bytes<>`, or a string of any bytes.
    pub(crate) fn opaque(mut self, value: &[u8]) -> Self {
        self = self.u32(u32::try_from(value.len()).unwrap());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    /// `uuid`
    pub(crate) fn fixed(mut self, value: &[u8; 16]) -> Self {
        self.bytes.extend(value);
        self
    }

    /// `typed_param_value`
    pub(crate) fn typed_value(self, value: &TypedValue) -> Self {
        match value {
            TypedValue::Int(value) => self.u32(1).i32(*value),
            TypedValue::UInt(value) => self.u32(2).u32(*value),
            TypedValue::LLong(value) => self.u32(3).u64(value.cast_unsigned()),
            TypedValue::ULLong(value) => self.u32(4).u64(*value),
            TypedValue::Double(value) => self.u32(5).u64(*value),
            TypedValue::Boolean(value) => self.u32(6).u32(u32::from(*value)),
            TypedValue::String(value) => self.u32(7).string(value),
        }
    }

    /// `string?`
    pub(crate) fn optional(self, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.u32(1).string(value),
            None => self.u32(0),
        }
    }

    pub(crate) fn end(self) -> Vec<u8> {
        self.bytes
    }
}

/// Takes XDR values from a message body; a body that is too short fails the test.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self
            .rest
            .split_at_checked(len)
            .expect("the body is long enough");
        self.rest = rest;
        taken
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().unwrap())
    }

    pub(crate) fn i32(&mut self) -> i32 {
        self.u32().cast_signed()
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.take(8).try_into().unwrap())
    }

    pub(crate) fn string(&mut self) -> String {
        String::from_utf8_lossy(&self.opaque()).into_owned()
    }

    /// `bytes<>`
    pub(crate) fn opaque(&mut self) -> Vec<u8> {
        let len = self.u32() as usize;
        self.take(len.next_multiple_of(4))[..len].to_vec()
    }

    /// `uuid`
    pub(crate) fn fixed(&mut self) -> [u8; 16] {
        self.take(16).try_into().unwrap()
    }

    /// `string?`
    pub(crate) fn optional(&mut self) -> Option<String> {
        (self.u32() != 0).then(|| self.string())
    }

    /// `typed_param[]`
    pub(crate) fn typed_params(&mut self) -> BTreeMap<String, TypedValue> {
        let count = self.u32();
        (0..count)
            .map(|_| (self.string(), self.typed_value()))
            .collect()
    }

    pub(crate) fn typed_value(&mut self) -> TypedValue {
        match self.u32() {
            1 => TypedValue::Int(self.i32()),
            6 => TypedValue::Boolean(self.i32() != 0),
            2 => TypedValue::UInt(self.u32()),
            3 => TypedValue::LLong(self.u64().cast_signed()),
            4 => TypedValue::ULLong(self.u64()),
            5 => TypedValue::Double(self.u64()),
            7 => TypedValue::String(self.string()),
            other => panic!("typed parameter of type {other}"),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

/// The value of a typed parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TypedValue {
    Int(i32),
    UInt(u32),
    LLong(i64),
    ULLong(u64),
    /// By its bits, which can be compared.
    Double(u64),
    Boolean(bool),
    String(String),
}
