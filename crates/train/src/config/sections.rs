//! The sections of a run file: keys, meanings, defaults, each declared once.
//!
//! The doc comment of a key is also its comment in the template, so it is written for whoever edits a run file.

use std::path::PathBuf;

use objective::{
    BalanceOn, HeadKind, JointKind, JointStart, JointWindows, OffsetsPer, RowEnd, UnembeddingKind,
};
use serde::{Deserialize, Serialize};

use super::keys::{Key, Kind, Setting};

/// Declares a section: the structure, its defaults and its keys.
macro_rules! section {
    ($(#[doc = $title:literal])+ $name:ident ($path:literal) {
        $($(#[doc = $meaning:literal])+ $key:ident: $type:ty = $default:expr,)*
    }) => {
        $(#[doc = $title])+
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $($(#[doc = $meaning])+ pub $key: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($key: $default,)* }
            }
        }

        impl $name {
            const KEYS: &[Key] = &[$(Key {
                section: $path,
                name: stringify!($key),
                meaning: &[$($meaning),+],
                kind: <$type as Setting>::KIND,
            }),*];
        }
    };
}

/// Declares a choice between named values.
macro_rules! choice {
    ($(#[doc = $title:literal])+ $name:ident { $($(#[doc = $meaning:literal])+ $value:ident = $text:literal,)* }) => {
        $(#[doc = $title])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum $name {
            $($(#[doc = $meaning])+ #[serde(rename = $text)] $value,)*
        }

        impl Setting for $name {
            const KIND: Kind = Kind::OneOf(&[$($text),*]);
        }
    };
}

section! {
    /// Where the run is kept, its seed, its threads.
    RunSection("run") {
        /// The run's folder: the resolved run file, events.jsonl and checkpoints go there.
        folder: PathBuf = "run".into(),
        /// A name for reports; empty: the folder's.
        name: String = String::new(),
        /// Decides initial weights and the order of the data.
        seed: u64 = 0,
        /// Threads of the arithmetic; 0: as many as there are cores.
        threads: usize = 0,
        /// Whether to write event files for TensorBoard into the folder tensorboard of the run's.
        tensorboard: bool = true,
    }
}

/// A checkpoint to start from, or a new model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelSection {
    /// A Hugging Face checkpoint folder whose weights and tokenizer to start from.
    pub init: Option<PathBuf>,
    /// The sizes of a new model.
    pub architecture: Option<Architecture>,
}

impl Default for ModelSection {
    fn default() -> Self {
        Self { init: None, architecture: Some(Architecture::default()) }
    }
}

const MODEL_KEYS: &[Key] = &[Key {
    section: "model",
    name: "init",
    meaning: &[
        " A Hugging Face checkpoint folder whose weights and tokenizer to start from, in place of [model.architecture].",
        " (To go on with an interrupted run, use --resume instead.)",
    ],
    kind: Kind::Text,
}];

section! {
    /// The sizes of a new model: a preset, single sizes of which may be replaced.
    Architecture("model.architecture") {
        /// Sizes by parameters of the blocks: 1M, 3M, 10M, 30M or 100M. The keys below replace single sizes.
        preset: String = "3M".to_owned(),
        /// Width of the residual stream.
        width: Option<usize> = None,
        /// Transformer blocks.
        layers: Option<usize> = None,
        /// Query heads of the attention.
        heads: Option<usize> = None,
        /// Key and value heads; divides heads.
        kv_heads: Option<usize> = None,
        /// Inner width of the feed-forward network.
        ffn: Option<usize> = None,
        /// Longest sequence that the finished model is meant for, in tokens.
        context: Option<usize> = None,
        /// Whether embedding and unembedding are one matrix.
        tied: Option<bool> = None,
        /// Images: tokens in a row, where rotary positions are to be those of rows and columns; config.json says so in a field that
        /// no other program knows.
        grid_width: Option<usize> = None,
        /// Images: tokens before the first of the image. By default 2, a class and what asks for it.
        grid_start: Option<usize> = None,
    }
}

choice! {
    /// Which documents are held out.
    SplitKind {
        /// Drawn at random with the run's seed.
        Random = "random",
        /// The last ones.
        Last = "last",
    }
}

choice! {
    /// What the documents are.
    ExamplesKind {
        /// Text, all of which is learnt.
        Text = "text",
        /// Prompts with completions, which are learnt.
        Prompts = "prompts",
        /// Conversations, of which what the assistant says is learnt.
        Messages = "messages",
    }
}

section! {
    /// Text and tokenizer.
    DataSection("data") {
        /// Text to train on: .txt and .jsonl files (also packed as .gz or .zst), .parquet, folders of them, or patterns (*.txt).
        train: Vec<PathBuf> = Vec::new(),
        /// Text to evaluate on; empty: a part of the training text is held out.
        held_out: Vec<PathBuf> = Vec::new(),
        /// Share of the documents to hold out, where held_out is empty.
        held_out_fraction: f64 = 0.05,
        /// Which documents are held out: random ones, or the last.
        split: SplitKind = SplitKind::Random,
        /// "text"; "prompts": a prompt and a completion in a .jsonl line or a .parquet row, or in a line of a .txt file, of which the
        /// completion is learnt; "messages": conversations in .jsonl lines or .parquet rows, of which what the assistant says is
        /// learnt.
        examples: ExamplesKind = ExamplesKind::Text,
        /// Field of the prompt in a .jsonl line or a .parquet row.
        prompt_field: String = "prompt".to_owned(),
        /// Field of the completion in a .jsonl line or a .parquet row.
        completion_field: String = "completion".to_owned(),
        /// What ends the prompt in a line of a .txt file, and belongs to it.
        prompt_end: String = "=".to_owned(),
        /// Field of the messages in a .jsonl line or a .parquet row: a list of objects with role and content.
        messages_field: String = "messages".to_owned(),
        /// A chat template (.jinja) in place of the tokenizer's; it is saved with the checkpoint.
        chat_template: Option<PathBuf> = None,
        /// Where the text stands in a line of a .jsonl file, or the column of a .parquet file.
        field: String = "text".to_owned(),
        /// What stands between the documents of a .txt file; empty: each file is one document.
        separator: String = String::new(),
        /// Documents of .txt files longer than this many bytes are cut, at a blank line where there is one; 0: never.
        longest_document_bytes: usize = 32768,
        /// "bytes", or a tokenizer.json or the folder that holds it; by default that of model.init, or bytes.
        tokenizer: Option<String> = None,
        /// Folder that keeps the tokens of texts from run to run; empty: a folder in the run's.
        cache: PathBuf = PathBuf::new(),
    }
}

choice! {
    /// What is learned.
    ObjectiveKind {
        /// The next token only.
        NextToken = "next-token",
        /// Parallel heads: n tokens from each position.
        Heads = "heads",
        /// Registers: rows beside the tokens that predict farther ahead, in training only.
        Registers = "registers",
        /// Joint heads: a distribution of n tokens together, of a rank.
        Joint = "joint",
    }
}

section! {
    /// What is learned.
    ObjectiveSection("objective") {
        /// "heads": n tokens from each position, each for itself; "joint": n tokens together; "registers": rows beside the tokens
        /// that predict farther ahead, in training only; "next-token": an ordinary language model.
        kind: ObjectiveKind = ObjectiveKind::Heads,
        /// Tokens predicted from each position, the next one included.
        n: usize = 4,
        /// A head is a transformer "layer" on the trunk, a "linear" map, "causal" (a layer on the head before it), or
        /// "anticausal" (the model's own last layers, the farthest token first; adds no parameters).
        head: HeadKind = HeadKind::Linear,
        /// Whether heads share the model's unembedding or have copies of their own (byte vocabularies).
        unembedding: UnembeddingKind = UnembeddingKind::Shared,
        /// Weight of the loss at each depth; empty: 1 for each.
        weights: Vec<f32> = Vec::new(),
        /// Takes as many layers from a new model as the heads cost parameters, so that n does not change the size.
        match_parameters: bool = false,
        /// Starts with the next token and adds one depth (or one offset of registers) every so many steps; 0: all from the start.
        curriculum_steps: usize = 0,
        /// Registers: the smallest offset, tokens from the one before a register to its target. 2 or more where the next token is
        /// easily copied.
        d_min: usize = 1,
        /// Registers: the largest offset.
        d_max: usize = 4,
        /// Registers: their share a of the loss, (1 - a) * mean over tokens + a * mean over registers.
        register_weight: f64 = 0.3,
        /// Registers: one offset for a "sequence", or one for each "register".
        offsets: OffsetsPer = OffsetsPer::Sequence,
        /// Registers: share of the tokens before a target that have one behind them, drawn anew for each row.
        density: f64 = 1.0,
        /// Registers: how many of these tokens of each document in a row, in place of the share; 0: by the share.
        registers: usize = 0,
        /// Registers: how many behind one token, with different offsets.
        consecutive: usize = 1,
        /// Registers of images: tokens in a row of the image, which begins with the first token that is learnt; offsets then go down
        /// and to the right, each by less than d_max. 0: text.
        grid_width: usize = 0,
        /// Registers of images whose target lies beyond the end of the row: "wrap" into the next row, or "drop" them.
        row_end: RowEnd = RowEnd::Wrap,
        /// Registers: share of them that carry a token in training, their position's own or one that they see (docs/registers.md).
        decoys: f64 = 0.0,
        /// Joint heads: states of the mixture. 1 is linear parallel heads.
        rank: usize = 4,
        /// Joint heads: "cp" (a sum over states of products over tokens) or "tree" (a binary tree of mixtures).
        joint: JointKind = JointKind::Cp,
        /// Joint heads: the components' maps begin as the "identity" with a little noise, or "random".
        joint_start: JointStart = JointStart::Identity,
        /// Joint heads: learnt from "all" positions, or from the "first" of each document only.
        windows: JointWindows = JointWindows::All,
        /// Joint heads: coefficient of the loss that evens out the components' use; 0: none.
        balance: f64 = 0.0,
        /// Joint heads: what it evens out, the "weights" before a token is seen or the "responsibilities" after all.
        balance_on: BalanceOn = BalanceOn::Weights,
        /// Joint heads: share of the loss that is the divergence from what the model itself says of each token, in place of the
        /// text's token; 0: none.
        distill: f64 = 0.0,
    }
}

choice! {
    /// What is trained.
    TrainMode {
        /// A new model, everything.
        Pretrain = "pretrain",
        /// Everything, from model.init.
        Full = "full",
        /// The heads only; the model of model.init stays as it is, to the bit.
        Heads = "heads",
        /// Low-rank adapters on model.init, and what the objective adds.
        Lora = "lora",
    }
}

section! {
    /// Low-rank adapters, with train.mode "lora".
    LoraSection("lora") {
        /// Rank of an adapter.
        rank: usize = 8,
        /// Adapters add alpha / rank times their product.
        alpha: f64 = 16.0,
        /// Share of an adapter's inputs that training drops.
        dropout: f64 = 0.0,
        /// Divides alpha by the root of the rank instead (rank-stabilised).
        rank_stabilised: bool = false,
        /// Which matrices: "all-linear", names such as "q_proj", or patterns such as "model.layers.0.*".
        targets: Vec<String> = vec!["all-linear".to_owned()],
    }
}

choice! {
    /// How the learning rate goes on after the warm-up.
    Schedule {
        /// Half a cosine down to the final rate.
        Cosine = "cosine",
        /// A straight line down to the final rate.
        Linear = "linear",
        /// No change.
        Constant = "constant",
        /// Warm-up, stable, decay: no change, then a straight line down over the last part.
        Wsd = "wsd",
    }
}

choice! {
    /// What weight decay applies to.
    DecaySetting {
        /// Matrices, not gains and biases.
        Matrices = "matrices",
        /// Everything that is trained.
        All = "all",
    }
}

choice! {
    /// In what precision linear maps and unembeddings multiply.
    Dtype {
        /// 32 bits.
        F32 = "f32",
        /// Factors rounded to bf16, sums and everything else in 32 bits.
        Bf16 = "bf16",
    }
}

choice! {
    /// Who updates the matrices of blocks and heads.
    OptimiserKind {
        /// AdamW, as everything else.
        AdamW = "adamw",
        /// Muon.
        Muon = "muon",
    }
}

section! {
    /// Steps, batches, optimiser, schedule. A step is one update of the optimiser.
    TrainSection("train") {
        /// "pretrain" a new model, "full" fine-tuning of model.init, its "heads" only with the model frozen, or "lora": adapters
        /// on the frozen model.
        mode: TrainMode = TrainMode::Pretrain,
        /// Updates of the optimiser. One of steps, tokens and seconds says how long a run is.
        steps: usize = 600,
        /// Inputs to train on, rounded up to whole steps, in place of steps.
        tokens: Option<u64> = None,
        /// Seconds of training, evaluation and saving left out, in place of steps; the schedule follows the share that is used.
        /// A run that is bound by the clock does not repeat to the bit.
        seconds: Option<f64> = None,
        /// Rows of a micro-batch.
        batch: usize = 16,
        /// Tokens of a row; several documents may share one.
        length: usize = 256,
        /// Micro-batches per step: as one batch so many times as large, in the memory of one.
        accumulate: usize = 1,
        /// Precision of the products: f32, or bf16, which is about twice as fast where the machine has instructions for it
        /// (sums, weights, norms, softmax, losses and the optimiser stay f32, evaluation too).
        dtype: Dtype = Dtype::F32,
        /// Keeps only the input of each layer and computes the rest again when it is needed: a third more arithmetic, much less
        /// memory, the same result to the bit.
        recompute_activations: bool = false,
        /// With mode "heads": keeps the states of the frozen model on disk, beside the tokens (data.cache), so that the text runs
        /// through the model once, for all epochs and for all runs that share the folder. 4 bytes x width x tokens of the text. Each
        /// epoch then has the same rows, in another order.
        cache_states: bool = false,
        /// The highest learning rate.
        learning_rate: f64 = 2e-3,
        /// Steps in which the learning rate rises from 0 to its highest.
        warmup_steps: usize = 50,
        /// What follows the warm-up: cosine, linear, constant, or wsd (stable, then a decay).
        schedule: Schedule = Schedule::Cosine,
        /// The last learning rate as a share of the highest.
        final_ratio: f64 = 0.1,
        /// Share of all steps in which wsd decays.
        decay_fraction: f64 = 0.2,
        /// "adamw", or "muon": the matrices of blocks and heads move in the direction of their momentum with all singular values made
        /// equal, which needs fewer steps, and for them half of the optimiser's memory. The rest stays with AdamW: embedding,
        /// unembedding, gains, biases.
        optimiser: OptimiserKind = OptimiserKind::AdamW,
        /// Muon: its learning rate, as a multiple of learning_rate.
        matrix_rate: f64 = 1.0,
        /// Decoupled weight decay.
        weight_decay: f64 = 0.1,
        /// What weight decay applies to: matrices, or all.
        decay_on: DecaySetting = DecaySetting::Matrices,
        /// Decay of the first moment.
        beta1: f64 = 0.9,
        /// Decay of the second moment.
        beta2: f64 = 0.95,
        /// Keeps AdamW from dividing by 0.
        epsilon: f64 = 1e-8,
        /// Longest gradient, over all parameters together; 0: never shortened.
        clip: f64 = 1.0,
        /// Weight of an early exit's loss: that of the next token (and of registers) read from the state after each block but the first
        /// and the last with the model's own norm and unembedding. It makes a model decide in as few blocks as it can; 0: none.
        exit_weight: f64 = 0.0,
    }
}

section! {
    /// Evaluation during training.
    EvaluationSection("evaluation") {
        /// Steps between evaluations on the held-out documents; 0: only after the last step.
        every: usize = 100,
        /// Batches of an evaluation; 0: all held-out documents.
        batches: usize = 16,
    }
}

section! {
    /// Checkpoints during training.
    CheckpointSection("checkpoint") {
        /// Steps between checkpoints from which a run can go on; 0: only after the last step.
        every: usize = 200,
        /// How many of these to keep: the newest, and those before it. (The best one on held-out text is always kept.)
        keep_last: usize = 2,
    }
}

section! {
    /// When a run ends before its last step.
    WatchSection("watch") {
        /// Stops when the loss of a depth, smoothed over about ten steps, has risen to so many times its lowest and by at
        /// least 1 nat; 0: never. (Loss or gradients that are no numbers always stop a run.)
        loss_factor: f64 = 2.0,
        /// Ends the run after so many evaluations in a row without a better held-out loss; 0: never.
        patience: usize = 0,
        /// Ends the run once this share of the held-out answers is right, where the text is prompts with answers; 0: never.
        solved: f64 = 0.0,
        /// Nats by which the held-out loss (the weighted sum over depths) must fall to count as better.
        minimum_gain: f64 = 0.0,
    }
}

impl Setting for HeadKind {
    const KIND: Kind = Kind::OneOf(&["layer", "linear", "causal", "anticausal"]);
}

impl Setting for JointKind {
    const KIND: Kind = Kind::OneOf(&["cp", "tree"]);
}

impl Setting for JointStart {
    const KIND: Kind = Kind::OneOf(&["identity", "random"]);
}

impl Setting for JointWindows {
    const KIND: Kind = Kind::OneOf(&["all", "first"]);
}

impl Setting for BalanceOn {
    const KIND: Kind = Kind::OneOf(&["weights", "responsibilities"]);
}

impl Setting for OffsetsPer {
    const KIND: Kind = Kind::OneOf(&["sequence", "register"]);
}

impl Setting for RowEnd {
    const KIND: Kind = Kind::OneOf(&["wrap", "drop"]);
}

impl Setting for UnembeddingKind {
    const KIND: Kind = Kind::OneOf(&["shared", "replicated"]);
}

/// Every key of a run file, in the order of the template.
pub(super) fn all_keys() -> impl Iterator<Item = &'static Key> {
    [
        RunSection::KEYS,
        MODEL_KEYS,
        Architecture::KEYS,
        DataSection::KEYS,
        ObjectiveSection::KEYS,
        TrainSection::KEYS,
        LoraSection::KEYS,
        EvaluationSection::KEYS,
        CheckpointSection::KEYS,
        WatchSection::KEYS,
    ]
    .into_iter()
    .flatten()
}

#[cfg(test)]
mod tests {
    use super::super::RunConfig;
    use super::*;

    #[test]
    fn every_named_choice_can_be_read() {
        for key in all_keys() {
            let Kind::OneOf(names) = key.kind else { continue };
            for name in names {
                let text = format!("[{}]\n{} = \"{name}\"", key.section, key.name);
                RunConfig::parse_unchecked(&text, "run.toml", &[]).unwrap();
            }
        }
    }

    #[test]
    fn every_stored_value_has_a_declared_key_of_its_kind() {
        let stored = toml::Table::try_from(RunConfig::default()).unwrap();
        super::super::keys::flatten("", &stored, &mut |path, value| {
            let key =
                all_keys().find(|key| key.path() == path).unwrap_or_else(|| panic!("{path} is not declared"));
            assert!(key.kind.accepts(value), "{path}");
        });
    }
}
