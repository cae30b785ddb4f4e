//! From a block of scores to weights, and from their gradients to gradients of scores.
//!
//! Rows of scores are whole vectors long; work is rounded out to whole vectors within them. What a query does not see becomes
//! exactly zero, so that the products after it may run over the whole block.

use std::ops::Range;

use crate::cpu::multiversion;
use crate::soft_cap;
use crate::vector::lanes::{self, LANES};

multiversion! {
    /// Replaces `scores` `[queries, stride]` by `e^(score - largest of the row)`, and by zero where the query does not see.
    ///
    /// Row `i` belongs to query `first_query + i`, column `j` to key `first_key + j`; the query sees keys
    /// `first_visible[i]..=first_query + i`. Gives each row's logarithm of the sum of exponentials of its scores, and the factor
    /// that makes its weights sum to one.
    pub(super) fn softmax(
        scores: &mut [f32],
        stride: usize,
        first_visible: &[u32],
        first_query: usize,
        first_key: usize,
        log_sum_exp: &mut [f32],
        inverse_sums: &mut [f32],
    ) = softmax_body;

    /// Replaces scores by probabilities and `d_scores`, which holds gradients of probabilities, by gradients of unscaled scores:
    /// `scale p (dp - mean)`, times the slope of the cap if the scores were capped. Arguments as for [`softmax`]; `means[i]` is the
    /// mean of `dp` under the probabilities of row `i`.
    pub(super) fn probabilities_and_gradients(
        scores: &mut [f32],
        d_scores: &mut [f32],
        stride: usize,
        first_visible: &[u32],
        first_query: usize,
        first_key: usize,
        log_sum_exp: &[f32],
        means: &[f32],
        scale: f32,
        cap: Option<f32>,
    ) = probabilities_and_gradients_body;
}

#[inline(always)]
fn softmax_body(
    scores: &mut [f32],
    stride: usize,
    first_visible: &[u32],
    first_query: usize,
    first_key: usize,
    log_sum_exp: &mut [f32],
    inverse_sums: &mut [f32],
) {
    let outputs = log_sum_exp.iter_mut().zip(inverse_sums);
    for (i, (row, (log_sum, inverse))) in scores.chunks_exact_mut(stride).zip(outputs).enumerate() {
        let seen = first_visible[i] as usize - first_key..first_query + i + 1 - first_key;
        let vectors = whole_vectors(&seen);
        hide(row, &seen, &vectors);
        // Its own key is one of those that it sees.
        (_, *log_sum, *inverse) = row_softmax(&mut row[vectors], f32::NEG_INFINITY);
    }
}

/// Replaces a row of whole vectors by exponentials. Gives that of one more score, the logarithm of the sum of them all, and the
/// factor that makes them sum to one.
#[inline(always)]
fn row_softmax(row: &mut [f32], own: f32) -> (f32, f32, f32) {
    let max = lanes::max(row).max(own);
    let weight = lanes::exp(own - max);
    let sum = lanes::exp_in_place(row, max) + f64::from(weight);
    (weight, (f64::from(max) + sum.ln()) as f32, (1.0 / sum) as f32)
}

#[inline(always)]
fn probabilities_and_gradients_body(
    scores: &mut [f32],
    d_scores: &mut [f32],
    stride: usize,
    first_visible: &[u32],
    first_query: usize,
    first_key: usize,
    log_sum_exp: &[f32],
    means: &[f32],
    scale: f32,
    cap: Option<f32>,
) {
    let rows = scores.chunks_exact_mut(stride).zip(d_scores.chunks_exact_mut(stride));
    for (i, ((row, d_row), (&log_sum, &mean))) in rows.zip(log_sum_exp.iter().zip(means)).enumerate() {
        let seen = first_visible[i] as usize - first_key..first_query + i + 1 - first_key;
        let vectors = whole_vectors(&seen);
        hide(row, &seen, &vectors);
        d_row[..vectors.start].fill(0.0);
        d_row[vectors.end..].fill(0.0);
        row_gradients(&mut row[vectors.clone()], &mut d_row[vectors], log_sum, mean, scale, cap);
    }
}

