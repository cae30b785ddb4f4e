//! What a run will take, before anything is read or computed.

use model::DecoderConfig;
use objective::{HeadKind, HeadsSpec, JointHeads, ParallelHeads, Registers};

use crate::config::{Dtype, ObjectiveKind, RunConfig, TrainMode};
use crate::error::{Error, Result};
use crate::{memory, start};

/// Sizes of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The model, after `match_parameters`.
    pub decoder: DecoderConfig,
    /// The heads on it.
    pub heads: HeadsSpec,
    /// Parameters of the model without its heads.
    pub trunk_parameters: usize,
    /// Those of them that embed tokens, or unembed them where that is a matrix of its own.
    pub embedding_parameters: usize,
    /// Parameters of the heads.
    pub head_parameters: usize,
    /// Parameters that are trained.
    pub trained_parameters: usize,
    /// Updates.
    pub steps: usize,
    /// Inputs per update.
    pub tokens_per_step: usize,
    /// Inputs of the whole run.
    pub tokens: u64,
    /// Bytes of weights, gradients, moments and buffers together; an estimate.
    pub memory_bytes: u64,
    /// Those of them that are buffers of a step: they grow with its tokens.
    pub buffer_bytes: u64,
}

/// The sizes of the run that `config` describes. Reads the tokenizer and `config.json`, no weights and no text.
///
/// # Errors
/// When tokenizer or `config.json` cannot be read, or sizes do not fit together.
pub fn plan(config: &RunConfig) -> Result<Plan> {
    let vocabulary = start::vocabulary(config)?;
    let decoder = start::decoder_config(config, &vocabulary)?;
    let heads = start::heads_spec(config);
    let trunk_parameters = decoder.parameters() as usize;
    let per_token = |shape: &[usize]| shape.len() == 2 && shape[0] == decoder.vocabulary;
    let tables = decoder.tensors().into_iter().filter(|tensor| per_token(&tensor.shape));
    let embedding_parameters = tables.map(|tensor| tensor.shape.iter().product::<usize>()).sum();
    let added = ParallelHeads::tensors(&heads, &decoder);
    let more = match config.objective.kind {
        ObjectiveKind::Registers => Registers::tensors(decoder.width),
        ObjectiveKind::Joint => JointHeads::tensors(&config.objective.joint(), &decoder),
        ObjectiveKind::NextToken | ObjectiveKind::Heads => Vec::new(),
    };
    let added = added.iter().chain(&more);
    let head_parameters = added.map(|(_, shape)| shape.iter().product::<usize>()).sum();
    let adapter_parameters = match config.adapters() {
        Some(spec) => spec.parameters(&decoder)?,
        None => 0,
    };
    let trained_parameters = match config.train.mode {
        TrainMode::Heads | TrainMode::Lora => head_parameters + adapter_parameters,
        TrainMode::Pretrain | TrainMode::Full => head_parameters + trunk_parameters,
    };
    let buffers = buffer_values(config, &decoder, &heads);
    let values = trunk_parameters + head_parameters + 3 * trained_parameters + buffers;
    Ok(Plan {
        trunk_parameters,
        embedding_parameters,
        head_parameters,
        trained_parameters,
        steps: config.train.steps,
        tokens_per_step: config.tokens_per_step(),
        tokens: config.train.steps as u64 * config.tokens_per_step() as u64,
        memory_bytes: 4 * values as u64,
        buffer_bytes: 4 * buffers as u64,
        decoder,
        heads,
    })
}

impl Plan {
    /// Refuses a run that wants more memory than the machine has.
    ///
    /// # Errors
    /// Names the sizes, and what to reduce.
    pub fn check_memory(&self) -> Result<()> {
        match memory::machine() {
            Some(machine) if self.memory_bytes > machine => {
                Err(Error::TooLarge { wanted: self.memory_bytes, machine, buffers: self.buffer_bytes })
            }
            _ => Ok(()),
        }
    }
}

/// Values that the buffers of a step hold at their most, in the middle of running back.
fn buffer_values(config: &RunConfig, decoder: &DecoderConfig, heads: &HeadsSpec) -> usize {
    let tokens = config.train.batch * config.train.length;
    let rows = match config.objective.kind {
        ObjectiveKind::Registers => {
            let per_token = config.objective.registers(config.run.seed).registers_per_token();
            tokens + (tokens as f64 * per_token) as usize
        }
        ObjectiveKind::NextToken | ObjectiveKind::Heads | ObjectiveKind::Joint => tokens,
    };
    let queries = decoder.heads * decoder.head_dim;
    let qkv = queries + 2 * decoder.kv_heads * decoder.head_dim;
    // Kept for running back: both norms, both residuals, queries with keys and values, attended, gate with up, inner.
    let block = 4 * decoder.width + qkv + queries + 3 * decoder.ffn + decoder.heads + 2;
    let kept = match config.train.mode {
        // Heads run one after the other, and below them nothing is kept.
        TrainMode::Heads => 2 * block,
        TrainMode::Pretrain | TrainMode::Full | TrainMode::Lora => {
            // The heads that stand on each other are all kept; of those beside each other, one at a time.
            let blocks = decoder.layers + if heads.kind == HeadKind::Causal { heads.n - 1 } else { 0 };
            // Of blocks that are computed again, their outputs and all of one.
            if config.train.recompute_activations { blocks * decoder.width + block } else { blocks * block }
        }
    };
    // While a block runs back, gradients of its widest value and of the residual stream.
    let gradients = 2 * decoder.ffn + decoder.ffn.max(qkv) + 4 * decoder.width;
    // Logits exist for a chunk of rows at a time.
    let logits = (256 * decoder.vocabulary).max(1 << 20).min(rows * decoder.vocabulary);
    // Factors in bf16, two to a value: the unembedding for either direction, a chunk of logits, and of one map at a time its
    // gradient, its input and its weights.
    let packed = match config.train.dtype {
        Dtype::F32 => 0,
        Dtype::Bf16 => {
            let widest = decoder.ffn.max(queries);
            let map = rows * (widest + decoder.width) + widest * decoder.width;
            decoder.vocabulary * decoder.width + (logits + map) / 2
        }
    };
    rows * (kept + gradients + decoder.width) + logits + packed
}
