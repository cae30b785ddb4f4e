//! `config.json` and `generation_config.json` of Llama checkpoints, read in the styles of transformers 4 and 5 and written
//! in that of transformers 4, which both read.
//!
//! What would change the numbers and is not here is refused by name ([`NEUTRAL`] lists those fields with the values at
//! which they do nothing). A field that is in neither list is ignored: published files carry dozens that concern training,
//! caching or other software, and a field that added parameters would show as a surplus tensor.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::checkpoint::write_file;
use crate::config::{DecoderConfig, Family, Rope, RopeScaling};
use crate::error::{Error, Result};

/// Reads the architecture of the checkpoint in `folder`, and checks that its sizes fit together.
///
/// End tokens come from `generation_config.json` where it names any, as in transformers: chat models end a turn with
/// tokens that their `config.json` does not know.
pub fn read_config(folder: &Path) -> Result<DecoderConfig> {
    let file = folder.join("config.json");
    if !file.is_file() {
        return Err(Error::NotACheckpoint { folder: folder.to_owned(), missing: "config.json".into() });
    }
    let mut config = parse_config(&read_object(&file)?, &file)?;
    let generation = folder.join("generation_config.json");
    if generation.is_file() {
        let map = read_object(&generation)?;
        if let Some(tokens) = (Fields { map: &map, prefix: "", file: &generation }).tokens("eos_token_id")?
            && !tokens.is_empty()
        {
            config.end_tokens = tokens;
        }
    }
    Ok(config)
}

/// Writes `config.json` and `generation_config.json` into `folder` for float32 weights; transformers reads them as
/// `LlamaForCausalLM`.
pub fn write_config(folder: &Path, config: &DecoderConfig) -> Result<()> {
    config.validate()?;
    let mut generation = Map::new();
    if let Some(token) = config.begin_token {
        generation.insert("bos_token_id".into(), token.into());
    }
    if !config.end_tokens.is_empty() {
        generation.insert("eos_token_id".into(), end_tokens_json(&config.end_tokens));
    }
    generation.insert("do_sample".into(), false.into());
    write_file(&folder.join("config.json"), &pretty(&config_json(config)))?;
    write_file(&folder.join("generation_config.json"), &pretty(&Value::Object(generation)))
}

/// A sane configuration file has a few kilobytes; this keeps a mistaken path from filling the memory.
const MOST_BYTES: u64 = 16 << 20;

/// Fields that change the numbers, and the values (beside null, false, empty and absent) at which they do not.
///
/// Sliding windows, soft caps, multipliers, partial or interleaved rotation, experts, quantisation, norms of queries and
/// keys, and relatives of these: each occurs in a published file that calls itself a relative of Llama.
const NEUTRAL: &[(&str, &[f64])] = &[
    ("add_cross_attention", &[]),
    ("alibi", &[]),
    ("attention_chunk_size", &[]),
    ("attention_multiplier", &[]),
    ("attn_logit_softcapping", &[]),
    ("clip_qkv", &[]),
    ("dim_model_base", &[]),
    ("embedding_multiplier", &[1.0]),
    ("final_logit_softcapping", &[]),
    ("is_encoder_decoder", &[]),
    ("kv_lora_rank", &[]),
    ("logit_scale", &[1.0]),
    ("logits_scaling", &[1.0]),
    ("num_experts", &[0.0, 1.0]),
    ("num_local_experts", &[0.0, 1.0]),
    ("parallel_attn", &[]),
    ("partial_rotary_factor", &[1.0]),
    ("pretraining_tp", &[1.0]),
    ("pruned_heads", &[]),
    ("qk_layernorm", &[]),
    ("qk_norm", &[]),
    ("quantization_config", &[]),
    ("query_pre_attn_scalar", &[]),
    ("residual_multiplier", &[1.0]),
    ("rope_interleaved", &[]),
    ("scale_depth", &[]),
    ("scale_emb", &[1.0]),
    ("sliding_window", &[0.0]),
    ("use_alibi", &[]),
    ("use_bidirectional_attention", &[]),
    ("use_parallel_residual", &[]),
    ("use_qk_norm", &[]),
    ("use_sliding_window", &[]),
];

