//! The recovery phrase: a secret that people can write down.
//!
//! 32 random bytes and one byte of checksum as 24 words, exactly as BIP-39
//! encodes 256 bits of entropy
//! (<https://github.com/bitcoin/bips/blob/master/bip-0039.mediawiki>). The
//! bytes themselves open a slot; BIP-39's way from words to a seed is not used.

use super::words::{self, Words, WordsError};
use crate::base::{ErrorClass, Secret};
use zeroize::Zeroizing;

/// Words of a phrase.
pub const PHRASE_WORDS: usize = 24;
/// What a phrase's text for a QR code begins with.
const CODE_PREFIX: &str = "BLOCKFRAME-PHRASE:";

/// Why a text is not a recovery phrase.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PhraseError {
    /// A word that is not in the list, or not 24 of them.
    #[error("the recovery phrase is not right: {0}")]
    Words(#[from] WordsError),
    /// All words are in the list, but they do not belong together.
    #[error(
        "the recovery phrase is not right: its words are all in the list, but its checksum is wrong; \
         compare it word by word with what was written down, also the order"
    )]
    Checksum,
}

impl PhraseError {
    /// What kind of failure it is.
    pub fn class(&self) -> ErrorClass {
        ErrorClass::WrongKey
    }
}

/// 32 secret bytes that are written as 24 words.
#[derive(Debug, Clone)]
pub struct RecoveryPhrase(Secret<32>);

impl RecoveryPhrase {
    /// A new phrase.
    ///
    /// # Panics
    /// If the operating system gives no random bytes.
    pub fn random() -> Self {
        Self(Secret::filled_by(|bytes| words::fill_random(bytes)))
    }

    /// The phrase whose bytes are `secret`.
    pub fn of(secret: Secret<32>) -> Self {
        Self(secret)
    }

    /// Reads a phrase: 24 words in order. Case, white space, and numbers
    /// before words do not matter. Of a page that it was printed on, the words
    /// of its code count.
    pub fn parse(text: &str) -> Result<Self, PhraseError> {
        let mut first = None;
        for code in words::behind(CODE_PREFIX, text) {
            match Self::of_words(code.split('<').next().unwrap_or_default()) {
                Ok(phrase) => return Ok(phrase),
                Err(error) => first = first.or(Some(error)),
            }
        }
        first.map_or_else(|| Self::of_words(text), Err)
    }

    fn of_words(text: &str) -> Result<Self, PhraseError> {
        let bytes = words::bytes_of::<33>(text)?;
        let phrase = Self(Secret::filled_by(|secret| secret.copy_from_slice(&bytes[..32])));
        if phrase.checksum() == bytes[32] { Ok(phrase) } else { Err(PhraseError::Checksum) }
    }

    /// The words.
    pub fn words(&self) -> Words {
        let mut bytes = Zeroizing::new([0; 33]);
        bytes[..32].copy_from_slice(self.0.expose());
        bytes[32] = self.checksum();
        Words::of(&*bytes)
    }

    /// The phrase as one line of capital letters, which a QR code holds in little room.
    pub fn code(&self) -> Zeroizing<String> {
        let mut words = self.words().text();
        words.make_ascii_uppercase();
        // All room at once: growing would leave a copy behind.
        let mut code = Zeroizing::new(String::with_capacity(CODE_PREFIX.len() + 1 + words.len()));
        code.push_str(CODE_PREFIX);
        code.push(' ');
        code.push_str(&words);
        code
    }

    /// The bytes that the words stand for.
    pub fn secret(&self) -> &Secret<32> {
        &self.0
    }

