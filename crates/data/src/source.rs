//! Where text comes from: the settings, and which files they mean.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Which files to read and how to cut them into documents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Source {
    /// `.txt` and `.jsonl` files, and folders of them.
    pub paths: Vec<PathBuf>,
    /// Field of a `.jsonl` line that holds the text.
    pub field: String,
    /// What stands between two documents of a `.txt` file; without it, a file is one document.
    pub separator: Option<String>,
    /// Documents of `.txt` files longer than this are cut at the last blank line before it, else at a line
    /// end, else between two characters. 0: never.
    pub longest_document_bytes: usize,
}

impl Default for Source {
    fn default() -> Self {
        Self { paths: Vec::new(), field: "text".to_owned(), separator: None, longest_document_bytes: 0 }
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

    /// The files in the order in which they are read: as given, folders sorted by name.
    ///
    /// # Errors
    ///
    /// If a path is missing, a named file has another extension, a folder holds nothing to read or contains
    /// itself.
    pub fn files(&self) -> Result<Vec<TextFile>> {
        if self.separator.as_deref() == Some("") {
            return Err(Error::Setting(
                "the separator of documents must not be empty; leave it out".to_owned(),
            ));
        }
        let mut files = Vec::new();
        for path in &self.paths {
            if path.is_dir() {
                let before = files.len();
                walk(path, &mut Vec::new(), &mut files)?;
                if files.len() == before {
                    return Err(Error::EmptyFolder { path: path.clone() });
                }
            } else if path.exists() {
                let format =
                    Format::of(path).ok_or_else(|| Error::UnknownExtension { path: path.clone() })?;
                files.push(TextFile { path: path.clone(), format });
            } else {
                return Err(Error::Missing { path: path.clone() });
            }
        }
        if files.is_empty() {
            return Err(Error::NoText { what: self.describe() });
        }
        Ok(files)
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

/// How a file holds its documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text as it stands.
    Plain,
    /// One JSON object per line.
    JsonLines,
}

impl Format {
    fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "txt" => Some(Self::Plain),
            "jsonl" => Some(Self::JsonLines),
            _ => None,
        }
    }
}

/// Collects the readable files below `folder`; hidden ones and other kinds are passed over.
///
/// `above` holds the true paths of the folders that lead here.
fn walk(folder: &Path, above: &mut Vec<PathBuf>, files: &mut Vec<TextFile>) -> Result<()> {
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
        if path.is_dir() {
            walk(&path, above, files)?;
        } else if let Some(format) = Format::of(&path) {
            files.push(TextFile { path, format });
        }
    }
    above.pop();
    Ok(())
}
