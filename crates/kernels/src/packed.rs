//! Weights packed once, in the order in which the decoding kernel reads them.
//!
//! Decoding multiplies a handful of rows with every weight of the model, so the weights' way from memory is the cost, and
//! further rows are nearly free. That is what drafting lives on, and it needs one thing more: *an output row has the same
//! bits whatever rows stand beside it, however many there are, and with any number of threads.* Here every output is one
//! chain of multiply-adds over the inputs in order, with what [`Start`] names added last; threads divide
//! outputs, never a sum. Instruction sets with a fused multiply-add ([`fused`]) all give the same bits.

mod exp2;
mod formats;
mod narrow;
mod narrow_simd;
mod rounding;
mod rows;
mod simd;
mod tile;
mod weights;

pub use rows::PreparedRows;
pub use simd::fused;
pub use tile::{Start, UpperHalf};
pub use weights::{Packed, WeightType};

pub(crate) use narrow_simd::Narrow;
pub(crate) use rounding::rounded;
pub(crate) use simd::{LANES, Simd, Work, with_simd};
pub(crate) use tile::{Element, Product};

use std::fmt;

use crate::cpu::{Isa, isa};
use crate::memory;
use crate::team::Team;

/// Products of fewer multiply-adds than this are done by the caller: sharing them would take longer.
const ALONE: usize = 50_000;

/// Multiply-adds that are worth a part of their own.
const PART: usize = 150_000;

/// Panels that one thread takes at the least, so that enough chains run side by side.
const PANELS_PER_PART: usize = 4;

/// One or several linear maps side by side, in f32.
#[derive(Clone)]
pub struct PackedF32 {
    outputs: usize,
    inputs: usize,
    /// `[ceil(outputs / 16)]` panels of `[inputs][16]`, the outputs beyond the last being zero.
    panels: Vec<CacheLine>,
}

/// Sixteen weights, one for each output of a panel.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct CacheLine([f32; LANES]);

/// Values that are bytes without padding, any of which may be anything.
///
/// # Safety
///
/// That is so.
#[allow(unsafe_code)]
unsafe trait Plain: Copy {}

// SAFETY: numbers without padding.
#[allow(unsafe_code)]
unsafe impl Plain for CacheLine {}

