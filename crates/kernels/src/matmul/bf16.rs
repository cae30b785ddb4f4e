//! Products in bf16 with sums in f32, for machines with AVX-512 BF16 (`vdpbf16ps`).
//!
//! Both factors are rounded to bf16 and packed as a whole before the product begins: pairs of neighbouring terms in one word,
//! in the order in which the tiles read them. A factor that is used in several products is packed once ([`super::Factor`]).
//! The terms of an element are added in blocks of [`DEPTH`], from the first on, whatever the threads do.

mod pack;
mod tile;

use std::ops::Range;

use rayon::prelude::*;

pub(super) use pack::{Panels, packed_words};

use super::{ViewMut, Write};
use crate::cpu::{Isa, isa};
use tile::{COLUMNS, ROWS};

/// Whether this machine has the instructions, and `SAKIYOMI_ISA` does not forbid them.
pub(super) fn available() -> bool {
    isa() == Isa::Avx512 && is_x86_feature_detected!("avx512bf16")
}

/// Rows that stand together in a panel of the left factor: one cache line of pairs.
pub(super) const LEFT_PANEL: usize = 16;

/// Columns that stand together in a panel of the right factor.
pub(super) const RIGHT_PANEL: usize = COLUMNS;

/// Pairs of terms after which a tile's sums go to memory: a panel of the right factor stays in the first-level cache.
const DEPTH: usize = 128;

/// Rows and columns of the result that one task computes, at most.
const TASK_ROWS: usize = 128;
const TASK_COLUMNS: usize = 10 * COLUMNS;

/// `c (+)= left right`.
pub(super) fn multiply(left: &Panels, right: &Panels, mut c: ViewMut, write: Write) {
    let (rows, columns) = (c.rows(), c.columns());
    let sides = left.width() == LEFT_PANEL && right.width() == RIGHT_PANEL;
    assert!(sides, "a factor that was made ready for the other side of a product");
    assert!(left.lanes() == rows && right.lanes() == columns && left.terms() == right.terms());
    if rows == 0 || columns == 0 {
        return;
    }
    if left.terms() == 0 {
        if write == Write::Overwrite {
            c.fill(0.0);
        }
        return;
    }
    let (task_rows, task_columns) = task_shape(rows, columns, rayon::current_num_threads());
    let wide = columns.div_ceil(task_columns);
    let result = Destination { first: c.as_mut_ptr(), stride: c.stride(), write };
    let tasks = rows.div_ceil(task_rows) * wide;
    (0..tasks).into_par_iter().for_each(|task| {
        let (row, column) = (task / wide * task_rows, task % wide * task_columns);
        let rows = row..(row + task_rows).min(rows);
        let columns = column..(column + task_columns).min(columns);
        result.compute(left, right, rows, columns);
    });
}

/// Rows and columns of a task, such that `threads` threads end together: as large as tasks may be, or up to half of that.
fn task_shape(rows: usize, columns: usize, threads: usize) -> (usize, usize) {
    let wide = columns.div_ceil(TASK_COLUMNS);
    let task_columns = columns.div_ceil(wide).next_multiple_of(COLUMNS);
    let tasks = |task_rows: usize| rows.div_ceil(task_rows) * wide;
    // Small results are cut finer, so that every thread has some of it.
    let mut most = TASK_ROWS;
    while most > 2 * LEFT_PANEL && tasks(most) < 4 * threads {
        most /= 2;
    }
    let rows_of_a_thread = |task_rows: &usize| tasks(*task_rows).div_ceil(threads) * task_rows;
    let task_rows = (most / 2..=most).rev().step_by(ROWS).min_by_key(rows_of_a_thread).unwrap_or(most);
    (task_rows, task_columns)
}

/// Where the product goes. Tasks write to disjoint rectangles of it.
struct Destination {
    first: *mut f32,
    stride: usize,
    write: Write,
}

// SAFETY: the pointer is an exclusive borrow of the result for the time of the product, and no two tasks share an element.
#[allow(unsafe_code)]
unsafe impl Sync for Destination {}

impl Destination {
    /// One rectangle, whose corner is at a tile's corner.
    #[allow(unsafe_code)]
    fn compute(&self, left: &Panels, right: &Panels, rows: Range<usize>, columns: Range<usize>) {
        let pairs = left.terms().div_ceil(2);
        for depth in (0..pairs).step_by(DEPTH) {
            let terms = depth..(depth + DEPTH).min(pairs);
            let add = depth > 0 || self.write == Write::Add;
            for column in columns.clone().step_by(COLUMNS) {
                let b = right.words(column, terms.clone());
                for row in rows.clone().step_by(ROWS) {
                    let a = left.words(row, terms.clone());
                    let (rows, columns) = ((rows.end - row).min(ROWS), (columns.end - column).min(COLUMNS));
                    // SAFETY: panels are packed only where the instructions are available; `words` gives whole panels from
                    // the tile's first lane on; the tile's rows and columns lie within the result.
                    unsafe {
                        let to = self.first.add(row * self.stride + column);
                        tile::multiply(terms.len(), a, b, to, self.stride, rows, columns, add);
                    }
                }
            }
        }
    }
}
