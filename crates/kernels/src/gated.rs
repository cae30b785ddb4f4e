//! Gated units a block of rows at a time: what [`crate::swiglu`] and [`crate::gelu`] share.

use rayon::prelude::*;

/// Rows per task; no more rows than this stay on the calling thread.
const ROWS_PER_BLOCK: usize = 16;

/// `rows` makes `out` `[rows, width]` of `gate_up` `[rows, 2 * width]`; `name` stands before what is wrong.
pub(crate) fn forward(
    name: &str,
    rows: fn(&[f32], usize, &mut [f32]),
    gate_up: &[f32],
    width: usize,
    out: &mut [f32],
) {
    check(name, gate_up.len(), width, out.len());
    if out.len() <= width * ROWS_PER_BLOCK {
        return rows(gate_up, width, out);
    }
    gate_up
        .par_chunks(2 * width * ROWS_PER_BLOCK)
        .zip(out.par_chunks_mut(width * ROWS_PER_BLOCK))
        .for_each(|(gate_up, out)| rows(gate_up, width, out));
}

/// `rows` overwrites `d_gate_up` `[rows, 2 * width]`, given `d_out` `[rows, width]`.
pub(crate) fn backward(
    name: &str,
    rows: fn(&[f32], usize, &[f32], &mut [f32]),
    gate_up: &[f32],
    width: usize,
    d_out: &[f32],
    d_gate_up: &mut [f32],
) {
    check(name, gate_up.len(), width, d_out.len());
    assert_eq!(d_gate_up.len(), gate_up.len(), "{name}: the gradient has another length than its input");
    gate_up
        .par_chunks(2 * width * ROWS_PER_BLOCK)
        .zip(d_out.par_chunks(width * ROWS_PER_BLOCK))
        .zip(d_gate_up.par_chunks_mut(2 * width * ROWS_PER_BLOCK))
        .for_each(|((gate_up, d_out), d_gate_up)| rows(gate_up, width, d_out, d_gate_up));
}

fn check(name: &str, gate_up: usize, width: usize, out: usize) {
    assert!(width > 0, "{name}: rows without columns");
    assert!(
        gate_up == 2 * out && out.is_multiple_of(width),
        "{name}: rows of 2 x {width} and {width} in slices of {gate_up} and {out} elements"
    );
}
