//! Products in a chosen precision, whose factors are made ready once and used as often as wanted.

use gemm_common::Parallelism;

#[cfg(target_arch = "x86_64")]
use super::bf16;
use super::operand::Operand;
use super::{View, ViewMut, Write, check_shapes, gemm};

/// In what the factors of a product are multiplied. Sums are f32 in both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// As they are.
    #[default]
    F32,
    /// Rounded to bf16: 8 bits of precision instead of 24, and twice the speed where the machine has instructions for it.
    /// Elsewhere the rounded factors are multiplied as f32.
    Bf16,
}

/// Where a factor stands in a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Its rows are those of the result.
    Left,
    /// Its columns are those of the result.
    Right,
}

/// A factor that is ready for products.
#[derive(Clone, Copy, Debug)]
pub struct Factor<'a> {
    rows: usize,
    columns: usize,
    form: Form<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Form<'a> {
    Dense(Operand<'a>),
    #[cfg(target_arch = "x86_64")]
    Panels(bf16::Panels<'a>),
}

impl<'a> Factor<'a> {
    /// Values of the buffer that a factor of `rows` rows and `columns` columns needs.
    pub fn buffer_len(precision: Precision, side: Side, rows: usize, columns: usize) -> usize {
        match precision {
            Precision::F32 => 0,
            #[cfg(target_arch = "x86_64")]
            Precision::Bf16 if bf16::available() => match side {
                Side::Left => bf16::packed_words(rows, columns, bf16::LEFT_PANEL),
                Side::Right => bf16::packed_words(columns, rows, bf16::RIGHT_PANEL),
            },
            Precision::Bf16 => {
                let _ = side;
                rows * columns
            }
        }
    }

    /// `matrix` as a factor, made ready in `buffer`.
    ///
    /// # Panics
    /// When the buffer is shorter than [`Self::buffer_len`].
    pub fn plain(precision: Precision, side: Side, matrix: View<'a>, buffer: &'a mut [f32]) -> Self {
        Self::ready(precision, side, Operand::plain(matrix), buffer)
    }

    /// The transpose of `matrix` as a factor, made ready in `buffer`.
    ///
    /// # Panics
    /// When the buffer is shorter than [`Self::buffer_len`].
    pub fn transposed(precision: Precision, side: Side, matrix: View<'a>, buffer: &'a mut [f32]) -> Self {
        Self::ready(precision, side, Operand::transposed(matrix), buffer)
    }

    fn ready(precision: Precision, side: Side, operand: Operand<'a>, buffer: &'a mut [f32]) -> Self {
        let form = match precision {
            Precision::F32 => Form::Dense(operand),
            #[cfg(target_arch = "x86_64")]
            Precision::Bf16 if bf16::available() => {
                let (lanes, width) = match side {
                    Side::Left => (operand, bf16::LEFT_PANEL),
                    Side::Right => (operand.turned(), bf16::RIGHT_PANEL),
                };
                Form::Panels(bf16::Panels::pack(&lanes, width, bytemuck::cast_slice_mut(buffer)))
            }
            Precision::Bf16 => Form::Dense(operand.rounded(buffer)),
        };
        Self { rows: operand.rows, columns: operand.columns, form }
    }
}

/// `c (+)= left right`, on all of rayon's current threads.
///
/// # Panics
/// When the shapes disagree, or the factors were made ready for different precisions or the other side.
pub fn multiply(left: &Factor, right: &Factor, c: ViewMut, write: Write) {
    check_shapes((left.rows, left.columns), (right.rows, right.columns), &c);
    match (left.form, right.form) {
        (Form::Dense(left), Form::Dense(right)) => gemm(left, right, c, write, 1.0, Parallelism::Rayon(0)),
        #[cfg(target_arch = "x86_64")]
        (Form::Panels(left), Form::Panels(right)) => bf16::multiply(&left, &right, c, write),
        #[cfg(target_arch = "x86_64")]
        _ => panic!("factors of different precisions"),
    }
}

/// `value` rounded to bf16: the upper half of its bits, to the nearest, ties to even; what is no number stays none.
pub(super) fn bf16_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = match value.is_nan() {
        true => bits >> 16 | 0x40,
        false => (bits + 0x7fff + (bits >> 16 & 1)) >> 16,
    };
    rounded as u16
}

/// The value that [`bf16_bits`] stand for.
pub(super) fn of_bf16_bits(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}
