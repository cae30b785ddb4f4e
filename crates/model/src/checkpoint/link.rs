//! Whether a file is there, told apart from what is no file, and from a symbolic link that leads nowhere.

use std::io::ErrorKind;
use std::path::Path;

use crate::error::{Error, Result};

/// Whether there is a file at `path`, through links. Whoever finds nothing there may go on without; something that is no file is
/// another matter.
///
/// # Errors
/// When a folder or a device stands there, or a link that leads in a circle or to nothing.
pub fn present(path: &Path) -> Result<bool> {
    match fs_err::metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(true),
        Ok(_) => Err(Error::NoFile { path: path.to_owned() }),
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
