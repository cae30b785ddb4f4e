//! Early exits: their loss is that of the model that ends after an earlier block.

use model::{Decoder, DecoderConfig};
use objective::{
    HeadKind, HeadStart, HeadsSpec, Objective, ParallelHeads, RegisterStart, Registers, RegistersSpec,
};
use tensor::Params;
use train::config::{OptimiserKind, TrainSection};
use train::step::Stepper;

use crate::support::{documents, every_kind, fill, packed, relative_difference, tiny_config};

const WEIGHT: f64 = 0.5;

/// The gradients of a step with early exits of `weight`, by name.
fn gradients(
    params: &Params,
    decoder: &Decoder,
    objective: &dyn Objective,
    weight: f64,
    recomputes: bool,
) -> Vec<Vec<f32>> {
    let batch = packed(&documents(&[9, 5, 12, 3]), 8, 3);
    let settings =
        TrainSection { exit_weight: weight, recompute_activations: recomputes, ..TrainSection::default() };
    let mut stepper = Stepper::new(params, &settings);
    stepper.gradients(params, decoder, objective, std::slice::from_ref(&batch), objective.depths());
    let found = stepper.last_gradients();
    params
        .iter()
        .map(|(id, param)| found.get(id).map_or(vec![0.0; param.data.len()], <[f32]>::to_vec))
        .collect()
}

fn deep_config() -> DecoderConfig {
    DecoderConfig { layers: 4, ..tiny_config(true) }
}

/// `parts[0]` and `WEIGHT` times the others are the gradients with early exits.
fn assert_sum(parts: &[Vec<Vec<f32>>], exits: &[Vec<f32>], what: &str) {
    for (index, found) in exits.iter().enumerate() {
        let mut sum = parts[0][index].clone();
        for part in &parts[1..] {
            sum.iter_mut().zip(&part[index]).for_each(|(sum, part)| *sum += WEIGHT as f32 * part);
        }
        let difference = relative_difference(found, &sum);
        assert!(difference < 1e-5, "{what}, parameter {index}: {difference}");
    }
}

#[test]
fn exits_of_registers_are_models_of_fewer_blocks() {
    let (decoder, mut params) = Decoder::initialise(&deep_config(), 1).unwrap();
    let spec = RegistersSpec { d_max: 3, ..RegistersSpec::default() };
    let objective = Registers::attach(spec, &decoder, &mut params, RegisterStart::Fresh { seed: 1 }).unwrap();
    fill(&mut params, 9);
    let of_layers = |layers| {
        let decoder = Decoder::find(&DecoderConfig { layers, ..deep_config() }, &params).unwrap();
        gradients(&params, &decoder, &objective, 0.0, false)
    };
    let parts = [4, 3, 2].map(of_layers);
    for recomputes in [false, true] {
        let exits = gradients(&params, &decoder, &objective, WEIGHT, recomputes);
        assert_sum(&parts, &exits, "registers");
    }
}

#[test]
fn exits_of_heads_are_models_of_fewer_blocks() {
    for spec in every_kind() {
        let (decoder, mut params) = Decoder::initialise(&deep_config(), 1).unwrap();
        let start = || HeadStart::Fresh { seed: 1 };
        let heads = ParallelHeads::attach(spec.clone(), &decoder, &mut params, start()).unwrap();
        fill(&mut params, 9);
        // The blocks below the heads that are blocks themselves.
        let trunk = if spec.kind == HeadKind::Anticausal { 4 - spec.n } else { 3 };
        let whole = gradients(&params, &decoder, &heads, 0.0, false);
        let exits = gradients(&params, &decoder, &heads, WEIGHT, false);
        let mut parts = vec![whole];
        for layers in 2..=trunk {
            let decoder = Decoder::find(&DecoderConfig { layers, ..deep_config() }, &params).unwrap();
            let next = HeadsSpec { weights: Vec::new(), ..HeadsSpec::next_token() };
            let next = ParallelHeads::attach(next, &decoder, &mut params, start()).unwrap();
            parts.push(gradients(&params, &decoder, &next, 0.0, false));
        }
        assert_sum(&parts, &exits, &format!("{spec:?}"));
    }
}

#[test]
fn a_run_with_muon_and_exits_goes_on_as_if_it_had_not_stopped() {
    crate::runs::resuming_changes_nothing(|config| {
        config.train.optimiser = OptimiserKind::Muon;
        config.train.matrix_rate = 2.0;
        config.train.exit_weight = 0.5;
        // Exits are after the second block and later ones, before the last.
        config.model.architecture.as_mut().unwrap().layers = Some(3);
    });
}
