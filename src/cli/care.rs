//! An archive whose objects are verified and repaired. That needs no key: an
//! encrypted archive whose keys are not there is cared for all the same, only
//! that its names stay closed.

use super::context::{Context, OpenArchive, OpenObjects};
use super::error::{CliError, CliResult};
use super::unlock::has_origins;
use super::writes::leftovers;
use crate::archive::Archive;
use crate::base::ErrorClass;
use crate::catalog::HealthLog;
use crate::scrub::{CatalogLedger, Ledger, StoreLedger};
use std::path::PathBuf;
use std::sync::Arc;

/// An archive in care.
#[derive(Debug)]
pub(super) struct Care {
    /// Its directory.
    pub(super) directory: PathBuf,
    /// Its objects.
    pub(super) archive: Arc<Archive>,
    /// What happened to it, and what was verified when. Without keys it is another log than with them.
    pub(super) health: Arc<HealthLog>,
    /// Which objects there are, and what the log knows of them.
    pub(super) ledger: Arc<dyn Ledger>,
    /// Its names; none without its keys.
    pub(super) names: Option<OpenArchive>,
}

impl Context {
    /// Opens the archive that the user means, with its names where a key is
    /// named for it. Nobody is asked for a secret, unless names are `wanted`.
    ///
    /// Error: `WrongKey` when what is named does not open it.
    pub(super) fn open_for_care(&self, wanted: bool) -> CliResult<Care> {
        let objects = self.open_objects()?;
        let chosen = self.global().no_key;
        if objects.archive.is_encrypted() && (chosen || !wanted && !has_origins(self)) {
            if !chosen {
                tracing::warn!(
                    "the archive is encrypted and no key was named: what is stored is looked after without it, paths \
                     cannot be told (--no-key says that this is meant)"
                );
            }
            return Care::closed(objects);
        }
        Ok(Care::opened(objects.unlock(self)?.open_catalog()?))
    }
}

impl Care {
    fn opened(open: OpenArchive) -> Self {
        Self {
            directory: open.directory.clone(),
            archive: Arc::clone(&open.archive),
            health: Arc::clone(&open.health),
            ledger: Arc::new(CatalogLedger::new(Arc::clone(&open.catalog), Arc::clone(&open.health))),
            names: Some(open),
        }
    }

    fn closed(objects: OpenObjects) -> CliResult<Self> {
        let health = objects.open_log()?;
        let OpenObjects { directory, archive, .. } = objects;
        let ledger = Arc::new(StoreLedger::new((*archive).clone(), Arc::clone(&health)));
        Ok(Self { directory, archive, health, ledger, names: None })
    }

    /// Whether names cannot be told, because the keys are not there.
    pub(super) fn is_closed(&self) -> bool {
        self.names.is_none()
    }

    /// The archive with its names.
    ///
    /// Error: `WrongKey`, when `what` is asked for without the keys.
    pub(super) fn names_for(&self, what: &str) -> CliResult<&OpenArchive> {
        self.names.as_ref().ok_or_else(|| {
            let directory = self.directory.display();
            let message = format!(
                "{directory} is encrypted, and {what} needs its key; name one with --passphrase-file, --key-file, \
                 --recovery-phrase-file or --share-file, or [encryption] in config.toml"
            );
            CliError::new(ErrorClass::WrongKey, message)
        })
    }

    /// How many files are staged and not committed yet; not known without the keys.
    pub(super) fn staged(&self) -> CliResult<Option<u64>> {
        self.names.as_ref().map(|open| Ok(leftovers(open)?.0)).transpose()
    }
}
