//! Codes over bytes: no I/O, no knowledge of files.

mod erasure;

pub use erasure::{CodeError, ErasureCode, UNIT};
