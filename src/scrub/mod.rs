//! Background verification: every object in turn, longest unverified first,
//! at a bounded pace, repaired where it is damaged. One [`Scrubber`] serves
//! the mount daemon ([`ScrubDaemon`]) and the command line alike.

mod catalog_ledger;
mod control;
mod cursor;
mod daemon;
mod examine;
mod ledger;
mod pace;
mod pass;
mod store_ledger;
mod survey;

pub use catalog_ledger::CatalogLedger;
pub use control::{
    Findings, PassSummary, ScrubState, ScrubStatus, is_paused, last_pass, request_pause, request_start, start_pending,
    status,
};
pub use daemon::ScrubDaemon;
pub use ledger::{Due, Ledger, Subject, due};
pub use pace::{Pacer, Pause, StopSignal};
pub use pass::{PassEnd, PassScope, Scrubber, Watch};
pub use store_ledger::StoreLedger;
pub use survey::{Finding, Strangers, Survey, strangers};

use crate::archive::ArchiveError;
use crate::base::ErrorClass;
use crate::catalog::CatalogError;
use std::time::Duration;

/// The outcome of a scrubber's work.
pub type ScrubResult<T> = Result<T, ScrubError>;

/// A failed scrub. Damage is none.
#[derive(Debug, thiserror::Error)]
pub enum ScrubError {
    /// The archive failed.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The catalog or the health log failed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// Another process scrubs this archive.
    #[error(
        "process {pid} scrubs this archive already; `blockframe scrub status` tells where it is, `blockframe scrub pause` stops it"
    )]
    Busy {
        /// That process.
        pid: u32,
    },
    /// The store does not show what makes it a store of this archive.
    #[error("store {store} shows no descriptor of this archive; is its disk mounted?")]
    StoreGone {
        /// The store's label.
        store: String,
    },
    /// The thread could not be started.
    #[error("cannot start the scrubbing thread")]
    Thread(#[source] std::io::Error),
}

impl ScrubError {
    /// For the adapters' tables.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Archive(error) => error.class(),
            Self::Catalog(error) => error.class(),
            Self::Busy { .. } => ErrorClass::Busy,
            Self::StoreGone { .. } | Self::Thread(_) => ErrorClass::Unavailable,
        }
    }
}

/// How a scrubber behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScrubOptions {
    /// Most bytes read per second; `None`: as fast as it goes.
    pub bytes_per_second: Option<u64>,
    /// Foreground reads that take this long, on average, slow the scrub down.
    pub slow_read: Duration,
    /// How old a verification may become before the daemon verifies again.
    pub max_age: Duration,
    /// How often the daemon looks whether a pass is due.
    pub check_every: Duration,
}

impl Default for ScrubOptions {
    fn default() -> Self {
        Self {
            bytes_per_second: Some(50_000_000),
            slow_read: Duration::from_millis(20),
            max_age: Duration::from_secs(30 * 86_400),
            check_every: Duration::from_secs(600),
        }
    }
}
