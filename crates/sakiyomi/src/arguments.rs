//! The command line, as it is typed. Meaning and checks are in [`crate::commands`].

use std::path::PathBuf;

use clap::{Args, Command, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use kernels::packed::WeightType;
use model::engine::CacheType;

/// Make a language model predict several tokens at once, decode faster without changing the text, and prove whether it pays.
#[derive(Debug, Parser)]
#[command(name = "sakiyomi", version, max_term_width = 110)]
pub struct Arguments {
    #[command(subcommand)]
    pub verb: Verb,
    /// Threads for arithmetic; 0 takes every core.
    #[arg(long, global = true, default_value_t = 0, value_name = "N")]
    pub threads: usize,
    /// Print one JSON object on standard output; progress and remarks stay on standard error.
    #[arg(long, global = true)]
    pub json: bool,
}

impl Arguments {
    /// What was typed.
    ///
    /// # Errors
    /// When it is no command line of this program, or asks for help or the version.
    pub fn typed() -> Result<Self, clap::Error> {
        let matches = with_negative_numbers(Self::command()).try_get_matches()?;
        Self::from_arg_matches(&matches)
    }
}

/// Where an option wants a value, `-1` is one and no option of its own: then it is the value that is judged.
fn with_negative_numbers(command: Command) -> Command {
    let command = command.mut_args(|argument| {
        let takes_value = argument.get_action().takes_values() && !argument.is_positional();
        if takes_value { argument.allow_negative_numbers(true) } else { argument }
    });
    command.mut_subcommands(with_negative_numbers)
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// The whole story on an embedded corpus: train, verify, speed, a page of figures; CPU, minutes.
    Demo(Demo),
    /// Cores, instruction sets, measured bandwidth and arithmetic peak, memory.
    Doctor,
    /// Write a commented run file.
    Init(Init),
    /// Look at training data as the trainer sees it.
    Data {
        #[command(subcommand)]
        verb: DataVerb,
    },
    /// Train by a run file.
    Train(Train),
    /// A grid of settings and seeds over one run file; one table at the end.
    Sweep(Sweep),
    /// One run of a sweep, told on standard input.
    #[command(hide = true)]
    SweepRun,
    /// Loss and accuracy per depth on text.
    Eval(Eval),
    /// Add an adapter to the matrices of its base.
    Merge(Merge),
    /// Pack a checkpoint's weights for decoding, on disk.
    Quantize(Quantize),
    /// Continue a prompt.
    Generate(Generate),
    /// Check that drafts change nothing: the same tokens in greedy decoding, the same distribution in sampling.
    Verify(Verify),
    /// Tokens per second of a checkpoint, plain and with drafts in turn; or the speed of one part, see its verbs.
    Bench(Bench),
    /// In which layer a model decides what, and what that is good for.
    Lens {
        #[command(subcommand)]
        verb: crate::commands::lens::LensVerb,
    },
    /// One HTML page from run folders.
    Report(Report),
}

#[derive(Debug, Subcommand)]
pub enum DataVerb {
    /// Print the first batches: documents apart, tokens that are targets marked.
    Show(DataShow),
    /// Learn a byte-level BPE vocabulary from text and write its tokenizer.json.
    Tokenizer(DataTokenizer),
    /// Let a model continue pieces of text: what heads on the frozen model learn best from.
    Continuations(DataContinuations),
    /// Draw examples of a synthetic task: prompts whose answers can be checked, or sequences whose distribution is known.
    Generate {
        #[command(subcommand)]
        task: Task,
    },
}

#[derive(Debug, Subcommand)]
pub enum Task {
    #[command(flatten)]
    Answered(AnsweredTask),
    /// Four symbols that are independent given a hidden component: what each rank of joint heads can reach is computed beside them.
    PlantedMixture(PlantedMixture),
}

/// Tasks whose prompts have answers.
#[derive(Debug, Subcommand)]
pub enum AnsweredTask {
    /// The path from the centre of a star to the end of one of its arms.
    StarGraph(StarGraph),
    /// Addition of numbers with several digits, with the steps written out.
    Addition(Addition),
    /// Sums, products and compositions of polynomials over a small field.
    Polynomial(Polynomial),
    /// The second token of a name that came before.
    Induction(Induction),
    /// Images as rows of grey levels, asked for by their class.
    ImageGrid(ImageGrid),
}

/// Where the examples go and how many there are; shared by all tasks.
#[derive(Debug, Args)]
pub struct Drawn {
    /// The folder to write train.txt and test.txt into, and a tokenizer where the task has one; must not exist.
    #[arg(long, value_name = "FOLDER")]
    pub output: PathBuf,
    /// Examples to train on.
    #[arg(long, default_value_t = 200_000, value_name = "N")]
    pub train: usize,
    /// Examples to test on, none of which is trained on.
    #[arg(long, default_value_t = 2_000, value_name = "N")]
    pub test: usize,
    /// Seed of what is drawn.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Say what would be written, and write nothing.
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct ImageGrid {
    #[command(flatten)]
    pub drawn: Drawn,
    /// Images: an idx file of MNIST's form with its labels beside it, or a folder of PNG or JPEG files in folders named by the
    /// numbers of their classes.
    #[arg(long, value_name = "PATH")]
    pub images: PathBuf,
    /// Rows and columns that images are scaled to.
    #[arg(long, default_value_t = 14)]
    pub side: usize,
    /// Grey levels.
    #[arg(long, default_value_t = 16)]
    pub levels: usize,
}

#[derive(Debug, Args)]
pub struct StarGraph {
    #[command(flatten)]
    pub drawn: Drawn,
    /// Arms.
    #[arg(long, default_value_t = 2)]
    pub degree: usize,
    /// Nodes of a path, both ends included.
    #[arg(long, default_value_t = 5)]
    pub length: usize,
    /// Numbers that nodes are drawn from.
    #[arg(long, default_value_t = 50)]
    pub nodes: usize,
    /// Ask for the path from its end, which needs no planning.
    #[arg(long)]
    pub reversed: bool,
    /// Of so many percent of the training prompts the start is not told (`$` stands there), so that the path must be followed
    /// from the goal. Test prompts are whole.
    #[arg(long, value_name = "PERCENT", default_value_t = 0)]
    pub hide_start: usize,
    /// So many percent of the training prompts are chains of as many edges whose start is not told and whose goal stands anywhere:
    /// no node can be guessed. Test prompts are stars.
    #[arg(long, value_name = "PERCENT", default_value_t = 0)]
    pub chains: usize,
}

#[derive(Debug, Args)]
pub struct Addition {
    #[command(flatten)]
    pub drawn: Drawn,
    /// Most digits of a number.
    #[arg(long, default_value_t = 5)]
    pub digits: usize,
    /// Ask for the sum without its steps.
    #[arg(long)]
    pub no_steps: bool,
}

#[derive(Debug, Args)]
pub struct Polynomial {
    #[command(flatten)]
    pub drawn: Drawn,
    /// The prime of the field.
    #[arg(long, default_value_t = 7)]
    pub prime: usize,
    /// Coefficients of a polynomial.
    #[arg(long, default_value_t = 5)]
    pub terms: usize,
    /// Fewest operations of an expression.
    #[arg(long, default_value_t = 1)]
    pub least_operations: usize,
    /// Most operations of an expression.
    #[arg(long, default_value_t = 5)]
    pub most_operations: usize,
}

#[derive(Debug, Args)]
pub struct Induction {
    #[command(flatten)]
    pub drawn: Drawn,
    /// Numbers that tokens are drawn from.
    #[arg(long, default_value_t = 100)]
    pub symbols: usize,
    /// Tokens of a prompt.
    #[arg(long, default_value_t = 64)]
    pub length: usize,
    /// Names in a prompt.
    #[arg(long, default_value_t = 8)]
    pub names: usize,
}

#[derive(Debug, Args)]
pub struct PlantedMixture {
    /// The folder to write train.jsonl, held-out.jsonl and optimum.json into; must not exist.
    #[arg(long, value_name = "FOLDER")]
    pub output: PathBuf,
    /// Sequences to train on.
    #[arg(long, default_value_t = 200_000, value_name = "N")]
    pub train: usize,
    /// Sequences to measure on.
    #[arg(long, default_value_t = 20_000, value_name = "N")]
    pub held_out: usize,
    /// Seed of the mixture and of what is drawn.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How often each rank is fitted anew to the exact table; the best fit counts.
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub restarts: usize,
}

#[derive(Debug, Args)]
pub struct Demo {
    /// Train on this text instead of the embedded tales (.txt or .jsonl, file or folder; repeatable).
    #[arg(long, value_name = "PATH")]
    pub text: Vec<PathBuf>,
    /// Where the run goes; must not exist. Default: runs/demo, or the first free of runs/demo-2, runs/demo-3, ...
    #[arg(long, alias = "out", value_name = "FOLDER")]
    pub output: Option<PathBuf>,
    /// Seed of corpus, weights and order.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Training steps; the default takes about two minutes on two cores.
    #[arg(long, value_name = "N")]
    pub steps: Option<u64>,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct Init {
    /// The file to write; must not exist.
    #[arg(default_value = "run.toml")]
    pub file: PathBuf,
    /// Print the file instead of writing it.
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct DataShow {
    /// The run file.
    pub run: PathBuf,
    /// Settings that replace the file's, as section.key=value.
    #[arg(value_name = "section.key=value")]
    pub overrides: Vec<String>,
    /// How many rows of the batch to show.
    #[arg(long, default_value_t = 2)]
    pub rows: usize,
}

#[derive(Debug, Args)]
pub struct DataTokenizer {
    /// Text: files (.txt, .jsonl, also packed as .gz or .zst, .parquet), folders of them, or patterns.
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
    /// Ids of the vocabulary.
    #[arg(long, value_name = "N")]
    pub size: usize,
    /// The tokenizer.json to write; must not exist.
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// Field of .jsonl lines that holds the text.
    #[arg(long, default_value = "text")]
    pub field: String,
    /// Bytes of text to look at, at most: of a larger text every second, third, ... document.
    #[arg(long, value_name = "BYTES", default_value_t = data::vocabulary::SAMPLE_BYTES)]
    pub sample_bytes: u64,
    /// Say what would be written, and write nothing.
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct DataContinuations {
    /// A checkpoint folder: the model that continues.
    pub checkpoint: PathBuf,
    /// Text to begin from: files (.txt, .jsonl, also packed as .gz or .zst, .parquet), folders of them, or patterns.
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
    /// The .jsonl file to write; must not exist.
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// Field of .jsonl lines that holds the text.
    #[arg(long, default_value = "text")]
    pub field: String,
    /// Continuations to write, at most; their beginnings are spread evenly over the text.
    #[arg(long, default_value_t = 1000)]
    pub count: usize,
    /// Tokens of each beginning.
    #[arg(long, default_value_t = 24)]
    pub prompt_tokens: usize,
    /// Tokens to add to each, at most.
    #[arg(long, default_value_t = 160)]
    pub max_new_tokens: usize,
    /// Say what would be written, and write nothing.
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub sampling: Sampling,
}

#[derive(Debug, Args)]
pub struct Train {
    /// The run file.
    pub run: PathBuf,
    /// Settings that replace the file's, as section.key=value.
    #[arg(value_name = "section.key=value")]
    pub overrides: Vec<String>,
    /// Continue from the run folder's newest checkpoint.
    #[arg(long)]
    pub resume: bool,
    /// Read and check everything, try a few steps, print sizes, memory and time, and write nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Train even if the run seems to want more memory than the machine has.
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct Sweep {
    /// The sweep file.
    pub file: PathBuf,
    /// Where runs and tables go. Default: runs/NAME, where NAME is the file's.
    #[arg(long, value_name = "FOLDER")]
    pub output: Option<PathBuf>,
    /// Only runs whose names contain this, and those that they start from.
    #[arg(long, value_name = "PATTERN")]
    pub only: Option<String>,
    /// A value that replaces the file's, as TOML, for example settings.train.tokens=100000 (repeatable).
    #[arg(long, value_name = "key=value")]
    pub set: Vec<String>,
    /// Train nothing: make the tables from the results that are there.
    #[arg(long, conflicts_with = "dry_run")]
    pub report_only: bool,
    /// List the runs, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct Eval {
    /// A checkpoint folder.
    pub checkpoint: PathBuf,
    /// Text to evaluate on (.txt or .jsonl, file or folder; repeatable).
    #[arg(long, required = true, value_name = "PATH")]
    pub data: Vec<PathBuf>,
    /// Answer prompts, greedily, and count the right answers in place of losses.
    #[arg(long, value_enum, value_name = "TASK")]
    pub task: Option<EvaluationTask>,
    /// With --task: field of the prompt in a .jsonl line; in a .txt file each line is a prompt and its answer.
    #[arg(long, default_value = "prompt", requires = "task")]
    pub prompt_field: String,
    /// With --task: field of the answer in a .jsonl line.
    #[arg(long, default_value = "completion", requires = "task")]
    pub completion_field: String,
    /// With --task: what ends the prompt in a line of a .txt file.
    #[arg(long, default_value = "=", value_name = "TEXT", requires = "task")]
    pub prompt_end: String,
    /// With --task: answer only the first so many; 0 answers all.
    #[arg(long, default_value_t = 0, value_name = "N", requires = "task")]
    pub count: usize,
    /// With --task: tokens of an answer at most. Default: one more than the right answer has, or 256 for gsm8k.
    #[arg(long, value_name = "N", requires = "task")]
    pub max_new_tokens: Option<usize>,
    /// With --task: how many wrong answers to show.
    #[arg(long, default_value_t = 3, value_name = "N", requires = "task")]
    pub show_wrong: usize,
    /// Field of .jsonl lines that holds the text.
    #[arg(long, default_value = "text", conflicts_with = "task")]
    pub field: String,
    /// What stands between two documents of a .txt file; without it, a file is one document.
    #[arg(long, value_name = "TEXT", conflicts_with = "task")]
    pub separator: Option<String>,
    /// Documents of .txt files longer than this are cut, at a blank line where there is one; 0: never. As in training.
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = train::config::DataSection::default().longest_document_bytes,
        conflicts_with = "task"
    )]
    pub longest_document_bytes: usize,
    /// Tokens per row. Default: 256, or the model's context if that is shorter.
    #[arg(long, value_name = "N", conflicts_with = "task")]
    pub length: Option<usize>,
    /// Rows per batch; with --task, prompts that are answered together.
    #[arg(long, default_value_t = 8)]
    pub batch: usize,
    /// Batches at most; 0 takes all.
    #[arg(long, default_value_t = 0, conflicts_with = "task")]
    pub batches: usize,
    /// Judge the next token as it is decoded, with weights of this type, instead of every depth as it is trained.
    #[command(flatten)]
    pub packing: Packing,
}

#[derive(Debug, Args)]
pub struct Quantize {
    /// A checkpoint folder.
    pub checkpoint: PathBuf,
    /// Type of the weights.
    #[arg(long, value_name = "bf16|int8|int4")]
    pub weights: WeightType,
    /// The folder to write; must not exist.
    #[arg(long, value_name = "FOLDER")]
    pub output: PathBuf,
    /// Say what would be written, and write nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// What makes an answer right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum EvaluationTask {
    /// It is the whole answer, and nothing else.
    ExactMatch,
    /// Its last number is that of the answer (behind #### in the GSM8K files).
    Gsm8k,
}

/// How tokens are chosen and when to stop; shared by the verbs that decode.
#[derive(Debug, Args)]
pub struct Sampling {
    /// 0 is greedy.
    #[arg(long, default_value_t = 0.0)]
    pub temperature: f32,
    /// Keep the K most likely tokens; 0 keeps all.
    #[arg(long, default_value_t = 0)]
    pub top_k: usize,
    /// Keep the most likely tokens that together have this probability.
    #[arg(long, default_value_t = 1.0)]
    pub top_p: f32,
    /// Drop tokens less likely than this share of the likeliest.
    #[arg(long, default_value_t = 0.0)]
    pub min_p: f32,
    /// Divide (or multiply, if negative) the logits of tokens that occurred by this.
    #[arg(long, default_value_t = 1.0)]
    pub repetition_penalty: f32,
    /// Seed of the draws.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

#[derive(Debug, Args)]
pub struct Merge {
    /// A checkpoint folder: one of a run with train.mode "lora", or the base of --adapter.
    pub checkpoint: PathBuf,
    /// A folder with adapter_config.json and adapter_model.safetensors, such as PEFT writes. Default: the checkpoint's own.
    #[arg(long, value_name = "FOLDER")]
    pub adapter: Option<PathBuf>,
    /// The checkpoint to write; must not exist.
    #[arg(long, value_name = "FOLDER")]
    pub output: PathBuf,
    /// Read and check everything, and write nothing.
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct Generate {
    /// A checkpoint folder.
    pub checkpoint: PathBuf,
    /// The text to continue.
    #[arg(long, default_value = "")]
    pub prompt: String,
    /// Read the prompt from a file instead.
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    pub prompt_file: Option<PathBuf>,
    /// Ask the prompt as a user does, by the checkpoint's chat template.
    #[arg(long)]
    pub chat: bool,
    /// Tokens to add at most.
    #[arg(long, default_value_t = 256)]
    pub max_new_tokens: usize,
    /// Where drafts come from.
    #[arg(long, value_enum, default_value_t)]
    pub draft: DraftSource,
    #[command(flatten)]
    pub exit: ExitDraft,
    /// Length of a draft: `auto` is what gives most tokens per second here and now, none included (as long as can be when
    /// sampling); `off` decodes plainly.
    #[arg(long, default_value = "auto", value_name = "auto|off|N")]
    pub speculate: String,
    /// Stop before this text (repeatable).
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// Do not stop at the model's end tokens.
    #[arg(long)]
    pub ignore_end: bool,
    /// Print tokens per forward, acceptance per depth and speed on standard error.
    #[arg(long)]
    pub stats: bool,
    #[command(flatten)]
    pub sheet: GridSheet,
    #[command(flatten)]
    pub sampling: Sampling,
    #[command(flatten)]
    pub packing: Packing,
}

/// A sheet of images in place of text.
#[derive(Debug, Args)]
pub struct GridSheet {
    /// Draw images of every class of `data generate image-grid` and write them as one PNG; must not exist. Give --temperature 1.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["prompt", "prompt_file", "chat", "max_new_tokens", "draft", "speculate", "stop", "ignore_end", "stats"]
    )]
    pub grid_sheet: Option<PathBuf>,
    /// With --grid-sheet: images of each class.
    #[arg(long, default_value_t = 10, value_name = "N", requires = "grid_sheet")]
    pub samples: usize,
    /// With --grid-sheet: rows and columns of an image, as the model learnt them.
    #[arg(long, default_value_t = 14, requires = "grid_sheet")]
    pub side: usize,
    /// With --grid-sheet: grey levels, as the model learnt them.
    #[arg(long, default_value_t = 16, requires = "grid_sheet")]
    pub levels: usize,
}

/// How weights are held while decoding; shared by the verbs that decode.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct Packing {
    /// Type of the weights: f32 as trained, bf16, or int8 or int4 with scales. Default: f32, or what a quantized folder holds.
    #[arg(long, value_name = "f32|bf16|int8|int4")]
    pub weights: Option<WeightType>,
    /// How keys and values are held: bf16 halves what a long context has to read.
    #[arg(long, default_value = "f32", value_name = "f32|bf16")]
    pub cache: CacheType,
}

/// Where drafts come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DraftSource {
    /// What the checkpoint was trained to draft with; nothing, where it was not.
    #[default]
    Auto,
    /// Parallel heads of the checkpoint.
    Heads,
    /// Joint heads of the checkpoint.
    Joint,
    /// The registers that the checkpoint was trained with.
    Registers,
    /// What followed the last tokens earlier in the text; needs no training.
    Lookup,
    /// The model's own early layers, see --exit-layer; needs no training.
    Exit,
    /// No drafts.
    None,
}

/// How the early layers draft; shared by the verbs that decode.
#[derive(Debug, Args)]
pub struct ExitDraft {
    /// With --draft exit: layers that draft. Default: half of them.
    #[arg(long, value_name = "N")]
    pub exit_layer: Option<usize>,
    /// With --draft exit: drafting goes on while the first choice leads the second by this probability. Default: 0.5.
    #[arg(long, value_name = "P", conflicts_with = "exit_probe")]
    pub exit_threshold: Option<f64>,
    /// With --draft exit: drafting goes on while this probe of `sakiyomi lens probe` says that the first choice is settled.
    #[arg(long, value_name = "FILE")]
    pub exit_probe: Option<PathBuf>,
}

/// Where prompts come from; shared by verify and bench.
#[derive(Debug, Args)]
pub struct Prompts {
    /// Prompts, one a line (.txt) or one a JSON object with the field `prompt` or `text` (.jsonl).
    #[arg(long, value_name = "FILE")]
    pub prompts: Option<PathBuf>,
    /// Use this many prompts.
    #[arg(long, default_value_t = 32)]
    pub count: usize,
    /// Tokens to decode after each.
    #[arg(long, default_value_t = 256)]
    pub max_new_tokens: usize,
}

#[derive(Debug, Args)]
pub struct Verify {
    /// A checkpoint folder.
    pub checkpoint: PathBuf,
    #[command(flatten)]
    pub packing: Packing,
    #[command(flatten)]
    pub prompts: Prompts,
    /// Where drafts come from.
    #[arg(long, value_enum, default_value_t)]
    pub draft: DraftSource,
    #[command(flatten)]
    pub exit: ExitDraft,
    /// Tokens to draw in each of the twelve cases in which sampling is tested; 0 tests greedy decoding only.
    #[arg(long, default_value_t = 2000, value_name = "N")]
    pub draws: usize,
    /// Seed of the draws.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Bench {
    #[command(subcommand)]
    pub part: Option<BenchPart>,
    /// A checkpoint folder.
    #[arg(required = true)]
    pub checkpoint: Option<PathBuf>,
    #[command(flatten)]
    pub packing: Packing,
    #[command(flatten)]
    pub prompts: Prompts,
    /// Where drafts come from.
    #[arg(long, value_enum, default_value_t)]
    pub draft: DraftSource,
    #[command(flatten)]
    pub exit: ExitDraft,
    /// Measure each way this many times, in turn.
    #[arg(long, default_value_t = 5)]
    pub repeats: usize,
    /// Tell acceptance at this temperature (repeatable); speed is measured at the first.
    #[arg(long, value_name = "T", default_value = "0")]
    pub temperature: Vec<f32>,
    /// Do not stop at the model's end tokens.
    #[arg(long)]
    pub ignore_end: bool,
    /// Take drafts to be right so often that a forward gives X tokens on average, instead of verifying them: the speed that
    /// such heads would have. The text means nothing.
    #[arg(long, value_name = "X")]
    pub force_acceptance: Option<f64>,
}

#[derive(Debug, Subcommand)]
pub enum BenchPart {
    /// Milliseconds of one run of a model by its number of rows, and the share of the memory's speed that it reaches.
    Decode(BenchDecode),
    /// The training step on which speed is compared: 8 layers, width 384, 6 heads, SwiGLU 1024, tied, 8 rows of 256 random tokens.
    Step(BenchStep),
}

#[derive(Debug, Args)]
pub struct BenchDecode {
    /// A checkpoint folder.
    #[arg(required_unless_present = "random", conflicts_with = "random")]
    pub model: Option<PathBuf>,
    /// A model of this size with random weights instead: llama-125m, llama-500m, llama-1b, ...
    #[arg(long, value_name = "PRESET")]
    pub random: Option<String>,
    #[command(flatten)]
    pub packing: Packing,
    /// Numbers of rows.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4, 8, 16])]
    pub rows: Vec<usize>,
    /// Tokens before the rows.
    #[arg(long, default_value_t = 256, value_name = "N")]
    pub context: usize,
    /// Measure each this many times, in turn.
    #[arg(long, default_value_t = 15)]
    pub repeats: usize,
    /// Tokens that a random model's linear heads predict from one position, the next one included.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub heads: usize,
    /// Joint heads of this rank in place of linear heads.
    #[arg(long, default_value_t = 0, value_name = "R")]
    pub rank: usize,
    /// How joint heads join tokens.
    #[arg(long, default_value = "cp", value_parser = ["cp", "tree"])]
    pub joint: String,
    /// Tokens of a random model's vocabulary, where the preset names none or another one is wanted.
    #[arg(long, value_name = "V", requires = "random")]
    pub vocab: Option<usize>,
    /// Also decode with drafts by the heads, so many of them taken to be right that a forward gives X tokens on average.
    #[arg(long, value_name = "X")]
    pub force_acceptance: Option<f64>,
}

#[derive(Debug, Args)]
pub struct BenchStep {
    /// Precision of the products.
    #[arg(long, default_value = "f32", value_parser = ["f32", "bf16"])]
    pub dtype: String,
    /// Tokens predicted from each position, the next one included. Their parameters are taken from the trunk.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub heads: usize,
    /// What a head is made of.
    #[arg(long, default_value = "layer", value_parser = ["linear", "layer", "causal", "anticausal"])]
    pub head_kind: String,
    /// Joint heads of this rank in place of parallel heads; they come on top of the trunk.
    #[arg(long, default_value_t = 0, value_name = "R")]
    pub rank: usize,
    /// How joint heads join tokens.
    #[arg(long, default_value = "cp", value_parser = ["cp", "tree"])]
    pub joint: String,
    /// Train the heads only, on the frozen trunk.
    #[arg(long)]
    pub frozen: bool,
    /// Registers behind this share of the tokens, from 0 to 1, with offsets of 1 to 4; their steps are timed in turn with steps
    /// without them, and compared.
    #[arg(long, default_value_t = 0.0, value_name = "SHARE", conflicts_with_all = ["heads", "rank", "frozen"])]
    pub registers: f64,
    /// Rows of 256 tokens. Others are compared at 8.
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub batch: usize,
    /// Ids of the vocabulary.
    #[arg(long, default_value_t = 8192)]
    pub vocab: usize,
    /// Steps that are timed, at least, after two that are not.
    #[arg(long, default_value_t = 6)]
    pub steps: usize,
    /// Seconds that are timed, at least.
    #[arg(long, default_value_t = 8.0)]
    pub seconds: f64,
    /// Keep only the input of each layer, and compute the rest again.
    #[arg(long)]
    pub recompute: bool,
}

#[derive(Debug, Args)]
pub struct Report {
    /// Run folders.
    #[arg(required = true)]
    pub runs: Vec<PathBuf>,
    /// The page to write. Default: report.html in the run's folder; of several runs report.html here, which must not exist.
    #[arg(long, alias = "out", value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Say what would be written, and write nothing.
    #[arg(long)]
    pub dry_run: bool,
}
