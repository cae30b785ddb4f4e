//! The parameters of joint heads: their names, shapes and first values.

use model::{Decoder, DecoderConfig, initial_values};
use tensor::{Linear, ParamId, Params, random};

use super::circuit::Circuit;
use super::{JointHeads, JointSpec, JointStart};
use crate::Result;

/// Purpose of the random stream that draws initial values.
const JOINT_INITIALISATION: u64 = 4;

/// Deviation of the noise on maps that begin as the identity, times the root of the width: components that begin equal would
/// stay equal.
const NOISE: f32 = 0.1;

/// Logit by which a region below the root prefers the state of the region above at the beginning, so that a tree begins near the
/// plain mixture.
const SAME_STATE: f32 = 4.0;

const GATE_WEIGHT: &str = "joint.gate.weight";
const GATE_BIAS: &str = "joint.gate.bias";

impl JointHeads {
    /// Adds the parameters of joint heads to `params`.
    ///
    /// # Errors
    ///
    /// If the settings cannot work.
    pub fn attach(spec: JointSpec, decoder: &Decoder, params: &mut Params, seed: u64) -> Result<Self> {
        spec.validate()?;
        let mut rng = random::seeded(seed, JOINT_INITIALISATION);
        let width = decoder.config.width;
        for (name, shape) in Self::tensors(&spec, &decoder.config) {
            let data = if name == GATE_BIAS {
                gate_bias(&spec)
            } else if name == GATE_WEIGHT || spec.start == JointStart::Random {
                initial_values(&name, &shape, &decoder.config, &mut rng)
            } else {
                let deviation = if spec.rank > 1 { NOISE / (width as f32).sqrt() } else { 0.0 };
                let mut data = random::normal(&mut rng, width * width, deviation);
                data.iter_mut().step_by(width + 1).for_each(|value| *value += 1.0);
                data
            };
            params.add(name, &shape, data);
        }
        Self::find(spec, decoder, params)
    }

    /// Lets every state of a place begin at the linear head of that depth (`maps[depth - 2]`, `[width, width]`) in place of the
    /// identity, with the same noise, so that the mixture begins near what those heads say together. Places beyond `maps`, and maps
    /// that begin at random, stay as they are.
    pub fn begin_at(&self, maps: &[Vec<f32>], params: &mut Params) {
        if self.spec.start == JointStart::Random {
            return;
        }
        for (states, map) in self.maps.iter().skip(1).zip(maps) {
            for state in states {
                let (width, _) = params.matrix_shape(state.weight);
                let data = params.data_mut(state.weight);
                data.iter_mut().step_by(width + 1).for_each(|value| *value -= 1.0);
                data.iter_mut().zip(map).for_each(|(value, learnt)| *value += learnt);
            }
        }
    }

    /// Finds the parameters among `params`.
    ///
    /// # Errors
    ///
    /// If one is missing, or the settings cannot work.
    pub fn find(spec: JointSpec, decoder: &Decoder, params: &Params) -> Result<Self> {
        spec.validate()?;
        let find = |name: String| params.find(&name).ok_or(model::Error::MissingParameter { name });
        let parameters = Self::tensors(&spec, &decoder.config)
            .into_iter()
            .map(|(name, _)| find(name))
            .collect::<std::result::Result<Vec<ParamId>, model::Error>>()?;
        let map = |place, state| Ok(Linear { weight: find(map_name(place, state))?, bias: None });
        let maps = (0..spec.n)
            .map(|place| (0..states(&spec, place)).map(|state| map(place, state)).collect())
            .collect::<Result<Vec<Vec<Linear>>>>()?;
        let gate = match spec.rank {
            1 => None,
            _ => Some(Linear {
                weight: find(GATE_WEIGHT.to_owned())?,
                bias: Some(find(GATE_BIAS.to_owned())?),
            }),
        };
        let circuit = Circuit::new(spec.kind, spec.n, spec.rank);
        Ok(Self { spec, circuit, maps, gate, parameters, layers: decoder.config.layers })
    }

    /// Names and shapes of what joint heads add to a model: `joint.S.A.map.weight` for place S and component A, both from 1, and
    /// the gate, whose outputs are the weights of the root and the rows of the matrices of the regions below it.
    pub fn tensors(spec: &JointSpec, config: &DecoderConfig) -> Vec<(String, Vec<usize>)> {
        let mut tensors = Vec::new();
        for place in 0..spec.n {
            for state in 0..states(spec, place) {
                tensors.push((map_name(place, state), vec![config.width, config.width]));
            }
        }
        if spec.rank > 1 {
            let outputs = Circuit::new(spec.kind, spec.n, spec.rank).gate_width();
            tensors.push((GATE_WEIGHT.to_owned(), vec![outputs, config.width]));
            tensors.push((GATE_BIAS.to_owned(), vec![outputs]));
        }
        tensors
    }
}

/// Components with a map at a place.
fn states(spec: &JointSpec, place: usize) -> usize {
    if place == 0 && spec.rank == 1 { 0 } else { spec.rank }
}

fn map_name(place: usize, state: usize) -> String {
    format!("joint.{}.{}.map.weight", place + 1, state + 1)
}

fn gate_bias(spec: &JointSpec) -> Vec<f32> {
    let circuit = Circuit::new(spec.kind, spec.n, spec.rank);
    let mut bias = vec![0.0; circuit.gate_width()];
    for matrix in bias[spec.rank..].chunks_exact_mut(spec.rank * spec.rank) {
        matrix.iter_mut().step_by(spec.rank + 1).for_each(|value| *value = SAME_STATE);
    }
    bias
}
