//! `sakiyomi bench decode`: what one run of a model costs by its number of rows, beside the speed of memory.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Instant;

use comfy_table::{CellAlignment, Table};
use decode::{Spread, Target, forced, forward_costs};
use kernels::bandwidth::measure_read_bandwidth;
use kernels::team::Team;
use model::engine::EngineWeights;
use model::{Decoder, DecoderConfig};
use objective::{
    HeadKind, HeadsSpec, JointHeads, JointSpec, Method, Objective, ParallelHeads, UnembeddingKind,
};
use serde::Serialize;
use tensor::Params;

use super::super::checkpoint::Loaded;
use super::super::limits::{REPEATS, VOCABULARIES, within};
use crate::arguments::BenchDecode;
use crate::failure::Verdict;
use crate::flags::told_as_typed;
use crate::output::Output;

/// Bytes of the bandwidth probe beside the figures.
const PROBE_BYTES: usize = 256 << 20;
const PROBES: usize = 3;

/// Tokens before the rows: no published model has a longer context.
const CONTEXTS: RangeInclusive<usize> = 1..=1 << 24;

/// Most rows of one run.
const MOST_ROWS: usize = 256;

/// Tokens of each continuation with forced acceptance.
const FORCED_TOKENS: usize = 64;

#[derive(Serialize)]
struct Costs {
    model: String,
    weights: &'static str,
    threads: usize,
    instruction_set: &'static str,
    context: usize,
    repeats: usize,
    packed_bytes: usize,
    cache_bytes_read: usize,
    read_gb_per_s_before: f64,
    read_gb_per_s_after: f64,
    /// Milliseconds by number of rows, medians.
    rows: BTreeMap<usize, f64>,
    spreads_ms: BTreeMap<usize, Spread>,
    /// Relative to one row.
    cost: BTreeMap<usize, f64>,
    tokens_per_s: Option<f64>,
    gb_per_s: Option<f64>,
    fraction_of_bandwidth: Option<f64>,
    prefill_tokens_per_s: f64,
    forced: Option<Forced>,
}

#[derive(Serialize)]
struct Forced {
    draft_length: usize,
    tokens_per_forward: Option<f64>,
    plain_tokens_per_s: f64,
    tokens_per_s: f64,
    speedup: f64,
    ms_per_round: f64,
}

pub fn run(arguments: &BenchDecode, threads: usize, output: Output) -> anyhow::Result<Verdict> {
    within("--context", arguments.context, CONTEXTS)?;
    within("--repeats", arguments.repeats, REPEATS)?;
    anyhow::ensure!(
        arguments.rows.iter().all(|rows| (1..=MOST_ROWS).contains(rows)),
        "--rows: give numbers from 1 to {MOST_ROWS}"
    );
    if let Some(vocabulary) = arguments.vocab {
        within("--vocab", vocabulary, VOCABULARIES)?;
    }
    let positions = positions(arguments);
    let costs = match (&arguments.random, &arguments.model) {
        (Some(preset), _) => {
            let random = Random::new(preset, arguments, threads)?;
            let mut target = random.target(positions)?;
            target.hold_cache_as(arguments.packing.cache);
            measure(arguments, &mut target, &random.weights, threads, preset.clone(), output)?
        }
        (None, Some(folder)) => {
            let loaded = Loaded::read_as(&arguments.packing, folder, threads)?;
            let mut target = loaded.target(positions)?;
            measure(arguments, &mut target, loaded.weights(), threads, folder.display().to_string(), output)?
        }
        (None, None) => anyhow::bail!("give a checkpoint folder or --random PRESET"),
    };
    output.result(&costs, || costs.text())?;
    Ok(Verdict::Done)
}

/// Positions that everything measured needs.
fn positions(arguments: &BenchDecode) -> usize {
    let rows = arguments.rows.iter().copied().max().unwrap_or(0);
    let forced = if arguments.force_acceptance.is_some() { FORCED_TOKENS + MOST_ROWS } else { 0 };
    arguments.context.saturating_add(rows.max(forced))
}

