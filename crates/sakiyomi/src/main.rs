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

fn main() -> ExitCode {
    kernels::memory::keep_large_blocks_apart();
    match arguments::Arguments::typed() {
        Ok(arguments) => failure::report(|| {
            interrupt::outlive_file_limits()?;
            commands::run(arguments)
        }),
        Err(usage) => failure::report_usage(&usage),
    }
}
