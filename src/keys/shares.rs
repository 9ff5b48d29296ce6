//! A secret in shares: any `threshold` of them give it back, fewer tell
//! nothing about it (A. Shamir, "How to Share a Secret", 1979).
//!
//! The scheme is SLIP-39's
//! (<https://github.com/satoshilabs/slips/blob/master/slip-0039.md>): each byte
//! of the secret is a polynomial over GF(256), the secret at 255, a digest of
//! it at 254, share `n` at `n`. The digest makes a wrong combination an error;
//! without it, it would be a wrong secret. The digest is BLAKE3 here, and
//! covers the set and its threshold too, so that nobody can turn the threshold down.
//!
//! Own code, because it is little and the crates do not fit: `blahaj` and
//! `sharks` look the secret's bytes up in tables, whose timing tells about
//! them, and use another field than SLIP-39; `vsss-rs` is made for elliptic
//! curves and brings their crates. Neither has the digest.

use super::gf256::interpolate;
use super::words::{self, Words, WordsError};
use crate::base::{ErrorClass, Secret};
use std::fmt;
use zeroize::Zeroizing;

/// Words of a share.
pub const SHARE_WORDS: usize = 32;
/// Most shares of a secret.
pub const MAX_SHARES: u8 = 100;
/// What a share's text for a QR code begins with.
const CODE_PREFIX: &str = "BLOCKFRAME-SHARE:";
const VERSION: u8 = 1;
/// Version, set, threshold, count and index; the value; the checksum.
const LENGTH: usize = 8 + 32 + CHECKSUM;
const CHECKSUM: usize = 4;
/// Where the secret stands, and the digest.
const SECRET_AT: u8 = 255;
const DIGEST_AT: u8 = 254;
/// Bytes of the digest; the others are the random key that it is taken with.
const DIGEST: usize = 4;

/// Why a text is not a share, or shares are not a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SharesError {
    /// A threshold or a number of shares that cannot be.
    #[error(
        "{threshold} of {shares} shares is not possible: at least 2 shares must be needed, \
         and there are at most {MAX_SHARES} of them"
    )]
    Quorum {
        /// How many were to be needed.
        threshold: u8,
        /// How many there were to be.
        shares: u8,
    },
    /// A word that is not in the list, or not 32 of them.
    #[error("the share is not right: {0}")]
    Words(#[from] WordsError),
    /// The text of a QR code is cut, or has other characters.
    #[error("the share is not right: after {CODE_PREFIX} there must be {} digits from 0 to F", LENGTH * 2)]
    Code,
    /// The share was changed.
    #[error("the share is not right: its checksum is wrong; compare it word by word with the page, also the order")]
    Checksum,
    /// A share of a newer BlockFrame.
    #[error("the share has version {0}, which this BlockFrame does not know; use a newer one")]
    Version(u8),
    /// The checksum is right, and what it covers is not: nobody made such a share.
    #[error("the share is not right: share {index} of {shares}, {threshold} needed, is not possible")]
    Header {
        /// Its number.
        index: u8,
        /// How many should be needed.
        threshold: u8,
        /// How many there should be.
        shares: u8,
    },
    /// There is no share.
    #[error("no share was given")]
    None,
    /// More shares are needed.
    #[error(
        "{missing} more of the {shares} shares of set {set} {} needed: {threshold} of them open the archive, and {} {} here",
        if *missing == 1 { "is" } else { "are" }, numbers(have), if have.len() == 1 { "is" } else { "are" }
    )]
    TooFew {
        /// The set.
        set: SetId,
        /// How many are needed.
        threshold: u8,
        /// How many there are of the set.
        shares: u8,
        /// How many are still needed.
        missing: u8,
        /// The numbers of those that are here.
        have: Vec<u8>,
    },
    /// One share was given twice, and more are needed.
    #[error("share {index} of set {set} was given twice: {} still needed", plural_are(*missing))]
    Doubled {
        /// The set.
        set: SetId,
        /// Its number.
        index: u8,
        /// How many are still needed.
        missing: u8,
    },
    /// Shares of several sets. Shares of one split only belong together.
    #[error(
        "share {index} is of set {other}, the others are of set {set}: leave it out; of set {set} {} still needed",
        plural_are(*missing)
    )]
    OtherSet {
        /// The set that most shares are of, or the first one's.
        set: SetId,
        /// The share that does not belong to them.
        index: u8,
        /// The set of that share.
        other: SetId,
        /// How many of the first set are still needed.
        missing: u8,
    },
    /// The shares name one set, and do not give a secret.
    #[error("the shares {} of set {set} do not belong together: one of them was not made by this split", numbers(have))]
    Wrong {
        /// The set.
        set: SetId,
        /// The numbers of the shares.
        have: Vec<u8>,
    },
}

