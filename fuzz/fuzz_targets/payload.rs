//! A payload by the shape that its first bytes choose.
#![no_main]

#[allow(dead_code, unused_imports, reason = "each target runs one of the bodies")]
#[path = "../../tests/fuzz_seeds/bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bodies::payload(bytes));
