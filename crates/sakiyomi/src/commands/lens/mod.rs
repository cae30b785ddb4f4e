//! `sakiyomi lens`: in which layer a model decides what, and what that is good for.

mod arguments;
mod exit;
mod intervene;
mod live;
mod lossless;
mod probe;
mod report;
mod saturation;
mod subject;
mod tokens;

pub use arguments::LensVerb;

use crate::failure::Verdict;
use crate::interrupt::end_at_once;
use crate::output::Output;

/// Runs the verb that was typed.
pub fn run(verb: &LensVerb, threads: usize, output: Output) -> anyhow::Result<Verdict> {
    super::machine::use_threads(threads)?;
    match verb {
        // They say themselves what becomes of what they have written.
        LensVerb::Report(_) | LensVerb::Exit(_) => {}
        _ => end_at_once(output, None)?,
    }
    match verb {
        LensVerb::Saturation(arguments) => saturation::run(arguments, output),
        LensVerb::Probe(arguments) => probe::run(arguments, output),
        LensVerb::Intervene(arguments) => intervene::run(arguments, output),
        LensVerb::Exit(arguments) => exit::run(arguments, threads, output),
        LensVerb::Report(arguments) => report::run(arguments, threads, output),
        LensVerb::Tokens(arguments) => tokens::run(arguments, output),
    }
}
