//! The checkpoints of a run: the newest, those kept before it, and which of them a run goes on from.
//!
//! `checkpoints/last` is always the newest. When the next one is whole and synced, the one before becomes
//! `checkpoints/step-N`, and only then those beyond `checkpoint.keep_last` are removed. A run goes on from the newest whole
//! one: from `last`, or, should a file of that be damaged, gone or of another run, from the newest of the others.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use model::LoraSpec;
use model::lora::ADAPTER_CONFIG;

use crate::checkpoint::{ADAPTER, Checkpoint};
use crate::config::RunConfig;
use crate::error::{Error, Result};
use crate::run_folder::RunFolder;
use crate::start::choose_trained;
use crate::step::Stepper;
use crate::trainer_state::TrainerState;

/// What a run goes on from.
pub(crate) struct Interrupted {
    /// Vocabulary, model and heads.
    pub(crate) checkpoint: Checkpoint,
    /// With the moments put back.
    pub(crate) stepper: Stepper,
    /// Where the run stood.
    pub(crate) state: TrainerState,
    /// The folder that all this came from.
    pub(crate) folder: PathBuf,
    /// Why it is not the newest.
    pub(crate) note: Option<String>,
}

/// Settles what interrupted saves left.
///
/// # Errors
/// When a folder cannot be renamed or removed.
pub(crate) fn settle(folder: &RunFolder) -> Result<()> {
    for settled in [folder.last(), folder.best()] {
        model::checkpoint::recover_folder(&settled)?;
    }
    Ok(())
}

/// The newest whole checkpoint of the run in `folder`; `None` if none was ever written. What interrupted saves left is
/// [`settle`]d before.
///
/// # Errors
/// What is wrong with the newest one, if none is whole.
pub(crate) fn newest_whole(config: &RunConfig, folder: &RunFolder) -> Result<Option<Interrupted>> {
    let last = Some(folder.last()).filter(|last| last.exists());
    let older = steps(folder).into_iter().rev().map(|step| folder.kept(step));
    let mut refusal = None;
    for candidate in last.into_iter().chain(older) {
        match read(config, folder, &candidate) {
            Ok(mut found) => {
                found.note = refusal.map(|error: Error| {
                    format!(
                        "the newest checkpoint cannot be used ({error}): going on from {}",
                        candidate.display()
                    )
                });
                return Ok(Some(found));
            }
            Err(error) => refusal = Some(refusal.unwrap_or(error)),
        }
    }
    refusal.map_or(Ok(None), Err)
}

fn read(config: &RunConfig, run: &RunFolder, folder: &Path) -> Result<Interrupted> {
    let state = TrainerState::read(folder, run)?;
    let mut checkpoint = Checkpoint::load(folder)?;
    check_adapter(config, &checkpoint, folder)?;
    choose_trained(&mut checkpoint, config.train.mode);
    let mut stepper = Stepper::new(&checkpoint.params, &config.train);
    state.restore(folder, &checkpoint.params, &mut stepper.optimiser)?;
    Ok(Interrupted { checkpoint, stepper, state, folder: folder.to_owned(), note: None })
}

/// That the checkpoint in `folder` has adapters as the run trains them, on the same matrices: without them the run would go on with
/// the bare base.
fn check_adapter(config: &RunConfig, checkpoint: &Checkpoint, folder: &Path) -> Result<()> {
    let file = folder.join(ADAPTER).join(ADAPTER_CONFIG);
    let is_own = match (config.adapters(), &checkpoint.lora) {
        (None, None) => true,
        (None, Some(_)) => false,
        (Some(_), None) => return Err(Error::MissingFile { file }),
        (Some(wanted), Some(found)) => {
            let modules = wanted.modules(&checkpoint.decoder.config)?;
            let targets: BTreeSet<&String> = modules.iter().map(|(name, _)| name).collect();
            targets == found.targets.iter().collect()
                && *found == LoraSpec { targets: found.targets.clone(), ..wanted }
        }
    };
    if is_own {
        return Ok(());
    }
    Err(model::Error::Lora { problem: format!("{} is not of this run", file.display()) }.into())
}

/// Moves `last` out of the way if an older checkpoint is kept, and returns that one's step: for a `last` that was written
/// right before its loss was found to explode. It stays as `checkpoints/diverged`.
pub(crate) fn set_last_aside(folder: &RunFolder) -> Result<Option<usize>> {
    let Some(&older) = steps(folder).last() else { return Ok(None) };
    let aside = folder.checkpoints().join("diverged");
    if aside.exists() {
        fs_err::remove_dir_all(&aside)?;
    }
    fs_err::rename(folder.last(), aside)?;
    Ok(Some(older))
}

/// Removes all but the newest `count` of the checkpoints that are kept beside `last`.
pub(crate) fn prune(folder: &RunFolder, count: usize) -> Result<()> {
    let mut steps = steps(folder);
    let surplus = steps.len().saturating_sub(count);
    for step in steps.drain(..surplus) {
        fs_err::remove_dir_all(folder.kept(step))?;
    }
    Ok(())
}

/// The steps of the checkpoints that are kept beside `last`, in order.
fn steps(folder: &RunFolder) -> Vec<usize> {
    let entries = fs_err::read_dir(folder.checkpoints()).into_iter().flatten().flatten();
    let step = |entry: fs_err::DirEntry| entry.file_name().to_str()?.strip_prefix("step-")?.parse().ok();
    let mut steps: Vec<usize> = entries.filter_map(step).filter(|&step| folder.kept(step).is_dir()).collect();
    steps.sort_unstable();
    steps
}
