//! A vocabulary of the user's own: byte-level byte-pair encoding (Sennrich et al. 2016; Radford et al. 2019),
//! learnt by the `tokenizers` library.

use std::ops::RangeInclusive;

use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, TokenizerImpl,
};

use crate::documents::{Documents, pieces};
use crate::error::{Error, Result};
use crate::source::Source;

/// Text that is looked at, at most, where nothing else is asked: more hardly changes the pairs, and the
/// library keeps a count of every different word in memory.
pub const SAMPLE_BYTES: u64 = 100_000_000;

/// Ends every document.
const END: &str = "<|endoftext|>";

/// Ids that a vocabulary can have: at least one for every byte and one for the end of a document, and at most more than any
/// published vocabulary has.
pub const SIZES: RangeInclusive<usize> = 257..=1 << 20;

/// A pair that occurs once is no pattern.
const FEWEST_OCCURRENCES: u64 = 2;

/// Text that the library looks at in one piece: it needs many bytes for each.
const PIECE_BYTES: usize = 1 << 16;

/// Fewest bytes of text to look at: a sample has at least one piece.
pub const LEAST_SAMPLE_BYTES: u64 = PIECE_BYTES as u64;

/// A vocabulary that was learnt.
#[derive(Clone, Debug)]
pub struct TrainedTokenizer {
    /// The contents of `tokenizer.json`.
    pub json: String,
    /// Ids in it; fewer than asked for if the text has no more pairs that occur twice.
    pub size: usize,
    /// Text that was looked at.
    pub sample: SampleSize,
}

/// How much text was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SampleSize {
    /// Documents, or parts of long ones.
    pub documents: u64,
    /// Bytes of text.
    pub bytes: u64,
}

/// Learns `size` ids from at most `most_bytes` of a source, and tells `progress` how much has been read.
///
/// Where the files are larger than that, every second, third, ... document is looked at, so that the sample
/// spans all of them (packed files count as large as they are packed). Equal text gives equal bytes.
///
/// # Errors
///
/// If a size is out of range or the source cannot be read.
pub fn train_tokenizer(
    source: &Source,
    size: usize,
    most_bytes: u64,
    progress: &mut (dyn FnMut(SampleSize) + Send),
) -> Result<TrainedTokenizer> {
    if !SIZES.contains(&size) {
        let (least, most) = SIZES.into_inner();
        return Err(Error::Setting(format!("a vocabulary of {size} ids: give {least} to {most}")));
    }
    if most_bytes < LEAST_SAMPLE_BYTES {
        return Err(Error::Setting(format!(
            "a sample of {most_bytes} bytes: give at least {LEAST_SAMPLE_BYTES}"
        )));
    }
    let mut trainer = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(size)
        .min_frequency(FEWEST_OCCURRENCES)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(vec![AddedToken::from(END, true)])
        .build();
    let mut tokenizer = TokenizerImpl::<
        BPE,
        NormalizerWrapper,
        PreTokenizerWrapper,
        PostProcessorWrapper,
        DecoderWrapper,
    >::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, false, true)));
    tokenizer.with_decoder(Some(ByteLevel::new(false, false, true)));
    let mut read = SampleSize::default();
    let mut failed = None;
    let sample = Sample::of(source, most_bytes, &mut read, &mut failed, progress)?;
    let trained = tokenizer.train(&mut trainer, sample).map(|_| ());
    if let Some(error) = failed {
        return Err(error);
    }
    let wrong =
        |error: tokenizers::Error| Error::Setting(format!("the vocabulary cannot be learnt: {error}"));
    trained.map_err(wrong)?;
    let size = tokenizer.get_vocab_size(true);
    Ok(TrainedTokenizer { json: tokenizer.to_string(true).map_err(wrong)?, size, sample: read })
}

/// The texts that are looked at. The library takes no errors from an iterator, so they are put aside.
struct Sample<'a> {
    documents: Documents,
    /// Every how many documents one is taken.
    every: u64,
    seen: u64,
    most_bytes: u64,
    /// Pieces of a document, the next one last.
    pieces: Vec<String>,
    read: &'a mut SampleSize,
    failed: &'a mut Option<Error>,
    progress: &'a mut (dyn FnMut(SampleSize) + Send),
}

impl<'a> Sample<'a> {
    fn of(
        source: &Source,
        most_bytes: u64,
        read: &'a mut SampleSize,
        failed: &'a mut Option<Error>,
        progress: &'a mut (dyn FnMut(SampleSize) + Send),
    ) -> Result<Self> {
        let mut source = source.clone();
        if source.longest_document_bytes == 0 {
            source.longest_document_bytes = PIECE_BYTES;
        }
        let documents = Documents::of(&source)?;
        let mut bytes = 0;
        for file in documents.files() {
            bytes += fs_err::metadata(&file.path)?.len();
        }
        let every = bytes.div_ceil(most_bytes.max(1)).max(1);
        Ok(Self { documents, every, seen: 0, most_bytes, pieces: Vec::new(), read, failed, progress })
    }
}

impl Iterator for Sample<'_> {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        while self.pieces.is_empty() {
            let document = match self.documents.next()? {
                Ok(document) => document,
                Err(error) => {
                    *self.failed = Some(error);
                    return None;
                }
            };
            self.seen += 1;
            if (self.seen - 1).is_multiple_of(self.every) {
                self.read.documents += 1;
                self.pieces = pieces(&document.text, PIECE_BYTES).map(str::to_owned).collect();
                self.pieces.reverse();
            }
        }
        let piece = self.pieces.pop()?;
        if self.read.bytes + piece.len() as u64 > self.most_bytes && self.read.bytes > 0 {
            return None;
        }
        self.read.bytes += piece.len() as u64;
        (self.progress)(*self.read);
        Some(piece)
    }
}
