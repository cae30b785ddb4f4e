//! The tape against finite differences, and its promises about memory.

use std::sync::Arc;

use sakiyomi_tensor::{
    Activation, Arena, AttentionSpec, Embedding, Gradients, HeadNorms, Layout, Linear, NO_TARGET, Norm,
    NormKind, Ops, ParamId, Params, RopeTable, Tape, Var, random,
};

const WIDTH: usize = 8;
const VOCABULARY: usize = 7;
const TOKENS: [u32; 6] = [3, 1, 4, 1, 5, 0];

/// One block and two heads on an embedding; two documents of three tokens packed into one row.
struct Model {
    params: Params,
    embedding: Embedding,
    norm: Norm,
    /// Norms after attention and feed-forward part, where a family has them.
    post_norm: Option<Norm>,
    activation: Activation,
    /// Soft cap between head and loss, and within the head.
    cap: Option<f32>,
    qkv: Vec<Linear>,
    output: Linear,
    gate_up: Vec<Linear>,
    down: Linear,
    heads: Vec<Linear>,
    attention: AttentionSpec,
    layout: Layout,
    targets: [Vec<u32>; 2],
}

/// Which of the families' operations the block is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Llama,
    /// Norms of heads, and no rotation.
    Qwen3,
    /// Everything scaled, capped, windowed and normalised twice.
    Gemma2,
    /// LayerNorm, learned positions, GELU without a gate.
    Gpt2,
}

const KINDS: [Kind; 4] = [Kind::Llama, Kind::Qwen3, Kind::Gemma2, Kind::Gpt2];

fn model_of(kind: Kind) -> Model {
    let mut params = Params::default();
    let mut rng = random::seeded(5, 1);
    let mut add = |name: &str, shape: &[usize]| {
        let data = random::normal(&mut rng, shape.iter().product(), 0.4);
        params.add(name, shape, data)
    };
    let table = add("table", &[VOCABULARY, WIDTH]);
    let gain = add("gain", &[WIDTH]);
    let norm_kind = match kind {
        Kind::Llama | Kind::Qwen3 => NormKind::Rms,
        Kind::Gemma2 => NormKind::RmsPlusOne,
        Kind::Gpt2 => NormKind::Layer { bias: add("gain.bias", &[WIDTH]) },
    };
    let norm = Norm { weight: gain, kind: norm_kind, epsilon: 1e-5 };
    let post_norm = (kind == Kind::Gemma2).then(|| Norm { weight: add("post_gain", &[WIDTH]), ..norm });
    let head_norms = (kind == Kind::Qwen3).then(|| HeadNorms {
        query: add("query_gain", &[4]),
        key: add("key_gain", &[4]),
        epsilon: 1e-5,
    });
    let positions = (kind == Kind::Gpt2).then(|| add("positions", &[4, WIDTH]));
    let scale = if kind == Kind::Gemma2 { 2.5 } else { 1.0 };
    let embedding = Embedding { table, scale, positions };
    let activation = match kind {
        Kind::Llama | Kind::Qwen3 => Activation::SiluGated,
        Kind::Gemma2 => Activation::GeluGated,
        Kind::Gpt2 => Activation::Gelu,
    };
    let mut linear = |name: &str, outputs: usize, inputs: usize| Linear {
        weight: add(name, &[outputs, inputs]),
        bias: Some(add(&format!("{name}.bias"), &[outputs])),
    };
    let qkv = vec![linear("q", WIDTH, WIDTH), linear("k", WIDTH / 2, WIDTH), linear("v", WIDTH / 2, WIDTH)];
    let output = linear("o", WIDTH, WIDTH);
    let gate_up: Vec<Linear> =
        ["up", "gate"][..activation.inputs()].iter().rev().map(|name| linear(name, 5, WIDTH)).collect();
    let down = linear("down", WIDTH, 5);
    let heads = vec![linear("head1", WIDTH, WIDTH), linear("head2", WIDTH, WIDTH)];
    let rope = Arc::new(RopeTable::new(&[1.0, 0.1], 6));
    let attention = AttentionSpec {
        slot: 0,
        heads: 2,
        kv_heads: 1,
        head_dim: 4,
        scale: 0.5,
        cap: (kind == Kind::Gemma2).then_some(1.5),
        window: (kind == Kind::Gemma2).then_some(2),
        head_norms,
        rope: matches!(kind, Kind::Llama | Kind::Gemma2).then_some(rope),
    };
    let cap = (kind == Kind::Gemma2).then_some(2.0);
    let layout = Layout {
        batch: 1,
        length: 6,
        positions: vec![0, 1, 2, 0, 1, 2],
        first_visible: vec![0, 0, 0, 3, 3, 3],
        ..Layout::default()
    };
    let targets =
        [vec![1, 4, NO_TARGET, 5, 0, NO_TARGET], vec![4, NO_TARGET, NO_TARGET, 0, NO_TARGET, NO_TARGET]];
    Model {
        params,
        embedding,
        norm,
        post_norm,
        activation,
        cap,
        qkv,
        output,
        gate_up,
        down,
        heads,
        attention,
        layout,
        targets,
    }
}

impl Model {
    fn trunk(&self, tape: &mut Tape) -> Var {
        let x = tape.embed(&self.embedding, &TOKENS);
        let normed = tape.norm(&x, &self.norm);
        let qkv = tape.linear(normed, &self.qkv);
        let attended = tape.attention(qkv, &self.attention);
        let x = self.add(tape, attended, self.output, x);
        let normed = tape.norm(&x, &self.norm);
        let gate_up = tape.linear(normed, &self.gate_up);
        let inner = tape.activate(gate_up, self.activation);
        self.add(tape, inner, self.down, x)
    }

