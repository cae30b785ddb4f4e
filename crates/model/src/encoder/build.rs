//! From names of tensors to parameters: each is taken from the checkpoint when the model first asks for it.

use std::path::Path;

use tensor::random::{self, Seeded};
use tensor::{Linear, Norm, NormKind, ParamId, Params};

use super::Weights;
use crate::checkpoint::Stored;
use crate::error::Result;

/// Purpose of the random stream that draws initial values.
const INITIALISATION: u64 = 2;

/// Deviation of random maps, the usual `initializer_range`.
const DEVIATION: f32 = 0.02;

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
