//! Files that appear whole: written under a temporary name, renamed when they are complete.

use std::io::{self, Write};
use std::path::Path;

use tempfile::{Builder, NamedTempFile};

/// A file under a temporary name in `folder`, to be written and then persisted under its own name. It can be read by
/// whom the process's mask allows, as a file made without a detour could; `tempfile` by itself keeps it to its owner.
///
/// # Errors
/// When the folder takes no new file.
pub fn unfinished_file(folder: &Path) -> io::Result<NamedTempFile> {
    shared(&mut Builder::new()).tempfile_in(folder)
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
    let write = || {
        let mut unfinished = unfinished_file(folder_of(file))?;
        unfinished.write_all(bytes)?;
        unfinished.as_file().sync_all()?;
        unfinished.persist(file).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(|error: io::Error| {
        io::Error::new(error.kind(), format!("{} cannot be written: {error}", file.display()))
    })
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
        let plain = std::fs::File::create(folder.path().join("plain")).unwrap();
        let ours = unfinished_file(folder.path()).unwrap();
        let mode = |file: &std::fs::File| file.metadata().unwrap().permissions().mode();
        assert_eq!(mode(ours.as_file()), mode(&plain));
    }
}
