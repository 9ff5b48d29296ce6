//! From a secret to the key of a slot.

use super::error::{KeyError, KeyResult};
use super::secret::random_bytes;
use crate::base::Secret;
use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Most memory that a slot may ask for, KiB.
const MAX_MEMORY_KIB: u32 = 4 << 20;
/// Most passes over the memory.
const MAX_PASSES: u32 = 64;
/// Most lanes.
const MAX_LANES: u32 = 64;
/// Most memory times passes, KiB: about ten seconds of one core.
const MAX_WORK_KIB: u64 = 12 << 20;

/// Bytes that are written as hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hex<const N: usize>(pub [u8; N]);

impl<const N: usize> Serialize for Hex<N> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&hex::encode(self.0))
    }
}

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let mut bytes = [0; N];
        hex::decode_to_slice(&text, &mut bytes)
            .map_err(|error| serde::de::Error::custom(format!("expected {} hexadecimal digits: {error}", 2 * N)))?;
        Ok(Self(bytes))
    }
}

/// How hard argon2id works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Argon2Cost {
    /// Memory, KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Parts of it that can be worked on at the same time.
    pub lanes: u32,
}

impl Default for Argon2Cost {
    /// The second recommended choice of RFC 9106, section 4. More slots than one may have to be tried.
    fn default() -> Self {
        Self { memory_kib: 64 << 10, passes: 3, lanes: 4 }
    }
}

/// How the key of a slot is derived from its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase", deny_unknown_fields)]
pub enum Kdf {
    /// Argon2id version 1.3 (RFC 9106): for what people choose.
    Argon2id {
        /// Memory, KiB.
        memory_kib: u32,
        /// Passes over it.
        passes: u32,
        /// Lanes.
        lanes: u32,
        /// The salt.
        salt: Hex<32>,
    },
    /// BLAKE3 in its key derivation mode: for 256 random bits, which nobody can guess.
    Blake3 {
        /// The salt.
        salt: Hex<32>,
    },
}

impl Kdf {
    /// Argon2id with a fresh salt.
    pub fn argon2id(cost: Argon2Cost) -> KeyResult<Self> {
        let Argon2Cost { memory_kib, passes, lanes } = cost;
        Ok(Self::Argon2id { memory_kib, passes, lanes, salt: Hex(random_bytes()?) })
    }

    /// BLAKE3 with a fresh salt.
    pub fn blake3() -> KeyResult<Self> {
        Ok(Self::Blake3 { salt: Hex(random_bytes()?) })
    }

    /// Why these parameters are not acceptable: read from a store they could
    /// ask for all memory, or for a year.
    pub fn refusal(&self) -> Option<String> {
        let &Self::Argon2id { memory_kib, passes, lanes, .. } = self else { return None };
        let work = u64::from(memory_kib) * u64::from(passes);
        let fits = (1..=MAX_LANES).contains(&lanes)
            && (8 * lanes..=MAX_MEMORY_KIB).contains(&memory_kib)
            && (1..=MAX_PASSES).contains(&passes)
            && work <= MAX_WORK_KIB;
        (!fits).then(|| format!("argon2id of {memory_kib} KiB, {passes} passes and {lanes} lanes is out of bounds"))
    }

    /// The parameters as they are authenticated: a byte for the name, then
    /// memory, passes and lanes (u32, little-endian; 0 where there are none), and the salt.
    pub(super) fn context(&self) -> [u8; 45] {
        let (name, numbers, salt) = match self {
            Self::Argon2id { memory_kib, passes, lanes, salt } => (1, [*memory_kib, *passes, *lanes], salt),
            Self::Blake3 { salt } => (2, [0; 3], salt),
        };
        let mut context = [0; 45];
        context[0] = name;
        for (at, number) in numbers.into_iter().enumerate() {
            context[1 + 4 * at..5 + 4 * at].copy_from_slice(&number.to_le_bytes());
        }
        context[13..].copy_from_slice(&salt.0);
        context
    }

    /// The secret, stretched.
    ///
    /// Errors: `Format` for parameters out of bounds, before anything is allocated; `Derivation`.
    pub(super) fn stretch(&self, secret: &[u8]) -> KeyResult<Secret<32>> {
        if let Some(why) = self.refusal() {
            return Err(crate::format::FormatError::invalid(super::ring::WHAT, why).into());
        }
        match self {
            Self::Blake3 { salt } => {
                let length = (secret.len() as u64).to_le_bytes();
                Ok(super::derive("blockframe 1 key slot secret", &[&salt.0, &length, secret]))
            }
            &Self::Argon2id { memory_kib, passes, lanes, salt } => {
                let failed = |error: argon2::Error| KeyError::Derivation { memory_kib, why: error.to_string() };
                let parameters = Params::new(memory_kib, passes, lanes, Some(32)).map_err(failed)?;
                let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters);
                let mut outcome = Ok(());
                let key = Secret::filled_by(|out| outcome = argon2.hash_password_into(secret, &salt.0, out));
                outcome.map_err(failed)?;
                Ok(key)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argon2id(memory_kib: u32, passes: u32, lanes: u32) -> Kdf {
        Kdf::Argon2id { memory_kib, passes, lanes, salt: Hex([7; 32]) }
    }

    #[test]
    fn parameters_that_would_take_all_memory_or_a_year_are_refused_before_anything_is_allocated() {
        for (memory, passes, lanes) in [
            (u32::MAX, 1, 1),
            (MAX_MEMORY_KIB + 1, 1, 1),
            (MAX_MEMORY_KIB, 4, 1),
            (64, u32::MAX, 1),
            (64, MAX_PASSES + 1, 1),
            (u32::MAX, u32::MAX, u32::MAX),
            (u32::MAX, 1, u32::MAX),
            (64, 1, MAX_LANES + 1),
            (7, 1, 1),
            (64, 0, 1),
            (64, 1, 0),
            (0, 0, 0),
        ] {
            let kdf = argon2id(memory, passes, lanes);
            assert!(kdf.refusal().is_some(), "{kdf:?}");
            assert!(matches!(kdf.stretch(b"x"), Err(KeyError::Format(_))), "{kdf:?}");
        }
        let Argon2Cost { memory_kib, passes, lanes } = Argon2Cost::default();
        assert_eq!(argon2id(memory_kib, passes, lanes).refusal(), None);
    }

    #[test]
    fn the_default_is_no_weaker_than_the_second_choice_of_rfc_9106() {
        let cost = Argon2Cost::default();
        assert!(cost.memory_kib >= 64 << 10 && cost.passes >= 3 && cost.lanes >= 4, "{cost:?}");
    }

    #[test]
    fn every_parameter_and_the_secret_count() {
        let stretched = |kdf: &Kdf, secret: &[u8]| *kdf.stretch(secret).unwrap().expose();
        let kdfs = [argon2id(64, 1, 1), argon2id(72, 1, 1), argon2id(64, 2, 1), argon2id(64, 1, 2)];
        let others = [
            Kdf::Argon2id { memory_kib: 64, passes: 1, lanes: 1, salt: Hex([8; 32]) },
            Kdf::Blake3 { salt: Hex([7; 32]) },
            Kdf::Blake3 { salt: Hex([8; 32]) },
        ];
        let mut seen = std::collections::HashSet::new();
        for kdf in kdfs.iter().chain(&others) {
            for secret in [&b"correct horse"[..], b"correct horsf", b"correct hors"] {
                assert!(seen.insert(stretched(kdf, secret)), "{kdf:?}");
            }
        }
        assert_eq!(kdfs.iter().chain(&others).map(Kdf::context).collect::<std::collections::HashSet<_>>().len(), 7);
    }
}
