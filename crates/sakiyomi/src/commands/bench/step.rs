//! `sakiyomi bench step`: the training step on which this program is compared with others.

use std::ops::RangeInclusive;
use std::time::Instant;

use data::Batch;
use model::{Decoder, presets};
use objective::{
    HeadKind, HeadStart, HeadsSpec, JointHeads, JointSpec, Method, Objective, ParallelHeads, RegisterStart,
    Registers, RegistersSpec, matched_layers,
};
use serde::Serialize;
use tensor::Params;
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
    /// The share of the tokens that have one.
    registers: f64,
    without_registers: Option<Comparison>,
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
    anyhow::ensure!(
        (0.0..=1.0).contains(&arguments.registers),
        "--registers {}: give a share of the tokens, from 0 to 1",
        arguments.registers
    );
    within("--batch", arguments.batch, 1..=MOST_ROWS)?;
    within("--steps", arguments.steps, STEPS)?;
    machine::use_threads(threads)?;
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
    let compared = arguments.registers > 0.0;
    let model = if compared { with_registers(arguments)? } else { without_registers(arguments)? };
    let mut timed = Timed::new(model, &settings, arguments);
    if let Some(registers) = timed.model.objective.registers() {
        anyhow::ensure!(
            !registers.place(&timed.batch, registers.depths()).is_empty(),
            "--registers {}: of {} rows of {LENGTH} tokens that is not one register; give more",
            arguments.registers,
            arguments.batch
        );
    }
    let beside = compared.then(|| without_registers(arguments)).transpose()?;
    let mut beside = beside.map(|model| Timed::new(model, &settings, arguments));
    let mut began = Instant::now();
    for step in 0.. {
        if step == WARM_UP_STEPS {
            timed.start_over();
            beside.iter_mut().for_each(Timed::start_over);
            began = Instant::now();
        }
        let enough = step >= WARM_UP_STEPS + arguments.steps;
        if enough && began.elapsed().as_secs_f64() >= arguments.seconds {
            break;
        }
        beside.as_mut().map_or(Ok(()), |beside| beside.step(&settings))?;
        timed.step(&settings)?;
    }
    let steps = timed.milliseconds.len();
    // With the model of the comparison beside it, a peak says nothing of either.
    let peak_rss = memory::peak().filter(|_| !compared);
    let without_registers = beside.map(|beside| Comparison::of(&timed, &beside));
    let [fastest, median, slowest] = spread(&timed.milliseconds);
    let measured = Measured {
        what: "train",
        dtype: arguments.dtype.clone(),
        compile: false,
        heads: arguments.heads,
        vocab: arguments.vocab,
        step_ms: median,
        tokens_per_s: (arguments.batch * LENGTH) as f64 * 1e3 / median,
        loss: timed.loss,
        steps,
        peak_rss_gb: peak_rss.map(|bytes| bytes as f64 / 1024.0 / 1e6),
        head_kind: match arguments.rank {
            0 => arguments.head_kind.clone(),
            rank => format!("joint {} of rank {rank}", arguments.joint),
        },
        batch: arguments.batch,
        rank: arguments.rank,
        frozen: arguments.frozen,
        recompute: arguments.recompute,
        registers: arguments.registers,
        without_registers,
        parameters: timed.model.params.values(),
        threads,
        cpu_ms_per_step: timed.processor_ms_per_step(),
        fastest_step_ms: fastest,
        slowest_step_ms: slowest,
        f32_gflop_per_s_peak: kernels::peak::measure_f32_peak(threads) / 1e9,
        read_gb_per_s: kernels::bandwidth::measure_read_bandwidth(threads, PROBE_BYTES, 5) / 1e9,
    };
    output.result(&measured, || measured.text())?;
    Ok(Verdict::Done)
}

/// What is trained.
struct Trained {
    decoder: Decoder,
    params: Params,
    objective: Method,
}

/// The model of the arguments, with registers beside it.
fn with_registers(arguments: &BenchStep) -> anyhow::Result<Trained> {
    let Trained { decoder, mut params, .. } = without_registers(arguments)?;
    let spec = RegistersSpec { density: arguments.registers, ..RegistersSpec::default() };
    let start = RegisterStart::Fresh { seed: SEED };
    let objective = Registers::attach(spec, &decoder, &mut params, start)?.into();
    Ok(Trained { decoder, params, objective })
}

/// The model of the arguments: the next token alone, or heads.
fn without_registers(arguments: &BenchStep) -> anyhow::Result<Trained> {
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
    Ok(Trained { decoder, params, objective })
}

