//! Promises of the staging area.

mod encrypted;
mod plain;

use super::{Admission, StagedFile, StagingArea, StagingError, StagingKeys, StagingLimits};
use crate::base::{ArchiveId, ContentRange, Secret};
use crate::keys::{ArchiveKeys, Epoch};
use std::path::Path;
use std::sync::Arc;

const PLENTY: StagingLimits = StagingLimits { quota: 1 << 40, reserve: 0 };

/// Keys of some archive.
fn keys_of(byte: u8) -> StagingKeys {
    let key = || Secret::filled_by(|bytes| bytes.fill(byte));
    let archive = ArchiveId::from_bytes([byte; 16]);
    StagingKeys::of(&ArchiveKeys::new(archive, key(), vec![(Epoch::FIRST, key())]).unwrap())
}

fn the_keys() -> StagingKeys {
    keys_of(1)
}

fn range(start: u64, end: u64) -> ContentRange {
    ContentRange::between(start, end)
}

/// A base of which nothing may be asked.
fn no_base(range: ContentRange, _: &mut [u8]) -> Result<(), StagingError> {
    panic!("{range} of a base that there is not");
}

fn content(file: &StagedFile) -> Vec<u8> {
    let mut bytes = vec![0xEE; file.size() as usize];
    assert_eq!(file.read(0, &mut bytes, &mut no_base).unwrap(), bytes.len());
    bytes
}

/// Publishes as the journal would have it.
fn publish_durably(file: &StagedFile) -> super::Published {
    let published = file.publish().unwrap();
    file.sync().unwrap();
    file.published_is_durable(published.generation);
    published
}

/// Never waits.
struct Never;

impl Admission for Never {
    fn can_drain(&self) -> bool {
        false
    }
}