fn measure(
    arguments: &BenchDecode,
    target: &mut Target,
    weights: &EngineWeights,
    threads: usize,
    model: String,
    output: Output,
) -> anyhow::Result<Costs> {
    check_forced(arguments, target.longest_draft())?;
    let (positions, capacity) = (positions(arguments), target.capacity());
    anyhow::ensure!(
        capacity >= positions,
        "--context {}: what is measured needs {positions} positions, and the model's context is {capacity}",
        arguments.context
    );
    output.remark("measuring memory and forwards ...");
    let vocabulary = target.vocabulary() as u32;
    let context: Vec<u32> =
        (0..arguments.context as u32).map(|place| place.wrapping_mul(2_654_435_761) % vocabulary).collect();
    let probe = || measure_read_bandwidth(threads, PROBE_BYTES, PROBES) / 1e9;
    let before = probe();
    // Untimed: buffers are allocated and the weights come into memory.
    let logits = target.prefill(&context, false)?;
    target.recycle(logits);
    let start = Instant::now();
    let logits = target.prefill(&context, false)?;
    target.recycle(logits);
    let prefill_seconds = start.elapsed().as_secs_f64();
    let spreads = forward_costs(target, &context, &arguments.rows, arguments.repeats)?;
    let forced = match arguments.force_acceptance {
        None => None,
        Some(tokens) => Some(measure_forced(target, &context, tokens, arguments.repeats)?),
    };
    let after = probe();
    let in_ms = |spread: &Spread| Spread {
        median: spread.median * 1e3,
        lowest: spread.lowest * 1e3,
        highest: spread.highest * 1e3,
        values: spread.values.iter().map(|seconds| seconds * 1e3).collect(),
    };
    let spreads_ms: BTreeMap<usize, Spread> =
        arguments.rows.iter().copied().zip(spreads.iter().map(in_ms)).collect();
    let rows: BTreeMap<usize, f64> = spreads_ms.iter().map(|(rows, ms)| (*rows, ms.median)).collect();
    let one = rows.get(&1).copied();
    let cache_bytes_read = target.cache_bytes_per_position() * arguments.context;
    let gb_per_s = one.map(|ms| (weights.decoder_bytes() + cache_bytes_read) as f64 / ms / 1e6);
    Ok(Costs {
        model,
        weights: weights.weight_type().name(),
        threads,
        instruction_set: kernels::cpu::isa().name(),
        context: arguments.context,
        repeats: arguments.repeats,
        packed_bytes: weights.decoder_bytes(),
        cache_bytes_read,
        read_gb_per_s_before: before,
        read_gb_per_s_after: after,
        cost: one.map_or_else(BTreeMap::new, |one| rows.iter().map(|(rows, ms)| (*rows, ms / one)).collect()),
        rows,
        spreads_ms,
        tokens_per_s: one.map(|ms| 1e3 / ms),
        gb_per_s,
        fraction_of_bandwidth: gb_per_s.map(|rate| 2.0 * rate / (before + after)),
        prefill_tokens_per_s: arguments.context as f64 / prefill_seconds,
        forced,
    })
}

/// Refuses an acceptance that the model's drafts cannot give, before minutes go into measuring the rest.
fn check_forced(arguments: &BenchDecode, longest_draft: usize) -> anyhow::Result<()> {
    let Some(tokens) = arguments.force_acceptance else { return Ok(()) };
    anyhow::ensure!(longest_draft > 0, "--force-acceptance: this model has no heads; give --heads");
    let most = longest_draft + 1;
    anyhow::ensure!(
        (1.0..=most as f64).contains(&tokens),
        "--force-acceptance {tokens}: a forward of this model gives 1 to {most} tokens"
    );
    Ok(())
}

