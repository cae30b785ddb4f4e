//! Vocabularies against the reference texts, and the byte vocabulary against the library that others will
//! read it with.

#![allow(clippy::print_stderr, reason = "a skipped test says so")]

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use sakiyomi_data::Vocabulary;
use serde_json::Value;

fn shared(path: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(path);
    if !path.exists() {
        eprintln!("skipped: {} is not here", path.display());
        return None;
    }
    Some(path)
}

fn read_json(path: &Path) -> Value {
    serde_json::from_str(&fs_err::read_to_string(path).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn streamed(vocabulary: &Vocabulary, ids: &[u32]) -> String {
    let mut stream = vocabulary.stream();
    let mut text: String = ids.iter().map(|&id| stream.push(id)).collect();
    text += &stream.finish();
    text
}

#[test]
fn stories260k_encodes_decodes_and_streams_its_golden_texts() {
    let Some(folder) = shared("models/stories260k") else { return };
    let vocabulary = Vocabulary::load(&folder).unwrap();
    assert_eq!(vocabulary.size(), 512);
    assert_eq!(vocabulary.begin(), Some(1));
    assert_eq!(vocabulary.ends(), [2]);
    let bytes = |text: &str| -> usize {
        vocabulary.encode(text).unwrap().iter().map(|&id| vocabulary.token_bytes(id)).sum()
    };
    // One more for the space that this tokenizer puts before a text.
    assert_eq!((bytes("Once upon a time"), bytes("caf\u{e9} \u{1f999}")), (17, 11));
    assert_eq!((vocabulary.token_bytes(2), vocabulary.token_bytes(9999)), (0, 0));
    let golden = read_json(&folder.join("golden.json"));
    let cases = golden["tokenizer"]["cases"].as_array().unwrap();
    assert!(cases.len() > 20);
    for case in cases {
        let text = case["text"].as_str().unwrap();
        let expected = ids(&case["ids"]);
        let mut encoded = vec![vocabulary.begin().unwrap()];
        encoded.extend(vocabulary.encode(text).unwrap());
        assert_eq!(encoded, expected, "{text:?}");
        assert_eq!(vocabulary.decode(&expected).unwrap(), case["decoded"].as_str().unwrap(), "{text:?}");
        assert_eq!(streamed(&vocabulary, &expected), case["decoded"].as_str().unwrap(), "{text:?}");
    }
    for case in golden["cases"].as_array().unwrap() {
        let mut encoded = vec![1];
        encoded.extend(vocabulary.encode(case["prompt"].as_str().unwrap()).unwrap());
        assert_eq!(encoded, ids(&case["ids"]));
    }
}

#[test]
fn golden_tokenizers_encode_decode_and_stream() {
    let Some(path) = shared("tokenizers/golden.json") else { return };
    let golden = read_json(&path);
    for (name, model) in golden["models"].as_object().unwrap() {
        let vocabulary = Vocabulary::load(&path.with_file_name(name)).unwrap();
        assert_eq!(vocabulary.size() as u64, model["vocab_size"].as_u64().unwrap(), "{name}");
        assert!(vocabulary.end().is_some(), "{name}");
        for case in model["cases"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let expected = ids(&case["ids"]);
            assert_eq!(vocabulary.encode(text).unwrap(), expected, "{name}: {text:?}");
            let normalised = name == "gpt-neox";
            assert!(normalised || vocabulary.lost_bytes(text, &expected).unwrap() == 0, "{name}: {text:?}");
            let bytes: usize = expected.iter().map(|&id| vocabulary.token_bytes(id)).sum();
            let special = expected.iter().any(|&id| vocabulary.special_name(id).is_some());
            // An accent that the normaliser joins to its letter takes fewer bytes.
            if !special && case["decoded"] == case["text"] {
                assert_eq!(bytes, text.len(), "{name}: {text:?}");
            }
            let decoded = vocabulary.decode(&expected).unwrap();
            assert_eq!(streamed(&vocabulary, &expected), decoded, "{name}: {text:?}");
            if !text.contains("<|") && !text.contains("</") {
                assert_eq!(decoded, case["decoded"].as_str().unwrap(), "{name}: {text:?}");
            }
        }
    }
}

#[test]
fn a_loaded_tokenizer_is_saved_unchanged() {
    let Some(folder) = shared("models/stories260k") else { return };
    let vocabulary = Vocabulary::load(&folder).unwrap();
    let saved = tempfile::tempdir().unwrap();
    vocabulary.save(saved.path()).unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"] {
        assert_eq!(
            fs_err::read(folder.join(name)).unwrap(),
            fs_err::read(saved.path().join(name)).unwrap(),
            "{name}"
        );
    }
    assert_eq!(Vocabulary::load(saved.path()).unwrap().fingerprint(), vocabulary.fingerprint());
}

#[test]
fn bytes_are_saved_and_recognised() {
    let folder = tempfile::tempdir().unwrap();
    let vocabulary = Vocabulary::bytes();
    vocabulary.save(folder.path()).unwrap();
    let loaded = Vocabulary::load(folder.path()).unwrap();
    assert!(loaded.is_bytes());
    assert!(Vocabulary::load(&folder.path().join("tokenizer.json")).unwrap().is_bytes());
    assert_eq!(loaded.fingerprint(), vocabulary.fingerprint());
    assert_eq!((loaded.size(), loaded.begin(), loaded.end()), (257, Some(256), Some(256)));
}

#[test]
fn other_document_tokens_change_the_fingerprint() {
    let Some(folder) = shared("models/stories260k") else { return };
    let copy = tempfile::tempdir().unwrap();
    fs_err::copy(folder.join("tokenizer.json"), copy.path().join("tokenizer.json")).unwrap();
    let first = Vocabulary::load(copy.path()).unwrap();
    fs_err::write(copy.path().join("tokenizer_config.json"), r#"{"eos_token": {"content": "<unk>"}}"#)
        .unwrap();
    fs_err::write(copy.path().join("generation_config.json"), r#"{"eos_token_id": [2, 0, 9999]}"#).unwrap();
    let second = Vocabulary::load(copy.path()).unwrap();
    assert_eq!(first.ends(), [2]);
    assert_eq!(second.ends(), [0, 2]);
    assert_ne!(first.fingerprint(), second.fingerprint());
}

#[test]
fn what_is_no_tokenizer_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = Vocabulary::load(folder.path()).unwrap_err().to_string();
    assert!(missing.contains("no such file") && missing.contains("tokenizer.json"), "{missing}");
    fs_err::write(folder.path().join("tokenizer.json"), "{").unwrap();
    let broken = Vocabulary::load(folder.path()).unwrap_err().to_string();
    assert!(broken.contains("is not JSON"), "{broken}");
    fs_err::write(folder.path().join("tokenizer.json"), r#"{"version": "1.0"}"#).unwrap();
    let empty = Vocabulary::load(folder.path()).unwrap_err().to_string();
    assert!(empty.starts_with("tokenizer ") && !empty.contains('\n'), "{empty}");
}

proptest! {
    #[test]
    fn the_written_byte_tokenizer_is_the_built_in_one(text in any::<String>()) {
        let bytes = Vocabulary::bytes();
        let folder = tempfile::tempdir().unwrap();
        bytes.save(folder.path()).unwrap();
        let library = tokenizers::Tokenizer::from_file(folder.path().join("tokenizer.json")).unwrap();
        let ids = bytes.encode(&text).unwrap();
        let encoding = library.encode(text.as_str(), true).unwrap();
        prop_assert_eq!(encoding.get_ids(), &ids);
        prop_assert_eq!(library.decode(&ids, true).unwrap(), text.as_str());
        prop_assert_eq!(bytes.decode(&ids).unwrap(), text.as_str());
        prop_assert_eq!(library.get_vocab_size(true), bytes.size());
        prop_assert_eq!(library.token_to_id("<|end|>"), bytes.end());
    }

    #[test]
    fn any_ids_stream_without_panic(ids in prop::collection::vec(0u32..600, 0..40)) {
        let Some(folder) = shared("models/stories260k") else { return Ok(()) };
        let vocabulary = Vocabulary::load(&folder).unwrap();
        let text = streamed(&vocabulary, &ids);
        let whole = vocabulary.decode(&ids).unwrap();
        if !whole.contains(char::REPLACEMENT_CHARACTER) {
            prop_assert_eq!(text, whole);
        }
    }
}

#[test]
fn a_tokenizer_that_contradicts_itself_is_refused_with_the_file() {
    let with = |model: &str, processor: &str, decoder: &str| {
        format!(
            r#"{{"version": "1.0", "added_tokens": [], "pre_tokenizer": null, "normalizer": null,
            "post_processor": {processor}, "decoder": {decoder}, "model": {model}}}"#
        )
    };
    let model = r#"{"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}"#;
    // A template that names a token which it does not define; a merge longer than every token.
    let template = r#"{"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x", "type_id": 0}}],
        "pair": [], "special_tokens": {"y": {"id": "y", "ids": [0], "tokens": ["a"]}}}"#;
    let merge = r#"{"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": [["a", "b"]]}"#;
    for file in [with(model, template, "null"), with(merge, "null", "null")] {
        let error = Vocabulary::parse(file.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("tokenizer tokenizer.json: contradicts itself"), "{error}");
        assert!(!sakiyomi_data::inside_library());
    }
    // A decoder that strips more characters than a token has.
    let strip = r#"{"type": "Strip", "content": "a", "start": 0, "stop": 5}"#;
    let vocabulary = Vocabulary::parse(with(model, "null", strip).as_bytes()).unwrap();
    let error = vocabulary.decode(&[0]).unwrap_err().to_string();
    assert!(error.contains("contradicts itself"), "{error}");
}

