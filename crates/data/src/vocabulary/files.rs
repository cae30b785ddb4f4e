//! Reading and writing the tokenizer files of a checkpoint folder.

use std::io::ErrorKind;
use std::path::Path;

use serde_json::Value;
use tokenizers::Tokenizer;

use super::bytes::is_byte_vocabulary;
use super::loaded::{CHAT_TEMPLATE, Loaded, chat_template};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::guard;

/// Files that belong to a tokenizer and travel with it.
const COMPANIONS: [&str; 4] =
    ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", CHAT_TEMPLATE];

/// Names that published tokenizers give the end of a document, for a `tokenizer.json` that comes alone.
const USUAL_ENDS: [&str; 5] = ["<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>", "<|end|>"];

/// A longer file is no tokenizer.
const MOST_BYTES: u64 = 1 << 30;

/// What lies in a folder beside `tokenizer.json`.
#[derive(Default)]
struct Beside {
    tokenizer_config: Value,
    /// Files that may name the tokens at which generation stops.
    configs: [Value; 2],
    /// Names and contents of [`COMPANIONS`], as read.
    companions: Vec<(String, Vec<u8>)>,
}

/// Reads a tokenizer; `None` if it is the built-in byte vocabulary.
pub(super) fn load(folder_or_file: &Path) -> Result<Option<Loaded>> {
    let path = if folder_or_file.is_dir() {
        folder_or_file.join("tokenizer.json")
    } else {
        folder_or_file.to_path_buf()
    };
    let Some(bytes) = beside(&path)? else { return Err(Error::Missing { path }) };
    parse(bytes, &path, Beside::read)
}

