//! What a training step sees: rows of tokens, which document each belongs to, and which may be targets.
//!
//! Nothing crosses a document: a position attends from `first_visible` on, and its target at depth k is token
//! t + k of the same row only if both are of the same segment.

use crate::examples::GIVEN;

/// Marks a position without a target in [`Batch::targets`].
pub const NO_TARGET: u32 = u32::MAX;

/// Segment number of padding.
pub const PADDING: u32 = u32::MAX;

/// `batch` rows of `length` inputs, with `lookahead` more tokens per row that serve as targets only.
///
/// A *segment* is the part of one document that lies in one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Rows.
    pub batch: usize,
    /// Inputs per row.
    pub length: usize,
    /// Tokens per row after the inputs: the deepest depth that has targets at every position.
    pub lookahead: usize,
    /// `[batch, length + lookahead]`; 0 where padded.
    pub tokens: Vec<u32>,
    /// `[batch, length + lookahead]`: number of the segment within its row, from 0; [`PADDING`] where padded.
    pub segments: Vec<u32>,
    /// `[batch, length]`: position within the segment, from 0; 0 where padded.
    pub positions: Vec<u32>,
    /// `[batch, length]`: index within the row of the segment's first token, the first that this position may
    /// attend to. Padding sees only itself, so that no row of attention is empty.
    pub first_visible: Vec<u32>,
    /// `[batch, length + lookahead]`: may this token be a target?
    pub loss_mask: Vec<bool>,
    /// `[batch]`: a number for each row, that of no other row of the run. What an objective draws for a row is drawn by it,
    /// so that it is the same again after a resume, and however rows are put into batches.
    pub draws: Vec<u64>,
}

impl Batch {
    /// One whole document in one row, not packed: as many inputs as tokens, and `lookahead` padding after
    /// them.
    pub fn single(tokens: &[u32], lookahead: usize) -> Self {
        let mut batch = Self::padded(1, tokens.len(), lookahead);
        batch.place(0, 0, tokens, 0);
        batch
    }

    /// Padding only, to be filled with [`Batch::place`].
    pub(crate) fn padded(batch: usize, length: usize, lookahead: usize) -> Self {
        let stride = length + lookahead;
        Self {
            batch,
            length,
            lookahead,
            tokens: vec![0; batch * stride],
            segments: vec![PADDING; batch * stride],
            positions: vec![0; batch * length],
            first_visible: (0..batch).flat_map(|_| 0..length as u32).collect(),
            loss_mask: vec![false; batch * stride],
            draws: vec![0; batch],
        }
    }

    /// Puts part of a document at index `start` of `row` as segment number `segment`; tokens may be marked as not learnt.
    pub(crate) fn place(&mut self, row: usize, start: usize, tokens: &[u32], segment: u32) {
        let stride = self.stride();
        assert!(start + tokens.len() <= stride, "a segment must fit into its row");
        let at = row * stride + start;
        for (index, &token) in tokens.iter().enumerate() {
            self.tokens[at + index] = token & !GIVEN;
            self.loss_mask[at + index] = token & GIVEN == 0;
        }
        self.segments[at..at + tokens.len()].fill(segment);
        for index in start..(start + tokens.len()).min(self.length) {
            self.positions[row * self.length + index] = (index - start) as u32;
            self.first_visible[row * self.length + index] = start as u32;
        }
    }

    /// Tokens per row: `length + lookahead`.
    pub fn stride(&self) -> usize {
        self.length + self.lookahead
    }

    /// One row, as a batch.
    #[must_use]
    pub fn row(&self, row: usize) -> Self {
        let stride = self.stride();
        let (long, short) = (row * stride..(row + 1) * stride, row * self.length..(row + 1) * self.length);
        Self {
            batch: 1,
            length: self.length,
            lookahead: self.lookahead,
            tokens: self.tokens[long.clone()].to_vec(),
            segments: self.segments[long.clone()].to_vec(),
            positions: self.positions[short.clone()].to_vec(),
            first_visible: self.first_visible[short].to_vec(),
            loss_mask: self.loss_mask[long].to_vec(),
            draws: vec![self.draws[row]],
        }
    }

    /// `[batch, length]`: the tokens that are inputs.
    pub fn inputs(&self) -> Vec<u32> {
        self.tokens.chunks_exact(self.stride().max(1)).flat_map(|row| &row[..self.length]).copied().collect()
    }

    /// `[batch, length]` into `out`: what depth `depth >= 1` is to predict, [`NO_TARGET`] where there is
    /// nothing.
    ///
    /// The target of position t is token t + depth of its row (Gloeckle et al. 2024, section 2: head i
    /// predicts x_{t+i}), if that token is of the same segment and its loss mask is set.
    ///
    /// # Panics
    ///
    /// If `depth` is 0 or greater than `lookahead`: such a target would silently be missing at the end of
    /// each row.
    pub fn targets(&self, depth: usize, out: &mut Vec<u32>) {
        out.clear();
        out.reserve(self.batch * self.length);
        for row in 0..self.batch {
            out.extend((0..self.length).map(|index| self.target(row, index, depth).unwrap_or(NO_TARGET)));
        }
    }

