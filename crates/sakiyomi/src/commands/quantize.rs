//! `sakiyomi quantize`: weights packed for decoding, on disk.

use std::path::{Path, PathBuf};

use kernels::packed::WeightType;
use serde::Serialize;
use train::Checkpoint;

use super::new_folder::absent;
use crate::arguments::Quantize;
use crate::failure::Verdict;
use crate::output::Output;

#[derive(Serialize)]
struct Quantized<'a> {
    checkpoint: &'a Path,
    output: &'a Path,
    weights: &'static str,
    parameters: u64,
    bytes_before: u64,
    /// None in a dry run.
    bytes_after: Option<u64>,
}

pub fn run(arguments: &Quantize, output: Output) -> anyhow::Result<Verdict> {
    anyhow::ensure!(
        arguments.weights != WeightType::F32,
        "--weights f32: a checkpoint is already f32; give bf16, int8 or int4"
    );
    absent(&arguments.output)?;
    let checkpoint = Checkpoint::load(&arguments.checkpoint)?;
    if !arguments.dry_run {
        checkpoint.save_packed(&arguments.output, arguments.weights)?;
    }
    let quantized = Quantized {
        checkpoint: &arguments.checkpoint,
        output: &arguments.output,
        weights: arguments.weights.name(),
        parameters: checkpoint.decoder.config.parameters(),
        bytes_before: weight_bytes(&arguments.checkpoint)?,
        bytes_after: match arguments.dry_run {
            true => None,
            false => Some(weight_bytes(&arguments.output)?),
        },
    };
    output.result(&quantized, || quantized.text())?;
    Ok(Verdict::Done)
}

/// Size of all weight files of a folder.
fn weight_bytes(folder: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in fs_err::read_dir(folder)? {
        let file: PathBuf = entry?.path();
        if file.extension().is_some_and(|extension| extension == "safetensors") {
            bytes += fs_err::metadata(&file)?.len();
        }
    }
    Ok(bytes)
}

impl Quantized<'_> {
    fn text(&self) -> String {
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        let size = match self.bytes_after {
            None => "nothing written".to_owned(),
            Some(bytes) => format!("{:.1} MB", megabytes(bytes)),
        };
        format!(
            "{}: {:.1} MB of weights\n{}: {} weights, {size}",
            self.checkpoint.display(),
            megabytes(self.bytes_before),
            self.output.display(),
            self.weights
        )
    }
}
