//! Packed weights of any type, behind one name.

use std::fmt;
use std::str::FromStr;

use rayon::prelude::*;

use super::formats::{Bf16, Int4, Int8};
use super::narrow::{Format, NarrowProduct};
use super::rows::PreparedRows;
use super::simd::LANES;
use super::tile::Start;
use super::{PackedF32, Plain, Shared, bytes_of, bytes_of_mut, parts};
use crate::cpu::{Isa, isa};
use crate::memory;
use crate::team::Team;

/// How the weights of a product are written as numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum WeightType {
    /// 32 bits, as trained.
    #[default]
    F32,
    /// 16 bits: the upper half of an f32. PreparedRows are rounded to it as well.
    Bf16,
    /// 8 bits, with a scale for each output and 64 inputs. PreparedRows are rounded to 8 bits in blocks of 64.
    Int8,
    /// 4 bits, with a scale for each output and 32 inputs. PreparedRows are rounded to 8 bits in blocks of 32.
    Int4,
}

impl WeightType {
    /// All of them, the widest first.
    pub const ALL: [Self; 4] = [Self::F32, Self::Bf16, Self::Int8, Self::Int4];

    /// The name that it has in settings and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
        }
    }
}

impl fmt::Display for WeightType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for WeightType {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|weights| weights.name() == name);
        found.ok_or_else(|| format!("{name} is no type of weights: give f32, bf16, int8 or int4"))
    }
}

/// One or several linear maps side by side, in any type of weights.
#[derive(Clone, Debug)]
pub struct Packed(Maps);

#[derive(Clone, Debug)]
enum Maps {
    F32(PackedF32),
    Bf16(PackedNarrow<Bf16>),
    Int8(PackedNarrow<Int8>),
    Int4(PackedNarrow<Int4>),
}

/// Runs `$body` with whatever `$packed` holds.
macro_rules! each {
    ($packed:expr, $one:ident => $body:expr) => {
        match &$packed.0 {
            Maps::F32($one) => $body,
            Maps::Bf16($one) => $body,
            Maps::Int8($one) => $body,
            Maps::Int4($one) => $body,
        }
    };
}

impl Packed {
    /// Packs maps that read the same inputs, as one map with their outputs one after the other.
    ///
    /// Each part is a row-major `[outputs, inputs]` matrix and its number of outputs.
    ///
    /// # Panics
    ///
    /// If a part is not of that size.
    pub fn pack(weights: WeightType, parts: &[(&[f32], usize)], inputs: usize) -> Self {
        Self(match weights {
            WeightType::F32 => Maps::F32(PackedF32::pack(parts, inputs)),
            WeightType::Bf16 => Maps::Bf16(PackedNarrow::pack(parts, inputs)),
            WeightType::Int8 => Maps::Int8(PackedNarrow::pack(parts, inputs)),
            WeightType::Int4 => Maps::Int4(PackedNarrow::pack(parts, inputs)),
        })
    }

    /// Maps that give 0, to be filled through [`as_bytes_mut`](Self::as_bytes_mut).
    pub fn zero(weights: WeightType, outputs: usize, inputs: usize) -> Self {
        Self(match weights {
            WeightType::F32 => Maps::F32(PackedF32::zero(outputs, inputs)),
            WeightType::Bf16 => Maps::Bf16(PackedNarrow::zero(outputs, inputs)),
            WeightType::Int8 => Maps::Int8(PackedNarrow::zero(outputs, inputs)),
            WeightType::Int4 => Maps::Int4(PackedNarrow::zero(outputs, inputs)),
        })
    }

    /// The packed weights and their scales as bytes, in an order that does not depend on the machine.
    pub fn as_bytes(&self) -> [&[u8]; 2] {
        each!(self, packed => packed.as_bytes())
    }

    /// What [`as_bytes`](Self::as_bytes) gives, to be written.
    pub fn as_bytes_mut(&mut self) -> [&mut [u8]; 2] {
        match &mut self.0 {
            Maps::F32(packed) => packed.as_bytes_mut(),
            Maps::Bf16(packed) => packed.as_bytes_mut(),
            Maps::Int8(packed) => packed.as_bytes_mut(),
            Maps::Int4(packed) => packed.as_bytes_mut(),
        }
    }

    /// How the weights are written.
    pub fn weight_type(&self) -> WeightType {
        match &self.0 {
            Maps::F32(_) => WeightType::F32,
            Maps::Bf16(_) => WeightType::Bf16,
            Maps::Int8(_) => WeightType::Int8,
            Maps::Int4(_) => WeightType::Int4,
        }
    }

