//! `sakiyomi lens intervene`: puts the state of a token that has settled in the place of one that has not.

use lens::Item;
use lens::intervene::{AtDelta, Intervention, Response, choose_pairs, intervene, wanted_items};
use lens::probe::Probe;
use serde::Serialize;

use super::arguments::Intervene as Arguments;
use super::subject::Subject;
use crate::failure::Verdict;
use crate::output::Output;
use crate::progress::Counter;

/// More pairs than this only take time.
const MOST_PAIRS: usize = 10_000;

#[derive(Serialize)]
pub struct Figures {
    pub tokens: usize,
    pub pairs: usize,
    pub gap: usize,
    pub reach: usize,
    pub response: Vec<AtDelta>,
}

pub fn run(arguments: &Arguments, output: Output) -> anyhow::Result<Verdict> {
    let subject = Subject::load(&arguments.subject, arguments.subject.random_init, output)?;
    let figures = measure(&subject, arguments, output)?;
    output.result(&figures, || text(&figures))?;
    Ok(Verdict::Done)
}

pub fn measure(subject: &Subject, arguments: &Arguments, output: Output) -> anyhow::Result<Figures> {
    anyhow::ensure!(
        (1..=MOST_PAIRS).contains(&arguments.pairs),
        "--pairs {}: give 1 to {MOST_PAIRS}",
        arguments.pairs
    );
    let taps = subject.model.taps();
    let layers = taps.sizes().layers;
    let probe = arguments.probe.as_ref().map(|file| Probe::load(file, taps)).transpose()?;
    let (reach, gap) = Intervention::usual(layers);
    let settings = Intervention {
        pairs: arguments.pairs,
        reach: arguments.reach.unwrap_or(reach),
        gap: arguments.gap.unwrap_or(gap),
        choices: arguments.subject.choices,
        seed: arguments.subject.seed,
    };
    anyhow::ensure!(2 * settings.reach < layers, "--reach {}: the model has {layers} layers", settings.reach);
    let (saturation, _) = subject.look(&arguments.subject, false, output, &mut |_, _, _| Ok(()))?;
    let pairs = choose_pairs(&saturation.decisions, layers, &settings)?;
    let wanted = wanted_items(&pairs);
    let kept = subject.with_items(
        &arguments.subject,
        &mut |items, _| {
            let mut kept: Vec<(usize, Item)> = Vec::with_capacity(wanted.len());
            for (index, item) in items.enumerate() {
                if wanted.last().is_none_or(|last| index > *last) {
                    break;
                }
                let item = item?;
                if wanted.binary_search(&index).is_ok() {
                    kept.push((index, item));
                }
            }
            Ok(kept)
        },
        output,
    )?;
    let mut counter = Counter::new("injecting", pairs.len());
    let response = intervene(taps, &kept, &pairs, &settings, probe.as_ref(), &mut |done| {
        counter.set(done, output, String::new);
    })?;
    counter.finish();
    Ok(Figures {
        tokens: saturation.decisions.len(),
        pairs: pairs.len(),
        gap: settings.gap,
        reach: settings.reach,
        response,
    })
}

fn text(figures: &Figures) -> String {
    let head = format!(
        "{} pairs with the same first choice, settled at least {} layers apart ({} tokens)\n\
         delta  switched: injected, control, untouched   second choice earlier by: injected, control   probe: settled (untouched)",
        figures.pairs, figures.gap, figures.tokens
    );
    let percent =
        |share: Option<f64>| share.map_or("    -".to_owned(), |share| format!("{:4.0} %", share * 100.0));
    let number = |value: Option<f64>| value.map_or("    -".to_owned(), |value| format!("{value:5.2}"));
    let line = |at: &AtDelta| {
        let second = |response: &Response| number(response.second_earlier);
        format!(
            "{:+5}  {}  {}  {}    {}  {}    {} ({})",
            at.delta,
            percent(at.injected.switched),
            percent(at.control.switched),
            percent(at.untouched.switched),
            second(&at.injected),
            second(&at.control),
            percent(at.injected.probe_settled),
            percent(at.untouched.probe_settled)
        )
    };
    std::iter::once(head).chain(figures.response.iter().map(line)).collect::<Vec<_>>().join("\n")
}
