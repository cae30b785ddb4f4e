//! What a decoder is made of, whichever family it comes from: sizes, and what its blocks compute.
//!
//! How a family writes this down in its `config.json` is the business of `families/`.

use crate::error::{Error, Result};
use crate::rope::Rope;

/// The shape of a decoder-only transformer. [`DecoderConfig::validate`] says which values fit together.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderConfig {
    /// The family whose `config.json` and tensor names are read and written.
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
    /// Inner width of the feed-forward part.
    pub ffn: usize,
    /// Positions the model was made for.
    pub context: usize,
    /// Rotary position embedding, in the layers that have it.
    pub rope: Rope,
    /// Added before the root in every norm.
    pub norm_epsilon: f32,
    /// The unembedding is the embedding.
    pub tied: bool,
    /// Query, key, value and output maps have biases; see also [`Variant::plain_output`].
    pub attention_bias: bool,
    /// The maps of the feed-forward part have biases.
    pub mlp_bias: bool,
    /// Token put before every text, if the model wants one.
    pub begin_token: Option<u32>,
    /// Tokens after which generation stops.
    pub end_tokens: Vec<u32>,
    /// What the family computes otherwise than Llama.
    pub variant: Variant,
}

/// Families of architectures whose checkpoints are read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// RMSNorm before attention and before SwiGLU, rotary angles in the half-split layout, grouped queries.
    Llama,
    /// Llama with a sliding window.
    Mistral,
    /// Llama with biases on queries, keys and values.
    Qwen2,
    /// Llama with norms of single query and key heads.
    Qwen3,
    /// Norms before and after each part, gated GELU, soft caps, a window in every second layer.
    Gemma2,
    /// Llama with fused maps, a window, and LongRoPE.
    Phi3,
    /// Llama with layers that know no positions.
    SmolLm3,
    /// LayerNorm, learned positions, GELU, biases everywhere.
    Gpt2,
}

/// What a block computes; the default is Llama.
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    /// Which norm.
    pub norm: NormForm,
    /// There is a norm after attention and after the feed-forward part too, before they are added to the residual stream.
    pub post_norms: bool,
    /// Every query head and every key head is normalised (RMS) before it is rotated.
    pub head_norms: bool,
    /// What stands between the maps of the feed-forward part.
    pub activation: ActivationForm,
    /// The output map of attention has no bias even where queries, keys and values have.
    pub plain_output: bool,
    /// Scores are divided by the root of this; by that of `head_dim` where there is none.
    pub query_scale: Option<f64>,
    /// Soft cap of attention scores.
    pub attention_cap: Option<f32>,
    /// Soft cap of logits.
    pub logit_cap: Option<f32>,
    /// What embedded tokens are multiplied with.
    pub embedding_scale: f32,
    /// Sliding window.
    pub window: Option<Window>,
    /// Layers that rotate queries and keys.
    pub rotary: LayerSet,
    /// Share of each head that is rotated, from its first value on.
    pub rotary_share: f64,
    /// A learned vector for each position is added to the embedded tokens.
    pub learned_positions: bool,
    /// Positions are those of an image's cells.
    pub grid: Option<Grid>,
    /// Stored names lack the prefix `transformer.` (the published GPT-2 files).
    pub bare_names: bool,
}

/// An image in the text, whose cells are rotated by their row and their column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Position of its first cell.
    pub start: usize,
    /// Cells in a row.
    pub width: usize,
}

impl Default for Variant {
    fn default() -> Self {
        Self {
            norm: NormForm::Rms,
            post_norms: false,
            head_norms: false,
            activation: ActivationForm::SiluGated,
            plain_output: false,
            query_scale: None,
            attention_cap: None,
            logit_cap: None,
            embedding_scale: 1.0,
            window: None,
            rotary: LayerSet::All,
            rotary_share: 1.0,
            learned_positions: false,
            grid: None,
            bare_names: false,
        }
    }
}

/// Forms of norms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormForm {
    /// `x / rms(x) * weight`
    Rms,
    /// `x / rms(x) * (1 + weight)`
    RmsPlusOne,
    /// `(x - mean) / deviation * weight + bias`
    Layer,
}

/// Forms of feed-forward parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActivationForm {
    /// `down(silu(gate) * up)`
    SiluGated,
    /// `down(gelu(gate) * up)`, GELU in its tanh form.
    GeluGated,
    /// `down(gelu(up))`, GELU in its tanh form.
    Gelu,
}

/// A sliding window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Keys that a query sees, its own among them.
    pub keys: usize,
    /// Layers that have it.
    pub layers: LayerSet,
}

/// Some of a decoder's layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayerSet {
    /// Every layer.
    All,
    /// The layers of these indices, in order.
    Only(Vec<usize>),
}

impl LayerSet {
    /// Whether it holds `layer`.
    pub fn contains(&self, layer: usize) -> bool {
        match self {
            Self::All => true,
            Self::Only(layers) => layers.binary_search(&layer).is_ok(),
        }
    }

    /// Those of `layers` layers for which `wanted` says so.
    pub(crate) fn of(layers: usize, wanted: impl Fn(usize) -> bool) -> Self {
        let some: Vec<usize> = (0..layers).filter(|&layer| wanted(layer)).collect();
        if some.len() == layers { Self::All } else { Self::Only(some) }
    }
}