/// Plain decoding and decoding with the longest drafts, in turn.
fn measure_forced(
    target: &mut Target,
    context: &[u32],
    tokens_per_forward: f64,
    repeats: usize,
) -> anyhow::Result<Forced> {
    let draft_length = target.longest_draft();
    let (mut plain, mut drafted) = (decode::Statistics::default(), decode::Statistics::default());
    for repeat in 0..=repeats.div_ceil(4) {
        let one = forced(target, context, FORCED_TOKENS, 0, 1.0)?;
        let several = forced(target, context, FORCED_TOKENS, draft_length, tokens_per_forward)?;
        // The first turn allocates.
        if repeat > 0 {
            plain.merge(&one);
            drafted.merge(&several);
        }
    }
    let rate = |statistics: &decode::Statistics| statistics.decode_tokens_per_s().unwrap_or_default();
    Ok(Forced {
        draft_length,
        tokens_per_forward: drafted.tokens_per_forward(),
        plain_tokens_per_s: rate(&plain),
        tokens_per_s: rate(&drafted),
        speedup: rate(&drafted) / rate(&plain),
        ms_per_round: drafted.seconds_per_forward().unwrap_or_default() * 1e3,
    })
}

impl Costs {
    fn text(&self) -> String {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
        table.set_header(["rows", "ms", "lowest to highest", "cost"]);
        for (rows, ms) in &self.spreads_ms {
            table.add_row([
                rows.to_string(),
                format!("{:.2}", ms.median),
                format!("{:.2} to {:.2}", ms.lowest, ms.highest),
                self.cost.get(rows).map_or("-".to_owned(), |cost| format!("{cost:.2}")),
            ]);
        }
        for column in table.column_iter_mut() {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let mut text = format!(
            "{}, {} weights, {} threads, {}, context {}; memory read at {:.1} GB/s before and {:.1} after\n{table}",
            self.model,
            self.weights,
            self.threads,
            self.instruction_set,
            self.context,
            self.read_gb_per_s_before,
            self.read_gb_per_s_after
        );
        if let (Some(tokens), Some(rate), Some(fraction)) =
            (self.tokens_per_s, self.gb_per_s, self.fraction_of_bandwidth)
        {
            text += &format!(
                "\none row: {tokens:.1} tokens/s, {:.0} MB read at {rate:.1} GB/s, {:.0} % of what memory gives",
                (self.packed_bytes + self.cache_bytes_read) as f64 / 1e6,
                fraction * 100.0
            );
        }
        text += &format!("\nprompt: {:.0} tokens/s", self.prefill_tokens_per_s);
        if let Some(forced) = &self.forced {
            text += &format!(
                "\n{} drafts at {:.2} tokens per forward: {:.1} tokens/s, plain {:.1}: {:.2} times",
                forced.draft_length,
                forced.tokens_per_forward.unwrap_or_default(),
                forced.tokens_per_s,
                forced.plain_tokens_per_s,
                forced.speedup
            );
        }
        text
    }
}

/// Refuses a model and a context that cannot be held at once by a machine of `memory` bytes: a cache that cannot be allocated
/// would end the program without a word of what to change.
fn check_memory(arguments: &BenchDecode, config: &DecoderConfig, memory: Option<u64>) -> anyhow::Result<()> {
    let Some(memory) = memory else { return Ok(()) };
    let weights = config.parameters().saturating_mul(size_of::<f32>() as u64);
    let values = 2 * config.layers * config.kv_heads * config.head_dim;
    let position = (values * arguments.packing.cache.bytes()) as u64;
    let cache = position.saturating_mul(config.context as u64);
    let gigabytes = |bytes: u64| bytes as f64 / 1e9;
    anyhow::ensure!(
        weights.saturating_add(cache) <= memory,
        "--context {}: the model's weights take {:.1} GB and its keys and values {:.1} GB, and the machine has {:.1} GB of memory; \
         give a shorter context or a smaller model",
        arguments.context,
        gigabytes(weights),
        gigabytes(cache),
        gigabytes(memory)
    );
    Ok(())
}

/// A model of a preset's size whose weights mean nothing.
struct Random {
    decoder: Decoder,
    heads: Method,
    weights: Arc<EngineWeights>,
    team: Arc<Team>,
}

impl Random {
    fn new(preset: &str, arguments: &BenchDecode, threads: usize) -> anyhow::Result<Self> {
        let known = model::presets::PRESETS.iter().find(|known| known.name == preset);
        let names: Vec<_> = model::presets::PRESETS.iter().map(|known| known.name).collect();
        let Some(known) = known else {
            anyhow::bail!("--random {preset}: there is no such preset; give one of {}", names.join(", "))
        };
        let Some(mut config) =
            model::presets::preset(preset, arguments.vocab.or(known.vocabulary).unwrap_or(VOCABULARY))
        else {
            anyhow::bail!("--random {preset}: there is no such preset")
        };
        // The context only bounds positions.
        config.context = config.context.max(positions(arguments));
        check_memory(arguments, &config, train::memory::machine())?;
        let spec = HeadsSpec {
            n: arguments.heads,
            kind: HeadKind::Linear,
            unembedding: UnembeddingKind::Shared,
            weights: Vec::new(),
        };
        told_as_typed(spec.validate(config.layers), &[("objective.n", "--heads")])?;
        let joint = JointSpec::new(super::joint_kind(&arguments.joint), arguments.heads, arguments.rank);
        let of_heads = match arguments.rank {
            0 => ParallelHeads::tensors(&spec, &config),
            _ => {
                told_as_typed(joint.validate(), &[("objective.n", "--heads"), ("objective.rank", "--rank")])?;
                JointHeads::tensors(&joint, &config)
            }
        };
        let params = random_params(&config, of_heads);
        let decoder = Decoder::find(&config, &params)?;
        let heads: Method = match arguments.rank {
            0 => ParallelHeads::find(spec, &decoder, &params)?.into(),
            _ => JointHeads::find(joint, &decoder, &params)?.into(),
        };
        let weights = arguments.packing.weights.unwrap_or_default();
        let weights = Target::pack_as(weights, &decoder, heads.drafter(), &params);
        Ok(Self { decoder, heads, weights, team: Arc::new(Team::new(threads)) })
    }

