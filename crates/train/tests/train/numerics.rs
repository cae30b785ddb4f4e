//! What precision and recomputation do to gradients and runs: as little as promised.

use train::config::{Dtype, TrainSection};
use train::step::Stepper;

use crate::small_run::{config, finish, record};
use crate::support::{Model, documents, every_kind, families, packed, relative_difference, tiny_config};

fn gradients(model: &Model, settings: &TrainSection) -> (Vec<Vec<f32>>, f64, usize) {
    let batch = packed(&documents(&[9, 5, 12, 3]), 8, 3);
    let mut stepper = Stepper::new(&model.params, settings);
    let Model { params, decoder, objective } = model;
    let depths = objective.spec().n;
    let report = stepper.gradients(params, decoder, objective, std::slice::from_ref(&batch), depths);
    let all = stepper.last_gradients();
    let gradients = params.iter().map(|(id, _)| all.get(id).unwrap_or_default().to_vec()).collect();
    (gradients, report.loss.iter().sum(), stepper.buffer_values())
}

#[test]
fn recomputing_gives_the_same_bits_for_every_head_and_family() {
    let recomputing = TrainSection { recompute_activations: true, ..TrainSection::default() };
    for config in [true, false].map(tiny_config).into_iter().chain(families()) {
        for spec in every_kind() {
            let model = Model::new(&config, &spec);
            let kept = gradients(&model, &TrainSection::default());
            let again = gradients(&model, &recomputing);
            assert!(kept.0 == again.0 && kept.1 == again.1, "{:?}, {spec:?}", config.family);
        }
    }
}

#[test]
fn recomputing_takes_less_memory_the_more_layers_there_are() {
    let mut config = tiny_config(true);
    config.layers = 12;
    let model = Model::new(&config, &every_kind()[0]);
    let kept = gradients(&model, &TrainSection::default()).2;
    let again = gradients(&model, &TrainSection { recompute_activations: true, ..TrainSection::default() }).2;
    assert!(2 * again < kept, "{again} of {kept}");
}

/// The unit of bf16 is 2^-8, so that a product of two rounded factors is off by about 2^-8 of itself, at random.
#[test]
fn gradients_in_bf16_are_near_those_in_f32_for_every_head() {
    let bf16 = TrainSection { dtype: Dtype::Bf16, ..TrainSection::default() };
    for spec in every_kind() {
        let mut model = Model::new(&tiny_config(true), &spec);
        // The size of weights in use: large ones make chaos of any rounding.
        let ids: Vec<_> = model.params.iter().map(|(id, _)| id).collect();
        for id in ids {
            model.params.data_mut(id).iter_mut().for_each(|value| *value *= 0.5);
        }
        let (exact, loss, _) = gradients(&model, &TrainSection::default());
        let (rounded, rounded_loss, _) = gradients(&model, &bf16);
        assert!(rounded_loss != loss && (rounded_loss - loss).abs() < 1e-2 * loss, "{rounded_loss}, {loss}");
        for ((_, param), (exact, rounded)) in model.params.iter().zip(exact.iter().zip(&rounded)) {
            let difference = relative_difference(exact, rounded);
            assert!(difference < 0.05, "{spec:?}, {}: {difference}", param.name);
        }
    }
}

#[test]
fn a_run_in_bf16_follows_that_in_f32() {
    let run = |dtype| {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path());
        config.train.dtype = dtype;
        config.train.steps = 40;
        finish(&config, false).evaluation.unwrap().loss
    };
    let (f32, bf16) = (run(Dtype::F32), run(Dtype::Bf16));
    for (f32, bf16) in f32.iter().zip(&bf16) {
        assert!(f32 != bf16 && (f32 - bf16).abs() < 0.02 * f32, "{f32} and {bf16}");
    }
}

#[test]
fn a_run_may_begin_to_recompute_when_it_goes_on() {
    let folders = [0, 1].map(|_| tempfile::tempdir().unwrap());
    let configs = folders.each_ref().map(|folder| config(folder.path()));
    finish(&configs[0], false);
    let mut first = configs[1].clone();
    first.train.steps = 8;
    let mut watcher = crate::small_run::Watcher { stop_after: Some(3), ..Default::default() };
    train::train(&first, false, &mut watcher).unwrap();
    first.train.recompute_activations = true;
    finish(&first, true);
    assert_eq!(record(&configs[0]), record(&first));
}