impl DecoderConfig {
    /// Keys that a query of `layer` sees at most.
    pub fn window_of(&self, layer: usize) -> Option<usize> {
        let window = self.variant.window.as_ref()?;
        window.layers.contains(layer).then_some(window.keys)
    }

    /// The output map of attention has a bias.
    pub fn output_bias(&self) -> bool {
        self.attention_bias && !self.variant.plain_output
    }

    /// Factor of attention scores.
    pub fn score_scale(&self) -> f32 {
        match self.variant.query_scale {
            None => (self.head_dim as f32).sqrt().recip(),
            Some(scale) => scale.sqrt().recip() as f32,
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
        let rotated = self.rotated();
        if !(0.0..=1.0).contains(&self.variant.rotary_share) || !rotated.is_multiple_of(2) {
            return refuse(format!(
                "{rotated} of head_dim {} are rotated, rotary embedding needs an even number of them",
                self.head_dim
            ));
        }
        if !(self.norm_epsilon > 0.0 && self.norm_epsilon < 1.0) {
            return refuse(format!("norm_epsilon is {}, it must be between 0 and 1", self.norm_epsilon));
        }
        if let Some(token) = self.begin_token.filter(|&token| token as usize >= self.vocabulary) {
            return refuse(format!("begin token {token} is outside the vocabulary of {}", self.vocabulary));
        }
        self.variant.validate()?;
        if let Some(Grid { start, width }) = self.variant.grid {
            if width < 2 || width > self.context || start > self.context {
                return refuse(format!(
                    "an image of {width} cells in a row from position {start} on, it needs 2 cells or more within the context of {}",
                    self.context
                ));
            }
            if !rotated.is_multiple_of(4) || rotated == 0 || self.rope.scaling.is_some() {
                return refuse(format!(
                    "rows and columns of an image turn halves of {rotated} values, they need a multiple of 4, and no rope scaling"
                ));
            }
        }
        self.rope.validate(rotated / 2)
    }
}

impl Variant {
    fn validate(&self) -> Result<()> {
        let refuse = |reason: String| Err(Error::Architecture { reason });
        let positive = |value: f64| value.is_finite() && value > 0.0;
        for (name, value) in [
            ("query scale", self.query_scale),
            ("attention cap", self.attention_cap.map(f64::from)),
            ("logit cap", self.logit_cap.map(f64::from)),
            ("embedding scale", Some(f64::from(self.embedding_scale))),
        ] {
            if let Some(value) = value.filter(|value| !positive(*value)) {
                return refuse(format!("{name} is {value}, it must be above zero"));
            }
        }
        match &self.window {
            Some(window) if window.keys == 0 => refuse("a sliding window of 0 keys sees nothing".into()),
            _ => Ok(()),
        }
    }
}

// Several times the largest published decoders; what exceeds them is a damaged or hostile file.
const MOST_VOCABULARY: usize = 1 << 24;
const MOST_WIDTH: usize = 1 << 17;
pub(crate) const MOST_LAYERS: usize = 1 << 10;
const MOST_HEADS: usize = 1 << 10;
const MOST_HEAD_DIM: usize = kernels::cached_attention::MAX_HEAD_DIM;
const MOST_FFN: usize = 1 << 20;
pub(crate) const MOST_CONTEXT: usize = 1 << 24;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presets::preset;
    use crate::rope::RopeScaling;

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
        let cases: [(&str, Change); 20] = [
            ("layers is 0", |c| c.layers = 0),
            ("vocabulary is 0", |c| c.vocabulary = 0),
            ("ffn is 0", |c| c.ffn = 0),
            ("width is 1000000000", |c| c.width = 1_000_000_000),
            ("key-value heads", |c| c.kv_heads = 3),
            ("31 of head_dim 31", |c| c.head_dim = 31),
            ("norm_epsilon is 0", |c| c.norm_epsilon = 0.0),
            ("norm_epsilon is NaN", |c| c.norm_epsilon = f32::NAN),
            ("rope theta is inf", |c| c.rope.theta = f64::INFINITY),
            ("rope theta is 0", |c| c.rope.theta = 0.0),
            ("begin token 300", |c| c.begin_token = Some(300)),
            ("rope scaling has factor NaN", |c| c.rope.scaling = Some(llama3(f64::NAN, 1.0, 4.0))),
            ("rope scaling has factor 8", |c| c.rope.scaling = Some(llama3(8.0, 4.0, 4.0))),
            ("rope scaling has factor 0.5", |c| c.rope.scaling = Some(RopeScaling::Linear { factor: 0.5 })),
            ("logit cap is 0", |c| c.variant.logit_cap = Some(0.0)),
            ("query scale is -1", |c| c.variant.query_scale = Some(-1.0)),
            ("1 cells in a row", |c| c.variant.grid = Some(Grid { start: 0, width: 1 })),
            ("from position 999999", |c| c.variant.grid = Some(Grid { start: 999_999, width: 4 })),
            ("halves of 30 values", |c| {
                c.head_dim = 30;
                c.variant.grid = Some(Grid { start: 0, width: 4 });
            }),
            ("window of 0 keys", |c| c.variant.window = Some(Window { keys: 0, layers: LayerSet::All })),
        ];
        small().validate().unwrap();
        for (expected, change) in cases {
            let mut config = small();
            change(&mut config);
            let message = config.validate().unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    fn llama3(factor: f64, low_freq_factor: f64, high_freq_factor: f64) -> RopeScaling {
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context: 32 }
    }
}
