//! From text to batches: vocabularies, documents, the held-out split, the token cache, packing, and the
//! demo's own tales.
//!
//! The order of the code is the way of the data: [`documents`] reads text, [`vocabulary`] turns it into
//! tokens, [`cache`] keeps them on disk, [`corpus`] reads them from there, [`mod@split`] holds some back, [`loader`] and
//! `packing` make [`Batch`]es of them. Nothing here knows what a model does with a batch, and nothing here
//! prints.

pub mod batch;
pub mod cache;
pub mod chat;
pub mod corpus;
pub mod digest;
pub mod documents;
pub mod error;
pub mod examples;
mod guard;
pub mod loader;
mod packing;
pub mod planted_mixture;
pub mod random;
pub mod show;
pub mod source;
pub mod spans;
pub mod split;
pub mod tales;
pub mod tasks;
mod token_file;
mod unfinished;
pub mod vocabulary;

pub use batch::{Batch, NO_TARGET, PADDING};
pub use cache::{CacheOutcome, Tokenised, Watch, load_or_build, load_or_build_watched};
pub use chat::ChatTemplate;
pub use corpus::Corpus;
pub use documents::{Document, Documents};
pub use error::{Error, Result};
pub use examples::{Example, Examples, Learnt};
pub use guard::inside_library;
pub use loader::{EvaluationBatches, Loader, LoaderState, evaluation_batches};
pub use show::{CarriedToken, ShownRegister, ShownToken, show_row};
pub use source::Source;
pub use spans::repeated_span_share;
pub use split::{SplitRule, split};
pub use unfinished::{Unfinished, folder_of, temporary_folder, write_whole};
pub use vocabulary::{TextStream, Vocabulary};
