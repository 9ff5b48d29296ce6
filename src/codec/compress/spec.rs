//! Codecs and their levels, as people write them: `zstd:3`.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::RangeInclusive;

/// How contents are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// Zstandard (RFC 8878).
    Zstd,
    /// LZ4 frame format 1.6.
    Lz4,
    /// gzip (RFC 1952).
    Gzip,
    /// Brotli (RFC 7932).
    Brotli,
}

impl Codec {
    /// All of them.
    pub const ALL: [Codec; 4] = [Codec::Zstd, Codec::Lz4, Codec::Gzip, Codec::Brotli];

    /// Its name in specifications.
    pub fn name(self) -> &'static str {
        match self {
            Codec::Zstd => "zstd",
            Codec::Lz4 => "lz4",
            Codec::Gzip => "gzip",
            Codec::Brotli => "brotli",
        }
    }

    /// With the level that it has when none is named.
    pub fn at_default_level(self) -> CodecSpec {
        let level = match self {
            Codec::Zstd => 3,
            Codec::Lz4 => 0,
            Codec::Gzip => 6,
            Codec::Brotli => 5,
        };
        CodecSpec { codec: self, level }
    }

    /// Its number in the footer of a stream.
    pub(super) fn id(self) -> u8 {
        match self {
            Codec::Zstd => 1,
            Codec::Lz4 => 2,
            Codec::Gzip => 3,
            Codec::Brotli => 4,
        }
    }

    /// The levels that it has; the zero of zstd is another name of its default, and not taken.
    fn levels(self) -> RangeInclusive<i32> {
        match self {
            // ZSTD_minCLevel() and ZSTD_maxCLevel().
            Codec::Zstd => -131_072..=22,
            Codec::Lz4 => 0..=0,
            Codec::Gzip => 1..=9,
            Codec::Brotli => 0..=11,
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A codec and how hard it tries; written `zstd:3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CodecSpec {
    /// Which.
    pub codec: Codec,
    /// Its own scale; 0 for LZ4, which has none.
    pub level: i32,
}

impl CodecSpec {
    /// Says what is wrong with a level that the codec does not have.
    pub(super) fn check(self) -> Result<(), String> {
        let levels = self.codec.levels();
        if levels.contains(&self.level) && (self.codec != Codec::Zstd || self.level != 0) {
            return Ok(());
        }
        Err(match self.codec {
            Codec::Zstd => format!("zstd has no level {}; it has 1 to 22, and negative ones for speed", self.level),
            Codec::Lz4 => "lz4 has no levels; write lz4".into(),
            codec => format!("{codec} has no level {}; it has {} to {}", self.level, levels.start(), levels.end()),
        })
    }
}

impl fmt::Display for CodecSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.codec {
            Codec::Lz4 => write!(f, "{}", self.codec),
            codec => write!(f, "{codec}:{}", self.level),
        }
    }
}

impl std::str::FromStr for CodecSpec {
    type Err = String;

    /// `zstd`, `zstd:1` to `zstd:22` and negative ones, `lz4`, `gzip:1` to `gzip:9`, `brotli:0` to `brotli:11`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, level) = match text.split_once(':') {
            Some((name, level)) => (name, Some(level)),
            None => (text, None),
        };
        let codec = Codec::ALL
            .into_iter()
            .find(|codec| codec.name() == name)
            .ok_or_else(|| format!("no codec is called \"{name}\"; write zstd, lz4, gzip or brotli"))?;
        let Some(level) = level else { return Ok(codec.at_default_level()) };
        if codec == Codec::Lz4 {
            return Err("lz4 has no levels; write lz4".into());
        }
        let level =
            level.parse().map_err(|_| format!("\"{level}\" is no level; write {}", codec.at_default_level()))?;
        let spec = Self { codec, level };
        spec.check()?;
        Ok(spec)
    }
}

impl Serialize for CodecSpec {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CodecSpec {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specifications_are_read_as_they_are_written() {
        for text in ["zstd:3", "zstd:-5", "zstd:22", "zstd:-131072", "lz4", "gzip:1", "gzip:9", "brotli:0", "brotli:11"]
        {
            let spec: CodecSpec = text.parse().unwrap();
            assert_eq!(spec.to_string(), text);
            let json = serde_json::to_string(&spec).unwrap();
            assert_eq!(json, format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<CodecSpec>(&json).unwrap(), spec);
        }
        for (text, full) in [("zstd", "zstd:3"), ("gzip", "gzip:6"), ("brotli", "brotli:5"), ("zstd:+7", "zstd:7")] {
            assert_eq!(text.parse::<CodecSpec>().unwrap().to_string(), full);
        }
    }

    #[test]
    fn what_no_codec_understands_is_refused_with_what_to_write() {
        for (text, hint) in [
            ("", "zstd, lz4, gzip or brotli"),
            ("none", "zstd, lz4, gzip or brotli"),
            ("Zstd", "zstd, lz4, gzip or brotli"),
            ("xz:6", "zstd, lz4, gzip or brotli"),
            ("zstd:0", "1 to 22"),
            ("zstd:23", "1 to 22"),
            ("zstd:-131073", "1 to 22"),
            ("zstd:", "zstd:3"),
            ("zstd: 3", "zstd:3"),
            ("zstd:3:4", "zstd:3"),
            ("zstd:99999999999", "zstd:3"),
            ("lz4:1", "write lz4"),
            ("gzip:0", "1 to 9"),
            ("gzip:10", "1 to 9"),
            ("brotli:-1", "0 to 11"),
            ("brotli:12", "0 to 11"),
        ] {
            let problem = text.parse::<CodecSpec>().unwrap_err();
            assert!(problem.contains(hint), "{text}: {problem}");
        }
    }
}
