//! `sakiyomi lens saturation`: when the choices settle, and whether in order.

use lens::Saturation;
use lens::null::null;
use lens::order::{Order, order};
use lens::saturation::{Accuracy, Decision};
use lens::statistics::Mean;
use objective::Objective;
use serde::Serialize;

use super::arguments::Saturation as Arguments;
use super::subject::Subject;
use crate::failure::Verdict;
use crate::output::Output;

/// More permutations than this only take time.
const MOST_PERMUTATIONS: usize = 1_000_000;

/// What is found, for the model or for something that it is compared with.
#[derive(Debug, Clone, Serialize)]
pub struct Found {
    /// Rows that were read.
    pub tokens: usize,
    /// Rows that pass the cut; the order is about them.
    pub tokens_in_cut: usize,
    /// For each choice the share of all rows where it settles before the last layer.
    pub saturating: Vec<f64>,
    /// Mean layer of each choice over all rows, from 0.
    pub mean_layer: Vec<f64>,
    /// Rows by the layer in which each choice settles, `[choices][layers]`.
    pub histogram: Vec<Vec<usize>>,
    #[serde(flatten)]
    pub order: Order,
}

#[derive(Debug, Serialize)]
pub struct Figures {
    pub model: String,
    pub kind: String,
    pub random_init: Option<u64>,
    pub data: String,
    pub layers: usize,
    pub outputs: usize,
    pub choices: usize,
    pub cut: f64,
    #[serde(flatten)]
    pub found: Found,
    pub accuracy: Accuracy,
    /// Correlation of each layer's logits with the next layer's.
    pub likeness: Vec<f64>,
    pub null: Found,
    pub minus_null: Difference,
    pub random: Option<Found>,
    /// The heads that predict more than one token ahead.
    pub heads: Vec<Head>,
    pub seconds: f64,
}

/// What is found through one head.
#[derive(Debug, Serialize)]
pub struct Head {
    /// How many tokens ahead it predicts.
    pub depth: usize,
    pub accuracy: Accuracy,
    #[serde(flatten)]
    pub found: Found,
    /// The null model with this head's likeness of layers.
    pub null: Found,
    pub minus_null: Difference,
}

/// The model less the null model.
#[derive(Debug, Serialize)]
pub struct Difference {
    pub strict_tau: Option<f64>,
    pub mean_rank: Vec<Option<f64>>,
}

impl Difference {
    fn new(found: &Order, null: &Order) -> Self {
        let rank = |(found, null): (&Mean, &Mean)| {
            (found.count > 0 && null.count > 0).then_some(found.mean - null.mean)
        };
        Self {
            strict_tau: found.strict_tau.zip(null.strict_tau).map(|(found, null)| found - null),
            mean_rank: found.mean_rank.iter().zip(&null.mean_rank).map(rank).collect(),
        }
    }
}

pub fn run(arguments: &Arguments, output: Output) -> anyhow::Result<Verdict> {
    let (figures, _) = measure(arguments, output)?;
    output.result(&figures, || text(&figures))?;
    Ok(Verdict::Done)
}