#[allow(unsafe_code)]
fn bytes_of<T: Plain>(values: &[T]) -> &[u8] {
    // SAFETY: plain values are bytes.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

#[allow(unsafe_code)]
fn bytes_of_mut<T: Plain>(values: &mut [T]) -> &mut [u8] {
    // SAFETY: plain values are bytes, and any bytes are such values.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}

impl fmt::Debug for PackedF32 {
    /// The shape; the weights would fill pages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackedF32 [{}, {}]", self.outputs, self.inputs)
    }
}

impl PackedF32 {
    /// Packs maps that read the same inputs, as one map with their outputs one after the other.
    ///
    /// Each part is a row-major `[outputs, inputs]` matrix and its number of outputs.
    ///
    /// # Panics
    ///
    /// If a part is not of that size.
    pub fn pack(parts: &[(&[f32], usize)], inputs: usize) -> Self {
        let outputs = parts.iter().map(|(_, outputs)| outputs).sum::<usize>();
        let mut packed = Self::zero(outputs, inputs);
        let panels = &mut packed.panels;
        let mut output = 0;
        for (weights, part_outputs) in parts {
            assert_eq!(weights.len(), part_outputs * inputs, "a part is not [outputs, inputs]");
            for weights in weights.chunks_exact(inputs.max(1)) {
                let panel = &mut panels[output / LANES * inputs..][..inputs];
                for (line, weight) in panel.iter_mut().zip(weights) {
                    line.0[output % LANES] = *weight;
                }
                output += 1;
            }
        }
        packed
    }

    fn zero(outputs: usize, inputs: usize) -> Self {
        let panels = memory::filled(CacheLine([0.0; LANES]), outputs.div_ceil(LANES) * inputs);
        Self { outputs, inputs, panels }
    }

    fn as_bytes(&self) -> [&[u8]; 2] {
        [bytes_of(&self.panels), &[]]
    }

    fn as_bytes_mut(&mut self) -> [&mut [u8]; 2] {
        [bytes_of_mut(&mut self.panels), &mut []]
    }

    /// Width of a row of outputs.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Width of a row of inputs.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Size of the packed weights in memory: what a product with few rows has to read.
    pub fn bytes(&self) -> usize {
        size_of_val(self.panels.as_slice())
    }

    /// `y = x Wᵀ`, plus what `start` says.
    ///
    /// `x` is `[rows, inputs]`, `y` is `[rows, outputs]`.
    ///
    /// # Panics
    ///
    /// If `x`, `y` or the bias is not of that size.
    pub fn multiply(&self, team: &Team, x: &[f32], rows: usize, start: Start<'_>, y: &mut [f32]) {
        self.multiply_on(isa(), team, x, rows, start, y);
    }

    /// [`multiply`](Self::multiply) with a certain instruction set, so that tests can walk all of them.
    #[allow(unsafe_code)]
    pub(crate) fn multiply_on(
        &self,
        isa: Isa,
        team: &Team,
        x: &[f32],
        rows: usize,
        start: Start<'_>,
        y: &mut [f32],
    ) {
        assert_eq!(x.len(), rows * self.inputs, "x is not [rows, {}]", self.inputs);
        assert_eq!(y.len(), rows * self.outputs, "y is not [rows, {}]", self.outputs);
        if let Start::Bias(bias) = start {
            assert_eq!(bias.len(), self.outputs, "bias is not [{}]", self.outputs);
        }
        assert!(isa.available(), "this machine has no {}", isa.name());
        let y = Shared(y.as_mut_ptr());
        let panels = self.outputs.div_ceil(LANES);
        let parts = parts(rows * self.inputs * self.outputs, panels, team.threads());
        team.run(parts, &|part| {
            let panel = panels * part / parts;
            let panels = panels * (part + 1) / parts - panel;
            let output = panel * LANES;
            let product = Product {
                x,
                x_stride: self.inputs,
                rows,
                weights: self.weights(panel, panels),
                panel_stride: self.inputs * LANES,
                panels,
                inputs: self.inputs,
                outputs: (panels * LANES).min(self.outputs - output),
                start: match start {
                    Start::Bias(bias) => Start::Bias(&bias[output..]),
                    other => other,
                },
                continues: false,
            };
            // SAFETY: the set is available. `y` is borrowed exclusively and holds `rows` rows; this part alone writes the
            // outputs of its panels in each of them.
            unsafe { product.write(isa, y.get().add(output), self.outputs) }
        });
    }

    /// The weights of some panels, as flat values.
    #[allow(unsafe_code)]
    fn weights(&self, panel: usize, panels: usize) -> &[f32] {
        let lines = &self.panels[panel * self.inputs..][..panels * self.inputs];
        // SAFETY: a `CacheLine` is 16 f32 without padding.
        unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * LANES) }
    }
}

/// Into how many ranges of panels a product of `work` multiply-adds is divided. More than threads, if they are worth it: a
/// thread that is held up leaves the rest to the others.
fn parts(work: usize, panels: usize, threads: usize) -> usize {
    if threads == 1 || work < ALONE {
        return 1;
    }
    // A multiple of the threads: five equal parts would keep two of them busy for three.
    let parts = (work / PART).clamp(1, 4 * threads).next_multiple_of(threads);
    parts.min(panels / PANELS_PER_PART).max(1)
}

/// A pointer that the threads of a team write through, each in its own places.
#[derive(Clone, Copy)]
pub(crate) struct Shared(pub(crate) *mut f32);

impl Shared {
    pub(crate) fn get(self) -> *mut f32 {
        self.0
    }
}

// SAFETY: it is only an address; whoever writes through it promises that nobody else does so in the same place.
#[allow(unsafe_code)]
unsafe impl Sync for Shared {}

#[cfg(test)]
mod tests;
