//! Why an objective cannot be built.

/// What is wrong with the settings of an objective.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting that cannot work.
    #[error("objective.{setting}: {problem}")]
    Setting {
        /// Name of the setting.
        setting: &'static str,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The parameters do not fit the model.
    #[error(transparent)]
    Model(#[from] model::Error),
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
