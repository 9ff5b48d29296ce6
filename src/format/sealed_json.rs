//! JSON documents that notice any flipped byte: manifest, descriptors.
//!
//! The document's last member is `"checksum": "<64 hex digits>"`: BLAKE3 of
//! the whole file with those 64 digits replaced by `0`. White space counts.

use super::FormatError;
use crate::base::Digest;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::ops::RangeInclusive;

const BEFORE_MARK: &[u8] = b",\n  ";
const MARK: &[u8] = b"\"checksum\": \"";
const END: &[u8] = b"\"\n}\n";

/// The document's bytes, checksum included. `value` must serialise to an
/// object with at least one member and none named `checksum`.
pub fn seal<T: Serialize>(what: &'static str, value: &T) -> Result<Vec<u8>, FormatError> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|source| FormatError::Json { what, source })?;
    if !bytes.ends_with(b"\n}") {
        return Err(FormatError::invalid(what, "only a non-empty object can be sealed"));
    }
    bytes.truncate(bytes.len() - 2);
    bytes.extend_from_slice(BEFORE_MARK);
    bytes.extend_from_slice(MARK);
    let at = bytes.len();
    bytes.extend_from_slice(&[b'0'; 64]);
    bytes.extend_from_slice(END);
    let digest = Digest::of(&bytes).to_hex();
    bytes[at..at + 64].copy_from_slice(digest.as_bytes());
    Ok(bytes)
}

/// Checks the checksum, then parses.
pub fn open<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, FormatError> {
    let body = unseal(bytes).ok_or(FormatError::Checksum { what })?;
    serde_json::from_slice(&body).map_err(|source| FormatError::Json { what, source })
}

/// As [`open`], for a document whose members `format` and `version` must have
/// these values: they are looked at before anything else, so that a newer
/// version is called by its name.
pub fn open_as<T: DeserializeOwned>(
    what: &'static str,
    format: &str,
    version: u64,
    bytes: &[u8],
) -> Result<T, FormatError> {
    open_as_one_of(what, format, version..=version, bytes)
}

/// As [`open_as`], for a document of which several versions are known.
pub fn open_as_one_of<T: DeserializeOwned>(
    what: &'static str,
    format: &str,
    versions: RangeInclusive<u64>,
    bytes: &[u8],
) -> Result<T, FormatError> {
    #[derive(Deserialize)]
    struct Probe {
        format: String,
        version: u64,
    }
    let probe: Probe = open(what, bytes)?;
    if probe.format != format {
        return Err(FormatError::invalid(what, format!("it is a \"{}\"", probe.format)));
    }
    if !versions.contains(&probe.version) {
        return Err(FormatError::Version { what, found: probe.version, known: *versions.end() });
    }
    open(what, bytes)
}

/// The document without its checksum member, if the checksum holds.
fn unseal(bytes: &[u8]) -> Option<Vec<u8>> {
    let at = bytes.len().checked_sub(END.len() + 64)?;
    let head = bytes.get(..at)?;
    if !bytes.ends_with(END) || !head.ends_with(MARK) {
        return None;
    }
    let mut zeroed = bytes.to_vec();
    zeroed[at..at + 64].fill(b'0');
    if Digest::of(&zeroed).to_hex().as_bytes() != bytes.get(at..at + 64)? {
        return None;
    }
    // Nothing may hide before the checksum, and it is no part of the document.
    let mut body = head[..at - MARK.len()].strip_suffix(BEFORE_MARK)?.to_vec();
    body.extend_from_slice(b"\n}");
    Some(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn nothing_hides_between_the_last_member_and_the_checksum() {
        let good = seal("test", &BTreeMap::from([("a", 1)])).unwrap();
        let text = String::from_utf8(good).unwrap();
        for hidden in [",\n  \"b\": 2 \n  ", ", junk ", ",\n\n  ", ","] {
            let changed = text.replace(",\n  \"checksum\"", &format!("{hidden}\"checksum\""));
            let at = changed.len() - END.len() - 64;
            let zeroed = format!("{}{}{}", &changed[..at], "0".repeat(64), &changed[at + 64..]);
            let sealed = zeroed.replace(&"0".repeat(64), &Digest::of(zeroed.as_bytes()).to_hex());
            let opened = open::<BTreeMap<String, i32>>("test", sealed.as_bytes());
            assert!(matches!(opened, Err(FormatError::Checksum { .. })), "{hidden:?}: {opened:?}");
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let value = BTreeMap::from([("a".to_string(), 1), ("b".to_string(), 2)]);
        let bytes = seal("test", &value).unwrap();
        assert_eq!(open::<BTreeMap<String, i32>>("test", &bytes).unwrap(), value);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bad = bytes.clone();
                bad[at] ^= 1 << bit;
                assert!(open::<BTreeMap<String, i32>>("test", &bad).is_err(), "byte {at} bit {bit}");
            }
        }
        for cut in 0..bytes.len() {
            assert!(open::<BTreeMap<String, i32>>("test", &bytes[..cut]).is_err());
        }
    }
}
