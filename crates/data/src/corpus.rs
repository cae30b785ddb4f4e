//! All documents as tokens, end to end in one vector.

use rayon::prelude::*;

use crate::digest::Digest;
use crate::documents::Document;
use crate::error::Result;
use crate::vocabulary::Vocabulary;

/// Tokenised documents, and what a report needs to know of their text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Corpus {
    pub(crate) tokens: Vec<u32>,
    /// Index behind the last token of each document.
    pub(crate) ends: Vec<usize>,
    /// Bytes of UTF-8 text of each document: the divisor of bits per byte.
    pub(crate) text_bytes: Vec<u64>,
    pub(crate) names: Vec<String>,
}

impl Corpus {
    /// Tokenises documents, each with the vocabulary's begin and end tokens around it.
    ///
    /// # Errors
    ///
    /// If the tokenizer cannot encode a text.
    pub fn from_documents(documents: &[Document], vocabulary: &Vocabulary) -> Result<Self> {
        let encoded: Vec<Vec<u32>> =
            documents.par_iter().map(|document| vocabulary.encode(&document.text)).collect::<Result<_>>()?;
        let mut corpus = Self::default();
        let edges = usize::from(vocabulary.begin().is_some()) + usize::from(vocabulary.end().is_some());
        corpus.tokens.reserve_exact(encoded.iter().map(|tokens| tokens.len() + edges).sum());
        for (document, tokens) in documents.iter().zip(encoded) {
            corpus.tokens.extend(vocabulary.begin());
            corpus.tokens.extend(tokens);
            corpus.tokens.extend(vocabulary.end());
            corpus.finish_document(document.name.clone(), document.text.len() as u64);
        }
        Ok(corpus)
    }

    /// Documents that are tokens already (synthetic tasks); a token counts as one byte of text.
    pub fn from_tokens<T: AsRef<[u32]>>(documents: &[T]) -> Self {
        let mut corpus = Self::default();
        for (index, tokens) in documents.iter().enumerate() {
            corpus.tokens.extend_from_slice(tokens.as_ref());
            corpus.finish_document(format!("document {}", index + 1), tokens.as_ref().len() as u64);
        }
        corpus
    }

    fn finish_document(&mut self, name: String, text_bytes: u64) {
        self.ends.push(self.tokens.len());
        self.text_bytes.push(text_bytes);
        self.names.push(name);
    }

    /// How many documents there are.
    pub fn documents(&self) -> usize {
        self.ends.len()
    }

    /// The tokens of all documents, end to end.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The tokens of one document.
    pub fn document(&self, index: usize) -> &[u32] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.tokens[start..self.ends[index]]
    }

    /// Where one document is from.
    pub fn name(&self, index: usize) -> &str {
        &self.names[index]
    }

    /// A fingerprint of the text of some documents in this order: their tokens, where each ends, and their bytes.
    ///
    /// Equal on every platform, as 32 hexadecimal digits; it tells other text from the same, no more.
    pub fn fingerprint(&self, documents: &[usize]) -> String {
        let mut digest = Digest::new();
        for &document in documents {
            let tokens = self.document(document);
            digest.number(tokens.len() as u64).number(self.text_bytes(document));
            for token in tokens {
                digest.bytes(&token.to_le_bytes());
            }
        }
        digest.hex()
    }

    /// Bytes of text of one document, without the tokens around it.
    pub fn text_bytes(&self, index: usize) -> u64 {
        self.text_bytes[index]
    }
}
