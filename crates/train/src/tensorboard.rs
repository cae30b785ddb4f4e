//! TensorBoard's event files: scalars over steps, for whoever watches a run there. A view of events.jsonl, not its source.
//!
//! A file is a sequence of TFRecords: the payload's length (u64, little-endian), the masked CRC-32C of these eight bytes,
//! the payload, and its masked CRC-32C (`tensorflow/core/lib/io/record_writer.cc`). A payload is an `Event` message
//! (`tensorboard/compat/proto/event.proto`), of which only this is written:
//!
//! | message | field | number | type |
//! |---|---|---|---|
//! | Event | wall_time | 1 | double |
//! | Event | step | 2 | varint |
//! | Event | file_version | 3 | text |
//! | Event | summary | 5 | Summary |
//! | Event | session_log | 7 | SessionLog |
//! | Summary | value | 1 | Value, repeated |
//! | Value | tag | 1 | text |
//! | Value | simple_value | 2 | float |
//! | SessionLog | status | 1 | varint; 1 is START |
//!
//! A run that goes on writes a file of its own, and what older files hold of later steps is cut off. The new file begins
//! with a START at its first step, by which a TensorBoard that has seen those steps already drops them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::Result;
use crate::events::{EvaluationEvent, StepEvent};

/// Writes the scalars of one run.
#[derive(Debug)]
pub struct BoardWriter {
    file: fs_err::File,
}

impl BoardWriter {
    /// Begins a file in `folder`, which is made if need be, for the steps after `done`.
    ///
    /// # Errors
    /// When the folder or a file in it cannot be written.
    pub fn open(folder: &Path, done: usize) -> Result<Self> {
        fs_err::create_dir_all(folder)?;
        let mut newest = 0;
        for (file, seconds) in event_files(folder)? {
            cut(&file, done)?;
            newest = newest.max(seconds + 1);
        }
        // TensorBoard reads files in the order of their names.
        let seconds = (wall_time() as u64).max(newest);
        let name = format!("{PREFIX}{seconds:010}.sakiyomi");
        let file = fs_err::OpenOptions::new().append(true).create_new(true).open(folder.join(name))?;
        let mut writer = Self { file };
        let mut version = event(wall_time(), 0);
        text(&mut version, 3, "brain.Event:2");
        writer.append(&[record(&version), record(&start(wall_time(), done + 1))].concat())?;
        Ok(writer)
    }

    /// Appends what there is to draw of a step.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn step(&mut self, event: &StepEvent) -> Result<()> {
        let mut values = per_depth("train/loss", &event.loss);
        values.push(("train/learning_rate".to_owned(), event.learning_rate));
        values.push(("train/gradient_norm".to_owned(), event.gradient_norm));
        values.push(("speed/tokens_per_s".to_owned(), event.tokens_per_s));
        values.extend(event.memory_bytes.map(|bytes| ("speed/memory_gb".to_owned(), bytes as f64 / 1e9)));
        self.scalars(event.step, &values)
    }

    /// Appends what there is to draw of an evaluation.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn evaluation(&mut self, event: &EvaluationEvent) -> Result<()> {
        // A mean of nothing is not drawn.
        let measured = |values: Vec<(String, f64)>| {
            let with_targets = values.into_iter().zip(&event.targets).filter(|(_, targets)| **targets > 0);
            with_targets.map(|(value, _)| value).collect::<Vec<_>>()
        };
        let mut values = measured(per_depth("held_out/loss", &event.loss));
        values.extend(measured(per_depth("held_out/accuracy", &event.accuracy)));
        values.push(("held_out/bits_per_byte".to_owned(), event.bits_per_byte));
        values.extend(event.answers_right.map(|share| ("held_out/answers_right".to_owned(), share)));
        self.scalars(event.step, &values)
    }

    /// Appends the values of `step`, by tag.
    fn scalars(&mut self, step: usize, values: &[(String, f64)]) -> Result<()> {
        self.append(&record(&scalars(wall_time(), step, values)))
    }

    /// In one call, so that a reader sees whole records, or at worst a last one that is cut short.
    fn append(&mut self, records: &[u8]) -> Result<()> {
        self.file.write_all(records)?;
        Ok(self.file.flush()?)
    }
}

/// `train/loss/depth_1` and so on.
fn per_depth(tag: &str, values: &[f64]) -> Vec<(String, f64)> {
    values.iter().zip(1..).map(|(&value, depth)| (format!("{tag}/depth_{depth}"), value)).collect()
}

const PREFIX: &str = "events.out.tfevents.";

/// Length, its checksum, and the checksum of the payload.
const FRAME: usize = 8 + 4 + 4;

fn wall_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// The event files in `folder`, with the seconds in their names.
fn event_files(folder: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let mut files = Vec::new();
    for entry in fs_err::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        let seconds = rest.split('.').next().and_then(|digits| digits.parse().ok()).unwrap_or(0);
        files.push((path, seconds));
    }
    Ok(files)
}

/// Cuts `file` off before its first record of a step after `done`, or its first that is not whole.
fn cut(file: &Path, done: usize) -> Result<()> {
    let bytes = fs_err::read(file)?;
    let mut end = 0;
    while let Some(payload) = payload_at(&bytes[end..]) {
        if step_of(payload) > done as u64 {
            break;
        }
        end += FRAME + payload.len();
    }
    if end < bytes.len() {
        fs_err::OpenOptions::new().write(true).open(file)?.set_len(end as u64)?;
    }
    Ok(())
}

