//! What is written through the mount, against the bare pass-through
//! filesystem, gocryptfs, and the disk's own filesystem.

mod background;
mod files;
mod names;

use crate::Settings;
use crate::tools::{Figure, Mount, Table, blockframe, gocryptfs_init, init, installed, run};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How much is written.
pub struct Sizes {
    /// Length of the big file, MiB.
    pub file: u64,
    /// Small files that are created.
    pub create: usize,
    /// Files in the repository that is cloned.
    pub clone: usize,
    /// Entries of the large directory.
    pub entries: usize,
    /// Letters of the parts that are wanted.
    pub parts: String,
}

/// Who is written to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    /// The mount of an archive.
    Ours,
    /// The pass-through filesystem, with its words.
    Passthrough(&'static str),
    Gocryptfs,
    /// The disk's own filesystem.
    Plain,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Passthrough(words) if words.contains("backing") => "pass-through served by the kernel",
            Self::Passthrough(_) => "pass-through",
            Self::Gocryptfs => "gocryptfs",
            Self::Plain => "ext4",
        }
    }
}

/// Something empty to be written to, on a filesystem that is as fresh as can
/// be had: ext4 without a journal creates ten times slower once much was deleted.
struct Bed {
    mount: Option<Mount>,
    /// Where to write.
    top: PathBuf,
    root: PathBuf,
    /// An image is mounted at the root.
    image: bool,
    archive: PathBuf,
}

impl Bed {
    fn new(settings: &Settings, side: Side) -> Self {
        let root = settings.dir.join("bed");
        fs::create_dir_all(&root).unwrap();
        let image = mount_image(&settings.dir.join("image"), &root);
        let (store, point) = (root.join("store"), root.join("mnt"));
        fs::create_dir(&store).unwrap();
        let archive = root.join("archive");
        let mount = match side {
            Side::Ours => {
                init(&archive, "classic");
                Some(Mount::archive(&archive, &point))
            }
            Side::Passthrough(words) => Some(Mount::passthrough(&store, &point, words)),
            Side::Gocryptfs => {
                gocryptfs_init(&store);
                Some(Mount::gocryptfs(&store, &point))
            }
            Side::Plain => None,
        };
        let top = if mount.is_some() { point } else { store };
        run(&mut Command::new("sync"));
        Self { mount, top, root, image, archive }
    }

    /// Returns when all that was written is committed.
    fn commit(&self) {
        run(blockframe().arg("--archive").arg(&self.archive).arg("sync").arg("-q"));
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        drop(self.mount.take());
        if self.image {
            run(Command::new("umount").arg(&self.root));
        }
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// A fresh ext4 in a sparse file. False where that cannot be had: no root, no loop device.
fn mount_image(image: &Path, point: &Path) -> bool {
    let quiet = |command: &mut Command| {
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    let _ = fs::remove_file(image);
    let made = fs::File::create(image).and_then(|file| file.set_len(40 << 30)).is_ok()
        && quiet(Command::new("mkfs.ext4").args(["-q", "-F", "-E", "lazy_itable_init=1,nodiscard"]).arg(image))
        && quiet(Command::new("mount").args(["-o", "loop"]).arg(image).arg(point));
    if !made {
        eprintln!("no fresh ext4 image: the directory itself is written to");
        let _ = fs::remove_file(image);
    }
    made
}

/// The sides that can be had here.
fn available(sides: &[Side]) -> Vec<Side> {
    let there = |side: &Side| *side != Side::Gocryptfs || installed("gocryptfs");
    sides.iter().copied().filter(there).collect()
}

/// Takes of all sides alternately, each on a fresh bed; by side, then by what `work` measured.
fn alternate(settings: &Settings, sides: &[Side], work: &dyn Fn(&Bed) -> Vec<Figure>) -> Vec<Vec<Vec<Figure>>> {
    let mut takes: Vec<Vec<Vec<Figure>>> = vec![Vec::new(); sides.len()];
    for round in 0..settings.rounds {
        for place in 0..sides.len() {
            let at = (place + round) % sides.len();
            let bed = Bed::new(settings, sides[at]);
            let figures = work(&bed);
            takes[at].resize(figures.len(), Vec::new());
            for (all, figure) in takes[at].iter_mut().zip(figures) {
                all.push(figure);
            }
        }
    }
    takes
}

/// A row against each baseline: the first side is ours.
fn rows(table: &mut Table, what: &[String], sides: &[Side], takes: &[Vec<Vec<Figure>>], target: &str) {
    for (at, what) in what.iter().enumerate() {
        for (side, baseline) in sides.iter().zip(takes).skip(1) {
            table.rate(&format!("{what}, against {}", side.name()), &takes[0][at], &baseline[at], target);
        }
    }
}

/// All figures of this part.
pub fn measure(settings: &Settings, table: &mut Table) {
    let wanted = |letter: char, size: usize| size > 0 && settings.write.parts.contains(letter);
    let sizes = &settings.write;
    if wanted('b', sizes.create) {
        names::create_and_remove(settings, table);
    }
    if wanted('a', sizes.file as usize) {
        files::big(settings, table);
    }
    if wanted('c', sizes.clone) {
        files::trees(settings, table);
    }
    if wanted('f', sizes.entries) {
        names::large_directory(settings, table);
    }
    if wanted('d', sizes.file as usize) {
        background::small_change(settings, table);
    }
    if wanted('e', sizes.file as usize) {
        background::drain(settings, table);
    }
}
