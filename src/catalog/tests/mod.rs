//! Tests of the catalog's promises, over a real directory: all of them for an
//! archive that is not encrypted, and for one that is.

mod rollback;
mod sealed_files;

#[path = "suite.rs"]
mod plain;
#[path = "suite.rs"]
#[allow(clippy::duplicate_mod)]
mod sealed;
