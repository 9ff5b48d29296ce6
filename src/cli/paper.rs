//! Pages with secrets as files: for their owner's eyes only, and never over another file.

use super::error::{CliError, CliResult};
use super::output::printable;
use crate::base::ErrorClass;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The name that a page gives an archive: its directory's.
pub(super) fn name_of(archive: &Path) -> String {
    archive.file_name().map_or_else(|| "/".into(), |name| printable(name.as_encoded_bytes()))
}

/// Pages that are to be written, all or none.
#[derive(Debug)]
pub(super) struct Paper {
    files: Vec<PathBuf>,
    /// How many of them are there.
    written: usize,
}

impl Paper {
    /// Pages in these files; their directory is made if it is not there.
    ///
    /// Errors: `Exists` for a file that is there already; `Invalid` for one
    /// inside `archive`, where it would open what lies beside it.
    pub(super) fn new(files: Vec<PathBuf>, archive: &Path) -> CliResult<Self> {
        for file in &files {
            let directory = directory_of(file);
            let failed = |error| CliError::io(format!("cannot use the directory {}", directory.display()), error);
            DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
            if std::fs::canonicalize(directory).map_err(failed)?.starts_with(archive) {
                let what = format!(
                    "{} would lie inside the archive that it opens; name a place outside {}",
                    file.display(),
                    archive.display()
                );
                return Err(CliError::new(ErrorClass::Invalid, what));
            }
            if file.symlink_metadata().is_ok() {
                return Err(exists(file));
            }
        }
        Ok(Self { files, written: 0 })
    }

    /// The files.
    pub(super) fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Writes the next page, durably.
    pub(super) fn write(&mut self, page: &str) -> CliResult<()> {
        let Some(file) = self.files.get(self.written) else {
            return Err(CliError::new(ErrorClass::Internal, "there are more pages than files"));
        };
        let failed = |error| CliError::io(format!("cannot write {}", file.display()), error);
        let mut open = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(file) {
            Ok(open) => open,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(exists(file)),
            Err(error) => return Err(failed(error)),
        };
        self.written += 1;
        open.write_all(page.as_bytes()).and_then(|()| open.sync_all()).map_err(failed)?;
        File::open(directory_of(file)).and_then(|directory| directory.sync_all()).map_err(failed)
    }

    /// Removes what was written: the slot that it opens was not made.
    pub(super) fn take_back(&self) {
        for file in &self.files[..self.written] {
            if let Err(error) = std::fs::remove_file(file) {
                tracing::warn!("{} opens nothing, and cannot be removed: {error}", file.display());
            }
        }
    }
}

fn directory_of(file: &Path) -> &Path {
    file.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn exists(file: &Path) -> CliError {
    let what = format!("{} is there already, and may be the only copy of a key; name another place", file.display());
    CliError::new(ErrorClass::Exists, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn pages_are_for_their_owner_and_replace_nothing() {
        let home = tempfile::tempdir().unwrap();
        let archive = home.path().join("archive");
        std::fs::create_dir(&archive).unwrap();
        let files = vec![home.path().join("new/one"), home.path().join("new/two")];
        let mut paper = Paper::new(files.clone(), &archive).unwrap();
        paper.write("1").unwrap();
        paper.write("2").unwrap();
        assert!(paper.write("3").is_err());
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&files[0]), mode(&files[1]), mode(&home.path().join("new"))), (0o600, 0o600, 0o700));
        assert_eq!(std::fs::read_to_string(&files[1]).unwrap(), "2");
        assert_eq!(Paper::new(files.clone(), &archive).unwrap_err().class(), ErrorClass::Exists);
        paper.take_back();
        assert!(files.iter().all(|file| !file.exists()));

        // A file that appears meanwhile stays, and so does a link that leads nowhere.
        let mut paper = Paper::new(files.clone(), &archive).unwrap();
        std::fs::write(&files[0], "other").unwrap();
        assert_eq!(paper.write("1").unwrap_err().class(), ErrorClass::Exists);
        paper.take_back();
        assert_eq!(std::fs::read_to_string(&files[0]).unwrap(), "other");
        std::os::unix::fs::symlink("nowhere", &files[1]).unwrap();
        assert_eq!(Paper::new(vec![files[1].clone()], &archive).unwrap_err().class(), ErrorClass::Exists);
    }

    #[test]
    fn no_page_lies_in_the_archive_that_it_opens() {
        let home = tempfile::tempdir().unwrap();
        let archive = home.path().canonicalize().unwrap().join("archive");
        std::fs::create_dir(&archive).unwrap();
        std::os::unix::fs::symlink(&archive, home.path().join("link")).unwrap();
        for place in ["archive/page", "archive/../archive/page", "link/page"] {
            let error = Paper::new(vec![home.path().join(place)], &archive).unwrap_err();
            assert_eq!(error.class(), ErrorClass::Invalid, "{place}: {error}");
        }
        assert!(Paper::new(vec![home.path().join("archive.html")], &archive).is_ok());
    }
}
