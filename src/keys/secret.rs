//! What people and programs open an archive with.

use super::error::{KeyError, KeyResult};
use crate::base::Secret;
use serde::{Deserialize, Serialize};
use std::fmt;
use zeroize::Zeroizing;

/// Shortest key file, bytes.
pub const MIN_KEY_FILE: usize = 16;
/// Longest secret, bytes.
pub const MAX_SECRET: usize = 1 << 20;

/// What opens a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotKind {
    /// Something that a person knows.
    Passphrase,
    /// The bytes of a file.
    KeyFile,
    /// The recovery phrase.
    Recovery,
    /// What a command prints: a password manager, a TPM, an HSM.
    Command,
    /// Some of several shares.
    Shares,
}

impl SlotKind {
    /// All of them.
    pub const ALL: [SlotKind; 5] =
        [SlotKind::Passphrase, SlotKind::KeyFile, SlotKind::Recovery, SlotKind::Command, SlotKind::Shares];

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            SlotKind::Passphrase => "passphrase",
            SlotKind::KeyFile => "key file",
            SlotKind::Recovery => "recovery phrase",
            SlotKind::Command => "command",
            SlotKind::Shares => "shares",
        }
    }

    /// As it is authenticated, and handed from process to process.
    pub fn code(self) -> u8 {
        match self {
            SlotKind::Passphrase => 1,
            SlotKind::KeyFile => 2,
            SlotKind::Recovery => 3,
            SlotKind::Command => 4,
            SlotKind::Shares => 5,
        }
    }

    /// The kind of a code.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// Whether its secrets are 256 random bits, which need no stretching.
    pub fn is_random(self) -> bool {
        matches!(self, SlotKind::Recovery | SlotKind::Shares)
    }
}

/// A secret that may open a slot. Zeroised when dropped, and never printed.
#[derive(Clone)]
pub struct SlotSecret {
    kind: SlotKind,
    bytes: Zeroizing<Vec<u8>>,
}

impl SlotSecret {
    /// A secret of this kind.
    ///
    /// Error: `WeakSecret` for one that is empty, too short or too long.
    pub fn new(kind: SlotKind, bytes: Zeroizing<Vec<u8>>) -> KeyResult<Self> {
        let len = bytes.len();
        let weak = |why: String| Err(KeyError::WeakSecret(why));
        match kind {
            _ if len > MAX_SECRET => weak(format!("a {} of more than {MAX_SECRET} bytes is too long", kind.name())),
            SlotKind::Passphrase if len == 0 => weak("the passphrase is empty".into()),
            SlotKind::Command if len == 0 => weak("the command printed nothing".into()),
            SlotKind::KeyFile if len < MIN_KEY_FILE => weak(format!(
                "the key file has {len} bytes, and at least {MIN_KEY_FILE} are needed; make one with `head -c 64 /dev/urandom`"
            )),
            SlotKind::Recovery | SlotKind::Shares if len != 32 => weak("it does not stand for 32 bytes".into()),
            _ => Ok(Self { kind, bytes }),
        }
    }

    /// A secret of 256 random bits.
    pub fn random(kind: SlotKind, bytes: &Secret<32>) -> KeyResult<Self> {
        Self::new(kind, Zeroizing::new(bytes.expose().to_vec()))
    }

    /// What it is.
    pub fn kind(&self) -> SlotKind {
        self.kind
    }

    /// The bytes.
    pub fn expose(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether slots of `kind` are tried with it. What a command prints may be
    /// the passphrase that a person would type.
    pub fn fits(&self, kind: SlotKind) -> bool {
        let typed = |kind| matches!(kind, SlotKind::Passphrase | SlotKind::Command);
        self.kind == kind || typed(self.kind) && typed(kind)
    }
}

impl fmt::Debug for SlotSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SlotSecret({})", self.kind.name())
    }
}

/// Fresh random bytes.
pub(super) fn random_bytes<const N: usize>() -> KeyResult<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| KeyError::Random(error.to_string()))?;
    Ok(bytes)
}

/// A fresh random key.
pub fn random_key() -> KeyResult<Secret<32>> {
    let mut outcome = Ok(());
    let key = Secret::filled_by(|bytes| outcome = getrandom::fill(bytes));
    outcome.map_err(|error| KeyError::Random(error.to_string()))?;
    Ok(key)
}
