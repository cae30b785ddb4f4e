//! The fields that all families but GPT-2 have in common, read with the defaults of each family's class in transformers.

use serde_json::{Map, Value, json};

use super::fields::Fields;
use super::rope;
use crate::config::{DecoderConfig, Family, LayerSet, Variant, Window};
use crate::error::{Error, Result};

/// What holds where a field is absent. Sizes have no sensible default but those named here.
pub(super) struct Defaults {
    pub(super) family: Family,
    /// Head width need not be stated: it is the width divided by the heads.
    pub(super) head_dim: bool,
    /// Key-value heads need not be stated: there are as many as query heads.
    pub(super) kv_heads: bool,
    pub(super) context: Option<usize>,
    pub(super) norm_epsilon: f64,
    pub(super) theta: f64,
    pub(super) tied: bool,
    pub(super) begin: Option<u32>,
    pub(super) end: Option<u32>,
}

/// Reads what the families share; the rest is as in plain Llama.
pub(super) fn read(fields: &Fields<'_>, defaults: &Defaults) -> Result<DecoderConfig> {
    let width = fields.required_size("hidden_size")?;
    let heads = fields.required_size("num_attention_heads")?;
    let head_dim = match fields.size("head_dim")? {
        Some(head_dim) => head_dim,
        None if !defaults.head_dim => return Err(fields.missing("head_dim")),
        None => head_dim_of("hidden_size", width, heads)?,
    };
    let kv_heads = match fields.size("num_key_value_heads")? {
        Some(kv_heads) => kv_heads,
        None if !defaults.kv_heads => return Err(fields.missing("num_key_value_heads")),
        None => heads,
    };
    let context = match (fields.size("max_position_embeddings")?, defaults.context) {
        (Some(context), _) | (None, Some(context)) => context,
        (None, None) => return Err(fields.missing("max_position_embeddings")),
    };
    let vocabulary = fields.required_size("vocab_size")?;
    let (begin_token, end_tokens) = tokens(fields, vocabulary, defaults.begin, defaults.end)?;
    let rope = rope::read(fields, context, defaults.theta)?;
    Ok(DecoderConfig {
        family: defaults.family,
        vocabulary,
        width,
        layers: layers(fields, "num_hidden_layers")?,
        heads,
        kv_heads,
        head_dim,
        ffn: fields.required_size("intermediate_size")?,
        context: rope::usable_context(&rope, context),
        rope,
        norm_epsilon: fields.number("rms_norm_eps")?.unwrap_or(defaults.norm_epsilon) as f32,
        tied: fields.flag_or("tie_word_embeddings", defaults.tied)?,
        attention_bias: false,
        mlp_bias: false,
        begin_token,
        end_tokens,
        variant: Variant::default(),
    })
}

/// The number of layers; refused here if it is absurd, because lists of layers are made of it.
pub(super) fn layers(fields: &Fields<'_>, key: &str) -> Result<usize> {
    let layers = fields.required_size(key)?;
    if layers > crate::config::MOST_LAYERS {
        let reason = format!("layers is {layers}, it must be from 1 to {}", crate::config::MOST_LAYERS);
        return Err(Error::Architecture { reason });
    }
    Ok(layers)
}

/// The width of a head where it is not stated.
pub(super) fn head_dim_of(key: &str, width: usize, heads: usize) -> Result<usize> {
    if heads > 0 && width.is_multiple_of(heads) {
        return Ok(width / heads);
    }
    Err(Error::Architecture { reason: format!("{key} {width} does not divide evenly among {heads} heads") })
}

/// Begin and end tokens. A default that the vocabulary does not have is none.
pub(super) fn tokens(
    fields: &Fields<'_>,
    vocabulary: usize,
    begin: Option<u32>,
    end: Option<u32>,
) -> Result<(Option<u32>, Vec<u32>)> {
    let known = |token: Option<u32>| token.filter(|&token| (token as usize) < vocabulary);
    let begin = match fields.tokens("bos_token_id")? {
        Some(tokens) => tokens.first().copied(),
        None if fields.states("bos_token_id") => None,
        None => known(begin),
    };
    let end = match fields.tokens("eos_token_id")? {
        Some(tokens) => tokens,
        None if fields.states("eos_token_id") => Vec::new(),
        None => known(end).into_iter().collect(),
    };
    Ok((begin, end))
}

