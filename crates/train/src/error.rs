//! The one error type of this crate: every message is one line that says what is wrong, where, and what to do.

use std::path::PathBuf;

/// What the functions of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can keep a run from starting or going on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file system refused; the message names the operation and the path.
    #[error("{0}")]
    Io(#[from] std::io::Error),

    /// A run file or an override that is no TOML of the right form.
    #[error("{place}: {reason}")]
    NoToml {
        /// File and line, or `override`.
        place: String,
        /// What is wrong.
        reason: String,
    },

    /// A key that no run file has.
    #[error("{place}: unknown key {key}; {hint}")]
    UnknownKey {
        /// File and line, or `override`.
        place: String,
        /// The key with its section.
        key: String,
        /// The nearest key, or those that there are.
        hint: String,
    },

    /// A value of another kind than its key takes.
    #[error("{place}: {key} = {found}: expected {expected}")]
    WrongValue {
        /// File and line, or `override`.
        place: String,
        /// The key with its section.
        key: String,
        /// The value, as TOML.
        found: String,
        /// What the key takes.
        expected: String,
    },

    /// A setting that cannot work.
    #[error("{key} {problem}")]
    Setting {
        /// The key with its section.
        key: String,
        /// What is wrong and what to do.
        problem: String,
    },

    /// A line of events.jsonl that is no event.
    #[error("{}:{line}: {reason}", .file.display())]
    Event {
        /// The file.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}
