//! Products of a few rows with a few panels, the only inner loop of decoding.
//!
//! A *panel* is sixteen outputs wide: for every input in turn the sixteen weights that lead from it, `[inputs][16]`, or, of
//! bf16, for every two inputs sixteen pairs. A tile keeps one sum per row and output in registers and walks the inputs once, in
//! order. Each sum is therefore one chain of multiply-adds, and its bits do not depend on the shape of the tile.

use super::narrow_simd::{Narrow, with_narrow};
use super::simd::{LANES, Simd, Work, with_simd};
use crate::cpu::Isa;

/// How many lines of 64 bytes a thread looks ahead in all panels of a tile together.
const AHEAD: usize = 256;

/// The same in each panel of f32 that one or two rows walk. They ask the first cache: so little is computed with a weight that
/// the way from the second one would show.
const NEAR: usize = 16;

/// Most sums that any tile keeps.
const MAX_SUMS: usize = 24;

/// What the outputs of a product start from. It is added after the product has been summed, so that a large residual does
/// not cost the small terms their last bits.
#[derive(Clone, Copy, Debug)]
pub enum Start<'a> {
    /// `y = x Wᵀ`
    Zero,
    /// `y = x Wᵀ + bias`, one bias per output.
    Bias(&'a [f32]),
    /// `y = x Wᵀ + y`, with what `y` holds.
    Existing,
}

/// A number as it lies in a panel and in a row.
#[allow(unsafe_code)]
pub(crate) trait Element: Copy + Send + Sync + 'static {
    /// How many inputs are taken at once: a panel is `[inputs / STEP][16][STEP]`.
    const STEP: usize;
    /// The weights of one step.
    type Weights<N: Narrow>: Copy;

    /// Loads the weights of one step.
    ///
    /// # Safety
    ///
    /// The machine has what `N` needs, and `16 * STEP` values are readable.
    unsafe fn load<N: Narrow>(from: *const Self) -> Self::Weights<N>;

    /// Writes sixteen such numbers, the nearest; none may be denormal.
    ///
    /// # Safety
    ///
    /// The machine has what `N` needs, and 16 values are writable.
    unsafe fn store<N: Narrow>(values: N, to: *mut Self);

    /// `sum` and what one step of a row adds to it.
    ///
    /// # Safety
    ///
    /// The machine has what `N` needs, and `STEP` values are readable at `x`.
    unsafe fn add<N: Narrow>(sum: N, x: *const Self, weights: Self::Weights<N>) -> N;

    /// Widths of tiles of 1 to 8 rows, see [`Simd::PANELS`](super::simd::Simd::PANELS).
    fn panels<N: Narrow>() -> [usize; 8];

    /// Runs `work` with the vectors of `isa` that know these numbers.
    ///
    /// # Safety
    ///
    /// `isa` is available on this machine, and whatever the work demands.
    unsafe fn run<W: Work>(isa: Isa, work: W) -> W::Output;
}

#[allow(unsafe_code)]
// SAFETY (of every block below): the trait's callers promise the instruction set and the pointers.
impl Element for f32 {
    const STEP: usize = 1;
    type Weights<N: Narrow> = N;

    #[inline(always)]
    unsafe fn load<N: Narrow>(from: *const Self) -> N {
        unsafe { N::load(from) }
    }

    #[inline(always)]
    unsafe fn store<N: Narrow>(values: N, to: *mut Self) {
        unsafe { values.store(to) }
    }

    #[inline(always)]
    unsafe fn add<N: Narrow>(sum: N, x: *const Self, weights: N) -> N {
        unsafe { sum.multiply_add(N::splat(x), weights) }
    }

    #[inline(always)]
    fn panels<N: Narrow>() -> [usize; 8] {
        N::PANELS
    }

    unsafe fn run<W: Work>(isa: Isa, work: W) -> W::Output {
        unsafe { with_simd(isa, work) }
    }
}

/// The upper half of an f32: bf16. Products of two, in pairs, are summed in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct UpperHalf(pub(crate) u16);

