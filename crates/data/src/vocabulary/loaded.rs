//! A vocabulary read from `tokenizer.json`, on the `tokenizers` crate.

use std::collections::HashMap;
use std::path::PathBuf;

use serde_json::json;
use tokenizers::Tokenizer;

use super::bytes::pretty;
use super::files::guarded;
use crate::chat::ChatTemplate;
use crate::error::Result;

/// The file of a chat template that stands by itself.
pub(super) const CHAT_TEMPLATE: &str = "chat_template.jinja";

/// The chat template in the files beside a tokenizer.
pub(super) fn chat_template(files: &[(String, Vec<u8>)]) -> Option<ChatTemplate> {
    let find = |name: &str| files.iter().find(|file| file.0 == name).map(|file| file.1.as_slice());
    let config = find("tokenizer_config.json").and_then(|bytes| serde_json::from_slice(bytes).ok());
    let separate = find(CHAT_TEMPLATE).map(String::from_utf8_lossy);
    ChatTemplate::in_files(&config.unwrap_or_default(), separate.as_deref())
}

/// A tokenizer, its document tokens, and the files it came from.
pub(super) struct Loaded {
    pub(super) tokenizer: Tokenizer,
    /// Of `tokenizer.json`, for messages.
    pub(super) path: PathBuf,
    pub(super) begin: Option<u32>,
    pub(super) ends: Vec<u32>,
    pub(super) size: usize,
    /// Whether the characters of a token stand for bytes, as in GPT-2.
    pub(super) byte_level: bool,
    /// The token that stands for characters that have none.
    pub(super) unknown: Option<u32>,
    pub(super) fingerprint: String,
    /// Names and contents, as read.
    pub(super) files: Vec<(String, Vec<u8>)>,
    pub(super) chat_template: Option<ChatTemplate>,
}

impl Loaded {
    /// The same with another chat template, in the file in which transformers looks for it first.
    pub(super) fn with_chat_template(&self, source: &str) -> Self {
        let mut files = self.files_to_save();
        files.retain(|(name, _)| name != CHAT_TEMPLATE);
        files.push((CHAT_TEMPLATE.to_owned(), source.as_bytes().to_vec()));
        let chat_template = chat_template(&files);
        let (tokenizer, path, fingerprint) =
            (self.tokenizer.clone(), self.path.clone(), self.fingerprint.clone());
        Self { tokenizer, path, fingerprint, ends: self.ends.clone(), files, chat_template, ..*self }
    }

    pub(super) fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = guarded(&self.path, || self.tokenizer.encode_fast(text, false))?;
        Ok(encoding.get_ids().to_vec())
    }

    pub(super) fn decode(&self, ids: &[u32]) -> Result<String> {
        guarded(&self.path, || self.tokenizer.decode(ids, true))
    }

    pub(super) fn lost_bytes(&self, text: &str, ids: &[u32]) -> Result<u64> {
        let known: Vec<u32> = ids.iter().copied().filter(|&id| Some(id) != self.unknown).collect();
        // A text may itself name special tokens, which then stand for it.
        let given_back = guarded(&self.path, || self.tokenizer.decode(&known, false))?;
        Ok(missing_bytes(text, &given_back))
    }

    pub(super) fn special_name(&self, id: u32) -> Option<String> {
        let name = self.tokenizer.id_to_token(id)?;
        self.tokenizer.get_added_vocabulary().is_special_token(&name).then_some(name)
    }

    pub(super) fn token_bytes(&self, id: u32) -> usize {
        if Some(id) == self.unknown {
            return 0;
        }
        // A token that is decoded alone may lose its space or be half a character.
        let Some(name) = self.tokenizer.id_to_token(id) else { return 0 };
        if self.tokenizer.get_added_vocabulary().is_special_token(&name) {
            return 0;
        }
        if self.byte_level {
            // Each character stands for a byte, but for added tokens, which stand for themselves.
            let added = self.tokenizer.get_added_vocabulary().get_vocab().contains_key(&name);
            return if added { name.len() } else { name.chars().count() };
        }
        let is_byte = name.len() == 6 && name.starts_with("<0x") && name.ends_with('>');
        if is_byte { 1 } else { name.replace('\u{2581}', " ").len() }
    }

    /// The files as read, and where `tokenizer_config.json` is missing a small one, without which
    /// `transformers` does not know which class to load.
    pub(super) fn files_to_save(&self) -> Vec<(String, Vec<u8>)> {
        let mut files = self.files.clone();
        if !files.iter().any(|(name, _)| name == "tokenizer_config.json") {
            let token = |id: Option<u32>| id.and_then(|id| self.tokenizer.id_to_token(id));
            let config = json!({
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": token(self.begin),
                "eos_token": token(self.ends.first().copied()),
                "clean_up_tokenization_spaces": false
            });
            files.push(("tokenizer_config.json".to_owned(), pretty(&config)));
        }
        files
    }
}

/// Bytes of the characters of `text` that `other` has not, or has fewer times.
fn missing_bytes(text: &str, other: &str) -> u64 {
    if text == other {
        return 0;
    }
    let mut counts: HashMap<char, i64> = HashMap::new();
    text.chars().for_each(|character| *counts.entry(character).or_default() += 1);
    for character in other.chars() {
        if let Some(count) = counts.get_mut(&character) {
            *count -= 1;
        }
    }
    let missing = counts.into_iter().filter(|(_, count)| *count > 0);
    missing.map(|(character, count)| character.len_utf8() as u64 * count as u64).sum()
}
