//! `sakiyomi bench step`: the training step on which this program is compared with others.

use std::ops::RangeInclusive;
use std::time::Instant;

use data::Batch;
use model::{Decoder, presets};
use objective::{
    HeadKind, HeadStart, HeadsSpec, JointHeads, JointSpec, Method, Objective, ParallelHeads, matched_layers,
};
use serde::Serialize;
use tensor::random::{Seeded, seeded, uniform};
use train::config::{DecaySetting, Dtype, TrainSection};
use train::step::Stepper;
use train::{memory, processor};

use super::super::limits::{VOCABULARIES, within};
use super::super::machine;
use crate::arguments::BenchStep;
use crate::failure::Verdict;
use crate::flags::told_as_typed;
use crate::output::Output;

/// Tokens of a row.
const LENGTH: usize = 256;

/// More rows than this are a typing error.
const MOST_ROWS: usize = 4096;

/// Steps before the clock starts: they find buffers and pages new.
const WARM_UP_STEPS: usize = 2;

/// Seed of weights and tokens, and the purpose of the stream that draws the tokens.
const SEED: u64 = 0;
const TOKENS: u64 = 100;

/// The fields of the PyTorch side come first, with its units; then what only this side tells.
#[derive(Serialize)]
struct Measured {
    what: &'static str,
    dtype: String,
    compile: bool,
    heads: usize,
    vocab: usize,
    step_ms: f64,
    tokens_per_s: f64,
    loss: f64,
    steps: usize,
    /// 10^6 KiB.
    peak_rss_gb: Option<f64>,
    head_kind: String,
    batch: usize,
    /// Of joint heads; 0 of others.
    rank: usize,
    frozen: bool,
    recompute: bool,
    parameters: usize,
    threads: usize,
    /// Time of all processors together; less than `threads` times the clock's when others used them as well.
    cpu_ms_per_step: Option<f64>,
    fastest_step_ms: f64,
    slowest_step_ms: f64,
    f32_gflop_per_s_peak: f64,
    read_gb_per_s: f64,
}

/// A day.
const MOST_SECONDS: f64 = 86_400.0;

/// Steps that are timed.
const STEPS: RangeInclusive<usize> = 1..=100_000;

/// Bytes of the bandwidth probe beside the figures.
const PROBE_BYTES: usize = 64 << 20;

