//! `config.json` and `generation_config.json` of every family, read in the styles of transformers 4 and 5 and written in that
//! of transformers 4, which both read. One file for each family; what they share is beside them.
//!
//! Three kinds of fields:
//!
//! - what a family's reader asks for decides what is computed, and a value that is not supported is refused by name;
//! - what is known to leave the numbers alone ([`known`]) is ignored;
//! - everything else is refused by name, unless its value says that it does nothing (null, false, empty). A field that nobody
//!   here knows may change the numbers; whoever knows that it does not can remove it from the file.

mod base;
pub(crate) mod fields;
mod gemma2;
mod gpt2;
pub(crate) mod known;
mod llama;
mod mistral;
mod phi3;
mod qwen;
mod rope;
mod smollm3;

use std::path::Path;

use kernels::packed::WeightType;
use serde_json::{Map, Value};

use crate::checkpoint::{present, stored_names, write_file};
use crate::config::{DecoderConfig, Family};
use crate::error::{Error, Result};
use fields::Fields;

/// Families by the `model_type` and the class of their files.
const FAMILIES: [(Family, &str, &str); 8] = [
    (Family::Llama, "llama", "LlamaForCausalLM"),
    (Family::Mistral, "mistral", "MistralForCausalLM"),
    (Family::Qwen2, "qwen2", "Qwen2ForCausalLM"),
    (Family::Qwen3, "qwen3", "Qwen3ForCausalLM"),
    (Family::Gemma2, "gemma2", "Gemma2ForCausalLM"),
    (Family::Phi3, "phi3", "Phi3ForCausalLM"),
    (Family::SmolLm3, "smollm3", "SmolLM3ForCausalLM"),
    (Family::Gpt2, "gpt2", "GPT2LMHeadModel"),
];

/// Reads the architecture of the checkpoint in `folder`, and checks that its sizes fit together.
///
/// End tokens come from `generation_config.json` where it names any, as in transformers: chat models end a turn with
/// tokens that their `config.json` does not know. Which of the two styles of names a GPT-2 file has is seen in its header.
pub fn read_config(folder: &Path) -> Result<DecoderConfig> {
    let file = folder.join("config.json");
    if !present(&file)? {
        return Err(Error::NotACheckpoint { folder: folder.to_owned(), missing: "config.json".into() });
    }
    let map = read_object(&file)?;
    if let Some(weights) = packed_type(&map, &file)? {
        return Err(Error::PackedWeights { folder: folder.to_owned(), weights });
    }
    read_with(&map, &file, folder)
}

/// The type of the weights in `folder` if they are packed for decoding, and not a checkpoint.
pub fn packed_weights(folder: &Path) -> Result<Option<WeightType>> {
    let file = folder.join("config.json");
    if !present(&file)? {
        return Err(Error::NotACheckpoint { folder: folder.to_owned(), missing: "config.json".into() });
    }
    packed_type(&read_object(&file)?, &file)
}

/// As [`read_config`], for a folder of weights packed for decoding.
pub fn read_packed_config(folder: &Path) -> Result<DecoderConfig> {
    let file = folder.join("config.json");
    let mut map = read_object(&file)?;
    map.shift_remove(PACKING);
    read_with(&map, &file, folder)
}

/// The field by which a folder says how its weights are written; transformers refuses methods that it does not know.
const PACKING: &str = "quantization_config";

const PACKING_METHOD: &str = "sakiyomi";

fn packed_type(map: &Map<String, Value>, file: &Path) -> Result<Option<WeightType>> {
    let Some(packing) = map.get(PACKING).filter(|packing| packing["quant_method"] == PACKING_METHOD) else {
        return Ok(None);
    };
    let name = packing["weights"].as_str().unwrap_or_default();
    let refuse =
        |reason: String| Error::Json { file: file.to_owned(), reason: format!("{PACKING}: {reason}") };
    name.parse().map(Some).map_err(refuse)
}

fn read_with(map: &Map<String, Value>, file: &Path, folder: &Path) -> Result<DecoderConfig> {
    let mut config = parse_object(map, file)?;
    let generation = folder.join("generation_config.json");
    if present(&generation)? {
        let map = read_object(&generation)?;
        if let Some(tokens) = Fields::new(&map, "", &generation).tokens("eos_token_id")?
            && !tokens.is_empty()
        {
            config.end_tokens = tokens;
        }
    }
    config.validate().map_err(|error| Error::Json { file: file.to_owned(), reason: error.to_string() })?;
    if config.family == Family::Gpt2 {
        // A damaged header is reported by whoever reads the weights.
        let names = stored_names(folder).unwrap_or_default();
        config.variant.bare_names = names.iter().any(|name| name == gpt2::BARE_EMBEDDING);
    }
    Ok(config)
}

