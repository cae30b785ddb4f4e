//! From files to tokens: what is read, what is refused, what is kept.

#![allow(clippy::print_stderr, reason = "a skipped test says so")]

mod cache;
mod compressed;
mod cutting;
#[cfg(feature = "parquet")]
mod parquet;
#[cfg(feature = "parquet")]
mod parquet_answers;
mod reading;
mod refused;
mod support;
mod tokenizer;
