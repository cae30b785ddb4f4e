//! Named sizes for new models: the small ones of the parallel-heads paper, and the models that peers are measured on.

use crate::config::{DecoderConfig, Family, Variant};
use crate::rope::Rope;

/// Sizes under a name. Head width is `width / heads`; rotary base 10 000, norm epsilon 1e-5, no biases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preset {
    /// What a run file calls it.
    pub name: &'static str,
    /// Width of the residual stream.
    pub width: usize,
    /// Transformer blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Inner width of SwiGLU.
    pub ffn: usize,
    /// Positions.
    pub context: usize,
    /// The unembedding is the embedding.
    pub tied: bool,
    /// The vocabulary with which the preset was measured, where its name stands for a fixed model.
    pub vocabulary: Option<usize>,
}

/// All presets, smallest first within each group.
///
/// `1M` to `100M`: Gloeckle et al. 2024, table S14 (sizes without embedding), SwiGLU at 8/3 of the width.
/// `reference`: the model on which training speed is compared. `llama-*`: the models on which decoding speed is compared.
pub const PRESETS: &[Preset] = &[
    paper("1M", 128, 5, 4, 512),
    paper("3M", 256, 4, 8, 512),
    paper("10M", 384, 6, 8, 1024),
    paper("30M", 512, 10, 8, 1024),
    paper("100M", 768, 14, 12, 2048),
    Preset {
        name: "reference",
        width: 384,
        layers: 8,
        heads: 6,
        kv_heads: 6,
        ffn: 1024,
        context: 2048,
        tied: true,
        vocabulary: Some(8192),
    },
    peer("llama-125m", 768, 12, 12, 12, 2048),
    peer("llama-500m", 1280, 24, 20, 4, 3584),
    peer("llama-1b", 2048, 22, 32, 4, 5632),
];

/// The decoder of a preset with `vocabulary` tokens, without begin and end tokens: the tokenizer knows those.
/// `None` for a name that is not in [`PRESETS`].
pub fn preset(name: &str, vocabulary: usize) -> Option<DecoderConfig> {
    let preset = PRESETS.iter().find(|preset| preset.name == name)?;
    Some(DecoderConfig {
        family: Family::Llama,
        vocabulary,
        width: preset.width,
        layers: preset.layers,
        heads: preset.heads,
        kv_heads: preset.kv_heads,
        head_dim: preset.width / preset.heads,
        ffn: preset.ffn,
        context: preset.context,
        rope: Rope { theta: 10_000.0, scaling: None },
        norm_epsilon: 1e-5,
        tied: preset.tied,
        attention_bias: false,
        mlp_bias: false,
        begin_token: None,
        end_tokens: Vec::new(),
        variant: Variant::default(),
    })
}

/// SwiGLU width for which three matrices cost as much as the two of a plain feed-forward part of 4 times the width, in
/// whole vector registers.
pub const fn swiglu_width(width: usize) -> usize {
    (8 * width).div_ceil(3).next_multiple_of(32)
}

const fn paper(name: &'static str, width: usize, layers: usize, heads: usize, context: usize) -> Preset {
    let ffn = swiglu_width(width);
    Preset { name, width, layers, heads, kv_heads: heads, ffn, context, tied: true, vocabulary: None }
}

const fn peer(
    name: &'static str,
    width: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    ffn: usize,
) -> Preset {
    Preset { name, width, layers, heads, kv_heads, ffn, context: 2048, tied: false, vocabulary: Some(32_000) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_valid() {
        for entry in PRESETS {
            let config = preset(entry.name, entry.vocabulary.unwrap_or(256)).unwrap();
            config.validate().unwrap();
            assert_eq!(config.heads * config.head_dim, config.width, "{}", entry.name);
            assert_eq!(config.ffn % 32, 0, "{}", entry.name);
        }
        assert_eq!(preset("2M", 256), None);
    }

    #[test]
    fn sizes_are_what_the_names_say() {
        let count = |name: &str, vocabulary| preset(name, vocabulary).unwrap().parameters() as f64 / 1e6;
        let without_embedding = |name: &str| {
            let config = preset(name, 256).unwrap();
            (config.parameters() as usize - 256 * config.width) as f64 / 1e6
        };
        assert!((without_embedding("1M") - 1.0).abs() < 0.05);
        assert!((without_embedding("3M") - 3.2).abs() < 0.05);
        assert!((without_embedding("10M") - 10.6).abs() < 0.05);
        assert!((without_embedding("30M") - 31.6).abs() < 0.05);
        assert!((without_embedding("100M") - 99.1).abs() < 0.05);
        assert!((count("reference", 8192) - 17.3).abs() < 0.05);
        assert!((count("llama-125m", 32_000) - 134.1).abs() < 0.05);
        assert!((count("llama-500m", 32_000) - 506.7).abs() < 0.05);
        // The sizes of TinyLlama 1.1B, whose count is published.
        assert_eq!(preset("llama-1b", 32_000).unwrap().parameters(), 1_100_048_384);
    }

    #[test]
    fn swiglu_widths_round_up() {
        assert_eq!([128, 256, 384, 512, 768].map(swiglu_width), [352, 704, 1024, 1376, 2048]);
    }
}
