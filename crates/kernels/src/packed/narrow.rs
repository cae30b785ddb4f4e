//! Products of a few rows with panels of narrow weights: bf16, int8 or int4.
//!
//! A panel is sixteen outputs wide, as in [`tile`](super::tile). Its inputs come in *words* of 32 bits, two bf16, four bytes
//! or eight nibbles, `[words][16]`, and in blocks of a few words that share one scale per output. A tile keeps one f32 sum
//! per row and output in registers and walks the blocks once, in order; the integer sum within a block is exact. Each output
//! is therefore one chain over the blocks, and its bits do not depend on the shape of the tile.

use super::narrow_simd::{Narrow, with_narrow};
use super::simd::{LANES, Work};
use super::tile::{Outputs, Start, Sums, finish};
use crate::cpu::Isa;

/// How many words a thread looks ahead in all panels of a tile together.
const AHEAD: usize = 4096;

/// Most rows of a tile.
pub(super) const MAX_ROWS: usize = 8;

/// How weights are written as numbers, and how a block of them is multiplied.
pub(crate) trait Format: Copy + Send + Sync + 'static {
    /// Inputs that share a scale. Weights and rows are padded with zeros to whole blocks.
    const BLOCK: usize;
    /// Inputs in a word of 32 bits.
    const INPUTS_PER_WORD: usize;
    /// Bytes of one input of a row, as [`PreparedRows`](super::rows::PreparedRows) holds it.
    const INPUT_BYTES: usize;
    /// Whether blocks have scales.
    const SCALED: bool;

    /// Writes the weights from all inputs (padded to whole blocks) to one output as words, and their scales, one for each block,
    /// as the upper halves of f32.
    fn write(weights: &[f32], words: &mut [u32], scales: &mut [u16]);

    /// The weights that words and scale stand for.
    #[cfg(test)]
    fn read(words: &[u32], scale: u16, weights: &mut [f32]);

    /// Widths of tiles of 1 to 8 rows, see [`Simd::PANELS`](super::simd::Simd::PANELS).
    fn panels<N: Narrow>() -> [usize; MAX_ROWS];

    /// Adds what one block gives.
    ///
    /// # Safety
    ///
    /// The machine has what `N` needs; the block lies within the product.
    #[allow(unsafe_code)]
    unsafe fn add_block<N: Narrow, const ROWS: usize, const PANELS: usize>(
        block: &BlockPlace,
        sums: &mut [[N; PANELS]; ROWS],
    );
}

/// Where the parts of a block lie.
pub(crate) struct BlockPlace {
    /// First input of the first row; rows are `x_stride` bytes apart.
    pub x: *const u8,
    pub x_stride: usize,
    /// Scale of the first row in this block, and what its integer sums start from; rows are `blocks` apart.
    pub x_scale: *const f32,
    pub correction: *const i32,
    pub blocks: usize,
    /// First word of the first panel; panels are `panel_words` apart.
    pub words: *const u32,
    pub panel_words: usize,
    /// Scales of the first panel; panels are `16 * blocks` apart.
    pub scales: *const u16,
    /// How far ahead to ask for words.
    pub ahead: usize,
}

/// `rows` rows times `panels` panels.
#[derive(Clone, Copy)]
pub(super) struct NarrowProduct<'a> {
    /// `[rows][x_stride]` bytes.
    pub x: &'a [u8],
    pub x_stride: usize,
    /// `[rows][blocks]`, empty where the format has no scales.
    pub x_scales: &'a [f32],
    /// `[rows][blocks]`, empty where the format has no scales.
    pub corrections: &'a [i32],
    pub rows: usize,
    pub blocks: usize,
    /// `[panels][blocks * words per block][16]`
    pub words: &'a [u32],
    /// `[panels][blocks][16]`, empty where the format has none.
    pub scales: &'a [u16],
    pub panels: usize,
    /// Number of outputs that exist: at most `16 * panels`.
    pub outputs: usize,
    pub start: Start<'a>,
}

impl NarrowProduct<'_> {
    /// Writes row `r` of the product to `y + r * y_stride`.
    ///
    /// # Safety
    ///
    /// `isa` is available; `y` is valid for writes of `outputs` values in each of the rows (and for reads with
    /// [`Start::Existing`]), which nobody else touches meanwhile.
    #[allow(unsafe_code)]
    pub(super) unsafe fn write<F: Format>(self, isa: Isa, y: *mut f32, y_stride: usize) {
        if self.rows == 0 || self.panels == 0 {
            return;
        }
        let words = self.blocks * F::BLOCK / F::INPUTS_PER_WORD;
        assert!(self.x_stride >= self.blocks * F::BLOCK * F::INPUT_BYTES, "rows overlap");
        assert!(self.x.len() >= self.rows * self.x_stride, "too few inputs");
        assert!(self.words.len() >= self.panels * words * LANES, "too few weights");
        if F::SCALED {
            let scales = self.rows * self.blocks;
            assert!(self.x_scales.len() >= scales && self.corrections.len() >= scales, "too few row scales");
            assert!(self.scales.len() >= self.panels * self.blocks * LANES, "too few scales");
        }
        assert!(self.outputs <= self.panels * LANES, "more outputs than panels hold");
        if let Start::Bias(bias) = self.start {
            assert!(bias.len() >= self.outputs, "too few biases");
        }
        let format = std::marker::PhantomData::<F>;
        // SAFETY: the slices are as long as the loops go, as just checked; the rest is the caller's promise.
        unsafe { with_narrow(isa, F::SCALED, Write { product: self, y, y_stride, format }) }
    }
}

