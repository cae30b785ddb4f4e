//! `sakiyomi bench`: speed end to end, plain and with drafts in turn; in its verbs, the speed of parts.

mod decode_cost;
mod step;

use comfy_table::{CellAlignment, Table, presets};
use decode::{
    Acceptance, DecodeSettings, Estimate, MeasureSettings, Measurement, SamplingSettings, Speed, acceptance,
    measure,
};
use objective::JointKind;
use serde::Serialize;

use super::checkpoint::Loaded;
use super::limits::{REPEATS, within};
use super::round_costs;
use crate::arguments::{Bench, BenchPart};
use crate::failure::Verdict;
use crate::output::Output;
use crate::progress::Counter;

#[derive(Serialize)]
struct Benched {
    weights: &'static str,
    force_acceptance: Option<f64>,
    read_gb_per_s_before: f64,
    plain_tokens_per_s: f64,
    bare_tokens_per_s: f64,
    plain_over_bare: f64,
    best_draft_length: usize,
    tokens_per_forward: Option<f64>,
    speedup: f64,
    measurement: Measurement,
    /// With drafts of the greatest length, at each temperature.
    acceptance: Vec<Acceptance>,
}

/// Bytes of the bandwidth probe beside the figures.
const PROBE_BYTES: usize = 128 << 20;

pub fn run(arguments: &Bench, threads: usize, output: Output) -> anyhow::Result<Verdict> {
    let checkpoint = match (&arguments.part, &arguments.checkpoint) {
        (Some(BenchPart::Step(step)), _) => return step::run(step, threads, output),
        (Some(BenchPart::Decode(decode)), _) => return decode_cost::run(decode, threads, output),
        (None, Some(checkpoint)) => checkpoint,
        (None, None) => anyhow::bail!("give a checkpoint folder or a verb"),
    };
    within("--repeats", arguments.repeats, REPEATS)?;
    let loaded = Loaded::read_as(&arguments.packing, checkpoint, threads)?.with_exit(
        arguments.draft,
        &arguments.exit,
        checkpoint,
    )?;
    let prompts = arguments.prompts.read(&loaded)?;
    // A round that is taken to be right may go beyond what was asked for.
    let beyond = loaded.longest_draft(arguments.draft)? + 1;
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    let longest = longest.saturating_add(arguments.prompts.max_new_tokens).saturating_add(beyond);
    let mut target = loaded.target_drafting(longest, arguments.draft)?;
    let sampling = |temperature| SamplingSettings { temperature, ..SamplingSettings::default() };
    arguments.temperature.iter().try_for_each(|temperature| sampling(*temperature).validate())?;
    let settings = MeasureSettings {
        decoding: DecodeSettings {
            max_new_tokens: arguments.prompts.max_new_tokens,
            end_tokens: if arguments.ignore_end { Vec::new() } else { loaded.end_tokens() },
            sampling: sampling(arguments.temperature.first().copied().unwrap_or_default()),
            draft_length: target.longest_draft(),
        },
        draft_lengths: (1..=target.longest_draft()).collect(),
        repeats: arguments.repeats,
        force_acceptance: arguments.force_acceptance,
        auto: match arguments.force_acceptance {
            Some(_) => None,
            None => {
                let drafts = format!("{:?}", arguments.draft);
                let positions = round_costs::positions(target.longest_draft());
                let mut measured = loaded.target_drafting(positions, arguments.draft)?;
                round_costs::policy(&loaded, &drafts, &mut measured, threads, output)?
            }
        },
    };
    let bandwidth = kernels::bandwidth::measure_read_bandwidth(threads, PROBE_BYTES, 3) / 1e9;
    let mut counter = None;
    let measurement = measure(&mut target, &prompts, &settings, &mut |done, of| {
        counter.get_or_insert_with(|| Counter::new("measuring", of)).set(done, output, String::new);
    })?;
    counter.iter().for_each(Counter::finish);
    let mut reached = Vec::new();
    if target.longest_draft() > 0 {
        for temperature in &arguments.temperature {
            let decoding = DecodeSettings { sampling: sampling(*temperature), ..settings.decoding.clone() };
            reached.push(acceptance(&mut target, &prompts, &decoding)?);
        }
    }
    let fastest =
        measurement.drafted.iter().max_by(|a, b| a.speed.speedup.median.total_cmp(&b.speed.speedup.median));
    let benched = Benched {
        weights: loaded.weight_type().name(),
        force_acceptance: arguments.force_acceptance,
        read_gb_per_s_before: bandwidth,
        plain_tokens_per_s: measurement.plain.tokens_per_s.median,
        bare_tokens_per_s: measurement.bare.tokens_per_s.median,
        plain_over_bare: 1.0 / measurement.bare.speedup.median,
        best_draft_length: fastest.map_or(0, |drafted| drafted.draft_length),
        tokens_per_forward: fastest.and_then(|drafted| drafted.speed.statistics.tokens_per_forward()),
        speedup: fastest.map_or(1.0, |drafted| drafted.speed.speedup.median),
        measurement,
        acceptance: reached,
    };
    output.result(&benched, || benched.text())?;
    Ok(Verdict::Done)
}

/// By its name among the arguments.
fn joint_kind(name: &str) -> JointKind {
    if name == "tree" { JointKind::Tree } else { JointKind::Cp }
}

impl Benched {
    fn text(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY);
        table.set_header([
            "draft",
            "tokens/s",
            "lowest to highest",
            "tokens/forward",
            "cost of a round",
            "speedup",
        ]);
        let mut add = |name: String, speed: &Speed, cost: String| {
            table.add_row([
                name,
                format!("{:.0}", speed.tokens_per_s.median),
                format!("{:.0} to {:.0}", speed.tokens_per_s.lowest, speed.tokens_per_s.highest),
                format!("{:.2}", speed.statistics.tokens_per_forward().unwrap_or(1.0)),
                cost,
                format!("{:.2}", speed.speedup.median),
            ]);
        };
        add("bare loop".to_owned(), &self.measurement.bare, "-".to_owned());
        add("none".to_owned(), &self.measurement.plain, "1.00".to_owned());
        for drafted in &self.measurement.drafted {
            let cost = format!("{:.2}", drafted.round_cost.median);
            add(format!("{} tokens", drafted.draft_length), &drafted.speed, cost);
        }
        if let Some(auto) = &self.measurement.auto {
            add("auto".to_owned(), auto, "-".to_owned());
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        format!(
            "{} prompts, {} repeats in turn, {} weights, memory read at {:.1} GB/s before\n{table}{}",
            self.measurement.prompts,
            self.measurement.repeats,
            self.weights,
            self.read_gb_per_s_before,
            self.acceptance.iter().map(accepted).collect::<String>()
        )
    }
}

/// One line of each depth would be too many: observed share, its interval, and what was expected.
fn accepted(acceptance: &Acceptance) -> String {
    let depth = |depth: &decode::DepthAcceptance| {
        let Estimate { value, low, high } = depth.observed;
        format!("{value:.3} [{low:.3}, {high:.3}] ({:.3})", depth.expected)
    };
    let depths: Vec<String> = acceptance.depths.iter().map(depth).collect();
    let Estimate { value, low, high } = acceptance.tokens_per_forward;
    let repeated = acceptance.repeated.map_or(String::new(), |share| {
        format!("; {:.0} % of the text repeats itself (spans of 16 tokens)", share * 100.0)
    });
    format!(
        "\ntemperature {}: {value:.3} tokens per forward [{low:.3}, {high:.3}]; acceptance per depth, 95 % interval, expected: {}{repeated}",
        acceptance.temperature,
        depths.join(", ")
    )
}
