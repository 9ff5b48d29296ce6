//! The configuration file: TOML, every key optional, an unknown key an error.

use super::error::{CliError, CliResult};
use super::units;
use crate::base::ErrorClass;
use crate::codec::compress::CodecSpec;
use crate::namespace::{CompressionRules, PathPattern};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the configuration says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Which archive.
    pub archive: ArchiveConfig,
    /// What opens it, where it is encrypted.
    pub encryption: EncryptionConfig,
    /// How it is mounted.
    pub mount: MountConfig,
    /// What is kept in memory.
    pub cache: CacheConfig,
    /// How contents are compressed.
    pub compression: CompressionConfig,
    /// Files that are being written.
    pub staging: StagingConfig,
    /// What was changed or removed.
    pub versions: VersionsConfig,
    /// Serving over a network.
    pub server: ServerConfig,
    /// Background verification.
    pub scrub: ScrubConfig,
    /// Messages.
    pub logging: LoggingConfig,
}

/// `[archive]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ArchiveConfig {
    /// The archive's directory; relative to the configuration file.
    #[serde(serialize_with = "empty_when_unset", deserialize_with = "unset_when_empty")]
    pub directory: Option<PathBuf>,
}

/// `[encryption]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EncryptionConfig {
    /// A file with a passphrase; relative to the configuration file.
    #[serde(serialize_with = "empty_when_unset", deserialize_with = "unset_when_empty")]
    pub passphrase_file: Option<PathBuf>,
    /// A file whose bytes are a key; relative to the configuration file.
    #[serde(serialize_with = "empty_when_unset", deserialize_with = "unset_when_empty")]
    pub key_file: Option<PathBuf>,
    /// A command for `sh` that prints the secret. Empty: none.
    pub key_command: String,
    /// Where this machine remembers what it saw of archives; relative to the
    /// configuration file. None: see [`state_directory`](Self::state_directory).
    #[serde(serialize_with = "empty_when_unset", deserialize_with = "unset_when_empty")]
    pub state_directory: Option<PathBuf>,
}

impl EncryptionConfig {
    /// The configured directory, else `blockframe` in `$XDG_STATE_HOME`, for
    /// root in `/var/lib`, else in `~/.local/state`. None without any of them.
    pub fn state_directory(&self) -> Option<PathBuf> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let root = rustix::process::geteuid().is_root().then(|| PathBuf::from("/var/lib"));
        let home = || set("HOME").map(|home| home.join(".local/state"));
        let standard = || Some(set("XDG_STATE_HOME").or(root).or_else(home)?.join("blockframe"));
        self.state_directory.clone().or_else(standard)
    }
}

/// `[mount]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MountConfig {
    /// Where `mount` and `umount` work when they are told no mount point.
    #[serde(serialize_with = "empty_when_unset", deserialize_with = "unset_when_empty")]
    pub default_mountpoint: Option<PathBuf>,
    /// Understood, and without effect in this version.
    pub default_remote: String,
}

/// `[cache]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheConfig {
    /// Verified data kept in memory by a mount.
    pub max_size: Size,
    /// The same limit in segments of 32 MiB; the smaller of both counts.
    pub max_segments: u64,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self { max_size: Size(256 << 20), max_segments: 100 }
    }
}

impl CacheConfig {
    /// Most bytes of verified data that a mount keeps in memory.
    pub fn limit(&self) -> u64 {
        const SEGMENT: u64 = 32 << 20;
        self.max_size.0.min(self.max_segments.saturating_mul(SEGMENT))
    }
}

/// `[compression]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CompressionConfig {
    /// For what no rule matches. None: what the archive was made with.
    #[serde(serialize_with = "empty_without_choice", deserialize_with = "without_choice_when_empty")]
    pub default: Option<CodecChoice>,
    /// By path; the first that matches counts.
    pub rules: Vec<CompressionRule>,
}

