//! `sakiyomi generate`: continue a prompt.

mod grid_sheet;

use std::ops::ControlFlow;

use decode::{DecodeSettings, Ending, GenerateSettings, Generation, SamplingSettings, Statistics, generate};
use serde::Serialize;

use super::checkpoint::Loaded;
use super::round_costs;
use super::text_file;
use crate::arguments::{DraftSource, Generate, Sampling};
use crate::failure::Verdict;
use crate::interrupt::Interrupt;
use crate::output::Output;

#[derive(Serialize)]
struct Generated<'a> {
    prompt: &'a str,
    text: &'a str,
    tokens: &'a [u32],
    ending: Ending,
    draft_length: usize,
    tokens_per_forward: Option<f64>,
    acceptance_per_depth: Vec<Option<f64>>,
    expected_acceptance_per_depth: Vec<Option<f64>>,
    tokens_per_s: Option<f64>,
    time_to_first_token_s: Option<f64>,
    time_per_token_s: Option<f64>,
    statistics: &'a Statistics,
}

pub fn run(arguments: &Generate, threads: usize, output: Output) -> anyhow::Result<Verdict> {
    // Before the model is read and measured.
    arguments.sampling.settings().validate()?;
    if let Some(file) = &arguments.sheet.grid_sheet {
        return grid_sheet::run(arguments, file, threads, output);
    }
    let prompt = match &arguments.prompt_file {
        Some(file) => text_file::read(file)?,
        None => arguments.prompt.clone(),
    };
    let loaded = Loaded::read_as(&arguments.packing, &arguments.checkpoint, threads)?.with_exit(
        arguments.draft,
        &arguments.exit,
        &arguments.checkpoint,
    )?;
    let ids = if arguments.chat { loaded.encode_chat(&prompt)? } else { loaded.encode(&prompt)? };
    let lost = loaded.lost_bytes(&prompt)?;
    if lost > 0 {
        output.remark(format!(
            "the tokenizer cannot spell {lost} of the {} bytes of the prompt: the model does not see them",
            prompt.len()
        ));
    }
    anyhow::ensure!(
        !ids.is_empty(),
        "the prompt is empty, and this vocabulary has no token to begin with: give --prompt"
    );
    let positions = ids.len().saturating_add(arguments.max_new_tokens);
    let mut target = loaded.target_drafting(positions, arguments.draft)?;
    // Sampled text depends on the lengths of drafts, so that its seed would not suffice to repeat it.
    let drafts = format!("{:?}", arguments.draft);
    let chooses = arguments.speculate == "auto" && arguments.sampling.settings().greedy();
    if chooses && target.longest_draft() > 0 {
        let measured = round_costs::positions(target.longest_draft()).max(positions);
        let mut measured = loaded.target_drafting(measured, arguments.draft)?;
        target.set_policy(round_costs::policy(&loaded, &drafts, &mut measured, threads, output)?);
    }
    let settings = GenerateSettings {
        decoding: DecodeSettings {
            max_new_tokens: arguments.max_new_tokens,
            draft_length: draft_length(arguments, target.longest_draft())?,
            sampling: arguments.sampling.settings(),
            end_tokens: if arguments.ignore_end { Vec::new() } else { loaded.end_tokens() },
        },
        stop: arguments.stop.clone(),
    };
    let interrupt = Interrupt::listen(None)?;
    let mut failure = None;
    let generation = generate(&mut target, &loaded.checkpoint.vocabulary, &ids, &settings, &mut |piece| {
        failure = output.stream(&piece.text).err();
        if failure.is_some() || interrupt.raised() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    if let Some(failure) = failure {
        return Err(failure);
    }
    show(&prompt, &generation, &settings, arguments.stats, output)?;
    Ok(Verdict::Done)
}

/// `auto` is at most the longest that can be drafted. What is typed must have a meaning even where no drafts are wanted.
fn draft_length(arguments: &Generate, longest: usize) -> anyhow::Result<usize> {
    let length = match arguments.speculate.as_str() {
        "off" => 0,
        "auto" => longest,
        number => number
            .parse()
            .map_err(|_| anyhow::anyhow!("--speculate {number}: give auto, off or a number of tokens"))?,
    };
    if arguments.draft != DraftSource::None {
        return Ok(length);
    }
    let wanted = length > 0 && arguments.speculate != "auto";
    anyhow::ensure!(!wanted, "--speculate {length}: --draft none drafts nothing; leave one of them out");
    Ok(0)
}

fn show(
    prompt: &str,
    generation: &Generation,
    settings: &GenerateSettings,
    stats: bool,
    output: Output,
) -> anyhow::Result<()> {
    let decoded = &generation.decoded;
    let statistics = &decoded.statistics;
    if output.json {
        let generated = Generated {
            prompt,
            text: &generation.text,
            tokens: &decoded.ids,
            ending: decoded.ending,
            draft_length: settings.decoding.draft_length,
            tokens_per_forward: statistics.tokens_per_forward(),
            acceptance_per_depth: statistics.acceptance_per_depth(),
            expected_acceptance_per_depth: statistics
                .depths
                .iter()
                .map(decode::DepthCounts::expected_acceptance)
                .collect(),
            tokens_per_s: statistics.decode_tokens_per_s(),
            time_to_first_token_s: statistics.seconds_to_first_token(),
            time_per_token_s: statistics.seconds_per_token(),
            statistics,
        };
        output.result(&generated, String::new)?;
    } else {
        output.stream("\n")?;
    }
    if decoded.ending == Ending::ContextFull {
        output.remark(format!(
            "the text ends where the model's context does, after {} of {} tokens",
            decoded.ids.len(),
            settings.decoding.max_new_tokens
        ));
    }
    if stats {
        output.remark(statistics_line(statistics));
    }
    Ok(())
}

fn statistics_line(statistics: &Statistics) -> String {
    let acceptance: Vec<String> = statistics
        .acceptance_per_depth()
        .iter()
        .map(|share| share.map_or("-".to_owned(), |share| format!("{:.0} %", share * 100.0)))
        .collect();
    format!(
        "{} tokens, the first from the prompt, the others in {} forwards: {:.2} tokens per forward, acceptance per depth [{}], {:.0} tokens/s",
        statistics.new_tokens(),
        statistics.forwards,
        statistics.tokens_per_forward().unwrap_or(0.0),
        acceptance.join(", "),
        statistics.decode_tokens_per_s().unwrap_or(0.0)
    )
}

impl Sampling {
    /// As the decoder takes them.
    pub fn settings(&self) -> SamplingSettings {
        SamplingSettings {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
        }
    }
}
