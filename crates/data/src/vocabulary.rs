//! Text to token ids and back: the built-in bytes, or any `tokenizer.json`.

mod bytes;
mod files;
mod loaded;
mod stream;
mod training;

use std::path::Path;
use std::sync::Arc;

use crate::chat::ChatTemplate;
use crate::digest::Digest;
use crate::error::{Error, Result};
use loaded::Loaded;

pub use bytes::END_OF_DOCUMENT;
pub use stream::TextStream;
pub use training::{LEAST_SAMPLE_BYTES, SAMPLE_BYTES, SIZES, SampleSize, TrainedTokenizer, train_tokenizer};

/// What token ids mean.
///
/// Cheap to clone: a loaded tokenizer is shared.
#[derive(Clone)]
pub struct Vocabulary {
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Bytes,
    Loaded(Arc<Loaded>),
}

impl Vocabulary {
    /// Ids 0 to 255 are the bytes, 256 is `<|end|>`, which begins and ends every document.
    ///
    /// Text is always bytes here: the seven letters `<|end|>` inside a text do not become the special token.
    pub fn bytes() -> Self {
        Self { kind: Kind::Bytes }
    }

    /// Reads `tokenizer.json` from a checkpoint folder, or the file itself.
    ///
    /// `tokenizer_config.json`, `generation_config.json` and `config.json` beside it say which tokens begin
    /// and end a document. A `tokenizer.json` that is this crate's byte vocabulary takes the built-in path.
    ///
    /// # Errors
    ///
    /// If the file is missing or no tokenizer.
    pub fn load(folder_or_file: &Path) -> Result<Self> {
        files::load(folder_or_file).map(Self::of)
    }

