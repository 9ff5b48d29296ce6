//! Checksums over what was mutated, so that it gets past them.

use std::ops::Range;

const DIGITS: usize = 64;
const MARK: &str = "\"checksum\": \"";
const END: &str = "\"\n}\n";

/// The JSON object `body` as a sealed document (docs/FORMAT.md, section 2): what stands before its last brace, and the
/// checksum.
pub fn sealed_json(body: &[u8]) -> Vec<u8> {
    let body = &body[..body.iter().rposition(|&byte| byte == b'}').unwrap_or(body.len())];
    let mut bytes = body.trim_ascii_end().to_vec();
    bytes.extend_from_slice(format!(",\n  {MARK}").as_bytes());
    let at = bytes.len();
    bytes.extend_from_slice(&[b'0'; DIGITS]);
    bytes.extend_from_slice(END.as_bytes());
    write_hex(&mut bytes, at);
    bytes
}

/// A sealed document without its checksum.
pub fn unsealed_json(sealed: &[u8]) -> Vec<u8> {
    let tail = format!(",\n  {MARK}").len() + DIGITS + END.len();
    let mut body = sealed[..sealed.len() - tail].to_vec();
    body.extend_from_slice(b"\n}\n");
    body
}

fn write_hex(bytes: &mut [u8], at: usize) {
    let digits = blake3::hash(bytes).to_hex();
    bytes[at..at + DIGITS].copy_from_slice(digits.as_bytes());
}

/// Puts BLAKE3 of `bytes[of]` at `at`, where there is room.
pub fn blake3_at(bytes: &mut [u8], of: Range<usize>, at: usize) {
    let Some(hash) = bytes.get(of).map(blake3::hash) else { return };
    if let Some(place) = bytes.get_mut(at..at + blake3::OUT_LEN) {
        place.copy_from_slice(hash.as_bytes());
    }
}

/// Gives a block of the catalog's journal its magic and CRC32C.
pub fn journal_block(bytes: &mut [u8]) {
    bytes[..4].copy_from_slice(b"BFCJ");
    let crc = crc32c::crc32c(&bytes[8..]);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
}
