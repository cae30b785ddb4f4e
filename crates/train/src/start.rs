//! What a run starts from: a new model, or the weights of a checkpoint, and the heads on it.

use data::Vocabulary;
use model::{Decoder, DecoderConfig, Grid, LoraSpec, presets};
use objective::{
    HeadStart, HeadsSpec, JointHeads, JointStart, Objective, ParallelHeads, RegisterStart, Registers,
    matched_layers,
};

use crate::checkpoint::{self, Added, Checkpoint, read_trunk};
use crate::config::{Architecture, ObjectiveKind, RunConfig, TrainMode};
use crate::error::{Error, Result};

/// A model about to be trained, and where it came from.
#[derive(Debug)]
pub struct Start {
    /// Vocabulary, model and heads, with those parameters trainable that the run trains.
    pub checkpoint: Checkpoint,
    /// In a few words, for whoever watches.
    pub origin: String,
}

/// The settings of the heads; one head when there are none but the model's own.
pub fn heads_spec(config: &RunConfig) -> HeadsSpec {
    match config.objective.kind {
        ObjectiveKind::NextToken | ObjectiveKind::Registers | ObjectiveKind::Joint => HeadsSpec::next_token(),
        ObjectiveKind::Heads => HeadsSpec {
            n: config.objective.n,
            kind: config.objective.head,
            unembedding: config.objective.unembedding,
            weights: config.objective.weights.clone(),
        },
    }
}

/// The vocabulary that `config` names; by default that of `model.init`, or bytes.
///
/// # Errors
/// When the tokenizer cannot be read, or is another than that of `model.init`.
pub fn vocabulary(config: &RunConfig) -> Result<Vocabulary> {
    if let (Some(given), Some(init)) = (&config.data.tokenizer, &config.model.init)
        && init.join("tokenizer.json").is_file()
    {
        let same = match given.as_str() {
            "bytes" => Vocabulary::load(init)?.is_bytes(),
            path => checkpoint::tokenizer_digest(path.as_ref())? == checkpoint::tokenizer_digest(init)?,
        };
        if !same {
            let problem = format!(
                "is {given:?}, another tokenizer than that of model.init ({}), whose tokens mean other text: leave it out",
                init.display()
            );
            return setting("data.tokenizer", problem);
        }
    }
    let vocabulary = match (config.data.tokenizer.as_deref(), &config.model.init) {
        (Some("bytes"), _) | (None, None) => Vocabulary::bytes(),
        (Some(path), _) => Vocabulary::load(path.as_ref())?,
        (None, Some(init)) => Vocabulary::load(init)?,
    };
    match &config.data.chat_template {
        Some(file) if !model::checkpoint::present(file)? => {
            setting("data.chat_template", format!("is {}: there is no such file", file.display()))
        }
        Some(file) => Ok(vocabulary.with_chat_template(&fs_err::read_to_string(file)?)?),
        None => Ok(vocabulary),
    }
}

/// The sizes of the model that `config` describes, after `match_parameters`.
///
/// # Errors
/// When they do not fit together, or to the heads, or the rows of the data are longer than the model's context.
pub fn decoder_config(config: &RunConfig, vocabulary: &Vocabulary) -> Result<DecoderConfig> {
    let decoder = match (&config.model.init, &config.model.architecture) {
        (Some(folder), _) => model::checkpoint::read_config(folder)?,
        (None, Some(architecture)) => new_config(config, architecture, vocabulary)?,
        (None, None) => return setting("model.init", "or [model.architecture] is needed"),
    };
    decoder.validate()?;
    match wanted(config) {
        Added::Heads(spec) => spec.validate(decoder.layers)?,
        Added::Registers(spec) => spec.validate()?,
        Added::Joint(spec) => spec.validate()?,
    }
    checkpoint::check_vocabulary(vocabulary, &decoder)?;
    if config.train.exit_weight > 0.0 && objective::exit_layers(decoder.layers).is_empty() {
        let problem = format!(
            "is for exits after the second block and later ones before the last; of {} there is none: leave it at 0",
            decoder.layers
        );
        return setting("train.exit_weight", problem);
    }
    if config.train.length > decoder.context {
        let problem = format!(
            "is {}, longer than the model's context of {}: give less{}",
            config.train.length,
            decoder.context,
            if config.model.init.is_none() { ", or set model.architecture.context" } else { "" }
        );
        return setting("train.length", problem);
    }
    Ok(decoder)
}

