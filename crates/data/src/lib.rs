//! From text to batches: vocabularies, documents, the held-out split, the token cache, packing, and the demo's own tales.
//!
//! The order of the code is the way of the data: [`documents`] reads text, [`vocabulary`] turns it into tokens,
//! [`corpus`] holds them, [`cache`] keeps them on disk, [`split`] holds some back, [`loader`] and [`packing`] make
//! [`Batch`]es of them. Nothing here knows what a model does with a batch, and nothing here prints.

pub mod batch;
mod digest;
pub mod error;
pub mod random;
pub mod vocabulary;

pub use batch::{Batch, NO_TARGET, PADDING};
pub use error::{Error, Result};
pub use vocabulary::{TextStream, Vocabulary};
