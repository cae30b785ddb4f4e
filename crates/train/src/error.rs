//! The one error type of this crate: every message is one line that says what is wrong, where, and what to do.

use std::{fmt, path::PathBuf};

/// What the functions of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What is left of a run that had to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Safe {
    /// The step of the newest checkpoint, if there is one.
    pub newest: Option<usize>,
}

impl fmt::Display for Safe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.newest {
            Some(step) => write!(f, "the checkpoint of step {step} is whole"),
            None => write!(f, "there is no checkpoint to go on from"),
        }
    }
}

/// What can be done about a loss that went wrong. What a resumed run may not change needs a new run.
fn remedies(safe: Safe, learning_rate: f64, clip: f64, lora_alpha: Option<f64>) -> String {
    let off = if clip == 0.0 { ", which is off" } else { "" };
    let gentler = format!(
        "with a lower train.learning_rate (now {learning_rate:?}) or a smaller train.clip (now {clip}{off})"
    );
    let alpha = lora_alpha.map_or(String::new(), |alpha| format!(" or a smaller lora.alpha (now {alpha:?})"));
    match safe.newest {
        Some(_) => format!(
            "go on from it {gentler}, or begin again in another run.folder with more train.warmup_steps{alpha}"
        ),
        None => format!(
            "begin again in another run.folder, or remove this one first, {gentler}, or more train.warmup_steps{alpha}"
        ),
    }
}

