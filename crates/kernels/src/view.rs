//! Matrices seen within a slice: rows with a distance between them, so that part of the columns can be a matrix too.
//!
//! A mutable view can be split by columns. That is how the heads of an attention layer, which lie side by side in every row,
//! are worked on by several threads without any of them seeing another's columns.

use std::marker::PhantomData;
use std::ops::Range;

/// A matrix to read, `[rows, columns]`, row after row, `stride` elements from one row to the next.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    stride: usize,
}

impl<'a> View<'a> {
    /// All of `data` as `[rows, columns]`.
    ///
    /// # Panics
    /// When `data` does not have `rows * columns` elements.
    pub fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        check_whole(data.len(), rows, columns);
        Self { data, rows, columns, stride: columns }
    }

    /// The first `columns` columns of rows that are `stride` wide; the last row may be cut off after them.
    ///
    /// # Panics
    /// When `data` is too short or the rows overlap.
    pub fn strided(data: &'a [f32], rows: usize, columns: usize, stride: usize) -> Self {
        check_strided(data.len(), rows, columns, stride);
        Self { data, rows, columns, stride }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Elements from one row to the next.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Row `row`, `columns` elements.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn row(&self, row: usize) -> &'a [f32] {
        assert!(row < self.rows, "row {row} of a matrix with {} rows", self.rows);
        &self.data[row * self.stride..][..self.columns]
    }

    /// The rows of `range` as a matrix.
    ///
    /// # Panics
    /// When the range reaches beyond the last row.
    pub fn row_range(&self, range: Range<usize>) -> Self {
        check_range(&range, self.rows, "rows");
        Self {
            data: &self.data[(range.start * self.stride).min(self.data.len())..],
            rows: range.len(),
            ..*self
        }
    }

    /// The columns of `range` as a matrix.
    ///
    /// # Panics
    /// When the range reaches beyond the last column.
    pub fn column_range(&self, range: Range<usize>) -> Self {
        check_range(&range, self.columns, "columns");
        Self { data: &self.data[range.start.min(self.data.len())..], columns: range.len(), ..*self }
    }

    pub(crate) fn as_ptr(&self) -> *const f32 {
        self.data.as_ptr()
    }
}

/// A matrix to write, laid out like [`View`].
///
/// It owns the right to touch its own columns only: views of other columns of the same rows may be in use elsewhere, which is
/// why it holds a pointer and no slice.
#[derive(Debug)]
pub struct ViewMut<'a> {
    first: *mut f32,
    rows: usize,
    columns: usize,
    stride: usize,
    borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: a `ViewMut` is an exclusive borrow of its elements, like `&mut [f32]`, which is `Send`.
#[allow(unsafe_code)]
unsafe impl Send for ViewMut<'_> {}
// SAFETY: a shared `ViewMut` only allows reading its elements, like a shared `&mut [f32]`, which is `Sync`.
#[allow(unsafe_code)]
unsafe impl Sync for ViewMut<'_> {}

impl<'a> ViewMut<'a> {
    /// All of `data` as `[rows, columns]`.
    ///
    /// # Panics
    /// When `data` does not have `rows * columns` elements.
    pub fn new(data: &'a mut [f32], rows: usize, columns: usize) -> Self {
        check_whole(data.len(), rows, columns);
        Self { first: data.as_mut_ptr(), rows, columns, stride: columns, borrow: PhantomData }
    }

    /// The first `columns` columns of rows that are `stride` wide; the last row may be cut off after them.
    ///
    /// # Panics
    /// When `data` is too short or the rows overlap.
    pub fn strided(data: &'a mut [f32], rows: usize, columns: usize, stride: usize) -> Self {
        check_strided(data.len(), rows, columns, stride);
        Self { first: data.as_mut_ptr(), rows, columns, stride, borrow: PhantomData }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Elements from one row to the next.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Row `row`, `columns` elements.
    ///
    /// # Panics
    /// When there is no such row.
    #[allow(unsafe_code)]
    pub fn row_mut(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows, "row {row} of a matrix with {} rows", self.rows);
        // SAFETY: the constructors checked that every row lies within the borrowed slice; these columns are ours alone,
        // and the result borrows `self` mutably.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(row * self.stride), self.columns) }
    }

