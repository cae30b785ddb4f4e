//! What is typed after `sakiyomi lens`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub enum LensVerb {
    /// The layer in which the first, second, ... choice settles: means, order, permutation test, null model.
    Saturation(Saturation),
    /// Learn from states on which choice the model works; cross-validated, with controls.
    Probe(Probe),
    /// Put a settled token's state in the place of another token's.
    Intervene(Intervene),
    /// Accuracy against speed of leaving early, by probe and by thresholds.
    Exit(Exit),
    /// All of it on one page, every figure also as SVG, JSON and CSV.
    Report(Report),
    /// Is the second choice right more often where it settled early?
    Tokens(Tokens),
}

/// The model, and what it looks at; shared by all verbs of the lens.
#[derive(Debug, Clone, Args)]
pub struct Subject {
    /// A checkpoint folder: a decoder, BERT, ViT, Whisper, or the keyword transformer.
    pub model: PathBuf,
    /// What it looks at: text (.txt, .jsonl), images (PNG, JPEG, idx), or sounds (wav); a file or a folder.
    #[arg(long, required = true, value_name = "PATH")]
    pub data: PathBuf,
    /// Field of .jsonl lines that holds the text.
    #[arg(long, default_value = "text")]
    pub field: String,
    /// Random weights drawn from this seed, in place of the model's; only its config.json is read.
    #[arg(long, value_name = "SEED")]
    pub random_init: Option<u64>,
    /// Choices that are followed: the k likeliest at the last layer.
    #[arg(short = 'k', long, default_value_t = 5)]
    pub choices: usize,
    /// Tokens (or images, or sounds) that are read, at most.
    #[arg(long, value_name = "N", default_value_t = 60_000)]
    pub tokens: usize,
    /// Tokens of a window of text. Default: 256, or the model's context if that is shorter. For Whisper: tokens that it writes for a
    /// sound, 32.
    #[arg(long, value_name = "N")]
    pub length: Option<usize>,
    /// Only tokens whose first choice settles by this share of the layers count; 1 counts all.
    #[arg(long, value_name = "SHARE", default_value_t = 0.85)]
    pub cut: f64,
    /// Seed of permutations, null model, hidden tokens and folds.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

#[derive(Debug, Args)]
pub struct Saturation {
    #[command(flatten)]
    pub subject: Subject,
    /// Look at the same data with random weights of this seed as well, to compare with.
    #[arg(long, value_name = "SEED")]
    pub against_random: Option<u64>,
    /// Permutations of the test.
    #[arg(long, value_name = "N", default_value_t = lens::order::PERMUTATIONS)]
    pub permutations: usize,
}

#[derive(Debug, Args)]
pub struct Tokens {
    #[command(flatten)]
    pub subject: Subject,
    /// Layers before the end at which a choice must have settled to count as early. Default: 7, or half the layers of a shallow
    /// model.
    #[arg(long, value_name = "N")]
    pub margin: Option<usize>,
}

#[derive(Debug, Args)]
pub struct Probe {
    #[command(flatten)]
    pub subject: Subject,
    /// Save the probe, fitted to all states, here; must not exist.
    #[arg(long, value_name = "FILE")]
    pub save: Option<PathBuf>,
    /// First layer from which states are taken (from 0). Default: an eighth of the layers, at most 5.
    #[arg(long, value_name = "N")]
    pub first_layer: Option<usize>,
}

#[derive(Debug, Args)]
pub struct Intervene {
    #[command(flatten)]
    pub subject: Subject,
    /// Pairs of tokens, at most.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub pairs: usize,
    /// Layers that the late token settles after the early one, at least. Default: 10 of 48, fewer in shallow models.
    #[arg(long, value_name = "N")]
    pub gap: Option<usize>,
    /// Layers before and after saturation at which is injected. Default: 5 in deep models, else 3.
    #[arg(long, value_name = "N")]
    pub reach: Option<usize>,
    /// A probe of this model, whose opinion is asked after each injection.
    #[arg(long, value_name = "FILE")]
    pub probe: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Exit {
    #[command(flatten)]
    pub subject: Subject,
    /// A probe of this model.
    #[arg(long, value_name = "FILE")]
    pub probe: Option<PathBuf>,
    #[command(flatten)]
    pub live: Live,
}

/// Text that really skips layers.
#[derive(Debug, Clone, Args)]
pub struct Live {
    /// Continue this many beginnings of the data, for a decoder: skipping layers for good, and drafting with the early layers,
    /// which loses nothing. Default: 0 for `exit`, 4 for the report if the context has room.
    #[arg(long, value_name = "N")]
    pub live: Option<usize>,
    /// Tokens of each beginning.
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub prompt_tokens: usize,
    /// Tokens to add to each.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub new_tokens: usize,
    /// Share of the exits that are compared with the whole model.
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    pub monitor_share: f64,
    /// Share of the compared exits that may disagree before the threshold is raised, or leaving is switched off; 1 never acts.
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    pub monitor_bound: f64,
    /// Comparisons after which that is judged.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub monitor_window: usize,
    /// Append what the monitor did to this file, a JSON line for each action.
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Report {
    #[command(flatten)]
    pub subject: Subject,
    /// The folder to write; must not exist.
    #[arg(long, alias = "out", value_name = "FOLDER")]
    pub output: PathBuf,
    /// Look at the same data with random weights of this seed as well.
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub against_random: u64,
    /// Pairs of tokens for the intervention, at most.
    #[arg(long, value_name = "N", default_value_t = 40)]
    pub pairs: usize,
    #[command(flatten)]
    pub live: Live,
    /// Read the model, say what would be written, and write nothing.
    #[arg(long)]
    pub dry_run: bool,
}
