//! A factor of a product where it lies: a view, or its transpose.

use rayon::prelude::*;

use super::factor::{bf16_bits, of_bf16_bits};
use crate::view::View;

#[derive(Clone, Copy, Debug)]
pub(super) struct Operand<'a> {
    pub(super) view: View<'a>,
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Elements from one row, and from one column, of the factor to the next.
    pub(super) row_step: usize,
    pub(super) column_step: usize,
    transposed: bool,
}

impl<'a> Operand<'a> {
    pub(super) fn plain(view: View<'a>) -> Self {
        let (rows, columns, stride) = (view.rows(), view.columns(), view.stride());
        Self { view, rows, columns, row_step: stride, column_step: 1, transposed: false }
    }

    pub(super) fn transposed(view: View<'a>) -> Self {
        Self::plain(view).turned()
    }

    /// Rows for columns.
    pub(super) fn turned(self) -> Self {
        Self {
            view: self.view,
            rows: self.columns,
            columns: self.rows,
            row_step: self.column_step,
            column_step: self.row_step,
            transposed: !self.transposed,
        }
    }

    /// The element in `row` and `column`.
    pub(super) fn value(&self, row: usize, column: usize) -> f32 {
        match self.transposed {
            true => self.view.row(column)[row],
            false => self.view.row(row)[column],
        }
    }

    /// The same factor with every value rounded to bf16, in `buffer`.
    pub(super) fn rounded<'b>(&self, buffer: &'b mut [f32]) -> Operand<'b> {
        let (rows, columns) = (self.view.rows(), self.view.columns());
        let buffer = &mut buffer[..rows * columns];
        if !buffer.is_empty() {
            buffer.par_chunks_mut(columns).enumerate().for_each(|(row, rounded)| {
                let values = self.view.row(row);
                rounded.iter_mut().zip(values).for_each(|(to, &from)| *to = of_bf16_bits(bf16_bits(from)));
            });
        }
        let view = View::new(buffer, rows, columns);
        if self.transposed { Operand::transposed(view) } else { Operand::plain(view) }
    }
}
