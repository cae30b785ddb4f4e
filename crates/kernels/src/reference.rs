//! Every kernel once more, as plainly as it can be written: single loops, sums in f64, no vectors, no threads.
//!
//! Fast paths are tested against these functions, here and in other crates. They take f32 (what the kernels take) and give
//! f64 (what the kernels should have given). [`finite_difference`] checks gradients without trusting anybody's calculus.

mod attention;
mod norms;
mod pointwise;
mod testing;

pub use attention::{attention, attention_backward};
pub use norms::{layer_norm, layer_norm_backward, rms_norm, rms_norm_backward};
pub use pointwise::{
    adamw_step, cross_entropy, cross_entropy_gradient, gelu, gelu_backward, soft_cap, soft_cap_backward,
    swiglu, swiglu_backward,
};
pub use testing::{assert_close, finite_difference, random_values, weighted_sum};

/// `y[m, n] = x[m, k] w[n, k]^T`.
pub fn product_nt(x: &[f32], w: &[f32], m: usize, n: usize, k: usize) -> Vec<f64> {
    product(m, n, k, |row, i| x[row * k + i], |i, column| w[column * k + i])
}

/// `dx[m, k] = dy[m, n] w[n, k]`.
pub fn product_nn(dy: &[f32], w: &[f32], m: usize, n: usize, k: usize) -> Vec<f64> {
    product(m, k, n, |row, i| dy[row * n + i], |i, column| w[i * k + column])
}

/// `dw[n, k] = dy[m, n]^T x[m, k]`.
pub fn product_tn(dy: &[f32], x: &[f32], m: usize, n: usize, k: usize) -> Vec<f64> {
    product(n, k, m, |row, i| dy[i * n + row], |i, column| x[i * k + column])
}

fn product(
    rows: usize,
    columns: usize,
    terms: usize,
    a: impl Fn(usize, usize) -> f32,
    b: impl Fn(usize, usize) -> f32,
) -> Vec<f64> {
    let mut c = vec![0.0; rows * columns];
    for row in 0..rows {
        for column in 0..columns {
            for i in 0..terms {
                c[row * columns + column] += f64::from(a(row, i)) * f64::from(b(i, column));
            }
        }
    }
    c
}

/// Rotates `heads` heads of `head_dim` in every row, the first at `first_head_offset`; other columns are copied.
///
/// Component `i` of a head is paired with component `i + half`, where `half` is the number of inverse frequencies; the angle
/// is position times inverse frequency, rounded to f32 as transformers does, and negative if `inverse`.
pub fn rotate(
    rows: &[f32],
    row_width: usize,
    first_head_offset: usize,
    heads: usize,
    head_dim: usize,
    positions: &[u32],
    inverse_frequencies: &[f32],
    inverse: bool,
) -> Vec<f64> {
    let half = inverse_frequencies.len();
    let mut out: Vec<f64> = rows.iter().map(|&x| f64::from(x)).collect();
    for (row, &position) in out.chunks_mut(row_width).zip(positions) {
        for head in 0..heads {
            let head = &mut row[first_head_offset + head * head_dim..][..head_dim];
            for i in 0..half {
                let angle = f64::from(position as f32 * inverse_frequencies[i]);
                let (sin, cos) = if inverse { (-angle).sin_cos() } else { angle.sin_cos() };
                let (a, b) = (head[i], head[i + half]);
                head[i] = a * cos - b * sin;
                head[i + half] = b * cos + a * sin;
            }
        }
    }
    out
}

/// Row `tokens[i]` of `table` `[vocabulary, width]` as row `i`.
pub fn gather(table: &[f32], width: usize, tokens: &[u32]) -> Vec<f32> {
    tokens.iter().flat_map(|&token| table[token as usize * width..][..width].iter().copied()).collect()
}

/// Adds row `i` of `d_out` `[tokens, width]` to row `tokens[i]` of `d_table`.
pub fn scatter_add(d_out: &[f32], width: usize, tokens: &[u32], d_table: &mut [f64]) {
    for (row, &token) in d_out.chunks(width).zip(tokens) {
        for (slot, &value) in d_table[token as usize * width..].iter_mut().zip(row) {
            *slot += f64::from(value);
        }
    }
}
