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

    pub(crate) fn string(mut self, value: &str) -> Self {
        self = self.u32(u32::try_from(value.len()).unwrap());
        self.bytes.extend(value.as_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
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
        let len = self.u32() as usize;
        let padded = self.take(len.next_multiple_of(4));
        String::from_utf8_lossy(&padded[..len]).into_owned()
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

    fn typed_value(&mut self) -> TypedValue {
        match self.u32() {
            1 | 6 => TypedValue::Int(self.i32()),
            2 => TypedValue::UInt(self.u32()),
            3 => TypedValue::LLong(self.u64().cast_signed()),
            4 => TypedValue::ULLong(self.u64()),
            7 => TypedValue::String(self.string()),
            other => panic!("typed parameter of type {other}"),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

/// The value of a typed parameter (a boolean is an `Int`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TypedValue {
    Int(i32),
    UInt(u32),
    LLong(i64),
    ULLong(u64),
    String(String),
}
