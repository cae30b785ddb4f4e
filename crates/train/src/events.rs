//! events.jsonl: what happened in a run, one JSON object per line, appended.
//!
//! A line is never changed once written. A run that goes on from a checkpoint at step k appends [`Event::Resumed`] with
//! that step; [`read`] then leaves out the steps, evaluations and checkpoints after k that stand before it, so that a
//! reader sees one run without gaps or repetitions, and the file still shows what was done twice. A last line that a crash
//! cut short is removed before the next one is written, and passed over by readers.

use std::io::{Seek, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Version of the lines. It grows when a field changes its meaning or goes; new fields and events do not change it.
pub const SCHEMA: u32 = 1;

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`SCHEMA`] of the program that wrote it.
    pub schema: u32,
    /// When, in UTC, as RFC 3339.
    pub time: String,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened. Lists per depth begin with depth 1, the next token; with registers, one entry for each offset follows, the
/// smallest first. Losses are in nats per target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A run began, with its sizes.
    RunStarted(RunStarted),
    /// One update of the optimiser.
    Step(StepEvent),
    /// An evaluation on held-out text.
    Evaluation(EvaluationEvent),
    /// A checkpoint was written.
    Checkpoint {
        /// After this step.
        step: usize,
        /// Its folder within the run's.
        folder: String,
    },
    /// The run goes on from the checkpoint of this step; later lines above are void.
    Resumed {
        /// Steps done.
        step: usize,
        /// Updates planned now.
        steps: usize,
    },
    /// The run stopped before its end, on request.
    Stopped {
        /// Steps done.
        step: usize,
    },
    /// The run ended.
    Finished {
        /// Steps done.
        step: usize,
        /// Seconds that training took, before and after every resumption.
        seconds: f64,
    },
    /// A text was generated.
    Request(RequestEvent),
    /// The monitor of early exits made leaving harder, or ended it.
    ExitMonitor(ExitMonitorEvent),
    /// An event of a later program, which this one does not know.
    #[serde(other, skip_serializing)]
    Unknown,
}

impl Event {
    /// The step that this event belongs to, if it is part of the training.
    fn step(&self) -> Option<usize> {
        match self {
            Self::Step(event) => Some(event.step),
            Self::Evaluation(event) => Some(event.step),
            Self::Checkpoint { step, .. } | Self::Stopped { step } | Self::Finished { step, .. } => {
                Some(*step)
            }
            Self::RunStarted(_)
            | Self::Resumed { .. }
            | Self::Request(_)
            | Self::ExitMonitor(_)
            | Self::Unknown => None,
        }
    }
}

/// The sizes of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunStarted {
    /// Name of the run.
    pub name: String,
    /// Version of the program.
    pub version: String,
    /// Seed of the run.
    pub seed: u64,
    /// Updates planned.
    pub steps: usize,
    /// Parameters of the model without its heads.
    pub trunk_parameters: usize,
    /// Parameters of the heads.
    pub head_parameters: usize,
    /// Parameters that are trained.
    pub trained_parameters: usize,
    /// Name of the objective's method.
    pub objective: String,
    /// Predictions with a loss of their own, the next token first.
    pub depths: usize,
    /// How many tokens ahead each of them lies; empty: 1, 2, 3 and so on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tokens_ahead: Vec<usize>,
    /// Inputs per update.
    pub tokens_per_step: usize,
    /// Tokens of the training text.
    pub training_tokens: usize,
    /// Tokens of the held-out text.
    pub held_out_tokens: usize,
    /// Threads of the arithmetic.
    pub threads: usize,
}

/// One update of the optimiser.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StepEvent {
    /// Counted from 1.
    pub step: usize,
    /// Inputs seen since step 1, this one included.
    pub tokens: u64,
    /// Mean loss at each depth that was trained, before the update.
    pub loss: Vec<f64>,
    /// Share of targets at each depth that were the most probable token.
    pub accuracy: Vec<f64>,
    /// Length of the gradient before it was shortened.
    pub gradient_norm: f64,
    /// Learning rate of the update.
    pub learning_rate: f64,
    /// Inputs per second of this step.
    pub tokens_per_s: f64,
    /// Of a mixture: the mean weight of each component.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub usage: Vec<f64>,
    /// Memory that the process held after it, where the system tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
}

/// An evaluation on held-out text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EvaluationEvent {
    /// After this step.
    pub step: usize,
    /// Mean loss at each depth of the objective.
    pub loss: Vec<f64>,
    /// Share of targets at each depth that were the most probable token.
    pub accuracy: Vec<f64>,
    /// Loss of the next token in bits per byte of text.
    pub bits_per_byte: f64,
    /// Targets at each depth.
    pub targets: Vec<u64>,
    /// Whether it was the best so far.
    pub best: bool,
    /// Of joint heads: the loss of n tokens together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub joint_loss: Option<f64>,
    /// Of a mixture: the mean weight of each component.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub usage: Vec<f64>,
    /// Entropy of these weights in nats, at most the logarithm of their number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_entropy: Option<f64>,
    /// Whether the mixture uses hardly more than half of its components: its rank is larger than what it has learnt to use.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub collapsed: bool,
    /// Share of whole answers that were right, where the text is prompts with answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answers_right: Option<f64>,
}