#[allow(unsafe_code)]
// SAFETY (of every block below): as above; the struct is its number, and words are read unaligned.
impl Element for UpperHalf {
    const STEP: usize = 2;
    type Weights<N: Narrow> = N::Words;

    #[inline(always)]
    unsafe fn load<N: Narrow>(from: *const Self) -> N::Words {
        unsafe { N::load_words(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store<N: Narrow>(values: N, to: *mut Self) {
        unsafe { values.store_halves(to.cast()) }
    }

    #[inline(always)]
    unsafe fn add<N: Narrow>(sum: N, x: *const Self, weights: N::Words) -> N {
        unsafe { sum.add_pairs(weights, x.cast()) }
    }

    #[inline(always)]
    fn panels<N: Narrow>() -> [usize; 8] {
        N::PAIR_PANELS
    }

    unsafe fn run<W: Work>(isa: Isa, work: W) -> W::Output {
        unsafe { with_narrow(isa, false, work) }
    }
}

/// `rows` rows times `panels` panels.
#[derive(Clone, Copy)]
pub(crate) struct Product<'a, E = f32> {
    /// Rows of `inputs` values, `x_stride` apart.
    pub x: &'a [E],
    pub x_stride: usize,
    pub rows: usize,
    /// Panels of `inputs * 16` values, `panel_stride` apart.
    pub weights: &'a [E],
    pub panel_stride: usize,
    pub panels: usize,
    /// A multiple of [`Element::STEP`].
    pub inputs: usize,
    /// Number of outputs that exist: at most `16 * panels`, the rest of the last panel being padding.
    pub outputs: usize,
    pub start: Start<'a>,
    /// The chains go on from what `y` holds instead of beginning at zero. Inputs may then be taken in any number of
    /// pieces, in order, with the bits of one piece. Needs `outputs` to be whole panels.
    pub continues: bool,
}

impl<E: Element> Product<'_, E> {
    /// Writes row `r` of the product to `y + r * y_stride`.
    ///
    /// # Safety
    ///
    /// `isa` is available; `y` is valid for writes of `outputs` values in each of the rows (and for reads with
    /// [`Start::Existing`] or `continues`), which nobody else touches meanwhile.
    #[allow(unsafe_code)]
    #[inline]
    pub(crate) unsafe fn write(self, isa: Isa, y: *mut f32, y_stride: usize) {
        if self.rows == 0 || self.panels == 0 {
            return;
        }
        assert!(self.inputs.is_multiple_of(E::STEP), "half a step");
        assert!(self.x.len() >= (self.rows - 1) * self.x_stride + self.inputs, "too few inputs");
        assert!(
            self.weights.len() >= (self.panels - 1) * self.panel_stride + self.inputs * LANES,
            "too few weights"
        );
        assert!(self.outputs <= self.panels * LANES, "more outputs than panels hold");
        if let Start::Bias(bias) = self.start {
            assert!(bias.len() >= self.outputs, "too few biases");
        }
        assert!(!self.continues || self.outputs == self.panels * LANES, "a panel that goes on is not whole");
        // SAFETY: the slices are as long as the loops go, as just checked; the rest is the caller's promise.
        unsafe { E::run(isa, Write { product: self, y, y_stride }) }
    }
}

/// [`Product::write`] as work for one instruction set.
struct Write<'a, E> {
    product: Product<'a, E>,
    y: *mut f32,
    y_stride: usize,
}

