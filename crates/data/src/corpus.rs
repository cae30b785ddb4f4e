//! All documents as tokens, end to end: in a file for texts, in memory for synthetic tasks.

use std::ops::Range;

use crate::digest::{Digest, of_tokens};
use crate::error::Result;
use crate::examples::GIVEN;
use crate::token_file::TokenFile;

/// Tokenised documents, and what a report needs to know of their text.
///
/// In memory are 32 bytes for each document; the tokens of texts stay in a file and are read where they are
/// needed.
#[derive(Debug)]
pub struct Corpus {
    pub(crate) tokens: Tokens,
    pub(crate) entries: Vec<Entry>,
    pub(crate) origins: Vec<Origin>,
    /// Whether the documents are prompts with answers: tokens that are not learnt are marked.
    pub(crate) answered: bool,
    /// Bytes of the text that its tokens do not give back.
    pub(crate) lost_bytes: u64,
}

#[derive(Debug)]
pub(crate) enum Tokens {
    Memory(Vec<u32>),
    File(TokenFile),
}

/// What is known of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Index behind its last token.
    pub(crate) end: u64,
    /// [`of_tokens`] of its tokens.
    pub(crate) digest: u64,
    /// Bytes of its UTF-8 text.
    pub(crate) text_bytes: u64,
    /// Index of its origin.
    pub(crate) origin: u32,
    /// Its number within the origin, from 1; 0 where it is the only one.
    pub(crate) place: u32,
}

/// Where documents are from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The file.
    pub(crate) name: String,
    /// What stands between its name and the number of a document.
    pub(crate) joint: String,
}

impl Corpus {
    /// Documents that are tokens already (synthetic tasks), kept in memory; a token counts as one byte of text.
    pub fn from_tokens<T: AsRef<[u32]>>(documents: &[T]) -> Self {
        let mut all = Vec::new();
        let mut entries = Vec::with_capacity(documents.len());
        for (index, tokens) in documents.iter().map(AsRef::as_ref).enumerate() {
            all.extend_from_slice(tokens);
            entries.push(Entry {
                end: all.len() as u64,
                digest: of_tokens(tokens),
                text_bytes: tokens.len() as u64,
                origin: 0,
                place: u32::try_from(index + 1).unwrap_or(u32::MAX),
            });
        }
        let origin = Origin { name: "document".to_owned(), joint: " ".to_owned() };
        Self { tokens: Tokens::Memory(all), entries, origins: vec![origin], answered: false, lost_bytes: 0 }
    }

    /// As [`Corpus::from_tokens`], of prompts and answers: `learnt` says of each token whether it is learnt.
    pub fn from_answers(documents: &[(Vec<u32>, Vec<bool>)]) -> Self {
        let mark = |(&token, &learnt): (&u32, &bool)| if learnt { token } else { token | GIVEN };
        let marked: Vec<Vec<u32>> =
            documents.iter().map(|(tokens, learnt)| tokens.iter().zip(learnt).map(mark).collect()).collect();
        Self { answered: true, ..Self::from_tokens(&marked) }
    }

    /// Whether the documents are prompts with answers, of which only the answers are learnt. They are packed whole.
    pub fn is_answered(&self) -> bool {
        self.answered
    }

    /// How many documents there are.
    pub fn documents(&self) -> usize {
        self.entries.len()
    }

    /// The tokens of all documents together.
    pub fn token_count(&self) -> usize {
        self.entries.last().map_or(0, |entry| entry.end as usize)
    }

    /// How many tokens a document has.
    pub fn length(&self, index: usize) -> usize {
        self.entries[index].end as usize - self.start(index)
    }

    /// The tokens of one document.
    ///
    /// # Errors
    ///
    /// If they cannot be read from their file.
    pub fn document(&self, index: usize) -> Result<Vec<u32>> {
        let mut tokens = Vec::with_capacity(self.length(index));
        self.read(index, 0..self.length(index), &mut tokens)?;
        Ok(tokens)
    }