impl SharesError {
    /// What kind of failure it is.
    pub fn class(&self) -> ErrorClass {
        match self {
            SharesError::Quorum { .. } => ErrorClass::Invalid,
            SharesError::Words(_)
            | SharesError::Code
            | SharesError::Checksum
            | SharesError::Version(_)
            | SharesError::Header { .. }
            | SharesError::None
            | SharesError::TooFew { .. }
            | SharesError::Doubled { .. }
            | SharesError::OtherSet { .. }
            | SharesError::Wrong { .. } => ErrorClass::WrongKey,
        }
    }

    /// How many more shares would give the secret, if that is what is wrong.
    pub fn missing(&self) -> Option<u8> {
        match self {
            SharesError::TooFew { missing, .. }
            | SharesError::Doubled { missing, .. }
            | SharesError::OtherSet { missing, .. } => Some(*missing),
            _ => None,
        }
    }
}

fn plural(count: u8) -> String {
    format!("{count} share{}", if count == 1 { "" } else { "s" })
}

fn plural_are(count: u8) -> String {
    format!("{} {}", plural(count), if count == 1 { "is" } else { "are" })
}

/// `1, 2 and 5`.
fn numbers(numbers: &[u8]) -> String {
    let texts: Vec<String> = numbers.iter().map(u8::to_string).collect();
    match texts.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// How many shares there are, and how many are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quorum {
    threshold: u8,
    shares: u8,
}

impl Quorum {
    /// `threshold` of `shares`: at least 2 of at most [`MAX_SHARES`]. With a
    /// threshold of 1 every share would be the secret; that is a recovery phrase.
    pub fn new(threshold: u8, shares: u8) -> Result<Self, SharesError> {
        if threshold < 2 || threshold > shares || shares > MAX_SHARES {
            return Err(SharesError::Quorum { threshold, shares });
        }
        Ok(Self { threshold, shares })
    }

    /// How many are needed.
    pub fn threshold(self) -> u8 {
        self.threshold
    }

    /// How many there are.
    pub fn shares(self) -> u8 {
        self.shares
    }
}

/// Which shares belong together: 4 random bytes of one split, no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetId([u8; 4]);

impl SetId {
    /// The set of those bytes.
    pub const fn new(bytes: [u8; 4]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn bytes(self) -> [u8; 4] {
        self.0
    }
}

impl fmt::Display for SetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl std::str::FromStr for SetId {
    type Err = hex::FromHexError;

    fn from_str(text: &str) -> Result<Self, hex::FromHexError> {
        let mut bytes = [0; 4];
        hex::decode_to_slice(text, &mut bytes)?;
        Ok(Self(bytes))
    }
}

/// One share. Its value is as secret as the others let it be: zeroised when
/// dropped, and not printed by `Debug`.
#[derive(Debug, Clone)]
pub struct Share {
    set: SetId,
    quorum: Quorum,
    index: u8,
    value: Secret<32>,
}

impl Share {
    /// The set that it belongs to.
    pub fn set(&self) -> SetId {
        self.set
    }

    /// How many shares of the set there are and are needed.
    pub fn quorum(&self) -> Quorum {
        self.quorum
    }

    /// Its number, from 1.
    pub fn index(&self) -> u8 {
        self.index
    }

    /// The share as 32 words.
    pub fn words(&self) -> Words {
        Words::of(&*self.to_bytes())
    }

    /// The share as one line of capital letters and digits, which a QR code
    /// holds in little room.
    pub fn code(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(CODE_PREFIX.len() + LENGTH * 2));
        text.push_str(CODE_PREFIX);
        for byte in self.to_bytes().iter() {
            for half in [byte >> 4, byte & 15] {
                text.push(char::from_digit(u32::from(half), 16).unwrap_or_default().to_ascii_uppercase());
            }
        }
        text
    }