/// The payload of the record at the beginning of `bytes`, if that is whole.
fn payload_at(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let (length_sum, rest) = rest.split_first_chunk::<4>()?;
    let count = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let payload = rest.get(..count)?;
    let payload_sum = rest.get(count..)?.first_chunk::<4>()?;
    let whole = *length_sum == checksum(length) && *payload_sum == checksum(payload);
    whole.then_some(payload)
}

/// The step of an event as [`event`] begins it; 0 if it has none.
fn step_of(payload: &[u8]) -> u64 {
    let Some((0x10, varint)) = payload.get(9..).and_then(|rest| Some((*rest.first()?, &rest[1..]))) else {
        return 0;
    };
    let mut step = 0;
    for (index, &byte) in varint.iter().enumerate().take(9) {
        step |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            break;
        }
    }
    step
}

fn record(payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u64).to_le_bytes();
    [&length[..], &checksum(&length), payload, &checksum(payload)].concat()
}

/// CRC-32C, rotated and shifted as TFRecords want it, so that a checksum of data with checksums in it stays sound.
fn checksum(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

fn scalars(wall_time: f64, step: usize, values: &[(String, f64)]) -> Vec<u8> {
    let mut summary = Vec::new();
    for (tag, value) in values {
        let mut entry = Vec::new();
        text(&mut entry, 1, tag);
        entry.push(2 << 3 | 5);
        entry.extend((*value as f32).to_le_bytes());
        message(&mut summary, 1, &entry);
    }
    let mut event = event(wall_time, step);
    message(&mut event, 5, &summary);
    event
}

/// Says that steps from `step` on are new.
fn start(wall_time: f64, step: usize) -> Vec<u8> {
    let mut event = event(wall_time, step);
    message(&mut event, 7, &[1 << 3, 1]);
    event
}

/// What every event begins with; proto3 leaves zeros out.
fn event(wall_time: f64, step: usize) -> Vec<u8> {
    let mut bytes = vec![1 << 3 | 1];
    bytes.extend(wall_time.to_le_bytes());
    if step > 0 {
        bytes.push(2 << 3);
        varint(&mut bytes, step as u64);
    }
    bytes
}

fn text(bytes: &mut Vec<u8>, field: u8, text: &str) {
    message(bytes, field, text.as_bytes());
}

fn message(bytes: &mut Vec<u8>, field: u8, content: &[u8]) {
    bytes.push(field << 3 | 2);
    varint(bytes, content.len() as u64);
    bytes.extend(content);
}

fn varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every whole step record of the folder, in the order of the files, as (step, bytes of the payload).
    fn steps(folder: &Path) -> Vec<u64> {
        let mut files = event_files(folder).unwrap();
        files.sort();
        let mut steps = Vec::new();
        for (file, _) in files {
            let bytes = fs_err::read(file).unwrap();
            let mut rest = &bytes[..];
            while let Some(payload) = payload_at(rest) {
                if payload.windows(4).any(|tag| tag == b"loss") {
                    steps.push(step_of(payload));
                }
                rest = &rest[FRAME + payload.len()..];
            }
            assert!(rest.is_empty(), "{} bytes are no record", rest.len());
        }
        steps
    }

    /// Bytes that the `tensorboard` package 2.21 writes for the same events (`RecordWriter`).
    #[test]
    fn bytes_are_those_of_the_reference_writer() {
        let mut version = event(1.5, 0);
        text(&mut version, 3, "brain.Event:2");
        assert_eq!(hex(&record(&version)), GOLDEN_VERSION);
        let values = [("train/loss".to_owned(), 2.5), ("rate".to_owned(), -1e-3)];
        assert_eq!(hex(&record(&scalars(1.5, 300, &values))), GOLDEN_SCALARS);
        assert_eq!(hex(&record(&start(1.5, 301))), GOLDEN_START);
    }

    const GOLDEN_VERSION: &str =
        "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c";
    const GOLDEN_SCALARS: &str = "2e00000000000000c5cb57fa09000000000000f83f10ac022a200a110a0a747261696e2f6c6f7373\
                                  15000020400a0b0a0472617465156f1283bab4883669";
    const GOLDEN_START: &str = "100000000000000095fbfe1809000000000000f83f10ad023a020801d17949d4";

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn a_run_that_goes_on_repeats_no_step() {
        let folder = tempfile::tempdir().unwrap();
        let loss = |step: usize| vec![("loss".to_owned(), step as f64)];
        let mut writer = BoardWriter::open(folder.path(), 0).unwrap();
        (1..=200).for_each(|step| writer.scalars(step, &loss(step)).unwrap());
        let mut again = BoardWriter::open(folder.path(), 150).unwrap();
        (151..=180).for_each(|step| again.scalars(step, &loss(step)).unwrap());
        // A crash in the middle of a record.
        let (newest, _) = event_files(folder.path()).unwrap().into_iter().max().unwrap();
        let bytes = fs_err::read(&newest).unwrap();
        fs_err::write(&newest, &bytes[..bytes.len() - 3]).unwrap();
        let mut third = BoardWriter::open(folder.path(), 178).unwrap();
        (179..=190).for_each(|step| third.scalars(step, &loss(step)).unwrap());
        assert_eq!(steps(folder.path()), (1..=190).collect::<Vec<_>>());
        BoardWriter::open(folder.path(), 0).unwrap();
        assert!(steps(folder.path()).is_empty(), "begun again");
    }

    #[test]
    fn damage_is_no_reason_to_stop() {
        for content in [&b""[..], b"x", &[0xff; 40], &[0; 64]] {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join(format!("{PREFIX}0000000001.host"));
            fs_err::write(&file, content).unwrap();
            BoardWriter::open(folder.path(), 5).unwrap();
            assert_eq!(fs_err::read(&file).unwrap(), b"");
        }
    }
}
