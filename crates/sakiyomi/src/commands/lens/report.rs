//! `sakiyomi lens report`: everything in one page, every figure also as SVG, JSON and CSV.

use anyhow::Context;
use lens::exit::Rule;
use lens::tokens::{later_choices, usual_margin};
use lens::{Look, look};
use report::{
    ExitFigures, InterventionFigures, LaterFigures, LensFigures, MOST_COLUMNS, OrderFigures, PermutedFigures,
    ProbeFigures, SettledText, SettledToken,
};
use serde::Serialize;

use super::arguments::{Exit, Intervene, Probe, Report as Arguments, Saturation};
use super::live::LiveFigures;
use super::lossless::LosslessFigures;
use super::saturation::Found;
use super::subject::{Model, Subject};
use super::{exit, intervene, probe, saturation};
use crate::commands::machine;
use crate::commands::new_folder::{NewFolder, absent};
use crate::failure::Verdict;
use crate::interrupt::end_at_once;
use crate::output::Output;

/// Beginnings that a decoder goes on from, where nothing else is asked for.
const LIVE: usize = 4;

/// Choices whose layers are shown below a token.
const SHOWN: usize = 5;

/// Tokens of each layer that a token shows.
const SHOWN_BY_LAYER: usize = 4;

#[derive(Serialize)]
struct Reported {
    page: String,
    files: usize,
    remarks: Vec<String>,
    figures: LensFigures,
}

/// What would be looked at.
#[derive(Serialize)]
struct Planned {
    folder: String,
    layers: usize,
    outputs: usize,
}

impl Planned {
    fn text(&self) -> String {
        let Self { folder, layers, outputs } = self;
        format!("would look into {layers} layers with {outputs} outputs and write {folder} (dry run)")
    }
}

pub fn run(arguments: &Arguments, threads: usize, output: Output) -> anyhow::Result<Verdict> {
    let out = &arguments.output;
    if arguments.dry_run {
        absent(out)?;
        end_at_once(output, None)?;
        let subject = Subject::load(&arguments.subject, arguments.subject.random_init, output)?;
        let sizes = subject.model.taps().sizes();
        let planned =
            Planned { folder: out.display().to_string(), layers: sizes.layers, outputs: sizes.outputs };
        output.result(&planned, || planned.text())?;
        return Ok(Verdict::Done);
    }
    // Before minutes of work: a place where nothing can be written is told at once.
    let written = NewFolder::begin(out, "--output")?;
    end_at_once(output, Some(written.path()))?;
    let figures = measure(arguments, threads, output)?;
    let mut files = 0;
    for (name, chart) in figures.charts() {
        fs_err::write(written.path().join(format!("{name}.svg")), chart.svg())?;
        fs_err::write(written.path().join(format!("{name}.json")), serde_json::to_string_pretty(&chart)?)?;
        fs_err::write(written.path().join(format!("{name}.csv")), chart.csv())?;
        files += 3;
    }
    let page = out.join("lens.html");
    fs_err::write(written.path().join("lens.html"), figures.page().html())?;
    written.finish()?;
    let reported = Reported {
        page: page.display().to_string(),
        files: files + 1,
        remarks: figures.remarks.clone(),
        figures,
    };
    output.result(&reported, || {
        let written = format!("wrote {} and {} files of its figures", reported.page, reported.files - 1);
        std::iter::once(written).chain(reported.remarks.iter().cloned()).collect::<Vec<_>>().join("\n")
    })?;
    Ok(Verdict::Done)
}

