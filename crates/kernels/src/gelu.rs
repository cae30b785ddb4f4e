//! GELU in its tanh form, `x / 2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))` (Hendrycks and Gimpel, 1606.08415): alone
//! (GPT-2, `gelu_new`) and as a gate (Shazeer, 2002.05202; Gemma, `gelu_pytorch_tanh`).
//!
//! For the gated form gate and up projection lie side by side in every row, the gate first, as in [`crate::swiglu`].

use rayon::prelude::*;

use crate::cpu::multiversion;
use crate::gated;
use crate::vector::lanes;

/// Elements per task of the form without a gate.
const ELEMENTS_PER_BLOCK: usize = 1 << 14;

/// `out = gelu(x)`, element by element; no other element has a part in its bits.
///
/// # Panics
/// When the lengths disagree.
pub fn forward(x: &[f32], out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "gelu: inputs and outputs disagree");
    if x.len() <= ELEMENTS_PER_BLOCK {
        return forward_part(x, out);
    }
    x.par_chunks(ELEMENTS_PER_BLOCK)
        .zip(out.par_chunks_mut(ELEMENTS_PER_BLOCK))
        .for_each(|(x, out)| forward_part(x, out));
}

/// Gradient of [`forward`] for `x`, given `d_out`; overwrites `d_x`.
///
/// # Panics
/// When the lengths disagree.
pub fn backward(x: &[f32], d_out: &[f32], d_x: &mut [f32]) {
    assert!(x.len() == d_out.len() && x.len() == d_x.len(), "gelu: gradients and inputs disagree");
    x.par_chunks(ELEMENTS_PER_BLOCK)
        .zip(d_out.par_chunks(ELEMENTS_PER_BLOCK))
        .zip(d_x.par_chunks_mut(ELEMENTS_PER_BLOCK))
        .for_each(|((x, d_out), d_x)| backward_part(x, d_out, d_x));
}

/// `out = gelu(gate) * up` for `gate_up` `[rows, 2 * width]` and `out` `[rows, width]`.
///
/// No other row has a part in the bits of a row.
///
/// # Panics
/// When the lengths disagree or `width` is zero.
pub fn gated_forward(gate_up: &[f32], width: usize, out: &mut [f32]) {
    gated::forward("gelu", gated_forward_rows, gate_up, width, out);
}

/// Gradient of [`gated_forward`] for `gate_up`, given `d_out` `[rows, width]`; overwrites `d_gate_up` `[rows, 2 * width]`.
///
/// # Panics
/// When the lengths disagree or `width` is zero.
pub fn gated_backward(gate_up: &[f32], width: usize, d_out: &[f32], d_gate_up: &mut [f32]) {
    gated::backward("gelu", gated_backward_rows, gate_up, width, d_out, d_gate_up);
}

multiversion! {
    fn forward_part(x: &[f32], out: &mut [f32]) = forward_body;
    fn backward_part(x: &[f32], d_out: &[f32], d_x: &mut [f32]) = backward_body;
    fn gated_forward_rows(gate_up: &[f32], width: usize, out: &mut [f32]) = gated_forward_body;
    fn gated_backward_rows(gate_up: &[f32], width: usize, d_out: &[f32], d_gate_up: &mut [f32]) = gated_backward_body;
}

#[inline(always)]
fn forward_body(x: &[f32], out: &mut [f32]) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out = gelu(x, inner_tanh(x));
    }
}

#[inline(always)]
fn backward_body(x: &[f32], d_out: &[f32], d_x: &mut [f32]) {
    for ((d_x, &d_out), &x) in d_x.iter_mut().zip(d_out).zip(x) {
        *d_x = d_out * slope(x, inner_tanh(x));
    }
}

