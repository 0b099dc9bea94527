//! Each client sees its own.
