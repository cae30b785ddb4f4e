//! Results side by side: means over seeds as text and a page.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use comfy_table::{CellAlignment, Table, presets};
use report::{Estimate, SweepFigures, VariantFigures};

use super::result::RunResult;
use super::{Failure, command, csv_files};
use crate::arguments::Sweep;
use crate::commands::machine;

/// Files that were written.
pub struct Written {
    /// One row per run.
    pub runs: PathBuf,
    /// One row per variant.
    pub summary: PathBuf,
    /// The page.
    pub page: PathBuf,
}

/// The results, averaged over seeds.
pub fn figures(
    title: &str,
    about: &str,
    sweep: &Sweep,
    results: &[RunResult],
    failures: &[Failure],
) -> SweepFigures {
    let mut groups: Vec<Vec<&RunResult>> = Vec::new();
    for result in results {
        match groups.iter_mut().find(|group| group[0].place.choices == result.place.choices) {
            Some(group) => group.push(result),
            None => groups.push(vec![result]),
        }
    }
    SweepFigures {
        title: title.to_owned(),
        about: about.to_owned(),
        command: command(sweep),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        machine: machine_line(results),
        variants: groups.iter().map(|group| variant(group)).collect(),
        failures: failures.iter().map(|failure| (failure.run.clone(), failure.reason.clone())).collect(),
    }
}

/// The machine and the threads that the runs used; empty where no run tells.
fn machine_line(results: &[RunResult]) -> String {
    let threads: BTreeSet<usize> =
        results.iter().map(|run| run.threads).filter(|&threads| threads > 0).collect();
    let Some(&most) = threads.last() else { return String::new() };
    let line = machine::line(most);
    match threads.len() {
        1 => line,
        _ => format!("{line}; not every run used {most} threads, runs.csv tells how many"),
    }
}

fn variant(runs: &[&RunResult]) -> VariantFigures {
    let mean = |value: &dyn Fn(&RunResult) -> f64| {
        let values: Vec<f64> = runs.iter().map(|run| value(run)).collect();
        Estimate::of(&values).unwrap_or_default()
    };
    // Over the runs that have the value.
    let some = |value: &dyn Fn(&RunResult) -> Option<f64>| {
        let values: Vec<f64> = runs.iter().filter_map(|run| value(run)).collect();
        Estimate::of(&values)
    };
    let list = |values: &dyn Fn(&RunResult) -> Vec<f64>| -> Vec<Estimate> {
        (0..).map_while(|index| some(&|run| values(run).get(index).copied())).collect()
    };
    // At each depth over the runs that predicted something there.
    let depths = |values: &dyn Fn(&RunResult) -> Vec<Option<f64>>| -> Vec<Option<Estimate>> {
        let deepest = runs.iter().map(|run| values(run).len()).max().unwrap_or(0);
        (0..deepest).map(|index| some(&|run| values(run).get(index).copied().flatten())).collect()
    };
    let lengths = |value: &'static dyn Fn(&super::result::LengthResult) -> f64| {
        list(&|run| run.decoding.iter().flat_map(|decoding| &decoding.lengths).map(value).collect())
    };
    let compared: Vec<bool> =
        runs.iter().filter_map(|run| run.decoding.as_ref().and_then(|decoding| decoding.identical)).collect();
    VariantFigures {
        choices: runs[0].place.choices.clone(),
        seeds: runs.len(),
        parameters: mean(&|run| (run.trunk_parameters + run.head_parameters) as f64),
        steps: mean(&|run| run.steps as f64),
        tokens: mean(&|run| run.tokens as f64),
        training_seconds: mean(&|run| run.training_seconds),
        tokens_per_second: mean(&RunResult::tokens_per_s),
        peak_memory_bytes: some(&|run| run.peak_memory_bytes.map(|bytes| bytes as f64)),
        tokens_ahead: runs[0].tokens_ahead.clone(),
        loss: depths(&RunResult::loss),
        bits_per_byte: depths(&RunResult::bits_per_byte),
        accuracy: depths(&RunResult::accuracy),
        answers: some(&RunResult::answers),
        plain_tokens_per_second: some(&|run| Some(run.decoding.as_ref()?.plain_tokens_per_s)),
        tokens_per_forward: lengths(&|length| length.tokens_per_forward),
        speedup: lengths(&|length| length.speedup),
        // A depth that no round reached is not 0.
        acceptance: list(&|run| {
            run.decoding
                .iter()
                .flat_map(|decoding| &decoding.depths)
                .map_while(|depth| depth.acceptance())
                .collect()
        }),
        identical: (!compared.is_empty()).then(|| compared.iter().all(|&same| same)),
    }
}