    /// As [`Vocabulary::load`], from the bytes of a `tokenizer.json` that has no files beside it. Whatever they are, it
    /// never panics: this is where a fuzzer begins.
    ///
    /// # Errors
    ///
    /// If they are no tokenizer.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        files::parse_alone(bytes).map(Self::of)
    }

    fn of(loaded: Option<Loaded>) -> Self {
        Self { kind: loaded.map_or(Kind::Bytes, |loaded| Kind::Loaded(Arc::new(loaded))) }
    }

    /// Whether this is the built-in byte vocabulary.
    pub fn is_bytes(&self) -> bool {
        matches!(self.kind, Kind::Bytes)
    }

    /// The highest id + 1: rows that an embedding needs at least.
    pub fn size(&self) -> usize {
        match &self.kind {
            Kind::Bytes => bytes::SIZE,
            Kind::Loaded(loaded) => loaded.size,
        }
    }

    /// The ids of a text, without any token added at either end.
    ///
    /// # Errors
    ///
    /// If the tokenizer has no token for part of the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        match &self.kind {
            Kind::Bytes => Ok(bytes::encode(text.as_bytes())),
            Kind::Loaded(loaded) => loaded.encode(text),
        }
    }

    /// The ids of bytes that need not be UTF-8.
    ///
    /// # Errors
    ///
    /// If this is no byte vocabulary and the bytes are not UTF-8.
    pub fn encode_bytes(&self, text: &[u8]) -> Result<Vec<u32>> {
        match &self.kind {
            Kind::Bytes => Ok(bytes::encode(text)),
            Kind::Loaded(loaded) => match std::str::from_utf8(text) {
                Ok(text) => loaded.encode(text),
                Err(error) => Err(Error::Tokenizer {
                    path: loaded.path.clone(),
                    reason: format!("the text is not UTF-8 at byte {}", error.valid_up_to()),
                }),
            },
        }
    }

    /// The token before every document and every prompt, if the tokenizer puts one there.
    pub fn begin(&self) -> Option<u32> {
        match &self.kind {
            Kind::Bytes => Some(END_OF_DOCUMENT),
            Kind::Loaded(loaded) => loaded.begin,
        }
    }

    /// The token after every document.
    pub fn end(&self) -> Option<u32> {
        self.ends().first().copied()
    }

    /// The token that stands for whatever has none.
    pub fn unknown(&self) -> Option<u32> {
        match &self.kind {
            Kind::Bytes => None,
            Kind::Loaded(loaded) => loaded.unknown,
        }
    }

    /// All tokens at which generation stops: chat models name several. The first is [`Vocabulary::end`].
    pub fn ends(&self) -> &[u32] {
        match &self.kind {
            Kind::Bytes => &[END_OF_DOCUMENT],
            Kind::Loaded(loaded) => &loaded.ends,
        }
    }

    /// How a conversation becomes text, if the tokenizer says so.
    pub fn chat_template(&self) -> Option<&ChatTemplate> {
        match &self.kind {
            Kind::Bytes => None,
            Kind::Loaded(loaded) => loaded.chat_template.as_ref(),
        }
    }

    /// The same vocabulary with another chat template, which is saved with it.
    ///
    /// # Errors
    ///
    /// If this is the byte vocabulary, which has no tokens for turns, or `source` is no template.
    pub fn with_chat_template(&self, source: &str) -> Result<Self> {
        let refuse = |reason: &str| Err(Error::ChatTemplate { reason: reason.to_owned() });
        let Kind::Loaded(loaded) = &self.kind else {
            return refuse("the byte vocabulary has no tokens for turns; take a tokenizer");
        };
        let loaded = loaded.with_chat_template(source);
        match &loaded.chat_template {
            Some(template) => {
                drop(ChatTemplate::new(template.source.clone(), template.special_tokens.clone())?)
            }
            None => return refuse("it cannot be read"),
        }
        Ok(Self::of(Some(loaded)))
    }

    /// The name of a token that stands for no text, such as `<|end|>`; `None` for all others.
    pub fn special_name(&self, id: u32) -> Option<String> {
        match &self.kind {
            Kind::Bytes => (id == END_OF_DOCUMENT).then(|| bytes::END_TEXT.to_owned()),
            Kind::Loaded(loaded) => loaded.special_name(id),
        }
    }

    /// How many bytes of text a token stands for: none for special tokens and for ids beyond the vocabulary.
    ///
    /// Exact for bytes and for byte-level tokenizers; a tokenizer that writes spaces as a sign of its own counts
    /// one byte for each, also for the one that it adds before a text.
    pub fn token_bytes(&self, id: u32) -> usize {
        match &self.kind {
            Kind::Bytes => usize::from(id < END_OF_DOCUMENT),
            Kind::Loaded(loaded) => loaded.token_bytes(id),
        }
    }

    /// How many bytes of `text` its tokens do not give back: characters for which the tokenizer has none, or that it changes
    /// or drops before it looks for one. `ids` are those of [`Vocabulary::encode`]. Characters are counted, wherever they
    /// stand, so that a tokenizer that adds a space loses nothing by it.
    ///
    /// # Errors
    ///
    /// If the tokenizer's own decoder fails.
    pub fn lost_bytes(&self, text: &str, ids: &[u32]) -> Result<u64> {
        match &self.kind {
            Kind::Bytes => Ok(0),
            Kind::Loaded(loaded) => loaded.lost_bytes(text, ids),
        }
    }

    /// The text of ids, special tokens left out. Bytes that are no UTF-8 become U+FFFD; ids beyond the
    /// vocabulary (an embedding may have spare rows) stand for nothing.
    ///
    /// # Errors
    ///
    /// If the tokenizer's own decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        match &self.kind {
            Kind::Bytes => Ok(bytes::decode(ids)),
            Kind::Loaded(loaded) => loaded.decode(ids),
        }
    }

    /// A decoder that takes ids one by one and gives out whole characters.
    pub fn stream(&self) -> TextStream {
        match &self.kind {
            Kind::Bytes => TextStream::bytes(),
            Kind::Loaded(loaded) => TextStream::loaded(Arc::clone(loaded)),
        }
    }

    /// Writes `tokenizer.json` and `tokenizer_config.json` such that `transformers` loads them.
    ///
    /// A loaded tokenizer's files are written as they were read, byte for byte.
    ///
    /// # Errors
    ///
    /// If the folder cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        match &self.kind {
            Kind::Bytes => files::save(folder, &bytes::files()),
            Kind::Loaded(loaded) => files::save(folder, &loaded.files_to_save()),
        }
    }

    /// 32 hexadecimal digits that change when the ids of some text may change.
    pub fn fingerprint(&self) -> String {
        match &self.kind {
            Kind::Bytes => Digest::new().text("bytes").number(bytes::SIZE as u64).hex(),
            Kind::Loaded(loaded) => loaded.fingerprint.clone(),
        }
    }
}

impl std::fmt::Debug for Vocabulary {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = if self.is_bytes() { "Bytes" } else { "Loaded" };
        formatter.debug_struct(name).field("size", &self.size()).finish_non_exhaustive()
    }
}
