//! A folder that appears whole: written under a hidden name beside its own, renamed when everything is in it.

use std::path::{Path, PathBuf};

/// A folder that is being written.
pub struct NewFolder {
    folder: PathBuf,
    partial: PathBuf,
}

impl NewFolder {
    /// Begins to write what will be `folder`, which must not exist; `flag` named it. What an interrupted beginning left is
    /// removed, and so is this one if it is dropped before it is [`finished`](Self::finish).
    ///
    /// # Errors
    /// When there is something already, or no folder can be made there.
    pub fn begin(folder: &Path, flag: &str) -> anyhow::Result<Self> {
        absent(folder)?;
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
        let name =
            name.ok_or_else(|| anyhow::anyhow!("{flag} {}: is no name for a folder", folder.display()))?;
        let partial = folder.with_file_name(format!(".{name}.partial"));
        if partial.exists() {
            fs_err::remove_dir_all(&partial)?;
        }
        fs_err::create_dir_all(&partial)?;
        Ok(Self { folder: folder.to_owned(), partial })
    }

    /// Where files are to be written for now.
    pub fn path(&self) -> &Path {
        &self.partial
    }

    /// Gives the folder its name.
    ///
    /// # Errors
    /// When the system refuses it.
    pub fn finish(self) -> anyhow::Result<()> {
        Ok(fs_err::rename(&self.partial, &self.folder)?)
    }
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        // A leftover is removed by the next beginning.
        let _ = fs_err::remove_dir_all(&self.partial);
    }
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
        let begun = NewFolder::begin(&folder, "--output").unwrap();
        fs_err::write(begun.path().join("file"), "whole").unwrap();
        begun.finish().unwrap();
        assert_eq!(fs_err::read_to_string(folder.join("file")).unwrap(), "whole");
        let again = NewFolder::begin(&folder, "--output").err().unwrap().to_string();
        assert!(again.ends_with("new exists: give another name, or remove it first"), "{again}");
        let nameless = NewFolder::begin(Path::new("gone/.."), "--output").err().unwrap().to_string();
        assert_eq!(nameless, "--output gone/..: is no name for a folder");
    }
}
