//! What can go wrong between a file and a figure: one line each, saying what, where, and what to do.

use std::path::PathBuf;

/// What the functions of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The one error type of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file system refused; the message names the path.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The model, or what it was given.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// Text or vocabulary.
    #[error(transparent)]
    Data(#[from] data::Error),
    /// A setting out of range.
    #[error("{setting}: {problem}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The model is too shallow.
    #[error("the model has {layers} layers; {what} needs at least {least}")]
    TooFewLayers {
        /// Blocks of the model.
        layers: usize,
        /// What was asked for.
        what: &'static str,
        /// Blocks that it needs.
        least: usize,
    },
    /// Nothing is left to be judged.
    #[error("{0}")]
    NothingLeft(String),
    /// A file of data that cannot be used.
    #[error("{}: {reason}", .file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },
}

impl Error {
    pub(crate) fn setting(setting: &'static str, problem: impl Into<String>) -> Self {
        Self::Setting { setting, problem: problem.into() }
    }

    pub(crate) fn file(file: &std::path::Path, reason: impl Into<String>) -> Self {
        Self::File { file: file.to_owned(), reason: reason.into() }
    }
}
