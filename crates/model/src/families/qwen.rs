//! Qwen2 (biases on queries, keys and values) and Qwen3 (norms of single heads instead).

use serde_json::{Map, Value, json};

use super::base::{self, Defaults};
use super::fields::Fields;
use super::rope;
use crate::config::{DecoderConfig, Family};
use crate::error::Result;

pub(super) fn read(fields: &Fields<'_>, family: Family) -> Result<DecoderConfig> {
    fields.one_of("hidden_act", &["silu", "swish"])?;
    rope::refuse_share(fields)?;
    let defaults = Defaults {
        family,
        head_dim: family == Family::Qwen2,
        kv_heads: false,
        context: None,
        norm_epsilon: 1e-6,
        theta: 10_000.0,
        tied: false,
        begin: None,
        end: None,
    };
    let mut config = base::read(fields, &defaults)?;
    if family == Family::Qwen2 {
        config.attention_bias = true;
        config.variant.plain_output = true;
    } else {
        config.attention_bias = fields.flag("attention_bias")?;
        config.variant.head_norms = true;
    }
    let keys = fields.size_or("sliding_window", 4096)?;
    let on = fields.flag("use_sliding_window")?;
    let first = fields.size("max_window_layers")?.unwrap_or(28);
    config.variant.window = base::window(fields, config.layers, keys.filter(|_| on), |layer| layer >= first)?;
    Ok(config)
}

pub(super) fn write(config: &DecoderConfig) -> Map<String, Value> {
    let mut map = base::extend(
        base::write(config),
        json!({
            "pad_token_id": null,
            "sliding_window": config.variant.window.as_ref().map(|window| window.keys),
            "use_sliding_window": config.variant.window.is_some(),
        }),
    );
    if config.variant.window.is_some() {
        let first = (0..config.layers).find(|&layer| config.window_of(layer).is_some());
        map = base::extend(
            map,
            json!({ "layer_types": base::layer_types_json(config), "max_window_layers": first }),
        );
    }
    if config.family == Family::Qwen3 {
        map.insert("attention_bias".into(), config.attention_bias.into());
    }
    map
}