fn measure(arguments: &Arguments, threads: usize, output: Output) -> anyhow::Result<LensFigures> {
    let subject_arguments = &arguments.subject;
    let settings = Saturation {
        subject: subject_arguments.clone(),
        against_random: Some(arguments.against_random),
        permutations: lens::order::PERMUTATIONS,
    };
    let (measured, seen) = saturation::measure(&settings, output)?;
    let subject = Subject::load(subject_arguments, subject_arguments.random_init, output)?;
    let mut figures = LensFigures {
        subject: format!(
            "{}{}, a {} of {} layers with {} outputs, looking at {}.",
            measured.model,
            measured.random_init.map_or(String::new(), |seed| format!(" with random weights (seed {seed})")),
            measured.kind,
            measured.layers,
            measured.outputs,
            measured.data
        ),
        tokens: (measured.found.tokens, measured.found.tokens_in_cut),
        layers: measured.layers,
        orders: vec![order("the model", &measured.found), order("null model", &measured.null)],
        permuted: permuted(&measured.found),
        text: text(&subject, arguments, output)?,
        footer: format!("sakiyomi {}; {}", env!("CARGO_PKG_VERSION"), machine::line(threads)),
        ..LensFigures::default()
    };
    figures.orders.extend(measured.random.as_ref().map(|found| order("random weights", found)));
    figures.orders.extend(measured.heads.iter().flat_map(|head| {
        let name = format!("head {} ahead", head.depth);
        [order(&name, &head.found), order(&format!("null of {name}"), &head.null)]
    }));
    let mut left_out = |what: &str, error: anyhow::Error| {
        figures.remarks.push(format!("{what}: {}.", crate::failure::one_line(&error)));
    };
    let folder = data::temporary_folder()?;
    let file = folder.path().join("probe.json");
    let probing = Probe { subject: subject_arguments.clone(), save: None, first_layer: None };
    let mut kept_probe = None;
    match probe::measure(&subject, &probing, Some(&file), output) {
        Ok(found) => {
            figures.probe = Some(probe_figures(&found));
            kept_probe = Some(file);
        }
        Err(error) => left_out("The task probe", error),
    }
    let intervening = Intervene {
        subject: subject_arguments.clone(),
        pairs: arguments.pairs,
        gap: None,
        reach: None,
        probe: kept_probe.clone(),
    };
    match intervene::measure(&subject, &intervening, output) {
        Ok(found) => figures.intervention = found.response.iter().map(intervention).collect(),
        Err(error) => left_out("The intervention", error),
    }
    let mut live = arguments.live.clone();
    if let Model::Decoder(model) = &subject.model
        && live.prompt_tokens.saturating_add(live.new_tokens) <= model.decoder.config.context
    {
        live.live.get_or_insert(LIVE);
    }
    let leaving = Exit { subject: subject_arguments.clone(), probe: kept_probe, live };
    match exit::measure(&subject, &leaving, threads, output) {
        Ok(found) => {
            figures.exits = found
                .evaluations
                .iter()
                .map(exit_figures)
                .chain(found.live.iter().map(live_figures))
                .chain(found.lossless.iter().flat_map(|found| &found.drafted).map(lossless_figures))
                .collect();
        }
        Err(error) => left_out("Leaving early", error),
    }
    match later_choices(&seen, usual_margin(seen.layers)) {
        Ok(found) => figures.later = found.iter().map(later).collect(),
        Err(error) => left_out("Later choices", error.into()),
    }
    Ok(figures)
}

fn order(name: &str, found: &Found) -> OrderFigures {
    let rank = |mean: &lens::statistics::Mean| match mean.count {
        0 => (f64::NAN, f64::NAN),
        _ => (mean.mean, mean.standard_error),
    };
    let share =
        |counts: &Vec<usize>| counts.iter().map(|count| *count as f64 / found.tokens.max(1) as f64).collect();
    OrderFigures {
        name: name.to_owned(),
        mean_rank: found.order.mean_rank.iter().map(rank).collect(),
        tau: found.order.strict_tau.zip(found.order.p_value),
        saturating: found.saturating.clone(),
        by_layer: found.histogram.iter().map(share).collect(),
    }
}

fn permuted(found: &Found) -> Option<PermutedFigures> {
    let [low, _, high] = found.order.permuted?;
    Some(PermutedFigures {
        range: (low, high),
        counts: found.order.permuted_histogram.clone(),
        measured: found.order.strict_tau?,
    })
}

