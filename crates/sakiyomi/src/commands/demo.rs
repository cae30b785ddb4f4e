//! `sakiyomi demo`: the whole story. Train a byte-level model with four heads, let the heads learn what the model says, verify
//! that drafts change nothing, measure, and write a page of figures.

mod corpus;
mod heads;
mod settings;
mod story;
mod told;

use std::path::{Path, PathBuf};

use serde::Serialize;
use train::prepare::split_text;
use train::{Checkpoint, RunConfig};

use self::story::{Story, Trained};
use super::new_folder::absent;
use super::train::quoted;
use super::{figures, machine};
use crate::arguments::Demo;
use crate::failure::Verdict;
use crate::flags::told_as_typed;
use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::progress::TrainingProgress;

/// Bytes written after each prompt.
const NEW_TOKENS: usize = 256;

#[derive(Serialize)]
struct Planned {
    folder: String,
    steps: usize,
}

/// What Ctrl-C leaves.
#[derive(Serialize)]
struct Stopped<'a> {
    /// Whether the whole story was told: never.
    finished: bool,
    checkpoint: &'a Path,
    /// What goes on with the training, if that was not done.
    resume: Option<String>,
}

pub fn run(demo: &Demo, threads: usize, output: Output) -> anyhow::Result<Verdict> {
    let began = std::time::Instant::now();
    let folder = free_folder(demo.output.as_deref())?;
    let config = settings::config(&folder, demo)?;
    let typed = [
        ("train.steps", "--steps"),
        ("data.train", "--text"),
        ("data.held_out", "--text"),
        ("run.folder", "--output"),
    ];
    told_as_typed(config.validate(), &typed)?;
    if demo.dry_run {
        let planned = Planned { folder: folder.display().to_string(), steps: config.train.steps };
        output.result(&planned, || {
            format!("would train {} steps in {} (dry run)", planned.steps, planned.folder)
        })?;
        return Ok(Verdict::Done);
    }
    machine::use_threads(threads)?;
    let interrupt = Interrupt::listen(None)?;
    let tales = if demo.text.is_empty() { Some(corpus::write(&folder, demo.seed)?) } else { None };
    let outcome = train::train(&config, false, &mut TrainingProgress::new(output, interrupt.clone()));
    if !train::RunFolder::new(&folder).holds_a_run() {
        tales.iter().for_each(corpus::Tales::take_back);
    }
    let outcome = told_as_typed(outcome, &typed)?;
    let stop = |checkpoint: &Path, resume: Option<&RunConfig>| -> anyhow::Result<Verdict> {
        let resume = resume.map(super::train::resume_command);
        let stopped = Stopped { finished: false, checkpoint, resume };
        output.result(&stopped, || stopped.text())?;
        Ok(Verdict::Done)
    };
    if !outcome.finished {
        return stop(&outcome.last, Some(&config));
    }
    let began_heads = std::time::Instant::now();
    let first = Checkpoint::load(&outcome.last)?;
    let text = split_text(&config, &first.vocabulary, &mut |_| !interrupt.raised());
    if interrupt.raised() {
        return stop(&outcome.last, None);
    }
    let text = text?;
    let heads_config = heads::config(&config, &outcome);
    let written = heads::write_text(&config, &heads_config, first, &text, threads, &interrupt, output);
    if interrupt.raised() {
        return stop(&outcome.last, None);
    }
    written?;
    let mut progress = TrainingProgress::new(output, interrupt.clone());
    let learnt = train::train(&heads_config, false, &mut progress);
    if learnt.is_err() && interrupt.raised() {
        return stop(&outcome.last, None);
    }
    let learnt = learnt?;
    if !learnt.finished {
        return stop(&learnt.last, Some(&heads_config));
    }
    let trained = Trained {
        config: &config,
        heads_steps: heads_config.train.steps,
        checkpoint: learnt.last,
        seconds: outcome.seconds + began_heads.elapsed().as_secs_f64(),
    };
    let story = Story::measure(&trained, &text, threads, &interrupt, output)?;
    let figures = story.figures(demo, threads)?;
    data::write_whole(&folder.join(figures::FILE), serde_json::to_string_pretty(&figures)?.as_bytes())?;
    let page = folder.join("report.html");
    data::write_whole(&page, figures.page().html().as_bytes())?;
    let told = story.told(&figures, &page, began.elapsed().as_secs_f64());
    output.result(&told, || told.text())?;
    Ok(if told.identical { Verdict::Done } else { Verdict::DoesNotHold })
}

/// Where the run goes: the folder that was asked for if it is free, else the first free one of the default's names.
fn free_folder(asked: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(folder) = asked {
        absent(folder).map_err(|error| anyhow::anyhow!("--output {error}"))?;
        return Ok(folder.to_owned());
    }
    let names = (1..).map(|number| match number {
        1 => "runs/demo".to_owned(),
        _ => format!("runs/demo-{number}"),
    });
    names
        .map(PathBuf::from)
        .find(|folder| !folder.exists())
        .ok_or_else(|| anyhow::anyhow!("no free folder in runs/"))
}

impl Stopped<'_> {
    /// Ends the program: verifying and measuring cannot be left halfway, and there is nothing to store.
    fn leave(&self, output: Output) -> ! {
        let _ = output.result(self, || self.text());
        std::process::exit(0)
    }

    fn text(&self) -> String {
        let checkpoint = quoted(&self.checkpoint.display().to_string());
        match &self.resume {
            Some(resume) => format!("stopped; to finish the training:\n  {resume}"),
            None => format!(
                "stopped; the trained model is at {checkpoint}; next:\n  sakiyomi verify {checkpoint}\n  \
                 sakiyomi bench {checkpoint}"
            ),
        }
    }
}
