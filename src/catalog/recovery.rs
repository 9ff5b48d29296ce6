//! Brings database and journal together when an archive is opened: decides
//! which of them to believe, replays what is missing, rebuilds what is lost.

use super::apply::Applier;
use super::database::{Database, Head, Pool, Use};
use super::local::SealState;
use super::presented::{refuse_old_database, refuse_rollback};
use super::rebuild::{self, RebuildSource};
use super::replica::{Replica, Scan, Span};
use super::{CatalogError, CatalogResult, Site};
use crate::archive::{Event, EventKind};
use crate::format::journal::{ChainHead, FileKind};

/// Page cache while recovering, KiB.
const RECOVERY_CACHE_KIB: u32 = 32 << 10;

/// What the database is worth.
#[derive(Debug)]
pub(super) enum Standing {
    /// It says what the journal says.
    Current { sealed: bool, head: Head },
    /// These groups of the journal are missing; then it stands at the head.
    Behind { groups: Vec<(u64, Span)>, head: Head },
    /// It is good, and the journal on the store is not.
    JournalLost { why: String, head: Head },
    /// It is missing or damaged, or the journal went on without it.
    Unusable { why: String },
}

/// What recovery did.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Recovered {
    /// The database's file is another one now.
    pub(super) replaced: bool,
}

/// Refuses what a later version of this program made, and what no key here
/// opens: it is neither damage, nor may anything be written over it.
///
/// Errors: `NoKeys`, `UnknownEpoch`, `NotPlain`, `Newer`. What cannot be read is no error here.
pub(super) fn refuse_foreign(site: &Site) -> CatalogResult<()> {
    match site.replica.refuse_foreign() {
        Err(
            error @ (CatalogError::Newer { .. } | CatalogError::UnknownEpoch { .. } | CatalogError::NotPlain { .. }),
        ) => return Err(error),
        Err(error) => tracing::debug!("the catalog's journal cannot be looked at: {error}"),
        Ok(()) => {}
    }
    if !site.files.database_exists() {
        return Ok(());
    }
    let opened = site.open_database(Use::ReadOnlyMedium, RECOVERY_CACHE_KIB);
    match opened.and_then(|database| database.newer_schema()) {
        // The version of a file that is damaged says nothing.
        Ok(Some(version)) if site.files.check_seal() != SealState::Broken => Err(CatalogError::Newer {
            place: format!("the catalog's database {}", site.files.database().display()),
            what: format!("its schema is version {version}"),
        }),
        _ => Ok(()),
    }
}

/// Opens the catalog for readers, whatever state it is in.
pub(super) fn open_pool(site: &Site) -> CatalogResult<Pool> {
    refuse_foreign(site)?;
    let seen = site.memory.seen();
    if site.files.database_exists() && site.files.check_seal() == SealState::Matches {
        let standing = standing(site, Use::ReadOnlyMedium, SealState::Matches);
        if matches!(standing, Standing::Current { .. }) {
            refuse_rollback(site, seen, &standing)?;
            return Ok(file_pool(site));
        }
    }
    match site.files.lock() {
        Ok(_lock) => match recover(site) {
            Ok(_) => Ok(file_pool(site)),
            Err(error @ (CatalogError::RolledBack { .. } | CatalogError::Forked { .. })) => Err(error),
            Err(error) => {
                tracing::warn!("the catalog's database cannot be brought up to date: {error}");
                pool_in_memory(site)
            }
        },
        // A writer is at work: its database has no seal, and is good.
        Err(CatalogError::Locked { .. }) => {
            let opened = site.open_database(Use::ReadOnlyMedium, RECOVERY_CACHE_KIB);
            let head = opened.and_then(|database| {
                database.check_identity(site.archive.descriptor().id)?;
                database.head()
            });
            match head {
                Ok(head) => {
                    refuse_old_database(site, seen, head)?;
                    Ok(file_pool(site))
                }
                Err(error) => {
                    refuse_rollback(site, seen, &Standing::Unusable { why: error.to_string() })?;
                    pool_in_memory(site)
                }
            }
        }
        Err(error) => {
            tracing::debug!("the catalog is opened read-only: {error}");
            let seal = site.files.check_seal();
            let standing = standing(site, Use::ReadOnlyMedium, seal);
            refuse_rollback(site, seen, &standing)?;
            match standing {
                Standing::Current { .. } => {
                    Ok(Pool::of_file(site.files.database(), site.key.clone(), Use::ReadOnlyMedium))
                }
                Standing::JournalLost { why, .. } => {
                    tracing::warn!("the catalog's journal is damaged ({why}); the database is used");
                    Ok(Pool::of_file(site.files.database(), site.key.clone(), Use::ReadOnlyMedium))
                }
                Standing::Behind { .. } | Standing::Unusable { .. } => pool_in_memory(site),
            }
        }
    }
}

fn file_pool(site: &Site) -> Pool {
    // Where nothing can be written, SQLite must not try to.
    let usage = if site.files.database_is_writable() { Use::Read } else { Use::ReadOnlyMedium };
    Pool::of_file(site.files.database(), site.key.clone(), usage)
}