    /// Reads a share: its 32 words, numbered or not, or its code, also from
    /// amid other text such as the page that it was printed on.
    pub fn parse(text: &str) -> Result<Self, SharesError> {
        let mut first = None;
        for code in words::behind(CODE_PREFIX, text) {
            match code_bytes(code).and_then(|bytes| Self::from_bytes(&bytes)) {
                Ok(share) => return Ok(share),
                Err(error) => first = first.or(Some(error)),
            }
        }
        match first {
            Some(error) => Err(error),
            None => Self::from_bytes(&*words::bytes_of::<LENGTH>(text)?),
        }
    }

    fn header(&self) -> [u8; 8] {
        let [a, b, c, d] = self.set.0;
        [VERSION, a, b, c, d, self.quorum.threshold, self.quorum.shares, self.index]
    }

    fn to_bytes(&self) -> Zeroizing<[u8; LENGTH]> {
        let mut bytes = Zeroizing::new([0; LENGTH]);
        bytes[..8].copy_from_slice(&self.header());
        bytes[8..40].copy_from_slice(self.value.expose());
        let checksum = checksum(&bytes[..40]);
        bytes[40..].copy_from_slice(&checksum);
        bytes
    }

    fn from_bytes(bytes: &[u8; LENGTH]) -> Result<Self, SharesError> {
        // The version is first, so that a later one may be of other bytes.
        if checksum(&bytes[..40]) != bytes[40..] {
            return Err(SharesError::Checksum);
        }
        let [version, a, b, c, d, threshold, shares, index] = *bytes.first_chunk::<8>().unwrap_or(&[0; 8]);
        if version != VERSION {
            return Err(SharesError::Version(version));
        }
        let wrong = SharesError::Header { index, threshold, shares };
        let quorum = Quorum::new(threshold, shares).map_err(|_| wrong.clone())?;
        if index == 0 || index > shares {
            return Err(wrong);
        }
        let value = Secret::filled_by(|value| value.copy_from_slice(&bytes[8..40]));
        Ok(Self { set: SetId([a, b, c, d]), quorum, index, value })
    }
}

/// The bytes of the code that `text` begins with; white space in it does not matter.
fn code_bytes(text: &str) -> Result<Zeroizing<[u8; LENGTH]>, SharesError> {
    let mut bytes = Zeroizing::new([0; LENGTH]);
    let mut digits = text.chars().filter(|letter| !letter.is_whitespace()).map(|letter| letter.to_digit(16));
    for byte in bytes.iter_mut() {
        let (Some(Some(high)), Some(Some(low))) = (digits.next(), digits.next()) else {
            return Err(SharesError::Code);
        };
        *byte = (high << 4 | low) as u8;
    }
    Ok(bytes)
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    let mut hasher = blake3::Hasher::new_derive_key("blockframe 1 share checksum");
    hasher.update(bytes);
    let mut sum = [0; CHECKSUM];
    hasher.finalize_xof().fill(&mut sum);
    sum
}

/// What stands at [`DIGEST_AT`] before the key: it covers what the shares say of themselves too.
fn digest(set: SetId, quorum: Quorum, key: &[u8], secret: &Secret<32>) -> [u8; DIGEST] {
    let mut hasher = blake3::Hasher::new_derive_key("blockframe 1 share digest");
    hasher.update(&[VERSION]).update(&set.0).update(&[quorum.threshold, quorum.shares]);
    hasher.update(key).update(secret.expose());
    let mut digest = [0; DIGEST];
    hasher.finalize_xof().fill(&mut digest);
    digest
}

/// Splits `secret` into as many shares as the quorum says, numbered from 1.
///
/// # Panics
/// If the operating system gives no random bytes.
pub fn split(secret: &Secret<32>, quorum: Quorum) -> Vec<Share> {
    split_with(secret, quorum, words::fill_random)
}

fn split_with(secret: &Secret<32>, quorum: Quorum, mut random: impl FnMut(&mut [u8])) -> Vec<Share> {
    let mut set = SetId([0; 4]);
    random(&mut set.0);
    let checked = Secret::filled_by(|bytes: &mut [u8; 32]| {
        random(&mut bytes[DIGEST..]);
        let digest = digest(set, quorum, &bytes[DIGEST..], secret);
        bytes[..DIGEST].copy_from_slice(&digest);
    });
    // The secret, its digest and random shares are together as many points as define the polynomials.
    let free: Vec<Secret<32>> = (2..quorum.threshold).map(|_| Secret::filled_by(|bytes| random(bytes))).collect();
    let mut points: Vec<(u8, &Secret<32>)> = (1..).zip(&free).collect();
    points.extend([(DIGEST_AT, &checked), (SECRET_AT, secret)]);
    (1..=quorum.shares).map(|index| Share { set, quorum, index, value: interpolate(&points, index) }).collect()
}