    /// How many targets [`Batch::targets`] finds at this depth: the divisor of a mean loss.
    ///
    /// # Panics
    ///
    /// As [`Batch::targets`].
    pub fn count_targets(&self, depth: usize) -> usize {
        (0..self.batch)
            .map(|row| (0..self.length).filter(|&index| self.target(row, index, depth).is_some()).count())
            .sum()
    }

    /// What the position at `index` of `row` is to predict at depth `depth`, if anything.
    ///
    /// # Panics
    ///
    /// As [`Batch::targets`].
    pub fn target(&self, row: usize, index: usize, depth: usize) -> Option<u32> {
        assert!(
            (1..=self.lookahead).contains(&depth),
            "depth {depth} asked of a batch with a lookahead of {}",
            self.lookahead
        );
        let from = row * self.stride() + index;
        let to = from + depth;
        let same = self.segments[from] != PADDING && self.segments[from] == self.segments[to];
        (same && self.loss_mask[to]).then(|| self.tokens[to])
    }

    /// `[length]`: how many of the tokens right after each position of `row` are targets, without a gap and within its segment;
    /// at most `lookahead`.
    pub fn targets_ahead(&self, row: usize) -> Vec<u32> {
        let at = row * self.stride();
        let mut ahead = vec![0; self.stride()];
        for index in (0..self.stride().saturating_sub(1)).rev() {
            let (here, next) = (at + index, at + index + 1);
            let same = self.segments[here] != PADDING && self.segments[here] == self.segments[next];
            if same && self.loss_mask[next] {
                ahead[index] = (ahead[index + 1] + 1).min(self.lookahead as u32);
            }
        }
        ahead.truncate(self.length);
        ahead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(batch: &Batch, depth: usize) -> Vec<u32> {
        let mut out = vec![9; 3];
        batch.targets(depth, &mut out);
        assert_eq!(out.iter().filter(|&&target| target != NO_TARGET).count(), batch.count_targets(depth));
        out
    }

    #[test]
    fn a_single_document_has_every_target_but_the_last_ones() {
        let batch = Batch::single(&[5, 6, 7], 2);
        assert_eq!(batch.inputs(), [5, 6, 7]);
        assert_eq!(batch.positions, [0, 1, 2]);
        assert_eq!(batch.first_visible, [0, 0, 0]);
        assert_eq!(targets(&batch, 1), [6, 7, NO_TARGET]);
        assert_eq!(targets(&batch, 2), [7, NO_TARGET, NO_TARGET]);
    }

    #[test]
    fn targets_stop_at_the_segment_and_at_the_mask() {
        let mut batch = Batch::padded(1, 4, 2);
        batch.place(0, 0, &[1, 2], 0);
        batch.place(0, 2, &[3, 4, 5], 1);
        assert_eq!(batch.inputs(), [1, 2, 3, 4]);
        assert_eq!(batch.positions, [0, 1, 0, 1]);
        assert_eq!(batch.first_visible, [0, 0, 2, 2]);
        assert_eq!(targets(&batch, 1), [2, NO_TARGET, 4, 5]);
        assert_eq!(targets(&batch, 2), [NO_TARGET, NO_TARGET, 5, NO_TARGET]);
        batch.loss_mask[4] = false;
        assert_eq!(targets(&batch, 1), [2, NO_TARGET, 4, NO_TARGET]);
    }

    #[test]
    fn targets_ahead_end_at_gaps_and_documents() {
        let mut batch = Batch::padded(1, 5, 3);
        batch.place(0, 0, &[1, 2, 3, 4], 0);
        batch.place(0, 4, &[5, 6, 7, 8], 1);
        assert_eq!(batch.targets_ahead(0), [3, 2, 1, 0, 3]);
        batch.loss_mask[2] = false;
        assert_eq!(batch.targets_ahead(0), [1, 0, 1, 0, 3]);
        assert_eq!(Batch::single(&[1, 2], 2).targets_ahead(0), [1, 0]);
    }

    #[test]
    fn padding_sees_itself_and_has_no_target() {
        let mut batch = Batch::padded(2, 3, 1);
        batch.place(0, 0, &[1, 2], 0);
        assert_eq!(batch.first_visible, [0, 0, 2, 0, 1, 2]);
        assert_eq!(targets(&batch, 1), [2, NO_TARGET, NO_TARGET, NO_TARGET, NO_TARGET, NO_TARGET]);
    }

    #[test]
    fn an_empty_document_is_an_empty_row() {
        let batch = Batch::single(&[], 0);
        assert!(batch.inputs().is_empty());
        assert_eq!(batch.stride(), 0);
    }

    #[test]
    #[should_panic(expected = "lookahead of 1")]
    fn a_depth_beyond_the_lookahead_is_refused() {
        Batch::single(&[1, 2], 1).count_targets(2);
    }
}
