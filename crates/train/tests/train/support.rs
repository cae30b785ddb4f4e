//! Models and batches small enough to be checked by brute force.

use std::path::Path;

use data::{Batch, Corpus};
use model::{Decoder, DecoderConfig, Family, Rope, Variant};
use objective::{HeadKind, HeadStart, HeadsSpec, Objective, ParallelHeads, UnembeddingKind, Window};
use tensor::{Arena, Layout, LossSum, Params, Tape, random};
use train::config::TrainSection;
use train::step::Stepper;

pub const VOCABULARY: usize = 11;

/// A decoder of three blocks with grouped queries.
pub fn tiny_config(tied: bool) -> DecoderConfig {
    DecoderConfig {
        family: Family::Llama,
        vocabulary: VOCABULARY,
        width: 8,
        layers: 3,
        heads: 2,
        kv_heads: 1,
        head_dim: 4,
        ffn: 12,
        context: 64,
        rope: Rope { theta: 100.0, scaling: None },
        norm_epsilon: 1e-5,
        tied,
        attention_bias: false,
        mlp_bias: false,
        begin_token: None,
        end_tokens: Vec::new(),
        variant: Variant::default(),
    }
}

/// A decoder of every family, as small as [`tiny_config`], with a window that acts within its rows.
pub fn families() -> Vec<DecoderConfig> {
    let read = |family: &str| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures");
        let bytes = fs_err::read(folder.join(format!("{family}.json"))).unwrap();
        let mut config = model::checkpoint::parse_config(&bytes).unwrap();
        (config.vocabulary, config.width, config.layers, config.ffn) = (VOCABULARY, 8, 4, 12);
        (config.kv_heads, config.heads, config.head_dim) = (config.kv_heads / 2, 2, 4);
        if let Some(window) = &mut config.variant.window {
            window.keys = 3;
        }
        if family == "gemma2" {
            config.variant.embedding_scale = 8f32.sqrt();
        }
        config
    };
    ["llama", "mistral", "qwen2", "qwen3", "gemma2", "phi3", "smollm3", "gpt2"].map(read).into()
}

/// A model with heads.
pub struct Model {
    pub decoder: Decoder,
    pub params: Params,
    pub objective: ParallelHeads,
}

/// Values large enough that every path matters, and no two tensors alike; norms around the gain that they have in a new model: 1, or 0
/// where 1 is added.
pub fn fill(params: &mut Params, stream: u64) {
    let mut rng = random::seeded(2, stream);
    let ids: Vec<_> = params.iter().map(|(id, _)| id).collect();
    for id in ids {
        let base = if params.get(id).name.ends_with("norm.weight") { params.data(id)[0] } else { 0.0 };
        let values = random::normal(&mut rng, params.data(id).len(), 0.35);
        params.data_mut(id).iter_mut().zip(values).for_each(|(to, value)| *to = base + value);
    }
}

/// Every kind of head, and none.
pub fn every_kind() -> Vec<HeadsSpec> {
    let spec = |kind, unembedding| HeadsSpec { n: 3, kind, unembedding, weights: vec![1.0, 0.5, 0.25] };
    vec![
        HeadsSpec::next_token(),
        spec(HeadKind::Layer, UnembeddingKind::Shared),
        spec(HeadKind::Linear, UnembeddingKind::Shared),
        spec(HeadKind::Causal, UnembeddingKind::Shared),
        spec(HeadKind::Anticausal, UnembeddingKind::Shared),
        spec(HeadKind::Layer, UnembeddingKind::Replicated),
        spec(HeadKind::Anticausal, UnembeddingKind::Replicated),
    ]
}

impl Model {
    /// Values large enough that every path matters, and no two tensors alike.
    pub fn new(config: &DecoderConfig, spec: &HeadsSpec) -> Self {
        let (decoder, mut params) = Decoder::initialise(config, 1).unwrap();
        let objective =
            ParallelHeads::attach(spec.clone(), &decoder, &mut params, HeadStart::Fresh { seed: 1 }).unwrap();
        fill(&mut params, 2);
        Self { decoder, params, objective }
    }

