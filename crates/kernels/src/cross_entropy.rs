//! Softmax cross-entropy over rows of logits, with the gradient written over the logits.

use std::iter::Sum;
use std::ops::AddAssign;

use rayon::prelude::*;

use crate::cpu::multiversion;
use crate::soft_cap;
use crate::vector::lanes;

/// The target of a row that has none.
pub const NO_TARGET: u32 = u32::MAX;

/// Rows per task and per partial sum: fixed, so that sums do not depend on the threads.
const ROWS_PER_BLOCK: usize = 8;

/// What a number of rows with targets add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossSum {
    /// Sum of negative log-likelihoods, in nats.
    pub nll: f64,
    /// Rows that had a target.
    pub targets: usize,
    /// Rows whose largest logit is that of the target; among equal logits the lowest id counts as the largest.
    pub correct: usize,
}

impl AddAssign for LossSum {
    fn add_assign(&mut self, other: Self) {
        self.nll += other.nll;
        self.targets += other.targets;
        self.correct += other.correct;
    }
}

impl Sum for LossSum {
    fn sum<I: Iterator<Item = Self>>(sums: I) -> Self {
        sums.fold(Self::default(), |mut total, sum| {
            total += sum;
            total
        })
    }
}

/// The loss of `logits` `[rows, vocabulary]` for `targets` `[rows]`, each an id or [`NO_TARGET`]; with a `cap`, the logits pass
/// through a soft cap first.
///
/// The logits are replaced by `scale` times the gradient of the summed loss, which is that of the logits before the cap, and zero
/// for rows without a target.
///
/// # Panics
/// When the lengths disagree or a target is beyond the vocabulary.
pub fn softmax_cross_entropy_in_place(
    logits: &mut [f32],
    vocabulary: usize,
    targets: &[u32],
    scale: f32,
    cap: Option<f32>,
) -> LossSum {
    check(logits.len(), vocabulary, targets);
    let blocks = logits.par_chunks_mut(vocabulary * ROWS_PER_BLOCK).zip(targets.par_chunks(ROWS_PER_BLOCK));
    let sums = blocks.map_init(Vec::new, |capped, (logits, targets)| {
        let mut sum = LossSum::default();
        for (row, &target) in logits.chunks_exact_mut(vocabulary).zip(targets) {
            sum += row_in_place(row, target, scale, cap, capped);
        }
        sum
    });
    // In order, so that the threads do not show in the bits.
    sums.collect::<Vec<_>>().into_iter().sum()
}

/// The loss of one row, whose gradient replaces it; `capped` is room for a row.
fn row_in_place(
    row: &mut [f32],
    target: u32,
    scale: f32,
    cap: Option<f32>,
    capped: &mut Vec<f32>,
) -> LossSum {
    if target == NO_TARGET {
        row.fill(0.0);
        return LossSum::default();
    }
    let Some(cap) = cap else { return loss_and_gradient_of_row(row, target as usize, scale) };
    soft_cap::forward(row, cap);
    capped.clear();
    capped.extend_from_slice(row);
    let loss = loss_and_gradient_of_row(row, target as usize, scale);
    soft_cap::backward(capped, cap, row);
    loss
}

/// As [`softmax_cross_entropy_in_place`] with the loss of each row apart: overwrites `losses` `[rows]`, where a row without a
/// target has nothing.
///
/// # Panics
/// When the lengths disagree or a target is beyond the vocabulary.
pub fn softmax_cross_entropy_of_rows(
    logits: &mut [f32],
    vocabulary: usize,
    targets: &[u32],
    scale: f32,
    cap: Option<f32>,
    losses: &mut [LossSum],
) {
    check(logits.len(), vocabulary, targets);
    assert_eq!(losses.len(), targets.len(), "cross entropy: losses and targets disagree");
    let rows = logits.par_chunks_mut(vocabulary).zip(targets).zip(losses);
    rows.with_min_len(ROWS_PER_BLOCK).for_each_init(Vec::new, |capped, ((row, &target), loss)| {
        *loss = row_in_place(row, target, scale, cap, capped);
    });
}

/// The loss alone; the same bits as [`softmax_cross_entropy_in_place`] returns.
///
/// # Panics
/// When the lengths disagree or a target is beyond the vocabulary.
pub fn cross_entropy_loss(logits: &[f32], vocabulary: usize, targets: &[u32]) -> LossSum {
    check(logits.len(), vocabulary, targets);
    let blocks = logits.par_chunks(vocabulary * ROWS_PER_BLOCK).zip(targets.par_chunks(ROWS_PER_BLOCK));
    let sums = blocks.map(|(logits, targets)| {
        let mut sum = LossSum::default();
        for (row, &target) in logits.chunks_exact(vocabulary).zip(targets) {
            if target != NO_TARGET {
                sum += loss_of_row(row, target as usize);
            }
        }
        sum
    });
    // In order, so that the threads do not show in the bits.
    sums.collect::<Vec<_>>().into_iter().sum()
}

