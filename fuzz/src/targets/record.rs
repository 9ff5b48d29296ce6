//! Records of the catalog's journal, which stand in its database and in control messages too.

use super::journal;
use blockframe::format::journal::Record;

/// What is read is what would be written, byte for byte.
pub fn run(input: &[u8]) {
    let Ok(record) = Record::from_bytes(input) else { return };
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    assert_eq!(bytes, input);
}

/// The records of the golden journal.
pub fn seeds() -> Vec<Vec<u8>> {
    let encoded = |record: &Record| {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        bytes
    };
    journal::golden_records().iter().map(encoded).collect()
}
