//! SmolLM3: Llama in which every so many layers queries and keys are not rotated.

use serde_json::{Map, Value, json};

use super::base::{self, Defaults};
use super::fields::Fields;
use super::rope;
use crate::config::{DecoderConfig, Family, LayerSet};
use crate::error::Result;

pub(super) fn read(fields: &Fields<'_>) -> Result<DecoderConfig> {
    fields.one_of("hidden_act", &["silu", "swish"])?;
    rope::refuse_share(fields)?;
    // The published file says 2; it only ever divided sums among devices, and its class does not read it.
    fields.ignore("pretraining_tp");
    let defaults = Defaults {
        family: Family::SmolLm3,
        head_dim: true,
        kv_heads: false,
        context: None,
        norm_epsilon: 1e-6,
        theta: 2_000_000.0,
        tied: true,
        begin: Some(128_000),
        end: Some(128_001),
    };
    let mut config = base::read(fields, &defaults)?;
    config.attention_bias = fields.flag("attention_bias")?;
    config.mlp_bias = fields.flag("mlp_bias")?;
    let rotary = rotary_layers(fields, config.layers)?;
    let keys = fields.size("sliding_window")?;
    let on = fields.flag("use_sliding_window")?;
    let keys = keys.filter(|_| on);
    config.variant.window = base::window(fields, config.layers, keys, |layer| !rotary.contains(layer))?;
    config.variant.rotary = rotary;
    Ok(config)
}

/// `no_rope_layers`, which names the layers that *have* it with 1; else every layer but each `no_rope_layer_interval`-th.
fn rotary_layers(fields: &Fields<'_>, layers: usize) -> Result<LayerSet> {
    const EXPECTED: &str = "0 or 1 for each layer";
    let interval = fields.size("no_rope_layer_interval")?.unwrap_or(4);
    let Some(flags) = fields.numbers("no_rope_layers")? else {
        if interval == 0 {
            return Err(fields.wrong("no_rope_layer_interval", "a number above zero"));
        }
        return Ok(LayerSet::of(layers, |layer| !(layer + 1).is_multiple_of(interval)));
    };
    if flags.len() < layers || flags.iter().any(|flag| ![0.0, 1.0].contains(flag)) {
        return Err(fields.wrong("no_rope_layers", EXPECTED));
    }
    Ok(LayerSet::of(layers, |layer| flags[layer] == 1.0))
}

pub(super) fn write(config: &DecoderConfig) -> Map<String, Value> {
    let flag = |layer| u8::from(config.variant.rotary.contains(layer));
    base::extend(
        base::write(config),
        json!({
            "attention_bias": config.attention_bias,
            "layer_types": base::layer_types_json(config),
            "mlp_bias": config.mlp_bias,
            "no_rope_layers": (0..config.layers).map(flag).collect::<Vec<_>>(),
            "pad_token_id": null,
            "sliding_window": config.variant.window.as_ref().map(|window| window.keys),
            "use_sliding_window": config.variant.window.is_some(),
        }),
    )
}