    fn target(&self, positions: usize) -> anyhow::Result<Target<'_>> {
        let (weights, team) = (Arc::clone(&self.weights), Arc::clone(&self.team));
        Ok(Target::new(&self.decoder, self.heads.drafter(), weights, team, positions)?)
    }
}

/// Tokens of a preset that names none.
const VOCABULARY: usize = 4096;

/// Weights of the usual sizes: even, not normal, because billions of normal numbers take a while. Gains are 1.
fn random_params(config: &DecoderConfig, of_heads: Vec<(String, Vec<usize>)>) -> Params {
    let mut params = Params::default();
    let mut state = 0x9e37_79b9_u32;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as i32 as f32 / (1_u32 << 31) as f32
    };
    let of_decoder = config.tensors().into_iter().map(|tensor| (tensor.name, tensor.shape));
    for (name, shape) in of_decoder.chain(of_heads) {
        let count = shape.iter().product();
        let values = match shape.as_slice() {
            [_] => vec![1.0; count],
            [_, inputs, ..] => {
                let size = (3.0 * 0.4 / *inputs as f32).sqrt();
                std::iter::repeat_with(|| next() * size).take(count).collect()
            }
            [] => Vec::new(),
        };
        params.add(name, &shape, values);
    }
    params
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::arguments::{Arguments, BenchPart, Verb};

    #[test]
    fn what_the_machine_cannot_hold_is_refused() {
        let typed = ["sakiyomi", "bench", "decode", "--random", "llama-1b", "--context", "1000000"];
        let Verb::Bench(bench) = Arguments::parse_from(typed).verb else { panic!("another verb") };
        let Some(BenchPart::Decode(arguments)) = bench.part else { panic!("another part") };
        let config = model::presets::preset("llama-1b", 32_000).unwrap();
        let config = DecoderConfig { context: 1_000_000, ..config };
        let refusal = check_memory(&arguments, &config, Some(16_000_000_000)).unwrap_err().to_string();
        assert_eq!(
            refusal,
            "--context 1000000: the model's weights take 4.4 GB and its keys and values 45.1 GB, and the machine has 16.0 GB of \
             memory; give a shorter context or a smaller model"
        );
        assert!(check_memory(&arguments, &config, Some(64_000_000_000)).is_ok());
        assert!(check_memory(&arguments, &config, None).is_ok());
    }
}
