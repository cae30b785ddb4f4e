//! Weights rounded to the values that a narrow format has. It happens once, when they are packed.

use super::formats::{Int4, Int8};
use super::narrow::Format;
use crate::cpu::multiversion;

multiversion! {
    /// Writes the weights of one output as pairs of bf16.
    pub(super) fn write_bf16(weights: &[f32], words: &mut [u32]) = write_bf16_of;
    /// Writes the weights of one output as bytes, and the scales of their blocks.
    pub(super) fn write_int8(weights: &[f32], words: &mut [u32], scales: &mut [u16]) = write_int8_of;
    /// Writes the weights of one output as nibbles, and the scales of their blocks.
    pub(super) fn write_int4(weights: &[f32], words: &mut [u32], scales: &mut [u16]) = write_int4_of;
}

#[inline(always)]
fn write_bf16_of(weights: &[f32], words: &mut [u32]) {
    for (word, [first, second]) in words.iter_mut().zip(weights.as_chunks::<2>().0) {
        *word = u32::from(rounded(*first)) | u32::from(rounded(*second)) << 16;
    }
}

#[inline(always)]
fn write_int8_of(weights: &[f32], words: &mut [u32], scales: &mut [u16]) {
    let blocks = weights.as_chunks::<{ Int8::BLOCK }>().0;
    let words = words.chunks_exact_mut(Int8::BLOCK / Int8::INPUTS_PER_WORD);
    for ((weights, words), scale) in blocks.iter().zip(words).zip(scales) {
        *scale = upper_half_at_least(largest_magnitude(weights) / 127.0);
        let inverse = inverse_of(*scale);
        for (word, weights) in words.iter_mut().zip(weights.as_chunks::<4>().0) {
            let byte = |weight: f32| (step(weight * inverse, -127.0, 127.0) + Int8::RAISED) as u8;
            *word = u32::from_le_bytes(weights.map(byte));
        }
    }
}

#[inline(always)]
fn write_int4_of(weights: &[f32], words: &mut [u32], scales: &mut [u16]) {
    let blocks = weights.as_chunks::<{ Int4::BLOCK }>().0;
    let words = words.chunks_exact_mut(Int4::BLOCK / Int4::INPUTS_PER_WORD);
    for ((weights, words), scale) in blocks.iter().zip(words).zip(scales) {
        *scale = best_nibble_scale(weights);
        let inverse = inverse_of(*scale);
        for (word, weights) in words.iter_mut().zip(weights.as_chunks::<8>().0) {
            let nibbles = weights.map(|weight| (step(weight * inverse, -8.0, 7.0) + Int4::RAISED) as u8);
            *word = u32::from_le_bytes(std::array::from_fn(|i| nibbles[i] | nibbles[i + 4] << 4));
        }
    }
}

/// The bf16 nearest to a value, ties to even; NaN stays NaN.
#[inline(always)]
pub(crate) fn rounded(value: f32) -> u16 {
    let bits = value.to_bits();
    let nearest = (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16;
    // Rounding could carry a NaN over into another number.
    if value.is_nan() { (bits >> 16) as u16 | 0x40 } else { nearest }
}

/// The largest magnitude, which is not finite if any value is not.
#[inline(always)]
pub(super) fn largest_magnitude(values: &[f32]) -> f32 {
    // Magnitudes compare like their bits, and unlike those integers have a maximum that vectorises.
    f32::from_bits(values.iter().fold(0, |largest, x| (x.to_bits() & i32::MAX as u32).max(largest)))
}

/// The f32 with this upper half.
#[inline(always)]
pub(super) fn value_of(upper_half: u16) -> f32 {
    f32::from_bits(u32::from(upper_half) << 16)
}

/// Values in units of the scale that gives a block of nibbles the least squared error, tried in this order: the largest
/// weight is mapped to one of these. As it is, to -8, it would often waste steps on one value.
const LARGEST_IN_STEPS: [f32; 8] = [-8.0, -8.5, -7.5, -7.0, -9.0, 7.0, 7.5, 8.0];

/// The best scale among those of [`LARGEST_IN_STEPS`].
#[inline(always)]
fn best_nibble_scale(weights: &[f32; Int4::BLOCK]) -> u16 {
    let magnitude = largest_magnitude(weights);
    if !magnitude.is_finite() {
        return rounded(magnitude);
    }
    let largest =
        weights.iter().fold(0.0, |largest: f32, w| if w.abs() > largest.abs() { *w } else { largest });
    let (mut best, mut least) = (0, f32::INFINITY);
    for steps in LARGEST_IN_STEPS {
        let scale = rounded(largest / steps);
        let (value, inverse) = (value_of(scale), inverse_of(scale));
        let mut squares = [0.0; 8];
        for weights in weights.as_chunks::<8>().0 {
            for (square, weight) in squares.iter_mut().zip(weights) {
                let difference = weight - step(weight * inverse, -8.0, 7.0) as f32 * value;
                *square += difference * difference;
            }
        }
        let error = squares.iter().sum::<f32>();
        if error < least {
            (best, least) = (scale, error);
        }
    }
    best
}

/// 1.5 * 2^23: added to a small number it leaves the nearest integer, ties to even, in the lower bits.
pub(super) const TO_INTEGER: f32 = 12_582_912.0;

/// A value rounded to an integer within bounds.
#[inline(always)]
fn step(value: f32, lowest: f32, highest: f32) -> i32 {
    (value.clamp(lowest, highest) + TO_INTEGER).to_bits().wrapping_sub(TO_INTEGER.to_bits()) as i32
}

/// 0 for a scale so small that its inverse is no number: its block is 0 then.
#[inline(always)]
fn inverse_of(scale: u16) -> f32 {
    let inverse = 1.0 / value_of(scale);
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// The smallest bf16 that is at least as large as a value of 0 or more.
#[inline(always)]
fn upper_half_at_least(value: f32) -> u16 {
    let bits = value.to_bits();
    (bits >> 16) as u16 + u16::from(bits & 0xffff != 0 && value.is_finite())
}