impl CompressionConfig {
    /// The rules for an archive that was made with `archive_default`.
    pub fn rules(&self, archive_default: Option<CodecSpec>) -> CliResult<CompressionRules> {
        let default = self.default.map_or(archive_default, |choice| choice.0);
        let rules = self.rules.iter().map(|rule| (rule.pattern.0.clone(), rule.codec.0));
        CompressionRules::new(default, rules).map_err(|error| CliError::new(error.class(), error.to_string()))
    }
}

/// A row of `rules` in `[compression]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompressionRule {
    /// Of which paths.
    pub pattern: Pattern,
    /// With what they are compressed.
    pub codec: CodecChoice,
}

/// A pattern over paths of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(pub PathPattern);

/// A codec as `"zstd:3"`, or `"none"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodecChoice(pub Option<CodecSpec>);

impl std::str::FromStr for CodecChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self(None)),
            codec => match codec.parse() {
                Ok(spec) => Ok(Self(Some(spec))),
                Err(why) => Err(format!("{why}, or none")),
            },
        }
    }
}

impl Serialize for CodecChoice {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(spec) => s.collect_str(&spec),
            None => s.serialize_str("none"),
        }
    }
}

impl<'de> Deserialize<'de> for CodecChoice {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map(Pattern).map_err(serde::de::Error::custom)
    }
}

fn empty_without_choice<S: Serializer>(choice: &Option<CodecChoice>, s: S) -> Result<S::Ok, S::Error> {
    match choice {
        Some(choice) => choice.serialize(s),
        None => s.serialize_str(""),
    }
}

fn without_choice_when_empty<'de, D: Deserializer<'de>>(d: D) -> Result<Option<CodecChoice>, D::Error> {
    let text = String::deserialize(d)?;
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(serde::de::Error::custom) }
}

/// `[staging]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StagingConfig {
    /// Where files lie while they are written; relative to the configuration file. None: in the archive.
    #[serde(serialize_with = "empty_when_unset", deserialize_with = "unset_when_empty")]
    pub directory: Option<PathBuf>,
    /// Most bytes that they may take.
    pub quota: Size,
    /// When `fsync` returns.
    pub fsync: FsyncMode,
    /// How long a file rests after its last close before it is committed.
    pub delay: Age,
}

impl Default for StagingConfig {
    fn default() -> Self {
        Self { directory: None, quota: Size(10 << 30), fsync: FsyncMode::Staging, delay: Age(Duration::from_secs(2)) }
    }
}

impl StagingConfig {
    /// Most bytes that staged files may take on a disk of which `free` bytes are free now.
    pub fn limit(&self, free: u64) -> u64 {
        self.quota.0.min(free / 4)
    }
}

/// When `fsync` of a file returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FsyncMode {
    /// When the file is durable in staging.
    #[default]
    Staging,
    /// When it is committed, with its parity.
    Commit,
}

/// `[versions]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VersionsConfig {
    /// How long old versions and removed files stay.
    pub retention: Age,
    /// Most of the store's capacity that they may take.
    pub max_share: Share,
}

impl Default for VersionsConfig {
    fn default() -> Self {
        Self { retention: Age(Duration::from_secs(30 * 86_400)), max_share: Share(Share::WHOLE / 4) }
    }
}

/// `[server]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerConfig {
    /// Understood, and without effect in this version.
    pub default_port: u16,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self { default_port: 8080 }
    }
}

/// `[scrub]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScrubConfig {
    /// Whether the mount daemon verifies stored data in the background.
    pub enabled: bool,
    /// Most bytes read per second.
    pub max_rate: Size,
    /// How old a verification may become before the data is verified again.
    pub max_age: Age,
}

impl Default for ScrubConfig {
    fn default() -> Self {
        Self { enabled: true, max_rate: Size(50_000_000), max_age: Age(Duration::from_secs(30 * 86_400)) }
    }
}

/// `[logging]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LoggingConfig {
    /// The least important messages that are shown.
    pub level: LogLevel,
}

