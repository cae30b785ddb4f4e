//! PreparedRows made ready for a product with narrow weights: rounded to bf16, or to bytes with a scale for every block.
//!
//! Every block of every row is rounded by itself, so that a row does not depend on its neighbours.

use super::formats::{Int4, Int8};
use super::narrow::Format;
use super::rounding::{TO_INTEGER, largest_magnitude, rounded};
use crate::cpu::multiversion;

/// Buffers for the rows of a product; they grow to the largest product and are used again.
#[derive(Clone, Debug, Default)]
pub struct PreparedRows {
    /// `[rows][stride]`: bf16, or signed bytes.
    pub(super) bytes: Vec<u8>,
    /// Bytes of a row.
    pub(super) stride: usize,
    /// `[rows][blocks]`
    pub(super) scales: Vec<f32>,
    /// `[rows][blocks]`: what the integer sums of a block begin with, because its weights were raised.
    pub(super) corrections: Vec<i32>,
}

impl PreparedRows {
    /// Takes in `x`, `[rows, inputs]`, for weights of 16 bits.
    pub(super) fn take_bf16(&mut self, x: &[f32], rows: usize, inputs: usize) {
        self.stride = inputs.next_multiple_of(2) * 2;
        self.bytes.resize(rows * self.stride, 0);
        for row in 0..rows {
            let bytes = &mut self.bytes[row * self.stride..][..self.stride];
            round_row(&x[row * inputs..][..inputs], bytes);
            bytes[inputs * 2..].fill(0);
        }
    }

    /// Takes in `x`, `[rows, inputs]`, for weights of 8 bits.
    pub(super) fn take_int8(&mut self, x: &[f32], rows: usize, inputs: usize) {
        self.take_bytes(x, rows, inputs, Int8::BLOCK, quantise_row_for_int8);
    }

    /// Takes in `x`, `[rows, inputs]`, for weights of 4 bits.
    pub(super) fn take_int4(&mut self, x: &[f32], rows: usize, inputs: usize) {
        self.take_bytes(x, rows, inputs, Int4::BLOCK, quantise_row_for_int4);
    }

    fn take_bytes(&mut self, x: &[f32], rows: usize, inputs: usize, block: usize, quantise: Quantise) {
        let blocks = inputs.div_ceil(block);
        self.stride = blocks * block;
        self.bytes.resize(rows * self.stride, 0);
        self.scales.resize(rows * blocks, 0.0);
        self.corrections.resize(rows * blocks, 0);
        for row in 0..rows {
            quantise(
                &x[row * inputs..][..inputs],
                &mut self.bytes[row * self.stride..][..self.stride],
                &mut self.scales[row * blocks..][..blocks],
                &mut self.corrections[row * blocks..][..blocks],
            );
        }
    }
}

type Quantise = fn(&[f32], &mut [u8], &mut [f32], &mut [i32]);

multiversion! {
    /// Rounds a row to bf16.
    fn round_row(x: &[f32], bytes: &mut [u8]) = round_row_of;
    /// Writes a row as signed bytes, with a scale and a correction for every block.
    fn quantise_row_for_int8(x: &[f32], bytes: &mut [u8], scales: &mut [f32], corrections: &mut [i32])
        = quantise_row_of_int8;
    /// The same for the blocks of nibbles.
    fn quantise_row_for_int4(x: &[f32], bytes: &mut [u8], scales: &mut [f32], corrections: &mut [i32])
        = quantise_row_of_int4;
}

#[inline(always)]
fn round_row_of(x: &[f32], bytes: &mut [u8]) {
    for (x, bytes) in x.iter().zip(bytes.as_chunks_mut::<2>().0) {
        *bytes = rounded(*x).to_le_bytes();
    }
}

#[inline(always)]
fn quantise_row_of_int8(x: &[f32], bytes: &mut [u8], scales: &mut [f32], corrections: &mut [i32]) {
    quantise_row::<{ Int8::BLOCK }>(x, bytes, scales, corrections, Int8::RAISED);
}

#[inline(always)]
fn quantise_row_of_int4(x: &[f32], bytes: &mut [u8], scales: &mut [f32], corrections: &mut [i32]) {
    quantise_row::<{ Int4::BLOCK }>(x, bytes, scales, corrections, Int4::RAISED);
}

#[inline(always)]
fn quantise_row<const BLOCK: usize>(
    x: &[f32],
    bytes: &mut [u8],
    scales: &mut [f32],
    corrections: &mut [i32],
    raised: i32,
) {
    let (whole, rest) = x.as_chunks::<BLOCK>();
    let blocks = bytes.as_chunks_mut::<BLOCK>().0.iter_mut().zip(scales).zip(corrections);
    let mut last = [0.0; BLOCK];
    last[..rest.len()].copy_from_slice(rest);
    let inputs = whole.iter().chain((!rest.is_empty()).then_some(&last));
    for (((bytes, scale), correction), x) in blocks.zip(inputs) {
        let sum;
        (*scale, sum) = quantise_block(x, bytes);
        *correction = sum.wrapping_mul(-raised);
    }
}

/// Blocks whose largest magnitude is below this count as 0: the inverse of their scale might be infinite.
const SMALLEST: f32 = 1e-35;

/// Writes a block as signed bytes; gives their scale and their sum. A block that is not finite gets a scale that is not.
#[inline(always)]
fn quantise_block<const BLOCK: usize>(x: &[f32; BLOCK], bytes: &mut [u8; BLOCK]) -> (f32, i32) {
    let largest = largest_magnitude(x);
    if largest < SMALLEST {
        bytes.fill(0);
        return (0.0, 0);
    }
    let inverse = 127.0 / largest;
    let mut sum = 0_i32;
    for (byte, x) in bytes.iter_mut().zip(x) {
        let integer = (x * inverse + TO_INTEGER).to_bits().wrapping_sub(TO_INTEGER.to_bits()) as i32;
        *byte = integer as u8;
        sum = sum.wrapping_add(integer);
    }
    (largest / 127.0, sum)
}