/// What is found, and the decisions that it was found in.
pub fn measure(arguments: &Arguments, output: Output) -> anyhow::Result<(Figures, Saturation)> {
    let subject_arguments = &arguments.subject;
    anyhow::ensure!(
        arguments.permutations <= MOST_PERMUTATIONS,
        "--permutations {}: at most {MOST_PERMUTATIONS}",
        arguments.permutations
    );
    let began = std::time::Instant::now();
    let subject = Subject::load(subject_arguments, subject_arguments.random_init, output)?;
    let sizes = subject.model.taps().sizes();
    let (saturation, likeness) = subject.look(subject_arguments, false, output, &mut |_, _, _| Ok(()))?;
    let accuracy = Accuracy::of(&saturation.decisions);
    let found = judge(&saturation, saturation.cut(subject_arguments.cut)?, arguments);
    // What it is compared with may have nothing that passes the cut, which is a finding, too.
    let compared =
        |other: &Saturation| judge(other, other.cut(subject_arguments.cut).unwrap_or_default(), arguments);
    let walks = |likeness: &[f64]| {
        compared(&null(likeness, sizes.outputs, subject_arguments.choices, subject_arguments.seed))
    };
    let null = walks(&likeness);
    let random = match arguments.against_random {
        None => None,
        Some(seed) => {
            let random = Subject::load(subject_arguments, Some(seed), output)?;
            let (saturation, _) = random.look(subject_arguments, false, output, &mut |_, _, _| Ok(()))?;
            Some(compared(&saturation))
        }
    };
    let mut heads = Vec::new();
    if let Some(checkpoint) = &subject.heads
        && let Some(parallel) = checkpoint.objective.heads()
    {
        for depth in 2..=parallel.depths() {
            let (saturation, likeness) =
                subject.look_through_head(checkpoint, parallel, depth, subject_arguments, output)?;
            let accuracy = Accuracy::of(&saturation.decisions);
            let (found, null) = (compared(&saturation), walks(&likeness));
            let minus_null = Difference::new(&found.order, &null.order);
            heads.push(Head { depth, accuracy, found, null, minus_null });
        }
    }
    let minus_null = Difference::new(&found.order, &null.order);
    let figures = Figures {
        model: subject_arguments.model.display().to_string(),
        kind: format!("{:?}", subject.kind).to_lowercase(),
        random_init: subject_arguments.random_init,
        data: subject_arguments.data.display().to_string(),
        layers: sizes.layers,
        outputs: sizes.outputs,
        choices: subject_arguments.choices,
        cut: subject_arguments.cut,
        found,
        accuracy,
        likeness,
        null,
        minus_null,
        random,
        heads,
        seconds: began.elapsed().as_secs_f64(),
    };
    Ok((figures, saturation))
}

/// Order among `kept`, which passes the cut.
fn judge(saturation: &Saturation, kept: Vec<Decision>, arguments: &Arguments) -> Found {
    let (layers, choices) = (saturation.layers, saturation.choices);
    Found {
        tokens: saturation.decisions.len(),
        tokens_in_cut: kept.len(),
        saturating: saturation.saturating(),
        mean_layer: saturation.mean_layers(),
        histogram: saturation.histogram(),
        order: order(&kept, layers, choices, arguments.permutations, arguments.subject.seed),
    }
}

fn text(figures: &Figures) -> String {
    let Figures { found, null, .. } = figures;
    let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.4}"));
    let list =
        |values: &[f64]| values.iter().map(|value| format!("{value:.2}")).collect::<Vec<_>>().join(" ");
    let ranks = |order: &Order| {
        let shown = order.mean_rank.iter().map(|mean| match mean.count {
            0 => "-".to_owned(),
            _ => format!("{:.2}±{:.3}", mean.mean, mean.standard_error),
        });
        shown.collect::<Vec<_>>().join(" ")
    };
    let tau = |found: &Found| {
        let order = &found.order;
        format!("{} (p {}, {} tokens)", number(order.strict_tau), number(order.p_value), order.tau_tokens)
    };
    let mut lines = vec![
        format!("{} of {} layers, {} outputs", figures.kind, figures.layers, figures.outputs),
        format!(
            "tokens           {} read, {} with the first choice by layer {} ({:.0} %)",
            found.tokens,
            found.tokens_in_cut,
            (figures.cut * figures.layers as f64) as usize,
            100.0 * found.tokens_in_cut as f64 / found.tokens as f64
        ),
        format!(
            "first choice     right in {}",
            figures.accuracy.first.map_or("-".to_owned(), |share| format!("{:.1} %", share * 100.0))
        ),
        format!("mean layer       {} (choices 1, 2, ...; from 0)", list(&found.mean_layer)),
        format!("settle early     {} (share before the last layer)", list(&found.saturating)),
        format!("mean rank        {}", ranks(&found.order)),
        format!("  null model     {}", ranks(&null.order)),
    ];
    lines.extend(figures.random.as_ref().map(|random| format!("  random weights {}", ranks(&random.order))));
    lines.push(format!("strict tau       {}", tau(found)));
    lines.push(format!("  null model     {}", tau(null)));
    lines.extend(figures.random.as_ref().map(|random| format!("  random weights {}", tau(random))));
    lines.push(format!("  minus null     {}", number(figures.minus_null.strict_tau)));
    lines.extend(figures.heads.iter().map(|head| {
        format!(
            "head {} ahead     mean layer {}, strict tau {}, minus null {}",
            head.depth,
            list(&head.found.mean_layer),
            tau(&head.found),
            number(head.minus_null.strict_tau)
        )
    }));
    lines.join("\n")
}