/// A text was generated.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RequestEvent {
    /// Names the request.
    pub request: String,
    /// How it was decoded, for example `plain` or `heads-3`.
    pub variant: String,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens generated, after stop handling.
    pub tokens: usize,
    /// Forward passes of the model, the prompt's not counted.
    pub forwards: usize,
    /// Seconds until the first token.
    pub time_to_first_token_s: f64,
    /// Seconds per token after the first.
    pub time_per_token_s: f64,
    /// Drafted tokens by depth, from depth 2.
    pub drafted: Vec<u64>,
    /// Accepted tokens by depth, from depth 2.
    pub accepted: Vec<u64>,
}

/// The monitor of early exits compared some of them with the whole model, found too many that disagreed, and acted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExitMonitorEvent {
    /// The rule of leaving that was asked for, as `lens exit` names it.
    pub rule: String,
    /// Tokens decided in the text before.
    pub token: usize,
    /// Exits compared since the last action.
    pub compared: usize,
    /// Share of them that disagreed.
    pub disagreement: f64,
    /// `raised` or `off`.
    pub action: String,
    /// The threshold from now on, if it was raised.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
}

/// Appends events to a file. Each is on disk as one line, handed to the system at once.
#[derive(Debug)]
pub struct EventWriter {
    file: fs_err::File,
}

impl EventWriter {
    /// Opens `file` for appending, creates it if need be, and removes a last line that was cut short.
    ///
    /// # Errors
    /// When the file cannot be read or written, or another process (or writer) has it open for appending.
    pub fn append(file: &Path) -> Result<Self> {
        let path = file;
        let mut file = fs_err::OpenOptions::new().read(true).append(true).create(true).open(path)?;
        // Where the file system has no locks, a second process is not noticed.
        if let Err(std::fs::TryLockError::WouldBlock) = file.file().try_lock() {
            return Err(Error::Busy { file: path.to_owned() });
        }
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut file, &mut text)?;
        let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
        if whole < text.len() {
            file.set_len(whole as u64)?;
            file.seek(std::io::SeekFrom::End(0))?;
        }
        Ok(Self { file })
    }

    /// Appends one event with the present time.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&mut self, event: Event) -> Result<()> {
        let record = Record { schema: SCHEMA, time: jiff::Timestamp::now().to_string(), event };
        let mut line = serde_json::to_vec(&record).map_err(std::io::Error::from)?;
        line.push(b'\n');
        // One call per line: a reader sees whole lines, or at worst a last one that is cut short.
        self.file.write_all(&line)?;
        self.file.flush()?;
        Ok(())
    }

    /// What the file holds so far, as [`read`] gives it. Where locks keep others out, only the writer can read.
    pub(crate) fn records(&mut self) -> Result<Vec<Record>> {
        let mut text = Vec::new();
        self.file.seek(std::io::SeekFrom::Start(0))?;
        std::io::Read::read_to_end(&mut self.file, &mut text)?;
        Ok(consistent(parse(self.file.path(), &text)?))
    }
}

/// The sizes of a run, from its beginning; `None` where that is not among `records`.
pub fn started(records: &[Record]) -> Option<&RunStarted> {
    records.iter().find_map(|record| match &record.event {
        Event::RunStarted(sizes) => Some(sizes),
        _ => None,
    })
}

/// The events of `file` as one consistent run; see the module's description.
///
/// # Errors
/// When the file cannot be read, or a line that is not the last is no event, or is of a later schema.
pub fn read(file: &Path) -> Result<Vec<Record>> {
    Ok(consistent(read_all(file)?))
}

/// Every whole line of `file`.
///
/// # Errors
/// As [`read`].
pub fn read_all(file: &Path) -> Result<Vec<Record>> {
    parse(file, &fs_err::read(file)?)
}

/// Every whole line of `text`, which is what `file` holds.
fn parse(file: &Path, text: &[u8]) -> Result<Vec<Record>> {
    let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
    let mut records = Vec::new();
    for (index, line) in text[..whole].split(|&byte| byte == b'\n').enumerate() {
        if line.is_empty() {
            continue;
        }
        let refuse = |reason: String| Error::Event { file: file.to_owned(), line: index + 1, reason };
        let record: Record =
            serde_json::from_slice(line).map_err(|error| refuse(format!("is no event: {error}")))?;
        if record.schema > SCHEMA {
            let reason =
                format!("is of schema {}, this program knows {SCHEMA}: use a newer one", record.schema);
            return Err(refuse(reason));
        }
        records.push(record);
    }
    Ok(records)
}

