//! `blockframe-store.json`: which archive and store this is, and the rules
//! by which the archive codes its contents.

use super::{FormatError, sealed_json};
use crate::base::{ArchiveId, Digest, LEAF_SIZE, StoreId, Timestamp};
use crate::codec::compress::CodecSpec;
use crate::codec::seal::CipherSuite;
use serde::{Deserialize, Serialize};

const WHAT: &str = "store descriptor";
/// A store of an archive that stores contents as they are.
const VERSION_PLAIN: u64 = 1;
/// A store of an archive with a rule about compression or encryption.
const VERSION_ENCODED: u64 = 2;
/// Most data shards of a block, inner or outer.
pub const MAX_K: u16 = 256;
/// Most parity shards of a block, inner or outer.
pub const MAX_M: u16 = 32;
/// Longest segment.
pub const MAX_SEGMENT: u64 = 1 << 30;

/// Identity of one store, and a copy of its archive's rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreDescriptor {
    /// Always `blockframe-store`.
    format: String,
    version: u64,
    /// This store.
    pub store: StoreId,
    /// Stores with the same domain fail together.
    pub failure_domain: String,
    /// The archive it belongs to.
    pub archive: ArchiveDescriptor,
}

/// The rules of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchiveDescriptor {
    /// The archive's identity.
    pub id: ArchiveId,
    /// When it was made: seconds since 1970-01-01 UTC.
    pub created: i64,
    /// Name of the redundancy profile.
    pub profile: String,
    /// Hash of the contents' BlockKeys.
    pub hash_algorithm: super::HashAlgorithm,
    /// How contents are coded, by size; ascending, the last has no limit.
    pub tiers: Vec<TierRule>,
    /// How small files are packed.
    pub bundle: BundleRule,
    /// How contents are compressed where nothing else is said; none: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<CodecSpec>,
    /// With what everything is encrypted; none: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<CipherSuite>,
}

/// One row of a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TierRule {
    /// The tier's number, 1 to 4.
    pub tier: u8,
    /// Contents shorter than this, bytes; none: all others.
    pub below: Option<u64>,
    /// Where the shards lie.
    pub layout: TierLayout,
    /// Longest segment, bytes.
    pub segment_size: u64,
    /// Shortest segment that is chosen to spread a short content over `k`
    /// segments, bytes; equal to `segment_size` when segments have one size.
    pub min_segment_size: u64,
    /// Data shards of a full block.
    pub k: u16,
    /// Parity shards of a block.
    pub m: u16,
    /// Parity blocks over blocks.
    pub outer: Option<OuterCode>,
}

/// Where the shards of a tier lie in the object's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TierLayout {
    /// `data.dat`, `parity_P.dat`: one segment, k = 1.
    Whole,
    /// `segments/segment_N.dat`, `parity/segment_N_parity_P.dat`: k = 1.
    Segments,
    /// `blocks/block_B/segments/segment_N.dat`, `blocks/block_B/parity/block_parity_P.dat`.
    Blocks,
}

/// Parity blocks over groups of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OuterCode {
    /// Data blocks of a full group.
    pub k: u16,
    /// Parity blocks of a group.
    pub m: u16,
}

/// How small files are packed into bundles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleRule {
    /// Files up to this size go into bundles, bytes; 0: none do.
    pub max_file: u64,
    /// A bundle is closed before its content grows over this, bytes.
    pub target: u64,
}

/// The profiles that `init` offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Four copies up to 1 GB, RS(30,3) above.
    Classic,
    /// Reed-Solomon throughout, generous for short contents.
    Balanced,
    /// Reed-Solomon throughout, as little as still survives any three shards.
    Compact,
}

const MB: u64 = 1_000_000;
const GB: u64 = 1_000_000_000;
const KIB: u64 = 1024;
const MIB: u64 = 1024 * 1024;

impl Profile {
    /// All of them.
    pub const ALL: [Profile; 3] = [Profile::Classic, Profile::Balanced, Profile::Compact];

    /// The name on the command line and in the descriptor.
    pub fn name(self) -> &'static str {
        match self {
            Profile::Classic => "classic",
            Profile::Balanced => "balanced",
            Profile::Compact => "compact",
        }
    }

    /// The rows of the profile.
    pub fn tiers(self) -> Vec<TierRule> {
        let row = |tier, below, layout, segment_size, min_segment_size, k, outer| TierRule {
            tier,
            below,
            layout,
            segment_size,
            min_segment_size,
            k,
            m: 3,
            outer,
        };
        let outer = Some(OuterCode { k: 32, m: 1 });
        let blocks = TierLayout::Blocks;
        let (short, medium) = match self {
            Profile::Classic => (
                row(1, Some(10 * MB), TierLayout::Whole, 10 * MIB, 10 * MIB, 1, None),
                row(2, Some(GB), TierLayout::Segments, 32 * MIB, 32 * MIB, 1, None),
            ),
            Profile::Balanced => (
                row(1, Some(10 * MB), blocks, 4 * MIB, 64 * KIB, 4, None),
                row(2, Some(GB), blocks, 32 * MIB, MIB, 8, None),
            ),
            Profile::Compact => (
                row(1, Some(10 * MB), blocks, MIB, 64 * KIB, 10, None),
                row(2, Some(GB), blocks, 32 * MIB, MIB, 20, None),
            ),
        };
        vec![
            short,
            medium,
            row(3, Some(35 * GB), blocks, 32 * MIB, 32 * MIB, 30, None),
            row(4, None, blocks, 32 * MIB, 32 * MIB, 30, outer),
        ]
    }

    /// How the profile packs small files.
    pub fn bundle(self) -> BundleRule {
        match self {
            // Just below tier 2, so that a bundle is one file and three copies.
            Profile::Classic => BundleRule { max_file: MIB, target: 9 * MIB },
            Profile::Balanced | Profile::Compact => BundleRule { max_file: MIB, target: 32 * MIB },
        }
    }
}

