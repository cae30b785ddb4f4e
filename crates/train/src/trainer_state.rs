//! `trainer/` in a run's newest checkpoint: what the run needs to go on as if it had never stopped.
//!
//! | file | holds |
//! |---|---|
//! | `state.json` | steps done and the time they took, position in the data, the losses that decide what is best and when to stop |
//! | `moments.safetensors` | the moments of every trained parameter, as `NAME.first` and, where AdamW updates it, `NAME.second` |
//!
//! Nothing else is random or carried over: the learning rate and the depths of a step follow from its number.

use std::collections::BTreeMap;
use std::path::Path;

use data::LoaderState;
use serde::{Deserialize, Serialize};
use tensor::{Optimiser, Params};

use crate::error::{Error, Result};
use crate::evaluate::Evaluation;
use crate::prepare::RunData;
use crate::run_folder::RunFolder;
use crate::watchdog::Watchdog;

/// Where a run stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrainerState {
    format: u32,
    /// Steps done.
    pub(crate) step: usize,
    /// Inputs seen.
    pub(crate) tokens: u64,
    /// Seconds that training took up to here, before and after every resumption.
    pub(crate) seconds: f64,
    /// The lowest weighted sum of held-out losses so far.
    pub(crate) best_loss: Option<f64>,
    /// The lowest such sum that evaluations without a gain are judged by.
    #[serde(default)]
    pub(crate) loss_to_beat: Option<f64>,
    /// Evaluations in a row that did not beat it by the least gain.
    #[serde(default)]
    pub(crate) evaluations_without_gain: usize,
    /// The losses so far, as far as they decide whether one explodes.
    #[serde(default)]
    pub(crate) watchdog: Watchdog,
    /// The newest evaluation.
    pub(crate) evaluation: Option<Evaluation>,
    /// Position in the data.
    pub(crate) loader: LoaderState,
    /// Fingerprint of the held-out text, so that losses before and after are of the same text.
    pub(crate) held_out: String,
    /// Updates of the parameters that had fewer than `step`, by name: heads that joined late.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    updates: BTreeMap<String, u64>,
}

const FOLDER: &str = "trainer";
const STATE: &str = "state.json";
const MOMENTS: &str = "moments.safetensors";

/// Version of the folder.
const FORMAT: u32 = 1;

impl TrainerState {
    /// Before the first step.
    pub(crate) fn new(loader: LoaderState, held_out: &str) -> Self {
        Self {
            format: FORMAT,
            step: 0,
            tokens: 0,
            seconds: 0.0,
            best_loss: None,
            loss_to_beat: None,
            evaluations_without_gain: 0,
            watchdog: Watchdog::default(),
            evaluation: None,
            loader,
            held_out: held_out.to_owned(),
            updates: BTreeMap::new(),
        }
    }

    /// The state in `checkpoint`, which is one of `run`'s.
    pub(crate) fn read(checkpoint: &Path, run: &RunFolder) -> Result<Self> {
        let file = checkpoint.join(FOLDER).join(STATE);
        if !model::checkpoint::present(&file)? {
            return Err(Error::MissingFile { file });
        }
        let refuse = |reason: String| Error::Json { file: file.clone(), reason };
        let mut state: Self =
            serde_json::from_slice(&fs_err::read(&file)?).map_err(|error| refuse(error.to_string()))?;
        if state.format != FORMAT {
            return Err(refuse(format!("format {} is not known here (only {FORMAT})", state.format)));
        }
        if !run.best().exists() {
            // Somebody removed it: the next evaluation is the best there is.
            state.best_loss = None;
        }
        Ok(state)
    }

    /// Takes `data` to where the run stood.
    ///
    /// # Errors
    /// When the text is another than then.
    pub(crate) fn fits(&self, data: &mut RunData) -> Result<()> {
        data.training.restore(&self.loader)?;
        if self.held_out != data.held_out.fingerprint() {
            let what = "the held-out text has changed since it was saved".to_owned();
            return Err(data::Error::Position(what).into());
        }
        Ok(())
    }

    /// Writes `trainer/` into `checkpoint`.
    pub(crate) fn write(&mut self, checkpoint: &Path, params: &Params, optimiser: &Optimiser) -> Result<()> {
        let updates = params.iter().map(|(id, param)| (param, optimiser.updates(id)));
        self.updates = updates
            .filter(|(param, updates)| param.trainable && *updates != self.step as u64)
            .map(|(param, updates)| (param.name.clone(), updates))
            .collect();
        let folder = checkpoint.join(FOLDER);
        fs_err::create_dir_all(&folder)?;
        let mut text = serde_json::to_vec_pretty(self).map_err(std::io::Error::from)?;
        text.push(b'\n');
        model::checkpoint::write_file(&folder.join(STATE), &text)?;
        let named = params.iter().filter_map(|(id, param)| Some((param, optimiser.moments(id)?)));
        let tensors: Vec<(String, &[usize], &[f32])> = named
            .flat_map(|(param, (first, second))| {
                let [first_name, second_name] = moment_names(&param.name);
                [(first_name, param.shape.as_slice(), first), (second_name, param.shape.as_slice(), second)]
            })
            // Muon has no second moments.
            .filter(|(_, _, moments)| !moments.is_empty())
            .collect();
        let tensors: Vec<_> =
            tensors.iter().map(|(name, shape, data)| (name.as_str(), *shape, *data)).collect();
        Ok(model::checkpoint::write_tensors(&folder.join(MOMENTS), &tensors, &[])?)
    }

    /// Puts the moments and the number of updates back into `optimiser`.
    pub(crate) fn restore(
        &self,
        checkpoint: &Path,
        params: &Params,
        optimiser: &mut Optimiser,
    ) -> Result<()> {
        let file = checkpoint.join(FOLDER).join(MOMENTS);
        if !model::checkpoint::present(&file)? {
            return Err(Error::MissingFile { file });
        }
        let mut moments = std::collections::HashMap::new();
        for tensor in model::checkpoint::read_file_tensors(&file)? {
            moments.insert(tensor.name, tensor.data);
        }
        for (id, param) in params.iter().filter(|(_, param)| param.trainable) {
            let lengths = optimiser.moments(id).map_or([0; 2], |(first, second)| [first.len(), second.len()]);
            let [first, second] = moment_names(&param.name);
            let mut find = |name: String, length: usize| {
                if length == 0 {
                    return Ok(Vec::new());
                }
                let found = moments.remove(&name).filter(|data| data.len() == length);
                found.ok_or_else(|| {
                    let problem = "is missing or of another size".to_owned();
                    Error::Tensor { file: file.clone(), tensor: name, problem }
                })
            };
            let (first, second) = (find(first, lengths[0])?, find(second, lengths[1])?);
            let updates = self.updates.get(&param.name).copied().unwrap_or(self.step as u64);
            optimiser.restore_moments(id, &first, &second, updates);
        }
        optimiser.restore_steps(self.step as u64);
        Ok(())
    }
}

fn moment_names(parameter: &str) -> [String; 2] {
    [format!("{parameter}.first"), format!("{parameter}.second")]
}
