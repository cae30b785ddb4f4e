//! Gemma 2 (2408.00118): norms before and after each part with gains of `1 + weight`, gated GELU, soft caps, a window in every
//! second layer, embedded tokens scaled by the root of the width.

use serde_json::{Map, Value, json};

use super::base::{self, Defaults};
use super::fields::Fields;
use super::rope;
use crate::config::{ActivationForm, DecoderConfig, Family, NormForm};
use crate::error::Result;

const ACTIVATION: &str = "gelu_pytorch_tanh";

pub(super) fn read(fields: &Fields<'_>) -> Result<DecoderConfig> {
    fields.one_of("hidden_act", &[ACTIVATION])?;
    fields.one_of("hidden_activation", &[ACTIVATION])?;
    rope::refuse_share(fields)?;
    // Published beside `sliding_window` with the same value, and read by nobody.
    fields.ignore("sliding_window_size");
    let defaults = Defaults {
        family: Family::Gemma2,
        head_dim: false,
        kv_heads: false,
        context: None,
        norm_epsilon: 1e-6,
        theta: 10_000.0,
        tied: true,
        begin: Some(2),
        end: Some(1),
    };
    let mut config = base::read(fields, &defaults)?;
    config.attention_bias = fields.flag("attention_bias")?;
    let keys = fields.size_or("sliding_window", 4096)?;
    let window = base::window(fields, config.layers, keys, |layer| layer % 2 == 0)?;
    let variant = &mut config.variant;
    variant.norm = NormForm::RmsPlusOne;
    variant.post_norms = true;
    variant.activation = ActivationForm::GeluGated;
    variant.query_scale = fields.number("query_pre_attn_scalar")?.or(Some(256.0));
    variant.attention_cap = base::cap(fields, "attn_logit_softcapping", 50.0)?;
    variant.logit_cap = base::cap(fields, "final_logit_softcapping", 30.0)?;
    variant.embedding_scale = (config.width as f64).sqrt() as f32;
    variant.window = window;
    Ok(config)
}

pub(super) fn write(config: &DecoderConfig) -> Map<String, Value> {
    let variant = &config.variant;
    let window = variant.window.as_ref().map(|window| window.keys);
    base::extend(
        base::write(config),
        json!({
            "attention_bias": config.attention_bias,
            "attn_logit_softcapping": variant.attention_cap.map(base::shortest),
            "final_logit_softcapping": variant.logit_cap.map(base::shortest),
            "hidden_act": ACTIVATION,
            "hidden_activation": ACTIVATION,
            "layer_types": base::layer_types_json(config),
            "pad_token_id": null,
            "query_pre_attn_scalar": variant.query_scale.map(whole),
            "sliding_window": window,
        }),
    )
}

/// A whole number without a fraction, as transformers wants this field.
fn whole(value: f64) -> Value {
    if value.fract() == 0.0 && value < 1e9 { (value as u64).into() } else { value.into() }
}
