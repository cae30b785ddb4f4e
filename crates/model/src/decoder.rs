//! The decoder, written once over [`Ops`]: the tape trains it, the engine decodes with it.

use std::sync::Arc;

use tensor::random::{self, Seeded};
use tensor::{AttentionSpec, Linear, Ops, ParamId, Params, RopeTable};

use crate::config::DecoderConfig;
use crate::error::{Error, Result};

/// One transformer block: pre-norm attention and pre-norm SwiGLU, both added to the residual stream.
#[derive(Clone, Debug)]
pub struct Block {
    attention_norm: ParamId,
    qkv: [Linear; 3],
    output: Linear,
    ffn_norm: ParamId,
    gate_up: [Linear; 2],
    down: Linear,
    attention: AttentionSpec,
    epsilon: f32,
}

impl Block {
    /// Finds a block's parameters under `prefix` (for example `model.layers.3`); `slot` is its cache in an engine.
    pub fn find(
        params: &Params,
        config: &DecoderConfig,
        rope: &Arc<RopeTable>,
        prefix: &str,
        slot: usize,
    ) -> Result<Self> {
        let find = |name: String| params.find(&name).ok_or(Error::MissingParameter { name });
        let linear = |name: &str, bias: bool| -> Result<Linear> {
            Ok(Linear {
                weight: find(format!("{prefix}.{name}.weight"))?,
                bias: if bias { Some(find(format!("{prefix}.{name}.bias"))?) } else { None },
            })
        };
        let (attention_bias, mlp_bias) = (config.attention_bias, config.mlp_bias);
        Ok(Self {
            attention_norm: find(format!("{prefix}.input_layernorm.weight"))?,
            qkv: [
                linear("self_attn.q_proj", attention_bias)?,
                linear("self_attn.k_proj", attention_bias)?,
                linear("self_attn.v_proj", attention_bias)?,
            ],
            output: linear("self_attn.o_proj", attention_bias)?,
            ffn_norm: find(format!("{prefix}.post_attention_layernorm.weight"))?,
            gate_up: [linear("mlp.gate_proj", mlp_bias)?, linear("mlp.up_proj", mlp_bias)?],
            down: linear("mlp.down_proj", mlp_bias)?,
            attention: AttentionSpec {
                slot,
                heads: config.heads,
                kv_heads: config.kv_heads,
                head_dim: config.head_dim,
                scale: (config.head_dim as f32).sqrt().recip(),
                rope: Arc::clone(rope),
            },
            epsilon: config.norm_epsilon,
        })
    }

    /// `[rows, width]` to `[rows, width]`.
    pub fn forward<O: Ops>(&self, ops: &mut O, x: O::Var) -> O::Var {
        let normed = ops.rms_norm(&x, self.attention_norm, self.epsilon);
        let qkv = ops.linear(normed, &self.qkv);
        let attended = ops.attention(qkv, &self.attention);
        let x = ops.narrow(x, self.attention.slot);
        let x = ops.linear_add(attended, self.output, x);
        let normed = ops.rms_norm(&x, self.ffn_norm, self.epsilon);
        let gate_up = ops.linear(normed, &self.gate_up);
        let inner = ops.swiglu(gate_up);
        ops.linear_add(inner, self.down, x)
    }

    /// The cache that an engine keeps for it.
    pub fn attention(&self) -> &AttentionSpec {
        &self.attention
    }

    /// Groups of linear maps that are applied to one input, as an engine packs them.
    pub fn linear_groups(&self) -> Vec<Vec<Linear>> {
        vec![self.qkv.to_vec(), vec![self.output], self.gate_up.to_vec(), vec![self.down]]
    }

    /// Norm gains and biases, which an engine keeps as they are.
    pub fn vectors(&self) -> Vec<ParamId> {
        let maps = self.linear_groups().concat();
        maps.iter().filter_map(|map| map.bias).chain([self.attention_norm, self.ffn_norm]).collect()
    }
}

