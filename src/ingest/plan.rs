//! What a tree would cost under each profile, before anything is written.

use super::IngestResult;
use super::walk::{CommitItem, CommitSource, Excluded, Walk};
use crate::format::{BundleRule, Geometry, Profile, TierRule};
use std::collections::HashSet;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// A tar header, half a block of padding, and what an entry usually takes in the table.
const MEMBER_OVERHEAD: u64 = 512 + 256;
const ROW: u64 = 120;
/// An empty bundle: table header, table, end of the tar.
const BUNDLE_OVERHEAD: u64 = 2048;

/// What the trees hold, and what each profile would make of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Regular files; a file with several names counts once.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Directories, links, special files and further names.
    pub others: u64,
    /// What could not be looked at.
    pub unreadable: u64,
    /// Every profile, in the order of [`Profile::ALL`]. Contents that occur
    /// twice are counted twice: only a commit reads them.
    pub profiles: Vec<ProfileCost>,
}

/// The cost of one profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileCost {
    /// Its name.
    pub profile: &'static str,
    /// The tiers that would be used, ascending.
    pub tiers: Vec<TierCost>,
    /// Objects.
    pub objects: u64,
    /// Bundles among them.
    pub bundles: u64,
    /// Shard files.
    pub shards: u64,
    /// Bytes of all shards.
    pub stored_bytes: u64,
}

/// What would lie in one tier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TierCost {
    /// The tier's rule.
    pub rule: TierRule,
    /// Objects.
    pub objects: u64,
    /// Bytes of their contents.
    pub content_bytes: u64,
    /// Bytes of all shards.
    pub stored_bytes: u64,
    /// Shard files.
    pub shards: u64,
}

impl ProfileCost {
    /// Bytes stored beyond the files' own, in percent of these (rounded); 0 for nothing.
    pub fn overhead_percent(&self, bytes: u64) -> u64 {
        let extra = u128::from(self.stored_bytes.saturating_sub(bytes)) * 100;
        u64::try_from((extra + u128::from(bytes) / 2).checked_div(u128::from(bytes)).unwrap_or(0)).unwrap_or(u64::MAX)
    }
}

impl TierCost {
    /// What damage the tier survives, for people.
    pub fn survives(&self) -> String {
        let TierRule { k, m, outer, .. } = self.rule;
        let shards = if k == 1 {
            format!("any {m} of the {} copies of a segment", m + 1)
        } else {
            format!("any {m} shards of each block of up to {}", k + m)
        };
        match outer {
            Some(outer) => format!("{shards}; {} whole blocks of each {}", outer.m, outer.k + outer.m),
            None => shards,
        }
    }
}

/// Looks at the trees (reading no file) and works out the cost under every
/// profile. `exclude` and `cancel` are as for a commit.
pub fn plan(items: &[CommitItem], exclude: &[PathBuf], cancel: &AtomicBool) -> IngestResult<Plan> {
    let mut plan = Plan::default();
    let mut estimates: Vec<Estimate> = Profile::ALL.iter().map(|profile| Estimate::new(*profile)).collect();
    visit(items, &Excluded::new(exclude), cancel, &mut |seen| match seen {
        Seen::File { size, path_len } => {
            plan.files += 1;
            plan.bytes += size;
            estimates.iter_mut().for_each(|estimate| estimate.file(size, path_len));
        }
        Seen::Other { path_len } => {
            plan.others += 1;
            estimates.iter_mut().for_each(|estimate| estimate.row(path_len));
        }
        Seen::Problem => plan.unreadable += 1,
    });
    if cancel.load(Ordering::Relaxed) {
        return Err(super::IngestError::Interrupted);
    }
    plan.profiles = estimates.into_iter().map(Estimate::finish).collect();
    Ok(plan)
}

/// Number and bytes of the regular files, as far as can be seen.
pub(super) fn count(items: &[CommitItem], excluded: &Excluded, cancel: &AtomicBool) -> (u64, u64) {
    let mut total = (0, 0);
    visit(items, excluded, cancel, &mut |seen| {
        if let Seen::File { size, .. } = seen {
            total.0 += 1;
            total.1 += size;
        }
    });
    total
}

enum Seen {
    File { size: u64, path_len: u64 },
    Other { path_len: u64 },
    Problem,
}

fn visit(items: &[CommitItem], excluded: &Excluded, cancel: &AtomicBool, see: &mut dyn FnMut(Seen)) {
    let mut linked = HashSet::new();
    for item in items {
        let walk = match &item.source {
            CommitSource::Path(source) => Ok(Walk::new(source.clone(), item.path.clone(), excluded)),
            CommitSource::Contents(source) => Walk::contents(source.clone(), item.path.clone(), excluded),
            CommitSource::Stream(..) => continue,
        };
        let Ok(mut walk) = walk else {
            see(Seen::Problem);
            continue;
        };
        while let Some(found) = walk.next() {
            if cancel.load(Ordering::Relaxed) {
                return;
            }
            let path_len = found.source.as_os_str().as_bytes().len() as u64;
            let Ok(metadata) = found.metadata else {
                see(Seen::Problem);
                continue;
            };
            see(look(&metadata, path_len, &mut linked));
            if metadata.is_dir() && walk.enter(&found.source, &found.path).is_err() {
                see(Seen::Problem);
            }
        }
    }
}

