//! The loss of joint heads: against the plain sum of products, against parallel heads, and its gradients.

use data::Batch;
use model::{Decoder, DecoderConfig};
use objective::{
    BalanceOn, HeadKind, HeadStart, HeadsSpec, JointHeads, JointKind, JointSpec, JointWindows, Objective,
    ParallelHeads, UnembeddingKind,
};
use tensor::{Arena, LossSum, Ops, Params, Tape, random};
use train::config::TrainSection;
use train::step::Stepper;

use crate::support::{VOCABULARY, documents, fill, layout, packed, relative_difference, slope, tiny_config};

fn spec(kind: JointKind, n: usize, rank: usize) -> JointSpec {
    JointSpec::new(kind, n, rank)
}

struct Joint {
    decoder: Decoder,
    params: Params,
    heads: JointHeads,
}

impl Joint {
    /// Values large enough that every path matters.
    fn new(config: &DecoderConfig, spec: JointSpec) -> Self {
        let (decoder, mut params) = Decoder::initialise(config, 1).unwrap();
        let heads = JointHeads::attach(spec, &decoder, &mut params, 1).unwrap();
        fill(&mut params, 2);
        Self { decoder, params, heads }
    }

    fn sums(&self, batch: &Batch) -> Vec<LossSum> {
        let window = self.heads.window(std::slice::from_ref(batch), self.heads.depths());
        let (layout, mut arena) = (layout(batch), Arena::default());
        let mut tape = Tape::evaluation(&self.params, &mut arena, &layout);
        self.heads.loss(&mut tape, &self.decoder, batch, &window)
    }

    /// What training minimises, without balancing.
    fn loss(&self, batch: &Batch) -> f64 {
        let term = |(index, sum): (usize, &LossSum)| {
            f64::from(self.heads.weight(index + 1)) * sum.nll / sum.targets.max(1) as f64
        };
        self.sums(batch).iter().take(self.heads.depths()).enumerate().map(term).sum()
    }

    /// What training minimises, distillation included.
    fn training_loss(&self, batch: &Batch) -> f64 {
        let report = self.report(batch);
        let weighted =
            report.iter().enumerate().map(|(index, loss)| f64::from(self.heads.weight(index + 1)) * loss);
        weighted.sum()
    }

    /// Losses of a training step.
    fn report(&self, batch: &Batch) -> Vec<f64> {
        let mut stepper = Stepper::new(&self.params, &TrainSection::default());
        let batches = std::slice::from_ref(batch);
        stepper.gradients(&self.params, &self.decoder, &self.heads, batches, self.heads.depths()).loss
    }

    fn gradients(&self, batches: &[Batch]) -> Vec<Vec<f32>> {
        let mut stepper = Stepper::new(&self.params, &TrainSection::default());
        stepper.gradients(&self.params, &self.decoder, &self.heads, batches, self.heads.depths());
        let gradients = stepper.last_gradients();
        self.params.iter().map(|(id, _)| gradients.get(id).unwrap_or_default().to_vec()).collect()
    }
}

/// Two documents in a row, so that windows are cut at different places.
fn batch() -> Batch {
    packed(&documents(&[9, 5, 12, 3]), 8, 3)
}

#[test]
fn finite_differences_agree_for_both_kinds() {
    let batch = batch();
    for (kind, rank, weights) in [
        (JointKind::Cp, 3, vec![]),
        (JointKind::Tree, 2, vec![1.0, 0.5, 0.7]),
        (JointKind::Cp, 1, vec![0.8, 0.5, 0.25]),
    ] {
        let mut joint = Joint::new(&tiny_config(true), JointSpec { weights, ..spec(kind, 3, rank) });
        differences_agree(&mut joint, &batch, &Joint::loss, &format!("{kind:?} {rank}"));
    }
}

#[test]
fn finite_differences_agree_with_distillation() {
    let batch = batch();
    for (kind, rank, distill, cap) in [
        (JointKind::Cp, 3, 0.6, None),
        (JointKind::Tree, 2, 1.0, None),
        (JointKind::Cp, 2, 0.5, Some(3.0)),
        (JointKind::Cp, 1, 0.5, None),
    ] {
        let weights = vec![1.0, 0.5, 0.7];
        let mut config = tiny_config(true);
        config.variant.logit_cap = cap;
        let mut joint = Joint::new(&config, JointSpec { weights, distill, ..spec(kind, 3, rank) });
        // The model's own distribution is no variable: only where the model is frozen does the loss say what the gradient is.
        let ids: Vec<_> = joint.params.iter().map(|(id, _)| id).collect();
        for id in ids {
            joint.params.set_trainable(id, joint.heads.parameters().contains(&id));
        }
        differences_agree(&mut joint, &batch, &Joint::training_loss, &format!("{kind:?} {rank} {distill}"));
    }
}