/// The secret that `shares` are of. A share that was given twice counts once;
/// shares beyond the threshold are checked too.
pub fn combine(shares: &[Share]) -> Result<Secret<32>, SharesError> {
    // The set that most are of; the first one of several.
    let alike = |share: &Share| shares.iter().filter(|other| other.set == share.set).count();
    let main = shares.iter().rev().max_by_key(|share| alike(share)).ok_or(SharesError::None)?;
    let (set, quorum) = (main.set, main.quorum);
    let mut distinct: Vec<&Share> = Vec::new();
    let mut doubled = None;
    for share in shares.iter().filter(|share| share.set == set) {
        match distinct.iter().find(|other| other.index == share.index) {
            None => distinct.push(share),
            Some(other) if other.to_bytes() == share.to_bytes() => doubled = doubled.or(Some(share.index)),
            Some(_) => return Err(SharesError::Wrong { set, have: vec![share.index, share.index] }),
        }
    }
    distinct.sort_by_key(|share| share.index);
    let have: Vec<u8> = distinct.iter().map(|share| share.index).collect();
    let missing = quorum.threshold.saturating_sub(have.len().try_into().unwrap_or(u8::MAX));
    if let Some(other) = shares.iter().find(|share| share.set != set) {
        return Err(SharesError::OtherSet { set, index: other.index, other: other.set, missing });
    }
    let wrong = SharesError::Wrong { set, have: have.clone() };
    if distinct.iter().any(|share| share.quorum != quorum) {
        return Err(wrong);
    }
    if missing > 0 {
        return Err(match doubled {
            Some(index) => SharesError::Doubled { set, index, missing },
            None => SharesError::TooFew { set, threshold: quorum.threshold, shares: quorum.shares, missing, have },
        });
    }
    let points: Vec<(u8, &Secret<32>)> = distinct.iter().map(|share| (share.index, &share.value)).collect();
    let (used, more) = points.split_at(usize::from(quorum.threshold));
    let secret = interpolate(used, SECRET_AT);
    let checked = interpolate(used, DIGEST_AT);
    let (said, key) = checked.expose().split_at(DIGEST);
    let right = digest(set, quorum, key, &secret) == *said
        && more.iter().all(|(index, value)| interpolate(used, *index).expose() == value.expose());
    if right { Ok(secret) } else { Err(wrong) }
}

/// Shares that come one after the other, until there are enough.
#[derive(Debug, Default)]
pub struct Gathering(Vec<Share>);

impl Gathering {
    /// Takes one more share; the secret, if it was the last that is needed.
    ///
    /// Errors: `Doubled` or `OtherSet` for a share that does not help, which is
    /// left out; `Wrong` when the shares do not belong together: then all are
    /// forgotten.
    pub fn take(&mut self, share: Share) -> Result<Option<Secret<32>>, SharesError> {
        if let (Some(first), Some(missing)) = (self.0.first(), self.missing()) {
            let (set, index) = (first.set, share.index);
            if share.set != set {
                return Err(SharesError::OtherSet { set, index, other: share.set, missing });
            }
            if self.0.iter().any(|other| other.to_bytes() == share.to_bytes()) {
                return Err(SharesError::Doubled { set, index, missing });
            }
        }
        self.0.push(share);
        match combine(&self.0) {
            Ok(secret) => Ok(Some(secret)),
            Err(SharesError::TooFew { .. }) => Ok(None),
            Err(error) => {
                self.0.clear();
                Err(error)
            }
        }
    }

    /// How many more are needed; none before the first says it.
    pub fn missing(&self) -> Option<u8> {
        let first = self.0.first()?;
        Some(first.quorum.threshold.saturating_sub(self.0.len().try_into().unwrap_or(u8::MAX)))
    }

    /// The numbers of the shares that are here, in the order in which they came.
    pub fn have(&self) -> Vec<u8> {
        self.0.iter().map(|share| share.index).collect()
    }
}

#[cfg(test)]
mod tests;
