//! Mistral: Llama whose queries see a window of keys, in every layer.

use serde_json::{Map, Value, json};

use super::base::{self, Defaults};
use super::fields::Fields;
use super::rope;
use crate::config::{DecoderConfig, Family, LayerSet, Window};
use crate::error::Result;

pub(super) fn read(fields: &Fields<'_>) -> Result<DecoderConfig> {
    fields.one_of("hidden_act", &["silu", "swish"])?;
    rope::refuse_share(fields)?;
    let defaults = Defaults {
        family: Family::Mistral,
        head_dim: true,
        kv_heads: false,
        context: None,
        norm_epsilon: 1e-6,
        theta: 10_000.0,
        tied: false,
        begin: Some(1),
        end: Some(2),
    };
    let mut config = base::read(fields, &defaults)?;
    let keys = fields.size_or("sliding_window", 4096)?;
    config.variant.window = keys.map(|keys| Window { keys, layers: LayerSet::All });
    Ok(config)
}

pub(super) fn write(config: &DecoderConfig) -> Map<String, Value> {
    let window = config.variant.window.as_ref().map(|window| window.keys);
    base::extend(base::write(config), json!({ "sliding_window": window }))
}
