//! `sakiyomi verify`: decoding with drafts gives the tokens of decoding without.

use decode::{DecodeSettings, Verification, verify};
use serde::Serialize;

use super::checkpoint::Loaded;
use crate::arguments::Verify;
use crate::failure::Verdict;
use crate::output::Output;
use crate::progress::Counter;

#[derive(Serialize)]
struct Verified<'a> {
    identical: bool,
    prompts: usize,
    compared_tokens: usize,
    draft_lengths: usize,
    tokens_per_forward: Vec<Option<f64>>,
    acceptance_per_depth: Vec<Option<f64>>,
    verification: &'a Verification,
}

pub fn run(arguments: &Verify, threads: usize, output: Output) -> anyhow::Result<Verdict> {
    let loaded = Loaded::read_as(&arguments.packing, &arguments.checkpoint, threads)?;
    let prompts = arguments.prompts.read(&loaded)?;
    let settings = DecodeSettings {
        max_new_tokens: arguments.prompts.max_new_tokens,
        end_tokens: loaded.end_tokens(),
        ..DecodeSettings::default()
    };
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0).saturating_add(settings.max_new_tokens);
    let mut target = loaded.target(longest)?;
    let mut counter = None;
    let verification = verify(&mut target, &prompts, &settings, &mut |done, of| {
        counter.get_or_insert_with(|| Counter::new("verifying", of)).set(done, output, String::new);
    })?;
    counter.iter().for_each(Counter::finish);
    let drafted = &verification.drafted;
    let verified = Verified {
        identical: verification.identical(),
        prompts: verification.prompts,
        compared_tokens: verification.compared_tokens,
        draft_lengths: drafted.len(),
        tokens_per_forward: drafted.iter().map(decode::Statistics::tokens_per_forward).collect(),
        acceptance_per_depth: drafted
            .last()
            .map(decode::Statistics::acceptance_per_depth)
            .unwrap_or_default(),
        verification: &verification,
    };
    output.result(&verified, || text(&verified))?;
    Ok(if verified.identical { Verdict::Done } else { Verdict::DoesNotHold })
}

fn text(verified: &Verified) -> String {
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
