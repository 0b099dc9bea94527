//! One whole frame in a buffer, and the incremental reader that finds it: "need more", a frame,
//! or a broken one. The payload is borrowed, never copied.

use std::fmt;

use super::header::{Header, MessageType};
use super::limits::{FRAME_DESCRIPTORS, FRAME_MIN, HEADER, LENGTH_WORD};
use super::xdr::Writer;

/// A frame whose every byte has arrived.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// Its header.
    pub header: Header,
    /// What follows the header. For a frame with descriptors this begins with their count.
    pub payload: &'a [u8],
    /// Descriptors that follow the frame, each on a byte of its own.
    pub descriptors: usize,
}

impl<'a> Frame<'a> {
    /// The payload without the descriptor count: what the procedure's arguments are read from.
    #[must_use]
    pub fn arguments(&self) -> &'a [u8] {
        let count = if self.header.kind.carries_descriptors() {
            4
        } else {
            0
        };
        self.payload.get(count..).unwrap_or_default()
    }

    /// Bytes of the frame itself, descriptor bytes not counted.
    #[must_use]
    pub fn len(&self) -> usize {
        FRAME_MIN + self.payload.len()
    }

    /// Bytes that the frame takes on the wire: itself and one for each descriptor.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        self.len() + self.descriptors
    }

    /// A frame holds its header at least.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }
}

/// What is at the head of a buffer.
#[derive(Debug, Clone, Copy)]
pub enum Next<'a> {
    /// Not a whole frame yet.
    Incomplete(Incomplete),
    /// A frame, with all its descriptor bytes.
    Frame(Frame<'a>),
}

/// How much of the frame at the head of a buffer is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incomplete {
    /// Bytes that the buffer must hold before it is worth looking again. At most the cap given, and
    /// [`FRAME_DESCRIPTORS`] more.
    pub need: usize,
    /// Descriptor bytes of the frame that have arrived already.
    pub descriptors: usize,
}

/// A frame that cannot be: its sender does not speak the protocol, and the connection is lost,
/// since nobody knows where the next frame begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// The length does not cover the header.
    TooShort(u32),
    /// The length is over the cap.
    TooLong {
        /// What it said.
        length: u32,
        /// What is allowed.
        cap: usize,
    },
    /// More descriptors than a frame may carry.
    TooManyDescriptors(u32),
    /// It says that it carries descriptors, but not how many.
    NoDescriptorCount,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort(length) => write!(f, "frame length {length} is under {FRAME_MIN}"),
            Self::TooLong { length, cap } => write!(f, "frame length {length} is over {cap}"),
            Self::TooManyDescriptors(count) => {
                write!(f, "{count} descriptors are over {FRAME_DESCRIPTORS}")
            }
            Self::NoDescriptorCount => f.write_str("a frame with descriptors has no count of them"),
        }
    }
}

impl std::error::Error for FrameError {}

/// Looks at the head of `bytes` for a frame of at most `cap` bytes.
pub fn next(bytes: &[u8], cap: usize) -> Result<Next<'_>, FrameError> {
    let Some((word, after)) = bytes.split_first_chunk::<LENGTH_WORD>() else {
        return Ok(Next::Incomplete(Incomplete {
            need: FRAME_MIN,
            descriptors: 0,
        }));
    };
    let word = u32::from_be_bytes(*word);
    let length = match usize::try_from(word) {
        Ok(length) if length < FRAME_MIN => return Err(FrameError::TooShort(word)),
        Ok(length) if length <= cap => length,
        _ => return Err(FrameError::TooLong { length: word, cap }),
    };
    let Some((header, _)) = after.split_first_chunk::<HEADER>() else {
        return Ok(Next::Incomplete(Incomplete {
            need: length,
            descriptors: 0,
        }));
    };
    let header = Header::decode(*header);
    let Some(payload) = bytes.get(FRAME_MIN..length) else {
        return Ok(Next::Incomplete(Incomplete {
            need: length,
            descriptors: 0,
        }));
    };
    let descriptors = descriptor_count(header.kind, payload)?;
    let (need, have) = (length + descriptors, bytes.len());
    if have < need {
        return Ok(Next::Incomplete(Incomplete {
            need,
            descriptors: have - length,
        }));
    }
    Ok(Next::Frame(Frame {
        header,
        payload,
        descriptors,
    }))
}

fn descriptor_count(kind: MessageType, payload: &[u8]) -> Result<usize, FrameError> {
    if !kind.carries_descriptors() {
        return Ok(0);
    }
    let (count, _) = payload
        .split_first_chunk::<4>()
        .ok_or(FrameError::NoDescriptorCount)?;
    let count = u32::from_be_bytes(*count);
    match usize::try_from(count) {
        Ok(descriptors) if descriptors <= FRAME_DESCRIPTORS => Ok(descriptors),
        _ => Err(FrameError::TooManyDescriptors(count)),
    }
}

