//! Side rows that are worked on together, and which of them are scored for which keys.

use std::ops::Range;

use super::super::{QUERIES_PER_BLOCK, SideRow};
use crate::matmul::{View, ViewMut, Write};
use crate::vector::lanes::LANES;

/// Keys for which the same rows of a block are scored, at least. Whole vectors, so that what is worked on around a row's keys
/// was scored for it.
const KEYS_PER_PART: usize = 4 * LANES;

/// Side rows that are worked on together.
pub(super) struct Block {
    /// Among the side rows of the row of the batch.
    pub(super) rows: Range<usize>,
    /// Those that at least one of the rows sees, within the row of the batch.
    keys: Range<usize>,
    /// What each of them sees, as columns of the block.
    pub(super) seen: Vec<Range<usize>>,
    /// Together they hold whatever a row sees. Rows that stand far apart would be scored for many keys in vain if all were scored
    /// for the keys of all.
    pub(super) parts: Vec<Part>,
}

/// Neighbouring keys, and the rows that stand between the first and the last that see any of them.
pub(super) struct Part {
    pub(super) rows: Range<usize>,
    pub(super) keys: Range<usize>,
}

impl Block {
    fn of(all: &[SideRow], rows: Range<usize>) -> Self {
        let sighted = || all[rows.clone()].iter().filter(|row| row.first < row.end);
        let first = sighted().map(|row| row.first as usize).min().unwrap_or(0);
        let end = sighted().map(|row| row.end as usize).max().unwrap_or(0);
        let columns = |row: &SideRow| match row.first < row.end {
            true => row.first as usize - first..row.end as usize - first,
            false => 0..0,
        };
        let seen: Vec<_> = all[rows.clone()].iter().map(columns).collect();
        let parts = parts(&seen, end - first)
            .map(|part| Part { rows: shifted(part.rows, rows.start), keys: shifted(part.keys, first) })
            .collect();
        Self { rows, keys: first..end, seen, parts }
    }

    /// Sums over the parts: `add` puts what a part says into its rows of `out`, or adds it to what others said.
    pub(super) fn sum_parts(&self, out: &mut ViewMut, mut add: impl FnMut(&Part, ViewMut, Write)) {
        // What the first part says need not be added to zero if it says something of every row.
        let mut write = match self.parts.first() {
            Some(first) if first.rows == self.rows => Write::Overwrite,
            _ => Write::Add,
        };
        if write == Write::Add {
            out.row_range(self.rows.clone()).fill(0.0);
        }
        for part in &self.parts {
            add(part, out.row_range(part.rows.clone()), write);
            write = Write::Add;
        }
    }

    /// Elements between rows of scores: whole vectors.
    pub(super) fn stride(&self) -> usize {
        self.keys.len().next_multiple_of(LANES).max(LANES)
    }

    /// The scores of a part among those of the block, `[rows, stride]`.
    pub(super) fn part<'a>(&self, part: &Part, scores: &'a [f32]) -> View<'a> {
        View::strided(&scores[self.corner(part)..], part.rows.len(), part.keys.len(), self.stride())
    }

    /// The same, to write.
    pub(super) fn part_mut<'a>(&self, part: &Part, scores: &'a mut [f32]) -> ViewMut<'a> {
        let corner = self.corner(part);
        ViewMut::strided(&mut scores[corner..], part.rows.len(), part.keys.len(), self.stride())
    }

    fn corner(&self, part: &Part) -> usize {
        (part.rows.start - self.rows.start) * self.stride() + part.keys.start - self.keys.start
    }
}

/// The blocks of the side rows of one row of the batch.
pub(super) fn blocks(rows: &[SideRow]) -> impl Iterator<Item = Block> + '_ {
    (0..rows.len())
        .step_by(QUERIES_PER_BLOCK)
        .map(|start| Block::of(rows, start..(start + QUERIES_PER_BLOCK).min(rows.len())))
}

/// Parts of `columns` columns, in rows and columns of the block, of which row `i` sees `seen[i]`. Neighbours with the same rows
/// are one.
fn parts(seen: &[Range<usize>], columns: usize) -> impl Iterator<Item = Part> {
    let mut parts: Vec<Part> = Vec::new();
    for start in (0..columns).step_by(KEYS_PER_PART) {
        let keys = start..(start + KEYS_PER_PART).min(columns);
        let sees = |seen: &Range<usize>| seen.start < keys.end && keys.start < seen.end;
        let (Some(first), Some(last)) = (seen.iter().position(sees), seen.iter().rposition(sees)) else {
            continue;
        };
        let rows = first..last + 1;
        match parts.last_mut() {
            Some(before) if before.rows == rows && before.keys.end == keys.start => {
                before.keys.end = keys.end
            }
            _ => parts.push(Part { rows, keys }),
        }
    }
    parts.into_iter()
}

fn shifted(range: Range<usize>, by: usize) -> Range<usize> {
    range.start + by..range.end + by
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(rows: &[(u32, u32)]) -> Vec<SideRow> {
        rows.iter().map(|&(first, end)| SideRow { row: 0, first, end }).collect()
    }

    fn parts_of(rows: &[(u32, u32)]) -> Vec<(Range<usize>, Range<usize>)> {
        let blocks = blocks(&side(rows)).collect::<Vec<_>>();
        blocks.into_iter().flat_map(|block| block.parts).map(|part| (part.rows, part.keys)).collect()
    }

    #[test]
    fn rows_are_scored_for_the_keys_near_those_that_they_see() {
        assert_eq!(parts_of(&[(0, 1), (0, 2), (0, 64)]), [(0..3, 0..64)], "one part where all see the same");
        assert_eq!(
            parts_of(&[(0, 10), (0, 70), (0, 130)]),
            [(0..3, 0..64), (1..3, 64..128), (2..3, 128..130)],
            "later keys for later rows"
        );
        assert_eq!(parts_of(&[(0, 500), (0, 501)]), [(0..2, 0..501)], "keys that all see are one part");
        assert_eq!(
            parts_of(&[(10, 20), (300, 310), (320, 330)]),
            [(0..1, 10..74), (1..3, 266..330)],
            "documents, and nothing between them"
        );
        assert_eq!(parts_of(&[(3, 3), (8, 2)]), [], "rows that see themselves alone");
        assert_eq!(parts_of(&[(0, 5), (9, 9), (0, 7)]), [(0..3, 0..7)], "one of them between others");
    }

    #[test]
    fn blocks_hold_every_row_once() {
        let rows: Vec<_> = (0..150).map(|end| (0, end)).collect();
        let blocks: Vec<_> = blocks(&side(&rows)).map(|block| (block.rows, block.keys)).collect();
        assert_eq!(blocks, [(0..64, 0..63), (64..128, 0..127), (128..150, 0..149)]);
    }
}