fn pool_in_memory(site: &Site) -> CatalogResult<Pool> {
    let database = Database::in_memory()?;
    let built = rebuild::build(site, &database, RebuildSource::Best)?;
    tracing::warn!(
        "the catalog's database cannot be used or repaired where it is; {} was read into memory instead",
        built.report.source_words()
    );
    database.run(|connection| connection.pragma_update(None, "query_only", true))?;
    Ok(Pool::of_memory(database))
}

/// Makes the database good and current. The writer's lock must be held.
pub(super) fn recover(site: &Site) -> CatalogResult<Recovered> {
    refuse_foreign(site)?;
    let seen = site.memory.seen();
    let seal = site.files.check_seal();
    let standing = standing(site, Use::Write, seal);
    refuse_rollback(site, seen, &standing)?;
    match standing {
        Standing::Current { sealed, .. } => {
            if !sealed {
                let database = site.open_database(Use::Write, RECOVERY_CACHE_KIB)?;
                close_sealed(site, database)?;
            }
        }
        Standing::Behind { groups, head } => {
            tracing::info!("the catalog's database was behind its journal by {} changes; replaying", groups.len());
            site.files.unseal()?;
            let database = site.open_database(Use::Write, RECOVERY_CACHE_KIB)?;
            if let Err(error) = catch_up(&site.replica, &database, &groups, &head) {
                tracing::warn!("replaying the catalog's journal failed: {error}");
                drop(database);
                return rebuild_here(site, &error.to_string());
            }
            close_sealed(site, database)?;
        }
        Standing::JournalLost { why, .. } => {
            report(site, &format!("the journal was damaged or lost ({why}); written anew from the database"));
            site.files.unseal()?;
            let database = site.open_database(Use::Write, RECOVERY_CACHE_KIB)?;
            let mut chain = database.head()?.chain;
            chain.sequence = chain.sequence.max(highest_sequence(&site.replica)?);
            if let Err(error) = replace_journal(&site.replica, &database, chain) {
                tracing::warn!("the catalog's journal cannot be written anew: {error}");
            }
            close_sealed(site, database)?;
        }
        Standing::Unusable { why } => return rebuild_here(site, &why),
    }
    Ok(Recovered::default())
}

/// Seals the database unless readers keep a part of it out of its file.
fn close_sealed(site: &Site, database: Database) -> CatalogResult<()> {
    let settled = database.settle()?;
    drop(database);
    if settled { site.files.seal() } else { Ok(()) }
}

fn rebuild_here(site: &Site, why: &str) -> CatalogResult<Recovered> {
    let report_of = rebuild::rebuild_locked(site, RebuildSource::Best)?;
    report(site, &format!("the database was unusable ({why}); rebuilt from {}", report_of.source_words()));
    Ok(Recovered { replaced: true })
}

fn report(site: &Site, what: &str) {
    tracing::warn!("catalog: {what}");
    let event = Event::new(site.archive.clock().now(), EventKind::MetadataHealed, "catalog", what);
    site.archive.events().record(event);
}

/// Writes a snapshot of the database that continues the chain at `chain`, and
/// drops the files that it replaces. Returns the journal's new end and the
/// snapshot's length.
///
/// Crash argument: until the database knows the new head, durably, the old
/// files are there; a crash before leaves a database that finds its old head,
/// or one further back, in the old journal, and the new journal as that one's
/// continuation. A power cut may take back commits to a write-ahead log, but
/// none that came before a durable one.
pub(super) fn replace_journal(replica: &Replica, database: &Database, chain: ChainHead) -> CatalogResult<(Head, u64)> {
    let (head, length) = replica.write_snapshot(database, chain)?;
    database.durably(|| database.store_head(&head))?;
    replica.delete_all_but(head.file)?;
    Ok((head, length))
}

/// A number above that of any block that stands in a journal's chain.
pub(super) fn highest_sequence(replica: &Replica) -> CatalogResult<u64> {
    let mut highest = 0;
    for (kind, start) in replica.files()? {
        highest = highest.max(start.saturating_add(1));
        if kind == FileKind::Journal {
            // One number per block, whether it can be read or not.
            let blocks = replica.length(kind, start)?.unwrap_or(0) / crate::format::journal::BLOCK_LEN as u64;
            highest = highest.max(start.saturating_add(blocks));
        }
    }
    Ok(highest)
}

fn standing(site: &Site, usage: Use, seal: SealState) -> Standing {
    let unusable = |why: String| Standing::Unusable { why };
    if !site.files.database_exists() {
        return unusable("it is missing".into());
    }
    if seal == SealState::Broken {
        return unusable("its bytes do not match its seal".into());
    }
    let examine = || -> CatalogResult<Head> {
        let database = site.open_database(usage, RECOVERY_CACHE_KIB)?;
        database.check_identity(site.archive.descriptor().id)?;
        if seal == SealState::Missing {
            database.quick_check()?;
        }
        database.head()
    };
    let head = match examine() {
        Ok(head) => head,
        Err(error) => return unusable(error.to_string()),
    };
    let sealed = seal == SealState::Matches;
    match site.replica.ends_at(&head) {
        Ok(true) => Standing::Current { sealed, head },
        Ok(false) => compare(&site.replica, &head, sealed)
            .unwrap_or_else(|error| Standing::JournalLost { why: error.to_string(), head }),
        Err(error) => {
            tracing::warn!("the catalog's journal cannot be read: {error}");
            Standing::Current { sealed, head }
        }
    }
}