    /// Width of a row of outputs.
    pub fn outputs(&self) -> usize {
        each!(self, packed => packed.outputs())
    }

    /// Width of a row of inputs.
    pub fn inputs(&self) -> usize {
        each!(self, packed => packed.inputs())
    }

    /// Size of the packed weights in memory: what a product with few rows has to read.
    pub fn bytes(&self) -> usize {
        each!(self, packed => packed.bytes())
    }

    /// `y = x Wᵀ`, plus what `start` says. Each row of `y` has the same bits whatever rows stand beside it.
    ///
    /// `x` is `[rows, inputs]`, `y` is `[rows, outputs]`; `scratch` may come from any product before.
    ///
    /// # Panics
    ///
    /// If `x`, `y` or the bias is not of that size.
    pub fn multiply(
        &self,
        team: &Team,
        scratch: &mut PreparedRows,
        x: &[f32],
        rows: usize,
        start: Start<'_>,
        y: &mut [f32],
    ) {
        self.multiply_on(isa(), team, scratch, x, rows, start, y);
    }

    /// [`multiply`](Self::multiply) with a certain instruction set, so that tests can walk all of them.
    pub(crate) fn multiply_on(
        &self,
        isa: Isa,
        team: &Team,
        scratch: &mut PreparedRows,
        x: &[f32],
        rows: usize,
        start: Start<'_>,
        y: &mut [f32],
    ) {
        assert_eq!(x.len(), rows * self.inputs(), "x is not [rows, {}]", self.inputs());
        match &self.0 {
            Maps::F32(packed) => packed.multiply_on(isa, team, x, rows, start, y),
            Maps::Bf16(packed) => {
                scratch.take_bf16(x, rows, packed.inputs);
                packed.multiply(isa, team, scratch, rows, start, y);
            }
            Maps::Int8(packed) => {
                scratch.take_int8(x, rows, packed.inputs);
                packed.multiply(isa, team, scratch, rows, start, y);
            }
            Maps::Int4(packed) => {
                scratch.take_int4(x, rows, packed.inputs);
                packed.multiply(isa, team, scratch, rows, start, y);
            }
        }
    }
}

/// One or several linear maps side by side, in a narrow format.
#[derive(Clone)]
struct PackedNarrow<F> {
    outputs: usize,
    inputs: usize,
    /// `[ceil(outputs / 16)]` panels of `[words][16]`.
    panels: Vec<WordLine>,
    /// `[ceil(outputs / 16)]` times `[blocks][16]`, empty where the format has none.
    scales: Vec<ScaleLine>,
    format: std::marker::PhantomData<F>,
}

/// Sixteen words of weights, one for each output of a panel.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct WordLine([u32; LANES]);

// SAFETY: numbers without padding.
#[allow(unsafe_code)]
unsafe impl Plain for WordLine {}

/// Sixteen scales, one for each output of a panel.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
struct ScaleLine([u16; LANES]);

// SAFETY: numbers without padding.
#[allow(unsafe_code)]
unsafe impl Plain for ScaleLine {}

impl<F: Format> fmt::Debug for PackedNarrow<F> {
    /// The shape; the weights would fill pages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackedNarrow [{}, {}]", self.outputs, self.inputs)
    }
}

impl<F: Format> PackedNarrow<F> {
    fn pack(parts: &[(&[f32], usize)], inputs: usize) -> Self {
        let mut rows = Vec::new();
        for (weights, outputs) in parts {
            assert_eq!(weights.len(), outputs * inputs, "a part is not [outputs, inputs]");
            rows.extend((0..*outputs).map(|output| &weights[output * inputs..][..inputs]));
        }
        let mut packed = Self::zero(rows.len(), inputs);
        if inputs == 0 {
            return packed;
        }
        let (blocks, lines) = (packed.blocks(), packed.panel_lines());
        let scales: Vec<&mut [ScaleLine]> = match F::SCALED {
            true => packed.scales.chunks_exact_mut(blocks).collect(),
            false => rows.chunks(LANES).map(|_| Default::default()).collect(),
        };
        let panels = packed.panels.par_chunks_exact_mut(lines).zip(scales).zip(rows.par_chunks(LANES));
        panels.for_each(|((panel, scale_lines), rows)| {
            let mut padded = vec![0.0; blocks * F::BLOCK];
            let (mut words, mut scales) = (vec![0; lines], vec![0; scale_lines.len()]);
            for (lane, weights) in rows.iter().enumerate() {
                padded[..inputs].copy_from_slice(weights);
                F::write(&padded, &mut words, &mut scales);
                panel.iter_mut().zip(&words).for_each(|(line, word)| line.0[lane] = *word);
                scale_lines.iter_mut().zip(&scales).for_each(|(line, scale)| line.0[lane] = *scale);
            }
        });
        packed
    }

