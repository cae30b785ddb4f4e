//! A folder that appears whole: written under a hidden name beside its own, renamed when everything is in it.

use std::io;
use std::path::{Path, PathBuf};

use tempfile::{Builder, TempDir};

/// A folder that is being written; what is dropped before it is [`finished`](Self::finish) is removed.
pub struct NewFolder {
    folder: PathBuf,
    partial: TempDir,
}

impl NewFolder {
    /// Begins to write what will be `folder`, which must not exist; `flag` named it.
    ///
    /// # Errors
    /// When there is something already, or no folder can be made there.
    pub fn begin(folder: &Path, flag: &str) -> anyhow::Result<Self> {
        absent(folder)?;
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
        let name =
            name.ok_or_else(|| anyhow::anyhow!("{flag} {}: is no name for a folder", folder.display()))?;
        let place = data::folder_of(folder);
        fs_err::create_dir_all(place)?;
        // A name that nobody has: a folder of the user's is not touched.
        let prefix = format!(".{name}.");
        let partial = shared(Builder::new().prefix(&prefix).suffix(".partial")).tempdir_in(place);
        let partial = partial.map_err(|error| {
            // Without the name that is not the user's.
            anyhow::anyhow!("{} cannot be written: {}", folder.display(), io::Error::from(error.kind()))
        })?;
        Ok(Self { folder: folder.to_owned(), partial })
    }

    /// Where files are to be written for now.
    pub fn path(&self) -> &Path {
        self.partial.path()
    }

    /// Gives the folder its name.
    ///
    /// # Errors
    /// When the system refuses it.
    pub fn finish(self) -> anyhow::Result<()> {
        fs_err::rename(self.partial.path(), &self.folder)?;
        // It has its name, and nothing is left to remove.
        let _ = self.partial.keep();
        Ok(())
    }
}

/// Readable by whom the process's mask allows; `tempfile` by itself keeps folders to their owner.
fn shared<'a, 'b>(builder: &'a mut Builder<'b, 'b>) -> &'a mut Builder<'b, 'b> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o777));
    }
    builder
}

/// Refuses a name that is taken, by whatever it is.
///
/// # Errors
/// When it is.
pub fn absent(path: &Path) -> anyhow::Result<()> {
    let taken = path.symlink_metadata().is_ok();
    anyhow::ensure!(!taken, "{} exists: give another name, or remove it first", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_appears_whole_or_not_at_all() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("a/new");
        let begun = NewFolder::begin(&folder, "--output").unwrap();
        fs_err::write(begun.path().join("file"), "half").unwrap();
        drop(begun);
        assert_eq!(fs_err::read_dir(place.path().join("a")).unwrap().count(), 0);
        let other = place.path().join("a/.new.partial");
        fs_err::create_dir(&other).unwrap();
        let begun = NewFolder::begin(&folder, "--output").unwrap();
        fs_err::write(begun.path().join("file"), "whole").unwrap();
        begun.finish().unwrap();
        assert!(other.is_dir(), "a folder of the user's is not touched");
        assert_eq!(fs_err::read_dir(place.path().join("a")).unwrap().count(), 2);
        assert_eq!(fs_err::read_to_string(folder.join("file")).unwrap(), "whole");
        let again = NewFolder::begin(&folder, "--output").err().unwrap().to_string();
        assert!(again.ends_with("new exists: give another name, or remove it first"), "{again}");
        let nameless = NewFolder::begin(Path::new("gone/.."), "--output").err().unwrap().to_string();
        assert_eq!(nameless, "--output gone/..: is no name for a folder");
    }
}
