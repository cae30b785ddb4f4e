//! Rounding a factor to bf16, and the order in which the tiles read it.
//!
//! A *lane* is a row of the left factor or a column of the right one. A panel holds neighbouring lanes: for each pair of terms
//! one word per lane, the earlier term in its low half. Lanes and terms beyond the factor are zero.

use std::arch::x86_64::*;
use std::mem::transmute;
use std::ops::Range;

use rayon::prelude::*;

use super::super::factor::bf16_bits;
use super::super::operand::Operand;

/// Lanes that are packed at once: one register of words.
const GROUP: usize = 16;

/// Lanes of the largest strip.
const LARGEST_STRIP: usize = 64;

/// Pairs of terms that are fetched ahead where rows are far apart.
const PAIRS_AHEAD: usize = 4;

/// Words of a cache line, at which panels begin.
const LINE: usize = 16;

/// A packed factor.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Panels<'a> {
    words: &'a [u32],
    /// Lanes of a panel.
    width: usize,
    lanes: usize,
    terms: usize,
}

/// Words of a buffer in which `lanes` lanes of `terms` terms find room, in panels of `width`.
pub(in super::super) fn packed_words(lanes: usize, terms: usize, width: usize) -> usize {
    lanes.next_multiple_of(width) * terms.div_ceil(2) + LINE
}

impl<'a> Panels<'a> {
    /// Packs the rows of `factor` into `buffer`, in panels of `width`.
    ///
    /// # Panics
    /// When the buffer is shorter than [`packed_words`].
    pub(in super::super) fn pack(factor: &Operand, width: usize, buffer: &'a mut [u32]) -> Self {
        let (lanes, terms) = (factor.rows, factor.columns);
        let pairs = terms.div_ceil(2);
        let skipped = buffer.as_ptr().align_offset(LINE * size_of::<u32>());
        let words = &mut buffer[skipped..][..lanes.next_multiple_of(width) * pairs];
        if !words.is_empty() {
            let panel = width * pairs;
            // Strips of a panel, or of several narrow ones, so that what is read from a row of the memory is worth the way.
            let strip_panels = LARGEST_STRIP / width;
            words.par_chunks_mut(strip_panels * panel).enumerate().for_each(|(strip, words)| {
                let groups = words.len() / (GROUP * pairs);
                let group_step = if width == GROUP { panel } else { GROUP };
                let strip =
                    Strip { first_lane: strip * strip_panels * width, groups, group_step, step: width };
                strip.pack(factor, words);
            });
        }
        Self { words, width, lanes, terms }
    }

    /// Lanes of a panel.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Lanes, those that fill up the last panel not counted.
    pub(super) fn lanes(&self) -> usize {
        self.lanes
    }

    /// Terms of a lane.
    pub(super) fn terms(&self) -> usize {
        self.terms
    }

    /// Where the words of `lane` for some pairs of terms begin; the next pair's are a panel's width further on.
    pub(super) fn words(&self, lane: usize, pairs: Range<usize>) -> *const u32 {
        let (panel, within) = (lane / self.width, lane % self.width);
        let panel = panel * self.terms.div_ceil(2);
        let words = &self.words[(panel + pairs.start) * self.width..(panel + pairs.end) * self.width];
        words[within..].as_ptr()
    }
}

/// Groups of lanes that are packed together.
#[derive(Clone, Copy)]
struct Strip {
    first_lane: usize,
    groups: usize,
    /// Words from one group of lanes, and from one pair of terms, to the next.
    group_step: usize,
    step: usize,
}

impl Strip {
    fn pack(&self, factor: &Operand, words: &mut [u32]) {
        let pairs = factor.columns.div_ceil(2);
        let done = self.pack_whole_registers(factor, words);
        for (group, pair) in (0..self.groups).flat_map(|group| (done..pairs).map(move |pair| (group, pair))) {
            let words = &mut words[group * self.group_step + pair * self.step..][..GROUP];
            for (index, word) in words.iter_mut().enumerate() {
                let lane = self.first_lane + group * GROUP + index;
                let bits = |term: usize| match lane < factor.rows && term < factor.columns {
                    true => u32::from(bf16_bits(factor.value(lane, term))),
                    false => 0,
                };
                *word = bits(2 * pair) | bits(2 * pair + 1) << 16;
            }
        }
    }

    /// Packs as many pairs as fill whole registers, and tells how many these are.
    #[allow(unsafe_code)]
    fn pack_whole_registers(&self, factor: &Operand, words: &mut [u32]) -> usize {
        let neighbouring_terms = factor.column_step == 1;
        let pairs = match neighbouring_terms {
            true => factor.columns / (2 * GROUP) * GROUP,
            false => factor.columns / 2,
        };
        if pairs == 0 || self.groups == 0 || self.first_lane >= factor.rows {
            return 0;
        }
        let last = (self.groups - 1) * self.group_step + (pairs - 1) * self.step;
        assert!(words.len() >= last + GROUP, "a strip reaches beyond its panels");
        let words = words.as_mut_ptr();
        // SAFETY: panels are packed only where the instructions are available. Lanes and terms lie within the factor, whose view
        // checked that its rows lie within a slice; the words were checked above.
        unsafe {
            let first = factor.view.as_ptr().add(self.first_lane * factor.row_step);
            let lanes = factor.rows - self.first_lane;
            match neighbouring_terms {
                true => self.pack_transposed(first, factor.row_step, lanes, pairs, words),
                false => self.pack_in_order(first, factor.column_step, lanes, pairs, words),
            }
        }
        pairs
    }