/// Limits far beyond any model, within which no count of parameters or buffers overflows.
const WIDEST: usize = 1 << 18;
const MOST_LAYERS: usize = 1 << 12;
const LONGEST_CONTEXT: usize = 1 << 28;

/// A class and the sign of equality: what `data generate image-grid` writes before an image.
const TOKENS_BEFORE_IMAGES: usize = 2;

/// Refuses typing errors.
fn check_sizes(architecture: &Architecture) -> Result<()> {
    let sizes = [
        ("width", architecture.width, WIDEST),
        ("layers", architecture.layers, MOST_LAYERS),
        ("heads", architecture.heads, WIDEST),
        ("kv_heads", architecture.kv_heads, WIDEST),
        ("ffn", architecture.ffn, WIDEST),
        ("context", architecture.context, LONGEST_CONTEXT),
        ("grid_width", architecture.grid_width, LONGEST_CONTEXT),
        ("grid_start", architecture.grid_start, LONGEST_CONTEXT),
    ];
    for (name, size, most) in sizes {
        if let Some(size) = size.filter(|size| *size > most) {
            return setting(&format!("model.architecture.{name}"), format!("is {size}: give at most {most}"));
        }
    }
    Ok(())
}

fn new_config(
    config: &RunConfig,
    architecture: &Architecture,
    vocabulary: &Vocabulary,
) -> Result<DecoderConfig> {
    let Some(mut decoder) = presets::preset(&architecture.preset, vocabulary.size()) else {
        let names: Vec<&str> = presets::PRESETS.iter().map(|preset| preset.name).collect();
        let problem = format!("is {:?}: the presets are {}", architecture.preset, names.join(", "));
        return setting("model.architecture.preset", problem);
    };
    check_sizes(architecture)?;
    if let Some(width) = architecture.width {
        decoder.width = width;
        decoder.ffn = presets::swiglu_width(width);
    }
    if let Some(heads) = architecture.heads {
        decoder.heads = heads;
        decoder.kv_heads = heads;
    }
    decoder.layers = architecture.layers.unwrap_or(decoder.layers);
    decoder.kv_heads = architecture.kv_heads.unwrap_or(decoder.kv_heads);
    decoder.ffn = architecture.ffn.unwrap_or(decoder.ffn);
    decoder.context = architecture.context.unwrap_or(decoder.context);
    decoder.tied = architecture.tied.unwrap_or(decoder.tied);
    decoder.variant.grid = match (architecture.grid_width, architecture.grid_start) {
        (None, None) => None,
        (Some(width), start) => Some(Grid { width, start: start.unwrap_or(TOKENS_BEFORE_IMAGES) }),
        (None, Some(_)) => {
            let problem = "needs model.architecture.grid_width beside it".to_owned();
            return setting("model.architecture.grid_start", problem);
        }
    };
    if decoder.heads == 0 || !decoder.width.is_multiple_of(decoder.heads) {
        let problem = format!("is {}, which does not divide the width of {}", decoder.heads, decoder.width);
        return setting("model.architecture.heads", problem);
    }
    decoder.head_dim = decoder.width / decoder.heads;
    decoder.begin_token = vocabulary.begin();
    decoder.end_tokens = vocabulary.ends().to_vec();
    if config.objective.match_parameters {
        let moved = matched_layers(&decoder, &heads_spec(config));
        if moved >= decoder.layers {
            let problem = format!(
                "would move {moved} of {} layers into heads: give the model more layers, or fewer heads",
                decoder.layers
            );
            return setting("objective.match_parameters", problem);
        }
        decoder.layers -= moved;
    }
    Ok(decoder)
}

/// What the objective of a run adds to its model.
fn wanted(config: &RunConfig) -> Added {
    match config.objective.kind {
        ObjectiveKind::Registers => Added::Registers(config.objective.registers(config.run.seed)),
        ObjectiveKind::Joint => Added::Joint(config.objective.joint()),
        ObjectiveKind::NextToken | ObjectiveKind::Heads => Added::Heads(heads_spec(config)),
    }
}

