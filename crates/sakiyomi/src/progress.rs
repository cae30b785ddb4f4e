//! Progress on standard error: a bar where it is a terminal, plain lines where it is not.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use data::Tokenised;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use train::events::{EvaluationEvent, RunStarted};
use train::{Observer, Progress};

use crate::commands::{measured, per_depth};
use crate::interrupt::Interrupt;
use crate::output::Output;

/// Time between plain lines.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// A count that goes up to a known end.
pub struct Counter {
    bar: ProgressBar,
    terminal: bool,
    told: Instant,
    what: &'static str,
}

impl Counter {
    /// Counts `what` up to `length`.
    pub fn new(what: &'static str, length: usize) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = ProgressBar::with_draw_target(
            Some(length as u64),
            if terminal { ProgressDrawTarget::stderr_with_hz(8) } else { ProgressDrawTarget::hidden() },
        );
        let style = ProgressStyle::with_template("{prefix} [{bar:32}] {pos}/{len} {wide_msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        bar.set_prefix(what);
        Self { bar, terminal, told: Instant::now(), what }
    }

    /// `done` are done; `message` says how it goes.
    pub fn set(&mut self, done: usize, output: Output, message: impl FnOnce() -> String) {
        self.bar.set_position(done as u64);
        if self.terminal {
            self.bar.set_message(message());
        } else if self.told.elapsed() >= LINE_EVERY {
            self.told = Instant::now();
            output.remark(format!("{} {done}/{} {}", self.what, self.bar.length().unwrap_or(0), message()));
        }
    }

    /// The end is at `length` now.
    pub fn set_end(&mut self, length: usize) {
        self.bar.set_length(length as u64);
    }

    /// A line above the bar.
    pub fn line(&self, output: Output, line: &str) {
        self.bar.suspend(|| output.remark(line));
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Shows how far a text is tokenised.
pub struct TextProgress {
    output: Output,
    bar: ProgressBar,
    terminal: bool,
    began: Instant,
    told: Instant,
}

impl TextProgress {
    /// Begins to count.
    pub fn new(output: Output) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = ProgressBar::no_length();
        bar.set_draw_target(if terminal {
            ProgressDrawTarget::stderr_with_hz(8)
        } else {
            ProgressDrawTarget::hidden()
        });
        let style = ProgressStyle::with_template("{spinner} {wide_msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        Self { output, bar, terminal, began: Instant::now(), told: Instant::now() }
    }

    /// So much is done.
    pub fn set(&mut self, done: Tokenised) {
        let line = || {
            let megabytes = done.text_bytes as f64 / 1e6;
            format!(
                "reading text: {megabytes:.0} MB (files: {:.0} MB), {} documents, {} tokens, {:.1} MB/s",
                done.file_bytes as f64 / 1e6,
                done.documents,
                done.tokens,
                megabytes / self.began.elapsed().as_secs_f64().max(1e-3)
            )
        };
        if self.terminal {
            self.bar.set_message(line());
            self.bar.tick();
        } else if self.told.elapsed() >= LINE_EVERY {
            self.output.remark(line());
            self.told = Instant::now();
        }
    }
}

impl Drop for TextProgress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Shows a run and lets Ctrl-C end it.
pub struct TrainingProgress {
    output: Output,
    interrupt: Interrupt,
    text: Option<TextProgress>,
    counter: Option<Counter>,
}

impl TrainingProgress {
    /// Watches a run.
    pub fn new(output: Output, interrupt: Interrupt) -> Self {
        Self { output, interrupt, text: None, counter: None }
    }
}

impl Observer for TrainingProgress {
    fn tokenised(&mut self, done: Tokenised) -> bool {
        self.text.get_or_insert_with(|| TextProgress::new(self.output)).set(done);
        !self.interrupt.raised()
    }

    fn started(&mut self, sizes: &RunStarted, origin: &str, done: usize) {
        self.text = None;
        self.interrupt.begin_promise();
        let heads = match sizes.depths {
            1 => "the next-token head only".to_owned(),
            _ if sizes.objective == "registers" => {
                let offsets: Vec<String> = sizes.tokens_ahead[1..].iter().map(usize::to_string).collect();
                format!("registers at offsets {}", offsets.join(", "))
            }
            n => format!("{n} heads ({} parameters more)", sizes.head_parameters),
        };
        self.output.remark(format!(
            "{origin}: {} parameters, {heads}; {} training tokens, {} held out",
            sizes.trunk_parameters, sizes.training_tokens, sizes.held_out_tokens
        ));
        let mut counter = Counter::new("training", sizes.steps);
        counter.set(done, self.output, String::new);
        self.counter = Some(counter);
    }

    fn stepped(&mut self, progress: &Progress) {
        let Some(counter) = &mut self.counter else { return };
        counter.set_end(progress.steps);
        counter.set(progress.step.step, self.output, || {
            let memory = progress.step.memory_bytes;
            format!(
                "loss {} | norm {:.2} | {:.0} tokens/s{} | {} left",
                per_depth(progress.step.loss.iter().copied().map(Some)),
                progress.step.gradient_norm,
                progress.tokens_per_s,
                memory.map_or(String::new(), |bytes| format!(" | {:.2} GB", bytes as f64 / 1e9)),
                clock(progress.seconds_left)
            )
        });
        if progress.step.step == progress.steps {
            counter.finish();
        }
    }

    fn evaluated(&mut self, evaluation: &EvaluationEvent) {
        let right = evaluation
            .answers_right
            .map_or(String::new(), |share| format!(", {:.1} % of the answers right", 100.0 * share));
        let line = format!(
            "step {}: held out {:.3} bits per byte, loss {} accuracy {}{right}",
            evaluation.step,
            evaluation.bits_per_byte,
            per_depth(measured(&evaluation.loss, &evaluation.targets)),
            per_depth(measured(&evaluation.accuracy, &evaluation.targets))
        );
        match &self.counter {
            Some(counter) => counter.line(self.output, &line),
            None => self.output.remark(line),
        }
    }

    fn note(&mut self, note: &str) {
        match &self.counter {
            Some(counter) => counter.line(self.output, note),
            None => self.output.remark(note),
        }
    }

    fn should_stop(&mut self) -> bool {
        self.interrupt.raised()
    }
}

/// `1:05`, or `3:01:05`
pub fn clock(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::clock;

    #[test]
    fn times_read_like_a_clock() {
        assert_eq!([0.4, 65.0, 10_865.2, -1.0].map(clock), ["0:00", "1:05", "3:01:05", "0:00"]);
    }
}