    /// Lanes whose terms are neighbours in memory: rows that begin `row_step` apart, of which there are `lanes`, if not more than
    /// the strip has; `pairs` is a multiple of 16.
    ///
    /// # Safety
    ///
    /// The machine has the instructions; the rows can be read and the words be written.
    #[allow(unsafe_code)]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn pack_transposed(
        &self,
        first: *const f32,
        row_step: usize,
        lanes: usize,
        pairs: usize,
        words: *mut u32,
    ) {
        for group in 0..self.groups {
            let lanes = lanes.saturating_sub(group * GROUP).min(GROUP);
            let first = first.wrapping_add(group * GROUP * row_step);
            for pair in (0..pairs).step_by(GROUP) {
                let mut rows = [_mm512_setzero_si512(); GROUP];
                for (lane, row) in rows.iter_mut().enumerate().take(lanes) {
                    // SAFETY: the caller's promise.
                    unsafe {
                        let from = first.add(lane * row_step + 2 * pair);
                        let (low, high) = (_mm512_loadu_ps(from), _mm512_loadu_ps(from.add(GROUP)));
                        *row = transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
                    }
                }
                for (index, column) in transpose(rows).into_iter().enumerate() {
                    let to = group * self.group_step + (pair + index) * self.step;
                    // SAFETY: the caller's promise.
                    unsafe { _mm512_storeu_si512(words.add(to).cast(), column) };
                }
            }
        }
    }

    /// Lanes that are neighbours in memory themselves, `lanes` of them if not more than the strip has: the next term of all
    /// stands `term_step` further on.
    ///
    /// # Safety
    ///
    /// The machine has the instructions; the terms can be read and the words be written.
    #[allow(unsafe_code)]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn pack_in_order(
        &self,
        first: *const f32,
        term_step: usize,
        lanes: usize,
        pairs: usize,
        words: *mut u32,
    ) {
        // Halves 0, 16, 1, 17, ...: a lane's earlier term stands in the lower half of the register, its later one in the upper.
        let mut order = [0_u16; 2 * GROUP];
        order.iter_mut().enumerate().for_each(|(i, from)| *from = (i / 2 + i % 2 * GROUP) as u16);
        // SAFETY: the caller's promise; the order is a local. What is fetched ahead may be any address.
        unsafe {
            let order = _mm512_loadu_si512(order.as_ptr().cast());
            for pair in 0..pairs {
                for group in 0..self.groups {
                    let lanes = lanes.saturating_sub(group * GROUP).min(GROUP);
                    let mask = ((1_u32 << lanes) - 1) as u16;
                    let from = first.wrapping_add(2 * pair * term_step + group * GROUP);
                    let next = from.wrapping_add(term_step);
                    // Rows may be pages apart, where the processor does not look ahead by itself.
                    let ahead = 2 * PAIRS_AHEAD * term_step;
                    _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(ahead).cast());
                    _mm_prefetch::<_MM_HINT_T0>(next.wrapping_add(ahead).cast());
                    let (even, odd) = (_mm512_maskz_loadu_ps(mask, from), _mm512_maskz_loadu_ps(mask, next));
                    let both = transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(odd, even));
                    let to = group * self.group_step + pair * self.step;
                    _mm512_storeu_si512(words.add(to).cast(), _mm512_permutexvar_epi16(order, both));
                }
            }
        }
    }
}

/// 16 x 16 words, rows to columns.
#[target_feature(enable = "avx512f")]
fn transpose(rows: [__m512i; GROUP]) -> [__m512i; GROUP] {
    let (mut a, mut b) = (rows, [_mm512_setzero_si512(); GROUP]);
    for i in 0..8 {
        b[2 * i] = _mm512_unpacklo_epi32(a[2 * i], a[2 * i + 1]);
        b[2 * i + 1] = _mm512_unpackhi_epi32(a[2 * i], a[2 * i + 1]);
    }
    for i in 0..4 {
        a[4 * i] = _mm512_unpacklo_epi64(b[4 * i], b[4 * i + 2]);
        a[4 * i + 1] = _mm512_unpackhi_epi64(b[4 * i], b[4 * i + 2]);
        a[4 * i + 2] = _mm512_unpacklo_epi64(b[4 * i + 1], b[4 * i + 3]);
        a[4 * i + 3] = _mm512_unpackhi_epi64(b[4 * i + 1], b[4 * i + 3]);
    }
    // Now quarter q of a[4 i + j] holds the words of column 4 q + j in rows 4 i to 4 i + 3.
    for j in 0..4 {
        b[j] = _mm512_shuffle_i32x4::<0x88>(a[j], a[4 + j]);
        b[j + 4] = _mm512_shuffle_i32x4::<0xdd>(a[j], a[4 + j]);
        b[j + 8] = _mm512_shuffle_i32x4::<0x88>(a[8 + j], a[12 + j]);
        b[j + 12] = _mm512_shuffle_i32x4::<0xdd>(a[8 + j], a[12 + j]);
    }
    for j in 0..4 {
        a[j] = _mm512_shuffle_i32x4::<0x88>(b[j], b[j + 8]);
        a[j + 8] = _mm512_shuffle_i32x4::<0xdd>(b[j], b[j + 8]);
        a[j + 4] = _mm512_shuffle_i32x4::<0x88>(b[j + 4], b[j + 12]);
        a[j + 12] = _mm512_shuffle_i32x4::<0xdd>(b[j + 4], b[j + 12]);
    }
    a
}
