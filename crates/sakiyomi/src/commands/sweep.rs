//! `sakiyomi sweep`: a grid of settings and seeds, one run after the other, one table at the end.
//!
//! `file` says what there is to do, `grid` makes runs of it, `texts` what they read; each run is a `job` in a process of its
//! own, which leaves a `result`; `tables` shows them together, `csv_files` writes their numbers.

mod csv_files;
mod file;
mod grid;
mod job;
mod result;
mod tables;
mod texts;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde::Serialize;

pub use job::run_child;

use crate::arguments::Sweep;
use crate::failure::Verdict;
use crate::interrupt::{Interrupt, SAVING};
use crate::output::Output;
use file::{MeasureSpec, SweepFile};
use grid::SweepRun;
use job::{Failed, Job};
use result::RunResult;

/// How often a run is asked whether it has ended.
const GLANCE: Duration = Duration::from_millis(30);

#[derive(Serialize)]
struct Planned {
    output: String,
    runs: Vec<String>,
    finished: usize,
}

#[derive(Serialize)]
struct Swept<'a> {
    /// Whether every run was done or failed; if not, the same command goes on.
    finished: bool,
    output: String,
    done: usize,
    skipped: usize,
    failures: &'a [Failure],
    left: usize,
    /// Whether every draft length of every run gave the text of plain decoding.
    identical: bool,
    seconds: f64,
    runs_csv: String,
    summary_csv: String,
    page: String,
    /// Against the baseline, in words; empty without one. The numbers are in `runs_csv`.
    gains: String,
    variants: &'a [report::VariantFigures],
}

/// A run that failed, and why.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    /// Name of the run.
    pub run: String,
    /// In one line.
    pub reason: String,
}

/// How one run ended.
enum End {
    Done,
    Stopped,
    Failed(String),
}

/// `threads` as typed: 0 leaves the choice to the sweep file.
pub fn run(sweep: &Sweep, threads: usize, output: Output) -> anyhow::Result<Verdict> {
    let began = Instant::now();
    let file = SweepFile::read(&sweep.file, &sweep.set)?;
    let stem =
        sweep.file.file_stem().map_or_else(|| "sweep".into(), |stem| stem.to_string_lossy().into_owned());
    let folder = sweep.output.clone().unwrap_or_else(|| Path::new("runs").join(&stem));
    let text_path = |name: &str| texts::path(&folder, name, &file.text[name]);
    let mut runs =
        grid::runs(&file, &folder, &text_path).with_context(|| sweep.file.display().to_string())?;
    for run in &mut runs {
        if threads > 0 {
            run.config.run.threads = threads;
        }
    }
    let chosen = chosen(&runs, sweep.only.as_deref())?;
    let result = |index: usize| {
        let run: &SweepRun = &runs[index];
        job::finished(&run.config.run.folder, &run.fingerprint, &file.measure)
    };
    let finished = chosen.iter().filter(|&&index| result(index).is_some()).count();
    if sweep.dry_run {
        let names = chosen.iter().map(|&index| runs[index].place.name()).collect();
        let planned = Planned { output: folder.display().to_string(), runs: names, finished };
        output.result(&planned, || planned.text())?;
        return Ok(Verdict::Done);
    }
    let mut failures = Vec::new();
    let mut stopped = false;
    if sweep.report_only {
        ensure!(folder.is_dir(), "{}: no sweep in this folder yet", folder.display());
    } else {
        fs_err::create_dir_all(&folder)?;
        let _lock = lock(&folder)?;
        prepare(&file, &runs, &chosen, &folder, output)?;
        let interrupt = Interrupt::listen(Some(SAVING))?;
        for (place, &index) in chosen.iter().enumerate() {
            let run = &runs[index];
            if result(index).is_some() {
                continue;
            }
            let name = run.place.name();
            output.remark(format!("[{}/{}] {name}", place + 1, chosen.len()));
            let missing = run.after.filter(|&before| result(before).is_none());
            let end = match missing {
                Some(before) => {
                    End::Failed(format!("starts from {}, which has no result", runs[before].place.name()))
                }
                None => execute(run, &file, &interrupt)?,
            };
            match end {
                End::Done => {}
                End::Stopped => {
                    stopped = true;
                    break;
                }
                End::Failed(reason) => {
                    output.remark(format!("failed: {reason}"));
                    failures.push(Failure { run: name, reason });
                }
            }
        }
    }
    let results: Vec<RunResult> = chosen.iter().filter_map(|&index| result(index)).collect();
    let title = if file.title.is_empty() { stem } else { file.title.clone() };
    let figures = tables::figures(&title, &file.about, sweep, &results, &failures);
    let gains = tables::gains(&file.baseline, &results);
    let written = tables::write(&folder, &figures, &results, &gains, &failures)?;
    let swept = Swept {
        finished: !stopped && results.len() + failures.len() == chosen.len(),
        output: folder.display().to_string(),
        done: results.len(),
        skipped: finished,
        left: chosen.len() - results.len() - failures.len(),
        identical: results.iter().filter_map(|result| result.decoding.as_ref()?.identical).all(|same| same),
        seconds: began.elapsed().as_secs_f64(),
        runs_csv: written.runs.display().to_string(),
        summary_csv: written.summary.display().to_string(),
        page: written.page.display().to_string(),
        gains: tables::gains_text(&file.baseline, &gains),
        variants: &figures.variants,
        failures: &failures,
    };
    output.result(&swept, || swept.text(sweep))?;
    Ok(if failures.is_empty() && swept.identical { Verdict::Done } else { Verdict::DoesNotHold })
}

