//! The layout of a file of tokens. All numbers are little-endian.
//!
//! A head of 32 bytes (magic, digest of the sources' sizes and times, bytes per token), the tokens, 32 bytes for
//! each document, the names of the origins, and a tail of 56 bytes: the counts, and a digest of everything but the
//! tokens, which have one for each document.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Result, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;

use rayon::prelude::*;

use super::Reason;
use crate::corpus::{Corpus, Entry, Origin, Tokens};
use crate::digest::{Digest, of_tokens};
use crate::documents::Document;
use crate::source::TextFile;
use crate::token_file::{TokenFile, Width, write_tokens};

/// Changes when the layout does.
const MAGIC: &[u8; 8] = b"sakitok3";

const HEAD_BYTES: u64 = 32;
const ENTRY_BYTES: u64 = 32;
const TAIL_BYTES: u64 = 56;

/// Tokens that are checked at once.
const TOKENS_AT_ONCE: usize = 1 << 20;

/// Writes a file as documents come.
pub(super) struct Writer {
    writer: BufWriter<File>,
    width: Width,
    digest: Digest,
    entries: Vec<Entry>,
    origins: Vec<Origin>,
    tokens: u64,
    lost_bytes: u64,
}

impl Writer {
    /// Writes the head.
    pub(super) fn begin(file: File, sources: u128, vocabulary: usize, files: &[TextFile]) -> Result<Self> {
        let width = Width::for_vocabulary(vocabulary);
        let origins = files
            .iter()
            .map(|file| Origin {
                name: file.path.display().to_string(),
                joint: file.format.layout.joint().to_owned(),
            })
            .collect();
        let mut writer = Self {
            writer: BufWriter::with_capacity(1 << 18, file),
            width,
            digest: Digest::new(),
            entries: Vec::new(),
            origins,
            tokens: 0,
            lost_bytes: 0,
        };
        writer.put(MAGIC)?;
        writer.put(&sources.to_le_bytes())?;
        writer.put(&(width.bytes() as u64).to_le_bytes())?;
        Ok(writer)
    }

    /// Appends a document, `lost` bytes of whose text its tokens do not give back.
    pub(super) fn document(&mut self, document: &Document, tokens: &[u32], lost: u64) -> Result<()> {
        write_tokens(tokens, self.width, &mut self.writer)?;
        self.tokens += tokens.len() as u64;
        self.lost_bytes += lost;
        self.entries.push(Entry {
            end: self.tokens,
            digest: of_tokens(tokens),
            text_bytes: document.text.len() as u64,
            // Files are counted, and lines beyond the range would only be named wrongly.
            origin: u32::try_from(document.file).unwrap_or(u32::MAX),
            place: u32::try_from(document.place).unwrap_or(u32::MAX),
        });
        Ok(())
    }

    /// Writes what stands after the tokens. The corpus reads from the file; `path` serves messages.
    pub(super) fn finish(mut self, path: &Path) -> Result<Corpus> {
        let entries = std::mem::take(&mut self.entries);
        for entry in &entries {
            self.put(&entry.to_bytes())?;
        }
        let origins = std::mem::take(&mut self.origins);
        let mut names = 0u64;
        for text in origins.iter().flat_map(|origin| [&origin.name, &origin.joint]) {
            self.put(&(text.len() as u64).to_le_bytes())?;
            self.put(text.as_bytes())?;
            names += 8 + text.len() as u64;
        }
        for count in [self.tokens, entries.len() as u64, origins.len() as u64, names, self.lost_bytes] {
            self.put(&count.to_le_bytes())?;
        }
        let digest = self.digest.value();
        self.writer.write_all(&digest.to_le_bytes())?;
        let file = self.writer.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        let tokens = TokenFile::new(file, path, self.width, HEAD_BYTES);
        let lost_bytes = self.lost_bytes;
        Ok(Corpus { tokens: Tokens::File(tokens), entries, origins, answered: false, lost_bytes })
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.digest.bytes(bytes);
        self.writer.write_all(bytes)
    }
}

/// Reads what stands around the tokens, and checks all of it and the tokens too.
pub(super) fn read(file: File, path: &Path, sources: u128) -> std::result::Result<Corpus, Reason> {
    let mut head = [0; HEAD_BYTES as usize];
    let mut reader = BufReader::new(&file);
    reader.read_exact(&mut head).map_err(|_| Reason::Damaged)?;
    let [_, first, second, width] = numbers(&head);
    if !head.starts_with(MAGIC) {
        return Err(Reason::Damaged);
    }
    if u128::from(first) | u128::from(second) << 64 != sources {
        return Err(Reason::SourceChanged);
    }
    let width = Width::from_bytes(width).ok_or(Reason::Damaged)?;
    let around = Around::read(reader, &head, width).map_err(|_| Reason::Damaged)?;
    let Some(Found { entries, origins, lost_bytes }) = around else { return Err(Reason::Damaged) };
    let tokens = TokenFile::new(file, path, width, HEAD_BYTES);
    if !tokens_are_whole(&tokens, &entries) {
        return Err(Reason::Damaged);
    }
    Ok(Corpus { tokens: Tokens::File(tokens), entries, origins, answered: false, lost_bytes })
}

/// What stands around the tokens.
struct Found {
    entries: Vec<Entry>,
    origins: Vec<Origin>,
    lost_bytes: u64,
}

