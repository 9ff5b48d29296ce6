//! What a store presents against what this machine has seen of it.

use super::database::Head;
use super::recovery::{Standing, scan_journals};
use super::replica::Replica;
use super::trusted_head::{Contains, judge};
use super::{CatalogResult, Site, rebuild};
use crate::format::journal::{BLOCK_LEN, Block, ChainHead, place_after};

/// Refuses a store that has gone back behind `seen`, or continues something
/// else, judged by what an opening would believe. `seen` is read before the
/// standing is found out: a writer may be at work meanwhile, and remember more.
///
/// Errors: `RolledBack`, `Forked`; none when rollbacks are accepted.
pub(super) fn refuse_rollback(site: &Site, seen: Option<ChainHead>, standing: &Standing) -> CatalogResult<()> {
    let Some(seen) = seen else { return Ok(()) };
    let (head, database_is_good) = match standing {
        Standing::Current { head, .. } | Standing::JournalLost { head, .. } | Standing::Behind { head, .. } => {
            (Some(*head), true)
        }
        Standing::Unusable { .. } => (journal_end(&site.replica), false),
    };
    refuse(site, seen, head, database_is_good)
}

/// The same for a database that a writer has open.
pub(super) fn refuse_old_database(site: &Site, seen: Option<ChainHead>, head: Head) -> CatalogResult<()> {
    seen.map_or(Ok(()), |seen| refuse(site, seen, Some(head), true))
}

/// The same for a rebuild that the user asked for: of a journal that is
/// damaged, what is left is taken. One that is whole and ends too early was not damaged.
pub(super) fn refuse_whole_old_journal(site: &Site, seen: Option<ChainHead>) -> CatalogResult<()> {
    let Some(seen) = seen else { return Ok(()) };
    let Ok(journals) = scan_journals(&site.replica) else { return Ok(()) };
    let whole = journals.iter().all(|scan| scan.fault.is_none());
    match rebuild::whole_history_end(&site.replica, &journals) {
        Some(end) if whole => refuse(site, seen, Some(end), false),
        _ => {
            tracing::warn!("the journal is damaged: what is left is used, and may be older than what was there");
            Ok(())
        }
    }
}

fn refuse(site: &Site, seen: ChainHead, head: Option<Head>, database_is_good: bool) -> CatalogResult<()> {
    let presented = head.map_or(0, |head| head.chain.sequence);
    let contains = match head {
        Some(head) if presented >= seen.sequence => contains(&site.replica, seen, &head, database_is_good)?,
        _ => Contains::No,
    };
    match judge(site.archive.store().label(), seen, presented, contains) {
        Err(error) if site.memory.accepts_rollback() => {
            tracing::warn!("accepted: {error}");
            Ok(())
        }
        outcome => outcome,
    }
}

/// Whether the journal that ends at `head` has the place `seen`, which is not after it.
fn contains(replica: &Replica, seen: ChainHead, head: &Head, database_is_good: bool) -> CatalogResult<Contains> {
    let answer = |same: bool| if same { Contains::Yes } else { Contains::No };
    if head.chain.sequence == seen.sequence {
        return Ok(answer(head.chain == seen));
    }
    // A file has one block for each number.
    let Some(blocks) = seen.sequence.checked_sub(head.file) else { return Ok(Contains::Compacted) };
    let offset = blocks.saturating_mul(BLOCK_LEN as u64);
    if let Some(before) = offset.checked_sub(BLOCK_LEN as u64)
        && let Some(bytes) = replica.read_block(head.file, before)?
        && let Ok(block) = Block::parse(&bytes)
    {
        // The hash needs no key to be believed.
        return Ok(answer(place_after(&block, &bytes) == seen));
    }
    if let Some(bytes) = replica.read_block(head.file, offset)?
        && let Some(place) = replica.authentic_place(head.file, &bytes)?
    {
        return Ok(answer(place == seen));
    }
    Ok(if database_is_good { Contains::Unknown } else { Contains::No })
}

/// The last place of the newest journal of which anything can be read.
fn journal_end(replica: &Replica) -> Option<Head> {
    let journals = scan_journals(replica).ok()?;
    journals.iter().rev().find_map(|scan| {
        let last = scan.spans.last().map(|span| Head {
            file: scan.start,
            length: span.offset + span.length,
            chain: span.after,
        });
        last.or_else(|| scan.end())
    })
}
