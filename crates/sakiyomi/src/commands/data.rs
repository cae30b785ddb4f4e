//! `sakiyomi data`: what stands before training.

mod paint;
mod show;
mod tokenizer;

pub use show::show;
pub use tokenizer::tokenizer;
