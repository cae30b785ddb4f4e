//! `sakiyomi train`: a run by its run file.

mod dry_run;

use std::path::{Path, PathBuf};

use serde::Serialize;
use train::config::{DataSection, ExamplesKind, ObjectiveKind};
use train::{Outcome, RunConfig, RunFolder};

use super::machine;
use crate::arguments::Train;
use crate::failure::Verdict;
use crate::flags::told_as_typed;
use crate::interrupt::{Interrupt, SAVING};
use crate::output::Output;
use crate::progress::TrainingProgress;

#[derive(Serialize)]
struct Trained {
    finished: bool,
    ended_early: Option<String>,
    step: usize,
    steps: usize,
    resume: Option<String>,
    seconds: f64,
    checkpoint: String,
    best: Option<String>,
    next_token_loss_bits_per_byte: Option<f64>,
    loss_per_depth: Vec<Option<f64>>,
    accuracy_per_depth: Vec<Option<f64>>,
    peak_memory_bytes: Option<u64>,
    /// Commands that go on from here.
    #[serde(skip)]
    next: Vec<String>,
}

/// `threads` as typed: 0 leaves the choice to the run file.
pub fn run(arguments: &Train, threads: usize, output: Output) -> anyhow::Result<Verdict> {
    let mut config = RunConfig::read(&arguments.run, &arguments.overrides)?;
    let mut typed = Vec::new();
    if threads > 0 {
        config.run.threads = threads;
        typed.push(("run.threads", "--threads"));
    }
    told_as_typed(config.validate(), &typed)?;
    let plan = train::plan(&config)?;
    if !arguments.force {
        plan.check_memory().map_err(|error| anyhow::anyhow!("{error}; --force trains all the same"))?;
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    machine::use_threads(if config.run.threads == 0 { cores } else { config.run.threads })?;
    if arguments.dry_run {
        dry_run::show(&config, arguments.resume, output)?;
        return Ok(Verdict::Done);
    }
    let interrupt = Interrupt::listen(Some(SAVING))?;
    let outcome = train::train(&config, arguments.resume, &mut TrainingProgress::new(output, interrupt))
        .inspect_err(|error| advise(error, &config, output))?;
    let trained = Trained::new(&outcome, &config);
    output.result(&trained, || {
        if !outcome.finished {
            return format!(
                "stopped after step {} of {}; to go on:\n  {}",
                outcome.step,
                outcome.steps,
                resume_command(&config)
            );
        }
        trained.text()
    })?;
    Ok(Verdict::Done)
}

/// Says how to go on with a run that had to stop.
fn advise(error: &train::Error, config: &RunConfig, output: Output) {
    let resume = resume_command(config);
    match error {
        train::Error::Diverged { safe, learning_rate, .. } if safe.newest.is_some() => output.remark(format!(
            "to go on from the last good checkpoint at half the learning rate:\n  {resume} train.learning_rate={:?}",
            learning_rate / 2.0
        )),
        train::Error::NotWritten { .. } | train::Error::Vanished { .. } => {
            output.remark(format!("to go on when that is mended:\n  {resume}"));
        }
        train::Error::RunExists { .. } => output.remark(format!("to go on with the run that is there:\n  {resume}")),
        _ => {}
    }
}

/// What goes on with a run that was stopped: its folder keeps the settings, those typed as overrides included.
pub fn resume_command(config: &RunConfig) -> String {
    let file = RunFolder::new(&config.run.folder).run_file().display().to_string();
    format!("sakiyomi train {} --resume", quoted(&file))
}

impl Trained {
    fn new(outcome: &Outcome, config: &RunConfig) -> Self {
        let evaluation = outcome.evaluation.as_ref();
        Self {
            finished: outcome.finished,
            ended_early: outcome.early.clone(),
            resume: (!outcome.finished).then(|| resume_command(config)),
            next: next_commands(&outcome.last, config),
            step: outcome.step,
            steps: outcome.steps,
            seconds: outcome.seconds,
            checkpoint: outcome.last.display().to_string(),
            best: outcome.best.as_ref().map(|folder| folder.display().to_string()),
            next_token_loss_bits_per_byte: evaluation.map(|e| e.bits_per_byte),
            loss_per_depth: evaluation.map(|e| measured(&e.loss, &e.targets)).unwrap_or_default(),
            accuracy_per_depth: evaluation.map(|e| measured(&e.accuracy, &e.targets)).unwrap_or_default(),
            peak_memory_bytes: train::memory::peak(),
        }
    }
}

impl Trained {
    fn text(&self) -> String {
        let held_out = self.next_token_loss_bits_per_byte.map_or(String::new(), |bits| {
            format!(
                "held out: {bits:.3} bits per byte; accuracy per depth {}\n",
                per_depth(self.accuracy_per_depth.iter().copied())
            )
        });
        let early = self.ended_early.as_ref().map_or(String::new(), |why| format!("ended early: {why}\n"));
        let best = self.best.as_ref().map_or(String::new(), |best| format!("best held out: {best}\n"));
        format!(
            "trained {} steps in {:.0} s\n{early}{held_out}checkpoint: {}\n{best}next:\n  {}",
            self.step,
            self.seconds,
            self.checkpoint,
            self.next.join("\n  ")
        )
    }
}

/// What can be done with a finished checkpoint, as it is typed.
fn next_commands(checkpoint: &Path, config: &RunConfig) -> Vec<String> {
    let checkpoint = quoted(&checkpoint.display().to_string());
    let mut commands: Vec<String> = eval_command(&checkpoint, &config.data).into_iter().collect();
    commands.push(format!("sakiyomi generate {checkpoint} --prompt \"...\" --stats"));
    if config.objective.kind == ObjectiveKind::Heads && config.objective.n > 1 {
        commands.push(format!("sakiyomi verify {checkpoint}"));
    }
    commands
}

/// An evaluation of `checkpoint` on the held-out text, or on all of the text, with a word on that, if none has files of its own;
/// none for conversations.
fn eval_command(checkpoint: &str, data: &DataSection) -> Option<String> {
    let seen = if data.held_out.is_empty() { "   # among them the texts it was trained on" } else { "" };
    let texts = if data.held_out.is_empty() { &data.train } else { &data.held_out };
    let texts: String =
        texts.iter().map(|path| format!(" --data {}", quoted(&path.display().to_string()))).collect();
    let usual = DataSection::default();
    let flag = |flag: &str, value: &str, usual: &str| match value == usual {
        true => String::new(),
        false => format!(" --{flag} {}", quoted(value)),
    };
    if data.examples == ExamplesKind::Prompts {
        let fields = [
            flag("prompt-field", &data.prompt_field, &usual.prompt_field),
            flag("completion-field", &data.completion_field, &usual.completion_field),
            flag("prompt-end", &data.prompt_end, &usual.prompt_end),
        ];
        return Some(format!(
            "sakiyomi eval {checkpoint}{texts} --task exact-match{}{seen}",
            fields.concat()
        ));
    }
    if data.examples == ExamplesKind::Messages {
        return None;
    }
    let field = flag("field", &data.field, &usual.field);
    let separator = flag("separator", &data.separator, &usual.separator);
    let (bytes, usual) = (data.longest_document_bytes.to_string(), usual.longest_document_bytes.to_string());
    let cut = flag("longest-document-bytes", &bytes, &usual);
    Some(format!("sakiyomi eval {checkpoint}{texts}{field}{separator}{cut}{seen}"))
}

/// `data.train` with `paths`, as it is typed behind a run file.
pub fn typed_texts(paths: &[PathBuf]) -> String {
    let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    quoted(&format!("data.train={}", toml::Value::from(paths)))
}

/// `word` as a shell takes it for one.
pub fn quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_alphanumeric() || "._-+/=:,@".contains(letter);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// The values at depths that had targets: elsewhere they are means of nothing.
pub fn measured<T: Default + PartialEq>(values: &[f64], targets: &[T]) -> Vec<Option<f64>> {
    values.iter().zip(targets).map(|(&value, targets)| (*targets != T::default()).then_some(value)).collect()
}

/// `0.61 0.44 0.32`, a stroke for what was not measured.
pub fn per_depth(values: impl IntoIterator<Item = Option<f64>>) -> String {
    let shown = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.3}"));
    values.into_iter().map(shown).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::{measured, per_depth, quoted};

    #[test]
    fn a_mean_of_nothing_is_not_shown() {
        assert_eq!(per_depth(measured(&[0.5, 0.0, 0.0], &[4_u64, 0, 1])), "0.500 - 0.000");
    }

    #[test]
    fn words_come_through_a_shell_as_one() {
        assert_eq!(quoted("runs/a-1/run.toml"), "runs/a-1/run.toml");
        assert_eq!(quoted("my run/it's.toml"), r"'my run/it'\''s.toml'");
        assert_eq!(quoted(""), "''");
    }
}
