//! The decoder, written once over [`Ops`]: the tape trains it, the engine decodes with it.

use std::sync::Arc;

use tensor::random::{self, Seeded};
use tensor::{Embedding, Linear, Norm, Ops, ParamId, Params, RopeTable};

use crate::block::{Block, Finder};
use crate::config::{DecoderConfig, NormForm};
use crate::error::Result;

/// A decoder-only language model.
#[derive(Clone, Debug)]
pub struct Decoder {
    /// Its sizes and conventions.
    pub config: DecoderConfig,
    /// How tokens become rows; its table is `[vocabulary, width]`.
    pub embedding: Embedding,
    /// The transformer blocks in order.
    pub blocks: Vec<Block>,
    /// The norm before the unembedding.
    pub norm: Norm,
    /// `[vocabulary, width]`; the embedding itself when tied.
    pub unembedding: ParamId,
    rope: Arc<RopeTable>,
}

impl Decoder {
    /// Finds the parameters of `config` among `params`, by their Hugging Face names.
    pub fn find(config: &DecoderConfig, params: &Params) -> Result<Self> {
        let find = Finder { params, config, prefix: "model" };
        let variant = &config.variant;
        let rope = Arc::new(config.rope_table());
        let blocks = (0..config.layers)
            .map(|layer| Block::find(params, config, &rope, &format!("model.layers.{layer}"), layer, layer))
            .collect::<Result<_>>()?;
        let table = find.param("embed_tokens.weight")?;
        let positions =
            variant.learned_positions.then(|| find.param("embed_positions.weight")).transpose()?;
        Ok(Self {
            config: config.clone(),
            embedding: Embedding { table, scale: variant.embedding_scale, positions },
            blocks,
            norm: find.norm("norm")?,
            unembedding: if config.tied {
                table
            } else {
                Finder { prefix: "lm_head", ..find }.param("weight")?
            },
            rope,
        })
    }

    /// Random parameters: normal with deviation `sqrt(2 / (5 inputs))` (Nguyen and Salazar 2019, arXiv 1910.05895; 0.02 at
    /// GPT-2's width, and larger for narrow models, which otherwise take long to get going), the maps into the residual
    /// stream smaller by `sqrt(2 layers)`, gains 1 (or the 0 to which 1 is added), biases 0.
    pub fn initialise(config: &DecoderConfig, seed: u64) -> Result<(Self, Params)> {
        let mut params = Params::default();
        let mut rng = random::seeded(seed, INITIALISATION);
        for spec in config.tensors() {
            let data = initial_values(&spec.name, &spec.shape, config, &mut rng);
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
        ops.embed(&self.embedding, tokens)
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
            x = ops.run(&self.blocks[layer], x);
            tap(ops, layer, &x);
        }
        x
    }

    /// The norm before the unembedding.
    pub fn final_norm<O: Ops>(&self, ops: &mut O, x: &O::Var) -> O::Var {
        ops.norm(x, &self.norm)
    }

    /// Normed states to logits `[rows, vocabulary]`.
    pub fn logits<O: Ops>(&self, ops: &mut O, normed: O::Var) -> O::Var {
        self.logits_by(ops, normed, self.unembedding)
    }

    /// As [`Self::logits`] with another unembedding `[vocabulary, width]`, such as that of a head.
    pub fn logits_by<O: Ops>(&self, ops: &mut O, normed: O::Var, unembedding: ParamId) -> O::Var {
        let logits = ops.linear(normed, &[Linear { weight: unembedding, bias: None }]);
        match self.config.variant.logit_cap {
            None => logits,
            Some(cap) => ops.soft_cap(logits, cap),
        }
    }
}

/// Purpose of the random stream that draws initial values.
const INITIALISATION: u64 = 1;

/// Initial values for a parameter, by what its name says it is.
pub fn initial_values(name: &str, shape: &[usize], config: &DecoderConfig, rng: &mut Seeded) -> Vec<f32> {
    let count = shape.iter().product();
    if name.ends_with(".bias") {
        return vec![0.0; count];
    }
    if name.ends_with("norm.weight") {
        // Norms of single heads are plain in every family.
        let plus_one = config.variant.norm == NormForm::RmsPlusOne && !name.contains("self_attn.");
        return vec![if plus_one { 0.0 } else { 1.0 }; count];
    }
    let deviation = (2.0 / (5.0 * shape[1..].iter().product::<usize>() as f32)).sqrt();
    let into_residual = name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight");
    let deviation = if into_residual { deviation / (2.0 * config.layers as f32).sqrt() } else { deviation };
    random::normal(rng, count, deviation)
}