fn look(metadata: &Metadata, path_len: u64, linked: &mut HashSet<(u64, u64)>) -> Seen {
    let first_name = metadata.nlink() == 1 || metadata.is_dir() || linked.insert((metadata.dev(), metadata.ino()));
    if metadata.is_file() && first_name {
        Seen::File { size: metadata.size(), path_len }
    } else {
        Seen::Other { path_len }
    }
}

/// One profile's rules applied to sizes as they come.
struct Estimate {
    profile: Profile,
    tiers: Vec<TierCost>,
    limits: Vec<Option<u64>>,
    bundle: BundleRule,
    /// Content bytes of the open bundle.
    open: u64,
    bundles: u64,
}

impl Estimate {
    fn new(profile: Profile) -> Self {
        let rules = profile.tiers();
        Self {
            profile,
            limits: rules.iter().map(|rule| rule.below).collect(),
            tiers: rules
                .into_iter()
                .map(|rule| TierCost { rule, objects: 0, content_bytes: 0, stored_bytes: 0, shards: 0 })
                .collect(),
            bundle: profile.bundle(),
            open: 0,
            bundles: 0,
        }
    }

    fn file(&mut self, size: u64, path_len: u64) {
        if size > self.bundle.max_file {
            self.object(size);
        } else if size == 0 {
            self.row(path_len);
        } else {
            self.pack(size + MEMBER_OVERHEAD + ROW + path_len);
        }
    }

    fn row(&mut self, path_len: u64) {
        self.pack(ROW + path_len);
    }

    fn pack(&mut self, bytes: u64) {
        if self.open > 0 && self.open + bytes > self.bundle.target {
            self.close();
        }
        if self.open == 0 {
            self.open = BUNDLE_OVERHEAD;
        }
        self.open += bytes;
    }

    fn close(&mut self) {
        let content = std::mem::take(&mut self.open);
        if content > 0 {
            self.bundles += 1;
            self.object(content);
        }
    }

    fn object(&mut self, size: u64) {
        let at = self.limits.iter().position(|below| below.is_none_or(|below| size < below));
        let Some(tier) = at.and_then(|at| self.tiers.get_mut(at)) else { return };
        let Some(geometry) = Geometry::choose(tier.rule, size) else { return };
        tier.objects += 1;
        tier.content_bytes += size;
        tier.stored_bytes += geometry.stored_len();
        tier.shards += geometry
            .block_ids()
            .filter_map(|id| geometry.block(id))
            .map(|block| u64::from(block.shards()))
            .sum::<u64>();
    }

    fn finish(mut self) -> ProfileCost {
        self.close();
        let tiers: Vec<TierCost> = self.tiers.into_iter().filter(|tier| tier.objects > 0).collect();
        let sum = |of: fn(&TierCost) -> u64| tiers.iter().map(of).sum();
        ProfileCost {
            profile: self.profile.name(),
            objects: sum(|tier| tier.objects),
            bundles: self.bundles,
            shards: sum(|tier| tier.shards),
            stored_bytes: sum(|tier| tier.stored_bytes),
            tiers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::EntryPath;

    fn planned(path: &std::path::Path) -> Plan {
        let item = CommitItem::from_path(path.to_path_buf(), &EntryPath::root()).unwrap();
        plan(&[item], &[], &AtomicBool::new(false)).unwrap()
    }

    #[test]
    fn classic_keeps_four_copies_and_compact_far_less() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("video");
        std::fs::File::create(&file).unwrap().set_len(100 << 20).unwrap();
        let plan = planned(&file);
        assert_eq!((plan.files, plan.bytes), (1, 100 << 20));
        let classic = &plan.profiles[0];
        assert_eq!(classic.overhead_percent(plan.bytes), 300);
        assert_eq!((classic.objects, classic.bundles, classic.shards), (1, 0, 16));
        assert_eq!(classic.tiers[0].rule.tier, 2);
        assert_eq!(classic.tiers[0].survives(), "any 3 of the 4 copies of a segment");
        let compact = &plan.profiles[2];
        assert!(compact.overhead_percent(plan.bytes) < 20, "{compact:?}");
    }

    #[test]
    fn a_thousand_small_files_are_a_few_bundles() {
        let directory = tempfile::tempdir().unwrap();
        for index in 0..1000 {
            std::fs::write(directory.path().join(index.to_string()), [0; 20_000]).unwrap();
        }
        std::fs::hard_link(directory.path().join("0"), directory.path().join("x")).unwrap();
        let plan = planned(directory.path());
        assert_eq!((plan.files, plan.others), (1000, 2));
        assert_eq!(plan.profiles[0].bundles, 3);
        assert_eq!(plan.profiles[1].bundles, 1);
    }

    #[test]
    fn nothing_costs_nothing() {
        let plan = plan(&[], &[], &AtomicBool::new(false)).unwrap();
        assert!(plan.profiles.iter().all(|profile| profile.stored_bytes == 0 && profile.overhead_percent(0) == 0));
    }
}