/// How important a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What failed.
    Error,
    /// What should be looked at.
    #[default]
    Warn,
    /// What happens.
    Info,
    /// Why it happens.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// As a directive of the log filter.
    pub fn name(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}

/// A size in bytes; `"10MB"`, `"10MiB"` or a number in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

/// A length of time; `"30d"` in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Age(pub Duration);

/// A part of a whole: `0.25` in the file. Exact to a millionth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share(u32);

impl Share {
    const WHOLE: u32 = 1_000_000;

    /// A part from 0 to 1; `None` for anything else.
    pub fn new(part: f64) -> Option<Self> {
        (0.0..=1.0).contains(&part).then(|| Self((part * f64::from(Self::WHOLE)).round() as u32))
    }

    /// That part of `whole`, rounded down.
    pub fn of(self, whole: u64) -> u64 {
        (u128::from(whole) * u128::from(self.0) / u128::from(Self::WHOLE)) as u64
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_f64(f64::from(self.0) / f64::from(Self::WHOLE))
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let part = f64::deserialize(d)?;
        Self::new(part).ok_or_else(|| serde::de::Error::custom(format!("{part} is no share; write 0 to 1, as 0.25")))
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&units::exact_size(self.0))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a size such as \"10MB\" or \"10MiB\"")]
        enum Raw {
            Number(u64),
            Text(String),
        }
        match Raw::deserialize(d)? {
            Raw::Number(bytes) => Ok(Size(bytes)),
            Raw::Text(text) => units::parse_size(&text).map(Size).map_err(serde::de::Error::custom),
        }
    }
}

impl Serialize for Age {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let seconds = self.0.as_secs();
        if seconds.is_multiple_of(86_400) {
            s.collect_str(&format_args!("{}d", seconds / 86_400))
        } else {
            s.collect_str(&humantime::format_duration(self.0))
        }
    }
}

impl<'de> Deserialize<'de> for Age {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        units::parse_duration(&text).map(Age).map_err(serde::de::Error::custom)
    }
}

fn empty_when_unset<S: Serializer>(path: &Option<PathBuf>, s: S) -> Result<S::Ok, S::Error> {
    path.clone().unwrap_or_default().serialize(s)
}

fn unset_when_empty<'de, D: Deserializer<'de>>(d: D) -> Result<Option<PathBuf>, D::Error> {
    let path = PathBuf::deserialize(d)?;
    Ok((!path.as_os_str().is_empty()).then_some(path))
}

/// A configuration with where it came from.
#[derive(Debug, Clone, Default)]
pub struct LoadedConfig {
    /// What it says.
    pub config: Config,
    /// Its file; none when there is none and the defaults are in force.
    pub file: Option<PathBuf>,
    /// What the user should know: keys without effect.
    pub warnings: Vec<String>,
}

impl LoadedConfig {
    /// Loads `chosen`, else the first configuration file that exists.
    pub fn find(chosen: Option<&Path>) -> CliResult<Self> {
        if let Some(file) = chosen {
            return Self::load(file);
        }
        for file in search_path() {
            if file.is_file() {
                return Self::load(&file);
            }
        }
        Ok(Self::default())
    }

    /// Loads a file.
    pub fn load(file: &Path) -> CliResult<Self> {
        let text = std::fs::read_to_string(file).map_err(|error| {
            let hint = match error.kind() {
                io::ErrorKind::NotFound => "; copy config.toml.example there, or name another file with --config",
                io::ErrorKind::InvalidData => {
                    let what = format!("the configuration {} is not UTF-8 text", file.display());
                    return CliError::new(ErrorClass::Invalid, what);
                }
                _ => "",
            };
            CliError::io(format!("cannot read the configuration {}{hint}", file.display()), error)
        })?;
        let (mut config, warnings) = parse(&text)
            .map_err(|problem| CliError::new(ErrorClass::Invalid, format!("{}:{problem}", file.display())))?;
        if let Some(base) = file.parent() {
            let EncryptionConfig { passphrase_file, key_file, state_directory, .. } = &mut config.encryption;
            let (archive, staging) = (&mut config.archive.directory, &mut config.staging.directory);
            let paths = [archive, staging, passphrase_file, key_file, state_directory];
            for path in paths.into_iter().flatten() {
                *path = base.join(&path);
            }
        }
        Ok(Self { config, file: Some(file.to_path_buf()), warnings })
    }
}

