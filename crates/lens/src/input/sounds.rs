//! Sounds: wav files, mixed to one channel and brought to the model's rate.

use std::path::{Path, PathBuf};

use hound::{SampleFormat, WavReader};
use rubato::audioadapter_buffers::owned::InterleavedOwned;
use rubato::{Fft, FixedSync, Resampler};

use super::{counted, files};
use crate::error::{Error, Result};

/// A wave longer than this is not read whole.
const MOST_SAMPLES: u32 = 200_000_000;

/// Rates that a file may state.
const RATES: std::ops::RangeInclusive<u32> = 1_000..=384_000;

/// Samples that the resampler takes at once.
const CHUNK: usize = 1024;

/// Waves, one after the other.
pub struct Sounds {
    rate: u32,
    files: Vec<PathBuf>,
    next: usize,
    mixed: usize,
    resampled: usize,
}

impl Sounds {
    /// The wav files at `path`, a file or a folder, to be heard at `rate` samples a second.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(path: &Path, rate: u32) -> Result<Self> {
        Ok(Self { rate, files: files(path, &["wav"], "sounds")?, next: 0, mixed: 0, resampled: 0 })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.files.len()
    }

    /// The file that was read last.
    pub fn file(&self) -> Option<&Path> {
        Some(self.files.get(self.next.checked_sub(1)?)?)
    }

    /// What was done to those that were read so far, in a line; `None` if nothing.
    pub fn converted(&self) -> Option<String> {
        let mixed = counted(self.mixed, self.next, "sounds", "mixed to one channel");
        let done = format!("resampled to {} Hz", self.rate);
        let both: Vec<String> =
            mixed.into_iter().chain(counted(self.resampled, self.next, "sounds", &done)).collect();
        (!both.is_empty()).then(|| both.join(", "))
    }
}

impl Iterator for Sounds {
    type Item = Result<Vec<f32>>;

    fn next(&mut self) -> Option<Result<Vec<f32>>> {
        let file = self.files.get(self.next)?;
        self.next += 1;
        Some(read_wave(file).and_then(|(samples, channels, rate)| {
            self.mixed += usize::from(channels > 1);
            if rate == self.rate {
                return Ok(samples);
            }
            self.resampled += 1;
            resample(samples, rate, self.rate).map_err(|reason| Error::file(file, reason))
        }))
    }
}

/// Samples from -1 to 1, mixed to one channel; how many channels there were; samples a second.
///
/// # Errors
/// When the file is no wav file, or is damaged.
pub fn read_wave(file: &Path) -> Result<(Vec<f32>, u16, u32)> {
    let refuse = |reason: String| Error::file(file, format!("no wav file that can be read ({reason})"));
    let stream = std::io::BufReader::new(fs_err::File::open(file)?);
    let mut reader = WavReader::new(stream).map_err(|error| refuse(error.to_string()))?;
    let spec = reader.spec();
    if spec.channels == 0 || !RATES.contains(&spec.sample_rate) || reader.len() > MOST_SAMPLES {
        return Err(refuse(format!(
            "{} channels at {} Hz, {} samples",
            spec.channels,
            spec.sample_rate,
            reader.len()
        )));
    }
    let samples: Result<Vec<f32>, hound::Error> = match spec.sample_format {
        SampleFormat::Float => reader.samples::<f32>().collect(),
        SampleFormat::Int => {
            let scale = 1.0 / (1u64 << (spec.bits_per_sample.max(1) - 1)) as f32;
            reader.samples::<i32>().map(|sample| Ok(sample? as f32 * scale)).collect()
        }
    };
    let samples = samples.map_err(|error| refuse(error.to_string()))?;
    if samples.is_empty() || samples.iter().any(|sample| !sample.is_finite()) {
        return Err(refuse("no samples, or samples that are no numbers".to_owned()));
    }
    let channels = usize::from(spec.channels);
    let mixed = samples.chunks(channels).map(|frame| frame.iter().sum::<f32>() / channels as f32).collect();
    Ok((mixed, spec.channels, spec.sample_rate))
}

fn resample(samples: Vec<f32>, from: u32, to: u32) -> Result<Vec<f32>, String> {
    let count = samples.len();
    let mut resampler = Fft::<f32>::new(from as usize, to as usize, CHUNK, 1, FixedSync::Input)
        .map_err(|error| format!("cannot be resampled from {from} Hz ({error})"))?;
    let input = InterleavedOwned::new_from(samples, 1, count).map_err(|error| error.to_string())?;
    let output = resampler.process_all(&input, count, None).map_err(|error| error.to_string())?;
    Ok(output.take_data())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(file: &Path, channels: u16, rate: u32, frames: usize, value: impl Fn(usize, u16) -> f32) {
        let spec = hound::WavSpec {
            channels,
            sample_rate: rate,
            bits_per_sample: 16,
            sample_format: SampleFormat::Int,
        };
        let mut writer = hound::WavWriter::create(file, spec).unwrap();
        for frame in 0..frames {
            for channel in 0..channels {
                writer.write_sample((value(frame, channel) * 32767.0) as i16).unwrap();
            }
        }
        writer.finalize().unwrap();
    }

    #[test]
    fn stereo_is_mixed_and_other_rates_are_brought_to_the_models() {
        let folder = tempfile::tempdir().unwrap();
        let tone =
            |rate: f32| move |frame: usize| (std::f32::consts::TAU * 440.0 * frame as f32 / rate).sin() * 0.5;
        write(&folder.path().join("a.wav"), 1, 16_000, 1600, |frame, _| tone(16_000.0)(frame));
        write(&folder.path().join("b.wav"), 2, 44_100, 4410, |frame, channel| {
            if channel == 0 { 2.0 * tone(44_100.0)(frame) } else { 0.0 }
        });
        let mut sounds = Sounds::open(folder.path(), 16_000).unwrap();
        let [a, b] = [sounds.next().unwrap().unwrap(), sounds.next().unwrap().unwrap()];
        assert_eq!((a.len(), b.len()), (1600, 1600));
        // Away from the ends, where the filter has settled. The resampler's delay is taken off in whole samples: what is left of it
        // is below half a sample, in which a tone of 440 Hz and half the height moves by no more than this.
        let room = 0.5 * 0.5 * std::f32::consts::TAU * 440.0 / 16_000.0;
        for (place, (a, b)) in a.iter().zip(&b).enumerate().take(1300).skip(300) {
            assert!((a - b).abs() < room, "{place}: {a} {b}");
        }
        assert_eq!(
            sounds.converted().unwrap(),
            "1 of 2 sounds mixed to one channel, 1 of 2 sounds resampled to 16000 Hz"
        );
    }

    #[test]
    fn what_is_no_sound_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.wav");
        fs_err::write(&file, "RIFFnothing").unwrap();
        assert!(read_wave(&file).unwrap_err().to_string().contains("x.wav: no wav file that can be read"));
        assert!(Sounds::open(&folder.path().join("y.wav"), 8000).is_err());
        fs_err::remove_file(&file).unwrap();
        assert!(
            Sounds::open(folder.path(), 8000).err().unwrap().to_string().contains("no sounds in this folder")
        );
    }
}
