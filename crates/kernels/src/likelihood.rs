//! Likelihoods row by row, gradients weighted row by row, and mixtures of softmaxes: what heads need whose loss is no sum over
//! heads.

use rayon::prelude::*;

use crate::cpu::multiversion;
use crate::cross_entropy::{LossSum, cross_entropy_loss, softmax_cross_entropy_in_place};
use crate::vector::lanes;

/// The loss of each row of `logits` `[rows, vocabulary]` for `targets` `[rows]`; nothing where a row has no target. With a `cap`
/// the logits are capped first, in place.
///
/// # Panics
/// When the lengths disagree or a target is beyond the vocabulary.
pub fn losses_of_rows(
    logits: &mut [f32],
    vocabulary: usize,
    targets: &[u32],
    cap: Option<f32>,
    losses: &mut [LossSum],
) {
    assert_eq!(losses.len(), targets.len(), "losses of rows: losses and targets disagree");
    assert_eq!(logits.len(), targets.len() * vocabulary, "losses of rows: targets and logits disagree");
    let rows = logits.par_chunks_mut(vocabulary).zip(targets.par_chunks(1)).zip(losses);
    rows.for_each(|((row, target), loss)| {
        if let Some(cap) = cap {
            crate::soft_cap::forward(row, cap);
        }
        *loss = cross_entropy_loss(row, vocabulary, target);
    });
}

/// Replaces each row of `logits` `[rows, vocabulary]` by its `weight` times the gradient of its loss, which is zero for rows
/// without a target.
///
/// # Panics
/// When the lengths disagree or a target is beyond the vocabulary.
pub fn weighted_gradients_in_place(
    logits: &mut [f32],
    vocabulary: usize,
    targets: &[u32],
    weights: &[f32],
    cap: Option<f32>,
) {
    assert_eq!(weights.len(), targets.len(), "weighted gradients: weights and targets disagree");
    assert_eq!(logits.len(), targets.len() * vocabulary, "weighted gradients: targets and logits disagree");
    let rows = logits.par_chunks_mut(vocabulary).zip(targets.par_chunks(1)).zip(weights);
    rows.for_each(|((row, target), &weight)| {
        softmax_cross_entropy_in_place(row, vocabulary, target, weight, cap);
    });
}

multiversion! {
    /// Replaces logits by their softmax, and gives the logarithm of the sum of their exponentials.
    pub fn softmax_in_place(row: &mut [f32]) -> f64 = softmax_body;
}

#[inline(always)]
fn softmax_body(row: &mut [f32]) -> f64 {
    let max = lanes::max(row);
    let sum = lanes::exp_in_place(row, max);
    lanes::scale(row, (1.0 / sum) as f32);
    f64::from(max) + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cross_entropy::NO_TARGET;
    use crate::reference::{assert_close, random_values};

    #[test]
    fn rows_apart_are_the_rows_together() {
        for (rows, vocabulary) in [(0, 3), (1, 1), (5, 33), (19, 16), (3, 2500)] {
            for cap in [None, Some(2.0)] {
                let logits: Vec<f32> = random_values(rows * vocabulary, 1).iter().map(|x| 5.0 * x).collect();
                let target = |row| if row % 5 == 4 { NO_TARGET } else { (row * 31 % vocabulary) as u32 };
                let targets: Vec<u32> = (0..rows).map(target).collect();
                let weights: Vec<f32> = (0..rows).map(|row| row as f32 - 1.5).collect();
                let mut losses = vec![LossSum::default(); rows];
                losses_of_rows(&mut logits.clone(), vocabulary, &targets, cap, &mut losses);
                let mut gradients = logits.clone();
                weighted_gradients_in_place(&mut gradients, vocabulary, &targets, &weights, cap);
                for row in 0..rows {
                    let here = row * vocabulary..(row + 1) * vocabulary;
                    let mut alone = logits[here.clone()].to_vec();
                    let target = &targets[row..row + 1];
                    let loss =
                        softmax_cross_entropy_in_place(&mut alone, vocabulary, target, weights[row], cap);
                    assert_eq!((losses[row], &gradients[here]), (loss, alone.as_slice()), "row {row}");
                }
            }
        }
    }

    #[test]
    fn softmax_agrees_with_plain() {
        for len in [1, 7, 16, 33, 2500] {
            let logits: Vec<f32> = random_values(len, 3).iter().map(|x| 9.0 * x).collect();
            let mut fast = logits.clone();
            let log_sum = softmax_in_place(&mut fast);
            let exps: Vec<f64> = logits.iter().map(|&x| f64::from(x).exp()).collect();
            let sum: f64 = exps.iter().sum();
            assert_close(&fast, &exps.iter().map(|e| e / sum).collect::<Vec<f64>>(), 1e-6, "softmax");
            assert!((log_sum - sum.ln()).abs() < 1e-6, "{log_sum}");
        }
    }
}