/// Where a configuration is looked for when none is named, in this order.
pub fn search_path() -> Vec<PathBuf> {
    let user = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".config")));
    let mut files = vec![PathBuf::from("config.toml")];
    files.extend(user.map(|directory| directory.join("blockframe/config.toml")));
    files.push("/etc/blockframe/config.toml".into());
    files
}

/// The flat keys of old, which stand outside all sections.
#[derive(Deserialize)]
struct FlatKeys {
    archive_directory: Option<PathBuf>,
    log_level: Option<LogLevel>,
    encryption_key_path: Option<PathBuf>,
    segment_size_mb: Option<toml::Value>,
}

const FLAT_KEYS: [&str; 4] = ["archive_directory", "log_level", "encryption_key_path", "segment_size_mb"];

/// Reads a configuration, and what the user should know of it. Errors read `LINE: what is wrong`.
pub fn parse(text: &str) -> Result<(Config, Vec<String>), String> {
    let syntax = |error: toml::de::Error| {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        format!("{line}: {}", error.message())
    };
    let table = toml::de::DeTable::parse(text).map_err(syntax)?;
    refuse_unknown_keys(text, table.get_ref())?;
    // Twice, because behind serde's `flatten` errors would lose their place.
    let mut config: Config = toml::from_str(text).map_err(syntax)?;
    let flat: FlatKeys = toml::from_str(text).map_err(syntax)?;
    let mut warnings = Vec::new();
    if let Some(directory) = flat.archive_directory {
        if config.archive.directory.is_some() {
            return Err(twice(text, "archive_directory", "[archive] directory"));
        }
        config.archive.directory = Some(directory);
    }
    if let Some(level) = flat.log_level {
        if table.get_ref().contains_key("logging") {
            return Err(twice(text, "log_level", "[logging] level"));
        }
        config.logging.level = level;
    }
    if let Some(file) = flat.encryption_key_path {
        if config.encryption.key_file.is_some() {
            return Err(twice(text, "encryption_key_path", "[encryption] key_file"));
        }
        config.encryption.key_file = Some(file);
    }
    if flat.segment_size_mb.is_some() {
        warnings.push("segment_size_mb has no effect: the archive's profile says how long segments are".into());
    }
    Ok((config, warnings))
}

fn twice(text: &str, flat: &str, key: &str) -> String {
    let line = text.lines().position(|line| line.trim_start().starts_with(flat)).map_or(1, |at| at + 1);
    format!("{line}: {flat} is the old name of {key}, which is set too; remove one of them")
}

fn refuse_unknown_keys(text: &str, table: &toml::de::DeTable<'_>) -> Result<(), String> {
    let known = known_keys();
    let sections: Vec<&str> = known.iter().map(|(section, _)| section.as_str()).collect();
    for (name, value) in table {
        let shown = name.get_ref().as_ref();
        let line = line_of(text, name.span().start);
        let Some((_, keys)) = known.iter().find(|(section, _)| section == shown) else {
            if FLAT_KEYS.contains(&shown) {
                continue;
            }
            let mut candidates: Vec<String> = sections.iter().map(|section| format!("[{section}]")).collect();
            candidates.extend(FLAT_KEYS.map(String::from));
            for (section, keys) in &known {
                candidates.extend(keys.iter().map(|key| format!("{key} in [{section}]")));
            }
            return Err(unknown(line, shown, &candidates));
        };
        let toml::de::DeValue::Table(inner) = value.get_ref() else {
            return Err(format!("{line}: {shown} is a section, written [{shown}] on a line of its own"));
        };
        for name in inner.keys() {
            let key = name.get_ref().as_ref();
            if !keys.iter().any(|known| known == key) {
                return Err(unknown(line_of(text, name.span().start), key, keys));
            }
        }
    }
    Ok(())
}

