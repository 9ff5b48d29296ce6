//! Which content is compressed with what: rules over paths, then a look at the bytes.

use crate::archive::ContentSource;
use crate::base::ErrorClass;
use crate::codec::compress::{CodecSpec, looks_compressible};
use crate::format::EntryPath;
use globset::{Candidate, Glob, GlobBuilder, GlobSet, GlobSetBuilder};
use std::fmt;
use std::io;
use std::str::FromStr;

/// Bytes of a sample of a content.
const SAMPLE_LEN: u64 = 4096;
/// Samples of a content, from its first byte to its last.
const SAMPLES: u64 = 8;

/// Suffixes of files whose contents are compressed already, or encrypted; ascending.
const COMPRESSED_SUFFIXES: [&str; 72] = [
    "3gp", "7z", "aab", "aac", "age", "apk", "avi", "avif", "br", "bz2", "cab", "crx", "deb", "docx", "epub", "flac",
    "flv", "gif", "gpg", "gz", "heic", "heif", "ipa", "jar", "jfif", "jp2", "jpe", "jpeg", "jpg", "jxl", "lz", "lz4",
    "lzma", "lzo", "m4a", "m4v", "mka", "mkv", "mov", "mp3", "mp4", "mpeg", "mpg", "nupkg", "odp", "ods", "odt", "oga",
    "ogg", "ogv", "opus", "png", "pptx", "rar", "rpm", "snap", "squashfs", "tbz2", "tgz", "txz", "tzst", "webm",
    "webp", "whl", "wma", "wmv", "woff2", "xlsx", "xpi", "xz", "zip", "zst",
];

/// A pattern over paths of the archive: `*` and `?` match within a name, `**`
/// any number of directories. Without a slash it is about names in any
/// directory. ASCII letters match in both cases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern {
    text: String,
    glob: Glob,
}

/// A pattern that is none.
#[derive(Debug, thiserror::Error)]
#[error("\"{pattern}\" is no pattern ({source}); `*` and `?` match within a name, `**` any number of directories")]
pub struct PatternError {
    pattern: String,
    source: globset::Error,
}

impl PatternError {
    /// The user's mistake.
    pub fn class(&self) -> ErrorClass {
        ErrorClass::Invalid
    }
}

impl FromStr for PathPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let path = if text.contains('/') { text.trim_start_matches('/').to_owned() } else { format!("**/{text}") };
        match GlobBuilder::new(&path).literal_separator(true).case_insensitive(true).build() {
            Ok(glob) => Ok(Self { text: text.to_owned(), glob }),
            Err(source) => Err(PatternError { pattern: text.to_owned(), source }),
        }
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Says with what contents are compressed. The default value compresses nothing.
#[derive(Debug, Clone, Default)]
pub struct CompressionRules {
    default: Option<CodecSpec>,
    patterns: GlobSet,
    /// What the patterns say, in their order.
    said: Vec<Option<CodecSpec>>,
}

impl CompressionRules {
    /// No rules: everything is compressed with `default`, where that pays.
    pub fn by_default(default: Option<CodecSpec>) -> Self {
        Self { default, ..Self::default() }
    }

    /// `default` for what no rule matches; of `rules` the first that matches
    /// counts. `None` is: not compressed.
    pub fn new(
        default: Option<CodecSpec>,
        rules: impl IntoIterator<Item = (PathPattern, Option<CodecSpec>)>,
    ) -> Result<Self, PatternError> {
        let mut builder = GlobSetBuilder::new();
        let (mut said, mut texts) = (Vec::new(), Vec::new());
        for (pattern, spec) in rules {
            builder.add(pattern.glob);
            said.push(spec);
            texts.push(pattern.text);
        }
        // Each one is a pattern; all of them together may be too much.
        let patterns = builder.build().map_err(|source| PatternError { pattern: texts.join("\", \""), source })?;
        Ok(Self { default, patterns, said })
    }

