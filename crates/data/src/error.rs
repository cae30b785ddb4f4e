//! What can go wrong between a path and a batch: one line each, saying what, where, and what to do.

use std::path::PathBuf;

use crate::source::READABLE;

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
    #[error("cannot tell how to read {}: text is read from {READABLE} files", path.display())]
    UnknownExtension {
        /// The file.
        path: PathBuf,
    },
    /// A folder without any file that could be read.
    #[error("no file with text in the folder {}: looked for {READABLE}", path.display())]
    EmptyFolder {
        /// The folder.
        path: PathBuf,
    },
    /// A pattern that is none.
    #[error("{pattern:?} is no pattern of file names: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A pattern that means no file that could be read.
    #[error("no file with text matches {pattern:?}: looked for {READABLE}")]
    NoMatch {
        /// The pattern.
        pattern: String,
    },
    /// A device, a pipe or a socket.
    #[error("{} is {kind}: text is read more than once, so put it into a file first", path.display())]
    NoRegularFile {
        /// The path.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// A `.parquet` file, for which this program was not built.
    #[error(
        "{}: this program was built without .parquet; build it with `cargo build --release --features parquet`",
        path.display()
    )]
    NoParquet {
        /// The file.
        path: PathBuf,
    },
    /// More files than are read.
    #[error("more than {most} files, from {} on: do links between folders lead there in many ways?", path.display())]
    TooManyFiles {
        /// The first that is too many.
        path: PathBuf,
        /// How many may be.
        most: usize,
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
    /// Bytes that are no UTF-8.
    #[error("{}:{line} is not UTF-8 at byte {offset} of the text; convert it to UTF-8 first", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Bytes of the file's text before the first invalid one.
        offset: u64,
    },
    /// A NUL byte.
    #[error(
        "{}:{line}: a NUL byte at byte {offset} of the text; this is UTF-16 or no text: convert it to UTF-8 first",
        path.display()
    )]
    NulByte {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Bytes of the file's text before it.
        offset: u64,
    },
    /// A NUL character that stood in a file in other bytes than its own.
    #[error(
        "{place}: a NUL character in the text (\\u0000): this is no text; take it out, or leave the document out"
    )]
    NulCharacter {
        /// The file, and the line or row in it.
        place: String,
    },
    /// A line that would need too much memory.
    #[error("{}:{line}: the line is longer than {most} bytes; put less text into one line", path.display())]
    LineTooLong {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Bytes that a line may have.
        most: usize,
    },
    /// A document that would need too much memory.
    #[error(
        "{}:{line}: the document that begins here is longer than {most} bytes; give the separator of documents, or the \
         length at which they are cut",
        path.display()
    )]
    DocumentTooLong {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Bytes that a document may have.
        most: usize,
    },
    /// A packed file that cannot be unpacked.
    #[error("{}: cannot be unpacked after line {line}: {reason}; it was cut short or altered", path.display())]
    Packed {
        /// The file.
        path: PathBuf,
        /// The last line that began before the damage, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A `.parquet` file that cannot be read.
    #[error("{}: {reason}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        reason: String,
    },
    /// The tokens could not be written.
    #[error(
        "cannot write the tokens of the text to {}: {reason}; make room there (2 or 4 bytes a token), or name another folder \
         with {}",
        folder.display(),
        if *.temporary { "TMPDIR" } else { "data.cache" }
    )]
    TokensNotWritten {
        /// The folder of the cache, or that of temporary files.
        folder: PathBuf,
        /// Whether it is that of temporary files, which the environment names.
        temporary: bool,
        /// What the operating system says.
        reason: std::io::Error,
    },
    /// Tokens could not be read back.
    #[error("cannot read the tokens in {}: {reason}; start again, and they are made anew", path.display())]
    TokensNotRead {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        reason: std::io::Error,
    },
    /// No example fits into a row.
    #[error(
        "no example has at most {most} tokens, which is what a row holds (the shortest has {shortest}): give a larger \
         train.length"
    )]
    ExamplesTooLong {
        /// Tokens that a row holds.
        most: usize,
        /// Tokens of the shortest example.
        shortest: usize,
    },
    /// A chat template that cannot be used.
    #[error("chat template: {reason}")]
    ChatTemplate {
        /// What is wrong with it.
        reason: String,
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
        "{documents} document(s) cannot be split into training and held-out: give at least 2; a .txt file of several needs a \
         separator between them"
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
    /// Whoever watched the work wanted it to end.
    #[error("stopped while reading the text; nothing of it was kept, and the same command begins again")]
    Stopped,
    /// A saved data position that belongs to other data or settings.
    #[error(
        "the saved data position does not fit: {0}; put text and settings back as they were, or start a new run"
    )]
    Position(String),
}

/// Shorthand for this crate's results.
pub type Result<T> = std::result::Result<T, Error>;