#[allow(unsafe_code)]
impl<E: Element> Work for Write<'_, E> {
    type Output = ();

    /// Panels outside, rows inside: a group of panels is read from memory once and stays in the cache for all rows.
    #[inline(always)]
    unsafe fn run<N: Narrow>(self) {
        let Self { product, y, y_stride } = self;
        let panels_of = E::panels::<N>();
        let row_tiles = product.rows.div_ceil(most_rows(panels_of, product.panels));
        // Even shares: 9 rows are 5 and 4, not 8 and 1.
        let wide = panels_of[product.rows.div_ceil(row_tiles) - 1];
        let outputs = Outputs { outputs: product.outputs, start: product.start, y, y_stride };
        let mut panel = 0;
        while panel < product.panels {
            let left = product.panels - panel;
            let panels = wide.min(left);
            // Rows of one tile need no order of panels and rows, and walk all groups of them at once.
            let groups = if row_tiles == 1 { left / panels } else { 1 };
            for tile in 0..row_tiles {
                let row = product.rows * tile / row_tiles;
                let rows = product.rows * (tile + 1) / row_tiles - row;
                // SAFETY: row and panels lie within the product, whose slices were checked.
                unsafe { tiles_of::<N, E>(&product, &outputs, row, rows, panel, panels, groups) };
            }
            panel += groups * panels;
        }
    }
}

/// Rows of a tile, at most, of a product with so many panels: where a lower tile is as wide as the whole product, as in
/// attention, it is better than a higher one that leaves a narrow rest.
#[inline(always)]
fn most_rows(panels_of: [usize; 8], panels: usize) -> usize {
    let most = panels_of.iter().take_while(|wide| **wide > 0).count();
    let whole = panels_of.iter().take_while(|wide| **wide >= panels).count();
    if 2 * whole > most { whole } else { most }
}

/// Where the outputs of a product go, and what is added to them.
pub(super) struct Outputs<'a> {
    /// Number of outputs that exist.
    pub outputs: usize,
    pub start: Start<'a>,
    pub y: *mut f32,
    pub y_stride: usize,
}

/// Sums of a tile, `[rows][panels][16]`.
#[repr(align(64))]
pub(super) struct Sums([f32; MAX_SUMS * LANES]);

impl Sums {
    pub(super) fn new() -> Self {
        Self([0.0; MAX_SUMS * LANES])
    }

    /// Where one vector of sums stands.
    pub(super) fn place(&mut self, index: usize) -> *mut f32 {
        self.0[index * LANES..][..LANES].as_mut_ptr()
    }
}

/// Picks the tile with as many rows and panels as constants, so that its sums are registers, and walks `groups` of so many
/// panels with it.
///
/// # Safety
///
/// As [`tile`].
#[allow(unsafe_code)]
#[inline(always)]
unsafe fn tiles_of<N: Narrow, E: Element>(
    product: &Product<'_, E>,
    outputs: &Outputs<'_>,
    row: usize,
    rows: usize,
    panel: usize,
    panels: usize,
    groups: usize,
) {
    macro_rules! pick {
        ($(($rows:literal, $panels:literal))*) => {
            match (rows, panels) {
                // The guard is known when compiling: what a set has no registers for is not compiled for it.
                // SAFETY: the caller's promise.
                $(($rows, $panels) if $panels <= E::panels::<N>()[$rows - 1] => unsafe {
                    for group in 0..groups {
                        tile::<N, E, $rows, $panels>(product, outputs, row, panel + group * $panels);
                    }
                },)*
                _ => unreachable!("no tile of {rows} rows and {panels} panels"),
            }
        };
    }
    pick!((1, 1)(1, 2)(1, 3)(1, 4)(1, 8)(2, 1)(2, 2)(2, 3)(2, 4)(2, 8)(3, 1)(3, 2)(3, 3)(3, 4)(4, 1)(4, 2)(
        4, 3
    )(4, 4)(5, 1)(5, 2)(5, 3)(5, 4)(6, 1)(6, 2)(6, 3)(6, 4)(7, 1)(7, 2)(7, 3)(8, 1)(8, 2)(8, 3));
}

