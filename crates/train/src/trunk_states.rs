//! States of a frozen trunk on disk: a window of the text runs through the trunk once, for all epochs of a run and for all runs on
//! the same trunk and text.
//!
//! The name of the file is a digest of everything that decides what the states are; with anything else there is another file. It
//! has a record for each window: a checksum of its inputs, one of its states, and the states, `[length, width]` f32. A record
//! whose checksums disagree (not written yet, half written, of other tokens) is computed again, so that no interruption harms.
//! Each window runs alone, so that its states do not depend on what shares its batch.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use data::Batch;
use data::digest::Digest;
use objective::{Objective, OnStates};
use tensor::{Arena, Precision, Tape};

use crate::checkpoint::digest;
use crate::config::RunConfig;
use crate::error::{Error, Result};
use crate::prepare::{RunData, cache_folder};
use crate::{Checkpoint, step};

/// Version of the file's form and of what the trunk computes; a part of the digest.
const FORMAT: &str = concat!("trunk states 1 of ", env!("CARGO_PKG_VERSION"));

/// Bytes before the states of a record.
const CHECKSUMS: usize = 8;

/// A window is the lower half of a row's draw ([`data::Loader::keeping_windows`]).
const WINDOW: u64 = u32::MAX as u64;

/// The file, open.
pub(crate) struct TrunkStates {
    path: PathBuf,
    file: fs_err::File,
    precision: Precision,
    /// Values of a record.
    values: usize,
    computed: usize,
}

impl TrunkStates {
    /// Opens the file of the trunk in `checkpoint` and of the text in `data`, or begins it.
    ///
    /// # Errors
    /// When it cannot be opened, or another run has it open.
    pub(crate) fn open(config: &RunConfig, checkpoint: &Checkpoint, data: &RunData) -> Result<Self> {
        let path = path_of(config, checkpoint, data)?;
        fs_err::create_dir_all(cache_folder(config))?;
        let mut options = fs_err::OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(&path)?;
        // Where the file system has no locks, a second process is not noticed.
        if let Err(std::fs::TryLockError::WouldBlock) = file.file().try_lock() {
            let problem =
                format!("keeps {}, which another run uses: name another data.cache", path.display());
            return Err(Error::Setting { key: "train.cache_states".to_owned(), problem });
        }
        let values = values(config, checkpoint);
        let states = Self { path, file, precision: step::precision(config.train.dtype), values, computed: 0 };
        let bytes = record(values, data.training.windows_per_epoch() as u64);
        // What is not written yet takes no room where the file system knows holes.
        if states.file.metadata()?.len() != bytes {
            states.file.set_len(bytes)?;
        }
        Ok(states)
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the whole file.
    pub(crate) fn bytes(&self) -> Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Windows that had to be run through the trunk since it was opened.
    pub(crate) fn computed(&self) -> usize {
        self.computed
    }

    /// The states `[batch, length, width]` of a batch of the loader that `open` was given.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub(crate) fn of(
        &mut self,
        checkpoint: &Checkpoint,
        batch: &Batch,
        arena: &mut Arena,
    ) -> Result<Vec<f32>> {
        let mut states = vec![0.0; batch.batch * self.values];
        for (row, states) in states.chunks_exact_mut(self.values).enumerate() {
            let alone = batch.row(row);
            let place = record(self.values, batch.draws[row] & WINDOW);
            let inputs = checksum_of_inputs(&alone);
            if !self.read(place, inputs, states)? {
                self.run(checkpoint, &alone, arena, states);
                self.write(place, inputs, states)?;
                self.computed += 1;
            }
        }
        Ok(states)
    }

