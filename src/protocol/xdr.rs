//! XDR (RFC 4506) over slices: a bounded cursor and a writer, for the messages that the proxy
//! reads or writes itself. Strings and opaque data are borrowed from the frame, and every length
//! is checked against its own cap and against what is really there before it is used.

use std::fmt;

/// Why a payload could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XdrError {
    /// It ends inside a value.
    Truncated,
    /// A length is over its cap.
    TooLong {
        /// What it said.
        length: u32,
        /// What is allowed.
        cap: usize,
    },
    /// A string is not UTF-8, or holds a NUL.
    NotText,
    /// An optional or a boolean is neither 0 nor 1.
    NotBoolean(u32),
    /// The bytes that fill up to the next word are not zero.
    Padding,
    /// The kind of a typed parameter's value is none of libvirt's.
    UnknownKind(u32),
    /// Bytes are left over after the last value.
    Trailing(usize),
    /// A reply that was to be filtered holds no list of objects.
    NoList,
}

impl fmt::Display for XdrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("the payload ends inside a value"),
            Self::TooLong { length, cap } => write!(f, "length {length} is over the cap of {cap}"),
            Self::NotText => f.write_str("a string is not text"),
            Self::NotBoolean(word) => write!(f, "{word} is not a boolean"),
            Self::Padding => f.write_str("padding is not zero"),
            Self::UnknownKind(kind) => write!(f, "{kind} is not a kind of parameter"),
            Self::NoList => f.write_str("there is no list to filter"),
            Self::Trailing(count) => write!(f, "{count} bytes are left over"),
        }
    }
}

impl std::error::Error for XdrError {}

/// A cursor that cannot read past its slice.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the beginning of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes that have not been read yet.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next `count` bytes as they are.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], XdrError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or(XdrError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// An unsigned word.
    pub fn u32(&mut self) -> Result<u32, XdrError> {
        self.fixed().map(u32::from_be_bytes)
    }

    /// A signed word.
    pub fn i32(&mut self) -> Result<i32, XdrError> {
        self.u32().map(u32::cast_signed)
    }

    /// An unsigned double word.
    pub fn u64(&mut self) -> Result<u64, XdrError> {
        self.fixed().map(u64::from_be_bytes)
    }

    /// A signed double word.
    pub fn i64(&mut self) -> Result<i64, XdrError> {
        self.fixed().map(i64::from_be_bytes)
    }

    /// `N` bytes of fixed opaque data; `N` is a multiple of four.
    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N], XdrError> {
        let (data, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(XdrError::Truncated)?;
        self.rest = rest;
        Ok(*data)
    }

    /// A length word of at most `cap`.
    pub fn length(&mut self, cap: usize) -> Result<usize, XdrError> {
        let length = self.u32()?;
        match usize::try_from(length) {
            Ok(count) if count <= cap => Ok(count),
            _ => Err(XdrError::TooLong { length, cap }),
        }
    }

    /// Opaque data of at most `cap` bytes, with its padding.
    pub fn opaque(&mut self, cap: usize) -> Result<&'a [u8], XdrError> {
        let count = self.length(cap)?;
        let data = self.take(count)?;
        let filler = self.take(padding(count))?;
        if filler.iter().any(|byte| *byte != 0) {
            return Err(XdrError::Padding);
        }
        Ok(data)
    }

    /// A string of at most `cap` bytes. libvirt's strings are C strings: a NUL inside would make
    /// two readers see two different strings, so it is refused.
    pub fn string(&mut self, cap: usize) -> Result<&'a str, XdrError> {
        let text = std::str::from_utf8(self.opaque(cap)?).map_err(|_| XdrError::NotText)?;
        if text.contains('\0') {
            Err(XdrError::NotText)
        } else {
            Ok(text)
        }
    }

    /// The word before an optional value: whether it is there.
    pub fn present(&mut self) -> Result<bool, XdrError> {
        match self.u32()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(XdrError::NotBoolean(other)),
        }
    }

    /// An optional string of at most `cap` bytes.
    pub fn optional_string(&mut self, cap: usize) -> Result<Option<&'a str>, XdrError> {
        if self.present()? {
            self.string(cap).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Ends the reading; leftovers are an error, for they mean that the two sides do not agree.
    pub fn finish(self) -> Result<(), XdrError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(XdrError::Trailing(self.rest.len()))
        }
    }
}