    /// What contents are compressed with that no rule names, and that have no path of their own.
    pub fn default_spec(&self) -> Option<CodecSpec> {
        self.default
    }

    /// With what the content at `path` is compressed, by the rules alone.
    pub fn spec_for(&self, path: &EntryPath) -> Option<CodecSpec> {
        self.rule_for(path).unwrap_or(self.default)
    }

    /// With what a content at `path` is compressed. A rule that matches is
    /// obeyed; where only the default speaks, contents that would not shrink
    /// are stored as they are: those of names that tell (`.jpg`, `.zip`), and
    /// those of which no sample of a few KiB looks compressible.
    pub fn choose(&self, path: &EntryPath, content: &dyn ContentSource) -> io::Result<Option<CodecSpec>> {
        if let Some(said) = self.rule_for(path) {
            return Ok(said);
        }
        match self.default {
            Some(spec) if !is_known_compressed(path) && any_sample_compresses(content)? => Ok(Some(spec)),
            _ => Ok(None),
        }
    }

    fn rule_for(&self, path: &EntryPath) -> Option<Option<CodecSpec>> {
        if self.said.is_empty() {
            return None;
        }
        let path = path.as_bytes();
        let first = self.patterns.matches_candidate(&Candidate::from_bytes(&path)).into_iter().min()?;
        self.said.get(first).copied()
    }
}

/// Whether the name says that the content is compressed (or encrypted) already.
fn is_known_compressed(path: &EntryPath) -> bool {
    let name = path.name();
    let Some(dot) = name.iter().rposition(|&byte| byte == b'.') else { return false };
    let suffix = name[dot + 1..].to_ascii_lowercase();
    COMPRESSED_SUFFIXES.iter().any(|known| known.as_bytes() == suffix)
}

