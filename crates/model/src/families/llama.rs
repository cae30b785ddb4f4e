//! Llama: the plain case.

use serde_json::{Map, Value, json};

use super::base::{self, Defaults};
use super::fields::Fields;
use super::{known, rope};
use crate::config::{DecoderConfig, Family, Grid};
use crate::error::Result;

pub(super) fn read(fields: &Fields<'_>) -> Result<DecoderConfig> {
    fields.one_of("hidden_act", &["silu", "swish"])?;
    rope::refuse_share(fields)?;
    base::refuse_special_layers(fields)?;
    if fields.map.get("use_sliding_window") == Some(&Value::Bool(false)) {
        // A window that is switched off by its own switch does nothing.
        fields.ignore("sliding_window");
    }
    let defaults = Defaults {
        family: Family::Llama,
        head_dim: true,
        kv_heads: true,
        context: Some(2048),
        norm_epsilon: 1e-6,
        theta: 10_000.0,
        tied: false,
        begin: Some(1),
        end: Some(2),
    };
    let mut config = base::read(fields, &defaults)?;
    config.attention_bias = fields.flag("attention_bias")?;
    config.mlp_bias = fields.flag("mlp_bias")?;
    if let Some(grid) = fields.inner(GRID, "sakiyomi_image_grid.")? {
        config.variant.grid =
            Some(Grid { start: grid.size("start")?.unwrap_or(0), width: grid.required_size("width")? });
        known::refuse_the_rest(&grid)?;
    }
    Ok(config)
}

/// Our own field: no other program knows it. One that ignores it computes other numbers.
const GRID: &str = "sakiyomi_image_grid";

pub(super) fn write(config: &DecoderConfig) -> Map<String, Value> {
    let mut more = json!({ "attention_bias": config.attention_bias, "mlp_bias": config.mlp_bias });
    if let Some(Grid { start, width }) = config.variant.grid {
        more[GRID] = json!({ "start": start, "width": width });
    }
    base::extend(base::write(config), more)
}
