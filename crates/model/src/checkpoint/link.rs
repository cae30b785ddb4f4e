//! Whether a file is there, told apart from a symbolic link that leads nowhere.

use std::io::ErrorKind;
use std::path::Path;

use crate::error::{Error, Result};

/// Whether there is a file at `path`, through links. A link that leads in a circle or to nothing is an error of its own: the file
/// is not simply missing.
pub(crate) fn present(path: &Path) -> Result<bool> {
    match fs_err::metadata(path) {
        Ok(metadata) => Ok(metadata.is_file()),
        Err(error) => {
            let is_link = path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink());
            match error.kind() {
                _ if is_link => Err(Error::BrokenLink { file: path.to_owned() }),
                ErrorKind::NotFound | ErrorKind::NotADirectory => Ok(false),
                _ => Err(error.into()),
            }
        }
    }
}
