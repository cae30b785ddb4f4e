//! `sakiyomi`: make a language model predict several tokens at once, decode faster without changing the text, and prove
//! whether it pays.
//!
//! The only crate that prints. Arguments are parsed ([`arguments`]), each verb checks its settings and makes one call into the
//! libraries ([`commands`]), and the result is shown ([`output`]).

mod arguments;
mod commands;
mod failure;
mod flags;
mod interrupt;
mod output;
mod progress;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    kernels::memory::keep_large_blocks_apart();
    let arguments = arguments::Arguments::parse();
    failure::report(|| commands::run(arguments))
}