fn parse_config(map: &Map<String, Value>, file: &Path) -> Result<DecoderConfig> {
    let fields = Fields { map, prefix: "", file };
    let family = family(&fields)?;
    refuse_other_arithmetic(&fields)?;

    let width = fields.required_size("hidden_size")?;
    let heads = fields.required_size("num_attention_heads")?;
    let head_dim = match fields.size("head_dim")? {
        Some(head_dim) => head_dim,
        None if heads > 0 && width.is_multiple_of(heads) => width / heads,
        None => {
            return Err(Error::Architecture {
                reason: format!("hidden_size {width} does not divide evenly among {heads} heads"),
            });
        }
    };
    // Where a field is absent the class defaults of transformers' LlamaConfig hold; sizes have no sensible default.
    let context = fields.size("max_position_embeddings")?.unwrap_or(2048);
    let begin_token = match fields.get("bos_token_id") {
        None if !map.contains_key("bos_token_id") => Some(1),
        None => None,
        Some(_) => fields.tokens("bos_token_id")?.and_then(|tokens| tokens.first().copied()),
    };
    let end_tokens = match fields.tokens("eos_token_id")? {
        None if !map.contains_key("eos_token_id") => vec![2],
        tokens => tokens.unwrap_or_default(),
    };
    let config = DecoderConfig {
        family,
        vocabulary: fields.required_size("vocab_size")?,
        width,
        layers: fields.required_size("num_hidden_layers")?,
        heads,
        kv_heads: fields.size("num_key_value_heads")?.unwrap_or(heads),
        head_dim,
        ffn: fields.required_size("intermediate_size")?,
        context,
        rope: rope(&fields, context)?,
        norm_epsilon: fields.number("rms_norm_eps")?.unwrap_or(1e-6) as f32,
        tied: fields.flag("tie_word_embeddings")?,
        attention_bias: fields.flag("attention_bias")?,
        mlp_bias: fields.flag("mlp_bias")?,
        begin_token,
        end_tokens,
    };
    config.validate()?;
    Ok(config)
}

/// The family by `model_type`, with `architectures` in agreement.
fn family(fields: &Fields<'_>) -> Result<Family> {
    const SUPPORTED: &str = "supported is llama (LlamaForCausalLM)";
    let model_type = fields.get("model_type").ok_or_else(|| fields.missing("model_type"))?;
    if model_type != "llama" {
        return Err(fields.unsupported("model_type", SUPPORTED));
    }
    if let Some(architectures) = fields.get("architectures")
        && !architectures.as_array().is_some_and(|list| list.iter().any(|name| name == "LlamaForCausalLM"))
    {
        return Err(fields.unsupported("architectures", SUPPORTED));
    }
    Ok(Family::Llama)
}

fn refuse_other_arithmetic(fields: &Fields<'_>) -> Result<()> {
    for key in ["hidden_act", "hidden_activation"] {
        if fields.get(key).is_some_and(|name| name != "silu" && name != "swish") {
            return Err(fields.unsupported(key, "supported is silu"));
        }
    }
    for &(key, neutral) in NEUTRAL {
        // A window that is switched off by its own switch does nothing.
        let off =
            key == "sliding_window" && fields.map.get("use_sliding_window") == Some(&Value::Bool(false));
        if !off && fields.get(key).is_some_and(|value| !does_nothing(value, neutral)) {
            return Err(fields.unsupported(key, "this part of the model is not implemented"));
        }
    }
    let other_layer = |kind: &Value| kind != "full_attention";
    if fields
        .get("layer_types")
        .is_some_and(|kinds| kinds.as_array().is_none_or(|k| k.iter().any(other_layer)))
    {
        return Err(fields.unsupported("layer_types", "supported is full_attention in every layer"));
    }
    let without_rope = |flag: &Value| flag.as_u64() != Some(1);
    if fields.get("no_rope_layers").is_some_and(|v| v.as_array().is_none_or(|f| f.iter().any(without_rope))) {
        return Err(fields.unsupported("no_rope_layers", "supported is rotary embedding in every layer"));
    }
    Ok(())
}