    pub fn stepper(&self) -> Stepper {
        Stepper::new(&self.params, &TrainSection::default())
    }

    /// The sums of the losses at each depth, without gradients.
    pub fn sums(&self, batch: &Batch) -> Vec<LossSum> {
        let window = Window::count(std::slice::from_ref(batch), self.objective.depths());
        let layout = layout(batch);
        let mut arena = Arena::default();
        let mut tape = Tape::evaluation(&self.params, &mut arena, &layout);
        self.objective.loss(&mut tape, &self.decoder, batch, &window)
    }

    /// What training minimises: the weighted sum of the mean losses.
    pub fn loss(&self, batch: &Batch) -> f64 {
        let sums = self.sums(batch);
        let term = |(index, sum): (usize, &LossSum)| {
            f64::from(self.objective.weight(index + 1)) * sum.nll / sum.targets.max(1) as f64
        };
        sums.iter().enumerate().map(term).sum()
    }

    /// The gradient of every parameter, in order; empty where nothing reached it.
    pub fn gradients(&self, batches: &[Batch], depths: usize) -> Vec<Vec<f32>> {
        let mut stepper = self.stepper();
        stepper.gradients(&self.params, &self.decoder, &self.objective, batches, depths);
        let gradients = stepper.last_gradients();
        self.params.iter().map(|(id, _)| gradients.get(id).unwrap_or_default().to_vec()).collect()
    }
}

pub fn layout(batch: &Batch) -> Layout {
    Layout {
        batch: batch.batch,
        length: batch.length,
        positions: batch.positions.clone(),
        first_visible: batch.first_visible.clone(),
        ..Layout::default()
    }
}

/// Documents of the given lengths, with tokens that look random.
pub fn documents(lengths: &[usize]) -> Vec<Vec<u32>> {
    let mut rng = random::seeded(5, 5);
    let token = |_| (random::uniform(&mut rng) * VOCABULARY as f32) as u32;
    let mut tokens: std::vec::IntoIter<u32> =
        (0..lengths.iter().sum()).map(token).collect::<Vec<_>>().into_iter();
    lengths.iter().map(|&length| tokens.by_ref().take(length).collect()).collect()
}

/// Documents packed into rows of `length`.
pub fn packed(documents: &[Vec<u32>], length: usize, lookahead: usize) -> Batch {
    let corpus = Corpus::from_tokens(documents).into();
    let all: Vec<usize> = (0..documents.len()).collect();
    let found = data::evaluation_batches(&corpus, &all, 64, length, lookahead, 0).unwrap();
    let batches: Vec<Batch> = found.iter().collect::<data::Result<_>>().unwrap();
    let [batch] = batches.try_into().unwrap();
    without_empty_rows(&batch)
}

fn without_empty_rows(batch: &Batch) -> Batch {
    let stride = batch.stride();
    let used = batch.segments.chunks(stride).filter(|row| row[0] != data::PADDING).count();
    let mut kept = batch.clone();
    kept.batch = used;
    for list in [&mut kept.tokens, &mut kept.segments] {
        list.truncate(used * stride);
    }
    kept.loss_mask.truncate(used * stride);
    kept.draws.truncate(used);
    for list in [&mut kept.positions, &mut kept.first_visible] {
        list.truncate(used * batch.length);
    }
    kept
}

/// The slope at `value` of what `at` gives for a parameter that it sets, and that is set to `value` again: central differences,
/// and Richardson's extrapolation, so that what is left of the error is of the fourth order in the step.
pub fn slope(value: f32, mut at: impl FnMut(f32) -> f64) -> f64 {
    let mut difference = |step: f32| {
        let (above, below) = (value + step, value - step);
        (at(above) - at(below)) / (f64::from(above) - f64::from(below))
    };
    let slope = (4.0 * difference(4e-3) - difference(8e-3)) / 3.0;
    at(value);
    slope
}

/// The largest difference, relative to the largest value.
pub fn relative_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let largest = b.iter().fold(f32::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
    a.iter().zip(b).map(|(a, b)| (a - b).abs() / largest).fold(0.0, f32::max)
}
