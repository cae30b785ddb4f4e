//! From names of tensors to parameters: each is taken from the checkpoint when the model first asks for it.

use std::path::Path;

use tensor::random::{self, Seeded};
use tensor::{Activation, Linear, Norm, NormKind, ParamId, Params};

use super::Weights;
use super::block::{Attention, EncoderBlock, Placement, Sight};
use crate::checkpoint::Stored;
use crate::error::Result;

/// Purpose of the random stream that draws initial values.
const INITIALISATION: u64 = 2;

/// Deviation of random maps, the usual `initializer_range`.
const DEVIATION: f32 = 0.02;

/// Where the tensors of a block stand, in the names that BERT and its heirs share.
pub(super) struct BlockNames {
    /// Of the block itself.
    pub(super) at: String,
    /// Of queries, keys and values.
    pub(super) attention: String,
    /// Of the norm that belongs to attention.
    pub(super) attention_norm: String,
    /// Of the norm that belongs to the feed-forward part.
    pub(super) norm: String,
}

/// What such a block is like.
pub(super) struct BlockSizes {
    pub(super) placement: Placement,
    pub(super) width: usize,
    pub(super) ffn: usize,
    pub(super) heads: usize,
    pub(super) epsilon: f32,
}

/// Collects the parameters of a model.
pub(super) struct Builder {
    source: Source,
    pub(super) params: Params,
}

enum Source {
    Stored(Box<Stored>),
    Random(Box<Seeded>),
}

impl Builder {
    /// Takes values from `folder`, out of `file` where the weights have an unusual name, or draws them.
    pub(super) fn new(folder: &Path, file: Option<&str>, weights: Weights) -> Result<Self> {
        let source = match weights {
            Weights::Stored => Source::Stored(Box::new(Stored::open(folder, file)?)),
            Weights::Random(seed) => Source::Random(Box::new(random::seeded(seed, INITIALISATION))),
        };
        Ok(Self { source, params: Params::default() })
    }

    /// A map `[outputs, inputs]` named `{name}.weight`, with `{name}.bias` if it has one.
    pub(super) fn linear(&mut self, name: &str, outputs: usize, inputs: usize, bias: bool) -> Result<Linear> {
        let weight = self.weight(&format!("{name}.weight"), &[outputs, inputs])?;
        let bias = bias.then(|| self.bias(&format!("{name}.bias"), outputs)).transpose()?;
        Ok(Linear { weight, bias })
    }

    /// A LayerNorm, its gain and bias under either pair of usual names.
    pub(super) fn norm(&mut self, name: &str, width: usize, epsilon: f32) -> Result<Norm> {
        let old = matches!(&self.source, Source::Stored(stored) if stored.has(&format!("{name}.gamma")));
        let [gain, bias] = if old { ["gamma", "beta"] } else { ["weight", "bias"] };
        let gain_values = self.constant(&format!("{name}.{gain}"), width, 1.0)?;
        let weight = self.params.add(format!("{name}.{gain}"), &[width], gain_values);
        let bias = self.bias(&format!("{name}.{bias}"), width)?;
        Ok(Norm { weight, kind: NormKind::Layer { bias }, epsilon })
    }

    /// A block whose attention sees all rows.
    pub(super) fn block(&mut self, names: &BlockNames, sizes: &BlockSizes) -> Result<EncoderBlock> {
        let BlockNames { at, attention, attention_norm, norm } = names;
        let &BlockSizes { placement, width, ffn, heads, epsilon } = sizes;
        Ok(EncoderBlock {
            placement,
            attentions: vec![Attention {
                norm: self.norm(attention_norm, width, epsilon)?,
                query: self.linear(&format!("{attention}.query"), width, width, true)?,
                memory: [
                    self.linear(&format!("{attention}.key"), width, width, true)?,
                    self.linear(&format!("{attention}.value"), width, width, true)?,
                ],
                output: self.linear(&format!("{at}.attention.output.dense"), width, width, true)?,
                heads,
                scale: ((width / heads) as f32).sqrt().recip(),
                sight: Sight::Own,
            }],
            norm: self.norm(norm, width, epsilon)?,
            up: self.linear(&format!("{at}.intermediate.dense"), ffn, width, true)?,
            down: self.linear(&format!("{at}.output.dense"), width, ffn, true)?,
            activation: Activation::GeluErf,
        })
    }

    /// A parameter whose random values are normal.
    pub(super) fn weight(&mut self, name: &str, shape: &[usize]) -> Result<ParamId> {
        let values = self.values(name, shape)?;
        Ok(self.params.add(name, shape, values))
    }

    /// A parameter whose random values are zero.
    pub(super) fn bias(&mut self, name: &str, width: usize) -> Result<ParamId> {
        let values = self.constant(name, width, 0.0)?;
        Ok(self.params.add(name, &[width], values))
    }

    /// Values that become a part of a parameter; normal where they are random.
    pub(super) fn values(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        match &mut self.source {
            Source::Stored(stored) => stored.take(name, shape),
            Source::Random(rng) => Ok(random::normal(rng, shape.iter().product(), DEVIATION)),
        }
    }

    /// Values that are the same everywhere before training.
    pub(super) fn constant(&mut self, name: &str, width: usize, value: f32) -> Result<Vec<f32>> {
        match &mut self.source {
            Source::Stored(stored) => stored.take(name, &[width]),
            Source::Random(_) => Ok(vec![value; width]),
        }
    }

    /// The parameters; what is left in the files must be `known` as of no use here.
    pub(super) fn finish(self, known: impl Fn(&str) -> bool) -> Result<Params> {
        if let Source::Stored(stored) = self.source {
            stored.finish(known)?;
        }
        Ok(self.params)
    }
}
