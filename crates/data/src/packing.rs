//! Documents end to end, cut into windows.
//!
//! Windows are `length` tokens apart and `length + lookahead` long: the last tokens of one are the first of
//! the next, so that the inputs at a window's end have their targets at every depth. Each pair of an input
//! and its target at some depth thus lies in exactly one window. Rows are windows of the laid-out documents,
//! so hardly any is padding; the price is that a document cut by a window's edge goes on as a new segment,
//! without what came before.
//!
//! Prompts with answers are not cut: an answer without its question teaches nothing. Each row takes the next ones that fit, and
//! those that are longer than a row are left out.

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
    /// Where documents are packed whole: the first of each row, as an index in `order`.
    rows: Option<Vec<u32>>,
}

impl Packing {
    pub(crate) fn new(corpus: &Corpus, mut order: Vec<u32>, length: usize, lookahead: usize) -> Self {
        let rows = corpus.is_answered().then(|| {
            order.retain(|&document| corpus.length(document as usize) <= most_tokens(length));
            first_of_rows(corpus, &order, most_tokens(length))
        });
        let ends = order
            .iter()
            .scan(0, |end, &document| {
                *end += corpus.length(document as usize);
                Some(*end)
            })
            .collect();
        Self { order, ends, length, lookahead, rows }
    }

    /// Documents in the layout.
    pub(crate) fn documents(&self) -> usize {
        self.order.len()
    }

    /// Tokens in the layout.
    pub(crate) fn tokens(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    /// How many windows the layout has: one at least, and none that would hold the very last token alone,
    /// which has no target.
    pub(crate) fn windows(&self) -> usize {
        if let Some(rows) = &self.rows {
            return rows.len();
        }
        self.tokens().saturating_sub(1).div_ceil(self.length).max(1)
    }

    /// Writes a window into a row of a batch that is still padding there.
    pub(crate) fn fill(&self, corpus: &Corpus, window: usize, batch: &mut Batch, row: usize) -> Result<()> {
        let start_of = |document: usize| if document == 0 { 0 } else { self.ends[document - 1] };
        let (start, stop) = match &self.rows {
            Some(rows) => {
                let end = rows.get(window + 1).map_or(self.order.len(), |&next| next as usize);
                (start_of(rows[window] as usize), start_of(end))
            }
            None => {
                let start = window * self.length;
                (start, (start + self.length + self.lookahead).min(self.tokens()))
            }
        };
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
                corpus.read_marked(document, at - document_start..upto - document_start, &mut tokens)?;
                batch.place(row, at - start, &tokens, segment);
                segment += 1;
            }
            at = upto;
            part += 1;
        }
        Ok(())
    }
}

/// Tokens that a row holds where documents are packed whole: the last is only a target.
pub(crate) fn most_tokens(length: usize) -> usize {
    length + 1
}

/// Each row takes documents for as long as they fit.
fn first_of_rows(corpus: &Corpus, order: &[u32], most: usize) -> Vec<u32> {
    let mut rows = Vec::new();
    let mut room = 0;
    for (index, &document) in (0u32..).zip(order) {
        let tokens = corpus.length(document as usize);
        if rows.is_empty() || tokens > room {
            rows.push(index);
            room = most;
        }
        room -= tokens;
    }
    rows
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
