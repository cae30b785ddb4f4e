//! What a decoder is made of, whichever family it comes from: sizes, rotary angles, and the tensors they imply.
//!
//! How a family writes this down in its `config.json` is the business of `llama_config.rs`.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The shape of a decoder-only transformer. [`DecoderConfig::validate`] says which values fit together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecoderConfig {
    /// The family whose tensor names and arithmetic are followed.
    pub family: Family,
    /// Rows of the embedding.
    pub vocabulary: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Transformer blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Width of one head; `heads * head_dim` need not be `width`.
    pub head_dim: usize,
    /// Inner width of the SwiGLU feed-forward part.
    pub ffn: usize,
    /// Positions the model was made for.
    pub context: usize,
    /// Rotary position embedding.
    pub rope: Rope,
    /// Added to the mean square before the root in RMSNorm.
    pub norm_epsilon: f32,
    /// The unembedding is the embedding.
    pub tied: bool,
    /// Query, key, value and output maps have biases.
    pub attention_bias: bool,
    /// Gate, up and down maps have biases.
    pub mlp_bias: bool,
    /// Token put before every text, if the model wants one.
    pub begin_token: Option<u32>,
    /// Tokens after which generation stops.
    pub end_tokens: Vec<u32>,
}

/// Family of architectures: decides tensor names, and what differs from the plain Llama block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// RMSNorm before attention and before SwiGLU, rotary angles in the half-split layout, grouped queries.
    Llama,
}

/// Rotary position embedding: pair `i` of a head turns by `position * theta^(-2i / head_dim)`, possibly rescaled.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rope {
    /// Base of the wavelengths.
    pub theta: f64,
    /// How the frequencies were stretched for a longer context, if they were.
    pub scaling: Option<RopeScaling>,
}

/// A rescaling of the rotary frequencies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum RopeScaling {
    /// Llama 3.1: wavelengths beyond `original_context / low_freq_factor` are stretched by `factor`, those below
    /// `original_context / high_freq_factor` stay, between the two the frequencies are blended linearly.
    Llama3 {
        /// Stretch of the long wavelengths.
        factor: f64,
        /// Turns within the original context below which a pair is stretched in full.
        low_freq_factor: f64,
        /// Turns within the original context above which a pair is left alone.
        high_freq_factor: f64,
        /// Positions before the stretch.
        original_context: usize,
    },
}

/// A tensor that a checkpoint must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Hugging Face name.
    pub name: String,
    /// Shape; a map from `n` to `m` values is `[m, n]`.
    pub shape: Vec<usize>,
}

impl DecoderConfig {
    /// Every tensor of a checkpoint of this decoder, in the order of use: embedding, blocks, final norm, unembedding.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        match self.family {
            Family::Llama => llama_tensors(self),
        }
    }

    /// Number of trained values.
    pub fn parameters(&self) -> u64 {
        let count = |spec: TensorSpec| spec.shape.iter().map(|&extent| extent as u64).product::<u64>();
        self.tensors().into_iter().map(count).sum()
    }

    /// Radians per position of each rotated pair, `[head_dim / 2]`.
    ///
    /// Every step is rounded to f32 where transformers rounds it, because at position 100 000 a difference in the last
    /// place is already an angle of a hundredth; only the power itself is taken in f64 and rounded once.
    pub fn inverse_frequencies(&self) -> Vec<f32> {
        let plain = (0..self.head_dim / 2).map(|pair| {
            let exponent = (2 * pair) as f32 / self.head_dim as f32;
            1.0 / self.rope.theta.powf(f64::from(exponent)) as f32
        });
        match self.rope.scaling {
            None => plain.collect(),
            Some(scaling) => plain.map(|frequency| scaling.rescale(frequency)).collect(),
        }
    }

    /// Refuses sizes that do not fit together, and sizes beyond any model there is: the latter are damaged files.
    pub fn validate(&self) -> Result<()> {
        let refuse = |reason: String| Err(Error::Architecture { reason });
        for (name, value, most) in [
            ("vocabulary", self.vocabulary, MOST_VOCABULARY),
            ("width", self.width, MOST_WIDTH),
            ("layers", self.layers, MOST_LAYERS),
            ("heads", self.heads, MOST_HEADS),
            ("kv_heads", self.kv_heads, MOST_HEADS),
            ("head_dim", self.head_dim, MOST_HEAD_DIM),
            ("ffn", self.ffn, MOST_FFN),
            ("context", self.context, MOST_CONTEXT),
        ] {
            if value == 0 || value > most {
                return refuse(format!("{name} is {value}, it must be from 1 to {most}"));
            }
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return refuse(format!(
                "{} heads do not divide evenly among {} key-value heads",
                self.heads, self.kv_heads
            ));
        }
        if !self.head_dim.is_multiple_of(2) {
            return refuse(format!("head_dim is {}, rotary embedding needs it even", self.head_dim));
        }
        if !(self.norm_epsilon > 0.0 && self.norm_epsilon < 1.0) {
            return refuse(format!("norm_epsilon is {}, it must be between 0 and 1", self.norm_epsilon));
        }
        if !(self.rope.theta.is_finite() && self.rope.theta >= 1.0) {
            return refuse(format!("rope theta is {}, it must be finite and at least 1", self.rope.theta));
        }
        if let Some(token) = self.begin_token.filter(|&token| token as usize >= self.vocabulary) {
            return refuse(format!("begin token {token} is outside the vocabulary of {}", self.vocabulary));
        }
        match self.rope.scaling {
            Some(scaling) => scaling.validate(),
            None => Ok(()),
        }
    }
}

