//! `sakiyomi verify`: greedy decoding with drafts gives the tokens of decoding without, and sampling with drafts their
//! distribution.

use decode::{DecodeSettings, Exactness, ExactnessSettings, Verification, exactness, verify};
use serde::Serialize;

use super::checkpoint::Loaded;
use super::limits::within;
use crate::arguments::{DraftSource, Verify};
use crate::failure::Verdict;
use crate::output::Output;
use crate::progress::Counter;

#[derive(Serialize)]
struct Verified<'a> {
    holds: bool,
    identical: bool,
    /// Whether sampling passed; null where it was not tested.
    exact: Option<bool>,
    prompts: usize,
    compared_tokens: usize,
    draft_lengths: usize,
    tokens_per_forward: Vec<Option<f64>>,
    acceptance_per_depth: Vec<Option<f64>>,
    verification: &'a Verification,
    exactness: Option<Exactness>,
}

/// Tokens drawn in each case, at most: a small model takes hours for them.
const MOST_DRAWS: usize = 10_000_000;

pub fn run(arguments: &Verify, threads: usize, output: Output) -> anyhow::Result<Verdict> {
    within("--draws", arguments.draws, 0..=MOST_DRAWS)?;
    anyhow::ensure!(
        arguments.draft != DraftSource::None,
        "--draft none: without drafts there is nothing to compare; leave it out, or name what drafts"
    );
    let loaded = Loaded::read_as(&arguments.packing, &arguments.checkpoint, threads)?.with_exit(
        arguments.draft,
        &arguments.exit,
        &arguments.checkpoint,
    )?;
    let prompts = arguments.prompts.read(&loaded)?;
    let settings = DecodeSettings {
        max_new_tokens: arguments.prompts.max_new_tokens,
        end_tokens: loaded.end_tokens(),
        ..DecodeSettings::default()
    };
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0).saturating_add(settings.max_new_tokens);
    let longest = longest.max(EXACTNESS_POSITIONS);
    let mut target = loaded.target_drafting(longest, arguments.draft)?;
    let mut counter = None;
    let verification = verify(&mut target, &prompts, &settings, &mut |done, of| {
        counter.get_or_insert_with(|| Counter::new("verifying", of)).set(done, output, String::new);
    })?;
    counter.iter().for_each(Counter::finish);
    let exactness = match arguments.draws {
        0 => None,
        draws => Some(sampling(draws, arguments.seed, &mut target, &prompts, output)?),
    };
    let drafted = &verification.drafted;
    let verified = Verified {
        holds: verification.identical() && exactness.as_ref().is_none_or(Exactness::holds),
        identical: verification.identical(),
        exact: exactness.as_ref().map(Exactness::holds),
        prompts: verification.prompts,
        compared_tokens: verification.compared_tokens,
        draft_lengths: drafted.len(),
        tokens_per_forward: drafted.iter().map(decode::Statistics::tokens_per_forward).collect(),
        acceptance_per_depth: drafted
            .last()
            .map(decode::Statistics::acceptance_per_depth)
            .unwrap_or_default(),
        verification: &verification,
        exactness,
    };
    output.result(&verified, || text(&verified))?;
    Ok(if verified.holds { Verdict::Done } else { Verdict::DoesNotHold })
}

/// Room for the texts that are sampled after prompts of usual length.
const EXACTNESS_POSITIONS: usize = 256;

fn sampling(
    draws: usize,
    seed: u64,
    target: &mut decode::Target,
    prompts: &[Vec<u32>],
    output: Output,
) -> anyhow::Result<Exactness> {
    let draft_length = target.longest_draft();
    let settings = ExactnessSettings { draws, seed, draft_length, ..ExactnessSettings::default() };
    let mut counter = None;
    let found = exactness(target, prompts, &settings, &mut |done, of| {
        counter.get_or_insert_with(|| Counter::new("sampling", of)).set(done, output, String::new);
    })?;
    counter.iter().for_each(Counter::finish);
    Ok(found)
}

fn text(verified: &Verified) -> String {
    let identity = identity(verified);
    match &verified.exactness {
        None => identity,
        Some(found) => format!("{identity}\n{}", distribution(found)),
    }
}

fn distribution(found: &Exactness) -> String {
    let draws: usize = found.cases.iter().map(|case| case.draws).sum();
    if let Some((case, test)) = found.rejections().next() {
        return format!(
            "sampling has NOT the model's distribution: temperature {}, vocabulary of {}, {}: p = {:.1e}",
            case.sampling.temperature, case.vocabulary, test.name, test.p_value
        );
    }
    format!(
        "sampling has the model's distribution: {draws} draws in {} cases, {} tests, {:.0} % familywise; a residual drawn from \
         the target would be noticed with probability {:.3}, a stale draft distribution with {:.3}",
        found.cases.len(),
        found.tests,
        found.level * 100.0,
        found.power_residual_from_target,
        found.power_stale_proposal
    )
}

fn identity(verified: &Verified) -> String {
    if let Some(first) = verified.verification.divergences.first() {
        return format!(
            "NOT identical: prompt {}, draft length {}, token {}: {:?} without drafts, {:?} with (logit gap {:?})",
            first.prompt, first.draft_length, first.position, first.plain, first.drafted, first.logit_gap
        );
    }
    let per_forward: Vec<String> =
        verified.tokens_per_forward.iter().map(|t| t.map_or("-".to_owned(), |t| format!("{t:.2}"))).collect();
    format!(
        "identical: {} prompts, {} tokens compared over draft lengths 1 to {}\ntokens per forward: {}",
        verified.prompts,
        verified.compared_tokens,
        verified.draft_lengths,
        per_forward.join(" ")
    )
}