#[test]
fn the_distilled_loss_is_the_divergence_from_the_model() {
    let batch = batch();
    let distill = 0.75;
    let joint = Joint::new(&tiny_config(false), JointSpec { distill, ..spec(JointKind::Cp, 3, 3) });
    let (components, weights) = naive(&joint, &batch);
    let own = {
        let (layout, mut arena) = (layout(&batch), Arena::default());
        let mut tape = Tape::evaluation(&joint.params, &mut arena, &layout);
        let (decoder, layers) = (&joint.decoder, joint.decoder.blocks.len());
        let embedded = decoder.embed(&mut tape, &batch.inputs());
        let trunk = decoder.run_blocks(&mut tape, embedded, 0..layers, &mut |_, _, _| {});
        let normed = decoder.final_norm(&mut tape, &trunk);
        let logits = decoder.logits(&mut tape, normed);
        tape.value(&logits).chunks(VOCABULARY).map(softmax).collect::<Vec<_>>()
    };
    let (mut expected, mut targets) = ([0.0; 3], [0; 3]);
    for row in 0..batch.batch * batch.length {
        let mut parts = weights[row].clone();
        for depth in 1..=3 {
            let Some(token) = batch.target(row / batch.length, row % batch.length, depth) else { continue };
            let component = |state: usize| &components[(depth - 1) * 3 + state][row];
            let sum: f64 = parts.iter().sum();
            let q = |v: usize| (0..3).map(|state| parts[state] * component(state)[v]).sum::<f64>() / sum;
            let divergence: Option<f64> = (row % batch.length + depth <= batch.length)
                .then(|| own[row + depth - 1].iter().enumerate().map(|(v, p)| p * (p / q(v)).ln()).sum());
            let nll = -q(token as usize).ln();
            expected[depth - 1] +=
                divergence.map_or(nll, |d| f64::from(distill) * d + (1.0 - f64::from(distill)) * nll);
            targets[depth - 1] += 1;
            for (state, part) in parts.iter_mut().enumerate() {
                *part *= components[(depth - 1) * 3 + state][row][token as usize];
            }
        }
    }
    for ((found, expected), targets) in joint.report(&batch)[1..].iter().zip(expected).zip(targets) {
        let expected = expected / f64::from(targets);
        assert!((found - expected).abs() < 1e-4 * expected, "{found} against {expected}");
    }
    // What is told of text that is not trained on is the loss of the text.
    let plain = Joint::new(&tiny_config(false), spec(JointKind::Cp, 3, 3));
    assert_eq!(joint.sums(&batch), plain.sums(&batch));
}

fn softmax(row: &[f32]) -> Vec<f64> {
    let exps: Vec<f64> = row.iter().map(|x| f64::from(*x).exp()).collect();
    let sum: f64 = exps.iter().sum();
    exps.iter().map(|e| e / sum).collect()
}

/// The largest gradient of each trained parameter and one that is drawn, against the slope of `loss`.
fn differences_agree(joint: &mut Joint, batch: &Batch, loss: &dyn Fn(&Joint, &Batch) -> f64, what: &str) {
    let gradients = joint.gradients(std::slice::from_ref(batch));
    let mut rng = random::seeded(3, 3);
    let ids: Vec<_> = joint.params.iter().map(|(id, _)| id).collect();
    for (id, gradient) in ids.into_iter().zip(gradients).filter(|(_, gradient)| !gradient.is_empty()) {
        let name = joint.params.get(id).name.clone();
        assert!(gradient.iter().any(|value| *value != 0.0), "{what}: {name} gets no gradient");
        let largest = (0..gradient.len()).max_by(|&a, &b| gradient[a].abs().total_cmp(&gradient[b].abs()));
        let drawn = (random::uniform(&mut rng) * gradient.len() as f32) as usize;
        for index in largest.into_iter().chain([drawn]) {
            let before = joint.params.data(id)[index];
            let numeric = slope(before, |value| {
                joint.params.data_mut(id)[index] = value;
                loss(joint, batch)
            });
            let exact = f64::from(gradient[index]);
            let allowed = 2e-4 + 5e-3 * exact.abs();
            assert!((numeric - exact).abs() < allowed, "{what}, {name}[{index}]: {numeric} against {exact}");
        }
    }
}

