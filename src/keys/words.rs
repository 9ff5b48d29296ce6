//! Bytes as words of the English list of BIP-39, eleven bits a word, first bit first.
//!
//! The list is part of a final standard and cannot change, so it lies here as
//! a file; a test checks its published SHA-256.

use sha2::{Digest as _, Sha256};
use std::sync::LazyLock;
use zeroize::{Zeroize as _, Zeroizing};

/// The 2048 words, sorted; each is told by its first four letters.
static LIST: LazyLock<Vec<&'static str>> = LazyLock::new(|| include_str!("bip39_english.txt").lines().collect());
const BITS: usize = 11;
/// Longest part of a wrong word that is compared and shown, characters.
const SHOWN: usize = 24;

/// Why a text is not the words that were expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WordsError {
    /// A word that is not in the list.
    #[error("word {position}, \"{word}\", is not a word of the list; the nearest is \"{nearest}\"")]
    Unknown {
        /// Which word, from 1.
        position: usize,
        /// The word, cut if it is long.
        word: String,
        /// The word of the list that is most like it.
        nearest: &'static str,
    },
    /// Words are missing, or too many.
    #[error("there are {found} words where {expected} are needed; look for one that is missing or written twice")]
    Count {
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
}

/// Words that stand for a secret: zeroised when dropped, and never printed by `Debug`.
pub struct Words(Zeroizing<Vec<u16>>);

impl Words {
    /// The words of `bytes`, whose bits are a multiple of eleven.
    pub(super) fn of(bytes: &[u8]) -> Self {
        debug_assert!((bytes.len() * 8).is_multiple_of(BITS));
        let mut words = Zeroizing::new(Vec::with_capacity(bytes.len() * 8 / BITS));
        let (mut held, mut bits) = (0u32, 0);
        for &byte in bytes {
            held = held << 8 | u32::from(byte);
            bits += 8;
            if bits >= BITS {
                bits -= BITS;
                words.push((held >> bits) as u16 & 0x7ff);
            }
        }
        held.zeroize();
        Self(words)
    }

    /// The words in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'static str> + '_ {
        self.0.iter().map(|&index| LIST[usize::from(index)])
    }

    /// The words with a space between them.
    pub fn text(&self) -> Zeroizing<String> {
        // All room at once: growing would leave copies behind.
        let mut text = Zeroizing::new(String::with_capacity(self.iter().map(|word| word.len() + 1).sum()));
        for (number, word) in self.iter().enumerate() {
            if number > 0 {
                text.push(' ');
            }
            text.push_str(word);
        }
        text
    }
}

impl std::fmt::Debug for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Words<{}>", self.0.len())
    }
}

/// The bytes that the words of `text` stand for, `N * 8 / 11` words. Case,
/// white space, numbers and marks around words do not matter.
pub(super) fn bytes_of<const N: usize>(text: &str) -> Result<Zeroizing<[u8; N]>, WordsError> {
    let expected = N * 8 / BITS;
    let mut bytes = Zeroizing::new([0; N]);
    let (mut held, mut bits, mut at, mut found) = (Zeroizing::new(0u32), 0, 0, 0);
    for word in text.split_whitespace().map(|token| token.trim_matches(|c: char| !c.is_alphabetic())) {
        if word.is_empty() {
            continue;
        }
        found += 1;
        let word: Zeroizing<String> =
            Zeroizing::new(word.chars().take(SHOWN).map(|letter| letter.to_ascii_lowercase()).collect());
        let Ok(index) = LIST.binary_search(&word.as_str()) else {
            return Err(WordsError::Unknown { position: found, word: word.to_string(), nearest: nearest(&word) });
        };
        *held = *held << BITS | index as u32;
        bits += BITS;
        while bits >= 8 {
            bits -= 8;
            // Words beyond the last that is expected are only counted.
            if let Some(byte) = bytes.get_mut(at) {
                *byte = (*held >> bits) as u8;
            }
            at += 1;
        }
    }
    if found == expected { Ok(bytes) } else { Err(WordsError::Count { found, expected }) }
}

/// What stands behind each `prefix` in a text; its case does not matter.
pub(super) fn behind<'a>(prefix: &'a str, text: &'a str) -> impl Iterator<Item = &'a str> {
    let windows = text.as_bytes().windows(prefix.len()).enumerate();
    let (prefix, len) = (prefix.as_bytes(), prefix.len());
    let found = windows.filter(move |(_, window)| window.eq_ignore_ascii_case(prefix));
    // A page has one, and perhaps one in a name; more would only take time.
    found.take(8).filter_map(move |(at, _)| text.get(at + len..))
}

/// The word of the list that `word` was most likely meant to be: one that it
/// begins, or else the one with the fewest changes.
fn nearest(word: &str) -> &'static str {
    let distance = |candidate: &&&'static str| {
        let begun = word.chars().count() >= 3 && candidate.starts_with(word);
        let alike = candidate.bytes().zip(word.bytes()).take_while(|(a, b)| a == b).count();
        (!begun, strsim::damerau_levenshtein(candidate, word), usize::MAX - alike)
    };
    LIST.iter().min_by_key(distance).copied().unwrap_or_default()
}

/// SHA-256, as BIP-39 takes its checksum.
pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Fills `bytes` with randomness of the operating system.
///
/// # Panics
/// If the system has none to give: then nothing secret can be made.
pub(super) fn fill_random(bytes: &mut [u8]) {
    if let Err(error) = getrandom::fill(bytes) {
        panic!("the operating system gives no random bytes: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_the_published_one() {
        let published = "2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda";
        assert_eq!(hex::encode(sha256(include_bytes!("bip39_english.txt"))), published);
        assert_eq!(LIST.len(), 2048);
        assert!(LIST.is_sorted());
    }

    #[test]
    fn every_word_stands_at_every_place() {
        for index in 0..2048usize {
            // Eleven bytes are eight words.
            let numbers: Vec<usize> = (0..8).map(|place| (index + place * 257) % 2048).collect();
            let bits: Vec<bool> =
                numbers.iter().flat_map(|number| (0..11).rev().map(move |bit| number >> bit & 1 == 1)).collect();
            let bytes: Vec<u8> =
                bits.chunks(8).map(|bits| bits.iter().fold(0, |byte, bit| byte << 1 | u8::from(*bit))).collect();
            let words = Words::of(&bytes);
            assert!(words.iter().eq(numbers.iter().map(|&number| LIST[number])));
            assert_eq!(bytes_of::<11>(&words.text()).unwrap()[..], bytes);
        }
    }

    #[test]
    fn a_wrong_word_is_named_with_the_nearest_right_one() {
        let of = |text: &str| bytes_of::<11>(text).unwrap_err();
        for (wrong, right) in [
            ("abandn", "abandon"),
            ("aban", "abandon"),
            ("zooo", "zoo"),
            ("absrub", "absorb"),
            ("fatiuge", "fatigue"),
            ("exspect", "expect"),
            ("Pupilé", "pupil"),
        ] {
            let WordsError::Unknown { position, word, nearest } = of(&format!("zoo 2. ABOUT\n3) {wrong}")) else {
                panic!("{wrong}")
            };
            assert_eq!((position, nearest), (3, right), "{word}");
        }
        let WordsError::Unknown { word, .. } = of(&"ü".repeat(100_000)) else { panic!() };
        assert_eq!(word.chars().count(), SHOWN);
        assert_eq!(of(""), WordsError::Count { found: 0, expected: 8 });
        assert_eq!(of(&"zoo ".repeat(100_000)), WordsError::Count { found: 100_000, expected: 8 });
    }
}
