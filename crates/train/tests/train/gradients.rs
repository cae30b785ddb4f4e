//! Gradients of whole objectives: against finite differences, against the naive way, and where there must be none.

use objective::{HeadKind, HeadsSpec, Objective};
use tensor::random;
use train::config::{TrainMode, TrainSection};

use crate::support::{
    Model, documents, every_kind, families, packed, relative_difference, slope, tiny_config,
};

#[test]
fn finite_differences_agree_for_every_kind_of_head() {
    for (tied, spec) in
        [true, false].into_iter().flat_map(|tied| every_kind().into_iter().map(move |s| (tied, s)))
    {
        assert_finite_differences(Model::new(&tiny_config(tied), &spec));
    }
}

#[test]
fn finite_differences_agree_for_every_family() {
    for config in families() {
        // Heads that are blocks hold every operation of the family once more.
        let spec = &every_kind()[1];
        assert_finite_differences(Model::new(&config, spec));
    }
}

fn assert_finite_differences(mut model: Model) {
    let batch = packed(&documents(&[9, 5, 12, 3]), 8, 3);
    let mut rng = random::seeded(3, 3);
    let spec = model.objective.spec().clone();
    let gradients = model.gradients(std::slice::from_ref(&batch), spec.n);
    let ids: Vec<_> = model.params.iter().map(|(id, _)| id).collect();
    for (id, gradient) in ids.into_iter().zip(gradients) {
        let name = model.params.get(id).name.clone();
        let largest = (0..gradient.len()).max_by(|&a, &b| gradient[a].abs().total_cmp(&gradient[b].abs()));
        let drawn = (0..2).map(|_| (random::uniform(&mut rng) * gradient.len() as f32) as usize);
        for index in largest.into_iter().chain(drawn.collect::<Vec<_>>()) {
            let before = model.params.data(id)[index];
            let numeric = slope(before, |value| {
                model.params.data_mut(id)[index] = value;
                model.loss(&batch)
            });
            let exact = f64::from(gradient[index]);
            let allowed = 2e-4 + 5e-3 * exact.abs();
            let family = model.decoder.config.family;
            assert!(
                (numeric - exact).abs() < allowed,
                "{family:?}, {spec:?}, {name}[{index}]: {numeric} against {exact}"
            );
        }
    }
}

#[test]
fn every_trained_tensor_gets_a_gradient() {
    let batch = packed(&documents(&[9, 5, 12, 3]), 8, 3);
    for config in [true, false].map(tiny_config).into_iter().chain(families()) {
        for spec in every_kind() {
            let model = Model::new(&config, &spec);
            let gradients = model.gradients(std::slice::from_ref(&batch), spec.n);
            for ((_, param), gradient) in model.params.iter().zip(gradients) {
                let good = gradient.iter().all(|value| value.is_finite())
                    && gradient.iter().any(|&value| value != 0.0);
                assert!(good, "{:?}, {spec:?}: {}", config.family, param.name);
            }
        }
    }
}

#[test]
fn every_family_learns() {
    let batch = packed(&documents(&[9, 5, 12, 3]), 8, 3);
    for config in families() {
        for spec in every_kind() {
            let mut model = Model::new(&config, &spec);
            let mut stepper = model.stepper();
            let settings = TrainSection::default();
            let batches = std::slice::from_ref(&batch);
            let mut losses = Vec::new();
            for _ in 0..12 {
                let Model { params, decoder, objective } = &mut model;
                let report =
                    stepper.update(params, decoder, objective, batches, spec.n, &settings, 1e-2).unwrap();
                losses.push(report.loss.iter().sum::<f64>());
            }
            assert!(losses.iter().all(|loss| loss.is_finite()));
            assert!(losses[11] < 0.9 * losses[0], "{:?}, {spec:?}: {losses:?}", config.family);
        }
    }
}

