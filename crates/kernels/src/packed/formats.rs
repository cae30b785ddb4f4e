//! Weights as bf16, as bytes and as nibbles.

use super::narrow::{BlockPlace, Format, MAX_ROWS};
use super::narrow_simd::Narrow;
#[cfg(test)]
use super::rounding::value_of;
use super::rounding::{write_bf16, write_int4, write_int8};
use super::simd::LANES;

/// bf16: the upper half of an f32, rounded to even. Rows are rounded likewise.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bf16;

/// int8: -127 to 127 times a scale for each output and 64 inputs. Stored raised by 128, as the machine's instruction wants
/// one unsigned factor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Int8;

/// int4: -8 to 7 times a scale for each output and 32 inputs. Stored raised by 8; a word holds inputs 0 to 3 in the lower
/// nibbles of its bytes, and 4 to 7 in the upper ones.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Int4;

impl Int8 {
    pub(super) const RAISED: i32 = 128;
}

impl Int4 {
    pub(super) const RAISED: i32 = 8;
}

impl Format for Bf16 {
    const BLOCK: usize = 2;
    const INPUTS_PER_WORD: usize = 2;
    const INPUT_BYTES: usize = 2;
    const SCALED: bool = false;

    fn write(weights: &[f32], words: &mut [u32], _scales: &mut [u16]) {
        write_bf16(weights, words);
    }

    #[cfg(test)]
    fn read(words: &[u32], _scale: u16, weights: &mut [f32]) {
        weights[0] = f32::from_bits(words[0] << 16);
        weights[1] = f32::from_bits(words[0] & 0xffff_0000);
    }

    #[inline(always)]
    fn panels<N: Narrow>() -> [usize; MAX_ROWS] {
        N::PAIR_PANELS
    }

    #[allow(unsafe_code)]
    #[inline(always)]
    unsafe fn add_block<N: Narrow, const ROWS: usize, const PANELS: usize>(
        block: &BlockPlace,
        sums: &mut [[N; PANELS]; ROWS],
    ) {
        // SAFETY: the block has one word for each output; prefetching may leave the slice, hence `wrapping_add`.
        unsafe {
            let words: [N::Words; PANELS] = std::array::from_fn(|p| {
                let at = block.words.add(p * block.panel_words);
                N::prefetch_far(at.wrapping_add(block.ahead).cast());
                N::load_words(at)
            });
            for (r, sums) in sums.iter_mut().enumerate() {
                for (sum, words) in sums.iter_mut().zip(words) {
                    *sum = sum.add_pairs(words, block.x.add(r * block.x_stride));
                }
            }
        }
    }
}

impl Format for Int8 {
    const BLOCK: usize = 64;
    const INPUTS_PER_WORD: usize = 4;
    const INPUT_BYTES: usize = 1;
    const SCALED: bool = true;

    fn write(weights: &[f32], words: &mut [u32], scales: &mut [u16]) {
        write_int8(weights, words, scales);
    }

    #[cfg(test)]
    fn read(words: &[u32], scale: u16, weights: &mut [f32]) {
        for (word, weights) in words.iter().zip(weights.as_chunks_mut::<4>().0) {
            *weights =
                word.to_le_bytes().map(|byte| (i32::from(byte) - Self::RAISED) as f32 * value_of(scale));
        }
    }

    #[inline(always)]
    fn panels<N: Narrow>() -> [usize; MAX_ROWS] {
        N::BYTE_PANELS
    }

    #[allow(unsafe_code)]
    #[inline(always)]
    unsafe fn add_block<N: Narrow, const ROWS: usize, const PANELS: usize>(
        block: &BlockPlace,
        sums: &mut [[N; PANELS]; ROWS],
    ) {
        // SAFETY: the block has 16 words for each output, and 64 bytes of each row.
        unsafe {
            let mut integers = starts::<N, ROWS, PANELS>(block, !N::LOWERS_BYTES);
            for quad in 0..Self::BLOCK / 4 {
                let words: [N::Words; PANELS] = std::array::from_fn(|p| {
                    let at = block.words.add(p * block.panel_words + quad * LANES);
                    N::prefetch_far(at.wrapping_add(block.ahead).cast());
                    N::load_words(at)
                });
                for (r, integers) in integers.iter_mut().enumerate() {
                    for (sum, words) in integers.iter_mut().zip(words) {
                        *sum = N::add_bytes(*sum, words, block.x.add(r * block.x_stride + quad * 4));
                    }
                }
            }
            scale_and_add::<Self, N, ROWS, PANELS>(block, integers, sums);
        }
    }
}

