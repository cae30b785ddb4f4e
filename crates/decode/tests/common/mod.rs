//! Small models for the tests: random ones, whose drafts are sometimes right by chance, and planted ones, which know a cycle
//! of tokens by heart.

#![allow(dead_code, reason = "each file of tests uses its part")]

use std::sync::Arc;

use kernels::team::Team;
use model::engine::EngineWeights;
use model::{Decoder, DecoderConfig, Family, Rope, Variant};
use objective::{
    HeadKind, HeadStart, HeadsSpec, JointHeads, JointKind, JointSpec, JointStart, Objective, ParallelHeads,
    RegisterStart, Registers, RegistersSpec, UnembeddingKind,
};
use sakiyomi_decode::Target;
use tensor::Params;
use tensor::random::{normal, seeded};

/// A model with heads, and everything that a target borrows.
pub struct Toy {
    pub decoder: Decoder,
    pub heads: ParallelHeads,
    pub params: Params,
    pub weights: Arc<EngineWeights>,
}

impl Toy {
    fn new(decoder: Decoder, heads: ParallelHeads, params: Params) -> Self {
        let weights = Target::pack(&decoder, heads.drafter(), &params);
        Self { decoder, heads, params, weights }
    }

    pub fn target(&self, threads: usize) -> Target<'_> {
        self.target_of(threads, self.decoder.config.context)
    }

    pub fn target_of(&self, threads: usize, capacity: usize) -> Target<'_> {
        let team = Arc::new(Team::new(threads));
        Target::new(&self.decoder, self.heads.drafter(), Arc::clone(&self.weights), team, capacity).unwrap()
    }

    /// The same model with other weights.
    pub fn change(&mut self, change: impl FnOnce(&mut Params)) {
        change(&mut self.params);
        self.weights = Target::pack(&self.decoder, self.heads.drafter(), &self.params);
    }
}

pub fn config(vocabulary: usize, layers: usize, context: usize) -> DecoderConfig {
    DecoderConfig {
        family: Family::Llama,
        vocabulary,
        width: 32,
        layers,
        heads: 4,
        kv_heads: 2,
        head_dim: 8,
        ffn: 48,
        context,
        rope: Rope { theta: 10_000.0, scaling: None },
        norm_epsilon: 1e-5,
        tied: false,
        attention_bias: false,
        mlp_bias: false,
        begin_token: None,
        end_tokens: Vec::new(),
        variant: Variant::default(),
    }
}

pub fn spec(kind: HeadKind, n: usize, unembedding: UnembeddingKind) -> HeadsSpec {
    HeadsSpec { n, kind, unembedding, weights: Vec::new() }
}

/// Gives every map the deviation 0.02 in place of its initial one: so small that a block hardly changes what it is given.
fn quieten(params: &mut Params) {
    let maps: Vec<_> = params.iter().filter(|(_, param)| param.shape.len() == 2).map(|(id, _)| id).collect();
    for id in maps {
        let (_, inputs) = params.matrix_shape(id);
        if !params.get(id).name.ends_with("map.weight") {
            let factor = 0.02 / (2.0 / (5.0 * inputs as f32)).sqrt();
            params.data_mut(id).iter_mut().for_each(|value| *value *= factor);
        }
    }
}

/// Random weights, large enough that what the model says depends on all that it has read.
pub fn random(config: &DecoderConfig, spec: HeadsSpec, seed: u64) -> Toy {
    let (decoder, mut params) = Decoder::initialise(config, seed).unwrap();
    let heads = ParallelHeads::attach(spec, &decoder, &mut params, HeadStart::Fresh { seed }).unwrap();
    quieten(&mut params);
    let maps: Vec<_> =
        params.iter().filter(|(_, param)| !param.name.ends_with("norm.weight")).map(|(id, _)| id).collect();
    for id in maps {
        if !params.get(id).name.ends_with("map.weight") {
            params.data_mut(id).iter_mut().for_each(|value| *value *= 12.0);
        }
    }
    Toy::new(decoder, heads, params)
}

