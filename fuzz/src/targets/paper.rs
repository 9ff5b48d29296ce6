//! What people type from paper: recovery phrases and shares.

use blockframe::base::Secret;
use blockframe::keys::phrase::RecoveryPhrase;
use blockframe::keys::shares::{self, Share};

/// Length of a share without its checksum.
const SHARE: usize = 40;

/// The input is a text, and the bytes of shares, which get their checksums.
pub fn run(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        if let Ok(phrase) = RecoveryPhrase::parse(text) {
            same_phrase(&phrase);
        }
        if let Ok(share) = Share::parse(text) {
            same_share(&share);
        }
    }
    if let Some(bytes) = input.first_chunk::<32>() {
        same_phrase(&RecoveryPhrase::of(Secret::filled_by(|secret| *secret = *bytes)));
    }
    let read: Vec<Share> =
        input.chunks_exact(SHARE).take(8).filter_map(|bytes| Share::parse(&code_of(bytes)).ok()).collect();
    read.iter().for_each(same_share);
    if let Ok(secret) = shares::combine(&read)
        && let Some(first) = read.first()
    {
        let enough = usize::from(first.quorum().threshold());
        assert!(read.len() >= enough && read.iter().all(|share| share.set() == first.set()));
        let again = shares::combine(&shares::split(&secret, first.quorum()));
        assert!(again.is_ok_and(|again| again.expose() == secret.expose()));
    }
}

fn same_phrase(phrase: &RecoveryPhrase) {
    for text in [phrase.words().text(), phrase.code()] {
        let read = RecoveryPhrase::parse(&text);
        assert!(read.is_ok_and(|read| read.secret().expose() == phrase.secret().expose()));
    }
}

fn same_share(share: &Share) {
    assert!(share.index() > 0 && share.index() <= share.quorum().shares());
    for text in [share.words().text(), share.code()] {
        let read = Share::parse(&text);
        assert!(read.is_ok_and(|read| *read.code() == *share.code()));
    }
}

/// A share's bytes as its code, with the checksum that they demand.
fn code_of(bytes: &[u8]) -> String {
    let mut sum = [0; 4];
    blake3::Hasher::new_derive_key("blockframe 1 share checksum").update(bytes).finalize_xof().fill(&mut sum);
    let hex: String = bytes.iter().chain(&sum).map(|byte| format!("{byte:02X}")).collect();
    format!("BLOCKFRAME-SHARE:{hex}")
}

/// A phrase, a share as text and shares as bytes.
pub fn seeds() -> Vec<Vec<u8>> {
    let phrase = RecoveryPhrase::of(Secret::filled_by(|secret| secret.fill(0x7f)));
    let share = |index: u8| [&[1, 9, 8, 7, 6, 2, 3, index][..], &[index; 32]].concat();
    vec![
        phrase.words().text().as_bytes().to_vec(),
        phrase.code().as_bytes().to_vec(),
        code_of(&share(1)).into_bytes(),
        [share(1), share(2)].concat(),
    ]
}
