//! Damage as `health` and `repair` tell it: which files, which bytes, and
//! what to do next.

use crate::archive::{ArchiveError, BlockHealth, LostRange, ObjectHealth, ObjectRef, ShardState, Verdict};
use crate::base::units::LEAF_SIZE;
use crate::base::{ContentRange, LeafIndex, ShardRange, Timestamp};
use crate::catalog::{Catalog, ObjectRecord};
use crate::cli::care::Care;
use crate::cli::error::CliResult;
use crate::cli::output::{JsonPath, Output, printable};
use crate::cli::units;
use crate::format::{BlockId, EntryPath, FileContent, Geometry, NodeBody, layout};
use serde::Serialize;
use std::collections::BTreeMap;

/// Paths that are shown of a damaged object that loses nothing.
const SHOWN_PATHS: usize = 20;

/// A range of bytes in JSON: from `start` up to, not including, `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Bytes {
    start: u64,
    end: u64,
}

/// One damaged file of an object.
#[derive(Debug, Serialize)]
struct DamagedFile {
    file: String,
    why: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ranges: Vec<Bytes>,
}

/// A path that is affected, and which of its bytes are lost.
#[derive(Debug, Serialize)]
struct AffectedPath {
    #[serde(flatten)]
    path: JsonPath,
    /// From when the old version is that needs the bytes; none: the current one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lost: Vec<Bytes>,
}

/// A segment that has lost bytes, where no path can be told for them.
#[derive(Debug, Serialize)]
struct LostSegment {
    segment: u64,
    /// Which of its stored bytes.
    lost: Vec<Bytes>,
}

/// What of the content is affected.
#[derive(Debug, Default)]
struct Affected {
    paths: Vec<AffectedPath>,
    count: u64,
}

/// All that is told of one damaged object.
#[derive(Debug, Serialize)]
pub(super) struct DamageReport {
    object: String,
    verdict: Verdict,
    files: Vec<DamagedFile>,
    /// With losses: every path that has lost bytes. Without: some of the paths.
    paths: Vec<AffectedPath>,
    /// Paths of the object in all.
    path_count: u64,
    /// Without the key: segments that have lost bytes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lost_segments: Vec<LostSegment>,
    /// Whether there may be paths, and only the key tells them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    paths_need_key: bool,
    next: String,
}

impl DamageReport {
    /// The report on what was found.
    pub(super) fn new(care: &Care, reference: &ObjectRef, health: &ObjectHealth) -> CliResult<Self> {
        let object = care.archive.inspect(reference)?;
        let geometry = object.manifest().geometry();
        let mut files: Vec<DamagedFile> = health
            .bad_manifests
            .iter()
            .map(|(copy, why)| DamagedFile { file: (*copy).into(), why: why.clone(), ranges: Vec::new() })
            .collect();
        for block in &health.damaged {
            files.extend(damaged_files(geometry, block));
        }
        let lost: Vec<ContentRange> = health.lost.iter().filter_map(|lost| content_range(geometry, lost)).collect();
        let affected = affected(care, reference, |_| lost)?;
        let lost_segments = if care.is_closed() { lost_segments(geometry, &health.lost) } else { Vec::new() };
        Ok(Self::of(care, reference, health.verdict, files, affected, lost_segments))
    }

    /// The report on an object that cannot even be looked at: no manifest, all of it lost.
    pub(super) fn lost(care: &Care, reference: &ObjectRef, error: &ArchiveError) -> CliResult<Self> {
        let whole = |record: &ObjectRecord| vec![ContentRange::between(0, record.key.stored_size)];
        let affected = affected(care, reference, whole)?;
        let files = [layout::MANIFEST, layout::MANIFEST_COPY].map(|file| DamagedFile {
            file: file.into(),
            why: error.to_string(),
            ranges: Vec::new(),
        });
        let mut report = Self::of(care, reference, Verdict::Unrecoverable, files.into(), affected, Vec::new());
        if care.is_closed() {
            report.next =
                "`blockframe health` with the key tells whether it is lost, or what a crash left behind".into();
        }
        Ok(report)
    }

