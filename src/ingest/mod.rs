//! Trees in and trees out: [`commit`] stores files and directories of the
//! machine in the archive, [`restore`] puts them back, [`plan`] tells
//! beforehand what it would cost.

mod attributes;
mod bundler;
mod commit;
mod error;
mod plan;
mod problem;
mod reencrypt;
mod report;

mod restore;
mod restore_node;
mod source;
mod spool;
mod stream;
mod temporary;
mod walk;

pub use commit::{CommitRequest, commit};
pub use error::{IngestError, IngestResult};
pub use plan::{Plan, ProfileCost, TierCost, plan};
pub use problem::Problem;
pub use reencrypt::{OldKeys, ReencryptReport, Reencryption};
pub use report::{CommitReport, FileReport, Outcome, Reporter};

pub use restore::{RestoreOutcome, RestoreReport, RestoreReporter, RestoreRequest, Restored, restore};
pub use spool::Spool;
pub(crate) use spool::{EntrySpool, SpooledEntries};
pub use stream::stream;
pub use temporary::{SpoolKeys, Spools};
pub use walk::{CommitItem, CommitSource};
