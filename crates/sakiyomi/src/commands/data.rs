//! `sakiyomi data`: what stands before training.

mod continuations;
mod generate;
mod image_grid;
mod paint;
mod planted_mixture;
mod show;
mod tokenizer;

pub use continuations::continuations;
pub use generate::generate;
pub use planted_mixture::planted_mixture;
pub use show::show;
pub use tokenizer::tokenizer;
