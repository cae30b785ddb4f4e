//! GPT-2: LayerNorm, learned positions, GELU without a gate, biases everywhere, and names of its own.

use serde_json::{Map, Value, json};

use super::base;
use super::fields::Fields;
use crate::config::{ActivationForm, DecoderConfig, Family, LayerSet, NormForm, Variant};
use crate::error::Result;
use crate::rope::Rope;

/// The embedding in the published files, which lack the prefix `transformer.`.
pub(super) const BARE_EMBEDDING: &str = "wte.weight";

pub(super) fn read(fields: &Fields<'_>) -> Result<DecoderConfig> {
    fields.one_of("activation_function", &["gelu_new", "gelu_pytorch_tanh", "gelu_fast"])?;
    if !fields.flag_or("scale_attn_weights", true)? {
        return Err(fields.unsupported("scale_attn_weights", "supported is true"));
    }
    if fields.flag("scale_attn_by_inverse_layer_idx")? {
        return Err(fields.unsupported("scale_attn_by_inverse_layer_idx", "supported is false"));
    }
    let width = fields.required_size("n_embd")?;
    let heads = fields.required_size("n_head")?;
    let vocabulary = fields.required_size("vocab_size")?;
    let (begin_token, end_tokens) = base::tokens(fields, vocabulary, Some(50_256), Some(50_256))?;
    Ok(DecoderConfig {
        family: Family::Gpt2,
        vocabulary,
        width,
        layers: base::layers(fields, "n_layer")?,
        heads,
        kv_heads: heads,
        head_dim: base::head_dim_of("n_embd", width, heads)?,
        ffn: fields.size("n_inner")?.unwrap_or(width.saturating_mul(4)),
        context: fields.required_size("n_positions")?,
        rope: Rope { theta: 10_000.0, scaling: None },
        norm_epsilon: fields.number("layer_norm_epsilon")?.unwrap_or(1e-5) as f32,
        tied: fields.flag_or("tie_word_embeddings", true)?,
        attention_bias: true,
        mlp_bias: true,
        begin_token,
        end_tokens,
        variant: Variant {
            norm: NormForm::Layer,
            activation: ActivationForm::Gelu,
            rotary: LayerSet::Only(Vec::new()),
            rotary_share: 0.0,
            learned_positions: true,
            ..Variant::default()
        },
    })
}

pub(super) fn write(config: &DecoderConfig) -> Map<String, Value> {
    base::extend(
        Map::new(),
        json!({
            "activation_function": "gelu_new",
            "attn_pdrop": 0.0,
            "bos_token_id": config.begin_token,
            "embd_pdrop": 0.0,
            "eos_token_id": base::end_tokens_json(&config.end_tokens),
            "initializer_range": 0.02,
            "layer_norm_epsilon": base::shortest(config.norm_epsilon),
            "n_embd": config.width,
            "n_head": config.heads,
            "n_inner": config.ffn,
            "n_layer": config.layers,
            "n_positions": config.context,
            "resid_pdrop": 0.0,
            "scale_attn_weights": true,
            "tie_word_embeddings": config.tied,
            "torch_dtype": "float32",
            "use_cache": true,
            "vocab_size": config.vocabulary,
        }),
    )
}
