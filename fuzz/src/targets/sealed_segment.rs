//! What stands behind the ciphertext of an encrypted segment.

use blockframe::format::sealing::{
    FOOTER_LEN, SealFooter, frame_count, padded_len, padded_of_sealed, parse_tail, sealed_len, tail_len,
};

const TAG: u64 = 16;

/// The input is a length (8 bytes), then tags and a footer that gets its magic and its checksum.
pub fn run(input: &[u8]) {
    let Some((len, tail)) = input.split_first_chunk() else { return };
    lengths(u64::from_le_bytes(*len));
    let mut tail = tail.to_vec();
    tail.resize(tail.len().max(FOOTER_LEN as usize), 0);
    let tags = (tail.len() as u64 - FOOTER_LEN) / TAG;
    tail.drain(..(tail.len() as u64 - FOOTER_LEN - tags * TAG) as usize);
    let at = (tags * TAG) as usize;
    tail[at..at + 8].copy_from_slice(b"BFSEAL1\n");
    let crc = crc32c::crc32c(&tail[at..at + 60]);
    tail[at + 60..].copy_from_slice(&crc.to_le_bytes());
    let padded = tags * 16384;
    let Ok((parsed, footer)) = parse_tail(padded, &tail) else { return };
    assert_eq!((parsed.len() as u64, tail_len(padded)), (tags, tail.len() as u64));
    assert_eq!(parsed.as_flattened(), &tail[..at]);
    assert_eq!(footer.to_bytes()[..], tail[at..]);
    assert_eq!(SealFooter::from_bytes(&footer.to_bytes()).ok(), Some(footer));
    assert!(parse_tail(padded + 16384, &tail).is_err());
}

/// A file's length says how long its stream is.
fn lengths(len: u64) {
    let short = len >> 2;
    let padded = padded_len(short);
    assert!(padded >= short && padded_len(padded) == padded && padded - short <= short.max(4096 * 8) / 8);
    assert_eq!(padded_of_sealed(sealed_len(padded)), Some(padded));
    if let Some(padded) = padded_of_sealed(len) {
        assert!(padded > 0 && frame_count(padded) == padded.div_ceil(16384));
        assert_eq!(sealed_len(padded), len);
    }
}

/// Footers with and without tags.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut none = 4096u64.to_le_bytes().to_vec();
    none.extend_from_slice(&[7; 8]);
    none.extend_from_slice(&[5; 32]);
    none.extend_from_slice(&[1, 0, 0, 0, 1]);
    none.resize(8 + FOOTER_LEN as usize, 0);
    let mut two = (1u64 << 40).to_le_bytes().to_vec();
    two.extend_from_slice(&[3; 32]);
    two.extend_from_slice(&none[8..]);
    vec![none, two]
}
