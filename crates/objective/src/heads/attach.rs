//! The heads' parameters: their names, shapes and first values.

use model::{Block, Decoder, DecoderConfig, initial_values};
use tensor::{Linear, ParamId, Params, random};

use super::{Body, Head, HeadKind, HeadsSpec, ParallelHeads, UnembeddingKind};
use crate::Result;

/// How new heads begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadStart {
    /// With the model, from random values.
    Fresh {
        /// Seed of the run.
        seed: u64,
    },
    /// On a finished model: every head begins by predicting what head 1 predicts, so that drafting starts sensible.
    Finished,
}

/// Purpose of the random stream that draws the heads' initial values.
const HEAD_INITIALISATION: u64 = 2;

/// Blocks that move from the trunk into the heads so that n heads cost no more parameters than the model had without them
/// (2404.19737 section 2.1: n-1 for `layer`). Smaller heads move the nearest whole number of blocks.
pub fn matched_layers(config: &DecoderConfig, spec: &HeadsSpec) -> usize {
    let block: usize =
        tensors_of_block(config, "").iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
    let replicated = match spec.unembedding {
        UnembeddingKind::Shared => 0,
        UnembeddingKind::Replicated => config.vocabulary * config.width,
    };
    let head = replicated
        + match spec.kind {
            HeadKind::Layer | HeadKind::Causal => block,
            HeadKind::Linear => config.width * config.width,
            HeadKind::Anticausal => 0,
        };
    (((spec.n - 1) * head) as f64 / block as f64).round() as usize
}

impl ParallelHeads {
    /// Adds the parameters of the heads to `params`, named `heads.K...` for depth K.
    pub fn attach(spec: HeadsSpec, decoder: &Decoder, params: &mut Params, start: HeadStart) -> Result<Self> {
        let seed = if let HeadStart::Fresh { seed } = start { seed } else { 0 };
        let mut rng = random::seeded(seed, HEAD_INITIALISATION);
        let last = format!("model.layers.{}", decoder.config.layers - 1);
        for (name, shape) in Self::tensors(&spec, &decoder.config) {
            let inner = name.splitn(3, '.').nth(2).unwrap_or_default();
            let twin = params.find(&format!("{last}.{inner}"));
            let into_residual = inner.contains("o_proj.") || inner.contains("down_proj.");
            let data = match (spec.kind, start) {
                _ if inner == "unembedding.weight" => params.data(decoder.unembedding).to_vec(),
                (HeadKind::Linear, _) => identity(decoder.config.width),
                // On top of a finished model a block that adds nothing leaves the prediction of head 1.
                (HeadKind::Causal, HeadStart::Finished) if into_residual => vec![0.0; shape.iter().product()],
                (_, HeadStart::Finished) if twin.is_some() => {
                    twin.map(|id| params.data(id).to_vec()).unwrap_or_default()
                }
                _ => initial_values(&name, &shape, &decoder.config, &mut rng),
            };
            params.add(name, &shape, data);
        }
        Self::find(spec, decoder, params)
    }

    /// Finds the heads' parameters among `params`.
    pub fn find(spec: HeadsSpec, decoder: &Decoder, params: &Params) -> Result<Self> {
        let config = &decoder.config;
        spec.validate(config.layers)?;
        let find = |name: String| params.find(&name).ok_or(model::Error::MissingParameter { name });
        let parameters = Self::tensors(&spec, config)
            .into_iter()
            .map(|(name, _)| find(name))
            .collect::<std::result::Result<Vec<ParamId>, model::Error>>()?;
        let mut heads = Vec::new();
        for depth in 2..=spec.n {
            let slot = config.layers + depth - 2;
            let body = match spec.kind {
                HeadKind::Layer | HeadKind::Causal => Body::Block(Box::new(Block::find(
                    params,
                    config,
                    decoder.rope(),
                    &format!("heads.{depth}"),
                    // A head stands in the place of the last block: with its window and its rotation, or without.
                    config.layers - 1,
                    slot,
                )?)),
                HeadKind::Linear => {
                    Body::Linear(Linear { weight: find(format!("heads.{depth}.map.weight"))?, bias: None })
                }
                HeadKind::Anticausal => Body::Readout,
            };
            let unembedding = match spec.unembedding {
                UnembeddingKind::Shared => decoder.unembedding,
                UnembeddingKind::Replicated => find(format!("heads.{depth}.unembedding.weight"))?,
            };
            heads.push(Head { body, unembedding });
        }
        Ok(Self { spec, heads, parameters, layers: config.layers })
    }

    /// Names and shapes of what the heads add to a model.
    pub fn tensors(spec: &HeadsSpec, config: &DecoderConfig) -> Vec<(String, Vec<usize>)> {
        let mut tensors = Vec::new();
        for depth in 2..=spec.n {
            match spec.kind {
                HeadKind::Layer | HeadKind::Causal => {
                    tensors.extend(tensors_of_block(config, &format!("heads.{depth}")));
                }
                HeadKind::Linear => {
                    tensors.push((format!("heads.{depth}.map.weight"), vec![config.width, config.width]));
                }
                HeadKind::Anticausal => {}
            }
            if spec.unembedding == UnembeddingKind::Replicated {
                tensors.push((
                    format!("heads.{depth}.unembedding.weight"),
                    vec![config.vocabulary, config.width],
                ));
            }
        }
        tensors
    }
}

/// The tensors of the model's first block, renamed to stand under `prefix`.
fn tensors_of_block(config: &DecoderConfig, prefix: &str) -> Vec<(String, Vec<usize>)> {
    let of_first = |name: &str| name.strip_prefix("model.layers.0").map(|rest| format!("{prefix}{rest}"));
    config.tensors().into_iter().filter_map(|spec| Some((of_first(&spec.name)?, spec.shape))).collect()
}

fn identity(width: usize) -> Vec<f32> {
    let mut data = vec![0.0; width * width];
    data.iter_mut().step_by(width + 1).for_each(|v| *v = 1.0);
    data
}
