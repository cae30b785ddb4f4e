//! `sakiyomi merge`: an adapter into its base.

use serde::Serialize;
use train::Checkpoint;

use super::new_folder::absent;
use crate::arguments::Merge;
use crate::failure::Verdict;
use crate::output::Output;

#[derive(Serialize)]
struct Merged {
    output: String,
    written: bool,
    rank: usize,
    tensors: usize,
    merged: Vec<String>,
}

pub fn run(merge: &Merge, output: Output) -> anyhow::Result<Verdict> {
    let folder = merge.output.display().to_string();
    absent(&merge.output)?;
    let mut checkpoint = Checkpoint::load(&merge.checkpoint)?;
    if let Some(adapter) = &merge.adapter {
        checkpoint.adapt(adapter)?;
    }
    let Some(lora) = checkpoint.lora.clone() else {
        anyhow::bail!(
            "{} has no adapter: name one with --adapter, or a checkpoint of a run with train.mode \"lora\"",
            merge.checkpoint.display()
        );
    };
    let names = checkpoint.merge()?;
    let tensors = checkpoint.decoder.config.tensors().len();
    if !merge.dry_run {
        checkpoint.save(&merge.output)?;
        // What is on disk is what was merged, tensor by tensor.
        let written = Checkpoint::load(&merge.output)?;
        for spec in checkpoint.decoder.config.tensors() {
            let of = |checkpoint: &Checkpoint| {
                checkpoint.params.find(&spec.name).map(|id| checkpoint.params.data(id).to_vec())
            };
            anyhow::ensure!(
                of(&written) == of(&checkpoint),
                "{folder}: {} was not written as it is",
                spec.name
            );
        }
    }
    let merged = Merged { output: folder, written: !merge.dry_run, rank: lora.rank, tensors, merged: names };
    output.result(&merged, || {
        let Merged { output, rank, tensors, merged, .. } = &merged;
        let done = if merge.dry_run { "would write" } else { "wrote" };
        format!(
            "{done} {output}: {tensors} tensors, of which {} had adapters of rank {rank}; the others are as they were",
            merged.len()
        )
    })?;
    Ok(Verdict::Done)
}
