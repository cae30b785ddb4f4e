//! `sakiyomi lens tokens`: is the second choice right more often where it settled early?

use lens::tokens::{LaterChoice, later_choices, usual_margin};
use serde::Serialize;

use super::arguments::Tokens as Arguments;
use super::subject::Subject;
use crate::failure::Verdict;
use crate::output::Output;

#[derive(Serialize)]
struct Figures {
    tokens: usize,
    layers: usize,
    margin: usize,
    choices: Vec<LaterChoice>,
}

pub fn run(arguments: &Arguments, output: Output) -> anyhow::Result<Verdict> {
    let subject = Subject::load(&arguments.subject, arguments.subject.random_init, output)?;
    let (saturation, _) = subject.look(&arguments.subject, false, output, &mut |_, _, _| Ok(()))?;
    let margin = arguments.margin.unwrap_or(usual_margin(saturation.layers));
    let choices = later_choices(&saturation, margin)?;
    let figures = Figures { tokens: saturation.decisions.len(), layers: saturation.layers, margin, choices };
    output.result(&figures, || text(&figures))?;
    Ok(Verdict::Done)
}

fn text(figures: &Figures) -> String {
    let percent =
        |share: Option<f64>| share.map_or("-".to_owned(), |share| format!("{:.1} %", share * 100.0));
    let lines = figures.choices.iter().map(|choice| {
        let test = choice
            .z_test
            .map_or(String::new(), |test| format!(", z {:.2}, p {:.2e}", test.statistic, test.p_value));
        format!(
            "choice {}: right in {} of {} that settled early, in {} of {} that the last layer decided{test}",
            choice.choice,
            percent(choice.early.share),
            choice.early.rows,
            percent(choice.late.share),
            choice.late.rows
        )
    });
    let head = format!(
        "{} tokens, {} layers; where the first choice is wrong (early: at least {} layers before the end):",
        figures.tokens, figures.layers, figures.margin
    );
    std::iter::once(head).chain(lines).collect::<Vec<_>>().join("\n")
}
