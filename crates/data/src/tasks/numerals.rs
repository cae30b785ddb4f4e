//! A tokenizer for tasks in numbers: each number below a limit is one token, and so is each of a few signs; commas vanish.
//!
//! Ids are those of the star graphs' authors: the numbers, then `|`, `=`, `/`, `$` (a filler), and an end of their own.

use serde_json::{Map, Value, json};

/// Signs that are tokens, behind the numbers.
const SIGNS: [&str; 4] = ["|", "=", "/", "$"];

/// Ends a document.
const END: &str = "<|end|>";

/// `tokenizer.json` and `tokenizer_config.json` for the numbers below `numbers`.
pub fn numeral_tokenizer(numbers: usize) -> [(&'static str, String); 2] {
    let names =
        (0..numbers).map(|number| number.to_string()).chain(SIGNS.map(str::to_owned)).chain([END.to_owned()]);
    let vocabulary: Map<String, Value> = names.zip(0u64..).map(|(name, id)| (name, json!(id))).collect();
    let end = json!({
        "id": numbers + SIGNS.len(), "content": END, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true
    });
    let split = |pattern: Value, behavior: &str| json!({"type": "Split", "pattern": pattern, "behavior": behavior, "invert": false});
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [end],
        "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            split(json!({"String": ","}), "Removed"),
            split(json!({"Regex": "[|=/$]"}), "Isolated"),
        ]},
        "post_processor": null,
        "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "$"}
    });
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "clean_up_tokenization_spaces": false
    });
    [("tokenizer.json", tokenizer.to_string()), ("tokenizer_config.json", config.to_string())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Vocabulary;

    /// METHODS: nodes are 0..N-1, then the signs; G(2,5) has 27 tokens before its path and 5 in it.
    #[test]
    fn lines_have_the_tokens_of_the_authors() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in numeral_tokenizer(20) {
            fs_err::write(folder.path().join(name), text).unwrap();
        }
        let vocabulary = Vocabulary::load(folder.path()).unwrap();
        assert_eq!(vocabulary.encode("3,17|4,0/3,0=3,17").unwrap(), [3, 17, 20, 4, 0, 22, 3, 0, 21, 3, 17]);
        assert_eq!((vocabulary.size(), vocabulary.end(), vocabulary.begin()), (25, Some(24), None));
        let graph = super::super::star_graph::StarGraph { degree: 2, length: 5, nodes: 20, reversed: false };
        let example = graph.draw(&mut crate::random::Random::new(1, 1));
        assert_eq!(vocabulary.encode(&example.prompt).unwrap().len(), 27);
        assert_eq!(vocabulary.encode(&example.answer).unwrap().len(), 5);
    }
}