/// Everything that can keep a run from starting or going on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file system refused; the message names the operation and the path.
    #[error("{0}")]
    Io(#[from] std::io::Error),

    /// A run file or an override that is no TOML of the right form.
    #[error("{place}: {reason}")]
    NoToml {
        /// File and line, or `override`.
        place: String,
        /// What is wrong.
        reason: String,
    },

    /// A key that no run file has.
    #[error("{place}: unknown key {key}; {hint}")]
    UnknownKey {
        /// File and line, or `override`.
        place: String,
        /// The key with its section.
        key: String,
        /// The nearest key, or those that there are.
        hint: String,
    },

    /// A value of another kind than its key takes.
    #[error("{place}: {key} = {found}: expected {expected}")]
    WrongValue {
        /// File and line, or `override`.
        place: String,
        /// The key with its section.
        key: String,
        /// The value, as TOML.
        found: String,
        /// What the key takes.
        expected: String,
    },

    /// A setting that cannot work.
    #[error("{key} {problem}")]
    Setting {
        /// The key with its section.
        key: String,
        /// What is wrong and what to do.
        problem: String,
    },

    /// A line of events.jsonl that is no event.
    #[error("{}:{line}: {reason}", .file.display())]
    Event {
        /// The file.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },

    /// Another process trains in the run's folder.
    #[error("{} is in use: another process trains in this folder", .file.display())]
    Busy {
        /// The run's events.jsonl.
        file: PathBuf,
    },

    /// A new run was to be started where one is.
    #[error(
        "{} already holds a run: add --resume to go on with it, or choose another run.folder",
        .folder.display()
    )]
    RunExists {
        /// The run's folder.
        folder: PathBuf,
    },

    /// A run was to go on where none is.
    #[error("{} holds no run to resume: start one without --resume", .folder.display())]
    NothingToResume {
        /// The folder.
        folder: PathBuf,
    },

    /// Settings were changed that must stay when a run goes on.
    #[error(
        "the run in {} was started with other values of {keys}: put them back (its run.toml has them), \
         or start a new run in another run.folder",
        .folder.display()
    )]
    OtherSettings {
        /// The run's folder.
        folder: PathBuf,
        /// The keys, separated by commas.
        keys: String,
    },

    /// Loss or gradient are no longer finite, or the loss has risen too far.
    #[error("step {step}: {what}; {safe}: {}", remedies(*.safe, *.learning_rate, *.clip, *.lora_alpha))]
    Diverged {
        /// The step.
        step: usize,
        /// What is wrong with which loss.
        what: String,
        /// What is left of the run.
        safe: Safe,
        /// `train.learning_rate`
        learning_rate: f64,
        /// `train.clip`
        clip: f64,
        /// `lora.alpha`, where adapters are trained.
        lora_alpha: Option<f64>,
    },

    /// Something could not be written while the run went on.
    #[error("step {step}: {reason}; {safe}: make room or repair the folder, then go on with --resume")]
    NotWritten {
        /// The step after which the run stopped.
        step: usize,
        /// What the system said, with the path.
        reason: String,
        /// What is left of the run.
        safe: Safe,
    },

    /// The run's folder was moved or removed while the run went on.
    #[error(
        "step {step}: {} is no longer there, so that nothing can be kept: put it back, then go on with --resume, or \
         start again",
        .folder.display()
    )]
    Vanished {
        /// The step after which it was noticed.
        step: usize,
        /// The run's folder.
        folder: PathBuf,
    },

    /// A run that wants more memory than there is.
    #[error(
        "this run wants about {:.1} GB of memory ({:.1} GB of weights, gradients and moments, {:.1} GB of buffers) and the \
         machine has {:.1} GB: take a smaller model.architecture, or less train.batch or train.length (train.accumulate \
         makes up for it)",
        *.wanted as f64 / 1e9, (.wanted - .buffers) as f64 / 1e9, *.buffers as f64 / 1e9, *.machine as f64 / 1e9
    )]
    TooLarge {
        /// Bytes that the run wants.
        wanted: u64,
        /// Bytes of these that are buffers of a step.
        buffers: u64,
        /// Bytes that the machine has.
        machine: u64,
    },

    /// A depth that cannot be judged.
    #[error(
        "the text to evaluate on has nothing to predict at depth {depth}: take longer documents or more batches, \
         or train with a smaller objective.n (objective.d_max of registers)"
    )]
    NothingHeldOut {
        /// The first such depth; 1 is the next token.
        depth: usize,
    },

    /// A model that says nothing of the text.
    #[error(
        "the model's logits are not finite: its loss at depth {depth} is {loss}; its weights are damaged or training diverged"
    )]
    NotFinite {
        /// The first such depth; 1 is the next token.
        depth: usize,
        /// The loss.
        loss: f64,
    },

    /// Text of which no target stands for a byte.
    #[error(
        "the tokenizer can spell nothing of the text to evaluate on: take text of the kind that it was made for, or another model"
    )]
    NothingSpelt,

    /// A tokenizer has more tokens than the model knows.
    #[error(
        "the tokenizer has {tokens} tokens and the embedding {rows} rows: use the tokenizer that belongs to the model"
    )]
    VocabularyTooLarge {
        /// The highest id of the tokenizer + 1.
        tokens: usize,
        /// Rows of the embedding.
        rows: usize,
    },

    /// A checkpoint with another tokenizer than the one that it was trained with.
    #[error(
        "{} is another tokenizer than the one that model.safetensors beside it was trained with: put that one back, \
         it is in the checkpoint's other copies",
        .file.display()
    )]
    OtherTokenizer {
        /// The `tokenizer.json`.
        file: PathBuf,
    },

    /// A checkpoint with another chat template than the one that it was trained with.
    #[error(
        "the chat template in {} is another one than that which model.safetensors beside it was trained with: put that one \
         back, or name it with data.chat_template when you train on",
        .folder.display()
    )]
    OtherTemplate {
        /// The checkpoint.
        folder: PathBuf,
    },

    /// A file of a checkpoint is not there.
    #[error("{} is missing; the checkpoint is incomplete, copy or write it again", .file.display())]
    MissingFile {
        /// The file.
        file: PathBuf,
    },

    /// A JSON file of a checkpoint that is damaged or of another version.
    #[error("{}: {reason}; the checkpoint was written by another version, or is damaged", .file.display())]
    Json {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// A tensor of the heads or of the optimiser does not fit.
    #[error("{}: tensor {tensor} {problem}; the files do not belong together", .file.display())]
    Tensor {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong with it.
        problem: String,
    },

    /// Heads that were trained on other weights.
    #[error(
        "{} was made for other weights than those of model.safetensors beside it: train the heads again, or set \
         \"trunk\" to null in it to use them all the same",
        .file.display()
    )]
    OtherTrunk {
        /// The `mtp.json`.
        file: PathBuf,
    },

    /// Text or tokenizer.
    #[error(transparent)]
    Data(#[from] data::Error),

    /// Model or its files.
    #[error(transparent)]
    Model(#[from] model::Error),

    /// The heads.
    #[error(transparent)]
    Objective(#[from] objective::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_diverged_is_told_what_can_be_done() {
        let told = |newest, lora_alpha| {
            let (safe, what) = (Safe { newest }, "the loss is NaN".to_owned());
            Error::Diverged { step: 3, what, safe, learning_rate: 0.5, clip: 0.0, lora_alpha }.to_string()
        };
        assert_eq!(
            told(None, Some(64.0)),
            "step 3: the loss is NaN; there is no checkpoint to go on from: begin again in another run.folder, or remove this one first, \
             with a lower train.learning_rate (now 0.5) or a smaller train.clip (now 0, which is off), or more \
             train.warmup_steps or a smaller lora.alpha (now 64.0)"
        );
        assert!(
            told(Some(2), None).contains("the checkpoint of step 2 is whole: go on from it with a lower")
        );
        assert!(told(Some(2), None).ends_with("in another run.folder with more train.warmup_steps"));
    }
}