impl Format for Int4 {
    const BLOCK: usize = 32;
    const INPUTS_PER_WORD: usize = 8;
    const INPUT_BYTES: usize = 1;
    const SCALED: bool = true;

    fn write(weights: &[f32], words: &mut [u32], scales: &mut [u16]) {
        write_int4(weights, words, scales);
    }

    #[cfg(test)]
    fn read(words: &[u32], scale: u16, weights: &mut [f32]) {
        for (word, weights) in words.iter().zip(weights.as_chunks_mut::<8>().0) {
            let bytes = word.to_le_bytes();
            for (i, byte) in bytes.into_iter().enumerate() {
                weights[i] = (i32::from(byte & 15) - Self::RAISED) as f32 * value_of(scale);
                weights[i + 4] = (i32::from(byte >> 4) - Self::RAISED) as f32 * value_of(scale);
            }
        }
    }

    #[inline(always)]
    fn panels<N: Narrow>() -> [usize; MAX_ROWS] {
        N::NIBBLE_PANELS
    }

    #[allow(unsafe_code)]
    #[inline(always)]
    unsafe fn add_block<N: Narrow, const ROWS: usize, const PANELS: usize>(
        block: &BlockPlace,
        sums: &mut [[N; PANELS]; ROWS],
    ) {
        // SAFETY: the block has 4 words for each output, and 32 bytes of each row.
        unsafe {
            let mut integers = starts::<N, ROWS, PANELS>(block, true);
            for word in 0..Self::BLOCK / 8 {
                let words: [[N::Words; 2]; PANELS] = std::array::from_fn(|p| {
                    let at = block.words.add(p * block.panel_words + word * LANES);
                    N::prefetch_far(at.wrapping_add(block.ahead).cast());
                    N::nibbles(N::load_words(at))
                });
                for (r, integers) in integers.iter_mut().enumerate() {
                    let x = block.x.add(r * block.x_stride + word * 8);
                    for (sum, [lower, upper]) in integers.iter_mut().zip(words) {
                        *sum = N::add_nibbles(*sum, lower, x);
                        *sum = N::add_nibbles(*sum, upper, x.add(4));
                    }
                }
            }
            scale_and_add::<Self, N, ROWS, PANELS>(block, integers, sums);
        }
    }
}

/// What the integer sums of a block begin with: the product of the row with what raised the weights, taken off.
///
/// # Safety
///
/// As [`Format::add_block`].
#[allow(unsafe_code)]
#[inline(always)]
unsafe fn starts<N: Narrow, const ROWS: usize, const PANELS: usize>(
    block: &BlockPlace,
    raised: bool,
) -> [[N::Integers; PANELS]; ROWS] {
    // SAFETY: every row has a correction for every block.
    std::array::from_fn(|r| unsafe {
        [N::integers(if raised { *block.correction.add(r * block.blocks) } else { 0 }); PANELS]
    })
}

/// Adds the sums of a block, times the scales of weights and row.
///
/// # Safety
///
/// As [`Format::add_block`].
#[allow(unsafe_code)]
#[inline(always)]
unsafe fn scale_and_add<F: Format, N: Narrow, const ROWS: usize, const PANELS: usize>(
    block: &BlockPlace,
    integers: [[N::Integers; PANELS]; ROWS],
    sums: &mut [[N; PANELS]; ROWS],
) {
    // SAFETY: every panel has 16 scales for every block, every row has one.
    unsafe {
        for p in 0..PANELS {
            let at = block.scales.add(p * block.blocks * LANES);
            N::prefetch_far(at.wrapping_add(block.ahead * F::INPUTS_PER_WORD / F::BLOCK).cast());
            let scale = N::widen(at);
            for r in 0..ROWS {
                let both = scale.multiply(N::splat(block.x_scale.add(r * block.blocks)));
                sums[r][p] = sums[r][p].multiply_add(N::to_f32(integers[r][p]), both);
            }
        }
    }
}