    fn add(&self, tape: &mut Tape, inner: Var, map: Linear, residual: Var) -> Var {
        match &self.post_norm {
            None => tape.linear_add(inner, map, residual),
            Some(norm) => {
                let part = tape.linear(inner, &[map]);
                tape.norm_add(part, norm, residual)
            }
        }
    }

    fn head(&self, tape: &mut Tape, head: usize, trunk: &Var) -> f64 {
        let state = tape.share(trunk);
        let mut state = tape.linear(state, &[self.heads[head]]);
        if let Some(cap) = self.cap {
            state = tape.soft_cap(state, cap);
        }
        let normed = tape.norm(&state, &self.norm);
        tape.cross_entropy(&normed, self.embedding.table, &self.targets[head], 1.0, self.cap).nll
    }

    fn loss(&self, params: &Params) -> f64 {
        let mut arena = Arena::default();
        let mut tape = Tape::evaluation(params, &mut arena, &self.layout);
        let trunk = self.trunk(&mut tape);
        (0..2).map(|head| self.head(&mut tape, head, &trunk)).sum()
    }

    /// Heads one after the other, each run back to the trunk before the next is recorded.
    fn train(&self, gradients: &mut Gradients, arena: &mut Arena) -> f64 {
        let mut tape = Tape::training(&self.params, gradients, arena, &self.layout);
        let start = tape.mark();
        let trunk = self.trunk(&mut tape);
        let mark = tape.mark();
        let mut loss = 0.0;
        for head in 0..2 {
            loss += self.head(&mut tape, head, &trunk);
            tape.backward_to(mark);
        }
        tape.backward_to(start);
        loss
    }
}

#[test]
fn gradients_of_every_parameter_agree_with_finite_differences() {
    for kind in KINDS {
        assert_gradients(&model_of(kind), kind);
    }
}

fn assert_gradients(model: &Model, kind: Kind) {
    let mut gradients = Gradients::new(&model.params);
    let loss = model.train(&mut gradients, &mut Arena::default());
    assert!((loss - model.loss(&model.params)).abs() < 1e-5, "training and evaluation disagree on the loss");
    for (id, param) in model.params.iter() {
        let analytic =
            gradients.get(id).unwrap_or_else(|| panic!("{kind:?}: no gradient reached {}", param.name));
        assert!(analytic.iter().any(|g| *g != 0.0), "{kind:?} {}: gradient is all zero", param.name);
        for (index, &gradient) in analytic.iter().enumerate() {
            let at = |step: f32| {
                let mut moved = model.params.clone();
                moved.data_mut(id)[index] += step;
                model.loss(&moved)
            };
            let step = 2e-3;
            let numeric = (at(step) - at(-step)) / (2.0 * f64::from(step));
            let difference = (numeric - f64::from(gradient)).abs();
            assert!(
                difference < 4e-3 * (1.0 + numeric.abs()),
                "{kind:?} {}[{index}]: {numeric} by differences, {gradient} by the tape",
                param.name
            );
        }
    }
}

#[test]
fn heads_one_after_the_other_give_the_gradients_of_all_at_once() {
    for kind in KINDS {
        let model = model_of(kind);
        let mut sequential = Gradients::new(&model.params);
        model.train(&mut sequential, &mut Arena::default());

        let mut naive = Gradients::new(&model.params);
        let mut arena = Arena::default();
        let mut tape = Tape::training(&model.params, &mut naive, &mut arena, &model.layout);
        let start = tape.mark();
        let trunk = model.trunk(&mut tape);
        for head in 0..2 {
            model.head(&mut tape, head, &trunk);
        }
        tape.backward_to(start);

        for (id, param) in model.params.iter() {
            let (one, other) = (sequential.get(id).unwrap(), naive.get(id).unwrap());
            let difference = one.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(difference < 1e-5, "{}: {difference}", param.name);
        }
    }
}

#[test]
fn after_the_first_step_nothing_is_allocated() {
    for kind in KINDS {
        let model = model_of(kind);
        let (mut gradients, mut arena) = (Gradients::new(&model.params), Arena::default());
        model.train(&mut gradients, &mut arena);
        let allocated = arena.allocated_values();
        for _ in 0..3 {
            gradients.clear();
            model.train(&mut gradients, &mut arena);
        }
        assert_eq!(arena.allocated_values(), allocated);
    }
}

#[test]
fn frozen_parameters_get_no_gradient_and_the_rest_is_unchanged() {
    for kind in KINDS {
        let mut model = model_of(kind);
        let mut all = Gradients::new(&model.params);
        model.train(&mut all, &mut Arena::default());
        let heads: Vec<ParamId> =
            model.heads.iter().flat_map(|h| [Some(h.weight), h.bias]).flatten().collect();
        let ids: Vec<ParamId> = model.params.iter().map(|(id, _)| id).collect();
        for id in ids {
            model.params.set_trainable(id, heads.contains(&id));
        }
        let mut some = Gradients::new(&model.params);
        model.train(&mut some, &mut Arena::default());
        for (id, param) in model.params.iter() {
            let expected = heads.contains(&id).then(|| all.get(id).unwrap());
            assert_eq!(some.get(id), expected, "{}", param.name);
        }
    }
}
