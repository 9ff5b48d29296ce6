//! Identities: archive, store, object, content.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// 32 bytes of BLAKE3, written as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

/// BLAKE3 of a plain content.
pub type ContentHash = Digest;

impl Digest {
    /// Length in bytes.
    pub const LEN: usize = 32;

    /// A digest from its bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// BLAKE3 of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// 64 lower-case hex digits.
    pub fn to_hex(self) -> String {
        hex::encode(self.0)
    }
}

impl From<blake3::Hash> for Digest {
    fn from(hash: blake3::Hash) -> Self {
        Self(*hash.as_bytes())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.to_hex())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

/// Why a text is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not 64 lower-case hex digits.
    #[error("\"{0}\" is not a hash of 64 lower-case hex digits")]
    Digest(String),
    /// Not a UUID.
    #[error("\"{0}\" is not a UUID")]
    Uuid(String),
    /// Not the directory name of an object.
    #[error("\"{0}\" is not an object's directory name")]
    ObjectName(String),
}

impl FromStr for Digest {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = || IdError::Digest(text.chars().take(80).collect());
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(bad());
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| bad())?;
        Ok(Self(bytes))
    }
}

macro_rules! text_serde {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = String::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
text_serde!(Digest);

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(uuid::Uuid);

        impl $name {
            /// A fresh random id (UUID version 4).
            pub fn random() -> Self {
                Self(uuid::Uuid::new_v4())
            }

            /// An id from its 16 bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(uuid::Uuid::from_bytes(bytes))
            }

            /// The 16 bytes.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                uuid::Uuid::try_parse(text)
                    .map(Self)
                    .map_err(|_| IdError::Uuid(text.chars().take(80).collect()))
            }
        }

        text_serde!($name);
    };
}

uuid_id!(
    /// An archive's identity.
    ArchiveId
);
uuid_id!(
    /// A store's identity.
    StoreId
);

/// The directory name of an object, `{name}_{hash}`: legal on Linux, Windows
/// and S3, and never a path that climbs.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName(String);

impl ObjectName {
    /// Longest readable part, in bytes.
    const MAX_READABLE: usize = 80;
    /// The readable part of the names of encrypted objects.
    const SEALED: &str = "sealed";

    /// The name of the object that holds the content `hash`, known to people
    /// as `readable` (cut and escaped as needed).
    pub fn new(readable: &[u8], hash: &ContentHash) -> Self {
        let mut name = String::new();
        for &byte in readable {
            if name.len() == Self::MAX_READABLE {
                break;
            }
            let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'+' | b',' | b'=');
            name.push(if plain { byte as char } else { '_' });
        }
        // A leading dot would hide the object, or collide with `.blockframe`.
        if name.is_empty() || name.starts_with('.') {
            name.insert(0, '_');
            name.truncate(Self::MAX_READABLE);
        }
        Self(format!("{name}_{hash}"))
    }

    /// The name of an object of an encrypted archive: `hash` tells nothing of the content.
    pub fn sealed(hash: &Digest) -> Self {
        Self::new(Self::SEALED.as_bytes(), hash)
    }

    /// Whether it is named as an object of an encrypted archive.
    pub fn is_sealed(&self) -> bool {
        self.0.rsplit_once('_').is_some_and(|(readable, _)| readable == Self::SEALED)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The content hash in the name.
    pub fn hash(&self) -> Option<ContentHash> {
        self.0.rsplit_once('_').and_then(|(_, hash)| hash.parse().ok())
    }
}

impl FromStr for ObjectName {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = || IdError::ObjectName(text.chars().take(200).collect());
        let (readable, hash) = text.rsplit_once('_').ok_or_else(bad)?;
        let hash: Digest = hash.parse().map_err(|_| bad())?;
        let name = Self::new(readable.as_bytes(), &hash);
        if name.0 == text { Ok(name) } else { Err(bad()) }
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_serde!(ObjectName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_names_are_escaped_and_parse_back() {
        let hash = Digest::of(b"x");
        for (readable, start) in [
            (&b"photo 1.jpg"[..], "photo_1.jpg_"),
            (b"../../etc/passwd", "_.._.._etc_passwd_"),
            (b"", "__"),
            (b".hidden", "_.hidden_"),
            (b"\xff\xfe", "___"),
        ] {
            let name = ObjectName::new(readable, &hash);
            assert!(name.as_str().starts_with(start), "{name}");
            assert_eq!(name.as_str().parse::<ObjectName>().as_ref(), Ok(&name));
            assert_eq!(name.hash(), Some(hash));
        }
        assert!(".blockframe".parse::<ObjectName>().is_err());
        assert!(format!("a/b_{hash}").parse::<ObjectName>().is_err());
    }
}
