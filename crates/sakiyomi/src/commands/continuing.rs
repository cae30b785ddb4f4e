//! Text that a model writes itself, a line of JSON for each prompt.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

use decode::{DecodeSettings, GenerateSettings, generate};

use super::checkpoint::Loaded;
use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::progress::Counter;

/// What was written.
pub struct Written {
    /// Prompts that were continued: all of them, unless it was interrupted.
    pub continuations: usize,
    /// Tokens that the model added.
    pub tokens: usize,
}

/// Continues each prompt as `decoding` says, with the longest drafts that there are and a seed of its own, and writes prompt
/// and continuation as the field `text` of a line. `file` appears when it is whole; an interruption ends it after the last
/// continuation that was.
///
/// # Errors
/// When a prompt does not fit into the model's context, when `file` exists or cannot be written, and when not even one
/// continuation was whole.
pub fn continuations_file(
    file: &Path,
    loaded: &Loaded,
    prompts: &[Vec<u32>],
    decoding: DecodeSettings,
    interrupt: &Interrupt,
    output: Output,
) -> anyhow::Result<Written> {
    let mut unfinished = data::Unfinished::begin(file)?;
    let written = write_to(&mut unfinished, loaded, prompts, decoding, interrupt, output)?;
    anyhow::ensure!(
        written.continuations > 0,
        "stopped before the first continuation was whole: nothing is written"
    );
    unfinished.finish_new()?;
    Ok(written)
}

fn write_to(
    written: &mut impl Write,
    loaded: &Loaded,
    prompts: &[Vec<u32>],
    decoding: DecodeSettings,
    interrupt: &Interrupt,
    output: Output,
) -> anyhow::Result<Written> {
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    let mut target = loaded.target(longest.saturating_add(decoding.max_new_tokens))?;
    let draft_length = target.longest_draft();
    let settings =
        GenerateSettings { decoding: DecodeSettings { draft_length, ..decoding }, stop: Vec::new() };
    let vocabulary = &loaded.checkpoint.vocabulary;
    let begins = usize::from(vocabulary.begin().is_some());
    let mut counter = Counter::new("continuing", prompts.len());
    let mut done = Written { continuations: 0, tokens: 0 };
    for (index, prompt) in prompts.iter().enumerate() {
        let mut settings = settings.clone();
        let sampling = &mut settings.decoding.sampling;
        sampling.seed = sampling.seed.wrapping_add(index as u64);
        let continued =
            generate(&mut target, vocabulary, prompt, &settings, &mut |_| match interrupt.raised() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            })?;
        if interrupt.raised() {
            break;
        }
        let text = vocabulary.decode(&prompt[begins.min(prompt.len())..])? + &continued.text;
        serde_json::to_writer(&mut *written, &serde_json::json!({ "text": text }))?;
        writeln!(written)?;
        done.continuations += 1;
        done.tokens += continued.decoded.ids.len();
        counter.set(done.continuations, output, String::new);
    }
    counter.finish();
    Ok(done)
}
