//! Many small files: committing them, what they take on the disk, reading them back.

use crate::Settings;
use crate::tools::{
    Dice, Figure, Mount, Table, blockframe, drop_caches, init, installed, paired, run, shell, timed, usage,
    write_random,
};
use blockframe::base::{ArchiveId, Timestamp};
use blockframe::format::{ArchiveDescriptor, Profile};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Files in one directory.
const PER_DIRECTORY: usize = 100;

/// Files of 1 to 32 KiB in two levels of directories. Returns their bytes.
fn make_tree(tree: &Path, files: usize) -> u64 {
    let mut dice = Dice::new(1);
    let mut bytes = 0;
    for number in 0..files {
        let directory = number / PER_DIRECTORY;
        let parent = tree.join(format!("dir_{:03}/sub_{:02}", directory / 20, directory % 20));
        if number % PER_DIRECTORY == 0 {
            fs::create_dir_all(&parent).unwrap();
        }
        let len = 1024 + dice.below(31 * 1024 + 1);
        write_random(&parent.join(format!("file_{number:06}.bin")), len, &mut dice);
        bytes += len;
    }
    bytes
}

/// Data and parity shards over data shards, of the tier that a full bundle gets.
fn code_overhead(profile: Profile) -> f64 {
    let descriptor = ArchiveDescriptor::new(profile, ArchiveId::random(), Timestamp::default());
    let tier = descriptor.tier_for(descriptor.bundle.target);
    f64::from(tier.k + tier.m) / f64::from(tier.k)
}

/// All figures of this part.
pub fn measure(settings: &Settings, table: &mut Table) {
    let dir = &settings.dir;
    let tree = dir.join("tree");
    let bytes = make_tree(&tree, settings.files);
    let borg = installed("borg").then(|| make_borg(dir));
    for profile in [Profile::Compact, Profile::Classic] {
        let archive = dir.join(profile.name());
        commits(settings, profile, &archive, table);
        let (inodes, occupied) = usage(&archive);
        let demanded = bytes as f64 * code_overhead(profile);
        let per_file = inodes as f64 / settings.files as f64;
        table.row(
            &format!("{}: inodes per file", profile.name()),
            format!("{inodes}"),
            format!("{} files", settings.files),
            format!("{per_file:.4}"),
            "< 0.02",
        );
        table.row(
            &format!("{}: bytes on disk", profile.name()),
            format!("{:.1} MiB", occupied as f64 / 1048576.0),
            format!("{:.1} MiB by the code", demanded / 1048576.0),
            format!("{:.3}", occupied as f64 / demanded),
            "<= 1.08",
        );
        read_back(settings, profile, &archive, borg.as_deref(), table);
        fs::remove_dir_all(&archive).unwrap();
    }
    fs::remove_dir_all(&tree).unwrap();
    if let Some(borg) = borg {
        fs::remove_dir_all(borg).unwrap();
    }
}

fn commits(settings: &Settings, profile: Profile, archive: &Path, table: &mut Table) {
    let dir = &settings.dir;
    let (mut ours, mut copies) = (Vec::new(), Vec::new());
    for _ in 0..settings.rounds {
        shell(dir, "cat $(find tree -type f) > /dev/null; sync");
        copies.push(timed(None, || shell(dir, "cp -r tree copy && sync")));
        fs::remove_dir_all(dir.join("copy")).unwrap();
        init(archive, profile.name());
        shell(dir, "cat $(find tree -type f) > /dev/null; sync");
        ours.push(timed(None, || {
            run(blockframe().current_dir(dir).arg("--archive").arg(archive).args(["commit", "tree"]))
        }));
    }
    let target = if profile == Profile::Compact { ">= 0.8" } else { "stated" };
    let what = format!("{}: commit of {} small files, against cp -r + sync", profile.name(), settings.files);
    table.rate(&what, &ours, &copies, target);
}

fn borg(dir: &Path) -> Command {
    let mut command = Command::new("borg");
    // Nothing of the user's is read or written.
    command.env("BORG_BASE_DIR", dir.join("borg-home")).env("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes");
    command
}

fn make_borg(dir: &Path) -> PathBuf {
    let repository = dir.join("borg");
    run(borg(dir).args(["init", "-e", "none"]).arg(&repository));
    let target = format!("{}::tree", repository.display());
    run(borg(dir).current_dir(dir).args(["create", "--compression", "none", &target, "tree"]));
    repository
}

/// Cold: the page cache is dropped and the archive mounted anew.
fn read_back(settings: &Settings, profile: Profile, archive: &Path, repository: Option<&Path>, table: &mut Table) {
    let dir = &settings.dir;
    let point = dir.join("mnt");
    let (mut ours, mut plain, mut extracts) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..settings.rounds {
        drop_caches();
        let mount = Mount::archive(archive, &point);
        ours.push(timed(Some(&mount), || shell(&point, "tar cf - tree | cat > /dev/null")));
        drop(mount);
        drop_caches();
        plain.push(timed(None, || shell(dir, "tar cf - tree | cat > /dev/null")));
        let Some(repository) = repository else { continue };
        drop_caches();
        let out = dir.join("extracted");
        fs::create_dir_all(&out).unwrap();
        let target = format!("{}::tree", repository.display());
        extracts.push(timed(None, || run(borg(dir).current_dir(&out).args(["extract", &target]))));
        fs::remove_dir_all(&out).unwrap();
    }
    let name = profile.name();
    let what = format!("{name}: tar of them through the mount, cold, against the source tree");
    table.rate(&what, &ours, &plain, "stated");
    if !extracts.is_empty() {
        table.row(
            &format!("{name}: the same against borg extract"),
            Figure::median(&ours).show(),
            Figure::median(&extracts).show(),
            format!("{:.2} of its time", 1.0 / paired(&ours, &extracts)),
            "<= 1.5",
        );
    }
}