/// Finds the database's head in the journal, and what comes after it.
fn compare(replica: &Replica, head: &Head, sealed: bool) -> CatalogResult<Standing> {
    let journals = scan_journals(replica)?;
    let known = |scan: &Scan| {
        scan.header.is_some_and(|(_, after)| after == head.chain)
            || scan.spans.iter().any(|span| span.after == head.chain)
    };
    if !journals.iter().any(known) {
        let end = rebuild::whole_history_end(replica, &journals);
        return Ok(match end {
            Some(end) if end.chain.sequence > head.chain.sequence => {
                Standing::Unusable { why: "the journal on the store is longer and does not contain it".into() }
            }
            _ => Standing::JournalLost { why: "it does not contain the database's last change".into(), head: *head },
        });
    }
    let mut at = *head;
    let mut groups = Vec::new();
    for scan in &journals {
        if let Some((before, after)) = scan.header
            && before == at.chain
        {
            at = Head { file: scan.start, length: crate::format::journal::BLOCK_LEN as u64, chain: after };
        }
        for span in &scan.spans {
            if span.before == at.chain {
                groups.push((scan.start, *span));
                at = Head { file: scan.start, length: span.offset + span.length, chain: span.after };
            }
        }
    }
    if groups.is_empty() && at == *head {
        // What stands behind the head was cut off by a crash; the next change cuts it.
        return Ok(Standing::Current { sealed, head: at });
    }
    Ok(Standing::Behind { groups, head: at })
}

/// What is wrong with the journal of a good database that stands at `head`.
pub(super) fn journal_faults(replica: &Replica, head: &Head) -> CatalogResult<Vec<String>> {
    let mut faults = Vec::new();
    let mut current = Vec::new();
    for (kind, start) in replica.files()? {
        if start != head.file {
            continue;
        }
        let scan = replica.scan(kind, start)?;
        let good = match kind {
            FileKind::Snapshot => scan.is_whole_snapshot() && scan.fault.is_none(),
            FileKind::Journal => !scan.is_damaged() && scan.end() == Some(*head),
        };
        if !good {
            let why = scan.fault.unwrap_or_else(|| "it does not end where the database does".into());
            faults.push(format!("{}: {why}", Replica::file_key(kind, start)));
        }
        current.push(kind);
    }
    for kind in [FileKind::Snapshot, FileKind::Journal] {
        if !current.contains(&kind) {
            faults.push(format!("{}: missing", Replica::file_key(kind, head.file)));
        }
    }
    Ok(faults)
}

/// What is wrong with the files, for what can be told from them alone.
pub(super) fn file_faults(replica: &Replica) -> CatalogResult<Vec<String>> {
    let files = replica.files()?;
    let mut faults = Vec::new();
    for &(kind, start) in &files {
        let fault = replica.scan(kind, start).map_or_else(|error| Some(error.to_string()), |scan| scan.fault);
        faults.extend(fault.map(|fault| format!("{}: {fault}", Replica::file_key(kind, start))));
    }
    let has = |kind, start| files.contains(&(kind, start));
    // What came before is deleted only when both are there.
    let is_pair = |&(_, start): &(FileKind, u64)| has(FileKind::Snapshot, start) && has(FileKind::Journal, start);
    if !files.iter().any(is_pair) {
        let start = files.last().map_or(0, |&(_, start)| start);
        let missing = [FileKind::Snapshot, FileKind::Journal].into_iter().filter(|&kind| !has(kind, start));
        faults.extend(missing.map(|kind| format!("{}: missing", Replica::file_key(kind, start))));
    }
    Ok(faults)
}

/// All journals, in the order of the chain.
pub(super) fn scan_journals(replica: &Replica) -> CatalogResult<Vec<Scan>> {
    let files = replica.files()?;
    let journals = files.into_iter().filter(|(kind, _)| *kind == FileKind::Journal);
    journals.map(|(kind, start)| replica.scan(kind, start)).collect()
}

fn catch_up(replica: &Replica, database: &Database, groups: &[(u64, Span)], head: &Head) -> CatalogResult<()> {
    database.run(|connection| connection.execute_batch("BEGIN IMMEDIATE"))?;
    let mut applier = Applier::new(database, false)?;
    for (start, span) in groups {
        applier.begin_group();
        replica.replay(FileKind::Journal, *start, span, &mut |record| applier.apply(&record))?;
    }
    applier.finish()?;
    database.store_head(head)?;
    database.run(|connection| connection.execute_batch("COMMIT"))
}
