//! The built-in vocabulary: one id per byte, and one for the edge of a document.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// Begins and ends every document of the byte vocabulary.
pub const END_OF_DOCUMENT: u32 = 256;

/// How `END_OF_DOCUMENT` is written in `tokenizer.json`.
pub(super) const END_TEXT: &str = "<|end|>";

/// Bytes and `<|end|>`.
pub(super) const SIZE: usize = 257;

pub(super) fn encode(text: &[u8]) -> Vec<u32> {
    text.iter().map(|&byte| u32::from(byte)).collect()
}

pub(super) fn decode(ids: &[u32]) -> String {
    let bytes: Vec<u8> = ids.iter().filter_map(|&id| u8::try_from(id).ok()).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The character that stands for a byte in `tokenizer.json` files of the GPT-2 kind: the printable bytes of
/// Latin-1 stand for themselves, the others, in order, for U+0100 and onwards.
fn stand_in(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    let rank = (0..byte).filter(|&lower| !printable(lower)).count() as u32;
    char::from_u32(0x100 + rank).expect("68 characters from U+0100 on are all assigned")
}

/// The files that make this vocabulary known to other programs.
pub(super) fn files() -> Vec<(String, Vec<u8>)> {
    vec![
        ("tokenizer.json".to_owned(), tokenizer_json().into_bytes()),
        ("tokenizer_config.json".to_owned(), pretty(&tokenizer_config())),
    ]
}

/// A byte-pair encoding without pairs.
///
/// Laid out by hand, one byte to a line in the order of the ids, so that people can read it.
fn tokenizer_json() -> String {
    let mut vocabulary = String::new();
    for byte in 0..=u8::MAX {
        let _ = writeln!(vocabulary, "      {}: {byte},", Value::from(stand_in(byte).to_string()));
    }
    let byte_level =
        r#"{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false}"#;
    format!(
        r#"{{
  "version": "1.0",
  "truncation": null,
  "padding": null,
  "added_tokens": [
    {{"id": {END_OF_DOCUMENT}, "content": "{END_TEXT}", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}}
  ],
  "normalizer": null,
  "pre_tokenizer": {byte_level},
  "post_processor": null,
  "decoder": {byte_level},
  "model": {{
    "type": "BPE",
    "dropout": null,
    "unk_token": null,
    "continuing_subword_prefix": null,
    "end_of_word_suffix": null,
    "fuse_unk": false,
    "byte_fallback": false,
    "ignore_merges": false,
    "vocab": {{
{vocabulary}      "{END_TEXT}": {END_OF_DOCUMENT}
    }},
    "merges": []
  }}
}}
"#
    )
}

fn tokenizer_config() -> Value {
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_TEXT,
        "eos_token": END_TEXT,
        "add_prefix_space": false,
        "clean_up_tokenization_spaces": false
    })
}

pub(super) fn pretty(value: &Value) -> Vec<u8> {
    let mut text = format!("{value:#}").into_bytes();
    text.push(b'\n');
    text
}

/// Whether a parsed `tokenizer.json` gives every text the ids of this vocabulary.
///
/// Other programs write the file again with fields of their own, so only what decides ids is compared.
pub(super) fn is_byte_vocabulary(tokenizer: &Value) -> bool {
    let byte_level = |part: &Value| part["type"] == "ByteLevel";
    let model = &tokenizer["model"];
    let Some(vocabulary) = model["vocab"].as_object() else { return false };
    let Some(added) = tokenizer["added_tokens"].as_array() else { return false };
    let id_of = |token: &str| vocabulary.get(token).and_then(Value::as_u64);
    let pre_tokenizer = &tokenizer["pre_tokenizer"];
    tokenizer["normalizer"].is_null()
        && byte_level(pre_tokenizer)
        && pre_tokenizer["add_prefix_space"] == false
        && pre_tokenizer["use_regex"] == false
        && byte_level(&tokenizer["decoder"])
        && (tokenizer["post_processor"].is_null() || byte_level(&tokenizer["post_processor"]))
        && model["type"] == "BPE"
        && model["merges"].as_array().is_some_and(Vec::is_empty)
        && (0..=u8::MAX).all(|byte| id_of(&stand_in(byte).to_string()) == Some(u64::from(byte)))
        && vocabulary.len() == 256 + usize::from(id_of(END_TEXT) == Some(u64::from(END_OF_DOCUMENT)))
        && added.len() == 1
        && added[0]["content"] == END_TEXT
        && added[0]["id"] == END_OF_DOCUMENT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stand_ins_are_those_of_gpt2() {
        assert_eq!(stand_in(b'A'), 'A');
        assert_eq!(stand_in(b' '), 'Ġ');
        assert_eq!(stand_in(b'\n'), 'Ċ');
        assert_eq!(stand_in(0), 'Ā');
        assert_eq!(stand_in(0xad), 'Ń');
        let mut all: Vec<char> = (0..=u8::MAX).map(stand_in).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 256);
    }

    #[test]
    fn the_written_file_is_recognised_and_near_misses_are_not() {
        let written: Value = serde_json::from_str(&tokenizer_json()).unwrap();
        assert!(is_byte_vocabulary(&written));
        let changes: [fn(&mut Value); 5] = [
            |file| file["normalizer"] = json!({"type": "NFC"}),
            |file| file["pre_tokenizer"]["use_regex"] = json!(true),
            |file| file["model"]["merges"] = json!([["a", "b"]]),
            |file| file["model"]["vocab"]["A"] = json!(66),
            |file| file["added_tokens"] = json!([]),
        ];
        for change in changes {
            let mut file = written.clone();
            change(&mut file);
            assert!(!is_byte_vocabulary(&file));
        }
    }
}
