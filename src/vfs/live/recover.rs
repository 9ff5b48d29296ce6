//! What an earlier process left: staged contents are taken up, nodes that were
//! removed while they were open go.

use super::LiveVfs;
use super::file::Base;
use crate::archive::{Event, EventKind};
use crate::format::{NodeBody, StagedContent};
use crate::vfs::error;
use blockframe_api::{Node, VfsResult};

impl LiveVfs {
    pub(super) fn take_up(&self) -> VfsResult<()> {
        let mut found: Vec<(Node, StagedContent)> = Vec::new();
        let catalog = self.namespace.catalog();
        let listed = catalog.staged(&mut |node, content| found.push((node, content)));
        listed.map_err(|error| error::of_catalog(&error))?;
        for node in catalog.unnamed_nodes().map_err(|error| error::of_catalog(&error))? {
            found.retain(|(of, _)| *of != node);
            self.remove_unnamed(node);
        }
        for (node, content) in found {
            self.take_up_file(node, &content)?;
        }
        // What no record tells of was never published. The removals above must
        // be durable first: a record must not outlive its staging file.
        self.namespace.sync().map_err(|error| error::of_namespace(&error))?;
        let discarded = self.staging.discard_unclaimed().map_err(|error| error::of_staging(&error))?;
        if discarded > 0 {
            tracing::info!(discarded, "staging files of writes that were never closed or synced were removed");
        }
        Ok(())
    }

    fn take_up_file(&self, node: Node, content: &StagedContent) -> VfsResult<()> {
        let inode = self.inode(node)?;
        let NodeBody::File(committed) = &inode.body else { return Ok(()) };
        match self.staging.recover(content) {
            Ok(staged) => {
                let file = self.files.hold(node, false);
                let mut guard = file.content_mut();
                guard.base.get_or_insert_with(|| Base::new(committed.clone()));
                self.files.stage(&file, &mut guard, staged);
                drop(guard);
                file.times().closed = Some(super::moment());
                self.files.release(&file, false);
                Ok(())
            }
            Err(cause) => {
                let path = self.path(node);
                let what = format!("{path}: what was written last is lost ({cause}); the committed version is kept");
                tracing::error!("{what}");
                let now = self.namespace.now();
                self.archive.events().record(Event::new(now, EventKind::Lost, path, what));
                let dropped = self.namespace.change(|draft| {
                    draft.unstage(node);
                    Ok(())
                });
                dropped.map_err(|error| error::of_namespace(&error))
            }
        }
    }
}
