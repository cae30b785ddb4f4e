//! Documents end to end, cut into windows.
//!
//! Windows are `length` tokens apart and `length + lookahead` long: the last tokens of one are the first of
//! the next, so that the inputs at a window's end have their targets at every depth. Each pair of an input
//! and its target at some depth thus lies in exactly one window. Rows are windows of the laid-out documents,
//! so hardly any is padding; the price is that a document cut by a window's edge goes on as a new segment,
//! without what came before.

use crate::batch::Batch;
use crate::corpus::Corpus;
use crate::error::{Error, Result};

/// A layout of some documents of a corpus in some order.
#[derive(Debug)]
pub(crate) struct Packing {
    /// Index of each document in the corpus; narrow, since there can be many millions.
    order: Vec<u32>,
    /// Where each document ends in the layout.
    ends: Vec<usize>,
    length: usize,
    lookahead: usize,
}

impl Packing {
    pub(crate) fn new(corpus: &Corpus, order: Vec<u32>, length: usize, lookahead: usize) -> Self {
        let ends = order
            .iter()
            .scan(0, |end, &document| {
                *end += corpus.length(document as usize);
                Some(*end)
            })
            .collect();
        Self { order, ends, length, lookahead }
    }

    /// Tokens in the layout.
    pub(crate) fn tokens(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    /// How many windows the layout has: one at least, and none that would hold the very last token alone,
    /// which has no target.
    pub(crate) fn windows(&self) -> usize {
        self.tokens().saturating_sub(1).div_ceil(self.length).max(1)
    }

    /// Writes a window into a row of a batch that is still padding there.
    pub(crate) fn fill(&self, corpus: &Corpus, window: usize, batch: &mut Batch, row: usize) -> Result<()> {
        let start = window * self.length;
        let stop = (start + self.length + self.lookahead).min(self.tokens());
        let mut at = start;
        let mut part = self.ends.partition_point(|&end| end <= start);
        let mut segment = 0;
        let mut tokens = Vec::new();
        while at < stop {
            let document = self.order[part] as usize;
            let document_start = self.ends[part] - corpus.length(document);
            let upto = self.ends[part].min(stop);
            if upto > at {
                tokens.clear();
                corpus.read(document, at - document_start..upto - document_start, &mut tokens)?;
                batch.place(row, at - start, &tokens, segment);
                segment += 1;
            }
            at = upto;
            part += 1;
        }
        Ok(())
    }
}

/// Indices that take half the room.
///
/// # Errors
///
/// If there are more than 32 bits can count.
pub(crate) fn narrow(indices: impl IntoIterator<Item = usize>) -> Result<Vec<u32>> {
    let narrow = |index: usize| {
        u32::try_from(index).map_err(|_| {
            Error::Setting(format!("more than {} documents or rows of text: give longer rows", u32::MAX))
        })
    };
    indices.into_iter().map(narrow).collect()
}