/// Both of a row of whole vectors.
#[inline(always)]
fn row_gradients(row: &mut [f32], d_row: &mut [f32], log_sum: f32, mean: f32, scale: f32, cap: Option<f32>) {
    let (chunks, _) = row.as_chunks_mut::<LANES>();
    let (d_chunks, _) = d_row.as_chunks_mut::<LANES>();
    for (p, d) in chunks.iter_mut().zip(d_chunks) {
        match cap {
            None => {
                for lane in 0..LANES {
                    (p[lane], d[lane]) = with_gradient(p[lane], d[lane], log_sum, mean, 1.0, scale);
                }
            }
            Some(cap) => {
                for lane in 0..LANES {
                    let slope = slope(p[lane], cap);
                    (p[lane], d[lane]) = with_gradient(p[lane], d[lane], log_sum, mean, slope, scale);
                }
            }
        }
    }
}

/// Hidden scores are infinite and have no slope; their probability of zero would not save the product.
#[inline(always)]
fn slope(score: f32, cap: f32) -> f32 {
    soft_cap::slope(score.max(-cap), cap)
}

/// The probability of a score, and the gradient of the unscaled score.
#[inline(always)]
fn with_gradient(score: f32, d: f32, log_sum: f32, mean: f32, slope: f32, scale: f32) -> (f32, f32) {
    let p = lanes::exp(score - log_sum);
    (p, p * (d - mean) * slope * scale)
}

multiversion! {
    /// As [`softmax`] for side rows: row `i` sees keys `seen[i]` (columns), and itself with the score `own[i]`, which becomes its
    /// weight.
    pub(super) fn side_softmax(
        scores: &mut [f32],
        stride: usize,
        seen: &[Range<usize>],
        own: &mut [f32],
        log_sum_exp: &mut [f32],
        inverse_sums: &mut [f32],
    ) = side_softmax_body;

    /// As [`probabilities_and_gradients`] for side rows; `own` and `d_own` are the score of a row for itself and the gradient of
    /// its probability.
    pub(super) fn side_probabilities_and_gradients(
        scores: &mut [f32],
        d_scores: &mut [f32],
        stride: usize,
        seen: &[Range<usize>],
        own: &mut [f32],
        d_own: &mut [f32],
        log_sum_exp: &[f32],
        means: &[f32],
        scale: f32,
        cap: Option<f32>,
    ) = side_probabilities_and_gradients_body;
}

#[inline(always)]
fn side_softmax_body(
    scores: &mut [f32],
    stride: usize,
    seen: &[Range<usize>],
    own: &mut [f32],
    log_sum_exp: &mut [f32],
    inverse_sums: &mut [f32],
) {
    for (i, row) in scores.chunks_exact_mut(stride).enumerate() {
        let vectors = whole_vectors(&seen[i]);
        hide(row, &seen[i], &vectors);
        (own[i], log_sum_exp[i], inverse_sums[i]) = row_softmax(&mut row[vectors], own[i]);
    }
}

#[inline(always)]
fn side_probabilities_and_gradients_body(
    scores: &mut [f32],
    d_scores: &mut [f32],
    stride: usize,
    seen: &[Range<usize>],
    own: &mut [f32],
    d_own: &mut [f32],
    log_sum_exp: &[f32],
    means: &[f32],
    scale: f32,
    cap: Option<f32>,
) {
    let rows = scores.chunks_exact_mut(stride).zip(d_scores.chunks_exact_mut(stride));
    for (i, (row, d_row)) in rows.enumerate() {
        let vectors = whole_vectors(&seen[i]);
        hide(row, &seen[i], &vectors);
        d_row[..vectors.start].fill(0.0);
        d_row[vectors.end..].fill(0.0);
        let (log_sum, mean) = (log_sum_exp[i], means[i]);
        row_gradients(&mut row[vectors.clone()], &mut d_row[vectors], log_sum, mean, scale, cap);
        let slope = cap.map_or(1.0, |cap| slope(own[i], cap));
        (own[i], d_own[i]) = with_gradient(own[i], d_own[i], log_sum, mean, slope, scale);
    }
}

/// The smallest range of whole vectors that holds `seen`.
#[inline(always)]
fn whole_vectors(seen: &Range<usize>) -> Range<usize> {
    seen.start / LANES * LANES..seen.end.next_multiple_of(LANES)
}

/// Puts zero outside `vectors`, and within them, outside `seen`, the score whose exponential is zero.
#[inline(always)]
fn hide(row: &mut [f32], seen: &Range<usize>, vectors: &Range<usize>) {
    row[..vectors.start].fill(0.0);
    row[vectors.start..seen.start].fill(f32::NEG_INFINITY);
    row[seen.end..vectors.end].fill(f32::NEG_INFINITY);
    row[vectors.end..].fill(0.0);
}