/// Appends a frame to `out`; `payload` writes what follows the header.
pub fn write(out: &mut Vec<u8>, header: Header, payload: impl FnOnce(&mut Writer<'_>)) {
    let start = out.len();
    let mut writer = Writer::new(out);
    writer.u32(0);
    for word in header.words() {
        writer.u32(word);
    }
    payload(&mut writer);
    let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    if let Some(word) = out.get_mut(start..start + LENGTH_WORD) {
        word.copy_from_slice(&length.to_be_bytes());
    }
}

/// A frame of this header and what follows it.
#[must_use]
pub fn encode(header: Header, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FRAME_MIN + payload.len());
    write(&mut bytes, header, |writer| writer.raw(payload));
    bytes
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]
mod tests {
    use super::super::header::{Procedure, Serial};
    use super::super::limits::FRAME_MAX;
    use super::*;

    fn frame(kind: MessageType, payload: &[u32]) -> Vec<u8> {
        let mut out = Vec::new();
        let header = Header {
            kind,
            ..Header::remote_call(Procedure(7), Serial(5))
        };
        write(&mut out, header, |w| {
            payload.iter().for_each(|word| _ = w.u32(*word))
        });
        out
    }

    #[test]
    fn is_found_byte_by_byte_and_never_early() {
        let mut bytes = frame(MessageType::CALL_WITH_FDS, &[2, 9]);
        let length = bytes.len();
        bytes.extend([0, 0]);
        for have in 0..bytes.len() {
            match next(&bytes[..have], FRAME_MAX).unwrap() {
                Next::Incomplete(incomplete) => {
                    assert!(incomplete.need > have);
                    assert_eq!(incomplete.descriptors, have.saturating_sub(length));
                }
                Next::Frame(frame) => panic!("{frame:?} out of {have} bytes"),
            }
        }
        let Next::Frame(frame) = next(&bytes, FRAME_MAX).unwrap() else {
            panic!()
        };
        assert_eq!(
            (frame.len(), frame.wire_len(), frame.descriptors),
            (length, length + 2, 2)
        );
        assert_eq!(frame.header.serial, Serial(5));
    }

    #[test]
    fn lengths_that_cannot_be_are_errors() {
        for length in [0_u32, 1, 27] {
            assert_eq!(
                next(&length.to_be_bytes(), FRAME_MAX).unwrap_err(),
                FrameError::TooShort(length)
            );
        }
        for length in [33_554_437_u32, 0x8000_0000, u32::MAX] {
            let cap = FRAME_MAX;
            assert_eq!(
                next(&length.to_be_bytes(), cap).unwrap_err(),
                FrameError::TooLong { length, cap }
            );
        }
        assert!(next(&33_554_436_u32.to_be_bytes(), FRAME_MAX).is_ok());
    }

    #[test]
    fn descriptor_counts_that_lie_are_errors() {
        let too_many = frame(MessageType::CALL_WITH_FDS, &[33]);
        let error = next(&too_many, FRAME_MAX).unwrap_err();
        assert_eq!(error, FrameError::TooManyDescriptors(33));
        let none = frame(MessageType::REPLY_WITH_FDS, &[]);
        assert_eq!(
            next(&none, FRAME_MAX).unwrap_err(),
            FrameError::NoDescriptorCount
        );
    }

    #[test]
    fn descriptor_bytes_come_on_top_of_the_cap() {
        let bytes = frame(MessageType::CALL_WITH_FDS, &[32, 0]);
        let cap = bytes.len();
        let Next::Incomplete(incomplete) = next(&bytes, cap).unwrap() else {
            panic!()
        };
        assert_eq!((incomplete.need, incomplete.descriptors), (cap + 32, 0));
        assert_eq!(
            next(&bytes, cap - 1).unwrap_err(),
            FrameError::TooLong {
                length: u32::try_from(cap).unwrap(),
                cap: cap - 1
            }
        );
    }

    #[test]
    fn a_length_is_refused_before_anything_of_the_frame_has_come() {
        assert!(next(&[0, 0, 0], 28).is_ok());
        assert!(next(&[0, 0, 0, 29], 28).is_err());
        assert!(next(&[0, 0, 0, 27], 28).is_err());
    }

    #[test]
    fn arguments_begin_behind_the_descriptor_count() {
        let mut bytes = frame(MessageType::CALL_WITH_FDS, &[1, 9]);
        bytes.push(0);
        let Next::Frame(found) = next(&bytes, FRAME_MAX).unwrap() else {
            panic!()
        };
        assert_eq!(found.arguments(), [0, 0, 0, 9]);
        let bytes = frame(MessageType::CALL, &[1, 9]);
        let Next::Frame(found) = next(&bytes, FRAME_MAX).unwrap() else {
            panic!()
        };
        assert_eq!(found.arguments(), [0, 0, 0, 1, 0, 0, 0, 9]);
    }

    #[test]
    fn unknown_numbers_survive() {
        let header = Header {
            program: super::super::header::Program(1),
            version: 9,
            procedure: Procedure(-1),
            kind: MessageType(77),
            serial: Serial(u32::MAX),
            status: super::super::header::Status(8),
        };
        let mut bytes = Vec::new();
        write(&mut bytes, header, |_| ());
        let Next::Frame(frame) = next(&bytes, FRAME_MAX).unwrap() else {
            panic!()
        };
        assert_eq!(frame.header, header);
    }
}
