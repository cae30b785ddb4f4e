//! Files that appear whole: written under a temporary name, renamed when they are complete.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile, TempDir};

/// A file that is being written and has no name yet. All errors name the file that it is to be.
#[derive(Debug)]
pub struct Unfinished {
    file: PathBuf,
    written: NamedTempFile,
}

impl Unfinished {
    /// Begins to write what will be `file`. Whom the process's mask allows can read it, as a file made without a detour;
    /// `tempfile` by itself keeps it to its owner.
    ///
    /// # Errors
    /// When its folder takes no new file.
    pub fn begin(file: &Path) -> io::Result<Self> {
        let written = shared(&mut Builder::new()).tempfile_in(folder_of(file));
        Ok(Self { file: file.to_owned(), written: written.map_err(|error| named(file, error))? })
    }

    /// Gives it its name, in place of a file that has it already.
    ///
    /// # Errors
    /// When the disk is full, or something that is no file has the name.
    pub fn finish(self) -> io::Result<()> {
        let Self { file, written } = self;
        let finished = written.as_file().sync_all();
        let finished = finished.and_then(|()| written.persist(&file).map_err(|error| error.error));
        finished.map(|_| ()).map_err(|error| named(&file, error))
    }

    /// As [`Self::finish`], unless something has the name already.
    ///
    /// # Errors
    /// As [`Self::finish`], and when the name is taken.
    pub fn finish_new(self) -> io::Result<()> {
        let Self { file, written } = self;
        let finished = written.as_file().sync_all();
        let finished = finished.and_then(|()| written.persist_noclobber(&file).map_err(|error| error.error));
        finished.map(|_| ()).map_err(|error| named(&file, error))
    }
}

impl Write for Unfinished {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written.as_file_mut().write(bytes).map_err(|error| named(&self.file, error))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.written.as_file_mut().flush().map_err(|error| named(&self.file, error))
    }
}

/// A folder for a while, in the one that the environment names for such things.
///
/// # Errors
/// When it takes no new folder; the message says how to name another.
pub fn temporary_folder() -> io::Result<TempDir> {
    tempfile::tempdir().map_err(|error| {
        let place = std::env::temp_dir();
        let reason = format!("{}: {}; name another folder with TMPDIR", place.display(), reason(&error));
        io::Error::new(error.kind(), reason)
    })
}

/// The folder that `file` stands in.
pub fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Writes `bytes` to `file` whole or not at all.
///
/// # Errors
/// When the folder takes no new file, or the disk is full; the message names `file`.
pub fn write_whole(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut unfinished = Unfinished::begin(file)?;
    unfinished.write_all(bytes)?;
    unfinished.finish()
}

fn named(file: &Path, error: io::Error) -> io::Error {
    match error.kind() {
        // Whoever writes tries again by itself.
        io::ErrorKind::Interrupted => error,
        kind => io::Error::new(kind, format!("{} cannot be written: {}", file.display(), reason(&error))),
    }
}

/// What the system says, without the path that `tempfile` adds, which means nothing to anybody.
fn reason(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.source());
    inner.map_or_else(|| error.to_string(), ToString::to_string)
}

/// The same rights for a file with a prefix or suffix of its own.
pub(crate) fn shared<'a, 'b>(builder: &'a mut Builder<'b, 'b>) -> &'a mut Builder<'b, 'b> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn others_may_read_what_they_could_read_of_a_plain_file() {
        let folder = tempfile::tempdir().unwrap();
        let (plain, ours) = (folder.path().join("plain"), folder.path().join("ours"));
        fs_err::write(&plain, "a").unwrap();
        write_whole(&ours, b"a").unwrap();
        let mode = |file: &Path| fs_err::metadata(file).unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&plain));
    }

    #[test]
    fn a_name_that_is_taken_is_told_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.txt");
        write_whole(&file, b"old").unwrap();
        let mut unfinished = Unfinished::begin(&file).unwrap();
        unfinished.write_all(b"new").unwrap();
        let error = unfinished.finish_new().unwrap_err().to_string();
        assert!(error.contains("a.txt cannot be written: File exists"), "{error}");
        assert_eq!(fs_err::read_to_string(&file).unwrap(), "old");
        write_whole(&file, b"new").unwrap();
        assert_eq!(fs_err::read_to_string(&file).unwrap(), "new");
        assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
        let error = Unfinished::begin(&file.join("b.txt")).unwrap_err().to_string();
        assert!(error.contains("a.txt/b.txt cannot be written: ") && !error.contains(".tmp"), "{error}");
    }
}
