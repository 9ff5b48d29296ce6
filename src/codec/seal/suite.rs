//! Which ciphers there are, and their names.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// With what contents are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CipherSuite {
    /// AES-256 in Galois/Counter Mode (NIST SP 800-38D).
    Aes256Gcm,
    /// ChaCha20-Poly1305 (RFC 8439).
    #[serde(rename = "chacha20-poly1305")]
    Chacha20Poly1305,
    /// AES-SIV-CMAC with a 512-bit key (RFC 5297): a repeated nonce shows only that frames are equal.
    Aes256Siv,
}

impl CipherSuite {
    /// All of them.
    pub const ALL: [CipherSuite; 3] = [CipherSuite::Aes256Gcm, CipherSuite::Chacha20Poly1305, CipherSuite::Aes256Siv];

    /// The name in descriptors, manifests, settings and options.
    pub const fn name(self) -> &'static str {
        match self {
            CipherSuite::Aes256Gcm => "aes256-gcm",
            CipherSuite::Chacha20Poly1305 => "chacha20-poly1305",
            CipherSuite::Aes256Siv => "aes256-siv",
        }
    }

    /// The default for an archive that is made here: AES-256-GCM if this
    /// processor has instructions for AES and for GCM's multiplication, which
    /// make it the fastest and keep its timing free of the key; else
    /// ChaCha20-Poly1305, which is fast and constant in time without any.
    pub fn for_this_processor() -> Self {
        if has_aes() { CipherSuite::Aes256Gcm } else { CipherSuite::Chacha20Poly1305 }
    }
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
fn has_aes() -> bool {
    std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq")
}

#[cfg(target_arch = "aarch64")]
fn has_aes() -> bool {
    // The multiplication (PMULL) is part of this feature.
    std::arch::is_aarch64_feature_detected!("aes")
}

#[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
fn has_aes() -> bool {
    false
}

impl fmt::Display for CipherSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that no cipher has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no cipher {0:?}: choose aes256-gcm, chacha20-poly1305 or aes256-siv")]
pub struct UnknownCipher(String);

impl FromStr for CipherSuite {
    type Err = UnknownCipher;

    fn from_str(name: &str) -> Result<Self, UnknownCipher> {
        let suite = Self::ALL.into_iter().find(|suite| suite.name() == name);
        suite.ok_or_else(|| UnknownCipher(name.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_has_one_name_everywhere() {
        for suite in CipherSuite::ALL {
            assert_eq!(suite.to_string().parse(), Ok(suite));
            assert_eq!(serde_json::to_string(&suite).unwrap(), format!("{:?}", suite.name()));
            assert_eq!(serde_json::from_str::<CipherSuite>(&format!("{:?}", suite.name())).unwrap(), suite);
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let message = "AES".parse::<CipherSuite>().unwrap_err().to_string();
        assert!(CipherSuite::ALL.iter().all(|suite| message.contains(suite.name())), "{message}");
    }

    #[test]
    #[cfg(all(target_os = "linux", any(target_arch = "x86", target_arch = "x86_64")))]
    fn the_default_follows_the_processor() {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        let flags: Vec<&str> = info.lines().find(|line| line.starts_with("flags")).unwrap().split(' ').collect();
        let gcm = flags.contains(&"aes") && flags.contains(&"pclmulqdq");
        assert_eq!(CipherSuite::for_this_processor() == CipherSuite::Aes256Gcm, gcm);
        assert_ne!(CipherSuite::for_this_processor(), CipherSuite::Aes256Siv);
    }
}