    fn of(
        care: &Care,
        reference: &ObjectRef,
        verdict: Verdict,
        files: Vec<DamagedFile>,
        affected: Affected,
        lost_segments: Vec<LostSegment>,
    ) -> Self {
        let paths_need_key = care.is_closed();
        let next = match (verdict, paths_need_key) {
            (Verdict::Unrecoverable, true) => {
                "`blockframe health` with the key tells which paths; restore them from another copy".into()
            }
            _ => next_step(verdict, &affected.paths),
        };
        let Affected { paths, count: path_count } = affected;
        let object = reference.name.to_string();
        Self { object, verdict, files, paths, path_count, lost_segments, paths_need_key, next }
    }

    /// Prints it.
    pub(super) fn print(&self, out: &Output) -> CliResult<()> {
        out.json(self)?;
        out.line(format_args!("{}: object {}", self.verdict.word(), self.object))?;
        for path in &self.paths {
            let lost: Vec<String> = path.lost.iter().map(|bytes| format!("{}..{}", bytes.start, bytes.end)).collect();
            let lost = if lost.is_empty() { String::new() } else { format!("  LOST bytes {}", lost.join(", ")) };
            let version = path.version.as_ref().map_or(String::new(), |since| format!(" (version of {since})"));
            out.line(format_args!("  /{}{version}{lost}", printable(path.path.path.as_bytes())))?;
        }
        let hidden = self.path_count.saturating_sub(self.paths.len() as u64);
        if hidden > 0 && self.verdict != Verdict::Unrecoverable {
            out.line(format_args!("  and {} more", units::plural(hidden, "path")))?;
        }
        for LostSegment { segment, lost } in &self.lost_segments {
            let lost: Vec<String> = lost.iter().map(|bytes| format!("{}..{}", bytes.start, bytes.end)).collect();
            out.line(format_args!("  segment {segment}  LOST stored bytes {}", lost.join(", ")))?;
        }
        if self.paths_need_key {
            out.line("  paths need the key")?;
        }
        for file in &self.files {
            out.line(format_args!("    {}: {}", file.file, file.why))?;
        }
        out.line(format_args!("  next: {}", self.next))
    }
}

fn next_step(verdict: Verdict, paths: &[AffectedPath]) -> String {
    match (verdict, paths.iter().find(|path| path.version.is_none()).or(paths.first())) {
        (Verdict::Unrecoverable, Some(AffectedPath { version: Some(_), .. })) => {
            "restore what is lost from another copy, if the old version is wanted; no current file needs it".into()
        }
        (Verdict::Unrecoverable, Some(path)) => {
            let path = printable(path.path.path.as_bytes());
            format!("restore what is lost from another copy; the rest reads with `blockframe cat {path} --range A-B`")
        }
        (Verdict::Unrecoverable, None) => "nothing: no name needs it; `blockframe gc` removes it".into(),
        _ => "blockframe repair".into(),
    }
}

fn damaged_files(geometry: &Geometry, block: &BlockHealth) -> Vec<DamagedFile> {
    let Some(shape) = geometry.block(block.id) else { return Vec::new() };
    let shards = shape.shard_indexes().zip(&block.shards).filter_map(|(shard, state)| {
        let file = layout::shard_path(geometry, &shape, shard);
        match state {
            ShardState::Healthy => None,
            ShardState::Unusable(fault) => Some(DamagedFile { file, why: fault.to_string(), ranges: Vec::new() }),
            ShardState::Damaged { leaves, wrong_len } => {
                let mut why =
                    format!("{} damaged", units::plural(leaves.len() as u64, "leaf").replace("leafs", "leaves"));
                if let Some(found) = wrong_len {
                    why = format!("{why}, {found} bytes long instead of {}", shape.shard_len(shard));
                }
                Some(DamagedFile { file, why, ranges: leaf_ranges(leaves, shape.shard_len(shard)) })
            }
        }
    });
    let mut files: Vec<DamagedFile> = shards.collect();
    if !block.tree_good {
        let file = layout::tree_path(geometry, &shape);
        files.push(DamagedFile {
            file,
            why: "damaged (a cache of hashes, made anew by repair)".into(),
            ranges: vec![],
        });
    }
    files
}

/// The bytes of leaves in a shard.
fn leaf_ranges(leaves: &[LeafIndex], shard_len: u64) -> Vec<Bytes> {
    joined(leaves.iter().map(|leaf| {
        let start = u64::from(leaf.get()) * LEAF_SIZE;
        Bytes { start, end: (start + LEAF_SIZE).min(shard_len.max(start)) }
    }))
}