fn padding(count: usize) -> usize {
    count.wrapping_neg() % 4
}

/// What `values` writes, as bytes of their own.
pub fn write(values: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    values(&mut Writer::new(&mut bytes));
    bytes
}

/// Appends values to a byte vector.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// Writes at the end of `out`.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// An unsigned word.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.out.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// A signed word.
    pub fn i32(&mut self, value: i32) -> &mut Self {
        self.u32(value.cast_unsigned())
    }

    /// An unsigned double word.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.out.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// A signed double word.
    pub fn i64(&mut self, value: i64) -> &mut Self {
        self.u64(value.cast_unsigned())
    }

    /// A string. The proxy's own strings are short, and what it repeats of a client's was bounded
    /// when it was read; a string over 4 GiB cannot occur and would be cut.
    pub fn string(&mut self, value: &str) -> &mut Self {
        self.opaque(value.as_bytes())
    }

    /// Opaque data, under 4 GiB as strings are.
    pub fn opaque(&mut self, value: &[u8]) -> &mut Self {
        let count = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self.u32(count);
        self.out.extend_from_slice(value);
        self.out
            .extend(std::iter::repeat_n(0, padding(value.len())));
        self
    }

    /// Bytes that are XDR already.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// An optional string.
    pub fn optional_string(&mut self, value: Option<&str>) -> &mut Self {
        match value {
            Some(value) => self.u32(1).string(value),
            None => self.u32(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_carry_their_padding() {
        for text in ["", "a", "ab", "abc", "abcd", "abcde"] {
            let mut out = Vec::new();
            Writer::new(&mut out).string(text).u32(7);
            assert_eq!(out.len() % 4, 0);
            let mut reader = Reader::new(&out);
            assert_eq!(reader.string(10), Ok(text));
            assert_eq!(reader.u32(), Ok(7));
            assert_eq!(reader.finish(), Ok(()));
        }
    }

    #[test]
    fn a_length_over_its_cap_or_its_frame_is_refused() {
        let long = [0, 0, 0, 9, b'a', b'b', b'c', b'd'];
        assert_eq!(
            Reader::new(&long).string(8),
            Err(XdrError::TooLong { length: 9, cap: 8 })
        );
        assert_eq!(Reader::new(&long).string(9), Err(XdrError::Truncated));
        let huge = [0xff; 8];
        let cap = usize::MAX;
        assert_eq!(Reader::new(&huge).opaque(cap), Err(XdrError::Truncated));
    }

    #[test]
    fn a_missing_pad_byte_is_a_truncation() {
        assert_eq!(
            Reader::new(&[0, 0, 0, 1, b'a', 0, 0]).string(8),
            Err(XdrError::Truncated)
        );
    }

    #[test]
    fn a_pad_byte_that_is_not_zero_is_refused() {
        for pad in [[1, 0, 0], [0, 0, 1]] {
            let bytes = [&[0, 0, 0, 1, b'a'][..], &pad].concat();
            assert_eq!(Reader::new(&bytes).opaque(8), Err(XdrError::Padding));
        }
    }

    #[test]
    fn double_words_are_read_as_they_were_written() {
        let mut out = Vec::new();
        Writer::new(&mut out).u64(u64::MAX - 1).i64(-2).opaque(b"z");
        let mut reader = Reader::new(&out);
        assert_eq!(reader.u64(), Ok(u64::MAX - 1));
        assert_eq!(reader.i64(), Ok(-2));
        assert_eq!(reader.remaining(), 8);
        assert_eq!(reader.opaque(1), Ok(&b"z"[..]));
        assert_eq!(reader.i64(), Err(XdrError::Truncated));
    }

    #[test]
    fn strings_with_nul_or_broken_utf8_are_not_text() {
        assert_eq!(
            Reader::new(&[0, 0, 0, 2, b'a', 0, 0, 0]).string(8),
            Err(XdrError::NotText)
        );
        assert_eq!(
            Reader::new(&[0, 0, 0, 1, 0xff, 0, 0, 0]).string(8),
            Err(XdrError::NotText)
        );
    }

    #[test]
    fn leftovers_and_odd_booleans_are_errors() {
        assert_eq!(Reader::new(&[1]).finish(), Err(XdrError::Trailing(1)));
        assert_eq!(
            Reader::new(&[0, 0, 0, 2]).present(),
            Err(XdrError::NotBoolean(2))
        );
    }
}
