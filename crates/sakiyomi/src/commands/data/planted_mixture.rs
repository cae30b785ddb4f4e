//! `sakiyomi data generate planted-mixture`: sequences whose joint distribution is known, and what each rank can reach.

use data::planted_mixture::{COMPONENTS, PLACES, PlantedMixture as Mixture};
use data::random::Random;
use serde::Serialize;

use crate::arguments::PlantedMixture;
use crate::commands::new_folder::NewFolder;
use crate::failure::Verdict;
use crate::interrupt::end_at_once;
use crate::output::Output;

/// More sequences than any run reads.
const MOST_SEQUENCES: usize = 10_000_000;

const MOST_RESTARTS: usize = 10_000;

/// Purposes of the random streams.
const TRAINING: u64 = 42;
const HELD_OUT: u64 = 43;

/// What a model can reach, in nats.
#[derive(Serialize)]
struct Optimum {
    folder: String,
    seed: u64,
    /// Of a sequence.
    entropy: f64,
    /// Of its first token.
    first_token: f64,
    /// Mean negative log-likelihood of the held-out sequences under the mixture itself: what a perfect model has there.
    held_out: f64,
    /// How many these are.
    held_out_sequences: usize,
    /// By how much the best mixture of rank 1, 2, ... misses the entropy.
    gap: Vec<f64>,
}

pub fn planted_mixture(arguments: &PlantedMixture, output: Output) -> anyhow::Result<Verdict> {
    let folder = arguments.output.as_path();
    for (flag, count, most) in [
        ("--train", arguments.train, MOST_SEQUENCES),
        ("--held-out", arguments.held_out, MOST_SEQUENCES),
        ("--restarts", arguments.restarts, MOST_RESTARTS),
    ] {
        anyhow::ensure!(count > 0 && count <= most, "{flag} {count}: give 1 to {most}");
    }
    let partial = NewFolder::begin(folder, "--output")?;
    end_at_once(output, Some(partial.path()))?;
    let mixture = Mixture::new(arguments.seed);
    let gap = (1..=COMPONENTS).map(|rank| mixture.gap(rank, arguments.restarts)).collect();
    let draw = |count: usize, stream: u64| {
        let mut random = Random::new(arguments.seed, stream);
        (0..count).map(|_| mixture.draw(&mut random)).collect::<Vec<[usize; PLACES]>>()
    };
    let (training, held_out) = (draw(arguments.train, TRAINING), draw(arguments.held_out, HELD_OUT));
    let nats: f64 = held_out.iter().map(|symbols| -mixture.probability(*symbols).ln()).sum();
    let optimum = Optimum {
        folder: folder.display().to_string(),
        seed: arguments.seed,
        entropy: mixture.entropy(),
        first_token: mixture.first_entropy(),
        held_out: nats / held_out.len() as f64,
        held_out_sequences: held_out.len(),
        gap,
    };
    write(partial, &training, &held_out, &optimum)?;
    output.result(&optimum, || {
        let gaps: Vec<String> = optimum.gap.iter().map(|gap| format!("{gap:.4}")).collect();
        format!(
            "wrote {} sequences to train on and {} to measure on into {}\nbest joint loss {:.4} nats ({:.4} on what is held out), \
             first token {:.4}\nmissed by rank 1, 2, ...: {} nats",
            training.len(),
            held_out.len(),
            optimum.folder,
            optimum.entropy,
            optimum.held_out,
            optimum.first_token,
            gaps.join(", ")
        )
    })?;
    Ok(Verdict::Done)
}

/// Whole or not at all.
fn write(
    partial: NewFolder,
    training: &[[usize; PLACES]],
    held_out: &[[usize; PLACES]],
    optimum: &Optimum,
) -> anyhow::Result<()> {
    for (name, sequences) in [("train.jsonl", training), ("held-out.jsonl", held_out)] {
        let line = |symbols: &[usize; PLACES]| format!("{{\"text\":\"{}\"}}\n", Mixture::text(*symbols));
        fs_err::write(partial.path().join(name), sequences.iter().map(line).collect::<String>())?;
    }
    fs_err::write(partial.path().join("optimum.json"), serde_json::to_vec_pretty(optimum)?)?;
    partial.finish()
}
