//! Results side by side: means over seeds as text, CSV and a page.

use std::path::{Path, PathBuf};

use comfy_table::{CellAlignment, Table, presets};
use report::{Estimate, SweepFigures, VariantFigures};

use super::result::RunResult;
use super::{Failure, command};
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
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    SweepFigures {
        title: title.to_owned(),
        about: about.to_owned(),
        command: command(sweep),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        machine: machine::line(threads),
        variants: groups.iter().map(|group| variant(group)).collect(),
        failures: failures.iter().map(|failure| (failure.run.clone(), failure.reason.clone())).collect(),
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
        loss: list(&|run| run.held_out.loss.clone()),
        bits_per_byte: list(&RunResult::bits_per_byte),
        accuracy: list(&|run| run.held_out.accuracy.clone()),
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
    let first =
        |list: &[Estimate]| list.first().map_or("-".to_owned(), |first| first.shown(|v| format!("{v:.3}")));
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
            first(variant.answers.as_slice()),
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
    run: &'a RunResult,
    /// What was decoded how, and the gain in tokens per forward as a share.
    gains: Vec<(&'static str, decode::Estimate)>,
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
    runs_csv(&written.runs, results, gains, failures)?;
    summary_csv(&written.summary, &figures.variants)?;
    data::write_whole(&written.page, figures.page().html().as_bytes())?;
    Ok(written)
}

/// A named value of a row; an empty one was not measured.
type Field = (String, String);

fn runs_csv(file: &Path, results: &[RunResult], gains: &[Gain], failures: &[Failure]) -> anyhow::Result<()> {
    let row = |run: &RunResult| {
        let mut fields = run_fields(run);
        let of_run = gains.iter().filter(|gain| gain.run.place == run.place).flat_map(|gain| &gain.gains);
        for (name, gain) in of_run {
            for (part, value) in [("", gain.value), ("_low", gain.low), ("_high", gain.high)] {
                fields.push((format!("{name}_gain{part}"), value.to_string()));
            }
        }
        fields
    };
    let mut rows: Vec<Vec<Field>> = results.iter().map(row).collect();
    rows.extend(failures.iter().map(|failure| {
        vec![("run".to_owned(), failure.run.clone()), ("failed".to_owned(), failure.reason.clone())]
    }));
    write_csv(file, &rows)
}

fn run_fields(run: &RunResult) -> Vec<Field> {
    let mut fields = vec![("run".to_owned(), run.place.name()), ("failed".to_owned(), String::new())];
    fields.extend(run.place.choices.iter().map(|(axis, choice)| (axis.clone(), choice.clone())));
    let mut add = |name: &str, value: String| fields.push((name.to_owned(), value));
    add("seed", run.place.seed.to_string());
    add("depths", run.n.to_string());
    add("trunk_parameters", run.trunk_parameters.to_string());
    add("head_parameters", run.head_parameters.to_string());
    add("steps", run.steps.to_string());
    add("tokens_seen", run.tokens.to_string());
    add("training_seconds", run.training_seconds.to_string());
    add("training_tokens_per_s", run.tokens_per_s().to_string());
    add("peak_memory_bytes", run.peak_memory_bytes.map_or(String::new(), |bytes| bytes.to_string()));
    if let Some(joint) = run.held_out.joint_loss {
        add("joint_loss", joint.to_string());
    }
    if let Some(answers) = run.answers() {
        add("answers", answers.to_string());
    }
    let mut list = |name: &str, values: Vec<f64>| {
        let numbered = values.iter().enumerate();
        fields.extend(numbered.map(|(index, value)| (format!("{name}_{}", index + 1), value.to_string())));
    };
    list("loss", run.held_out.loss.clone());
    list("bits_per_byte", run.bits_per_byte());
    list("accuracy", run.held_out.accuracy.clone());
    list("usage", run.held_out.usage.clone());
    list("targets", run.held_out.targets.iter().map(|&targets| targets as f64).collect());
    let Some(decoding) = &run.decoding else { return fields };
    let lengths = &decoding.lengths;
    list("tokens_per_forward", lengths.iter().map(|length| length.tokens_per_forward).collect());
    list("speedup", lengths.iter().map(|length| length.speedup).collect());
    list("ms_per_round", lengths.iter().map(|length| length.ms_per_round).collect());
    list("tokens_per_s", lengths.iter().map(|length| length.tokens_per_s).collect());
    list("drafted", decoding.depths.iter().map(|depth| depth.drafted as f64).collect());
    list("accepted", decoding.depths.iter().map(|depth| depth.accepted as f64).collect());
    for (manner, acceptance) in [("greedy", &decoding.greedy), ("sampled", &decoding.sampled)] {
        let Some(acceptance) = acceptance else { continue };
        let decode::Estimate { value, low, high } = acceptance.tokens_per_forward;
        for (name, value) in [("", value), ("_low", low), ("_high", high)] {
            fields.push((format!("{manner}_tokens_per_forward{name}"), value.to_string()));
        }
        let depths = acceptance.depths.iter().enumerate();
        for (index, depth) in depths {
            fields.push((format!("{manner}_acceptance_{}", index + 1), depth.observed.value.to_string()));
            fields.push((format!("{manner}_expected_{}", index + 1), depth.expected.to_string()));
        }
    }
    fields.push(("plain_tokens_per_s".to_owned(), decoding.plain_tokens_per_s.to_string()));
    fields.push(("prompts".to_owned(), decoding.prompts.to_string()));
    fields.push(("identical".to_owned(), decoding.identical.map_or(String::new(), |same| same.to_string())));
    fields
}

fn summary_csv(file: &Path, variants: &[VariantFigures]) -> anyhow::Result<()> {
    write_csv(file, &variants.iter().map(variant_fields).collect::<Vec<_>>())
}

fn variant_fields(variant: &VariantFigures) -> Vec<Field> {
    let mut fields = vec![("variant".to_owned(), variant.name())];
    fields.extend(variant.choices.iter().cloned());
    fields.push(("seeds".to_owned(), variant.seeds.to_string()));
    let mut add = |name: String, estimate: &Estimate| {
        let deviation = estimate.deviation.map_or(String::new(), |deviation| deviation.to_string());
        fields
            .extend([(format!("{name}_mean"), estimate.mean.to_string()), (format!("{name}_sd"), deviation)]);
    };
    for (name, estimate) in [
        ("parameters", Some(&variant.parameters)),
        ("steps", Some(&variant.steps)),
        ("tokens_seen", Some(&variant.tokens)),
        ("training_seconds", Some(&variant.training_seconds)),
        ("training_tokens_per_s", Some(&variant.tokens_per_second)),
        ("peak_memory_bytes", variant.peak_memory_bytes.as_ref()),
        ("answers", variant.answers.as_ref()),
        ("plain_tokens_per_s", variant.plain_tokens_per_second.as_ref()),
    ] {
        estimate.iter().for_each(|estimate| add(name.to_owned(), estimate));
    }
    for (name, list) in [
        ("loss", &variant.loss),
        ("bits_per_byte", &variant.bits_per_byte),
        ("accuracy", &variant.accuracy),
        ("tokens_per_forward", &variant.tokens_per_forward),
        ("speedup", &variant.speedup),
        ("acceptance", &variant.acceptance),
    ] {
        list.iter().enumerate().for_each(|(index, estimate)| add(format!("{name}_{}", index + 1), estimate));
    }
    fields.push(("identical".to_owned(), variant.identical.map_or(String::new(), |same| same.to_string())));
    fields
}

/// One column for every name that occurs; a name that a longer row brings stands behind the one before it there.
fn write_csv(file: &Path, rows: &[Vec<Field>]) -> anyhow::Result<()> {
    let mut columns: Vec<&str> = Vec::new();
    for row in rows {
        let mut place = 0;
        for (name, _) in row {
            place = match columns.iter().position(|column| column == name) {
                Some(found) => found + 1,
                None => {
                    columns.insert(place, name);
                    place + 1
                }
            };
        }
    }
    let mut writer = csv::Writer::from_writer(Vec::new());
    if !columns.is_empty() {
        writer.write_record(&columns)?;
    }
    for row in rows {
        let cell = |column: &&str| row.iter().find(|(name, _)| name == column).map_or("", |(_, value)| value);
        writer.write_record(columns.iter().map(cell))?;
    }
    Ok(data::write_whole(file, &writer.into_inner()?)?)
}