/// Builds or reads the model, and adds the heads.
///
/// Heads in `model.init` are taken over if they are of the kind and number that the run trains; others are left out.
///
/// # Errors
/// When a file is missing or damaged, or model and settings do not fit together.
pub fn start(config: &RunConfig) -> Result<Start> {
    let vocabulary = vocabulary(config)?;
    let decoder_config = decoder_config(config, &vocabulary)?;
    let wanted = wanted(config);
    let (decoder, mut params, taken_over, mut origin) = match &config.model.init {
        None => {
            let (decoder, params) = Decoder::initialise(&decoder_config, config.run.seed)?;
            (decoder, params, None, "a new model".to_owned())
        }
        Some(folder) => {
            if LoraSpec::is_in(&folder.join(checkpoint::ADAPTER))? {
                let folder = folder.display();
                let problem = format!(
                    "is {folder}, whose adapter must be merged first: sakiyomi merge {folder} --output {folder}-merged"
                );
                return setting("model.init", problem);
            }
            let mut params = read_trunk(folder, &decoder_config)?;
            let decoder = Decoder::find(&decoder_config, &params)?;
            let found = checkpoint::read_added(folder, &decoder, &mut params, Some(&wanted))?;
            (decoder, params, found, folder.display().to_string())
        }
    };
    let fresh = config.train.mode == TrainMode::Pretrain;
    // What is not stored in the weights, such as the weights of the losses, is the run's, whatever was trained before.
    let objective = match wanted {
        Added::Heads(spec) if taken_over.is_some() => {
            origin += " and its heads";
            ParallelHeads::find(spec, &decoder, &params)?.into()
        }
        Added::Joint(spec) if taken_over.is_some() => {
            origin += " and its joint heads";
            JointHeads::find(spec, &decoder, &params)?.into()
        }
        Added::Joint(spec) => {
            let linear = match &config.model.init {
                Some(folder) => checkpoint::read_linear_heads(folder, &decoder, &params)?,
                None => Vec::new(),
            };
            origin += match linear.is_empty() || spec.start == JointStart::Random {
                true => " with new joint heads",
                false => " with new joint heads that begin at its linear heads",
            };
            let heads = JointHeads::attach(spec, &decoder, &mut params, config.run.seed)?;
            heads.begin_at(&linear, &mut params);
            heads.into()
        }
        Added::Heads(spec) => {
            let start = match fresh {
                true => HeadStart::Fresh { seed: config.run.seed },
                false => HeadStart::Finished,
            };
            if spec.n > 1 {
                origin += " with new heads";
            }
            ParallelHeads::attach(spec, &decoder, &mut params, start)?.into()
        }
        Added::Registers(spec) if taken_over.is_some() => {
            origin += " and its registers";
            Registers::find(spec, &decoder, &params)?.into()
        }
        Added::Registers(spec) => {
            let start = match fresh {
                true => RegisterStart::Fresh { seed: config.run.seed },
                false => RegisterStart::Finished,
            };
            origin += " with registers";
            Registers::attach(spec, &decoder, &mut params, start)?.into()
        }
    };
    let lora = config.adapters();
    if let Some(spec) = &lora {
        spec.attach(&decoder.config, &mut params, config.run.seed)?;
        origin += " with new adapters";
    }
    let mut checkpoint = Checkpoint { vocabulary, decoder, params, objective, lora };
    choose_trained(&mut checkpoint, config.train.mode);
    Ok(Start { checkpoint, origin })
}

/// Decides which parameters training may change.
pub(crate) fn choose_trained(checkpoint: &mut Checkpoint, mode: TrainMode) {
    let ids: Vec<_> = checkpoint.params.iter().map(|(id, _)| id).collect();
    let mut added = checkpoint.objective.parameters().to_vec();
    added.extend(model::lora::adapter_parameters(&checkpoint.params));
    let all = matches!(mode, TrainMode::Pretrain | TrainMode::Full);
    for id in ids {
        checkpoint.params.set_trainable(id, all || added.contains(&id));
    }
}

fn setting<T>(key: &str, problem: impl Into<String>) -> Result<T> {
    Err(Error::Setting { key: key.to_owned(), problem: problem.into() })
}
