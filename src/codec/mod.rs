//! Codes over bytes: no I/O, no knowledge of files.

mod combine;
mod erasure;

pub use combine::Combination;
pub use erasure::{CodeError, ErasureCode, UNIT};