multiversion! {
    fn loss_of_row(row: &[f32], target: usize) -> LossSum = loss_of_row_body;
    fn loss_and_gradient_of_row(row: &mut [f32], target: usize, scale: f32) -> LossSum = loss_and_gradient_of_row_body;
}

#[inline(always)]
fn loss_of_row_body(row: &[f32], target: usize) -> LossSum {
    let max = lanes::max(row);
    let correct = is_first_largest(row, target, max);
    row_loss(row[target], max, lanes::sum_of_exp(row, max), correct)
}

#[inline(always)]
fn loss_and_gradient_of_row_body(row: &mut [f32], target: usize, scale: f32) -> LossSum {
    let max = lanes::max(row);
    let correct = is_first_largest(row, target, max);
    let logit = row[target];
    let sum = lanes::exp_in_place(row, max);
    lanes::scale(row, (f64::from(scale) / sum) as f32);
    row[target] -= scale;
    row_loss(logit, max, sum, correct)
}

#[inline(always)]
fn is_first_largest(row: &[f32], target: usize, max: f32) -> bool {
    row[target] == max && row[..target].iter().all(|&logit| logit != max)
}

#[inline(always)]
fn row_loss(logit: f32, max: f32, sum: f64, correct: bool) -> LossSum {
    let nll = f64::from(max) - f64::from(logit) + sum.ln();
    LossSum { nll, targets: 1, correct: usize::from(correct) }
}

