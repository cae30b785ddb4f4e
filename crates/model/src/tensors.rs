//! The tensors that a decoder implies, under the names by which everything inside knows them.
//!
//! These are the names of Llama checkpoints, with those of Gemma 2 and Qwen3 for the norms that Llama lacks, and
//! `embed_positions` for learned positions. How a family stores them on disk is the business of `checkpoint/storage.rs`.

use crate::config::{ActivationForm, DecoderConfig, NormForm};

/// A tensor that a decoder must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// Shape; a map from `n` to `m` values is `[m, n]`.
    pub shape: Vec<usize>,
}

/// `[vocabulary, width]`
pub(crate) const EMBEDDING: &str = "model.embed_tokens.weight";
/// `[context, width]`
pub(crate) const POSITIONS: &str = "model.embed_positions.weight";
/// `[vocabulary, width]`
pub(crate) const UNEMBEDDING: &str = "lm_head.weight";

impl DecoderConfig {
    /// Every tensor of this decoder, in the order of use: embedding, blocks, final norm, unembedding.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let &Self { width, vocabulary, .. } = self;
        let mut list = List { config: self, tensors: Vec::new() };
        list.add(EMBEDDING.into(), &[vocabulary, width]);
        if self.variant.learned_positions {
            list.add(POSITIONS.into(), &[self.context, width]);
        }
        for layer in 0..self.layers {
            list.block(&format!("model.layers.{layer}"));
        }
        list.norm("model.norm", width);
        if !self.tied {
            list.add(UNEMBEDDING.into(), &[vocabulary, width]);
        }
        list.tensors
    }

    /// Number of trained values.
    pub fn parameters(&self) -> u64 {
        let count = |spec: TensorSpec| spec.shape.iter().map(|&extent| extent as u64).product::<u64>();
        self.tensors().into_iter().map(count).sum()
    }
}

struct List<'a> {
    config: &'a DecoderConfig,
    tensors: Vec<TensorSpec>,
}

impl List<'_> {
    fn block(&mut self, prefix: &str) {
        let config = self.config;
        let &DecoderConfig { width, ffn, attention_bias, mlp_bias, .. } = config;
        let variant = &config.variant;
        let queries = config.heads * config.head_dim;
        let keys = config.kv_heads * config.head_dim;
        let name = |part: &str| format!("{prefix}.{part}");

        self.norm(&name("input_layernorm"), width);
        self.linear(&name("self_attn.q_proj"), queries, width, attention_bias);
        self.linear(&name("self_attn.k_proj"), keys, width, attention_bias);
        self.linear(&name("self_attn.v_proj"), keys, width, attention_bias);
        self.linear(&name("self_attn.o_proj"), width, queries, config.output_bias());
        if variant.head_norms {
            self.add(name("self_attn.q_norm.weight"), &[config.head_dim]);
            self.add(name("self_attn.k_norm.weight"), &[config.head_dim]);
        }
        self.norm(&name("post_attention_layernorm"), width);
        if variant.post_norms {
            self.norm(&name("pre_feedforward_layernorm"), width);
        }
        if variant.activation != ActivationForm::Gelu {
            self.linear(&name("mlp.gate_proj"), ffn, width, mlp_bias);
        }
        self.linear(&name("mlp.up_proj"), ffn, width, mlp_bias);
        self.linear(&name("mlp.down_proj"), width, ffn, mlp_bias);
        if variant.post_norms {
            self.norm(&name("post_feedforward_layernorm"), width);
        }
    }

    fn linear(&mut self, name: &str, outputs: usize, inputs: usize, bias: bool) {
        self.add(format!("{name}.weight"), &[outputs, inputs]);
        if bias {
            self.add(format!("{name}.bias"), &[outputs]);
        }
    }

    fn norm(&mut self, name: &str, width: usize) {
        self.add(format!("{name}.weight"), &[width]);
        if self.config.variant.norm == NormForm::Layer {
            self.add(format!("{name}.bias"), &[width]);
        }
    }

    fn add(&mut self, name: String, shape: &[usize]) {
        self.tensors.push(TensorSpec { name, shape: shape.to_vec() });
    }
}
