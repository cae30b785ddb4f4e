//! Phi-3: Llama with queries, keys and values in one map, gate and up in another, a window, and LongRoPE for long contexts.

use serde_json::{Map, Value, json};

use super::base::{self, Defaults};
use super::fields::Fields;
use super::rope;
use crate::config::{DecoderConfig, Family, LayerSet, Window};
use crate::error::Result;
use crate::rope::RopeScaling;

pub(super) fn read(fields: &Fields<'_>) -> Result<DecoderConfig> {
    fields.one_of("hidden_act", &["silu", "swish"])?;
    let defaults = Defaults {
        family: Family::Phi3,
        head_dim: true,
        kv_heads: true,
        context: None,
        norm_epsilon: 1e-5,
        theta: 10_000.0,
        tied: false,
        begin: Some(1),
        end: Some(32_000),
    };
    let mut config = base::read(fields, &defaults)?;
    config.variant.rotary_share = rope::share(fields)?;
    // The class has a default of its own here, which goes before what stands among the factors.
    if matches!(config.rope.scaling, Some(RopeScaling::LongRope(_))) && fields.get(rope::ORIGINAL).is_none() {
        return Err(fields.missing(rope::ORIGINAL));
    }
    let keys = fields.size("sliding_window")?;
    config.variant.window = keys.map(|keys| Window { keys, layers: LayerSet::All });
    Ok(config)
}

pub(super) fn write(config: &DecoderConfig) -> Map<String, Value> {
    let original = match &config.rope.scaling {
        Some(RopeScaling::LongRope(long)) => long.original_context,
        _ => config.context,
    };
    base::extend(
        base::write(config),
        json!({
            "embd_pdrop": 0.0,
            "original_max_position_embeddings": original,
            "pad_token_id": null,
            "partial_rotary_factor": config.variant.rotary_share,
            "resid_pdrop": 0.0,
            "sliding_window": config.variant.window.as_ref().map(|window| window.keys),
        }),
    )
}
