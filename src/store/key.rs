//! Keys of stored files.

use std::fmt;

/// A relative path of safe names joined by `/`: it cannot climb, be empty or
/// hold NUL, backslash or control characters.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoreKey(String);

/// Why a text is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a store key")]
pub struct KeyError(String);

impl StoreKey {
    /// Checks `text`.
    pub fn new(text: impl Into<String>) -> Result<Self, KeyError> {
        let text = text.into();
        let safe = |name: &str| {
            !name.is_empty()
                && name != "."
                && name != ".."
                && name.len() <= 255
                && !name.chars().any(|c| c.is_control() || c == '\\')
        };
        if text.len() <= 4096 && text.split('/').all(safe) {
            Ok(Self(text))
        } else {
            Err(KeyError(text.chars().take(200).collect()))
        }
    }

    /// The key `below` this one.
    pub fn join(&self, below: &str) -> Result<Self, KeyError> {
        Self::new(format!("{}/{below}", self.0))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