    /// Whether the record is whole and of these inputs.
    fn read(&mut self, place: u64, inputs: u32, states: &mut [f32]) -> Result<bool> {
        let mut bytes = vec![0; CHECKSUMS + 4 * states.len()];
        self.file.seek(SeekFrom::Start(place))?;
        self.file.read_exact(&mut bytes)?;
        let (checksums, bytes) = bytes.split_at(CHECKSUMS);
        if checksums != checksums_of(inputs, bytes) {
            return Ok(false);
        }
        for (state, bytes) in states.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *state = f32::from_le_bytes(*bytes);
        }
        Ok(true)
    }

    fn write(&mut self, place: u64, inputs: u32, states: &[f32]) -> Result<()> {
        let bytes: Vec<u8> = states.iter().flat_map(|state| state.to_le_bytes()).collect();
        self.file.seek(SeekFrom::Start(place))?;
        self.file.write_all(&checksums_of(inputs, &bytes))?;
        Ok(self.file.write_all(&bytes)?)
    }

    fn run(&self, checkpoint: &Checkpoint, alone: &Batch, arena: &mut Arena, states: &mut [f32]) {
        let Checkpoint { params, decoder, objective, .. } = checkpoint;
        let layers = objective.on_states().map_or(0, OnStates::layers_below);
        let layout = objective.layout(alone, 1);
        let mut tape = Tape::evaluation(params, arena, &layout).in_precision(self.precision);
        let embedded = decoder.embed(&mut tape, &alone.inputs());
        let last = decoder.run_blocks(&mut tape, embedded, 0..layers, &mut |_, _, _| {});
        states.copy_from_slice(tape.value(&last));
        tape.forget();
    }
}

/// Which of the windows of an epoch, in the order in which they come, have states on disk already, as far as can be told without
/// reading them.
///
/// # Errors
/// When the file is there and cannot be read.
pub(crate) fn kept(config: &RunConfig, checkpoint: &Checkpoint, data: &RunData) -> Result<Vec<bool>> {
    let (path, values) = (path_of(config, checkpoint, data)?, values(config, checkpoint));
    let windows = data.training.windows_to_come();
    if !path.exists() {
        return Ok(windows.map(|_| false).collect());
    }
    let mut file = fs_err::File::open(&path)?;
    let whole = file.metadata()?.len();
    windows
        .map(|window| {
            let (place, mut checksums) = (record(values, window.into()), [0; CHECKSUMS]);
            if place < whole {
                file.seek(SeekFrom::Start(place))?;
                file.read_exact(&mut checksums)?;
            }
            // What was never written reads as zeros.
            Ok(checksums != [0; CHECKSUMS])
        })
        .collect()
}

/// The file of the trunk in `checkpoint` and of the text in `data`.
fn path_of(config: &RunConfig, checkpoint: &Checkpoint, data: &RunData) -> Result<PathBuf> {
    let Some(objective) = checkpoint.objective.on_states() else {
        let problem = "wants an objective that begins from states of the trunk".to_owned();
        return Err(Error::Setting { key: "train.cache_states".to_owned(), problem });
    };
    let decoder = &checkpoint.decoder.config;
    let place = data.training.state();
    let mut key = Digest::new();
    key.text(FORMAT)
        .text(&digest(&checkpoint.params, decoder))
        .text(&format!("{decoder:?} {:?}", config.train.dtype))
        .number(objective.layers_below() as u64)
        .text(&place.fingerprint)
        .number(place.seed)
        .number(place.length as u64);
    Ok(cache_folder(config).join(format!("trunk-states-{}.f32", &key.hex()[..16])))
}

/// Values of a record.
fn values(config: &RunConfig, checkpoint: &Checkpoint) -> usize {
    config.train.length * checkpoint.decoder.config.width
}

/// Where the record of `window` begins.
fn record(values: usize, window: u64) -> u64 {
    window * (CHECKSUMS + 4 * values) as u64
}

fn checksum_of_inputs(row: &Batch) -> u32 {
    let numbers = row.inputs().into_iter().chain(row.positions.iter().chain(&row.first_visible).copied());
    crc32c::crc32c(&numbers.flat_map(u32::to_le_bytes).collect::<Vec<u8>>())
}

fn checksums_of(inputs: u32, states: &[u8]) -> [u8; CHECKSUMS] {
    let mut checksums = [0; CHECKSUMS];
    checksums[..4].copy_from_slice(&inputs.to_le_bytes());
    checksums[4..].copy_from_slice(&crc32c::crc32c(states).to_le_bytes());
    checksums
}
