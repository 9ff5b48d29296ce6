//! `init`: makes an archive, and says what it survives.

use super::key::slot_json;
use crate::archive::Archive;
use crate::base::{ArchiveId, Clock as _, ErrorClass, SystemClock, Timestamp};
use crate::catalog::Catalog;
use crate::cli::args::{InitArgs, ProfileName};
use crate::cli::context::Context;
use crate::cli::error::{CliError, CliResult};
use crate::cli::exit::ExitStatus;
use crate::cli::new_secret::{NewPhrase, slot_from, slot_from_person};
use crate::cli::output::Table;
use crate::cli::secrets::Origin;
use crate::cli::units;
use crate::cli::unlock::keep_out_of_core_dumps;
use crate::cli::unlock::{configured, slots_text};
use crate::codec::seal::CipherSuite;
use crate::format::layout::{KEY_RING, PRIVATE_DIR, RECOVERY_TEXT, STORE_DESCRIPTOR, STORE_DESCRIPTOR_COPY};
use crate::format::{ArchiveDescriptor, Profile, TierRule};
use crate::keys::{NewSlot, OpenRing};
use crate::store::LocalStore;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Makes an archive.
pub(super) fn run(context: &Context, args: &InitArgs) -> CliResult<ExitStatus> {
    let (cipher, named) = cipher_and_directory(args)?;
    let directory = match named {
        Some(directory) => directory,
        None => context.archive_directory()?,
    };
    refuse_what_is_in_use(&directory)?;
    let domain = args.failure_domain.clone().unwrap_or_else(host_name);
    let now = SystemClock.now();
    let mut descriptor = ArchiveDescriptor::new(profile(args.profile), ArchiveId::random(), now);
    descriptor.compression = args.compress;
    descriptor.encryption = cipher;
    let keys = match cipher {
        Some(_) => {
            keep_out_of_core_dumps();
            Some(FirstKeys::make(context, args, &descriptor, now)?)
        }
        None => None,
    };
    std::fs::create_dir_all(&directory)
        .map_err(|error| CliError::io(format!("cannot make the directory {}", directory.display()), error))?;
    let store = Arc::new(LocalStore::open(&directory)?);
    let mut ring = None;
    if let Some(keys) = &keys {
        // Before the descriptor: an archive that says it is encrypted has a key ring.
        let mut first = keys.ring.clone();
        first.save(&*store)?;
        ring = Some(first);
    }
    Archive::create(store.clone(), descriptor, domain.clone())?;
    let mut archive = Archive::open(store, Arc::new(SystemClock), Arc::new(()))?;
    if let Some(ring) = &ring {
        archive = archive.unlocked(ring.keys().clone());
    }
    let archive = Arc::new(archive);
    Catalog::create_trusted(&directory, &archive, context.trusted_heads())?;
    show(context, &directory, &archive, &domain, keys.as_ref())?;
    Ok(ExitStatus::Done)
}

/// The cipher, if it shall be encrypted, and the directory that was named. `init --encrypt DIR` reads as people mean it.
fn cipher_and_directory(args: &InitArgs) -> CliResult<(Option<CipherSuite>, Option<PathBuf>)> {
    let Some(word) = &args.encrypt else { return Ok((None, args.directory.clone())) };
    let default = CipherSuite::for_this_processor();
    match word.parse() {
        Ok(cipher) => Ok((Some(cipher), args.directory.clone())),
        Err(_) if word.is_empty() => Ok((Some(default), args.directory.clone())),
        Err(error) if args.directory.is_some() || is_like_a_cipher(word) => {
            Err(CliError::new(ErrorClass::Invalid, error))
        }
        Err(_) => Ok((Some(default), Some(word.into()))),
    }
}

/// A mistyped cipher must not become a directory.
fn is_like_a_cipher(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    !word.contains('/') && ["aes", "chacha", "xchacha", "poly1305", "gcm", "siv"].iter().any(|part| word.contains(part))
}

/// The keys of a new archive.
struct FirstKeys {
    ring: OpenRing,
    phrase: Option<NewPhrase>,
}

impl FirstKeys {
    /// From the files that flags name, else what the configuration names, else a passphrase that is asked for; and a
    /// recovery phrase. On no store yet.
    fn make(context: &Context, args: &InitArgs, descriptor: &ArchiveDescriptor, now: Timestamp) -> CliResult<Self> {
        let global = context.global();
        let flags =
            [global.passphrase_file.clone().map(Origin::PassphraseFile), global.key_file.clone().map(Origin::KeyFile)];
        let mut origins: Vec<Origin> = flags.into_iter().flatten().collect();
        if origins.is_empty() {
            origins = configured(context);
        }
        let mut slots = origins.iter().map(|origin| slot_from(origin, None)).collect::<CliResult<Vec<NewSlot>>>()?;
        if slots.is_empty() {
            slots.push(slot_from_person("", "--passphrase-file or --key-file")?);
        }
        let phrase = if args.no_recovery_phrase { None } else { Some(NewPhrase::make(context, !args.no_confirm)?) };
        if let Some(phrase) = &phrase {
            slots.push(phrase.slot("")?);
        }
        Ok(Self { ring: OpenRing::create(descriptor.id, descriptor.digest()?, &slots, now)?, phrase })
    }
}

/// The profile of that name.
pub(super) fn profile(name: ProfileName) -> Profile {
    match name {
        ProfileName::Classic => Profile::Classic,
        ProfileName::Balanced => Profile::Balanced,
        ProfileName::Compact => Profile::Compact,
    }
}