fn check(logits: usize, vocabulary: usize, targets: &[u32]) {
    assert!(vocabulary > 0, "cross entropy: the vocabulary is empty");
    assert_eq!(logits, targets.len() * vocabulary, "cross entropy: targets and logits disagree");
    let bad = targets.iter().find(|&&target| target != NO_TARGET && target as usize >= vocabulary);
    assert!(bad.is_none(), "cross entropy: target {bad:?} in a vocabulary of {vocabulary}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::likelihood::losses_of_rows;
    use crate::reference::{self, assert_close, finite_difference, random_values};

    /// `(rows, vocabulary)`, among them more than one block of rows and a row wider than one f32 sum.
    const SHAPES: [(usize, usize); 6] = [(0, 3), (1, 1), (1, 7), (5, 33), (19, 16), (9, 2500)];

    #[test]
    fn rows_apart_are_the_rows_together() {
        for (rows, vocabulary) in SHAPES {
            for cap in [None, Some(2.0)] {
                let (mut logits, targets) = inputs(rows, vocabulary);
                let mut together = logits.clone();
                let sum = softmax_cross_entropy_in_place(&mut together, vocabulary, &targets, 0.3, cap);
                let mut alone = logits.clone();
                let stale = vec![LossSum { nll: 9.0, targets: 9, correct: 9 }; rows];
                let (mut losses, mut of_alone) = (stale.clone(), stale);
                softmax_cross_entropy_of_rows(&mut logits, vocabulary, &targets, 0.3, cap, &mut losses);
                losses_of_rows(&mut alone, vocabulary, &targets, cap, &mut of_alone);
                assert_eq!((&logits, &losses), (&together, &of_alone));
                let total: LossSum = losses.into_iter().sum();
                assert_eq!((total.targets, total.correct), (sum.targets, sum.correct));
                assert!((total.nll - sum.nll).abs() <= 1e-12 * sum.nll.abs());
            }
        }
    }

    /// Logits between -5 and 5, and targets of which every fifth is missing.
    fn inputs(rows: usize, vocabulary: usize) -> (Vec<f32>, Vec<u32>) {
        let logits = random_values(rows * vocabulary, 1).iter().map(|x| 5.0 * x).collect();
        let target = |row| if row % 5 == 4 { NO_TARGET } else { (row * 31 % vocabulary) as u32 };
        (logits, (0..rows).map(target).collect())
    }

    #[test]
    fn loss_and_gradient_agree_with_plain() {
        for (rows, vocabulary) in SHAPES {
            let (logits, targets) = inputs(rows, vocabulary);
            let what = format!("{rows} x {vocabulary}");
            let plain = reference::cross_entropy(&logits, vocabulary, &targets);
            let mut gradient = logits.clone();
            let sum = softmax_cross_entropy_in_place(&mut gradient, vocabulary, &targets, 0.5, None);
            assert!(
                (sum.nll - plain.nll).abs() <= 1e-6 * (1.0 + plain.nll),
                "{what}: {sum:?}, expected {plain:?}"
            );
            assert_eq!((sum.targets, sum.correct), (plain.targets, plain.correct), "{what}");
            assert_eq!(cross_entropy_loss(&logits, vocabulary, &targets), sum, "{what}");
            let plain = reference::cross_entropy_gradient(&logits, vocabulary, &targets, 0.5);
            assert_close(&gradient, &plain, 1e-6, &what);
        }
    }

    #[test]
    fn gradient_agrees_with_finite_differences() {
        let (rows, vocabulary) = (6, 9);
        let (logits, targets) = inputs(rows, vocabulary);
        let mut gradient = logits.clone();
        softmax_cross_entropy_in_place(&mut gradient, vocabulary, &targets, 1.0, None);
        let by_difference =
            finite_difference(&logits, 1e-3, |x| reference::cross_entropy(x, vocabulary, &targets).nll);
        assert_close(&gradient, &by_difference, 1e-5, "gradient");
    }

    #[test]
    fn a_cap_acts_before_the_softmax_and_on_the_gradient() {
        const CAP: f32 = 2.0;
        let capped = |logits: &[f32]| -> Vec<f32> {
            logits.iter().map(|&x| reference::soft_cap(x, CAP) as f32).collect()
        };
        for (rows, vocabulary) in SHAPES {
            let (logits, targets) = inputs(rows, vocabulary);
            let plain = reference::cross_entropy(&capped(&logits), vocabulary, &targets);
            let mut gradient = logits.clone();
            let sum = softmax_cross_entropy_in_place(&mut gradient, vocabulary, &targets, 0.5, Some(CAP));
            assert!((sum.nll - plain.nll).abs() <= 1e-6 * (1.0 + plain.nll), "{sum:?}, expected {plain:?}");
            let mut alone = logits.clone();
            soft_cap::forward(&mut alone, CAP);
            assert_eq!(cross_entropy_loss(&alone, vocabulary, &targets), sum);
            let plain = reference::cross_entropy_gradient(&capped(&logits), vocabulary, &targets, 0.5);
            let slopes = logits.iter().map(|&x| reference::soft_cap_backward(x, CAP));
            let plain: Vec<f64> = plain.iter().zip(slopes).map(|(g, slope)| g * slope).collect();
            assert_close(&gradient, &plain, 1e-6, &format!("{rows} x {vocabulary}"));
        }
        let (logits, targets) = inputs(6, 9);
        let mut gradient = logits.clone();
        softmax_cross_entropy_in_place(&mut gradient, 9, &targets, 1.0, Some(CAP));
        let by_difference = finite_difference(&logits, 1e-3, |x| {
            let nll = |row: &[f32], target: u32| {
                let row: Vec<f64> = row.iter().map(|&x| reference::soft_cap(x, CAP)).collect();
                row.iter().map(|x| x.exp()).sum::<f64>().ln() - row[target as usize]
            };
            let rows = x.chunks(9).zip(&targets).filter(|(_, target)| **target != NO_TARGET);
            rows.map(|(row, target)| nll(row, *target)).sum()
        });
        assert_close(&gradient, &by_difference, 1e-5, "gradient");
    }

    #[test]
    fn the_lowest_of_equal_ids_is_the_argmax() {
        let logits = [1.0, 3.0, 3.0, 0.0];
        assert_eq!(cross_entropy_loss(&logits, 4, &[1]).correct, 1);
        assert_eq!(cross_entropy_loss(&logits, 4, &[2]).correct, 0);
    }

    #[test]
    fn huge_logits_stay_finite_and_what_is_no_number_shows() {
        let mut logits = [1e4, -1e4, 0.0];
        let sum = softmax_cross_entropy_in_place(&mut logits, 3, &[1], 1.0, None);
        assert_eq!((sum.nll, logits), (2e4, [1.0, -1.0, 0.0]));
        assert!(cross_entropy_loss(&[0.0, f32::NAN, 1.0], 3, &[0]).nll.is_nan());
    }

    #[test]
    #[should_panic(expected = "target Some(4) in a vocabulary of 4")]
    fn a_target_beyond_the_vocabulary_is_refused() {
        cross_entropy_loss(&[0.0; 4], 4, &[4]);
    }
}