    /// Appends some tokens of one document to `into`.
    ///
    /// # Errors
    ///
    /// If they cannot be read from their file.
    pub fn read(&self, index: usize, range: Range<usize>, into: &mut Vec<u32>) -> Result<()> {
        let from = into.len();
        self.read_marked(index, range, into)?;
        if self.answered {
            into[from..].iter_mut().for_each(|token| *token &= !GIVEN);
        }
        Ok(())
    }

    /// Tokens of the longest answer in `documents`; looks no further once there is one of `enough`.
    ///
    /// # Errors
    ///
    /// If they cannot be read from their file.
    pub fn longest_answer(&self, documents: &[usize], enough: usize) -> Result<usize> {
        let (mut longest, mut tokens) = (0, Vec::new());
        for &index in documents {
            if longest >= enough {
                break;
            }
            tokens.clear();
            self.read_marked(index, 0..self.length(index), &mut tokens)?;
            let learnt = tokens.split(|token| self.answered && token & GIVEN != 0);
            longest = learnt.map(<[u32]>::len).fold(longest, usize::max);
        }
        Ok(longest)
    }

    /// As [`Corpus::read`], with the marks of tokens that are not learnt.
    pub(crate) fn read_marked(&self, index: usize, range: Range<usize>, into: &mut Vec<u32>) -> Result<()> {
        assert!(range.end <= self.length(index), "tokens {range:?} of a document of {}", self.length(index));
        let start = self.start(index);
        match &self.tokens {
            Tokens::File(file) => file.read(start + range.start, range.len(), into),
            Tokens::Memory(tokens) => {
                into.extend_from_slice(&tokens[start + range.start..start + range.end]);
                Ok(())
            }
        }
    }

    fn start(&self, index: usize) -> usize {
        if index == 0 { 0 } else { self.entries[index - 1].end as usize }
    }

    /// Where one document is from.
    pub fn name(&self, index: usize) -> String {
        let Entry { origin, place, .. } = self.entries[index];
        let Origin { name, joint } = &self.origins[origin as usize];
        if place == 0 { name.clone() } else { format!("{name}{joint}{place}") }
    }

    /// A fingerprint of the text of some documents in this order: their tokens, where each ends, and their bytes.
    ///
    /// Equal on every platform, as 32 hexadecimal digits; it tells other text from the same, no more.
    pub fn fingerprint(&self, documents: &[usize]) -> String {
        let mut digest = Digest::new();
        for &document in documents {
            let entry = self.entries[document];
            digest.number(self.length(document) as u64).number(entry.text_bytes).number(entry.digest);
        }
        digest.hex()
    }

    /// Bytes of text of one document, without the tokens around it.
    pub fn text_bytes(&self, index: usize) -> u64 {
        self.entries[index].text_bytes
    }

    /// Bytes of all text of which there are tokens, and how many of them the tokens do not give back
    /// ([`crate::Vocabulary::lost_bytes`]).
    pub fn lost_bytes(&self) -> (u64, u64) {
        (self.entries.iter().map(|entry| entry.text_bytes).sum(), self.lost_bytes)
    }

    /// What the user should know where tokens do not give back all of the text: one line.
    pub fn loss_note(&self) -> Option<String> {
        let (all, lost) = self.lost_bytes();
        let share = 100.0 * lost as f64 / all.max(1) as f64;
        (lost > 0).then(|| {
            format!(
                "the tokenizer cannot spell {lost} of the {all} bytes of the text ({share:.2} %): no token gives them back, and \
                 bits per byte leave them out"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_answer_is_one_stretch() {
        let learnt = |marks: &str| -> Vec<bool> { marks.chars().map(|mark| mark == 'x').collect() };
        let document = |marks: &str| (vec![7; marks.len()], learnt(marks));
        let corpus = Corpus::from_answers(&[document("..xx.xxx"), document("....xxxxx."), document("...x")]);
        assert_eq!(corpus.longest_answer(&[0, 1, 2], 9).unwrap(), 5);
        assert_eq!(corpus.longest_answer(&[0, 2], 9).unwrap(), 3);
        assert_eq!(
            (corpus.longest_answer(&[0, 1], 3).unwrap(), corpus.longest_answer(&[], 3).unwrap()),
            (3, 0)
        );
    }
}