impl std::str::FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|profile| profile.name() == text)
            .ok_or_else(|| format!("no profile \"{text}\"; there are classic, balanced and compact"))
    }
}

impl ArchiveDescriptor {
    /// The descriptor of a new archive.
    pub fn new(profile: Profile, id: ArchiveId, now: Timestamp) -> Self {
        Self {
            id,
            created: now.seconds,
            profile: profile.name().to_string(),
            hash_algorithm: super::HashAlgorithm::Blake3,
            tiers: profile.tiers(),
            bundle: profile.bundle(),
            compression: None,
            encryption: None,
        }
    }

    /// BLAKE3 of the rules as every store has them: what the key ring of an encrypted archive vouches for.
    pub fn digest(&self) -> Result<Digest, FormatError> {
        let bytes = serde_json::to_vec(self).map_err(|source| FormatError::Json { what: WHAT, source })?;
        Ok(Digest::of(&bytes))
    }

    /// Archives of encoded contents are no business of programs that do not know these.
    fn version(&self) -> u64 {
        if self.compression.is_some() || self.encryption.is_some() { VERSION_ENCODED } else { VERSION_PLAIN }
    }

    /// The tier of a content of `len` bytes.
    pub fn tier_for(&self, len: u64) -> &TierRule {
        self.tiers
            .iter()
            .find(|tier| tier.below.is_none_or(|below| len < below))
            .unwrap_or(&self.tiers[self.tiers.len() - 1])
    }

    fn check(&self) -> Result<(), FormatError> {
        let bad = |why: String| Err(FormatError::invalid(WHAT, why));
        if self.tiers.is_empty() || self.tiers.len() > 16 {
            return bad(format!("{} tiers", self.tiers.len()));
        }
        let mut previous = 0;
        for (at, tier) in self.tiers.iter().enumerate() {
            let last = at + 1 == self.tiers.len();
            match tier.below {
                None if last => {}
                Some(below) if !last && below > previous => previous = below,
                _ => return bad(format!("tier {} has a limit out of order", tier.tier)),
            }
            tier.check()?;
            if tier.layout == TierLayout::Whole && tier.below.is_none_or(|below| below > tier.segment_size) {
                return bad(format!("tier {} holds contents longer than its one segment", tier.tier));
            }
        }
        if self.bundle.max_file > self.bundle.target || self.bundle.target > MAX_SEGMENT {
            return bad("bundle limits out of order".into());
        }
        Ok(())
    }
}

impl TierRule {
    pub(crate) fn check(&self) -> Result<(), FormatError> {
        let bad = |why: &str| Err(FormatError::invalid(WHAT, format!("tier {}: {why}", self.tier)));
        if self.tier == 0 {
            return bad("numbered 0");
        }
        if self.k == 0 || self.k > MAX_K || self.m == 0 || self.m > MAX_M {
            return bad("k or m out of range");
        }
        if self.k > 1 && self.layout != TierLayout::Blocks {
            return bad("k > 1 needs the layout blocks");
        }
        if self.segment_size == 0 || self.segment_size > MAX_SEGMENT || !self.segment_size.is_multiple_of(64) {
            return bad("segment size out of range, or no multiple of 64");
        }
        if self.min_segment_size == 0
            || self.min_segment_size > self.segment_size
            || !self.min_segment_size.is_multiple_of(64)
        {
            return bad("least segment size out of range, or no multiple of 64");
        }
        if let Some(outer) = self.outer
            && (outer.k == 0 || outer.k > MAX_K || outer.m == 0 || outer.m > MAX_M || self.layout != TierLayout::Blocks)
        {
            return bad("outer code out of range");
        }
        Ok(())
    }
}

impl StoreDescriptor {
    /// A store of `archive`.
    pub fn new(store: StoreId, failure_domain: String, archive: ArchiveDescriptor) -> Self {
        Self { format: "blockframe-store".into(), version: archive.version(), store, failure_domain, archive }
    }

    /// The file's bytes. Errors: rules that no archive may have.
    pub fn to_bytes(&self) -> Result<Vec<u8>, FormatError> {
        self.archive.check()?;
        sealed_json::seal(WHAT, self)
    }

    /// Parses and checks.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FormatError> {
        let versions = VERSION_PLAIN..=VERSION_ENCODED;
        let descriptor: Self = sealed_json::open_as_one_of(WHAT, "blockframe-store", versions, bytes)?;
        if descriptor.version != descriptor.archive.version() {
            return Err(FormatError::invalid(WHAT, "its version and its rules disagree"));
        }
        descriptor.archive.check()?;
        Ok(descriptor)
    }
}

impl TierRule {
    /// Length of an object's segments for a content of `len` bytes: short
    /// contents are spread over `k` segments, in whole leaves where possible.
    pub fn segment_size_for(&self, len: u64) -> u64 {
        if self.min_segment_size == self.segment_size {
            return self.segment_size;
        }
        let grain = if self.min_segment_size >= LEAF_SIZE { LEAF_SIZE } else { 64 };
        let even = len.div_ceil(u64::from(self.k)).div_ceil(grain) * grain;
        even.clamp(self.min_segment_size, self.segment_size)
    }
}
