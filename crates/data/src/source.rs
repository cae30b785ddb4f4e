//! Where text comes from: the settings, and which files they mean.

mod format;

use std::collections::HashSet;
use std::fs::FileType;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::examples::Examples;

pub(crate) use format::READABLE;
pub use format::{Compression, Format, Layout};

/// More files than any corpus has: links between folders can multiply them without end.
const MOST_FILES: usize = 1 << 20;

/// Which files to read and how to cut them into documents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Source {
    /// Files, folders of them, and patterns such as `data/*.jsonl`; [`Format`] says which files can be read.
    pub paths: Vec<PathBuf>,
    /// Field of a `.jsonl` line, or column of a `.parquet` file, that holds the text.
    pub field: String,
    /// What stands between two documents of a `.txt` file; without it, a file is one document.
    pub separator: Option<String>,
    /// Documents of `.txt` files longer than this are cut at the last blank line before it, else at a line
    /// end, else between two characters. 0: never.
    pub longest_document_bytes: usize,
    /// What the documents are made of.
    pub examples: Examples,
}

impl Default for Source {
    fn default() -> Self {
        Self {
            paths: Vec::new(),
            field: "text".to_owned(),
            separator: None,
            longest_document_bytes: 0,
            examples: Examples::Text,
        }
    }
}

impl Source {
    /// One file or folder, read with the defaults.
    pub fn path(path: impl Into<PathBuf>) -> Self {
        Self { paths: vec![path.into()], ..Self::default() }
    }

    /// The paths as one text, for messages.
    pub(crate) fn describe(&self) -> String {
        let paths: Vec<String> = self.paths.iter().map(|path| path.display().to_string()).collect();
        if paths.is_empty() { "an empty list of paths".to_owned() } else { paths.join(", ") }
    }

    /// The files in the order in which they are read: as given; folders and patterns sorted by name. A file that is
    /// reached twice is read once: its second half would help to predict held-out text.
    ///
    /// # Errors
    ///
    /// If a path is missing, a named file has another extension or is no regular file, a folder or pattern
    /// yields nothing to read, or a folder contains itself.
    pub fn files(&self) -> Result<Vec<TextFile>> {
        Ok(self.found()?.files)
    }

    /// The files that are reached again, by another name or the same, and are not read for it.
    ///
    /// # Errors
    ///
    /// As [`Self::files`].
    pub fn repeated(&self) -> Result<Vec<PathBuf>> {
        Ok(self.found()?.repeated)
    }

    fn found(&self) -> Result<Found> {
        if self.separator.as_deref() == Some("") {
            return Err(Error::Setting(
                "the separator of documents must not be empty; leave it out".to_owned(),
            ));
        }
        let mut found = Found::default();
        for path in &self.paths {
            match fs_err::metadata(path) {
                Ok(metadata) if metadata.is_dir() => {
                    let before = found.count();
                    walk(path, &mut Vec::new(), &mut found)?;
                    if found.count() == before {
                        return Err(Error::EmptyFolder { path: path.clone() });
                    }
                }
                Ok(metadata) => {
                    let format =
                        Format::of(path).ok_or_else(|| Error::UnknownExtension { path: path.clone() })?;
                    found.add(path.clone(), format, metadata.file_type())?;
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => match as_pattern(path) {
                    Some(pattern) => matches(pattern, &mut found)?,
                    None => return Err(Error::Missing { path: path.clone() }),
                },
                Err(error) => return Err(error.into()),
            }
        }
        if found.files.is_empty() {
            return Err(Error::NoText { what: self.describe() });
        }
        Ok(found)
    }
}

/// A file of text and how to read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextFile {
    /// Where it is.
    pub path: PathBuf,
    /// How it is read.
    pub format: Format,
}

/// The files of a source, as they are found.
#[derive(Default)]
struct Found {
    files: Vec<TextFile>,
    repeated: Vec<PathBuf>,
    /// The true paths of `files`.
    known: HashSet<PathBuf>,
}

impl Found {
    fn add(&mut self, path: PathBuf, format: Format, kind: FileType) -> Result<()> {
        if !kind.is_file() {
            return Err(Error::NoRegularFile { path, kind: name(kind) });
        }
        if format.layout == Layout::Parquet && !cfg!(feature = "parquet") {
            return Err(Error::NoParquet { path });
        }
        if self.count() == MOST_FILES {
            return Err(Error::TooManyFiles { path, most: MOST_FILES });
        }
        if self.known.insert(fs_err::canonicalize(&path)?) {
            self.files.push(TextFile { path, format });
        } else {
            self.repeated.push(path);
        }
        Ok(())
    }

    fn count(&self) -> usize {
        self.files.len() + self.repeated.len()
    }
}

#[cfg(unix)]
fn name(kind: FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    match kind {
        kind if kind.is_fifo() => "a named pipe",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    }
}

#[cfg(not(unix))]
fn name(_: FileType) -> &'static str {
    "no file of data"
}

/// Collects the readable files below `folder`; hidden ones and other kinds are passed over.
///
/// `above` holds the true paths of the folders that lead here.
fn walk(folder: &Path, above: &mut Vec<PathBuf>, found: &mut Found) -> Result<()> {
    let true_path = fs_err::canonicalize(folder)?;
    if above.contains(&true_path) {
        return Err(Error::FolderLoop { path: folder.to_path_buf() });
    }
    above.push(true_path);
    let mut entries = fs_err::read_dir(folder)?.collect::<std::io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs_err::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let format = Format::of(&path);
        match fs_err::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => walk(&path, above, found)?,
            // A link to nothing, or to itself, is passed over unless its name says that it should be text.
            Err(error) if format.is_some() => return Err(error.into()),
            Err(_) => {}
            Ok(metadata) => {
                if let Some(format) = format {
                    found.add(path, format, metadata.file_type())?;
                }
            }
        }
    }
    above.pop();
    Ok(())
}

fn as_pattern(path: &Path) -> Option<&str> {
    path.to_str().filter(|path| path.contains(['*', '?', '[']))
}

/// Collects the readable files that a pattern means, sorted by name; folders and other kinds are passed over.
fn matches(pattern: &str, found: &mut Found) -> Result<()> {
    let options = glob::MatchOptions { require_literal_leading_dot: true, ..glob::MatchOptions::default() };
    let paths = glob::glob_with(pattern, options)
        .map_err(|error| Error::Pattern { pattern: pattern.to_owned(), reason: error.msg })?;
    let before = found.count();
    for path in crate::guard::caught(|| paths.collect::<Vec<_>>()).map_err(|_| Error::Pattern {
        pattern: pattern.to_owned(),
        reason: "a name in the folders that it looks into is not UTF-8: rename that, or give the folder itself",
    })? {
        let path = path.map_err(|error| std::io::Error::other(error.to_string()))?;
        let metadata = fs_err::metadata(&path)?;
        if let (Some(format), false) = (Format::of(&path), metadata.is_dir()) {
            found.add(path, format, metadata.file_type())?;
        }
    }
    if found.count() == before {
        return Err(Error::NoMatch { pattern: pattern.to_owned() });
    }
    Ok(())
}
