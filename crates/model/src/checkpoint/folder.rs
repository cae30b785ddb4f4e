//! Replacing a whole checkpoint folder, so that a crash at any moment leaves the old or the new one complete.
//!
//! The order of steps, for a target `best`:
//!
//! 1. What an interrupted replacement left is settled ([`recover_folder`]).
//! 2. The new files are written into `.best.partial`; every file and folder in it is synced.
//! 3. `best`, if there is one, is renamed to `.best.previous`.
//! 4. `.best.partial` is renamed to `best`, and the parent folder is synced.
//! 5. `.best.previous` is removed, or gets the name under which it is to be kept.
//!
//! Between 3 and 4 nothing is called `best` for a moment, but both neighbours are complete. Whoever goes on from a
//! checkpoint after a crash calls [`recover_folder`] first. Two processes must not replace the same folder at a time.

use std::path::{Path, PathBuf};

use fs_err as fs;

use super::write::{neighbour, sync_folder};
use crate::engine::PACKED_FILE;
use crate::error::{Error, Result};

/// Lets `fill` write a new folder and puts it in the place of `target`; on any error `target` stays as it was.
///
/// An existing `target` must be empty or a checkpoint (`config.json` and weights): a mistyped path must not cost the user
/// a folder of something else. Missing parent folders are made.
pub fn replace_folder(target: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    replace_folder_keeping(target, None, fill)
}

/// As [`replace_folder`]; once the new folder is safe, the old one becomes `kept`, a name beside it, which is replaced if it exists.
pub fn replace_folder_keeping(
    target: &Path,
    kept: Option<&Path>,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let target = resolve(target)?;
    recover_folder(&target)?;
    refuse_foreign(&target)?;
    let parent = parent(&target);
    fs::create_dir_all(parent)?;

    let partial = neighbour(&target, PARTIAL);
    let written = fs::create_dir(&partial).map_err(Error::from).and_then(|()| {
        fill(&partial)?;
        sync_tree(&partial)
    });
    if written.is_err() {
        // The first error is the one to report; a leftover is removed by the next replacement.
        let _ = fs::remove_dir_all(&partial);
        return written;
    }

    let previous = neighbour(&target, PREVIOUS);
    let replaces = target.exists();
    if replaces {
        fs::rename(&target, &previous)?;
    }
    if let Err(error) = fs::rename(&partial, &target) {
        if replaces {
            fs::rename(&previous, &target)?;
        }
        return Err(error.into());
    }
    sync_folder(parent)?;
    if !replaces {
        return Ok(());
    }
    let Some(kept) = kept else { return Ok(fs::remove_dir_all(&previous)?) };
    if kept.exists() {
        fs::remove_dir_all(kept)?;
    }
    fs::rename(&previous, kept)?;
    sync_folder(parent)
}

/// Settles what an interrupted [`replace_folder`] of `target` left beside it: puts the newest complete folder in its
/// place where there is none, and removes the rest. Returns whether a folder was put in place.
pub fn recover_folder(target: &Path) -> Result<bool> {
    let target = resolve(target)?;
    let (partial, previous) = (neighbour(&target, PARTIAL), neighbour(&target, PREVIOUS));
    let mut recovered = false;
    if !target.exists() && previous.exists() {
        // The old folder is moved aside only when the new one is complete and synced, so the new one, if it is there, is
        // whole.
        fs::rename(if partial.exists() { &partial } else { &previous }, &target)?;
        sync_folder(parent(&target))?;
        recovered = true;
    }
    for leftover in [partial, previous] {
        if leftover.exists() {
            fs::remove_dir_all(leftover)?;
        }
    }
    Ok(recovered)
}

const PARTIAL: &str = "partial";
const PREVIOUS: &str = "previous";

/// The folder itself where `target` is a link or ends in dots: its neighbours must lie on the same file system.
fn resolve(target: &Path) -> Result<PathBuf> {
    let resolved = if target.exists() { fs::canonicalize(target)? } else { target.to_owned() };
    match resolved.file_name() {
        Some(_) => Ok(resolved),
        None => Err(Error::WontReplace { folder: resolved, reason: "is no name for a folder" }),
    }
}

fn parent(target: &Path) -> &Path {
    target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn refuse_foreign(target: &Path) -> Result<()> {
    let refuse = |reason| Err(Error::WontReplace { folder: target.to_owned(), reason });
    if !target.exists() {
        return Ok(());
    }
    if !target.is_dir() {
        return refuse("is a file");
    }
    let holds = |name: &str| target.join(name).is_file();
    let weights = ["model.safetensors", "model.safetensors.index.json", PACKED_FILE];
    let checkpoint = holds("config.json") && weights.into_iter().any(holds);
    if !checkpoint && fs::read_dir(target)?.next().is_some() {
        return refuse("holds files that are no checkpoint");
    }
    Ok(())
}

/// Syncs every file below `folder`, then the folders from the inside out.
fn sync_tree(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            // Windows flushes only what may be written; Unix also syncs a file that is read-only, such as a copy.
            fs::OpenOptions::new().read(true).write(cfg!(windows)).open(entry.path())?.sync_all()?;
        }
    }
    sync_folder(folder)
}