/// Leaves out what a later [`Event::Resumed`] made void.
fn consistent(records: Vec<Record>) -> Vec<Record> {
    let mut kept: Vec<Record> = Vec::with_capacity(records.len());
    for record in records {
        if let Event::Resumed { step: resumed, .. } = record.event {
            kept.retain(|earlier| match &earlier.event {
                Event::Stopped { .. } | Event::Finished { .. } => false,
                event => event.step().is_none_or(|step| step <= resumed),
            });
        }
        kept.push(record);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: usize, loss: f64) -> Event {
        Event::Step(StepEvent { step, loss: vec![loss], ..StepEvent::default() })
    }

    fn file() -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("events.jsonl");
        (folder, file)
    }

    fn events(records: Vec<Record>) -> Vec<Event> {
        records.into_iter().map(|record| record.event).collect()
    }

    #[test]
    fn events_come_back_as_they_were_written() {
        let (_folder, file) = file();
        let written = vec![
            Event::RunStarted(RunStarted { name: "a".into(), steps: 3, ..RunStarted::default() }),
            Event::Step(StepEvent {
                step: 1,
                tokens: 64,
                loss: vec![0.1 + 0.2, 5.5],
                accuracy: vec![0.25, 0.0],
                gradient_norm: 1.5,
                learning_rate: 1e-3,
                tokens_per_s: 12.0,
                usage: vec![0.75, 0.25],
                memory_bytes: Some(1 << 30),
            }),
            Event::Evaluation(EvaluationEvent {
                step: 1,
                targets: vec![9, 8],
                best: true,
                ..EvaluationEvent::default()
            }),
            Event::Checkpoint { step: 1, folder: "checkpoints/last".into() },
            Event::Request(RequestEvent {
                drafted: vec![3, 2],
                accepted: vec![2, 0],
                ..RequestEvent::default()
            }),
            Event::ExitMonitor(ExitMonitorEvent {
                rule: "probe".into(),
                disagreement: 0.5,
                action: "off".into(),
                ..ExitMonitorEvent::default()
            }),
            Event::Finished { step: 1, seconds: 0.5 },
        ];
        let mut writer = EventWriter::append(&file).unwrap();
        for event in &written {
            writer.write(event.clone()).unwrap();
        }
        assert_eq!(events(read(&file).unwrap()), written);
        let text = fs_err::read_to_string(&file).unwrap();
        assert_eq!(text.lines().count(), written.len());
        assert!(text.lines().nth(3).unwrap().contains(r#""event":"checkpoint","step":1,"#), "{text}");
        assert!(text.starts_with(r#"{"schema":1,"time":"2"#), "{text}");
    }

    #[test]
    fn a_line_cut_short_is_passed_over_and_then_replaced() {
        let (_folder, file) = file();
        let mut writer = EventWriter::append(&file).unwrap();
        writer.write(step(1, 3.0)).unwrap();
        assert!(EventWriter::append(&file).unwrap_err().to_string().contains("another process"));
        drop(writer);
        let mut text = fs_err::read(&file).unwrap();
        text.extend(br#"{"schema":1,"time":"#);
        fs_err::write(&file, text).unwrap();
        assert_eq!(events(read(&file).unwrap()), [step(1, 3.0)]);
        EventWriter::append(&file).unwrap().write(step(2, 2.0)).unwrap();
        assert_eq!(events(read(&file).unwrap()), [step(1, 3.0), step(2, 2.0)]);
        assert_eq!(fs_err::read_to_string(&file).unwrap().lines().count(), 2);
    }

    #[test]
    fn what_was_done_twice_is_read_once() {
        let (_folder, file) = file();
        let mut writer = EventWriter::append(&file).unwrap();
        let again = Event::Resumed { step: 1, steps: 3 };
        let started = Event::RunStarted(RunStarted::default());
        let stopped = Event::Stopped { step: 1 };
        let all = [&started, &step(1, 3.0), &stopped, &step(2, 2.0), &step(3, 1.0), &again, &step(2, 2.5)];
        for event in all {
            writer.write(event.clone()).unwrap();
        }
        assert_eq!(events(read(&file).unwrap()), [started, step(1, 3.0), again, step(2, 2.5)]);
        assert_eq!(read_all(&file).unwrap().len(), 7);
    }

    #[test]
    fn damage_in_the_middle_and_later_schemas_are_refused_with_the_line() {
        let (_folder, file) = file();
        fs_err::write(&file, "{\"schema\":1,\"time\":\"t\",\"event\":\"stopped\",\"step\":1}\nnonsense\n")
            .unwrap();
        let message = read(&file).unwrap_err().to_string();
        assert!(message.contains("events.jsonl:2: is no event"), "{message}");
        fs_err::write(&file, "{\"schema\":2,\"time\":\"t\",\"event\":\"stopped\",\"step\":1}\n").unwrap();
        assert!(read(&file).unwrap_err().to_string().contains("is of schema 2"));
    }

    #[test]
    fn unknown_events_and_fields_of_the_same_schema_are_no_error() {
        let (_folder, file) = file();
        let text = "{\"schema\":1,\"time\":\"t\",\"event\":\"new\",\"a\":1}\n\
                    {\"schema\":1,\"time\":\"t\",\"event\":\"step\",\"step\":4,\"new\":true}\n";
        fs_err::write(&file, text).unwrap();
        let expected = Event::Step(StepEvent { step: 4, ..StepEvent::default() });
        assert_eq!(events(read(&file).unwrap()), [Event::Unknown, expected]);
    }
}