/// A decoder-only language model.
#[derive(Clone, Debug)]
pub struct Decoder {
    /// Its sizes and conventions.
    pub config: DecoderConfig,
    /// `[vocabulary, width]`
    pub embedding: ParamId,
    /// The transformer blocks in order.
    pub blocks: Vec<Block>,
    /// Gain of the norm before the unembedding, `[width]`.
    pub norm: ParamId,
    /// `[vocabulary, width]`; the embedding itself when tied.
    pub unembedding: ParamId,
    rope: Arc<RopeTable>,
}

impl Decoder {
    /// Finds the parameters of `config` among `params`, by their Hugging Face names.
    pub fn find(config: &DecoderConfig, params: &Params) -> Result<Self> {
        let find = |name: &str| params.find(name).ok_or(Error::MissingParameter { name: name.to_owned() });
        let rope = Arc::new(RopeTable::new(&config.inverse_frequencies(), config.context));
        let blocks = (0..config.layers)
            .map(|layer| Block::find(params, config, &rope, &format!("model.layers.{layer}"), layer))
            .collect::<Result<_>>()?;
        let embedding = find("model.embed_tokens.weight")?;
        Ok(Self {
            config: config.clone(),
            embedding,
            blocks,
            norm: find("model.norm.weight")?,
            unembedding: if config.tied { embedding } else { find("lm_head.weight")? },
            rope,
        })
    }

    /// Random parameters: normal with deviation `sqrt(2 / (5 inputs))` (Nguyen and Salazar 2019, arXiv 1910.05895; 0.02 at
    /// GPT-2's width, and larger for narrow models, which otherwise take long to get going), the maps into the residual
    /// stream smaller by `sqrt(2 layers)`, gains 1, biases 0.
    pub fn initialise(config: &DecoderConfig, seed: u64) -> Result<(Self, Params)> {
        let mut params = Params::default();
        let mut rng = random::seeded(seed, INITIALISATION);
        for spec in config.tensors() {
            let data = initial_values(&spec.name, &spec.shape, config.layers, &mut rng);
            params.add(spec.name, &spec.shape, data);
        }
        Ok((Self::find(config, &params)?, params))
    }

    /// Angles that blocks outside the decoder (heads) share with it.
    pub fn rope(&self) -> &Arc<RopeTable> {
        &self.rope
    }

    /// Tokens to the residual stream before the first block, `[rows, width]`.
    pub fn embed<O: Ops>(&self, ops: &mut O, tokens: &[u32]) -> O::Var {
        ops.embed(self.embedding, tokens)
    }

    /// Runs `blocks[from..to]`. `tap` sees the residual stream after each block, with the block's index.
    pub fn run_blocks<O: Ops>(
        &self,
        ops: &mut O,
        mut x: O::Var,
        layers: std::ops::Range<usize>,
        tap: &mut dyn FnMut(&mut O, usize, &O::Var),
    ) -> O::Var {
        for layer in layers {
            x = self.blocks[layer].forward(ops, x);
            tap(ops, layer, &x);
        }
        x
    }

    /// The norm before the unembedding.
    pub fn final_norm<O: Ops>(&self, ops: &mut O, x: &O::Var) -> O::Var {
        ops.rms_norm(x, self.norm, self.config.norm_epsilon)
    }

    /// Normed states to logits `[rows, vocabulary]`.
    pub fn logits<O: Ops>(&self, ops: &mut O, normed: O::Var) -> O::Var {
        ops.linear(normed, &[Linear { weight: self.unembedding, bias: None }])
    }
}

/// Purpose of the random stream that draws initial values.
const INITIALISATION: u64 = 1;

/// Initial values for a parameter, by what its name says it is.
pub fn initial_values(name: &str, shape: &[usize], layers: usize, rng: &mut Seeded) -> Vec<f32> {
    let count = shape.iter().product();
    if name.ends_with(".bias") {
        return vec![0.0; count];
    }
    if name.ends_with("norm.weight") {
        return vec![1.0; count];
    }
    let deviation = (2.0 / (5.0 * shape[1..].iter().product::<usize>() as f32)).sqrt();
    let into_residual = name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight");
    let deviation = if into_residual { deviation / (2.0 * layers as f32).sqrt() } else { deviation };
    random::normal(rng, count, deviation)
}