/// A model that continues any token of `cycle` with the next one; its heads draft the ones after that.
///
/// Token i of the cycle is embedded as the i-th unit vector, and read out one, two, ... places on.
pub fn planted(cycle: &[u32], config: &DecoderConfig, spec: HeadsSpec) -> Toy {
    assert!(cycle.len() <= config.width);
    let (decoder, mut params) = Decoder::initialise(config, 5).unwrap();
    let heads =
        ParallelHeads::attach(spec.clone(), &decoder, &mut params, HeadStart::Fresh { seed: 5 }).unwrap();
    quieten(&mut params);
    let width = config.width;
    let plant = |params: &mut Params, id, ahead: usize| {
        let data = params.data_mut(id);
        data.fill(0.0);
        for place in 0..cycle.len() {
            data[cycle[(place + ahead) % cycle.len()] as usize * width + place] = 1.0;
        }
    };
    plant(&mut params, decoder.embedding.table, 0);
    plant(&mut params, decoder.unembedding, 1);
    for depth in 2..=spec.n {
        if let Some(id) = params.find(&format!("heads.{depth}.unembedding.weight")) {
            plant(&mut params, id, if spec.kind == HeadKind::Linear { 1 } else { depth });
        }
        if let Some(id) = params.find(&format!("heads.{depth}.map.weight")) {
            let data = params.data_mut(id);
            data.fill(0.0);
            for place in 0..cycle.len() {
                data[(place + depth - 1) % cycle.len() * width + place] = 1.0;
            }
        }
    }
    Toy::new(decoder, heads, params)
}

/// A model with joint heads, and everything that a target borrows.
pub struct Joint {
    pub decoder: Decoder,
    pub heads: JointHeads,
    pub params: Params,
    pub weights: Arc<EngineWeights>,
}

/// Draws all weights anew, so large that what the model says depends on all that it has read.
pub fn draw_large(params: &mut Params) {
    let mut rng = seeded(4, 4);
    let ids: Vec<_> = params.iter().map(|(id, _)| id).collect();
    for id in ids {
        let base = if params.get(id).name.ends_with("norm.weight") { 1.0 } else { 0.0 };
        let values = normal(&mut rng, params.data(id).len(), 0.25);
        params.data_mut(id).iter_mut().zip(values).for_each(|(to, value)| *to = base + value);
    }
}

/// The logits of plain decoding of `ids` after `prompt`, row by row.
pub fn plain_logits(mut target: Target, prompt: &[u32], ids: &[u32]) -> Vec<Vec<f32>> {
    target.prefill(prompt, false).unwrap();
    let row = |id: &u32| {
        let logits = target.forward(&[*id]).unwrap();
        target.commit(1);
        logits.data
    };
    ids.iter().map(row).collect()
}

/// Random joint heads on a random model, large enough that every component says something else.
pub fn joint(vocabulary: usize, kind: JointKind, n: usize, rank: usize) -> Joint {
    let (decoder, mut params) = Decoder::initialise(&config(vocabulary, 2, 200), 3).unwrap();
    let spec = JointSpec { start: JointStart::Random, ..JointSpec::new(kind, n, rank) };
    let heads = JointHeads::attach(spec, &decoder, &mut params, 3).unwrap();
    draw_large(&mut params);
    let weights = Target::pack(&decoder, heads.drafter(), &params);
    Joint { decoder, heads, params, weights }
}

impl Joint {
    pub fn target(&self) -> Target<'_> {
        let team = Arc::new(Team::new(1));
        Target::new(&self.decoder, self.heads.drafter(), Arc::clone(&self.weights), team, 200).unwrap()
    }
}

/// A model with registers, and everything that a target borrows.
pub struct WithRegisters {
    pub decoder: Decoder,
    pub registers: Registers,
    pub params: Params,
    pub weights: Arc<EngineWeights>,
}

/// Random registers on a random model; they stand for up to `d_max` tokens ahead.
pub fn registers(config: &DecoderConfig, d_max: usize) -> WithRegisters {
    let (decoder, mut params) = Decoder::initialise(config, 3).unwrap();
    let spec = RegistersSpec { d_max, ..RegistersSpec::default() };
    let registers = Registers::attach(spec, &decoder, &mut params, RegisterStart::Fresh { seed: 3 }).unwrap();
    draw_large(&mut params);
    let weights = Target::pack(&decoder, registers.drafter(), &params);
    WithRegisters { decoder, registers, params, weights }
}

impl WithRegisters {
    pub fn target(&self, threads: usize) -> Target<'_> {
        let (weights, context) = (Arc::clone(&self.weights), self.decoder.config.context);
        let team = Arc::new(Team::new(threads));
        Target::new(&self.decoder, self.registers.drafter(), weights, team, context).unwrap()
    }
}
