//! What can go wrong between a path and a batch: one line each, saying what, where, and what to do.

use std::path::PathBuf;

/// The one error type of this crate.
///
/// Variants carry the place (file, line, byte) so that the binary can print them as they are.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A path that was asked for is not there.
    #[error("no such file or folder: {}", path.display())]
    Missing {
        /// The path as it was given.
        path: PathBuf,
    },
    /// The operating system refused; its own message names the path.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// A file whose name does not say how to read it.
    #[error("cannot tell how to read {}: text is read from .txt and .jsonl files", path.display())]
    UnknownExtension {
        /// The file.
        path: PathBuf,
    },
    /// A folder without any file that could be read.
    #[error("no .txt or .jsonl file in the folder {}", path.display())]
    EmptyFolder {
        /// The folder.
        path: PathBuf,
    },
    /// A folder that contains itself by way of a symbolic link.
    #[error("{} leads back to a folder that contains it; remove the symbolic link", path.display())]
    FolderLoop {
        /// Where the loop closes.
        path: PathBuf,
    },
    /// No text at all.
    #[error("no text in {what}; give at least one document that is not empty")]
    NoText {
        /// The paths, separated by commas.
        what: String,
    },
    /// A `.txt` file with bytes that are no UTF-8.
    #[error("{} is not UTF-8 at byte {offset}; convert it to UTF-8 first", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// Bytes before the first invalid one.
        offset: usize,
    },
    /// A line of a `.jsonl` file that is no JSON object.
    #[error("{}:{line}: {reason}", path.display())]
    JsonLine {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The setting itself makes no sense.
    #[error("{0}")]
    Setting(String),
    /// A tokenizer that cannot be read or used.
    #[error("tokenizer {}: {reason}", path.display())]
    Tokenizer {
        /// The file, or the name of the built-in vocabulary.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Too few documents to hold any of them out.
    #[error(
        "{documents} document(s) cannot be split into training and held-out; give at least 2, or set a separator"
    )]
    TooFewDocuments {
        /// How many there are.
        documents: usize,
    },
    /// Every document is too short to have a target at the deepest head.
    #[error(
        "no document is longer than {lookahead} tokens (the longest, {name}, has {longest}): nothing to predict at that depth"
    )]
    DocumentsTooShort {
        /// Tokens that the deepest head looks ahead.
        lookahead: usize,
        /// Tokens of the longest document.
        longest: usize,
        /// Name of the longest document.
        name: String,
    },
    /// A saved data position that belongs to other data or settings.
    #[error(
        "the saved data position does not fit: {0}; put text and settings back as they were, or start a new run"
    )]
    Position(String),
}

/// Shorthand for this crate's results.
pub type Result<T> = std::result::Result<T, Error>;
