//! Rotary base and scaling: `rope_theta` and `rope_scaling` (transformers 4) or both in `rope_parameters` (5). A value inside
//! the object goes before the one beside it, and `rope_scaling` before `rope_parameters`, as in transformers.

use serde_json::{Value, json};

use super::fields::Fields;
use super::known::does_nothing;
use crate::config::{DecoderConfig, Family};
use crate::error::Result;
use crate::rope::{LongRope, Rope, RopeScaling};

/// Reads base and scaling of a model with `context` positions; `default_theta` holds where no base is stated.
pub(super) fn read(fields: &Fields<'_>, context: usize, default_theta: f64) -> Result<Rope> {
    let outer_theta = fields.number("rope_theta")?;
    let outer_original = fields.size(ORIGINAL)?;
    let Some(inner) = object(fields)? else {
        return Ok(Rope { theta: outer_theta.unwrap_or(default_theta), scaling: None });
    };
    let theta = inner.number("rope_theta")?.or(outer_theta).unwrap_or(default_theta);
    inner.ignore("partial_rotary_factor");
    let kind = if inner.get("rope_type").is_some() { "rope_type" } else { "type" };
    let name = match inner.get(kind) {
        None => {
            // Without a type only an object that says nothing but the base is certain to be the default.
            if let Some(other) = inner.unseen().first() {
                return Err(inner.unsupported(
                    other,
                    "a scaling needs its rope_type (default, linear, dynamic, llama3 or longrope)",
                ));
            }
            return Ok(Rope { theta, scaling: None });
        }
        Some(value) => value.as_str().ok_or_else(|| inner.wrong(kind, "a name"))?,
    };
    let number = |key| inner.number(key).and_then(|value| value.ok_or_else(|| inner.missing(key)));
    // Read wherever it matters, so that it is known.
    let inner_original = inner.size(ORIGINAL)?;
    let original_context = outer_original.or(inner_original).unwrap_or(context);
    let scaling = match name {
        "default" => None,
        "linear" => Some(RopeScaling::Linear { factor: number("factor")? }),
        "dynamic" => Some(RopeScaling::Dynamic { factor: number("factor")? }),
        "llama3" => Some(RopeScaling::Llama3 {
            factor: number("factor")?,
            low_freq_factor: number("low_freq_factor")?,
            high_freq_factor: number("high_freq_factor")?,
            original_context,
        }),
        "longrope" | "su" => {
            let list = |key| inner.numbers(key).and_then(|list| list.ok_or_else(|| inner.missing(key)));
            Some(RopeScaling::LongRope(LongRope {
                short_factor: list("short_factor")?,
                long_factor: list("long_factor")?,
                original_context,
                published_context: context,
                attention_factor: inner.number("attention_factor")?,
                factor: inner.number("factor")?,
            }))
        }
        _ => {
            return Err(
                inner.unsupported(kind, "supported are default, linear, dynamic, llama3 and longrope")
            );
        }
    };
    if name != "default"
        && let Some(other) = inner.unseen().first()
        && !does_nothing(&inner.map[other.as_str()], &[])
    {
        return Err(inner.unsupported(other, "this rope_type has no such value"));
    }
    Ok(Rope { theta, scaling })
}

/// `partial_rotary_factor`, inside the object or beside it; 1 if absent.
pub(super) fn share(fields: &Fields<'_>) -> Result<f64> {
    let outer = fields.number("partial_rotary_factor")?;
    let inner = match object(fields)? {
        Some(inner) => inner.number("partial_rotary_factor")?,
        None => None,
    };
    Ok(inner.or(outer).unwrap_or(1.0))
}

/// Refuses a rotation of less than the whole head.
pub(super) fn refuse_share(fields: &Fields<'_>) -> Result<()> {
    for fields in [Some(fields), object(fields)?.as_ref()].into_iter().flatten() {
        if fields.get("partial_rotary_factor").is_some_and(|value| !does_nothing(value, &[1.0])) {
            return Err(fields.unsupported("partial_rotary_factor", "supported is 1"));
        }
    }
    Ok(())
}

/// Positions that can be used of `context` published ones; see [`LongRope`].
pub(super) fn usable_context(rope: &Rope, context: usize) -> usize {
    match &rope.scaling {
        Some(RopeScaling::LongRope(long)) => context.min(long.original_context),
        _ => context,
    }
}

/// `max_position_embeddings` as published.
pub(super) fn published_context(config: &DecoderConfig) -> usize {
    match &config.rope.scaling {
        Some(RopeScaling::LongRope(long)) => long.published_context,
        _ => config.context,
    }
}

/// `rope_scaling` in the style of transformers 4.
pub(super) fn write_scaling(config: &DecoderConfig) -> Value {
    match &config.rope.scaling {
        None => Value::Null,
        Some(RopeScaling::Linear { factor }) => json!({ "factor": factor, "rope_type": "linear" }),
        Some(RopeScaling::Dynamic { factor }) => json!({ "factor": factor, "rope_type": "dynamic" }),
        Some(RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context }) => json!({
            "factor": factor,
            "high_freq_factor": high_freq_factor,
            "low_freq_factor": low_freq_factor,
            "original_max_position_embeddings": original_context,
            "rope_type": "llama3",
        }),
        Some(RopeScaling::LongRope(long)) => {
            // Earlier versions of the Phi-3 class accept these three keys only, so others are written where they say something.
            let mut scaling = json!({
                "long_factor": long.long_factor,
                "short_factor": long.short_factor,
                "type": "longrope",
            });
            if config.family != Family::Phi3 {
                scaling[ORIGINAL] = long.original_context.into();
            }
            if let Some(factor) = long.attention_factor {
                scaling["attention_factor"] = factor.into();
            }
            if let Some(factor) = long.factor {
                scaling["factor"] = factor.into();
            }
            scaling
        }
    }
}

pub(super) const ORIGINAL: &str = "original_max_position_embeddings";

fn object<'a>(fields: &Fields<'a>) -> Result<Option<Fields<'a>>> {
    match fields.inner("rope_scaling", "rope_scaling.")? {
        Some(inner) => {
            fields.ignore("rope_parameters");
            Ok(Some(inner))
        }
        None => fields.inner("rope_parameters", "rope_parameters."),
    }
}
