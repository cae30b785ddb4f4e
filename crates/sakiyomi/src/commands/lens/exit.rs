//! `sakiyomi lens exit`: what leaving early costs and saves.

use decode::Spread;
use lens::exit::monitor::Action;
use lens::exit::{Evaluation, Exits, Rule, Work};
use lens::probe::Probe;
use serde::Serialize;
use train::events::EventWriter;

use super::arguments::Exit as Arguments;
use super::live::{self, LiveFigures};
use super::lossless::{self, Lossless, LosslessFigures};
use super::subject::Subject;
use crate::failure::Verdict;
use crate::interrupt::end_at_once;
use crate::output::Output;

#[derive(Serialize)]
pub struct Figures {
    pub tokens: usize,
    pub layers: usize,
    #[serde(rename = "static")]
    pub evaluations: Vec<Evaluation>,
    pub live: Vec<LiveFigures>,
    pub lossless: Option<Lossless>,
}

pub fn run(arguments: &Arguments, threads: usize, output: Output) -> anyhow::Result<Verdict> {
    if let Some(file) = &arguments.live.events {
        // Before minutes of work.
        let (file, folder) = (file.display(), data::folder_of(file));
        anyhow::ensure!(folder.is_dir(), "--events {file}: there is no folder {}", folder.display());
        anyhow::ensure!(
            arguments.live.live.is_some_and(|live| live > 0),
            "--events {file}: give --live as well"
        );
    } else {
        end_at_once(output, None)?;
    }
    let subject = Subject::load(&arguments.subject, arguments.subject.random_init, output)?;
    let figures = measure(&subject, arguments, threads, output)?;
    output.result(&figures, || text(&figures))?;
    let lossless = figures.lossless.iter().flat_map(|lossless| &lossless.drafted);
    Ok(if lossless.clone().all(|way| way.identical) { Verdict::Done } else { Verdict::DoesNotHold })
}

pub fn measure(
    subject: &Subject,
    arguments: &Arguments,
    threads: usize,
    output: Output,
) -> anyhow::Result<Figures> {
    let taps = subject.model.taps();
    let sizes = taps.sizes();
    let probe = arguments.probe.as_ref().map(|file| Probe::load(file, taps)).transpose()?;
    let classes = probe.as_ref().map_or(0, |probe| probe.regression.bias.len());
    let work = Work {
        block: sizes.block_work,
        read_out: sizes.read_out_work,
        probe: classes * sizes.width,
        likeness: 3 * sizes.width,
    };
    let mut exits = Exits::new(sizes.layers, work, probe.as_ref());
    let (saturation, _) =
        subject.look(&arguments.subject, probe.is_some(), output, &mut |seen, so_far, begin| {
            exits.add(seen, &so_far.decisions[begin..]);
            Ok(())
        })?;
    let (mut live, mut lossless) = (Vec::new(), None);
    let beginnings = live::beginnings(subject, arguments, arguments.live.live.unwrap_or(0), output)?;
    if let Some(beginnings) = &beginnings {
        let mut events = arguments.live.events.as_deref().map(EventWriter::append).transpose()?;
        live = live::measure(beginnings, arguments, probe.as_ref(), threads, events.as_mut(), output)?;
        lossless = Some(lossless::measure(beginnings, probe.as_ref(), threads, output)?);
    }
    let tokens = saturation.decisions.len();
    Ok(Figures { tokens, layers: sizes.layers, evaluations: exits.evaluations(), live, lossless })
}

/// A rule as it is shown.
pub fn name(rule: Rule) -> String {
    match rule {
        Rule::Full => "all layers".to_owned(),
        Rule::Oracle => "oracle".to_owned(),
        Rule::Probe => "probe".to_owned(),
        Rule::Response(threshold) => format!("softmax response {threshold}"),
        Rule::Likeness(threshold) => format!("state saturation {threshold}"),
    }
}

fn text(figures: &Figures) -> String {
    let percent = |share: f64| format!("{:5.1} %", share * 100.0);
    let head = format!(
        "{} tokens, {} layers; static: states of the whole model\n{:<24} layers  speedup: layers, work   as the model   right",
        figures.tokens, figures.layers, "rule"
    );
    let line = |e: &Evaluation| {
        format!(
            "{:<24} {:6.2}  {:6.2}  {:6.2}   {}   {}",
            name(e.rule),
            e.mean_layers,
            e.layer_speedup,
            e.work_speedup,
            percent(e.agreement),
            e.accuracy.map_or("-".to_owned(), percent)
        )
    };
    let mut lines: Vec<String> = std::iter::once(head).chain(figures.evaluations.iter().map(line)).collect();
    if let Some(first) = figures.live.first() {
        lines.push(format!(
            "live: {} beginnings, {} new tokens, layers skipped for good\n{:<24} layers  tokens/s  speedup                as the model   nats/token",
            first.prompts, first.tokens, "rule"
        ));
    }
    for live in &figures.live {
        lines.push(format!(
            "{:<24} {:6.2}  {:8.0}  {}   {}   {:.3}",
            name(live.rule),
            live.mean_layers,
            live.tokens_per_s,
            ends(&live.speedup),
            percent(live.agreement),
            live.nats_per_token
        ));
        lines.extend(live.events.iter().map(|event| {
            format!(
                "  monitor: {:.0} % of {} exits disagreed after {} tokens; {}",
                100.0 * event.disagreement,
                event.compared,
                event.token,
                match event.action {
                    Action::Raised(threshold) => format!("threshold raised to {threshold:.3}"),
                    Action::Off => "leaving switched off".to_owned(),
                }
            )
        }));
    }
    if let Some(lossless) = &figures.lossless {
        lines.push(format!(
            "lossless: early layers draft, the rest verifies; plain {:.0} tokens/s\n{:<42} tokens/s  speedup               tokens a run  \
             with a draft   accepted",
            lossless.plain_tokens_per_s, "drafting"
        ));
        lines.extend(lossless.drafted.iter().map(lossless_line));
    }
    lines.join("\n")
}

/// The median over the beginnings, and what it lies between.
fn ends(speedup: &Spread) -> String {
    format!("{:5.2} ({:.2} to {:.2})", speedup.median, speedup.lowest, speedup.highest)
}

fn lossless_line(way: &LosslessFigures) -> String {
    let accepted: Vec<String> = way
        .acceptance
        .iter()
        .map(|share| share.map_or("-".to_owned(), |share| format!("{share:.2}")))
        .collect();
    format!(
        "{:<42} {:8.0}  {}   {:6.2}        {:5.1} %      {}{}",
        drafting(way),
        way.tokens_per_s,
        ends(&way.speedup),
        way.tokens_per_forward,
        way.rounds_with_draft * 100.0,
        accepted.join(" "),
        if way.identical { "" } else { "  NOT THE SAME TEXT" }
    )
}

/// A way of drafting as it is shown.
pub fn drafting(way: &LosslessFigures) -> String {
    let condition = match way.rule {
        Rule::Response(threshold) if threshold <= 0.0 => String::new(),
        rule => format!(", {}", name(rule)),
    };
    format!("{} layers, up to {}{condition}", way.exit_layer, way.longest)
}