pub fn run(arguments: &BenchStep, threads: usize, output: Output) -> anyhow::Result<Verdict> {
    within("--vocab", arguments.vocab, VOCABULARIES)?;
    anyhow::ensure!(
        (0.0..=MOST_SECONDS).contains(&arguments.seconds),
        "--seconds {}: give 0 to {MOST_SECONDS}",
        arguments.seconds
    );
    within("--batch", arguments.batch, 1..=MOST_ROWS)?;
    within("--steps", arguments.steps, STEPS)?;
    machine::use_threads(threads)?;
    let spec = HeadsSpec { n: arguments.heads, kind: kind(&arguments.head_kind), ..HeadsSpec::next_token() };
    let Some(mut config) = presets::preset("reference", arguments.vocab) else {
        anyhow::bail!("this build has no preset `reference`");
    };
    let typed = [("objective.n", "--heads"), ("objective.kind", "--head-kind")];
    told_as_typed(spec.validate(config.layers), &typed)?;
    let moved = if arguments.rank > 0 { 0 } else { matched_layers(&config, &spec) };
    anyhow::ensure!(
        moved < config.layers,
        "--heads {}: {} heads of this kind have more parameters than the {} layers of the model; give fewer",
        spec.n,
        spec.n,
        config.layers
    );
    config.layers -= moved;
    let (decoder, mut params) = Decoder::initialise(&config, SEED)?;
    let objective: Method = match arguments.rank {
        0 => ParallelHeads::attach(spec, &decoder, &mut params, HeadStart::Fresh { seed: SEED })?.into(),
        rank => {
            let spec = JointSpec::new(super::joint_kind(&arguments.joint), arguments.heads, rank);
            told_as_typed(spec.validate(), &[("objective.n", "--heads"), ("objective.rank", "--rank")])?;
            JointHeads::attach(spec, &decoder, &mut params, SEED)?.into()
        }
    };
    if arguments.frozen {
        let ids: Vec<_> = params.iter().map(|(id, _)| id).collect();
        ids.into_iter().for_each(|id| params.set_trainable(id, objective.parameters().contains(&id)));
        anyhow::ensure!(!objective.parameters().is_empty(), "--frozen: there are no heads to train");
    }
    let settings = TrainSection {
        dtype: if arguments.dtype == "bf16" { Dtype::Bf16 } else { Dtype::F32 },
        recompute_activations: arguments.recompute,
        learning_rate: 3e-4,
        weight_decay: 0.1,
        decay_on: DecaySetting::All,
        beta2: 0.999,
        clip: 0.0,
        ..TrainSection::default()
    };
    let batch = random_batch(arguments.vocab, arguments.heads, arguments.batch, &mut seeded(SEED, TOKENS));
    let mut stepper = Stepper::new(&params, &settings);
    let (mut times, mut loss) = (Vec::new(), 0.0);
    let (mut began, mut used_before) = (Instant::now(), None);
    for step in 0.. {
        if step == WARM_UP_STEPS {
            (began, used_before) = (Instant::now(), processor::seconds_used());
        }
        if times.len() >= arguments.steps.max(1) && began.elapsed().as_secs_f64() >= arguments.seconds {
            break;
        }
        let start = Instant::now();
        let batches = std::slice::from_ref(&batch);
        let report = stepper.update(
            &mut params,
            &decoder,
            &objective,
            batches,
            objective.depths(),
            &settings,
            settings.learning_rate,
        )?;
        loss = report.loss.iter().sum();
        if step >= WARM_UP_STEPS {
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    let used = processor::seconds_used().zip(used_before).map(|(now, before)| now - before);
    let peak_rss = memory::peak();
    times.sort_by(f64::total_cmp);
    let step_ms = times[times.len() / 2];
    let measured = Measured {
        what: "train",
        dtype: arguments.dtype.clone(),
        compile: false,
        heads: arguments.heads,
        vocab: arguments.vocab,
        step_ms,
        tokens_per_s: (arguments.batch * LENGTH) as f64 * 1e3 / step_ms,
        loss,
        steps: times.len(),
        peak_rss_gb: peak_rss.map(|bytes| bytes as f64 / 1024.0 / 1e6),
        head_kind: match arguments.rank {
            0 => arguments.head_kind.clone(),
            rank => format!("joint {} of rank {rank}", arguments.joint),
        },
        batch: arguments.batch,
        rank: arguments.rank,
        frozen: arguments.frozen,
        recompute: arguments.recompute,
        parameters: params.values(),
        threads,
        cpu_ms_per_step: used.map(|seconds| seconds * 1e3 / times.len() as f64),
        fastest_step_ms: times[0],
        slowest_step_ms: times[times.len() - 1],
        f32_gflop_per_s_peak: kernels::peak::measure_f32_peak(threads) / 1e9,
        read_gb_per_s: kernels::bandwidth::measure_read_bandwidth(threads, PROBE_BYTES, 5) / 1e9,
    };
    output.result(&measured, || measured.text())?;
    Ok(Verdict::Done)
}

fn kind(name: &str) -> HeadKind {
    match name {
        "layer" => HeadKind::Layer,
        "causal" => HeadKind::Causal,
        "anticausal" => HeadKind::Anticausal,
        _ => HeadKind::Linear,
    }
}

/// Random tokens, each row one document, every input with a target at every depth.
fn random_batch(vocabulary: usize, depths: usize, rows: usize, rng: &mut Seeded) -> Batch {
    let stride = LENGTH + depths;
    let token = |_| ((f64::from(uniform(rng)) * vocabulary as f64) as usize).min(vocabulary - 1) as u32;
    Batch {
        batch: rows,
        length: LENGTH,
        lookahead: depths,
        tokens: (0..rows * stride).map(token).collect(),
        segments: vec![0; rows * stride],
        positions: (0..rows).flat_map(|_| 0..LENGTH as u32).collect(),
        first_visible: vec![0; rows * LENGTH],
        loss_mask: vec![true; rows * stride],
        draws: vec![0; rows],
    }
}

impl Measured {
    fn text(&self) -> String {
        let memory = self.peak_rss_gb.map_or("unknown".to_owned(), |gb| format!("{gb:.2} GB"));
        let processors = self
            .cpu_ms_per_step
            .map_or("unknown".to_owned(), |ms| format!("{ms:.0} ms a step, all together"));
        format!(
            "{} parameters, {} heads ({}), vocabulary {}, {} products, {} threads\n\
             step          {:.1} ms (median of {}, {:.1} to {:.1}), {:.0} tokens/s\n\
             processors    {processors}\n\
             peak memory   {memory}\n\
             loss          {:.4} nats, the sum over depths\n\
             machine       {:.0} GFLOP/s f32, {:.1} GB/s read, measured afterwards",
            self.parameters,
            self.heads,
            self.head_kind,
            self.vocab,
            self.dtype,
            self.threads,
            self.step_ms,
            self.steps,
            self.fastest_step_ms,
            self.slowest_step_ms,
            self.tokens_per_s,
            self.loss,
            self.f32_gflop_per_s_peak,
            self.read_gb_per_s,
        )
    }
}
