//! The same four steps as PyTorch, from the same weights on the same tokens; see golden/make_torch_losses.py.

use std::path::Path;

use data::{Batch, PADDING};
use model::{Decoder, DecoderConfig, Family, Rope, Variant};
use objective::{HeadKind, HeadsSpec, ParallelHeads, UnembeddingKind};
use serde::Deserialize;
use tensor::Params;
use train::config::{DecaySetting, TrainSection};
use train::step::Stepper;

#[derive(Deserialize)]
struct Golden {
    tokens: Vec<Vec<u32>>,
    next_token: Vec<Step>,
    heads: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    loss: Vec<f64>,
    gradient_norm: f64,
}

const DEPTHS: usize = 3;

#[test]
fn four_steps_of_next_token_training_are_those_of_pytorch() {
    compare(HeadsSpec::next_token(), |golden| &golden.next_token);
}

#[test]
fn four_steps_of_three_layer_heads_are_those_of_pytorch() {
    let spec = HeadsSpec {
        n: DEPTHS,
        kind: HeadKind::Layer,
        unembedding: UnembeddingKind::Shared,
        weights: Vec::new(),
    };
    compare(spec, |golden| &golden.heads);
}

fn compare(spec: HeadsSpec, steps: impl Fn(&Golden) -> &Vec<Step>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let golden: Golden = serde_json::from_slice(&fs_err::read(folder.join("losses.json")).unwrap()).unwrap();
    let mut params = Params::default();
    for tensor in model::checkpoint::read_file_tensors(&folder.join("tiny.safetensors")).unwrap() {
        if spec.n > 1 || !tensor.name.starts_with("heads.") {
            params.add(tensor.name, &tensor.shape, tensor.data);
        }
    }
    let decoder = Decoder::find(&config(), &params).unwrap();
    let depths = spec.n;
    let objective = ParallelHeads::find(spec, &decoder, &params).unwrap();
    let batch = batch(&golden.tokens);
    let settings = TrainSection {
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.1,
        clip: 0.0,
        decay_on: DecaySetting::All,
        ..TrainSection::default()
    };
    let mut stepper = Stepper::new(&params, &settings);
    for (index, theirs) in steps(&golden).iter().enumerate() {
        let batches = std::slice::from_ref(&batch);
        let ours =
            stepper.update(&mut params, &decoder, &objective, batches, depths, &settings, 3e-3).unwrap();
        for (depth, (ours, theirs)) in ours.loss.iter().zip(&theirs.loss).enumerate() {
            assert!(
                (ours - theirs).abs() < 1e-4,
                "step {}, depth {}: {ours} against {theirs}",
                index + 1,
                depth + 1
            );
        }
        let difference = (ours.gradient_norm / theirs.gradient_norm - 1.0).abs();
        assert!(
            difference < 1e-4,
            "step {}: gradient {} against {}",
            index + 1,
            ours.gradient_norm,
            theirs.gradient_norm
        );
    }
    assert_eq!(steps(&golden).len(), 4);
}

fn config() -> DecoderConfig {
    DecoderConfig {
        family: Family::Llama,
        vocabulary: 97,
        width: 32,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 8,
        ffn: 48,
        context: 32,
        rope: Rope { theta: 10_000.0, scaling: None },
        norm_epsilon: 1e-5,
        tied: true,
        attention_bias: false,
        mlp_bias: false,
        begin_token: None,
        end_tokens: Vec::new(),
        variant: Variant::default(),
    }
}

/// The rows as they are, each one document; the last token of each is only a target.
fn batch(rows: &[Vec<u32>]) -> Batch {
    let length = rows[0].len() - 1;
    let padding = DEPTHS - 1;
    let with_padding = |row: &Vec<u32>| [row.clone(), vec![0; padding]].concat();
    let inside: Vec<bool> = [vec![true; length + 1], vec![false; padding]].concat();
    Batch {
        batch: rows.len(),
        length,
        lookahead: DEPTHS,
        tokens: rows.iter().flat_map(with_padding).collect(),
        segments: rows
            .iter()
            .flat_map(|_| inside.iter().map(|&inside| if inside { 0 } else { PADDING }))
            .collect(),
        positions: rows.iter().flat_map(|_| 0..length as u32).collect(),
        first_visible: vec![0; rows.len() * length],
        loss_mask: rows.iter().flat_map(|_| inside.iter().copied()).collect(),
        draws: vec![0; rows.len()],
    }
}