/// The runs whose names contain `pattern`, and those that they start from, in order.
fn chosen(runs: &[SweepRun], pattern: Option<&str>) -> anyhow::Result<Vec<usize>> {
    let mut chosen: Vec<bool> =
        runs.iter().map(|run| pattern.is_none_or(|pattern| run.place.name().contains(pattern))).collect();
    // A run starts from an earlier one: from the last to the first, one pass finds them all.
    for index in (0..runs.len()).rev() {
        if let Some(before) = runs[index].after.filter(|_| chosen[index]) {
            chosen[before] = true;
        }
    }
    let chosen: Vec<usize> = (0..runs.len()).filter(|&index| chosen[index]).collect();
    ensure!(
        !chosen.is_empty(),
        "--only {}: no run is called so; --dry-run lists them",
        pattern.unwrap_or_default()
    );
    Ok(chosen)
}

/// Keeps a second sweep out of the folder for as long as the file is open.
fn lock(folder: &Path) -> anyhow::Result<fs_err::File> {
    let file = fs_err::File::create(folder.join("sweep.lock"))?;
    if let Err(std::fs::TryLockError::WouldBlock) = file.file().try_lock() {
        anyhow::bail!("{} is in use: another sweep works in this folder", folder.display());
    }
    Ok(file)
}

/// Makes the texts of the sweep and looks for those that it names, before hours of work rest on them.
fn prepare(
    file: &SweepFile,
    runs: &[SweepRun],
    chosen: &[usize],
    folder: &Path,
    output: Output,
) -> anyhow::Result<()> {
    for (name, spec) in &file.text {
        if chosen.iter().any(|&index| runs[index].texts.contains(name)) {
            let passed_over = texts::prepare(name, spec, &texts::path(folder, name, spec))?;
            if passed_over > 0 {
                output.remark(format!("text.{name}: {passed_over} files passed over, which are no UTF-8"));
            }
        }
    }
    for &index in chosen {
        measurable(&file.measure, runs, index).with_context(|| runs[index].place.name())?;
        let data = &runs[index].config.data;
        for path in data.train.iter().chain(&data.held_out) {
            let pattern = path.to_string_lossy().contains(['*', '?', '[']);
            ensure!(
                pattern || path.exists(),
                "{}: {} is missing: put the text there, name another with --set, or leave the run out with --only",
                runs[index].place.name(),
                path.display()
            );
        }
    }
    Ok(())
}