/// Probabilities of each component, `[place, rank][row][token]`, and the weights of the gate, with everything at once.
fn naive(joint: &Joint, batch: &Batch) -> (Vec<Vec<Vec<f64>>>, Vec<Vec<f64>>) {
    let (layout, mut arena) = (layout(batch), Arena::default());
    let mut tape = Tape::evaluation(&joint.params, &mut arena, &layout);
    let decoder = &joint.decoder;
    let embedded = decoder.embed(&mut tape, &batch.inputs());
    let trunk = decoder.run_blocks(&mut tape, embedded, 0..decoder.blocks.len(), &mut |_, _, _| {});
    let linear = |name: &str| {
        let bias = joint.params.find(&name.replace("weight", "bias"));
        tensor::Linear { weight: joint.params.find(name).unwrap(), bias }
    };
    let JointSpec { n, rank, .. } = *joint.heads.spec();
    let mut components = Vec::new();
    for place in 1..=n {
        for state in 1..=rank {
            let shared = tape.share(&trunk);
            let mapped = tape.linear(shared, &[linear(&format!("joint.{place}.{state}.map.weight"))]);
            let normed = decoder.final_norm(&mut tape, &mapped);
            let logits = decoder.logits(&mut tape, normed);
            components.push(tape.value(&logits).chunks(VOCABULARY).map(softmax).collect());
        }
    }
    let normed = decoder.final_norm(&mut tape, &trunk);
    let gate = tape.linear(normed, &[linear("joint.gate.weight")]);
    let weights = tape.value(&gate).chunks(rank).map(softmax).collect();
    (components, weights)
}

#[test]
fn the_loss_is_that_of_the_sum_of_products() {
    let batch = batch();
    let joint = Joint::new(&tiny_config(false), spec(JointKind::Cp, 3, 3));
    let (components, weights) = naive(&joint, &batch);
    let mut expected = [0.0; 3];
    for row in 0..batch.batch * batch.length {
        let (at, index) = (row / batch.length, row % batch.length);
        let mut before = 1.0;
        let mut parts = weights[row].clone();
        for depth in 1..=3 {
            let Some(token) = batch.target(at, index, depth) else { continue };
            for (state, part) in parts.iter_mut().enumerate() {
                *part *= components[(depth - 1) * 3 + state][row][token as usize];
            }
            let after: f64 = parts.iter().sum();
            expected[depth - 1] -= (after / before).ln();
            before = after;
        }
    }
    let sums = joint.sums(&batch);
    assert_eq!(sums.len(), 1 + 3 + 3, "the model's own next token, three depths, three components");
    for (sum, expected) in sums[1..4].iter().zip(expected) {
        assert!((sum.nll - expected).abs() < 1e-4 * expected, "{} against {expected}", sum.nll);
    }
    let usage: f64 = sums[4..].iter().map(|sum| sum.nll / sum.targets as f64).sum();
    assert!((usage - 1.0).abs() < 1e-6, "{usage}");
}

#[test]
fn rank_one_is_linear_parallel_heads() {
    let batch = batch();
    for tied in [true, false] {
        let weights = vec![1.0, 0.5, 0.25];
        let joint = Joint::new(
            &tiny_config(tied),
            JointSpec { weights: weights.clone(), ..spec(JointKind::Cp, 3, 1) },
        );
        let (decoder, mut params) = Decoder::initialise(&tiny_config(tied), 1).unwrap();
        let heads = HeadsSpec { n: 3, kind: HeadKind::Linear, unembedding: UnembeddingKind::Shared, weights };
        let heads = ParallelHeads::attach(heads, &decoder, &mut params, HeadStart::Finished).unwrap();
        let ids: Vec<_> = params.iter().map(|(id, param)| (id, param.name.clone())).collect();
        for (id, name) in &ids {
            let twin = name.replace("heads.", "joint.").replace(".map", ".1.map");
            let twin = joint.params.find(&twin).unwrap();
            params.data_mut(*id).copy_from_slice(joint.params.data(twin));
        }
        let mut stepper = Stepper::new(&params, &TrainSection::default());
        let batches = std::slice::from_ref(&batch);
        let report = stepper.gradients(&params, &decoder, &heads, batches, 3);
        let sums = joint.sums(&batch);
        let mean = |sum: &LossSum| sum.nll / sum.targets as f64;
        assert_eq!(mean(&sums[0]), report.loss[0]);
        assert_eq!(sums[0], sums[1]);
        for (sum, loss) in sums[2..=3].iter().zip(&report.loss[1..]) {
            assert!((mean(sum) - loss).abs() < 1e-9, "{sum:?} {loss}");
        }
        let gradients = joint.gradients(batches);
        for (id, name) in ids {
            let twin = name.replace("heads.", "joint.").replace(".map", ".1.map");
            let place = joint.params.iter().position(|(_, param)| param.name == twin).unwrap();
            let found = stepper.last_gradients().get(id).unwrap();
            assert!(relative_difference(&gradients[place], found) < 1e-6, "{name}");
        }
    }
}

