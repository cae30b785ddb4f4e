//! Plain text: cut at separators, and where a document would be too long.

use super::Part;
use super::reader::{MOST_DOCUMENT_BYTES, TextReader};
use crate::error::{Error, Result};
use crate::examples::Learnt;
use crate::source::{Source, TextFile};

const LINE_ENDS: [char; 2] = ['\n', '\r'];

/// The documents of a `.txt` file; of the file, only what one document needs is held in memory.
pub(super) struct PlainText {
    reader: TextReader,
    separator: Option<String>,
    /// See [`Source::longest_document_bytes`].
    longest: usize,
    /// Text that has been read; before `start` it has been given out.
    text: String,
    start: usize,
    /// How much after `start` holds no separator.
    searched: usize,
    /// Whether `start` is where a separator ended, or the file begins.
    fresh: bool,
    /// Whether the reader has nothing more.
    all_read: bool,
    /// Whether all text has been given out.
    finished: bool,
    /// Documents given out; 0 stays where a file is one document.
    number: usize,
}

impl PlainText {
    pub(super) fn open(file: &TextFile, source: &Source) -> Result<Self> {
        Ok(Self {
            reader: TextReader::open(file)?,
            separator: source.separator.clone(),
            longest: source.longest_document_bytes,
            text: String::new(),
            start: 0,
            searched: 0,
            fresh: true,
            all_read: false,
            finished: false,
            number: 0,
        })
    }

    /// The next piece of text, blank or not.
    fn piece(&mut self) -> Result<Option<String>> {
        while !self.finished {
            let rest = &self.text[self.start..];
            let separator = self.separator.as_deref().unwrap_or_default();
            let found = match separator {
                "" => None,
                separator => rest[self.searched..].find(separator).map(|at| self.searched + at),
            };
            // Up to here the text is surely within this piece: behind it a separator may have begun.
            let known = match found {
                Some(at) => at,
                None if self.all_read => rest.len(),
                None => character_at((rest.len() + 1).saturating_sub(separator.len().max(1)), rest),
            };
            self.searched = known;
            let mut piece = &rest[..known];
            if self.separator.is_some() {
                // Line ends around a separator belong to it.
                piece = piece.trim_end_matches(LINE_ENDS);
                if self.fresh {
                    let trimmed = piece.trim_start_matches(LINE_ENDS);
                    let skipped = piece.len() - trimmed.len();
                    if !trimmed.is_empty() {
                        self.start += skipped;
                        self.searched = self.searched.saturating_sub(skipped);
                        self.fresh = false;
                        continue;
                    }
                    if found.is_none() {
                        // Line ends only: however many, they need no memory.
                        self.start += known;
                        self.searched = 0;
                    }
                }
            }
            if self.longest > 0 && piece.len() > self.longest {
                let cut = first_cut(piece, self.longest);
                let piece = piece[..cut].to_owned();
                self.start += cut;
                self.searched = self.searched.saturating_sub(cut);
                return Ok(Some(piece));
            }
            if found.is_some() || self.all_read {
                let piece = piece.to_owned();
                self.start += known + found.map_or(0, |_| separator.len());
                self.searched = 0;
                self.fresh = true;
                self.finished = found.is_none();
                return Ok(Some(piece));
            }
            if self.text.len() - self.start > MOST_DOCUMENT_BYTES.max(2 * self.longest) {
                let (path, line) = self.reader.place();
                return Err(Error::DocumentTooLong { path, line, most: MOST_DOCUMENT_BYTES });
            }
            self.text.drain(..self.start);
            self.start = 0;
            self.all_read = !self.reader.more(&mut self.text)?;
        }
        Ok(None)
    }

    fn read(&mut self) -> Result<Option<Part>> {
        while let Some(text) = self.piece()? {
            if text.trim().is_empty() {
                continue;
            }
            if self.separator.is_some() || self.longest > 0 {
                self.number += 1;
            }
            return Ok(Some(Part { place: self.number, text, learnt: Learnt::All }));
        }
        Ok(None)
    }
}

impl Iterator for PlainText {
    type Item = Result<Part>;

    fn next(&mut self) -> Option<Result<Part>> {
        self.read().transpose()
    }
}

/// Cuts a text into pieces of at most `longest` bytes, or one character, that together are the text.
pub(crate) fn pieces(mut text: &str, longest: usize) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let cut = if text.len() > longest { first_cut(text, longest) } else { text.len() };
        let (piece, rest) = text.split_at(cut);
        text = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Where to cut a text that is longer than `longest` bytes: behind the last blank line within them, else
/// behind a line end, else between two characters; never behind nothing.
fn first_cut(text: &str, longest: usize) -> usize {
    let limit = character_at(longest, text);
    let before = &text[..limit];
    let after = |mark: &str| before.rfind(mark).map(|at| at + mark.len());
    after("\n\n")
        .max(after("\n\r\n"))
        .or_else(|| after("\n"))
        .or_else(|| (limit > 0).then_some(limit))
        .unwrap_or_else(|| text.chars().next().map_or(0, char::len_utf8))
}

/// The greatest place up to `limit` that lies between two characters.
fn character_at(limit: usize, text: &str) -> usize {
    (0..=limit.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}