/// The window of a family whose layers are full or sliding: by `layer_types`, else by `default`.
pub(super) fn window(
    fields: &Fields<'_>,
    layers: usize,
    keys: Option<usize>,
    default: impl Fn(usize) -> bool,
) -> Result<Option<Window>> {
    let sliding = match layer_types(fields, layers)? {
        Some(sliding) => LayerSet::of(layers, |layer| sliding[layer]),
        None if keys.is_none() => return Ok(None),
        None => LayerSet::of(layers, default),
    };
    match (keys, sliding) {
        (_, LayerSet::Only(none)) if none.is_empty() => Ok(None),
        (Some(keys), layers) => Ok(Some(Window { keys, layers })),
        (None, _) => Err(fields.unsupported("layer_types", "sliding layers need a sliding_window")),
    }
}

/// `layer_types`: for each layer, whether it slides.
fn layer_types(fields: &Fields<'_>, layers: usize) -> Result<Option<Vec<bool>>> {
    const SUPPORTED: &str = "supported are full_attention and sliding_attention, one for each layer";
    let Some(kinds) = fields.get("layer_types") else { return Ok(None) };
    let sliding = |kind: &Value| match kind.as_str() {
        Some("full_attention") => Some(false),
        Some("sliding_attention") => Some(true),
        _ => None,
    };
    let sliding: Option<Vec<bool>> = kinds.as_array().and_then(|kinds| kinds.iter().map(sliding).collect());
    match sliding {
        Some(sliding) if sliding.len() == layers => Ok(Some(sliding)),
        _ => Err(fields.unsupported("layer_types", SUPPORTED)),
    }
}

/// Refuses a `layer_types` or `no_rope_layers` that says anything but "as always".
pub(super) fn refuse_special_layers(fields: &Fields<'_>) -> Result<()> {
    let other_layer = |kind: &Value| kind != "full_attention";
    if fields
        .get("layer_types")
        .is_some_and(|kinds| kinds.as_array().is_none_or(|kinds| kinds.iter().any(other_layer)))
    {
        return Err(fields.unsupported("layer_types", "supported is full_attention in every layer"));
    }
    let without_rope = |flag: &Value| flag.as_u64() != Some(1);
    if fields
        .get("no_rope_layers")
        .is_some_and(|flags| flags.as_array().is_none_or(|flags| flags.iter().any(without_rope)))
    {
        return Err(fields.unsupported("no_rope_layers", "supported is rotary embedding in every layer"));
    }
    Ok(())
}

/// A cap that the file names, or the default of its class.
pub(super) fn cap(fields: &Fields<'_>, key: &str, default: f64) -> Result<Option<f32>> {
    Ok(fields.number_or(key, default)?.map(|cap| cap as f32))
}

/// What all families but GPT-2 write.
pub(super) fn write(config: &DecoderConfig) -> Map<String, Value> {
    object(json!({
        "attention_dropout": 0.0,
        "bos_token_id": config.begin_token,
        "eos_token_id": end_tokens_json(&config.end_tokens),
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "hidden_size": config.width,
        "initializer_range": 0.02,
        "intermediate_size": config.ffn,
        "max_position_embeddings": rope::published_context(config),
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "num_key_value_heads": config.kv_heads,
        "rms_norm_eps": shortest(config.norm_epsilon),
        "rope_scaling": rope::write_scaling(config),
        "rope_theta": config.rope.theta,
        "tie_word_embeddings": config.tied,
        "torch_dtype": "float32",
        "use_cache": true,
        "vocab_size": config.vocabulary,
    }))
}

/// Adds the fields of `more`, an object.
pub(super) fn extend(mut map: Map<String, Value>, more: Value) -> Map<String, Value> {
    map.extend(object(more));
    map
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// `layer_types` for each layer.
pub(super) fn layer_types_json(config: &DecoderConfig) -> Value {
    let kind = |layer| if config.window_of(layer).is_some() { "sliding_attention" } else { "full_attention" };
    (0..config.layers).map(kind).collect()
}

pub(super) fn end_tokens_json(tokens: &[u32]) -> Value {
    match tokens {
        [] => Value::Null,
        [token] => json!(token),
        several => json!(several),
    }
}

/// The decimal that a person would write: widening 1e-5 bit by bit would give 9.99999974737875e-6.
pub(super) fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}
