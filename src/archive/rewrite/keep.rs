//! Files of the base that become files of the new object.

use super::Rewrite;
use crate::archive::encode::COLUMN;
use crate::archive::recover::Codes;
use crate::archive::{ArchiveError, ArchiveResult};
use crate::base::{ShardIndex, ShardRange};
use crate::format::manifest::BlockRoots;
use crate::format::tree::{has_tree, tree_bytes, tree_len};
use crate::format::{BlockGeometry, layout};

impl Rewrite<'_> {
    /// Keeps all files of a block that both objects have. Returns its roots.
    pub(super) fn keep_block(&self, block: &BlockGeometry) -> ArchiveResult<BlockRoots> {
        let roots = self.base.manifest().roots(block.id);
        let roots = roots.ok_or_else(|| ArchiveError::Internal("a block without roots was kept".into()))?;
        block.shard_indexes().try_for_each(|shard| self.keep_shard(block, shard))?;
        let path = layout::tree_path(&self.new.geometry, block);
        if has_tree(block) && !self.link(&path, tree_len(block))? {
            let tables = block
                .shard_indexes()
                .map(|shard| self.base.leaf_table(block, shard, Codes::InnerAndOuter))
                .collect::<ArchiveResult<Vec<_>>>()?;
            let file = self.new.create(&path)?;
            file.write_at(0, &tree_bytes(&roots.root(), tables.iter().map(|table| &**table)))?;
            self.new.sync_later(file)?;
        }
        Ok(roots.clone())
    }

    /// Keeps one shard of a block of the base: links its file, or, where that
    /// is missing, of a wrong length, or cannot be linked, writes what is
    /// read (or decoded) and verified.
    pub(super) fn keep_shard(&self, old: &BlockGeometry, shard: ShardIndex) -> ArchiveResult<()> {
        let path = layout::shard_path(&self.new.geometry, old, shard);
        let len = old.shard_len(shard);
        if self.link(&path, len)? {
            return Ok(());
        }
        let file = self.new.create(&path)?;
        let mut buffer = vec![0; COLUMN.min(len) as usize];
        let mut start = 0;
        while start < len {
            self.new.control.check()?;
            let range = ShardRange::between(start, (start + COLUMN).min(len));
            let bytes = &mut buffer[..range.len() as usize];
            self.base.read_shard(old, shard, range, bytes)?;
            // What was a hole stays one.
            if bytes.iter().any(|byte| *byte != 0) {
                file.write_at(start, bytes)?;
            }
            start = range.end();
        }
        file.set_len(len)?;
        self.new.sync_later(file)
    }

    /// Whether the base's file at `path` has that length and is the new object's as well now.
    fn link(&self, path: &str, len: u64) -> ArchiveResult<bool> {
        let store = self.new.archive.store();
        if !store.capabilities().hard_link || !self.base.open_file(path).is_ok_and(|file| file.len() == len) {
            return Ok(false);
        }
        let from = self.new.archive.below(self.base.prefix(), path)?;
        let to = self.new.archive.below(self.new.staging, path)?;
        // Whatever the reason (too many links, a filesystem that has none), a copy does as well.
        let linked = store.link(&from, &to).inspect_err(|error| tracing::debug!(%error, "a shard is copied instead"));
        Ok(linked.is_ok())
    }
}