/// Writes `config.json` and `generation_config.json` into `folder` for float32 weights; transformers reads them as the
/// family's class.
pub fn write_config(folder: &Path, config: &DecoderConfig) -> Result<()> {
    write_configs(folder, config, config_json(config))
}

/// As [`write_config`], for weights packed for decoding.
pub fn write_packed_config(folder: &Path, config: &DecoderConfig, weights: WeightType) -> Result<()> {
    let mut json = config_json(config);
    json[PACKING] = serde_json::json!({ "quant_method": PACKING_METHOD, "weights": weights.name() });
    write_configs(folder, config, json)
}

fn write_configs(folder: &Path, config: &DecoderConfig, json: Value) -> Result<()> {
    config.validate()?;
    let mut generation = Map::new();
    if let Some(token) = config.begin_token {
        generation.insert("bos_token_id".into(), token.into());
    }
    if !config.end_tokens.is_empty() {
        generation.insert("eos_token_id".into(), base::end_tokens_json(&config.end_tokens));
    }
    generation.insert("do_sample".into(), false.into());
    write_file(&folder.join("config.json"), &pretty(&json))?;
    write_file(&folder.join("generation_config.json"), &pretty(&Value::Object(generation)))
}

/// What the bytes of a `config.json` describe. Any bytes give a description or an error.
pub fn parse_config(bytes: &[u8]) -> Result<DecoderConfig> {
    let file = Path::new("config.json");
    parse_object(&object(bytes, file)?, file)
}

fn parse_object(map: &Map<String, Value>, file: &Path) -> Result<DecoderConfig> {
    let fields = Fields::new(map, "", file);
    let family = family(&fields)?;
    let config = match family {
        Family::Llama => llama::read(&fields),
        Family::Mistral => mistral::read(&fields),
        Family::Qwen2 | Family::Qwen3 => qwen::read(&fields, family),
        Family::Gemma2 => gemma2::read(&fields),
        Family::Phi3 => phi3::read(&fields),
        Family::SmolLm3 => smollm3::read(&fields),
        Family::Gpt2 => gpt2::read(&fields),
    }?;
    known::refuse_the_rest(&fields)?;
    config.validate()?;
    Ok(config)
}

/// The family by `model_type`, with `architectures` in agreement.
fn family(fields: &Fields<'_>) -> Result<Family> {
    let model_type = fields.get("model_type").ok_or_else(|| fields.missing("model_type"))?;
    let Some(&(family, _, class)) = FAMILIES.iter().find(|(_, name, _)| model_type == name) else {
        let names = FAMILIES.map(|(_, name, _)| name).join(", ");
        return Err(fields.unsupported("model_type", &format!("supported are {names}")));
    };
    if let Some(architectures) = fields.get("architectures")
        && !architectures.as_array().is_some_and(|list| list.iter().any(|name| name == class))
    {
        return Err(fields.unsupported("architectures", &format!("supported is {class}")));
    }
    Ok(family)
}

/// The file that transformers 4 would write, keys in alphabetical order.
fn config_json(config: &DecoderConfig) -> Value {
    let map = match config.family {
        Family::Llama => llama::write(config),
        Family::Mistral => mistral::write(config),
        Family::Qwen2 | Family::Qwen3 => qwen::write(config),
        Family::Gemma2 => gemma2::write(config),
        Family::Phi3 => phi3::write(config),
        Family::SmolLm3 => smollm3::write(config),
        Family::Gpt2 => gpt2::write(config),
    };
    let mut map: Vec<_> = map.into_iter().collect();
    for (family, model_type, class) in FAMILIES {
        if family == config.family {
            map.push(("model_type".into(), model_type.into()));
            map.push(("architectures".into(), vec![class].into()));
        }
    }
    map.sort_by(|a, b| a.0.cmp(&b.0));
    Value::Object(map.into_iter().collect())
}

/// A sane configuration file has a few kilobytes; this keeps a mistaken path from filling the memory.
const MOST_BYTES: u64 = 16 << 20;

pub(crate) fn read_object(file: &Path) -> Result<Map<String, Value>> {
    let bytes = fs_err::metadata(file)?.len();
    if bytes > MOST_BYTES {
        let reason = format!("{bytes} bytes are too many for a configuration");
        return Err(Error::Json { file: file.to_owned(), reason });
    }
    object(&fs_err::read(file)?, file)
}

fn object(bytes: &[u8], file: &Path) -> Result<Map<String, Value>> {
    let json_error = |reason: String| Error::Json { file: file.to_owned(), reason };
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(json_error("no JSON object".into())),
        Err(error) if bytes.is_empty() || error.is_eof() => Err(json_error("the file ends too early".into())),
        Err(error) => Err(json_error(format!("not JSON ({error})"))),
    }
}

fn pretty(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}