/// The beginning of the data, token by token.
fn text(subject: &Subject, arguments: &Arguments, output: Output) -> anyhow::Result<SettledText> {
    let taps = subject.model.taps();
    let choices = arguments.subject.choices.min(SHOWN);
    let mut shown = SettledText { layers: taps.sizes().layers, tokens: Vec::new() };
    let bounded = super::arguments::Subject { tokens: MOST_COLUMNS, ..arguments.subject.clone() };
    subject
        .with_items(
            &bounded,
            &mut |items, _| {
                let mut left = MOST_COLUMNS;
                let mut kept = Vec::new();
                for item in items {
                    let mut item = item?;
                    item.read.truncate(left);
                    item.targets.truncate(left);
                    left -= item.read.len();
                    kept.push(item);
                    if left == 0 {
                        break;
                    }
                }
                let names: Vec<String> = kept.iter().flat_map(|item| subject.row_names(item)).collect();
                let mut all = kept.into_iter().map(Ok);
                look(taps, &mut all, Look { choices, states: false }, &mut |seen| {
                    for row in 0..seen.places.len() {
                        let top = seen.top_of(row);
                        let settled = lens::saturation::saturation_layers(top, seen.layers, choices);
                        let layer = |tops: &[u32]| {
                            tops.iter()
                                .take(SHOWN_BY_LAYER)
                                .map(|output| subject.output_name(*output))
                                .collect()
                        };
                        shown.tokens.push(SettledToken {
                            text: names.get(shown.tokens.len()).cloned().unwrap_or_default(),
                            settled: settled[..choices].iter().map(|layer| usize::from(*layer)).collect(),
                            lens: top.chunks(choices).map(layer).collect(),
                        });
                    }
                    Ok(())
                })
                .map(|_| ())
            },
            output,
        )
        .context("reading a piece of the data to show")?;
    Ok(shown)
}

fn probe_figures(found: &probe::Figures) -> ProbeFigures {
    let probed = &found.probed;
    let accuracy =
        |name: &str, judgement: &lens::probe::Judgement| (name.to_owned(), judgement.balanced_accuracy);
    ProbeFigures {
        accuracies: vec![
            accuracy("by text", &probed.grouped),
            accuracy("shuffled", &probed.shuffled),
            accuracy("noise", &probed.noise),
            accuracy("layer alone", &probed.layer_only),
        ],
        chance: probed.chance,
        confusion: probed.grouped.confusion.clone(),
        auc: probed.grouped.auc.clone(),
    }
}

fn intervention(at: &lens::intervene::AtDelta) -> InterventionFigures {
    InterventionFigures {
        delta: at.delta,
        switched: [at.injected.switched, at.control.switched, at.untouched.switched],
        second_earlier: [at.injected.second_earlier, at.control.second_earlier],
        probe: [at.injected.probe_settled, at.control.probe_settled, at.untouched.probe_settled],
    }
}

fn family(rule: Rule) -> (&'static str, Option<f64>) {
    match rule {
        Rule::Full => ("all layers", None),
        Rule::Oracle => ("oracle", None),
        Rule::Probe => ("probe", None),
        Rule::Response(threshold) => ("softmax response", Some(threshold)),
        Rule::Likeness(threshold) => ("state saturation", Some(threshold)),
    }
}

fn exit_figures(found: &lens::exit::Evaluation) -> ExitFigures {
    let (family, threshold) = family(found.rule);
    ExitFigures {
        family: family.to_owned(),
        threshold,
        speedup: (Some(found.layer_speedup), found.work_speedup),
        accuracy: found.accuracy.unwrap_or(found.agreement),
        live: false,
        ..ExitFigures::default()
    }
}

/// What text that skipped layers is worth: the whole model's opinion of it.
fn live_figures(found: &LiveFigures) -> ExitFigures {
    let (family, threshold) = family(found.rule);
    ExitFigures {
        family: family.to_owned(),
        threshold,
        speedup: (Some(found.layer_speedup), found.speedup.median),
        accuracy: found.agreement,
        live: true,
        ..ExitFigures::default()
    }
}

/// The text is the whole model's own, so that it is all right.
fn lossless_figures(found: &LosslessFigures) -> ExitFigures {
    ExitFigures {
        family: "lossless draft".to_owned(),
        how: exit::drafting(found),
        speedup: (None, found.speedup.median),
        accuracy: f64::from(u8::from(found.identical)),
        live: true,
        ..ExitFigures::default()
    }
}

fn later(found: &lens::tokens::LaterChoice) -> LaterFigures {
    LaterFigures {
        choice: found.choice,
        early: (found.early.share, found.early.rows),
        late: (found.late.share, found.late.rows),
        test: found.z_test.map(|test| (test.statistic, test.p_value)),
    }
}