fn does_nothing(value: &Value, neutral: &[f64]) -> bool {
    match value {
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64().is_some_and(|number| neutral.contains(&number)),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Null => true,
        Value::String(_) => false,
    }
}

/// Rotary base and scaling: `rope_theta` and `rope_scaling` (transformers 4) or both in `rope_parameters` (5). A value
/// inside the object goes before the one beside it, and `rope_scaling` before `rope_parameters`, as in transformers.
fn rope(fields: &Fields<'_>, context: usize) -> Result<Rope> {
    let outer_theta = fields.number("rope_theta")?;
    let key = if fields.get("rope_scaling").is_some() { "rope_scaling" } else { "rope_parameters" };
    let Some(value) = fields.get(key) else {
        return Ok(Rope { theta: outer_theta.unwrap_or(DEFAULT_THETA), scaling: None });
    };
    let map = value.as_object().ok_or_else(|| fields.wrong(key, "an object or null"))?;
    let prefix = if key == "rope_scaling" { "rope_scaling." } else { "rope_parameters." };
    let inner = Fields { map, prefix, file: fields.file };

    if inner.get("partial_rotary_factor").is_some_and(|value| !does_nothing(value, &[1.0])) {
        return Err(inner.unsupported("partial_rotary_factor", "supported is 1"));
    }
    let theta = inner.number("rope_theta")?.or(outer_theta).unwrap_or(DEFAULT_THETA);
    let kind = if inner.get("rope_type").is_some() { "rope_type" } else { "type" };
    let scaling = match inner.get(kind).map(|value| value.as_str().ok_or_else(|| inner.wrong(kind, "a name")))
    {
        None => {
            // Without a type only an object that says nothing but the base is certain to be the default.
            if let Some(other) =
                map.keys().find(|key| !["rope_theta", "partial_rotary_factor"].contains(&key.as_str()))
            {
                return Err(inner.unsupported(other, "a scaling needs its rope_type (default or llama3)"));
            }
            None
        }
        Some(Err(wrong)) => return Err(wrong),
        Some(Ok("default")) => None,
        Some(Ok("llama3")) => {
            let number = |key| inner.number(key).and_then(|value| value.ok_or_else(|| inner.missing(key)));
            const ORIGINAL: &str = "original_max_position_embeddings";
            let original_context = match fields.size(ORIGINAL)? {
                Some(original) => original,
                None => inner.size(ORIGINAL)?.unwrap_or(context),
            };
            Some(RopeScaling::Llama3 {
                factor: number("factor")?,
                low_freq_factor: number("low_freq_factor")?,
                high_freq_factor: number("high_freq_factor")?,
                original_context,
            })
        }
        Some(Ok(_)) => return Err(inner.unsupported(kind, "supported are default and llama3")),
    };
    Ok(Rope { theta, scaling })
}

const DEFAULT_THETA: f64 = 10_000.0;

