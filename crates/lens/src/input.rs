//! From files to items: text in windows, images of the model's size, sounds at the model's rate. What had to be converted is
//! counted, so that it can be said in a line.

mod images;
mod sounds;
mod text;

pub use images::{ImageFormat, Images, idx_labels};
pub use sounds::{Sounds, read_wave};
pub use text::{Masking, Text, TokenReader};

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Files of some kinds: `path` itself, or those in the folder, by name. Hidden files are passed over.
fn files(path: &Path, extensions: &[&str], what: &str) -> Result<Vec<PathBuf>> {
    let fits = |file: &Path| {
        let extension = file.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        extensions.contains(&extension.to_ascii_lowercase().as_str())
    };
    if !fs_err::metadata(path)?.is_dir() {
        return match fits(path) {
            true => Ok(vec![path.to_owned()]),
            false => {
                Err(Error::file(path, format!("this model looks at {what} ({})", extensions.join(", "))))
            }
        };
    }
    let mut found = Vec::new();
    walk(path, &mut found, 0)?;
    found.retain(|file| fits(file));
    match found.is_empty() {
        false => Ok(found),
        true => {
            Err(Error::file(path, format!("no {what} in this folder (looked for {})", extensions.join(", "))))
        }
    }
}

/// Folders within folders that are followed; links could lead in circles.
const DEEPEST: usize = 8;

fn walk(folder: &Path, found: &mut Vec<PathBuf>, depth: usize) -> Result<()> {
    let mut entries = fs_err::read_dir(folder)?.collect::<std::io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs_err::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        match path.is_dir() {
            true if depth < DEEPEST => walk(&path, found, depth + 1)?,
            true => {}
            false => found.push(path),
        }
    }
    Ok(())
}

/// `3 of 10 images resized to 28 x 28`
fn counted(count: usize, all: usize, what: &str, done: &str) -> Option<String> {
    (count > 0).then(|| format!("{count} of {all} {what} {done}"))
}