    /// The rows of `range` as a matrix, for a shorter time.
    ///
    /// # Panics
    /// When the range reaches beyond the last row.
    #[allow(unsafe_code)]
    pub fn row_range(&mut self, range: Range<usize>) -> ViewMut<'_> {
        check_range(&range, self.rows, "rows");
        let first = match range.is_empty() {
            true => self.first,
            // SAFETY: the row exists, so its beginning lies within the borrowed slice.
            false => unsafe { self.first.add(range.start * self.stride) },
        };
        ViewMut { first, rows: range.len(), columns: self.columns, stride: self.stride, borrow: PhantomData }
    }

    /// The same matrix, for a shorter time.
    pub fn reborrow(&mut self) -> ViewMut<'_> {
        self.row_range(0..self.rows)
    }

    /// The columns before `column` and those from it on.
    ///
    /// # Panics
    /// When there are fewer columns.
    #[allow(unsafe_code)]
    pub fn split_columns(self, column: usize) -> (Self, Self) {
        assert!(column <= self.columns, "split at column {column} of a matrix with {} columns", self.columns);
        let right = match self.rows == 0 || column == self.columns {
            true => self.first,
            // SAFETY: the first row has more than `column` columns within the borrowed slice.
            false => unsafe { self.first.add(column) },
        };
        let part = |first, columns| Self {
            first,
            columns,
            rows: self.rows,
            stride: self.stride,
            borrow: PhantomData,
        };
        (part(self.first, column), part(right, self.columns - column))
    }

    /// All columns in blocks of `width`, from left to right.
    ///
    /// # Panics
    /// When `width` is zero or does not divide the number of columns.
    pub fn column_blocks(self, width: usize) -> Vec<Self> {
        let columns = self.columns;
        assert!(width > 0 && columns.is_multiple_of(width), "{columns} columns in blocks of {width}");
        let mut blocks = Vec::with_capacity(columns / width);
        let mut rest = self;
        while rest.columns > 0 {
            let (block, right) = rest.split_columns(width);
            blocks.push(block);
            rest = right;
        }
        blocks
    }

    /// Sets every element.
    pub fn fill(&mut self, value: f32) {
        for row in 0..self.rows {
            self.row_mut(row).fill(value);
        }
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut f32 {
        self.first
    }
}

fn check_whole(len: usize, rows: usize, columns: usize) {
    let wanted = rows.checked_mul(columns);
    assert!(wanted == Some(len), "a matrix of {rows} x {columns} in a slice of {len} elements");
}

fn check_strided(len: usize, rows: usize, columns: usize, stride: usize) {
    assert!(columns <= stride || rows <= 1, "rows of {columns} columns overlap at a stride of {stride}");
    let wanted = match rows {
        0 => Some(0),
        _ => (rows - 1).checked_mul(stride).and_then(|end| end.checked_add(columns)),
    };
    assert!(
        wanted.is_some_and(|wanted| wanted <= len),
        "a matrix of {rows} x {columns} at a stride of {stride} in a slice of {len} elements"
    );
}

fn check_range(range: &Range<usize>, limit: usize, what: &str) {
    assert!(
        range.start <= range.end && range.end <= limit,
        "{what} {range:?} of a matrix with {limit} {what}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strided_view_may_end_with_its_last_column() {
        let data: Vec<f32> = (0..10).map(|i| i as f32).collect();
        let view = View::strided(&data[1..9], 2, 3, 5);
        assert_eq!((view.row(0), view.row(1)), (&[1.0, 2.0, 3.0][..], &[6.0, 7.0, 8.0][..]));
        assert_eq!(view.column_range(1..3).row_range(1..2).row(0), &[7.0, 8.0]);
        assert_eq!(view.row_range(2..2).rows(), 0);
        assert_eq!(view.column_range(3..3).columns(), 0);
    }

    #[test]
    fn blocks_of_columns_are_disjoint_and_complete() {
        let mut data = vec![0.0; 3 * 7];
        let view = ViewMut::strided(&mut data, 3, 6, 7);
        for (index, mut block) in view.column_blocks(2).into_iter().enumerate() {
            assert_eq!((block.rows(), block.columns(), block.stride()), (3, 2, 7));
            block.fill(index as f32 + 1.0);
        }
        for row in data.chunks(7) {
            assert_eq!(row, &[1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 0.0]);
        }
    }

    #[test]
    fn rows_can_be_written_through_a_shorter_borrow() {
        let mut data = vec![0.0; 6];
        let mut view = ViewMut::new(&mut data, 3, 2);
        view.row_range(1..3).row_mut(1).fill(4.0);
        view.reborrow().row_mut(0)[1] = 5.0;
        assert_eq!(data, [0.0, 5.0, 0.0, 0.0, 4.0, 4.0]);
    }

    #[test]
    #[should_panic(expected = "a matrix of 2 x 3 in a slice of 5 elements")]
    fn a_slice_of_another_size_is_refused() {
        View::new(&[0.0; 5], 2, 3);
    }

    #[test]
    #[should_panic(expected = "a matrix of 2 x 3 at a stride of 4 in a slice of 6 elements")]
    fn a_slice_that_ends_early_is_refused() {
        ViewMut::strided(&mut [0.0; 6], 2, 3, 4);
    }

    #[test]
    #[should_panic(expected = "overlap")]
    fn overlapping_rows_are_refused() {
        ViewMut::strided(&mut [0.0; 9], 2, 3, 2);
    }
}
