//! SwiGLU: `silu(gate) * up` with `silu(g) = g / (1 + e^-g)` (Shazeer, 2002.05202).
//!
//! Gate and up projection come from one product and lie side by side in every row, the gate first.

use crate::cpu::multiversion;
use crate::gated;
use crate::vector::lanes;

/// `out = silu(gate) * up` for `gate_up` `[rows, 2 * width]` and `out` `[rows, width]`.
///
/// No other row has a part in the bits of a row.
///
/// # Panics
/// When the lengths disagree or `width` is zero.
pub fn forward(gate_up: &[f32], width: usize, out: &mut [f32]) {
    gated::forward("swiglu", forward_rows, gate_up, width, out);
}

/// Gradient of [`forward`] for `gate_up`, given `d_out` `[rows, width]`; overwrites `d_gate_up` `[rows, 2 * width]`.
///
/// # Panics
/// When the lengths disagree or `width` is zero.
pub fn backward(gate_up: &[f32], width: usize, d_out: &[f32], d_gate_up: &mut [f32]) {
    gated::backward("swiglu", backward_rows, gate_up, width, d_out, d_gate_up);
}

multiversion! {
    fn forward_rows(gate_up: &[f32], width: usize, out: &mut [f32]) = forward_rows_body;
    fn backward_rows(gate_up: &[f32], width: usize, d_out: &[f32], d_gate_up: &mut [f32]) = backward_rows_body;
}

#[inline(always)]
fn forward_rows_body(gate_up: &[f32], width: usize, out: &mut [f32]) {
    for (row, out) in gate_up.chunks_exact(2 * width).zip(out.chunks_exact_mut(width)) {
        let (gate, up) = row.split_at(width);
        for ((out, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
            *out = gate * sigmoid(gate) * up;
        }
    }
}

/// `silu'(g) = s (1 + g (1 - s))` with `s = 1 / (1 + e^-g)`.
#[inline(always)]
fn backward_rows_body(gate_up: &[f32], width: usize, d_out: &[f32], d_gate_up: &mut [f32]) {
    let rows = gate_up.chunks_exact(2 * width).zip(d_out.chunks_exact(width));
    for ((row, d_out), d_row) in rows.zip(d_gate_up.chunks_exact_mut(2 * width)) {
        let (gate, up) = row.split_at(width);
        let (d_gate, d_up) = d_row.split_at_mut(width);
        let inputs = gate.iter().zip(up).zip(d_out);
        for (((&gate, &up), &d_out), (d_gate, d_up)) in inputs.zip(d_gate.iter_mut().zip(d_up)) {
            let sigmoid = sigmoid(gate);
            let silu = gate * sigmoid;
            *d_gate = d_out * up * (sigmoid + silu * (1.0 - sigmoid));
            *d_up = d_out * silu;
        }
    }
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + lanes::exp(-x))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{self, assert_close, finite_difference, random_values, weighted_sum};

    /// `(rows, width)`, among them more than one block of rows.
    const SHAPES: [(usize, usize); 5] = [(0, 3), (1, 1), (3, 7), (16, 16), (37, 45)];

    /// Numbers on both sides of zero, up to 4: where the sigmoid bends.
    fn inputs(len: usize) -> Vec<f32> {
        random_values(len, 1).iter().map(|x| 4.0 * x).collect()
    }

    #[test]
    fn forward_and_backward_agree_with_plain() {
        for (rows, width) in SHAPES {
            let (gate_up, d_out) = (inputs(rows * 2 * width), random_values(rows * width, 2));
            let what = format!("{rows} x {width}");
            let mut out = vec![9.0; rows * width];
            forward(&gate_up, width, &mut out);
            assert_close(&out, &reference::swiglu(&gate_up, width), 1e-6, &what);
            let mut d_gate_up = vec![9.0; gate_up.len()];
            backward(&gate_up, width, &d_out, &mut d_gate_up);
            assert_close(&d_gate_up, &reference::swiglu_backward(&gate_up, width, &d_out), 1e-6, &what);
        }
    }

    #[test]
    fn backward_agrees_with_finite_differences() {
        let (rows, width) = (3, 5);
        let (gate_up, d_out) = (inputs(rows * 2 * width), random_values(rows * width, 2));
        let mut d_gate_up = vec![0.0; gate_up.len()];
        backward(&gate_up, width, &d_out, &mut d_gate_up);
        let by_difference =
            finite_difference(&gate_up, 1e-3, |x| weighted_sum(&reference::swiglu(x, width), &d_out));
        assert_close(&d_gate_up, &by_difference, 1e-5, "d_gate_up");
    }

    #[test]
    fn a_row_has_the_same_bits_alone() {
        let (rows, width) = (37, 45);
        let gate_up = inputs(rows * 2 * width);
        let mut together = vec![0.0; rows * width];
        forward(&gate_up, width, &mut together);
        for row in 0..rows {
            let mut alone = vec![0.0; width];
            forward(&gate_up[row * 2 * width..][..2 * width], width, &mut alone);
            assert_eq!(alone, together[row * width..][..width]);
        }
    }

    #[test]
    fn large_gates_stay_finite() {
        let mut out = [9.0; 2];
        forward(&[500.0, -500.0, 2.0, 2.0], 2, &mut out);
        assert_eq!(out, [1000.0, 0.0]);
        let mut gradient = [9.0; 4];
        backward(&[500.0, -500.0, 2.0, 2.0], 2, &[1.0, 1.0], &mut gradient);
        assert_eq!(gradient, [2.0, 0.0, 500.0, 0.0]);
    }
}