/// A content counts as compressible when any part of it does: parts that do
/// not shrink cost little.
fn any_sample_compresses(content: &dyn ContentSource) -> io::Result<bool> {
    let len = content.len();
    let mut buffer = vec![0; len.min(SAMPLE_LEN) as usize];
    let last = len.saturating_sub(SAMPLE_LEN);
    let step = last / (SAMPLES - 1);
    for sample in 0..SAMPLES {
        let at = if sample + 1 == SAMPLES { last } else { sample * step };
        content.read_at(at, &mut buffer)?;
        if looks_compressible(&buffer) {
            return Ok(true);
        }
        if last == 0 {
            break;
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Content {
        bytes: Vec<u8>,
        reads: AtomicU64,
    }

    impl Content {
        fn new(bytes: Vec<u8>) -> Self {
            Self { bytes, reads: AtomicU64::new(0) }
        }
    }

    impl ContentSource for Content {
        fn len(&self) -> u64 {
            self.bytes.len() as u64
        }

        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            buffer.copy_from_slice(&self.bytes[offset as usize..][..buffer.len()]);
            Ok(())
        }
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(b"rules").finalize_xof().fill(&mut bytes);
        bytes
    }

    fn path(text: &str) -> EntryPath {
        EntryPath::new(text).unwrap()
    }

    fn spec(text: &str) -> Option<CodecSpec> {
        (text != "none").then(|| text.parse().unwrap())
    }

    fn rules(default: &str, rules: &[(&str, &str)]) -> CompressionRules {
        let rules = rules.iter().map(|(pattern, codec)| (pattern.parse().unwrap(), spec(codec)));
        CompressionRules::new(spec(default), rules).unwrap()
    }

    #[test]
    fn the_first_rule_that_matches_counts() {
        let rules = rules(
            "zstd:3",
            &[
                ("*.log", "zstd:19"),
                ("/backup/**", "none"),
                ("backup/keep.txt", "lz4"),
                ("data/*.bin", "brotli:5"),
                ("photo?.raw", "gzip:9"),
            ],
        );
        for (at, expected) in [
            ("a.txt", "zstd:3"),
            ("a.log", "zstd:19"),
            ("deep/below/A.LOG", "zstd:19"),
            ("backup/a.log", "zstd:19"),
            ("backup/keep.txt", "none"),
            ("Backup/x/y", "none"),
            ("other/backup/x", "zstd:3"),
            ("data/x.bin", "brotli:5"),
            ("data/deep/x.bin", "zstd:3"),
            ("deep/data/x.bin", "zstd:3"),
            ("x/photo1.RAW", "gzip:9"),
            ("photo12.raw", "zstd:3"),
            ("a.log/b", "zstd:3"),
        ] {
            assert_eq!(rules.spec_for(&path(at)), spec(expected), "{at}");
        }
        assert_eq!(rules.default_spec(), spec("zstd:3"));
    }

    #[test]
    fn names_that_are_no_text_match_too() {
        let rules = rules("none", &[("*.dat", "lz4")]);
        let odd = EntryPath::new(b"dir\xff/\xfe\xfd.dat".to_vec()).unwrap();
        assert_eq!(rules.spec_for(&odd), spec("lz4"));
        assert_eq!(rules.spec_for(&EntryPath::root()), None);
    }

    #[test]
    fn without_rules_nothing_is_compressed_unless_by_default() {
        assert_eq!(CompressionRules::default().spec_for(&path("a")), None);
        assert_eq!(rules("lz4", &[]).spec_for(&path("a.jpg")), spec("lz4"));
        assert_eq!(rules("none", &[("*.txt", "zstd")]).spec_for(&path("a.txt")), spec("zstd:3"));
    }

    #[test]
    fn patterns_that_are_none_say_why() {
        for text in ["[a", "{a,b", "**/[z-a]"] {
            let error = text.parse::<PathPattern>().unwrap_err();
            assert!(error.to_string().contains(text) && error.class() == ErrorClass::Invalid, "{error}");
        }
        assert_eq!("/a/*.B".parse::<PathPattern>().unwrap().to_string(), "/a/*.B");
    }

    #[test]
    fn the_default_spares_what_would_not_shrink() {
        let rules = rules("zstd:3", &[("*.raw", "lz4"), ("plain/**", "none")]);
        let text = || Content::new(b"again and again. ".repeat(9000));
        let random = || Content::new(noise(200_000));
        let choose = |at: &str, content: &Content| rules.choose(&path(at), content).unwrap();
        assert_eq!(choose("a.txt", &text()), spec("zstd:3"));
        assert_eq!(choose("a.txt", &random()), None);
        // A rule is obeyed unseen, and a name that tells is believed.
        for (at, expected) in [("a.raw", "lz4"), ("plain/a.txt", "none"), ("a.JPG", "none"), ("a.tar.zst", "none")] {
            for content in [text(), random()] {
                assert_eq!(choose(at, &content), spec(expected), "{at}");
                assert_eq!(content.reads.load(Ordering::Relaxed), 0, "{at}");
            }
        }
        // One compressible part is enough, at the end too.
        let tail = Content::new([noise(200_000), vec![0; 5000]].concat());
        assert_eq!(choose("disk.img", &tail), spec("zstd:3"));
        for len in [0, 1, 4095, 4096, 4097, 28_672, 40_000] {
            let content = Content::new(noise(len));
            assert_eq!(choose("x", &content).is_some(), len == 1, "{len}");
            assert!(content.reads.load(Ordering::Relaxed) <= SAMPLES);
        }
    }

    #[test]
    fn suffixes_are_sorted_and_stand_there_once() {
        assert!(COMPRESSED_SUFFIXES.is_sorted_by(|a, b| a < b));
        for (name, known) in [("a.jpg", true), ("a.jpg.txt", false), ("jpg", false), (".zip", true), ("x.", false)] {
            assert_eq!(is_known_compressed(&path(name)), known, "{name}");
        }
    }
}