/// Reads behind the tokens, taking in all that the digest covers.
struct Around<R> {
    reader: R,
    digest: Digest,
}

impl<R: Read + Seek> Around<R> {
    /// `None` if the parts do not fit together.
    fn read(mut reader: R, head: &[u8], width: Width) -> Result<Option<Found>> {
        let length = reader.seek(SeekFrom::End(0))?;
        let Some(tail_at) = length.checked_sub(TAIL_BYTES) else { return Ok(None) };
        reader.seek(SeekFrom::Start(tail_at))?;
        let mut tail = [0; TAIL_BYTES as usize];
        reader.read_exact(&mut tail)?;
        let [tokens, documents, origins, names, lost_bytes, low, high] = numbers(&tail);
        let entries_at =
            tokens.checked_mul(width.bytes() as u64).and_then(|bytes| bytes.checked_add(HEAD_BYTES));
        let names_at = documents.checked_mul(ENTRY_BYTES).and_then(|bytes| bytes.checked_add(entries_at?));
        if names_at.and_then(|at| at.checked_add(names)) != Some(tail_at) || origins > names {
            return Ok(None);
        }
        reader.seek(SeekFrom::Start(entries_at.unwrap_or_default()))?;
        let mut digest = Digest::new();
        digest.bytes(head);
        let mut around = Self { reader, digest };
        let entries = around.entries(documents)?;
        let Some(origins) = around.origins(origins, names)? else { return Ok(None) };
        around.digest.bytes(&tail[..TAIL_BYTES as usize - 16]);
        let fits = around.digest.value() == (u128::from(low) | u128::from(high) << 64)
            && entries.is_sorted_by_key(|entry| entry.end)
            && entries.last().map_or(0, |entry| entry.end) == tokens
            && entries.iter().all(|entry| (entry.origin as usize) < origins.len());
        Ok(fits.then_some(Found { entries, origins, lost_bytes }))
    }

    fn entries(&mut self, count: u64) -> Result<Vec<Entry>> {
        // The length of the file has been compared with the count.
        let mut entries = Vec::with_capacity(count as usize);
        let mut bytes = [0; ENTRY_BYTES as usize];
        for _ in 0..count {
            self.take(&mut bytes)?;
            entries.push(Entry::from_bytes(&bytes));
        }
        Ok(entries)
    }

    fn origins(&mut self, count: u64, mut room: u64) -> Result<Option<Vec<Origin>>> {
        let mut origins = Vec::new();
        for _ in 0..count {
            let (Some(name), Some(joint)) = (self.text(&mut room)?, self.text(&mut room)?) else {
                return Ok(None);
            };
            origins.push(Origin { name, joint });
        }
        Ok((room == 0).then_some(origins))
    }

    fn text(&mut self, room: &mut u64) -> Result<Option<String>> {
        let mut length = [0; 8];
        self.take(&mut length)?;
        let length = u64::from_le_bytes(length);
        let Some(rest) = length.checked_add(8).and_then(|taken| room.checked_sub(taken)) else {
            return Ok(None);
        };
        *room = rest;
        let mut text = vec![0; length as usize];
        self.take(&mut text)?;
        Ok(String::from_utf8(text).ok())
    }

    fn take(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.reader.read_exact(bytes)?;
        self.digest.bytes(bytes);
        Ok(())
    }
}

/// Whether every document has the tokens that were written.
fn tokens_are_whole(tokens: &TokenFile, entries: &[Entry]) -> bool {
    let start = |document: usize| document.checked_sub(1).map_or(0, |before| entries[before].end as usize);
    let whole = |stretch: Range<usize>| {
        let from = start(stretch.start);
        let mut read = Vec::new();
        tokens.read(from, start(stretch.end) - from, &mut read).is_ok()
            && stretch.into_iter().all(|document| {
                let own = &read[start(document) - from..start(document + 1) - from];
                of_tokens(own) == entries[document].digest
            })
    };
    stretches(entries).into_par_iter().all(whole)
}

/// Documents in stretches of about [`TOKENS_AT_ONCE`], a longer one alone.
fn stretches(entries: &[Entry]) -> Vec<Range<usize>> {
    let mut stretches = Vec::new();
    let (mut first, mut from) = (0, 0);
    for (document, entry) in entries.iter().enumerate() {
        if entry.end - from >= TOKENS_AT_ONCE as u64 || document + 1 == entries.len() {
            stretches.push(first..document + 1);
            (first, from) = (document + 1, entry.end);
        }
    }
    stretches
}

impl Entry {
    fn to_bytes(self) -> [u8; ENTRY_BYTES as usize] {
        let place = u64::from(self.origin) | u64::from(self.place) << 32;
        let mut bytes = [0; ENTRY_BYTES as usize];
        for (eight, number) in bytes.chunks_exact_mut(8).zip([self.end, self.digest, self.text_bytes, place])
        {
            eight.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8; ENTRY_BYTES as usize]) -> Self {
        let [end, digest, text_bytes, place] = numbers(bytes);
        Self { end, digest, text_bytes, origin: place as u32, place: (place >> 32) as u32 }
    }
}

/// The numbers that stand in `8 N` bytes.
fn numbers<const N: usize>(bytes: &[u8]) -> [u64; N] {
    let (eights, _) = bytes.as_chunks::<8>();
    std::array::from_fn(|index| u64::from_le_bytes(eights[index]))
}