/// Ascending ranges, with those that touch each other made one.
fn joined(ranges: impl Iterator<Item = Bytes>) -> Vec<Bytes> {
    let mut all: Vec<Bytes> = Vec::new();
    for range in ranges {
        match all.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => all.push(range),
        }
    }
    all
}

/// Lost bytes of a shard as bytes of the content; none when the shard holds no content.
fn content_range(geometry: &Geometry, lost: &LostRange) -> Option<ContentRange> {
    let BlockId::Data(_) = lost.block else { return None };
    let block = geometry.block(lost.block)?;
    if !block.is_data(lost.shard) {
        return None;
    }
    let segment = u64::from(block.first_segment) + u64::from(lost.shard.get());
    let start = segment * geometry.segment_size();
    // What a lost byte of an encoded segment means is not known without decoding: all of it counts.
    let range = geometry.encoded_lens().map_or(lost.range, |_| ShardRange::between(0, geometry.segment_size()));
    ContentRange::new(start + range.start(), range.len())
}

/// The segments that have lost bytes.
fn lost_segments(geometry: &Geometry, lost: &[LostRange]) -> Vec<LostSegment> {
    let mut segments: BTreeMap<u64, Vec<Bytes>> = BTreeMap::new();
    for lost in lost {
        let BlockId::Data(_) = lost.block else { continue };
        let Some(block) = geometry.block(lost.block).filter(|block| block.is_data(lost.shard)) else { continue };
        let segment = u64::from(block.first_segment) + u64::from(lost.shard.get());
        segments.entry(segment).or_default().push(Bytes { start: lost.range.start(), end: lost.range.end() });
    }
    segments.into_iter().map(|(segment, lost)| LostSegment { segment, lost: joined(lost.into_iter()) }).collect()
}

/// The paths that `lost` concerns, as far as names can be told.
fn affected(
    care: &Care,
    reference: &ObjectRef,
    lost: impl FnOnce(&ObjectRecord) -> Vec<ContentRange>,
) -> CliResult<Affected> {
    let Some(catalog) = care.names.as_ref().map(|open| &open.catalog) else { return Ok(Affected::default()) };
    // It may have been removed since it was looked at.
    let Some(record) = catalog.object(&reference.name)? else { return Ok(Affected::default()) };
    let (paths, count) = affected_paths(catalog, &record, &lost(&record))?;
    Ok(Affected { paths, count })
}

fn affected_paths(
    catalog: &Catalog,
    record: &ObjectRecord,
    lost: &[ContentRange],
) -> CliResult<(Vec<AffectedPath>, u64)> {
    let mut affected = Vec::new();
    let mut count = 0;
    let mut add = |content: &FileContent, paths: &[EntryPath], version: Option<Timestamp>| -> CliResult<()> {
        let offset = catalog.place(&content.hash, content.size)?.map_or(0, |place| place.offset);
        let own = ContentRange::between(offset, offset.saturating_add(content.size));
        let gone = joined(
            lost.iter()
                .map(|range| range.intersect(own))
                .filter(|range| !range.is_empty())
                .map(|range| Bytes { start: range.start() - offset, end: range.end() - offset }),
        );
        count += paths.len() as u64;
        if if lost.is_empty() { affected.len() < SHOWN_PATHS } else { !gone.is_empty() } {
            affected.extend(paths.iter().map(|path| AffectedPath {
                path: JsonPath::new(path.as_bytes()),
                version: version.map(units::rfc3339),
                lost: gone.clone(),
            }));
        }
        Ok(())
    };
    for node in catalog.nodes_in(record)? {
        let Some(inode) = catalog.inode(node)? else { continue };
        let NodeBody::File(content) = &inode.body else { continue };
        add(content, &catalog.paths_of(node)?, None)?;
    }
    for old in catalog.past_versions_in(record)? {
        add(&old.content, &old.paths, Some(old.since))?;
    }
    Ok((affected, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_leaves_are_one_range() {
        let leaves = [0, 1, 3].map(LeafIndex::new);
        let ranges = leaf_ranges(&leaves, 3 * LEAF_SIZE + 10);
        let expected =
            [Bytes { start: 0, end: 2 * LEAF_SIZE }, Bytes { start: 3 * LEAF_SIZE, end: 3 * LEAF_SIZE + 10 }];
        assert_eq!(ranges, expected);
    }
}