/// The bytes of a file; `None` if nothing is there.
fn beside(path: &Path) -> Result<Option<Vec<u8>>> {
    let refuse = |reason: String| Err(Error::Tokenizer { path: path.to_owned(), reason });
    match fs_err::metadata(path) {
        Ok(metadata) if metadata.len() > MOST_BYTES => refuse(format!("is longer than {MOST_BYTES} bytes")),
        Ok(metadata) if metadata.is_file() => Ok(Some(fs_err::read(path)?)),
        Ok(_) => refuse("is no file: put the file there, or take this away".to_owned()),
        Err(_) if path.is_symlink() => refuse(
            "is a symbolic link that leads in a circle or to nothing: put the file itself there".to_owned(),
        ),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Calls the `tokenizers` crate; its panics and errors are about the file `path`.
pub(super) fn guarded<T>(path: &Path, call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    let reason = match guard::caught(call) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error.to_string(),
        Err(panic) => format!("contradicts itself: the tokenizers library fails on it ({panic})"),
    };
    Err(Error::Tokenizer { path: path.to_owned(), reason })
}

/// The tokenizer in the bytes of `tokenizer.json`, with nothing beside it.
pub(super) fn parse_alone(bytes: &[u8]) -> Result<Option<Loaded>> {
    parse(bytes.to_owned(), Path::new("tokenizer.json"), |_| Ok(Beside::default()))
}

fn parse(bytes: Vec<u8>, path: &Path, beside: impl Fn(&Path) -> Result<Beside>) -> Result<Option<Loaded>> {
    let wrong = |reason: String| Error::Tokenizer { path: path.to_owned(), reason };
    let parsed: Value =
        serde_json::from_slice(&bytes).map_err(|error| wrong(format!("is not JSON: {error}")))?;
    if is_byte_vocabulary(&parsed) {
        return Ok(None);
    }
    let tokenizer = guarded(path, || {
        let mut tokenizer = Tokenizer::from_bytes(&bytes)?;
        // A file may carry the truncation of whoever saved it; a corpus must never be cut silently.
        tokenizer.with_truncation(None)?;
        tokenizer.with_padding(None);
        Ok(tokenizer)
    })?;

    let Beside { tokenizer_config, configs, companions } = beside(path.parent().unwrap_or(Path::new(".")))?;
    let begin = guarded(path, || Ok(find_begin(&tokenizer, &tokenizer_config)))?;
    let ends = find_ends(&tokenizer, &tokenizer_config, &configs);
    let size = tokenizer.get_vocab(true).into_values().max().map_or(0, |highest| highest as usize + 1);
    if size == 0 {
        return Err(wrong("has no tokens".to_owned()));
    }

    let mut digest = Digest::new();
    digest.bytes(&bytes);
    for id in begin.iter().chain([&u32::MAX]).chain(&ends) {
        digest.number(u64::from(*id));
    }
    let fingerprint = digest.hex();

    let mut files = vec![("tokenizer.json".to_owned(), bytes)];
    files.extend(companions);
    let byte_level = is_byte_level(&parsed["decoder"]);
    let unknown = find_unknown(&tokenizer, &parsed["model"]);
    let chat_template = chat_template(&files);
    let path = path.to_owned();
    Ok(Some(Loaded {
        tokenizer,
        path,
        begin,
        ends,
        size,
        byte_level,
        unknown,
        fingerprint,
        files,
        chat_template,
    }))
}

impl Beside {
    fn read(folder: &Path) -> Result<Self> {
        let json = |name: &str| -> Result<Value> {
            let Some(bytes) = beside(&folder.join(name))? else { return Ok(Value::Null) };
            serde_json::from_slice(&bytes).map_err(|error| Error::Tokenizer {
                path: folder.join(name),
                reason: format!("is not JSON: {error}"),
            })
        };
        let mut companions = Vec::new();
        for name in COMPANIONS {
            companions.extend(beside(&folder.join(name))?.map(|bytes| (name.to_owned(), bytes)));
        }
        Ok(Self {
            tokenizer_config: json("tokenizer_config.json")?,
            configs: [json("generation_config.json")?, json("config.json")?],
            companions,
        })
    }
}

/// Whether a decoder reads characters as bytes: itself, or one in its sequence.
fn is_byte_level(decoder: &Value) -> bool {
    let within = decoder["decoders"].as_array().is_some_and(|decoders| decoders.iter().any(is_byte_level));
    decoder["type"] == "ByteLevel" || within
}

/// The token that stands for characters that have none: most models give its text, unigram models its id.
fn find_unknown(tokenizer: &Tokenizer, model: &Value) -> Option<u32> {
    let id = model["unk_id"].as_u64().and_then(|id| u32::try_from(id).ok());
    id.or_else(|| tokenizer.token_to_id(model["unk_token"].as_str()?))
}

/// The token that the tokenizer itself puts before a text.
///
/// Many tokenizers name a `bos_token` that they never use (GPT-2, Qwen): training and serving agree only if
/// what is added is what the tokenizer adds.
fn find_begin(tokenizer: &Tokenizer, config: &Value) -> Option<u32> {
    let first = |special: bool| {
        tokenizer.encode_fast("a", special).ok().and_then(|encoding| encoding.get_ids().first().copied())
    };
    let (with, without) = (first(true), first(false));
    if with != without {
        return with;
    }
    if config["add_bos_token"] == true { named_token(tokenizer, &config["bos_token"]) } else { None }
}

fn find_ends(tokenizer: &Tokenizer, config: &Value, ids_in_configs: &[Value]) -> Vec<u32> {
    let mut ends: Vec<u32> = named_token(tokenizer, &config["eos_token"]).into_iter().collect();
    for file in ids_in_configs {
        // One id, or a list of them.
        let ids = &file["eos_token_id"];
        let listed = ids.as_array().map_or(std::slice::from_ref(ids), Vec::as_slice);
        ends.extend(listed.iter().filter_map(Value::as_u64).filter_map(|id| u32::try_from(id).ok()));
    }
    if ends.is_empty() {
        ends.extend(USUAL_ENDS.iter().find_map(|name| tokenizer.token_to_id(name)));
    }
    let mut seen = Vec::new();
    ends.retain(|id| {
        !seen.contains(id) && tokenizer.id_to_token(*id).is_some() && {
            seen.push(*id);
            true
        }
    });
    ends
}

/// The id of a token given by its text, or by an object with its text in `content`.
fn named_token(tokenizer: &Tokenizer, name: &Value) -> Option<u32> {
    tokenizer.token_to_id(name.as_str().or_else(|| name["content"].as_str())?)
}

/// Writes each file under a temporary name and renames it, so that no half-written one is ever seen.
pub(super) fn save(folder: &Path, files: &[(String, Vec<u8>)]) -> Result<()> {
    fs_err::create_dir_all(folder)?;
    for (name, bytes) in files {
        crate::unfinished::write_whole(&folder.join(name), bytes)?;
    }
    Ok(())
}
