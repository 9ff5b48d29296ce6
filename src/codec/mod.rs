//! Codes over bytes: no I/O, no knowledge of files.

mod combine;
pub mod compress;
mod erasure;
pub mod seal;
pub mod xts;

pub use combine::Combination;
pub use erasure::{CodeError, ErasureCode, UNIT};