#[inline(always)]
fn gated_forward_body(gate_up: &[f32], width: usize, out: &mut [f32]) {
    for (row, out) in gate_up.chunks_exact(2 * width).zip(out.chunks_exact_mut(width)) {
        let (gate, up) = row.split_at(width);
        for ((out, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
            *out = gelu(gate, inner_tanh(gate)) * up;
        }
    }
}

#[inline(always)]
fn gated_backward_body(gate_up: &[f32], width: usize, d_out: &[f32], d_gate_up: &mut [f32]) {
    let rows = gate_up.chunks_exact(2 * width).zip(d_out.chunks_exact(width));
    for ((row, d_out), d_row) in rows.zip(d_gate_up.chunks_exact_mut(2 * width)) {
        let (gate, up) = row.split_at(width);
        let (d_gate, d_up) = d_row.split_at_mut(width);
        let inputs = gate.iter().zip(up).zip(d_out);
        for (((&gate, &up), &d_out), (d_gate, d_up)) in inputs.zip(d_gate.iter_mut().zip(d_up)) {
            let t = inner_tanh(gate);
            *d_gate = d_out * up * slope(gate, t);
            *d_up = d_out * gelu(gate, t);
        }
    }
}

/// `sqrt(2 / pi)`.
const FACTOR: f32 = 0.797_884_6;
const CUBIC: f32 = 0.044_715;

#[inline(always)]
fn inner_tanh(x: f32) -> f32 {
    lanes::tanh(FACTOR * (x + CUBIC * x * x * x))
}

#[inline(always)]
fn gelu(x: f32, tanh: f32) -> f32 {
    0.5 * x * (1.0 + tanh)
}

#[inline(always)]
fn slope(x: f32, tanh: f32) -> f32 {
    // Where the tanh is 1 to the last bit, its slope is zero however large the cube has become.
    let steepness = 1.0 - tanh * tanh;
    let inner = FACTOR * (1.0 + 3.0 * CUBIC * x * x);
    let bend = if steepness == 0.0 { 0.0 } else { 0.5 * x * steepness * inner };
    0.5 * (1.0 + tanh) + bend
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{self, assert_close, finite_difference, random_values, weighted_sum};

    /// `(rows, width)`, among them more than one block of rows.
    const SHAPES: [(usize, usize); 5] = [(0, 3), (1, 1), (3, 7), (16, 16), (37, 450)];

    /// Numbers on both sides of zero, up to 4: where it bends.
    fn inputs(len: usize) -> Vec<f32> {
        random_values(len, 1).iter().map(|x| 4.0 * x).collect()
    }

    fn plain_gated(gate_up: &[f32], width: usize) -> Vec<f64> {
        let row = |row: &[f32]| -> Vec<f64> {
            let (gate, up) = row.split_at(width);
            gate.iter().zip(up).map(|(&g, &u)| reference::gelu(g) * f64::from(u)).collect()
        };
        gate_up.chunks(2 * width).flat_map(row).collect()
    }

    #[test]
    fn forward_and_backward_agree_with_plain() {
        for (rows, width) in SHAPES {
            let (x, d_out) = (inputs(rows * width), random_values(rows * width, 2));
            let what = format!("{rows} x {width}");
            let (mut out, mut d_x) = (vec![9.0; x.len()], vec![9.0; x.len()]);
            forward(&x, &mut out);
            assert_close(&out, &x.iter().map(|&x| reference::gelu(x)).collect::<Vec<_>>(), 1e-6, &what);
            backward(&x, &d_out, &mut d_x);
            let plain: Vec<f64> =
                x.iter().zip(&d_out).map(|(&x, &d)| reference::gelu_backward(x) * f64::from(d)).collect();
            assert_close(&d_x, &plain, 1e-6, &what);

            let gate_up = inputs(rows * 2 * width);
            gated_forward(&gate_up, width, &mut out);
            assert_close(&out, &plain_gated(&gate_up, width), 1e-6, &format!("gated {what}"));
        }
    }

    #[test]
    fn backward_agrees_with_finite_differences() {
        let (rows, width) = (3, 5);
        let (x, d_out) = (inputs(rows * 2 * width), random_values(rows * width, 2));
        let mut d_x = vec![0.0; rows * 2 * width];
        gated_backward(&x, width, &d_out, &mut d_x);
        let by_difference = finite_difference(&x, 1e-3, |x| weighted_sum(&plain_gated(x, width), &d_out));
        assert_close(&d_x, &by_difference, 1e-5, "gated");

        let mut d_x = vec![0.0; rows * width];
        backward(&x[..rows * width], &d_out, &mut d_x);
        let by_difference = finite_difference(&x[..rows * width], 1e-3, |x| {
            weighted_sum(&x.iter().map(|&x| reference::gelu(x)).collect::<Vec<_>>(), &d_out)
        });
        assert_close(&d_x, &by_difference, 1e-5, "alone");
    }

    #[test]
    fn a_row_has_the_same_bits_alone() {
        let (rows, width) = (37, 450);
        let x = inputs(rows * 2 * width);
        let (mut gated, mut alone) = (vec![0.0; rows * width], vec![0.0; width]);
        gated_forward(&x, width, &mut gated);
        let mut plain = vec![0.0; x.len()];
        forward(&x, &mut plain);
        for row in 0..rows {
            gated_forward(&x[row * 2 * width..][..2 * width], width, &mut alone);
            assert_eq!(alone, gated[row * width..][..width]);
            forward(&x[row * width..][..width], &mut alone);
            assert_eq!(alone, plain[row * width..][..width]);
        }
    }

    #[test]
    fn large_inputs_stay_finite() {
        let x = [500.0, -500.0, 1e18, -1e18];
        let (mut out, mut d_x) = ([9.0; 4], [9.0; 4]);
        forward(&x, &mut out);
        assert_eq!(out, [500.0, 0.0, 1e18, 0.0]);
        backward(&x, &[1.0; 4], &mut d_x);
        assert_eq!(d_x, [1.0, 0.0, 1.0, 0.0]);
    }
}
