//! `key list`: the slots, which no key is needed to see.

use super::encrypted;
use crate::cli::context::Context;
use crate::cli::error::CliResult;
use crate::cli::exit::ExitStatus;
use crate::cli::output::Table;
use crate::cli::units;
use crate::keys::{Kdf, KeyRing, Slot};

pub(super) fn run(context: &Context) -> CliResult<ExitStatus> {
    let objects = encrypted(context)?;
    let copies = objects.archive.key_ring()?;
    let out = context.out();
    let Some(ring) = copies.newest() else { return Ok(ExitStatus::Failed) };
    let mut table = Table::new(&[">id", "kind", "label", "created", "key derivation"]);
    for slot in ring.slots() {
        let kind = slot.kind.name().to_string();
        table.row([slot.id.to_string(), kind, slot.label.clone(), units::time(slot.created), kdf_text(&slot.kdf)]);
    }
    table.print(out)?;
    let epoch = ring.epochs().last().map_or(0, |epoch| epoch.epoch.get());
    let began = ring.epochs().last().map_or(String::new(), |epoch| format!(", begun {}", units::time(epoch.created)));
    out.line(format_args!("\nEpoch {epoch}{began}. Key ring of generation {}.", ring.generation()))?;
    if ring.is_reencrypting() {
        out.line("Not all that is stored has its key: `blockframe key rotate --reencrypt` goes on.")?;
    }
    out.json(&document(ring))?;
    Ok(ExitStatus::Done)
}

fn document(ring: &KeyRing) -> serde_json::Value {
    let epochs: Vec<_> = ring
        .epochs()
        .iter()
        .map(|epoch| serde_json::json!({ "epoch": epoch.epoch, "created": epoch.created }))
        .collect();
    serde_json::json!({
        "archive": ring.archive(),
        "generation": ring.generation(),
        "slots": ring.slots().iter().map(slot_json).collect::<Vec<_>>(),
        "epochs": epochs,
        "reencrypting": ring.is_reencrypting(),
    })
}

/// A slot as JSON shows it.
pub(in crate::cli) fn slot_json(slot: &Slot) -> serde_json::Value {
    let kdf = match slot.kdf {
        Kdf::Argon2id { memory_kib, passes, lanes, .. } => {
            serde_json::json!({ "name": "argon2id", "memory_kib": memory_kib, "passes": passes, "lanes": lanes })
        }
        Kdf::Blake3 { .. } => serde_json::json!({ "name": "blake3" }),
    };
    serde_json::json!({
        "id": slot.id, "kind": slot.kind, "label": slot.label, "created": slot.created, "kdf": kdf,
    })
}

fn kdf_text(kdf: &Kdf) -> String {
    match *kdf {
        Kdf::Argon2id { memory_kib, passes, lanes, .. } => {
            let memory = units::exact_size(u64::from(memory_kib) << 10);
            format!("argon2id, {memory}, {passes} passes, {lanes} lanes")
        }
        Kdf::Blake3 { .. } => "blake3, of 256 random bits".into(),
    }
}
