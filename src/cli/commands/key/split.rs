//! `key split`: a new secret in shares, of which some together open the archive.

use super::Change;
use super::list::slot_json;
use crate::base::ErrorClass;
use crate::cli::args::SplitKeyArgs;
use crate::cli::context::Context;
use crate::cli::error::{CliError, CliResult};
use crate::cli::exit::ExitStatus;
use crate::cli::paper::{self, Paper};
use crate::keys::page::{self, Sheet};
use crate::keys::shares::{Quorum, Share, SharesError, split};
use crate::keys::{NewSlot, SlotId, SlotKind, SlotSecret, random_key};
use std::path::Path;

impl From<SharesError> for CliError {
    fn from(error: SharesError) -> Self {
        Self::new(error.class(), error)
    }
}

/// Makes the shares and their slot.
pub(super) fn run(context: &Context, args: &SplitKeyArgs) -> CliResult<ExitStatus> {
    let quorum = Quorum::new(args.threshold, args.shares)?;
    let mut change = Change::begin(context)?;
    let mut paper = args.out.as_deref().map(|directory| files(directory, quorum, &change)).transpose()?;
    let secret = random_key()?;
    let shares = split(&secret, quorum);
    let set = shares.first().map(|share| share.set().to_string()).unwrap_or_default();
    let label = args.label.clone().unwrap_or_else(|| format!("{} of {}, set {set}", args.threshold, args.shares));
    let slot = NewSlot::new(SlotSecret::random(SlotKind::Shares, &secret)?, label);
    let id = change.unlocked.ring.add_slot(&slot, change.now)?;
    let sheets = sheets(&shares, &change);
    if let Some(paper) = &mut paper
        && let Err(error) = write(paper, &sheets)
    {
        paper.take_back();
        return Err(error);
    }
    change.save_with(paper.as_ref())?;
    show(context, &change, id, &shares, &sheets, paper.as_ref())?;
    Ok(ExitStatus::Done)
}

/// A text and a page for each share.
fn files(directory: &Path, quorum: Quorum, change: &Change) -> CliResult<Paper> {
    let name = |index, ending| directory.join(format!("share-{index}-of-{}.{ending}", quorum.shares()));
    let files = (1..=quorum.shares()).flat_map(|index| ["txt", "html"].map(|ending| name(index, ending))).collect();
    Paper::new(files, &change.objects.directory)
}

fn sheets(shares: &[Share], change: &Change) -> Vec<Sheet> {
    let name = paper::name_of(&change.objects.directory);
    let about = change.about(&name);
    shares.iter().map(|share| Sheet::of_share(share, &about)).collect()
}

fn write(paper: &mut Paper, sheets: &[Sheet]) -> CliResult<()> {
    for sheet in sheets {
        paper.write(&sheet.text())?;
        paper.write(&page::html(std::slice::from_ref(sheet)))?;
    }
    Ok(())
}

fn show(
    context: &Context,
    change: &Change,
    id: SlotId,
    shares: &[Share],
    sheets: &[Sheet],
    paper: Option<&Paper>,
) -> CliResult<()> {
    let out = context.out();
    let ring = change.unlocked.ring.ring();
    let slot = ring.slots().iter().find(|slot| slot.id == id);
    let slot = slot.ok_or_else(|| CliError::new(ErrorClass::Internal, "the new slot is not in the ring"))?;
    let Some(quorum) = shares.first().map(Share::quorum) else { return Ok(()) };
    let (threshold, count) = (quorum.threshold(), quorum.shares());
    match paper {
        Some(paper) => {
            for file in paper.files() {
                out.line(file.display())?;
            }
            out.line(format_args!(
                "\nAdded slot {id}: any {threshold} of these {count} shares open the archive. Print them or copy them, \
                 give each to another person or place, and delete the files. To use them: --share-file FILE, once for each."
            ))?;
        }
        None => {
            for sheet in sheets {
                out.line(&*sheet.text())?;
            }
            out.line(format_args!(
                "Added slot {id}: any {threshold} of these {count} shares open the archive. They are shown this once. \
                 Write each on a paper of its own, and give each to another person or place."
            ))?;
        }
    }
    let mut document = serde_json::json!({
        "slot": slot_json(slot),
        "generation": ring.generation(),
        "set": shares.first().map(|share| share.set().to_string()),
        "threshold": threshold,
        "shares": count,
    });
    match paper {
        Some(paper) => document["files"] = serde_json::json!(paper.files()),
        None => document["words"] = shares.iter().map(|share| share.words().text().as_str().to_string()).collect(),
    }
    out.json(&document)
}