/// A training whose steps are timed.
struct Timed {
    model: Trained,
    stepper: Stepper,
    batch: Batch,
    milliseconds: Vec<f64>,
    /// Of all processors together, in these steps; unknown on some systems.
    processor_seconds: Option<f64>,
    /// Of the last step, the sum over depths.
    loss: f64,
}

impl Timed {
    fn new(model: Trained, settings: &TrainSection, arguments: &BenchStep) -> Self {
        let rng = &mut seeded(SEED, TOKENS);
        let batch = random_batch(arguments.vocab, model.objective.lookahead(), arguments.batch, rng);
        let stepper = Stepper::new(&model.params, settings);
        Self { model, stepper, batch, milliseconds: Vec::new(), processor_seconds: Some(0.0), loss: 0.0 }
    }

    fn start_over(&mut self) {
        self.milliseconds.clear();
        self.processor_seconds = Some(0.0);
    }

    fn processor_ms_per_step(&self) -> Option<f64> {
        self.processor_seconds.map(|seconds| seconds * 1e3 / self.milliseconds.len() as f64)
    }

    fn step(&mut self, settings: &TrainSection) -> anyhow::Result<()> {
        let (start, used_before) = (Instant::now(), processor::seconds_used());
        let Trained { decoder, params, objective } = &mut self.model;
        let batches = std::slice::from_ref(&self.batch);
        let depths = objective.depths();
        let rate = settings.learning_rate;
        let report = self.stepper.update(params, decoder, &*objective, batches, depths, settings, rate)?;
        self.milliseconds.push(start.elapsed().as_secs_f64() * 1e3);
        let used = processor::seconds_used().zip(used_before).map(|(now, before)| now - before);
        self.processor_seconds = self.processor_seconds.zip(used).map(|(all, one)| all + one);
        self.loss = report.loss.iter().sum();
        Ok(())
    }
}

/// Steps with registers against those without.
#[derive(Serialize)]
struct Comparison {
    /// The median without registers.
    step_ms: f64,
    /// How many times as long a step with registers took as the one before it without: the median, and its quartiles.
    ratio: f64,
    ratio_low: f64,
    ratio_high: f64,
    /// The same of the time of processors, in all steps together.
    cpu_ratio: Option<f64>,
}

impl Comparison {
    fn of(with: &Timed, without: &Timed) -> Self {
        let pairs = with.milliseconds.iter().zip(&without.milliseconds);
        let mut ratios: Vec<f64> = pairs.map(|(with, without)| with / without).collect();
        ratios.sort_by(f64::total_cmp);
        let at = |share: usize| ratios[(ratios.len() * share / 4).min(ratios.len() - 1)];
        let [_, step_ms, _] = spread(&without.milliseconds);
        let used = with.processor_seconds.zip(without.processor_seconds);
        let cpu_ratio = used.map(|(with, without)| with / without);
        Self { step_ms, ratio: at(2), ratio_low: at(1), ratio_high: at(3), cpu_ratio }
    }
}

/// The smallest, the median and the largest.
fn spread(values: &[f64]) -> [f64; 3] {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    [values[0], values[values.len() / 2], values[values.len() - 1]]
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
        let memory = match (self.peak_rss_gb, &self.without_registers) {
            (Some(gb), _) => format!("{gb:.2} GB"),
            (None, None) => "unknown".to_owned(),
            (None, Some(_)) => "not told, two models are there".to_owned(),
        };
        let processors = self
            .cpu_ms_per_step
            .map_or("unknown".to_owned(), |ms| format!("{ms:.0} ms a step, all together"));
        let registers = self.without_registers.as_ref().map_or(String::new(), |without| {
            let processors =
                without.cpu_ratio.map_or(String::new(), |ratio| format!("; {ratio:.2} times in time of processors"));
            format!(
                "\nregisters     behind {:.0} % of the tokens: {:.2} times the step without, which takes {:.1} ms (half of {} pairs: \
                 {:.2} to {:.2}){processors}",
                self.registers * 100.0,
                without.ratio,
                without.step_ms,
                self.steps,
                without.ratio_low,
                without.ratio_high,
            )
        });
        format!(
            "{} parameters, {} heads ({}), vocabulary {}, {} products, {} threads\n\
             step          {:.1} ms (median of {}, {:.1} to {:.1}), {:.0} tokens/s\n\
             processors    {processors}\n\
             peak memory   {memory}\n\
             loss          {:.4} nats, the sum over depths\n\
             machine       {:.0} GFLOP/s f32, {:.1} GB/s read, measured afterwards{registers}",
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
