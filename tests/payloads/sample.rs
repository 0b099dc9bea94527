//! Payloads made from shapes, with XDR of its own, so that a mistake in the crate's reader cannot
//! hide itself.

use std::ops::Range;

use virtproxyd::protocol::object::Class;
use virtproxyd::protocol::shape::{Field, Shape};

/// How much is in a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fill {
    /// Empty strings and arrays, nothing optional.
    Minimal,
    /// Text, elements in every array, everything optional.
    Filled,
}

/// What is at a place of a sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The word that says whether an optional value follows.
    Optional,
    /// A length of at most this.
    Length(usize),
    /// The bytes of a string, without its length and padding.
    Text,
    /// Padding.
    Padding,
    /// The word that says the kind of a parameter's value.
    Kind,
    /// An object.
    Object(Class),
}

/// A payload and what is where in it.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    pub(crate) bytes: Vec<u8>,
    pub(crate) marks: Vec<(Mark, Range<usize>)>,
    /// Makes values differ from each other.
    number: u32,
}

impl Sample {
    /// A payload of these fields.
    pub(crate) fn of(fields: &[Field], fill: Fill) -> Self {
        let mut sample = Self::default();
        for field in fields {
            sample.value(&field.shape, fill);
        }
        sample
    }

    /// The places with this mark.
    pub(crate) fn places(&self, wanted: impl Fn(&Mark) -> bool) -> Vec<Range<usize>> {
        let marks = self.marks.iter().filter(|(mark, _)| wanted(mark));
        marks.map(|(_, place)| place.clone()).collect()
    }

    /// Appends a value.
    pub(crate) fn value(&mut self, shape: &Shape, fill: Fill) {
        self.number += 1;
        match shape {
            Shape::I8 | Shape::U8 => self.word(self.number % 128),
            Shape::I32 | Shape::U32 => self.word(self.number),
            Shape::I64 | Shape::U64 | Shape::F64 => {
                self.word(self.number);
                self.word(0);
            }
            Shape::Uuid => self.bytes.extend([self.number.to_be_bytes(); 4].concat()),
            Shape::String => self.text(fill),
            Shape::Bytes(bound) => {
                let count = if fill == Fill::Filled { 5 } else { 0 };
                self.length(count, *bound);
                self.bytes.extend(vec![0xff; count]);
                self.pad();
            }
            Shape::Array(element, bound) => {
                let count = if fill == Fill::Filled { 2 } else { 0 };
                self.length(count, *bound);
                for _ in 0..count {
                    self.value(element, fill);
                }
            }
            Shape::Fixed(element, count) => {
                for _ in 0..*count {
                    self.value(element, fill);
                }
            }
            Shape::Optional(inner) => {
                let there = fill == Fill::Filled;
                self.marked(Mark::Optional, |sample| sample.word(there.into()));
                if there {
                    self.value(inner, fill);
                }
            }
            Shape::Struct(record) => {
                let start = self.bytes.len();
                for field in record.fields {
                    self.value(&field.shape, fill);
                }
                if let Some(class) = record.class {
                    let place = start..self.bytes.len();
                    self.marks.push((Mark::Object(class), place));
                }
            }
            Shape::ParamValue => self.param(fill),
        }
    }

    fn param(&mut self, fill: Fill) {
        let kind = self.number % 7 + 1;
        self.marked(Mark::Kind, |sample| sample.word(kind));
        match kind {
            1 | 2 => self.word(self.number),
            3..=5 => self.bytes.extend([1; 8]),
            6 => self.word(1),
            _ => self.text(fill),
        }
    }

    fn text(&mut self, fill: Fill) {
        // Of all lengths modulo four, beyond ASCII too.
        let text = match fill {
            Fill::Minimal => String::new(),
            Fill::Filled => format!("ü{}", "x".repeat(self.number as usize % 5)),
        };
        self.length(text.len(), 4_194_304);
        self.marked(Mark::Text, |sample| sample.bytes.extend(text.bytes()));
        self.pad();
    }

    fn pad(&mut self) {
        self.marked(Mark::Padding, |sample| {
            let whole = sample.bytes.len().next_multiple_of(4);
            sample.bytes.resize(whole, 0);
        });
    }

    fn length(&mut self, count: usize, bound: usize) {
        self.marked(Mark::Length(bound), |sample| {
            sample.word(u32::try_from(count).unwrap());
        });
    }

    fn word(&mut self, word: u32) {
        self.bytes.extend(word.to_be_bytes());
    }

    fn marked(&mut self, mark: Mark, write: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        write(self);
        if self.bytes.len() > start {
            self.marks.push((mark, start..self.bytes.len()));
        }
    }
}
