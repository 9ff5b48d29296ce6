//! `key add`, `key remove`, `key change`.

use super::list::slot_json;
use super::{Change, encrypted};
use crate::base::ErrorClass;
use crate::cli::args::NewKeyArgs;
use crate::cli::context::Context;
use crate::cli::error::{CliError, CliResult};
use crate::cli::exit::ExitStatus;
use crate::cli::new_secret::{self, NewPhrase};
use crate::cli::paper::{self, Paper};
use crate::keys::page;
use crate::keys::{KeyError, KeyRing, SlotId};

/// What the removal of a secret does not do.
const REMOVED: &str = "The old secret opens this key ring no more. But whoever kept a copy of the old key ring (backups and \
                       snapshots of the directory hold it) and that secret still has the archive's key, and can read \
                       what they get of this archive, what is written later included; `blockframe key rotate` does not \
                       change that. Where that may be so, commit the data into a new archive and destroy this one.";

/// Adds a slot.
pub(super) fn add(context: &Context, args: &NewKeyArgs) -> CliResult<ExitStatus> {
    let mut change = Change::begin(context)?;
    let paper = paper(args, &change)?;
    let (slot, phrase) = new_secret::chosen(context, args, "")?;
    let id = change.unlocked.ring.add_slot(&slot, change.now)?;
    finish(context, change, id, phrase.as_ref(), paper, None)?;
    Ok(ExitStatus::Done)
}

/// Puts a new secret in the place of the one that was used.
pub(super) fn change(context: &Context, args: &NewKeyArgs) -> CliResult<ExitStatus> {
    let mut change = Change::begin(context)?;
    let paper = paper(args, &change)?;
    let ring = &mut change.unlocked.ring;
    let Some(used) = ring.used_slot().cloned() else {
        return Err(CliError::new(ErrorClass::Internal, "the slot that was used is gone"));
    };
    // A label of the same thing stays; that of a key file says nothing of a passphrase.
    let same_kind = args.new_key_file.is_none() && !args.new_recovery_phrase;
    let (slot, phrase) = new_secret::chosen(context, args, if same_kind { &used.label } else { "" })?;
    let id = ring.replace_slot(used.id, &slot, change.now)?;
    finish(context, change, id, phrase.as_ref(), paper, Some(used.id))?;
    Ok(ExitStatus::Done)
}

/// The page for the recovery phrase, if one is wanted.
fn paper(args: &NewKeyArgs, change: &Change) -> CliResult<Option<Paper>> {
    args.page.clone().map(|file| Paper::new(vec![file], &change.objects.directory)).transpose()
}

/// Writes the page: plain text where the file's name says so.
fn write_page(paper: &mut Paper, phrase: &NewPhrase, change: &Change) -> CliResult<()> {
    let name = paper::name_of(&change.objects.directory);
    let sheet = phrase.sheet(&change.about(&name));
    let is_text = paper.files().iter().all(|file| file.extension().is_some_and(|ending| ending == "txt"));
    let page = if is_text { sheet.text() } else { page::html(&[sheet]) };
    paper.write(&page).inspect_err(|_| paper.take_back())
}

/// Writes the ring with its new slot, and tells of it.
fn finish(
    context: &Context,
    mut change: Change,
    id: SlotId,
    phrase: Option<&NewPhrase>,
    mut paper: Option<Paper>,
    replaced: Option<SlotId>,
) -> CliResult<()> {
    if let (Some(paper), Some(phrase)) = (&mut paper, phrase) {
        write_page(paper, phrase, &change)?;
    }
    change.save_with(paper.as_ref())?;
    let out = context.out();
    let ring = change.unlocked.ring.ring();
    let slot = find(ring, id)?;
    let kind = slot.kind.name();
    match replaced {
        None => out.line(format_args!("Added slot {id} ({kind})."))?,
        Some(old) => out.line(format_args!("Slot {id} ({kind}) is in the place of slot {old}. {REMOVED}"))?,
    }
    let page = paper.as_ref().and_then(|paper| paper.files().first());
    match (page, phrase) {
        (Some(page), _) => out.line(format_args!(
            "The recovery phrase is in {}: print it, keep it where nobody else comes, and delete the file.",
            page.display()
        ))?,
        (None, Some(phrase)) => phrase.print(context)?,
        (None, None) => {}
    }
    let mut document = serde_json::json!({ "slot": slot_json(slot), "generation": ring.generation() });
    if let Some(old) = replaced {
        document["replaced"] = serde_json::json!(old);
        document["note"] = REMOVED.into();
    }
    if let Some(page) = page {
        document["page"] = serde_json::json!(page);
    } else if let Some(phrase) = phrase {
        document["recovery_phrase"] = phrase.json().as_str().into();
    }
    out.json(&document)
}

fn find(ring: &KeyRing, id: SlotId) -> CliResult<&crate::keys::Slot> {
    Ok(ring.slots().iter().find(|slot| slot.id == id).ok_or_else(|| KeyError::NoSlot(id.to_string()))?)
}

/// Removes a slot.
pub(super) fn remove(context: &Context, id: &str) -> CliResult<ExitStatus> {
    let id: SlotId = id.parse()?;
    // What can be refused without a key is.
    if let Some(ring) = encrypted(context)?.archive.key_ring()?.newest() {
        find(ring, id)?;
    }
    let mut change = Change::begin(context)?;
    let removed = change.unlocked.ring.remove_slot(id)?;
    change.save()?;
    let out = context.out();
    out.line(format_args!("Removed slot {id} ({}). {REMOVED}", removed.kind.name()))?;
    let generation = change.unlocked.ring.ring().generation();
    out.json(&serde_json::json!({ "removed": slot_json(&removed), "generation": generation, "note": REMOVED }))?;
    Ok(ExitStatus::Done)
}