/// Refuses a run whose model has no room for what is measured after training.
fn measurable(measure: &MeasureSpec, runs: &[SweepRun], index: usize) -> anyhow::Result<()> {
    if measure.prompts == 0 {
        return Ok(());
    }
    // A run that starts from another's checkpoint, which is not there yet, has its sizes.
    let sizes_of = std::iter::successors(Some(index), |&index| runs[index].after).last().unwrap_or(index);
    let config = &runs[sizes_of].config;
    // What else is wrong with a run is told when its turn comes, and ends no other.
    let (Ok(plan), Ok(vocabulary)) = (train::plan(config), train::start::vocabulary(config)) else {
        return Ok(());
    };
    let context = plan.decoder.context;
    let begins = usize::from(vocabulary.begin().is_some());
    let MeasureSpec { prompt_tokens, new_tokens, .. } = *measure;
    let wanted = prompt_tokens + begins + new_tokens;
    ensure!(
        wanted <= context,
        "measure.prompt_tokens {prompt_tokens} and measure.new_tokens {new_tokens} take {wanted} positions, and the model's \
         context has {context}: measure fewer tokens, or set model.architecture.context"
    );
    Ok(())
}

/// Trains and measures one run in a process of its own.
fn execute(run: &SweepRun, file: &SweepFile, interrupt: &Interrupt) -> anyhow::Result<End> {
    let job = Job {
        place: run.place.clone(),
        fingerprint: run.fingerprint.clone(),
        config: run.config.clone(),
        measure: file.measure.clone(),
    };
    let mut child = Command::new(std::env::current_exe()?)
        .arg("sweep-run")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("a process for the run")?;
    let told = tell(&mut child, &serde_json::to_string(&job)?);
    let mut asked = false;
    while told && child.try_wait()?.is_none() {
        if interrupt.raised() && !asked {
            asked = true;
            tell(&mut child, job::STOP);
        }
        std::thread::sleep(GLANCE);
    }
    let ended = child.wait_with_output()?;
    Ok(if job::finished(&run.config.run.folder, &run.fingerprint, &file.measure).is_some() {
        End::Done
    } else if interrupt.raised() {
        End::Stopped
    } else {
        let failed = serde_json::from_slice::<Failed>(&ended.stdout).ok();
        End::Failed(failed.map_or_else(
            || format!("its process ended by itself ({})", ended.status),
            |failed| failed.reason,
        ))
    })
}

/// Whether the child could be told; one that has ended cannot.
fn tell(child: &mut Child, line: &str) -> bool {
    child.stdin.as_mut().is_some_and(|stdin| writeln!(stdin, "{line}").and_then(|()| stdin.flush()).is_ok())
}

impl Planned {
    fn text(&self) -> String {
        format!(
            "{}\n{} runs in {}, {} of them done; nothing was trained (dry run)",
            self.runs.join("\n"),
            self.runs.len(),
            self.output,
            self.finished
        )
    }
}

impl Swept<'_> {
    fn text(&self, sweep: &Sweep) -> String {
        let mut text = tables::text(self.variants) + &self.gains;
        for failure in self.failures {
            text += &format!("failed  {}: {}\n", failure.run, failure.reason);
        }
        text += &format!(
            "runs    {} done ({} before), {} failed, {} left; {:.0} s\nnumbers {} and {}\npage    {}\n",
            self.done,
            self.skipped,
            self.failures.len(),
            self.left,
            self.seconds,
            self.runs_csv,
            self.summary_csv,
            self.page
        );
        if self.left > 0 || !self.failures.is_empty() {
            text += &format!("to go on, what is done being skipped:\n  {}\n", command(sweep));
        }
        text
    }
}

/// What was typed, without `--report-only`.
pub fn command(sweep: &Sweep) -> String {
    let quoted = |text: &str| match text.chars().all(|c| c.is_ascii_alphanumeric() || "=.-_/,:".contains(c)) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    };
    let mut words = vec!["sakiyomi sweep".to_owned(), quoted(&sweep.file.display().to_string())];
    let path = |path: &PathBuf| path.display().to_string();
    words.extend(sweep.output.iter().map(|folder| format!("--output {}", quoted(&path(folder)))));
    words.extend(sweep.only.iter().map(|only| format!("--only {}", quoted(only))));
    words.extend(sweep.set.iter().map(|set| format!("--set {}", quoted(set))));
    words.join(" ")
}