fn refuse_what_is_in_use(directory: &Path) -> CliResult<()> {
    let shown = directory.display();
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(CliError::io(format!("cannot look into {shown}"), error)),
    };
    let exists = |message: String| Err(CliError::new(ErrorClass::Exists, message));
    if [STORE_DESCRIPTOR, STORE_DESCRIPTOR_COPY].iter().any(|name| directory.join(name).exists()) {
        return exists(format!(
            "{shown} holds an archive already; use it with --archive {shown}, or choose another directory"
        ));
    }
    for entry in entries {
        let name = entry.map_err(|error| CliError::io(format!("cannot look into {shown}"), error))?.file_name();
        // A new filesystem brings lost+found; an init that was interrupted leaves our private directory.
        if name != "lost+found" && ![PRIVATE_DIR, RECOVERY_TEXT, KEY_RING].iter().any(|ours| name == *ours) {
            return exists(format!(
                "{shown} is not empty (it holds \"{}\"); an archive wants a directory of its own",
                name.display()
            ));
        }
    }
    Ok(())
}

/// The host's name; stores on one host fail together unless the user says otherwise.
fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "host".into() } else { name }
}

fn show(
    context: &Context,
    directory: &Path,
    archive: &Archive,
    domain: &str,
    keys: Option<&FirstKeys>,
) -> CliResult<()> {
    let out = context.out();
    let rules = archive.descriptor();
    out.line(format_args!("Made archive {} in {} (profile {}).\n", rules.id, directory.display(), rules.profile))?;
    let mut table = Table::new(&["contents", "code", ">overhead", "survives"]);
    let mut from = 0;
    for tier in &rules.tiers {
        table.row(tier_row(from, tier));
        from = tier.below.unwrap_or(from);
    }
    table.print(out)?;
    if let Some(spec) = rules.compression {
        out.line(format_args!("\nContents are compressed with {spec} where that makes them shorter."))?;
    }
    out.line(format_args!(
        "\nFiles up to {} are bundled. It does not survive the loss of the whole directory: keep a copy elsewhere.\n\
         Next: blockframe -a {} commit PATH",
        units::exact_size(rules.bundle.max_file),
        directory.display()
    ))?;
    let mut document = serde_json::json!({
        "archive": rules.id,
        "store": archive.store_id(),
        "directory": directory,
        "profile": rules.profile,
        "failure_domain": domain,
        "tiers": rules.tiers,
        "bundle": rules.bundle,
        "compression": rules.compression,
    });
    if let (Some(keys), Some(cipher)) = (keys, rules.encryption) {
        out.line(format_args!(
            "\nEncrypted with {cipher}; opened by: {}. Without one of them nobody can read it, ever.",
            slots_text(keys.ring.ring())
        ))?;
        document["encryption"] = cipher.name().into();
        document["slots"] = keys.ring.ring().slots().iter().map(slot_json).collect();
        if let Some(phrase) = &keys.phrase {
            phrase.print(context)?;
            document["recovery_phrase"] = phrase.json().as_str().into();
        }
    }
    out.json(&document)
}

/// A row of the table of tiers, for contents of at least `from` bytes.
pub(super) fn tier_row(from: u64, tier: &TierRule) -> [String; 4] {
    let contents = match (from, tier.below) {
        (0, Some(below)) => format!("under {}", units::size(below)),
        (from, Some(below)) => format!("{} to {}", units::size(from), units::size(below)),
        (from, None) => format!("from {}", units::size(from)),
    };
    let (k, m) = (f64::from(tier.k), f64::from(tier.m));
    let outer = tier.outer.map_or(1.0, |outer| 1.0 + f64::from(outer.m) / f64::from(outer.k));
    let overhead = ((k + m) / k * outer - 1.0) * 100.0;
    let (code, survives) = match (tier.k, tier.outer) {
        (1, _) => (format!("{} copies", tier.m + 1), format!("any {} lost", tier.m)),
        (k, None) => {
            (format!("RS({k},{})", tier.m), format!("any {} lost shards of {} in each block", tier.m, k + tier.m))
        }
        (k, Some(outer)) => (
            format!("RS({k},{}) and RS({},{}) over blocks", tier.m, outer.k, outer.m),
            format!(
                "any {} lost shards of {} in each block, and {} whole block of {}",
                tier.m,
                k + tier.m,
                outer.m,
                outer.k + outer.m
            ),
        ),
    };
    [contents, code, format!("{overhead:.0} %"), survives]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_in_use_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("thesis.doc"), "x").unwrap();
        let error = refuse_what_is_in_use(directory.path()).unwrap_err();
        assert!(error.to_string().contains("thesis.doc"), "{error}");
        std::fs::remove_file(directory.path().join("thesis.doc")).unwrap();
        assert!(refuse_what_is_in_use(directory.path()).is_ok());
        std::fs::write(directory.path().join(STORE_DESCRIPTOR), "x").unwrap();
        assert!(refuse_what_is_in_use(directory.path()).unwrap_err().to_string().contains("--archive"));
        assert!(refuse_what_is_in_use(&directory.path().join("new")).is_ok());
    }

    #[test]
    fn tiers_say_what_they_survive() {
        let rows: Vec<_> = Profile::Classic.tiers().iter().map(|tier| tier_row(0, tier).join("|")).collect();
        assert_eq!(rows[0], "under 10.0 MB|4 copies|300 %|any 3 lost");
        assert_eq!(rows[2], "under 35.0 GB|RS(30,3)|10 %|any 3 lost shards of 33 in each block");
    }
}