    /// BIP-39: as many bits of SHA-256 as the entropy has 32 bits.
    fn checksum(&self) -> u8 {
        words::sha256(self.0.expose())[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn phrase(bytes: [u8; 32]) -> RecoveryPhrase {
        RecoveryPhrase::of(Secret::filled_by(|secret| *secret = bytes))
    }

    /// The vectors of 256 bits that BIP-39 names (trezor/python-mnemonic, vectors.json).
    const VECTORS: [(&str, &str); 8] = [
        (
            "0000000000000000000000000000000000000000000000000000000000000000",
            "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon \
             abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon art",
        ),
        (
            "7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f",
            "legal winner thank year wave sausage worth useful legal winner thank year wave sausage worth useful legal \
             winner thank year wave sausage worth title",
        ),
        (
            "8080808080808080808080808080808080808080808080808080808080808080",
            "letter advice cage absurd amount doctor acoustic avoid letter advice cage absurd amount doctor acoustic \
             avoid letter advice cage absurd amount doctor acoustic bless",
        ),
        (
            "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
            "zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo vote",
        ),
        (
            "00ac97c48106f0aeb8ba061e0250a559b3251dc35854e694780ba51d53a50120",
            "absent gorilla van acoustic humor firm title dolphin bulk barely citizen recall crane moment aspect \
             appear track phrase actual enforce steel spoon afraid benefit",
        ),
        (
            "3edc83b60740d77af3afa2fcb82c2f1bc541ee4e2518ddef4996d32453f54a3c",
            "disagree tomato unique attend aspect runway solid violin witness scrap armed daring favorite warm decade \
             perfect target kid grant play early wide cigar night",
        ),
        (
            "89bb4bc5555992cdaf3444c5e7ca5a6e9f27efab894f1990bae41be8b2a26ea4",
            "meadow surge vanish primary odor grocery rubber mass shine dinner notable tag venue water purchase \
             clarify book magic ribbon daughter menu eye ritual orchard",
        ),
        (
            "911fec0fbd88029f6fa99164896c18d898c9232af18bdcca3e42d53b86493104",
            "much youth advance kitchen lens exile salt cram goose enter alert raise milk muscle profit cousin system \
             faint mouse price reveal cause series long",
        ),
    ];

    #[test]
    fn the_words_are_those_of_bip_39() {
        for (bytes, words) in VECTORS {
            let phrase = phrase(hex::decode(bytes).unwrap().try_into().unwrap());
            assert_eq!(*phrase.words().text(), words);
            assert_eq!(phrase.words().iter().len(), PHRASE_WORDS);
            assert_eq!(hex::encode(RecoveryPhrase::parse(words).unwrap().secret().expose()), bytes);
        }
    }

    proptest! {
        #[test]
        fn a_phrase_is_read_however_it_was_written(bytes: [u8; 32], marks in prop::collection::vec(0..6usize, 24)) {
            let phrase = phrase(bytes);
            let mut text = String::from("\n");
            for (number, (word, mark)) in phrase.words().iter().zip(marks).enumerate() {
                let number = number + 1;
                text += &match mark {
                    0 => format!("{word} "),
                    1 => format!("{number}. {}\t", word.to_uppercase()),
                    2 => format!("{number:2}.{word}\r\n"),
                    3 => format!("#{number}) \u{a0}{word},\u{3000}"),
                    4 => format!("{}{} ", word[..1].to_uppercase(), &word[1..]),
                    _ => format!("\u{feff}{number}: {word};\n\n"),
                };
            }
            let read = RecoveryPhrase::parse(&text).unwrap();
            prop_assert_eq!(read.secret().expose(), &bytes);
        }

        #[test]
        fn a_word_too_few_or_too_many_is_counted(bytes: [u8; 32], at in 0..24usize) {
            let phrase = phrase(bytes);
            let words: Vec<_> = phrase.words().iter().collect();
            let mut fewer = words.clone();
            fewer.remove(at);
            let mut more = words;
            more.insert(at, "zoo");
            for (words, found) in [(fewer, 23), (more, 25)] {
                prop_assert_eq!(
                    RecoveryPhrase::parse(&words.join(" ")).unwrap_err(),
                    PhraseError::Words(WordsError::Count { found, expected: 24 })
                );
            }
        }

        #[test]
        fn another_text_never_panics(text: String) {
            prop_assert!(RecoveryPhrase::parse(&text).is_err());
        }
    }

    #[test]
    fn another_word_is_noticed_255_times_in_256() {
        let phrase = phrase([7; 32]);
        let words: Vec<_> = phrase.words().iter().collect();
        let mut unnoticed = 0;
        for at in 0..24 {
            for other in ["zoo", "abandon", "sphere", "wolf", "hammer", "item", "paper", "olive"] {
                let mut changed = words.clone();
                changed[at] = other;
                match RecoveryPhrase::parse(&changed.join(" ")) {
                    Ok(read) => unnoticed += usize::from(read.secret().expose() != phrase.secret().expose()),
                    Err(error) => assert_eq!(error, PhraseError::Checksum),
                }
            }
        }
        assert!(unnoticed <= 5, "{unnoticed} of {}", 24 * 8);
    }

    #[test]
    fn phrases_differ_and_are_never_printed() {
        let (one, other) = (RecoveryPhrase::random(), RecoveryPhrase::random());
        assert_ne!(one.secret().expose(), other.secret().expose());
        assert_eq!(format!("{one:?} {:?}", one.words()), "RecoveryPhrase(Secret<32>) Words<24>");
    }
}