#[test]
fn heads_one_after_the_other_are_as_all_at_once() {
    let batch = packed(&documents(&[9, 5, 12, 3]), 8, 3);
    for spec in every_kind() {
        let together = Model::new(&tiny_config(true), &spec).gradients(std::slice::from_ref(&batch), spec.n);
        let mut naive: Vec<Vec<f32>> = together.iter().map(|gradient| vec![0.0; gradient.len()]).collect();
        for depth in 1..=spec.n {
            let mut alone = HeadsSpec { weights: vec![0.0; spec.n], ..spec.clone() };
            alone.weights[depth - 1] = spec.weights.get(depth - 1).copied().unwrap_or(1.0);
            let model = Model::new(&tiny_config(true), &alone);
            for (sum, part) in naive.iter_mut().zip(model.gradients(std::slice::from_ref(&batch), spec.n)) {
                sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
            }
        }
        for (naive, together) in naive.iter().zip(&together) {
            assert!(relative_difference(naive, together) < 1e-5, "{spec:?}");
        }
    }
}

#[test]
fn batches_of_one_add_up_to_one_batch() {
    // Rows with unequally many targets at each depth: a mean of means would differ.
    let batch = packed(&documents(&[3, 2, 8, 2, 5, 11]), 8, 3);
    let rows: Vec<_> = (0..batch.batch).map(|index| batch.row(index)).collect();
    for depth in 1..=3 {
        let targets: Vec<usize> = rows.iter().map(|row| row.count_targets(depth)).collect();
        assert!(targets.iter().any(|&count| count != targets[0]), "{targets:?}");
    }
    for spec in every_kind() {
        let model = Model::new(&tiny_config(true), &spec);
        let at_once = model.gradients(std::slice::from_ref(&batch), spec.n);
        let one_by_one = model.gradients(&rows, spec.n);
        for ((_, param), (a, b)) in model.params.iter().zip(one_by_one.iter().zip(&at_once)) {
            let difference = relative_difference(a, b);
            assert!(difference < 1e-5, "{spec:?}, {}: {difference}", param.name);
        }
        let mut stepper = model.stepper();
        let reports = [std::slice::from_ref(&batch), &rows].map(|batches| {
            stepper.gradients(&model.params, &model.decoder, &model.objective, batches, spec.n)
        });
        for (a, b) in reports[0].loss.iter().zip(&reports[1].loss) {
            assert!((a - b).abs() < 1e-6 * a, "{spec:?}: {a} against {b}");
        }
        assert_eq!(reports[0].accuracy, reports[1].accuracy);
    }
}

#[test]
fn depths_that_are_not_trained_yet_stay_as_they_are() {
    let batch = packed(&documents(&[9, 5, 12, 3]), 8, 3);
    for spec in every_kind().into_iter().filter(|spec| spec.n > 1) {
        let mut model = Model::new(&tiny_config(true), &spec);
        let before = model.params.clone();
        let mut stepper = model.stepper();
        let settings = TrainSection::default();
        let batches = std::slice::from_ref(&batch);
        let report = stepper
            .update(&mut model.params, &model.decoder, &model.objective, batches, 2, &settings, 1e-2)
            .unwrap();
        assert_eq!(report.loss.len(), 2);
        for ((_, before), (_, after)) in before.iter().zip(model.params.iter()) {
            let later = before.name.starts_with("heads.3");
            assert_eq!(before.data == after.data, later, "{spec:?}: {}", before.name);
        }
    }
}