#[test]
fn first_windows_are_those_of_the_beginnings() {
    let tokens = &documents(&[7])[0];
    for rank in [1, 3] {
        let all = Joint::new(&tiny_config(true), spec(JointKind::Cp, 3, rank));
        let first = JointSpec { windows: JointWindows::First, ..spec(JointKind::Cp, 3, rank) };
        let first = Joint::new(&tiny_config(true), first);
        let mut alone = Batch::single(tokens, 3);
        let found = first.sums(&alone);
        // The same window with no target but its own.
        (alone.length, alone.lookahead) = (1, 6);
        alone.positions.truncate(1);
        alone.first_visible.truncate(1);
        alone.tokens.truncate(7);
        alone.segments.truncate(7);
        alone.loss_mask.truncate(7);
        let expected = all.sums(&alone);
        for (found, expected) in found[1..4].iter().zip(&expected[1..4]) {
            assert_eq!((found.targets, expected.targets), (1, 1));
            assert!((found.nll - expected.nll).abs() < 1e-5, "rank {rank}: {found:?}, {expected:?}");
        }
        assert_eq!(found[0].targets, 6);
        let gradients = first.gradients(&[Batch::single(tokens, 3)]);
        assert!(gradients.iter().all(|gradient| gradient.iter().any(|value| *value != 0.0)));
    }
}

#[test]
fn batches_of_one_add_up_to_one_batch() {
    let batch = packed(&documents(&[3, 2, 8, 2, 5, 11]), 8, 3);
    let rows: Vec<_> = (0..batch.batch).map(|index| batch.row(index)).collect();
    for kind in [JointKind::Cp, JointKind::Tree] {
        let joint = Joint::new(&tiny_config(true), spec(kind, 3, 2));
        let (together, apart) = (joint.gradients(std::slice::from_ref(&batch)), joint.gradients(&rows));
        for (together, apart) in together.iter().zip(&apart) {
            assert!(relative_difference(apart, together) < 1e-5, "{kind:?}");
        }
    }
}

#[test]
fn a_frozen_model_stays_and_a_mixture_learns() {
    let batch = batch();
    for (kind, balance_on) in
        [(JointKind::Cp, BalanceOn::Weights), (JointKind::Tree, BalanceOn::Responsibilities)]
    {
        let spec = JointSpec { balance: 0.01, balance_on, ..spec(kind, 3, 3) };
        let mut joint = Joint::new(&tiny_config(true), spec);
        let ids: Vec<_> = joint.params.iter().map(|(id, _)| id).collect();
        for id in ids {
            joint.params.set_trainable(id, joint.heads.parameters().contains(&id));
        }
        let before = joint.params.clone();
        let mut stepper = Stepper::new(&joint.params, &TrainSection::default());
        let mut losses = Vec::new();
        for _ in 0..15 {
            let Joint { params, decoder, heads } = &mut joint;
            let batches = std::slice::from_ref(&batch);
            let settings = TrainSection::default();
            let report = stepper.update(params, decoder, heads, batches, 4, &settings, 1e-2).unwrap();
            assert_eq!((report.loss.len(), report.usage.len()), (4, 3));
            losses.push(report.loss[1..].iter().sum::<f64>());
        }
        assert!(losses[14] < 0.9 * losses[0], "{kind:?}: {losses:?}");
        for ((id, old), (_, new)) in before.iter().zip(joint.params.iter()) {
            assert_eq!(old.data == new.data, !joint.heads.parameters().contains(&id), "{}", old.name);
        }
    }
}

#[test]
fn balancing_evens_out_the_use_of_components() {
    let batch = batch();
    for balance_on in [BalanceOn::Weights, BalanceOn::Responsibilities] {
        let used = |balance: f32| {
            let spec = JointSpec { balance, balance_on, ..spec(JointKind::Cp, 3, 3) };
            let mut joint = Joint::new(&tiny_config(true), spec);
            let bias = joint.params.find("joint.gate.bias").unwrap();
            joint.params.data_mut(bias).copy_from_slice(&[4.0, 0.0, -1.0]);
            let mut stepper = Stepper::new(&joint.params, &TrainSection::default());
            let mut usage = Vec::new();
            for _ in 0..30 {
                let Joint { params, decoder, heads } = &mut joint;
                let batches = std::slice::from_ref(&batch);
                let settings = TrainSection { clip: 0.0, ..TrainSection::default() };
                let report = stepper.update(params, decoder, heads, batches, 4, &settings, 2e-2).unwrap();
                usage = report.usage;
            }
            -usage.iter().map(|share| share * share.ln()).sum::<f64>()
        };
        let (without, with) = (used(0.0), used(3.0));
        assert!(with > without + 0.05 && with > 0.9, "{balance_on:?}: {without} without, {with} with");
    }
}