/// The file that transformers 4 would write, keys in alphabetical order.
fn config_json(config: &DecoderConfig) -> Value {
    let rope_scaling = config.rope.scaling.map(
        |RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context }| {
            json!({
                "factor": factor,
                "high_freq_factor": high_freq_factor,
                "low_freq_factor": low_freq_factor,
                "original_max_position_embeddings": original_context,
                "rope_type": "llama3",
            })
        },
    );
    let Family::Llama = config.family;
    json!({
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": config.attention_bias,
        "attention_dropout": 0.0,
        "bos_token_id": config.begin_token,
        "eos_token_id": end_tokens_json(&config.end_tokens),
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "hidden_size": config.width,
        "initializer_range": 0.02,
        "intermediate_size": config.ffn,
        "max_position_embeddings": config.context,
        "mlp_bias": config.mlp_bias,
        "model_type": "llama",
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "num_key_value_heads": config.kv_heads,
        "rms_norm_eps": shortest(config.norm_epsilon),
        "rope_scaling": rope_scaling,
        "rope_theta": config.rope.theta,
        "tie_word_embeddings": config.tied,
        "torch_dtype": "float32",
        "use_cache": true,
        "vocab_size": config.vocabulary,
    })
}

fn end_tokens_json(tokens: &[u32]) -> Value {
    match tokens {
        [] => Value::Null,
        [token] => json!(token),
        several => json!(several),
    }
}

/// The decimal that a person would write: widening 1e-5 bit by bit would give 9.99999974737875e-6.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

fn pretty(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

fn read_object(file: &Path) -> Result<Map<String, Value>> {
    let json_error = |reason: String| Error::Json { file: file.to_owned(), reason };
    let bytes = fs_err::metadata(file)?.len();
    if bytes > MOST_BYTES {
        return Err(json_error(format!("{bytes} bytes are too many for a configuration")));
    }
    let text = fs_err::read(file)?;
    match serde_json::from_slice(&text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(json_error("no JSON object".into())),
        Err(error) if text.is_empty() || error.is_eof() => Err(json_error("the file ends too early".into())),
        Err(error) => Err(json_error(format!("not JSON ({error})"))),
    }
}

/// Typed access to a JSON object; null counts as absent.
struct Fields<'a> {
    map: &'a Map<String, Value>,
    prefix: &'static str,
    file: &'a Path,
}

impl<'a> Fields<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn size(&self, key: &str) -> Result<Option<usize>> {
        let size = |value: &Value| value.as_u64().and_then(|size| usize::try_from(size).ok());
        self.typed(key, "a whole number", size)
    }

    fn required_size(&self, key: &str) -> Result<usize> {
        self.size(key)?.ok_or_else(|| self.missing(key))
    }

    fn number(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", Value::as_f64)
    }

    fn flag(&self, key: &str) -> Result<bool> {
        Ok(self.typed(key, "true or false", Value::as_bool)?.unwrap_or(false))
    }

    fn tokens(&self, key: &str) -> Result<Option<Vec<u32>>> {
        let token = |value: &Value| value.as_u64().and_then(|token| u32::try_from(token).ok());
        self.typed(key, "a token id or a list of them", |value| match value {
            Value::Array(list) => list.iter().map(token).collect(),
            single => token(single).map(|token| vec![token]),
        })
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &'static str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>> {
        self.get(key).map(|value| read(value).ok_or_else(|| self.wrong(key, expected))).transpose()
    }

    fn wrong(&self, key: &str, expected: &'static str) -> Error {
        Error::WrongField {
            file: self.file.to_owned(),
            field: self.name(key),
            value: self.shown(key),
            expected,
        }
    }

    fn missing(&self, key: &str) -> Error {
        Error::MissingField { file: self.file.to_owned(), field: self.name(key) }
    }

    fn unsupported(&self, key: &str, supported: &str) -> Error {
        Error::Unsupported {
            file: self.file.to_owned(),
            field: self.name(key),
            value: self.shown(key),
            supported: supported.to_owned(),
        }
    }

    fn name(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// The value as JSON on one line, cut where a quantisation table would flood the screen.
    fn shown(&self, key: &str) -> String {
        const MOST_CHARACTERS: usize = 60;
        let text = self.map.get(key).map(Value::to_string).unwrap_or_default();
        match text.char_indices().nth(MOST_CHARACTERS) {
            Some((end, _)) => format!("{}...", &text[..end]),
            None => text,
        }
    }
}