impl RopeScaling {
    /// Llama 3.1, `apply_scaling` of Meta's reference code; f32 throughout as in transformers.
    fn rescale(self, frequency: f32) -> f32 {
        let RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } = self;
        let context = original_context as f64;
        let wavelength = std::f64::consts::TAU as f32 / frequency;
        if wavelength > (context / low_freq_factor) as f32 {
            return frequency / factor as f32;
        }
        if wavelength < (context / high_freq_factor) as f32 {
            return frequency;
        }
        let turns = context as f32 / wavelength;
        let keep = (turns - low_freq_factor as f32) / (high_freq_factor - low_freq_factor) as f32;
        (1.0 - keep) * frequency / factor as f32 + keep * frequency
    }

    fn validate(self) -> Result<()> {
        let RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } = self;
        let sane = factor.is_finite()
            && factor >= 1.0
            && low_freq_factor > 0.0
            && high_freq_factor > low_freq_factor
            && high_freq_factor.is_finite()
            && (1..=MOST_CONTEXT).contains(&original_context);
        if sane {
            return Ok(());
        }
        Err(Error::Architecture {
            reason: format!(
                "rope scaling has factor {factor}, low and high frequency factors {low_freq_factor} and \
                 {high_freq_factor} and original context {original_context}; it needs factor >= 1, 0 < low < high \
                 and a context from 1 to {MOST_CONTEXT}"
            ),
        })
    }
}

fn llama_tensors(config: &DecoderConfig) -> Vec<TensorSpec> {
    let &DecoderConfig { width, ffn, vocabulary, .. } = config;
    let queries = config.heads * config.head_dim;
    let keys = config.kv_heads * config.head_dim;
    let mut tensors = Vec::new();
    let mut add = |name: String, shape: &[usize]| tensors.push(TensorSpec { name, shape: shape.to_vec() });

    add("model.embed_tokens.weight".into(), &[vocabulary, width]);
    for layer in 0..config.layers {
        let prefix = format!("model.layers.{layer}");
        add(format!("{prefix}.input_layernorm.weight"), &[width]);
        for (part, outputs, inputs, bias) in [
            ("self_attn.q_proj", queries, width, config.attention_bias),
            ("self_attn.k_proj", keys, width, config.attention_bias),
            ("self_attn.v_proj", keys, width, config.attention_bias),
            ("self_attn.o_proj", width, queries, config.attention_bias),
            ("post_attention_layernorm", width, 0, false),
            ("mlp.gate_proj", ffn, width, config.mlp_bias),
            ("mlp.up_proj", ffn, width, config.mlp_bias),
            ("mlp.down_proj", width, ffn, config.mlp_bias),
        ] {
            // A norm's gain is the one weight without inputs.
            let shape = [outputs, inputs];
            add(format!("{prefix}.{part}.weight"), if inputs == 0 { &shape[..1] } else { &shape });
            if bias {
                add(format!("{prefix}.{part}.bias"), &[outputs]);
            }
        }
    }
    add("model.norm.weight".into(), &[width]);
    if !config.tied {
        add("lm_head.weight".into(), &[vocabulary, width]);
    }
    tensors
}