/// The variants for a terminal.
pub fn text(variants: &[VariantFigures]) -> String {
    if variants.is_empty() {
        return String::new();
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header([
        "variant",
        "seeds",
        "parameters",
        "tokens",
        "train s",
        "nats",
        "bits/byte",
        "answers",
        "tokens/forward",
        "speedup",
        "text",
    ]);
    let thousandths = |estimate: Option<Estimate>| {
        estimate.map_or("-".to_owned(), |estimate| estimate.shown(|v| format!("{v:.3}")))
    };
    let first = |list: &[Option<Estimate>]| thousandths(list.first().copied().flatten());
    let best = |best: Option<(usize, Estimate)>| {
        best.map_or("-".to_owned(), |(length, best)| {
            format!("{} ({length})", best.shown(|v| format!("{v:.2}")))
        })
    };
    for variant in variants {
        table.add_row([
            variant.name(),
            variant.seeds.to_string(),
            format!("{:.2}M", variant.parameters.mean / 1e6),
            format!("{:.2}M", variant.tokens.mean / 1e6),
            format!("{:.0}", variant.training_seconds.mean),
            first(&variant.loss),
            first(&variant.bits_per_byte),
            thousandths(variant.answers),
            best(variant.most_tokens_per_forward()),
            best(variant.best_speedup()),
            variant.identical.map_or("-", |same| if same { "identical" } else { "DIFFERS" }).to_owned(),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{table}\nmean ± standard deviation over seeds; in brackets the best draft length\n")
}

/// By how much a run's drafts reach farther than those of the baseline.
pub struct Gain<'a> {
    /// The run.
    pub run: &'a RunResult,
    /// What was decoded how, and the gain in tokens per forward as a share.
    pub gains: Vec<(&'static str, decode::Estimate)>,
}

/// Every run that decoded, against the run that differs from it in one axis only, where it is `baseline` (`axis=choice`).
pub fn gains<'a>(baseline: &str, results: &'a [RunResult]) -> Vec<Gain<'a>> {
    let Some((axis, choice)) = baseline.split_once('=') else { return Vec::new() };
    let baseline = (axis.to_owned(), choice.to_owned());
    let is_baseline = |run: &&RunResult| run.place.choices.contains(&baseline);
    // All but the axis is the same.
    let beside = |run: &RunResult| {
        let others = run.place.choices.iter().filter(|(name, _)| name != axis).cloned();
        (others.collect::<Vec<_>>(), run.place.seed)
    };
    let gain = |run: &'a RunResult| {
        let base = results.iter().filter(is_baseline).find(|base| beside(base) == beside(run))?;
        let (ours, theirs) = (run.decoding.as_ref()?, base.decoding.as_ref()?);
        let of = |name, ours: &Option<decode::Acceptance>, theirs: &Option<decode::Acceptance>| {
            let gain = decode::paired_gain(&ours.as_ref()?.requests, &theirs.as_ref()?.requests)?;
            Some((name, gain))
        };
        let gains =
            [of("greedy", &ours.greedy, &theirs.greedy), of("sampled", &ours.sampled, &theirs.sampled)];
        Some(Gain { run, gains: gains.into_iter().flatten().collect() })
    };
    let others = results.iter().filter(|run| !is_baseline(run));
    others.filter_map(gain).filter(|gain| !gain.gains.is_empty()).collect()
}

/// The gains for a terminal.
pub fn gains_text(baseline: &str, gains: &[Gain]) -> String {
    let percent = |share: f64| format!("{:+.1}", 100.0 * share);
    let line = |gain: &Gain| {
        let told = gain.gains.iter().map(|(name, of)| {
            format!("{name} {} % ({} to {})", percent(of.value), percent(of.low), percent(of.high))
        });
        format!("  {}: {}\n", gain.run.place.name(), told.collect::<Vec<_>>().join(", "))
    };
    match gains {
        [] => String::new(),
        _ => format!(
            "tokens per forward against {baseline}, longest drafts, 95 % intervals over prompts (paired bootstrap):\n{}",
            gains.iter().map(line).collect::<String>()
        ),
    }
}

/// Writes `runs.csv`, `summary.csv` and `report.html`.
pub fn write(
    folder: &Path,
    figures: &SweepFigures,
    results: &[RunResult],
    gains: &[Gain],
    failures: &[Failure],
) -> anyhow::Result<Written> {
    let written = Written {
        runs: folder.join("runs.csv"),
        summary: folder.join("summary.csv"),
        page: folder.join("report.html"),
    };
    csv_files::runs(&written.runs, results, gains, failures)?;
    csv_files::summary(&written.summary, &figures.variants)?;
    data::write_whole(&written.page, figures.page().html().as_bytes())?;
    Ok(written)
}

#[cfg(test)]
mod tests {
    use train::Evaluation;

    use super::*;
    use crate::commands::sweep::file::MeasureSpec;
    use crate::commands::sweep::grid::Place;

    /// The next token at a loss of 4, and registers with offsets 1, 5 and 9; `None`: no target.
    fn run(seed: u64, threads: usize, losses: [Option<f64>; 3]) -> RunResult {
        let all: Vec<Option<f64>> = std::iter::once(Some(4.0)).chain(losses).collect();
        // As the trainer leaves them: 0 without a target.
        let or_zero = |scale: f64| all.iter().map(|loss| loss.map_or(0.0, |loss| loss * scale)).collect();
        RunResult {
            place: Place { choices: vec![("m".to_owned(), "registers".to_owned())], seed },
            fingerprint: String::new(),
            measure: MeasureSpec::default(),
            n: 4,
            tokens_ahead: vec![1, 1, 5, 9],
            threads,
            trunk_parameters: 1,
            head_parameters: 1,
            steps: 1,
            tokens: 1,
            training_seconds: 1.0,
            peak_memory_bytes: None,
            held_out: Evaluation {
                loss: or_zero(1.0),
                accuracy: or_zero(0.1),
                targets: all.iter().map(|loss| if loss.is_some() { 7 } else { 0 }).collect(),
                bits_per_byte: 8.0,
                answers: None,
                joint_loss: None,
                usage: Vec::new(),
            },
            decoding: None,
        }
    }

    #[test]
    fn means_are_over_the_seeds_that_have_targets() {
        let runs = [run(1, 1, [Some(5.0), Some(6.0), None]), run(2, 1, [Some(3.0), None, None])];
        let variant = variant(&[&runs[0], &runs[1]]);
        let means = |list: &[Option<Estimate>]| -> Vec<Option<f64>> {
            list.iter().map(|estimate| estimate.map(|estimate| estimate.mean)).collect()
        };
        assert_eq!(means(&variant.loss), [Some(4.0), Some(4.0), Some(6.0), None]);
        assert_eq!(means(&variant.bits_per_byte), [Some(8.0), Some(8.0), Some(12.0), None]);
        assert_eq!(variant.accuracy[3], None);
        assert_eq!(variant.loss[2].and_then(|loss| loss.deviation), None, "one seed has no spread");
    }

    #[test]
    fn the_machine_is_told_with_the_threads_of_the_runs() {
        let of = |threads: &[usize]| {
            let runs: Vec<RunResult> =
                threads.iter().map(|&threads| run(1, threads, [None, None, None])).collect();
            machine_line(&runs)
        };
        assert!(of(&[977, 977]).contains(" 977 used"));
        assert!(of(&[3, 977]).ends_with("not every run used 977 threads, runs.csv tells how many"));
        assert_eq!([of(&[]), of(&[0])], ["", ""]);
    }
}