/// [`NarrowProduct::write`] as work for one instruction set.
struct Write<'a, F> {
    product: NarrowProduct<'a>,
    y: *mut f32,
    y_stride: usize,
    format: std::marker::PhantomData<F>,
}

#[allow(unsafe_code)]
impl<F: Format> Work for Write<'_, F> {
    type Output = ();

    /// Panels outside, rows inside: a group of panels is read from memory once and stays in the cache for all rows.
    #[inline(always)]
    unsafe fn run<N: Narrow>(self) {
        let Self { product, y, y_stride, .. } = self;
        let panels_of = F::panels::<N>();
        let most_rows = panels_of.iter().take_while(|panels| **panels > 0).count();
        let row_tiles = product.rows.div_ceil(most_rows);
        let outputs = Outputs { outputs: product.outputs, start: product.start, y, y_stride };
        let mut sums = Sums::new();
        let mut panel = 0;
        while panel < product.panels {
            // Even shares: 9 rows are 5 and 4, not 8 and 1.
            let wide = panels_of[product.rows.div_ceil(row_tiles) - 1];
            let panels = wide.min(product.panels - panel);
            for tile in 0..row_tiles {
                let row = product.rows * tile / row_tiles;
                let rows = product.rows * (tile + 1) / row_tiles - row;
                // SAFETY: row and panel lie within the product, whose slices were checked.
                unsafe {
                    tile_of::<F, N>(&product, row, rows, panel, panels, &mut sums);
                    finish::<N>(&outputs, &sums, row, rows, panel, panels);
                }
            }
            panel += panels;
        }
    }
}

/// Picks the tile with as many rows and panels as constants, so that its sums are registers.
///
/// # Safety
///
/// As [`tile`].
#[allow(unsafe_code)]
#[inline(always)]
unsafe fn tile_of<F: Format, N: Narrow>(
    product: &NarrowProduct<'_>,
    row: usize,
    rows: usize,
    panel: usize,
    panels: usize,
    sums: &mut Sums,
) {
    macro_rules! pick {
        ($(($rows:literal, $panels:literal))*) => {
            match (rows, panels) {
                // The guard is known when compiling: what a set has no registers for is not compiled for it.
                // SAFETY: the caller's promise.
                $(($rows, $panels) if $panels <= F::panels::<N>()[$rows - 1] => unsafe {
                    tile::<F, N, $rows, $panels>(product, row, panel, sums)
                },)*
                _ => unreachable!("no tile of {rows} rows and {panels} panels"),
            }
        };
    }
    pick!((1, 1)(1, 2)(1, 3)(1, 4)(2, 1)(2, 2)(2, 3)(2, 4)(3, 1)(3, 2)(3, 3)(3, 4)(4, 1)(4, 2)(4, 3)(4, 4)(
        5, 1
    )(5, 2)(5, 3)(5, 4)(6, 1)(6, 2)(6, 3)(6, 4)(7, 1)(7, 2)(7, 3)(8, 1)(8, 2)(8, 3));
}

/// `sums[r][p] = Σ x[r][k] * weights[p][k]`, blocks in order.
///
/// # Safety
///
/// The machine has what `N` needs; the rows and panels exist.
#[allow(unsafe_code)]
#[inline(always)]
unsafe fn tile<F: Format, N: Narrow, const ROWS: usize, const PANELS: usize>(
    product: &NarrowProduct<'_>,
    row: usize,
    panel: usize,
    sums: &mut Sums,
) {
    let blocks = product.blocks;
    let block_words = F::BLOCK / F::INPUTS_PER_WORD * LANES;
    let panel_words = blocks * block_words;
    let ahead = AHEAD / PANELS;
    // SAFETY: all places lie within the slices that were checked; prefetching may leave them, hence `wrapping_add` there.
    unsafe {
        let mut sum = [[N::zero(); PANELS]; ROWS];
        for block in 0..blocks {
            let row_scale = if F::SCALED { row * blocks + block } else { 0 };
            let scale = if F::SCALED { (panel * blocks + block) * LANES } else { 0 };
            let place = BlockPlace {
                x: product.x.as_ptr().add(row * product.x_stride + block * F::BLOCK * F::INPUT_BYTES),
                x_stride: product.x_stride,
                x_scale: product.x_scales.as_ptr().add(row_scale),
                correction: product.corrections.as_ptr().add(row_scale),
                blocks,
                words: product.words.as_ptr().add(panel * panel_words + block * block_words),
                panel_words,
                scales: product.scales.as_ptr().add(scale),
                // Beyond the end of each panel lies one that is being read already. The next tile begins behind all.
                ahead: match block * block_words + ahead < panel_words {
                    true => ahead,
                    false => ahead + (PANELS - 1) * panel_words,
                },
            };
            F::add_block::<N, ROWS, PANELS>(&place, &mut sum);
        }
        for (r, sum) in sum.into_iter().enumerate() {
            for (p, sum) in sum.into_iter().enumerate() {
                sum.store(sums.place(r * PANELS + p));
            }
        }
    }
}