#[test]
fn a_frozen_model_does_not_change_by_a_bit() {
    let batch = packed(&documents(&[9, 5, 12, 3]), 8, 3);
    for spec in every_kind().into_iter().filter(|spec| spec.n > 1 && spec.kind != HeadKind::Anticausal) {
        let mut model = Model::new(&tiny_config(true), &spec);
        freeze_trunk(&mut model);
        let before = model.params.clone();
        let mut stepper = model.stepper();
        let settings = TrainSection { mode: TrainMode::Heads, ..TrainSection::default() };
        for _ in 0..3 {
            let batches = std::slice::from_ref(&batch);
            stepper
                .update(&mut model.params, &model.decoder, &model.objective, batches, spec.n, &settings, 1e-2)
                .unwrap();
        }
        for ((_, before), (_, after)) in before.iter().zip(model.params.iter()) {
            let head = before.name.starts_with("heads.");
            assert_eq!(before.data != after.data, head, "{spec:?}: {}", before.name);
        }
    }
}

fn freeze_trunk(model: &mut Model) {
    let heads = model.objective.parameters().to_vec();
    let ids: Vec<_> = model.params.iter().map(|(id, _)| id).collect();
    for id in ids {
        model.params.set_trainable(id, heads.contains(&id));
    }
}

#[test]
fn buffers_are_those_of_the_first_step() {
    let batch = packed(&documents(&[9, 5, 12, 3]), 8, 3);
    for spec in every_kind() {
        let model = Model::new(&tiny_config(true), &spec);
        let mut stepper = model.stepper();
        let after = |stepper: &mut train::step::Stepper| {
            let batches = std::slice::from_ref(&batch);
            stepper.gradients(&model.params, &model.decoder, &model.objective, batches, spec.n);
            stepper.buffer_values()
        };
        let first = after(&mut stepper);
        assert_eq!([after(&mut stepper), after(&mut stepper)], [first; 2], "{spec:?}");
    }
}

#[test]
fn long_gradients_are_shortened_to_the_limit() {
    let batch = packed(&documents(&[9, 5, 12, 3]), 8, 3);
    let spec = &every_kind()[1];
    let step = |clip: f64| {
        let mut model = Model::new(&tiny_config(true), spec);
        let mut stepper = model.stepper();
        // With this epsilon the update is all but proportional to the gradient.
        let settings = TrainSection { clip, epsilon: 1e6, weight_decay: 0.0, ..TrainSection::default() };
        let before = model.params.clone();
        let batches = std::slice::from_ref(&batch);
        let report = stepper
            .update(&mut model.params, &model.decoder, &model.objective, batches, spec.n, &settings, 1e6)
            .unwrap();
        let change: f64 = before
            .iter()
            .zip(model.params.iter())
            .flat_map(|((_, a), (_, b))| {
                a.data.iter().zip(&b.data).map(|(a, b)| f64::from(a - b).powi(2)).collect::<Vec<_>>()
            })
            .sum();
        (report.gradient_norm, change.sqrt())
    };
    let (norm, free) = step(0.0);
    assert!((free - norm).abs() < 1e-2 * norm, "{free} against {norm}");
    let (same_norm, shortened) = step(norm / 4.0);
    assert_eq!(norm, same_norm);
    assert!((shortened - norm / 4.0).abs() < 1e-2 * norm, "{shortened} against {norm} / 4");
    assert_eq!(step(norm * 2.0).1, free);
}

#[test]
fn what_is_not_finite_is_refused_and_changes_nothing() {
    let batch = packed(&documents(&[9, 5, 12, 3]), 8, 3);
    let mut model = Model::new(&tiny_config(true), &every_kind()[2]);
    let id = model.params.find("heads.3.map.weight").unwrap();
    model.params.data_mut(id)[0] = f32::NAN;
    let bits = |model: &Model| -> Vec<u32> {
        model.params.iter().flat_map(|(_, param)| param.data.iter().map(|value| value.to_bits())).collect()
    };
    let before = bits(&model);
    let mut stepper = model.stepper();
    let batches = std::slice::from_ref(&batch);
    let settings = TrainSection::default();
    let error = stepper
        .update(&mut model.params, &model.decoder, &model.objective, batches, 3, &settings, 1e-2)
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("the loss at depth 3 is NaN"), "{error}");
    assert_eq!(bits(&model), before);
}