/// Words of letters only, with and without a token for what is unknown, and with one that is named as a special token.
#[test]
fn what_a_tokenizer_cannot_spell_is_counted() {
    let vocabulary = |model: &str, before: &str, after: &str| {
        let file = format!(
            r#"{{"version": "1.0", "normalizer": null, "pre_tokenizer": {before}, "post_processor": null,
            "decoder": {after}, "added_tokens": [{{"id": 9, "content": "<end>", "special": true, "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": false}}], "model": {model}}}"#
        );
        Vocabulary::parse(file.as_bytes()).unwrap()
    };
    let letters = r#""vocab": {"a": 0, "b": 1, " ": 2, "[UNK]": 3, "\u00e9": 4}, "merges": []"#;
    let lost = |vocabulary: &Vocabulary, text: &str| {
        let ids = vocabulary.encode(text).unwrap();
        let bytes: usize = ids.iter().map(|&id| vocabulary.token_bytes(id)).sum();
        (bytes, vocabulary.lost_bytes(text, &ids).unwrap())
    };
    let fuse = r#"{"type": "Fuse"}"#;
    let silent = vocabulary(&format!(r#"{{"type": "BPE", {letters}}}"#), "null", fuse);
    assert_eq!(silent.unknown(), None);
    assert_eq!(lost(&silent, "ab ba"), (5, 0));
    assert_eq!(lost(&silent, "\u{e9}zb\u{20ac}"), (3, 1 + 3), "characters without a token vanish");
    assert_eq!(lost(&silent, "a<end>b"), (2, 0), "a token that the text names stands for it");

    let told = vocabulary(&format!(r#"{{"type": "BPE", "unk_token": "[UNK]", {letters}}}"#), "null", fuse);
    assert_eq!(told.unknown(), Some(3));
    assert_eq!(lost(&told, "azzb"), (2, 2), "the unknown token stands for no bytes of its own");

    let words = r#"{"type": "WordLevel", "unk_token": "[UNK]", "vocab": {"a": 0, "b": 1, "[UNK]": 3}}"#;
    let words = vocabulary(words, r#"{"type": "WhitespaceSplit"}"#, "null");
    assert_eq!(lost(&words, "a b a"), (3, 0), "the decoder puts the spaces back");
    assert_eq!(lost(&words, "a\nb\ncc"), (2, 2 + 2), "but no line ends");
    let pieces = r#"{"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0], ["b", -2.0]]}"#;
    assert_eq!(lost(&vocabulary(pieces, "null", fuse), "abc"), (2, 1));
    assert_eq!(lost(&Vocabulary::bytes(), "any \u{20ac}\0"), (8, 0));
}