// Several times the largest published decoders; what exceeds them is a damaged or hostile file.
const MOST_VOCABULARY: usize = 1 << 24;
const MOST_WIDTH: usize = 1 << 17;
const MOST_LAYERS: usize = 1 << 10;
const MOST_HEADS: usize = 1 << 10;
const MOST_HEAD_DIM: usize = 1 << 10;
const MOST_FFN: usize = 1 << 20;
const MOST_CONTEXT: usize = 1 << 24;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presets::preset;

    fn small() -> DecoderConfig {
        preset("1M", 300).unwrap()
    }

    #[test]
    fn parameters_are_counted_by_hand() {
        let mut config = small();
        let block = 4 * 128 * 128 + 3 * 128 * 352 + 2 * 128;
        assert_eq!(config.parameters(), 300 * 128 + 5 * block + 128);
        config.tied = false;
        config.kv_heads = 2;
        let grouped = block - 2 * 64 * 128;
        assert_eq!(config.parameters(), 2 * 300 * 128 + 5 * grouped + 128);
        config.attention_bias = true;
        config.mlp_bias = true;
        let biases = 128 + 64 + 64 + 128 + 352 + 352 + 128;
        assert_eq!(config.parameters(), 2 * 300 * 128 + 5 * (grouped + biases) + 128);
    }

    #[test]
    fn head_dim_may_differ_from_width_by_heads() {
        let mut config = small();
        config.head_dim = 48;
        let shape = |name: &str| config.tensors().into_iter().find(|spec| spec.name == name).unwrap().shape;
        assert_eq!(shape("model.layers.0.self_attn.q_proj.weight"), [4 * 48, 128]);
        assert_eq!(shape("model.layers.4.self_attn.o_proj.weight"), [128, 4 * 48]);
    }

    /// Values of transformers 5.23.0 (`LlamaRotaryEmbedding.inv_freq`), theta 500 000, head width 128, factor 32,
    /// low 1, high 4, original context 8192: pairs on both sides of the blend and within it.
    #[test]
    fn inverse_frequencies_equal_transformers() {
        let mut config = small();
        config.head_dim = 128;
        config.rope.theta = 500_000.0;
        config.rope.scaling = Some(RopeScaling::Llama3 {
            factor: 32.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_context: 8192,
        });
        let ours = config.inverse_frequencies();
        assert_eq!(ours.len(), 64);
        for (pair, theirs) in [
            (0, 1.0),
            (1, 0.814_617_2),
            (27, 0.003_942_276),
            (28, 0.003_211_446),
            (29, 0.002_118_406_8),
            (30, 0.001_290_548),
            (32, 0.000_429_556_7),
            (34, 9.708_286e-5),
            (35, 2.389_053e-5),
            (63, 7.672_315e-8),
        ] {
            let difference = (ours[pair] - theirs).abs() / theirs;
            assert!(difference < 3e-7, "pair {pair}: {} against {theirs}", ours[pair]);
        }
    }

    #[test]
    fn sizes_that_do_not_fit_are_named() {
        type Change = fn(&mut DecoderConfig);
        let cases: [(&str, Change); 13] = [
            ("layers is 0", |c| c.layers = 0),
            ("vocabulary is 0", |c| c.vocabulary = 0),
            ("ffn is 0", |c| c.ffn = 0),
            ("width is 1000000000", |c| c.width = 1_000_000_000),
            ("key-value heads", |c| c.kv_heads = 3),
            ("head_dim is 31", |c| c.head_dim = 31),
            ("norm_epsilon is 0", |c| c.norm_epsilon = 0.0),
            ("norm_epsilon is NaN", |c| c.norm_epsilon = f32::NAN),
            ("rope theta is inf", |c| c.rope.theta = f64::INFINITY),
            ("rope theta is 0", |c| c.rope.theta = 0.0),
            ("begin token 300", |c| c.begin_token = Some(300)),
            ("rope scaling has factor NaN", |c| c.rope.scaling = Some(llama3(f64::NAN, 1.0, 4.0))),
            ("rope scaling has factor 8", |c| c.rope.scaling = Some(llama3(8.0, 4.0, 4.0))),
        ];
        small().validate().unwrap();
        for (expected, change) in cases {
            let mut config = small();
            change(&mut config);
            let message = config.validate().unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn serde_round_trip() {
        let mut config = small();
        config.rope.scaling = Some(llama3(8.0, 1.0, 4.0));
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<DecoderConfig>(&text).unwrap(), config);
    }

    fn llama3(factor: f64, low_freq_factor: f64, high_freq_factor: f64) -> RopeScaling {
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context: 32 }
    }
}
