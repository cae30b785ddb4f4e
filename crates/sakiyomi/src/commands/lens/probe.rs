//! `sakiyomi lens probe`: do states say on which choice the model works?

use std::path::Path;

use lens::Saturation;
use lens::probe::{Probed, Sample, usual_first_layer};
use serde::Serialize;

use super::arguments::Probe as Arguments;
use super::subject::Subject;
use crate::commands::new_folder::absent;
use crate::failure::Verdict;
use crate::output::Output;

#[derive(Serialize)]
pub struct Figures {
    pub tokens: usize,
    pub first_layer: usize,
    pub classes: usize,
    #[serde(flatten)]
    pub probed: Probed,
    pub saved: Option<String>,
}

pub fn run(arguments: &Arguments, output: Output) -> anyhow::Result<Verdict> {
    // Before the model is read.
    enough_choices(arguments)?;
    if let Some(file) = &arguments.save {
        absent(file)?;
        // Before minutes of work: a place where nothing can be written is told at once.
        drop(data::Unfinished::begin(file)?);
    }
    let subject = Subject::load(&arguments.subject, arguments.subject.random_init, output)?;
    let figures = measure(&subject, arguments, arguments.save.as_deref(), output)?;
    output.result(&figures, || text(&figures))?;
    Ok(Verdict::Done)
}

/// Learns and judges the probe, and saves it.
pub fn measure(
    subject: &Subject,
    arguments: &Arguments,
    save: Option<&Path>,
    output: Output,
) -> anyhow::Result<Figures> {
    let taps = subject.model.taps();
    let sizes = taps.sizes();
    let classes = enough_choices(arguments)?;
    let first_layer = arguments.first_layer.unwrap_or(usual_first_layer(sizes.layers));
    let Some(most) = sizes.layers.checked_sub(2) else {
        anyhow::bail!("a probe learns from layers before the last one, and the model has {}", sizes.layers)
    };
    anyhow::ensure!(
        first_layer <= most,
        "--first-layer {first_layer}: give 0 to {most}, since the model has {} layers, counted from 0, and choices settle after it",
        sizes.layers
    );
    let mut sample = Sample::new(sizes.layers, classes, sizes.width, first_layer, arguments.subject.seed);
    let latest = lens::saturation::latest_layer(arguments.subject.cut, sizes.layers)?;
    let (saturation, _) =
        subject.look(&arguments.subject, true, output, &mut |seen, so_far: &Saturation, begin| {
            sample.add(seen, &so_far.decisions[begin..], latest);
            Ok(())
        })?;
    let balanced = sample.balanced()?;
    let probed = balanced.judge(arguments.subject.seed);
    if let Some(file) = save {
        balanced.fit(taps).save(file)?;
    }
    let saved = save.map(|file| file.display().to_string());
    Ok(Figures { tokens: saturation.decisions.len(), first_layer, classes, probed, saved })
}

/// The choices that are told apart, if there are several.
fn enough_choices(arguments: &Arguments) -> anyhow::Result<usize> {
    let classes = arguments.subject.choices;
    anyhow::ensure!(classes >= 2, "-k {classes}: a probe tells at least 2 tasks apart");
    Ok(classes)
}

fn text(figures: &Figures) -> String {
    let probed = &figures.probed;
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let shares =
        |shares: &[f64]| shares.iter().map(|share| format!("{:.2}", share)).collect::<Vec<_>>().join(" ");
    let mut lines = vec![
        format!(
            "{} states of {} tasks in layers {:?}, from {} texts ({} tokens)",
            probed.states, figures.classes, probed.layers, probed.texts, figures.tokens
        ),
        format!(
            "balanced accuracy   {} with folds by text (chance {})",
            percent(probed.grouped.balanced_accuracy),
            percent(probed.chance)
        ),
        format!("  shuffled folds    {}", percent(probed.shuffled.balanced_accuracy)),
        format!("  noise             {}", percent(probed.noise.balanced_accuracy)),
        format!("  layer alone       {}", percent(probed.layer_only.balanced_accuracy)),
        format!("accuracy per task   {}", shares(&probed.grouped.class_accuracy)),
        format!("AUC per task        {}", shares(&probed.grouped.auc)),
    ];
    lines.extend(
        probed
            .grouped
            .confusion
            .iter()
            .enumerate()
            .map(|(class, row)| format!("  task {}: {row:?}", class + 1)),
    );
    lines.extend(figures.saved.iter().map(|file| format!("saved               {file}")));
    lines.join("\n")
}