    /// Maps that give 0, whatever the format raises its weights by: scales are 0, or there are none.
    fn zero(outputs: usize, inputs: usize) -> Self {
        let panels = outputs.div_ceil(LANES);
        let blocks = inputs.div_ceil(F::BLOCK);
        let words = blocks * F::BLOCK / F::INPUTS_PER_WORD;
        let scales = if F::SCALED { panels * blocks } else { 0 };
        Self {
            outputs,
            inputs,
            panels: memory::filled(WordLine([0; LANES]), panels * words),
            scales: memory::filled(ScaleLine([0; LANES]), scales),
            format: std::marker::PhantomData,
        }
    }

    fn outputs(&self) -> usize {
        self.outputs
    }

    fn inputs(&self) -> usize {
        self.inputs
    }

    fn bytes(&self) -> usize {
        size_of_val(self.panels.as_slice()) + size_of_val(self.scales.as_slice())
    }

    fn as_bytes(&self) -> [&[u8]; 2] {
        [bytes_of(&self.panels), bytes_of(&self.scales)]
    }

    fn as_bytes_mut(&mut self) -> [&mut [u8]; 2] {
        [bytes_of_mut(&mut self.panels), bytes_of_mut(&mut self.scales)]
    }

    fn blocks(&self) -> usize {
        self.inputs.div_ceil(F::BLOCK)
    }

    fn panel_lines(&self) -> usize {
        self.blocks() * F::BLOCK / F::INPUTS_PER_WORD
    }

    #[allow(unsafe_code)]
    fn multiply(
        &self,
        isa: Isa,
        team: &Team,
        x: &PreparedRows,
        rows: usize,
        start: Start<'_>,
        y: &mut [f32],
    ) {
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
            let product = NarrowProduct {
                x: &x.bytes,
                x_stride: x.stride,
                x_scales: &x.scales,
                corrections: &x.corrections,
                rows,
                blocks: self.blocks(),
                words: words_of(&self.panels[panel * self.panel_lines()..]),
                scales: scales_of(&self.scales[if F::SCALED { panel * self.blocks() } else { 0 }..]),
                panels,
                outputs: (panels * LANES).min(self.outputs - output),
                start: match start {
                    Start::Bias(bias) => Start::Bias(&bias[output..]),
                    other => other,
                },
            };
            // SAFETY: the set is available. `y` is borrowed exclusively and holds `rows` rows; this part alone writes the
            // outputs of its panels in each of them.
            unsafe { product.write::<F>(isa, y.get().add(output), self.outputs) }
        });
    }

    /// The weights as they were rounded, `[outputs, inputs]`.
    #[cfg(test)]
    fn unpacked(&self) -> Vec<f32> {
        let (blocks, lines) = (self.blocks(), self.panel_lines());
        let mut weights = Vec::with_capacity(self.outputs * self.inputs);
        let mut padded = vec![0.0; blocks * F::BLOCK];
        for output in 0..self.outputs {
            let (panel, lane) = (output / LANES, output % LANES);
            for (block, weights) in padded.chunks_exact_mut(F::BLOCK).enumerate() {
                let words = F::BLOCK / F::INPUTS_PER_WORD;
                let words: Vec<u32> = self.panels[panel * lines + block * words..][..words]
                    .iter()
                    .map(|line| line.0[lane])
                    .collect();
                let scale = if F::SCALED { self.scales[panel * blocks + block].0[lane] } else { 0 };
                F::read(&words, scale, weights);
            }
            weights.extend_from_slice(&padded[..self.inputs]);
        }
        weights
    }
}

/// Lines as flat words.
#[allow(unsafe_code)]
fn words_of(lines: &[WordLine]) -> &[u32] {
    // SAFETY: a `WordLine` is 16 u32 without padding.
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * LANES) }
}

/// Lines as flat scales.
#[allow(unsafe_code)]
fn scales_of(lines: &[ScaleLine]) -> &[u16] {
    // SAFETY: a `ScaleLine` is 16 u16 without padding.
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * LANES) }
}

#[cfg(test)]
mod tests;