/// Sections and their keys, read off the defaults so that there is no second list.
fn known_keys() -> Vec<(String, Vec<String>)> {
    let table = toml::Table::try_from(Config::default()).unwrap_or_default();
    let section = |(name, value): (String, toml::Value)| {
        let keys = value.as_table().map(|keys| keys.keys().cloned().collect()).unwrap_or_default();
        (name, keys)
    };
    table.into_iter().map(section).collect()
}

fn unknown(line: usize, key: &str, candidates: &[String]) -> String {
    let distance = |candidate: &String| {
        let bare = candidate.trim_start_matches('[');
        let bare = bare.split([' ', ']']).next().unwrap_or(bare);
        std::cmp::Reverse((strsim::normalized_damerau_levenshtein(bare, key) * 1000.0) as u32)
    };
    match candidates.iter().min_by_key(|candidate| distance(candidate)) {
        Some(nearest) => format!("{line}: unknown key \"{key}\"; did you mean {nearest}?"),
        None => format!("{line}: unknown key \"{key}\""),
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|&byte| byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_shows_every_key_with_its_default() {
        let text = include_str!("../../config.toml.example");
        let example: toml::Table = toml::from_str(text).unwrap();
        assert_eq!(example, toml::Table::try_from(Config::default()).unwrap());
        assert_eq!(parse(text).unwrap(), (Config::default(), vec![]));
    }

    #[test]
    fn unknown_keys_name_line_and_nearest() {
        let cases = [
            ("[archive]\ndirectroy = \"x\"\n", "2: unknown key \"directroy\"; did you mean directory?"),
            ("\n[cahce]\nmax_size = 1\n", "2: unknown key \"cahce\"; did you mean [cache]?"),
            ("archive_dir = \"x\"", "1: unknown key \"archive_dir\"; did you mean archive_directory?"),
            ("max_sizes = 4", "1: unknown key \"max_sizes\"; did you mean max_size in [cache]?"),
            ("archive = \"x\"", "1: archive is a section, written [archive] on a line of its own"),
        ];
        for (text, message) in cases {
            assert_eq!(parse(text).unwrap_err(), message);
        }
    }

    #[test]
    fn wrong_values_name_their_line() {
        for (text, line) in [
            ("[cache]\nmax_size = \"ten\"\n", "2: "),
            ("[logging]\n\nlevel = \"loud\"\n", "3: "),
            ("[scrub]\nmax_age = 5\n", "2: "),
            ("[staging]\nfsync = \"never\"\n", "2: "),
            ("[versions]\nmax_share = 1.5\n", "2: "),
            ("[versions]\nmax_share = -1\n", "2: "),
            ("[compression]\ndefault = \"zip\"\n", "2: no codec is called"),
            ("[compression]\nrules = [\n{ pattern = \"[a\", codec = \"none\" }]\n", "3: "),
            ("[compression]\nrules = [\n{ pattern = \"a\", codec = \"gzip:99\" }]\n", "3: gzip has no level 99"),
            ("[compression]\nrules = [\n{ pattern = \"a\" }]\n", "3: "),
            ("[compression]\nrules = [\n{ pattern = \"a\", codec = \"lz4\", size = 1 }]\n", "3: "),
            ("log_level = \"loud\"", "1: "),
            ("x = = 1", "1: "),
        ] {
            let problem = parse(text).unwrap_err();
            assert!(problem.starts_with(line), "{problem}");
        }
    }

    #[test]
    fn old_flat_keys_are_understood() {
        let text =
            "archive_directory = \"/a\"\nlog_level = \"debug\"\nsegment_size_mb = 32\nencryption_key_path = \"k\"";
        let (config, warnings) = parse(text).unwrap();
        assert_eq!(config.archive.directory, Some("/a".into()));
        assert_eq!(config.logging.level, LogLevel::Debug);
        assert_eq!(config.encryption.key_file, Some("k".into()));
        assert_eq!(warnings.len(), 1);
        let both = parse("encryption_key_path = \"a\"\n[encryption]\nkey_file = \"b\"").unwrap_err();
        assert!(both.contains("remove one"), "{both}");
        assert!(parse("archive_directory = \"a\"\n[archive]\ndirectory = \"b\"").unwrap_err().contains("remove one"));
    }

    #[test]
    fn sizes_and_ages_read_as_people_write_them() {
        let (config, _) = parse("[cache]\nmax_size = \"1GiB\"\nmax_segments = 2\n[scrub]\nmax_age = \"2h\"").unwrap();
        assert_eq!(config.cache.max_size, Size(1 << 30));
        assert_eq!(config.cache.limit(), 64 << 20);
        assert_eq!(config.scrub.max_age, Age(Duration::from_secs(7200)));
        let (config, _) = parse("[staging]\nquota = \"1GB\"\nfsync = \"commit\"\ndelay = \"500ms\"").unwrap();
        assert_eq!((config.staging.limit(u64::MAX), config.staging.limit(1000)), (1_000_000_000, 250));
        assert_eq!(config.staging.fsync, FsyncMode::Commit);
        assert_eq!(config.staging.delay, Age(Duration::from_millis(500)));
        let (config, _) = parse("[versions]\nmax_share = 1\nretention = \"12h\"").unwrap();
        assert_eq!(config.versions.max_share.of(u64::MAX), u64::MAX);
        assert_eq!(config.versions.retention, Age(Duration::from_secs(43_200)));
        assert_eq!(VersionsConfig::default().max_share.of(1000), 250);
        assert_eq!(parse("[cache]\nmax_size = 4096").unwrap().0.cache.limit(), 4096);
    }

    #[test]
    fn compression_is_the_archives_unless_the_file_says_otherwise() {
        let spec = |text: &str| Some(text.parse::<CodecSpec>().unwrap());
        let choice = |text: &str, archive: Option<CodecSpec>, path: &str| {
            let (config, _) = parse(text).unwrap();
            let written = toml::to_string(&config).unwrap();
            assert_eq!(parse(&written).unwrap().0, config);
            config.compression.rules(archive).unwrap().spec_for(&crate::format::EntryPath::new(path).unwrap())
        };
        assert_eq!(choice("", None, "a"), None);
        assert_eq!(choice("", spec("lz4"), "a"), spec("lz4"));
        assert_eq!(choice("[compression]\ndefault = \"\"", spec("lz4"), "a"), spec("lz4"));
        assert_eq!(choice("[compression]\ndefault = \"none\"", spec("lz4"), "a"), None);
        assert_eq!(choice("[compression]\ndefault = \"zstd\"", None, "a"), spec("zstd:3"));
        let rules = "[compression]\nrules = [{ pattern = \"*.JPG\", codec = \"none\" }, { pattern = \"**\", codec = \"gzip\" }]";
        assert_eq!(choice(rules, spec("lz4"), "x/a.jpg"), None);
        assert_eq!(choice(rules, spec("lz4"), "x/a"), spec("gzip:6"));
    }

    #[test]
    fn a_relative_archive_is_relative_to_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.toml");
        std::fs::write(&file, "[archive]\ndirectory = \"data\"\n[staging]\ndirectory = \"fast\"\n").unwrap();
        let loaded = LoadedConfig::find(Some(&file)).unwrap();
        assert_eq!(loaded.config.archive.directory, Some(directory.path().join("data")));
        assert_eq!(loaded.config.staging.directory, Some(directory.path().join("fast")));
        let missing = LoadedConfig::find(Some(&directory.path().join("none"))).unwrap_err();
        assert!(missing.to_string().contains("config.toml.example"), "{missing}");
    }
}