/// Writes `Σ x[r][k] * weights[p][k]`, k in order, for the rows and panels of a tile.
///
/// # Safety
///
/// The machine has the instruction set; the tile lies within the product, whose slices are as long as its shape says and whose
/// outputs are writable.
#[allow(unsafe_code)]
#[inline(always)]
unsafe fn tile<N: Narrow, E: Element, const ROWS: usize, const PANELS: usize>(
    product: &Product<'_, E>,
    outputs: &Outputs<'_>,
    row: usize,
    panel: usize,
) {
    let (x_stride, panel_stride) = (product.x_stride, product.panel_stride);
    // Panels lie behind one another, or each is a piece of a longer one.
    let behind = if panel_stride == product.inputs * LANES { (PANELS - 1) * panel_stride } else { 0 };
    let near = E::STEP == 1 && ROWS <= 2;
    let ahead = AHEAD / PANELS * E::STEP * LANES;
    // SAFETY: `k` stays below `inputs`. A product that goes on has whole panels of outputs. Prefetching may leave the slice,
    // hence `wrapping_add`.
    unsafe {
        let x = product.x.as_ptr().add(row * x_stride);
        let weights = product.weights.as_ptr().add(panel * panel_stride);
        let y = |r: usize, p: usize| outputs.y.add((row + r) * outputs.y_stride + (panel + p) * LANES);
        let mut sum = [[N::zero(); PANELS]; ROWS];
        if product.continues {
            for (r, sum) in sum.iter_mut().enumerate() {
                for (p, sum) in sum.iter_mut().enumerate() {
                    *sum = N::load(y(r, p));
                }
            }
        }
        for k in (0..product.inputs).step_by(E::STEP) {
            // Beyond the end of a panel lies one that is being read already. The next tile begins behind all.
            let beyond = k * LANES + ahead >= panel_stride;
            let ahead = if beyond { ahead + behind } else { ahead };
            let step: [E::Weights<N>; PANELS] = std::array::from_fn(|p| {
                let at = weights.add(p * panel_stride + k * LANES);
                if near {
                    N::prefetch(at.wrapping_add(NEAR * LANES).cast());
                } else {
                    N::prefetch_far(at.wrapping_add(ahead).cast());
                }
                E::load(at)
            });
            for (r, sum) in sum.iter_mut().enumerate() {
                for (sum, weights) in sum.iter_mut().zip(step) {
                    *sum = E::add(*sum, x.add(r * x_stride + k), weights);
                }
            }
        }
        let whole = (panel + PANELS) * LANES <= outputs.outputs;
        if whole && matches!(outputs.start, Start::Zero) {
            for (r, sum) in sum.into_iter().enumerate() {
                for (p, sum) in sum.into_iter().enumerate() {
                    sum.store(y(r, p));
                }
            }
            return;
        }
        let mut sums = Sums::new();
        for (r, sum) in sum.into_iter().enumerate() {
            for (p, sum) in sum.into_iter().enumerate() {
                sum.store(sums.place(r * PANELS + p));
            }
        }
        finish::<N>(outputs, &sums, row, ROWS, panel, PANELS);
    }
}

/// Adds what is to be added, and writes the outputs that exist.
///
/// # Safety
///
/// The machine has the instruction set; the tile lies within the product, whose outputs are writable.
#[allow(unsafe_code)]
#[inline(always)]
pub(super) unsafe fn finish<S: Simd>(
    outputs: &Outputs<'_>,
    sums: &Sums,
    row: usize,
    rows: usize,
    panel: usize,
    panels: usize,
) {
    for p in 0..panels {
        let output = (panel + p) * LANES;
        let width = LANES.min(outputs.outputs.saturating_sub(output));
        for r in 0..rows {
            let sum = &sums.0[(r * panels + p) * LANES..][..LANES];
            // SAFETY: `width` outputs of this row exist from `output` on, in `y` and in the bias.
            unsafe {
                let to = outputs.y.add((row + r) * outputs.y_stride + output);
                if width == LANES {
                    let sum = S::load(sum.as_ptr());
                    let sum = match outputs.start {
                        Start::Zero => sum,
                        Start::Bias(bias) => sum.add(S::load(bias.as_ptr().add(output))),
                        Start::Existing => sum.add(S::load(to)),
                    };
                    sum.store(to);
                    continue;
                }
                for (lane, sum) in sum[..width].iter().enumerate() {
                    *to.add(lane) = match outputs.start {
                        Start::Zero => *sum,
                        Start::Bias(bias) => *sum + bias[output + lane],
                        Start::Existing => *sum + *to.add(lane),
                    };
                }
            }
        }
    }
}
