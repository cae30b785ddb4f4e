//! A mixture of softmaxes against a distribution that it is to resemble, one row at a time: divergence and gradients. What
//! distillation needs.

use rayon::prelude::*;

/// `of(row, values)` for each row of `values` `[rows, width]`, in parallel; results in the order of the rows.
///
/// # Panics
/// When `width` is 0.
pub fn map_rows<T: Send>(
    values: &mut [f32],
    width: usize,
    of: &(dyn Fn(usize, &mut [f32]) -> T + Sync),
) -> Vec<T> {
    values.par_chunks_exact_mut(width).enumerate().map(|(row, values)| of(row, values)).collect()
}

/// `sum over v of p(v) ln(p(v) / q(v))` with `q = sum over a of shares[a] components[a]`. `components` `[rank, vocabulary]` and
/// `teacher` `[vocabulary]` (p) are probabilities. Leaves in `ratios` `[rank]` what each component is worth to p:
/// `sum over v of p(v) components[a](v) / q(v)`, whose mean by `shares` is 1.
///
/// # Panics
/// When the lengths disagree.
pub fn divergence(components: &[f32], shares: &[f64], teacher: &[f32], ratios: &mut [f64]) -> f64 {
    check(components.len(), shares.len(), teacher.len());
    assert_eq!(ratios.len(), shares.len(), "mixture: shares and ratios disagree");
    ratios.fill(0.0);
    let mut sum = 0.0;
    for (token, &p) in teacher.iter().enumerate().filter(|(_, p)| **p > 0.0) {
        let worth = f64::from(p) / mixed(components, shares, teacher.len(), token);
        sum += f64::from(p) * worth.ln();
        for (ratio, component) in ratios.iter_mut().zip(components.chunks_exact(teacher.len())) {
            *ratio += worth * f64::from(component[token]);
        }
    }
    sum
}

/// What the gradient of a row needs beside its probabilities.
#[derive(Clone, Copy, Debug)]
pub struct Weighted<'a> {
    /// `[rank]`: shares of the components in the mixture.
    pub shares: &'a [f64],
    /// `[rank]`: what [`divergence`] left.
    pub ratios: &'a [f64],
    /// What the divergence is multiplied with.
    pub factor: f64,
    /// `[rank]`: what each component's own cross-entropy of `target` is multiplied with.
    pub weights: &'a [f32],
    /// The token.
    pub target: usize,
}

/// Replaces the probabilities of each component by the gradient of
/// `factor * divergence + sum over a of weights[a] * (-ln components[a](target))` with respect to its logits.
///
/// # Panics
/// When the lengths disagree or the target is beyond the vocabulary.
pub fn gradients_in_place(components: &mut [f32], teacher: &[f32], of: &Weighted) {
    let vocabulary = teacher.len();
    check(components.len(), of.shares.len(), vocabulary);
    for (token, &p) in teacher.iter().enumerate() {
        let worth = of.factor * f64::from(p) / mixed(components, of.shares, vocabulary, token);
        for (state, component) in components.chunks_exact_mut(vocabulary).enumerate() {
            let all = f64::from(of.weights[state]) + of.factor * of.shares[state] * of.ratios[state];
            component[token] *= (all - of.shares[state] * worth) as f32;
        }
    }
    for (component, weight) in components.chunks_exact_mut(vocabulary).zip(of.weights) {
        component[of.target] -= weight;
    }
}

/// The probability of `token` in the mixture, which is never 0: its logarithm is taken.
#[inline(always)]
fn mixed(components: &[f32], shares: &[f64], vocabulary: usize, token: usize) -> f64 {
    let parts = shares.iter().zip(components.chunks_exact(vocabulary));
    let sum: f64 = parts.map(|(share, component)| share * f64::from(component[token])).sum();
    sum.max(f64::from(f32::MIN_POSITIVE))
}

fn check(components: usize, rank: usize, vocabulary: usize) {
    assert_eq!(components, rank * vocabulary, "mixture: components and vocabulary disagree");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::likelihood::softmax_in_place;
    use crate::reference::random_values;

    fn probabilities(logits: &[f64], vocabulary: usize) -> Vec<f32> {
        let mut values: Vec<f32> = logits.iter().map(|x| *x as f32).collect();
        for row in values.chunks_exact_mut(vocabulary) {
            softmax_in_place(row);
        }
        values
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        for (rank, vocabulary) in [(1, 1), (1, 7), (3, 5), (2, 33)] {
            let logits: Vec<f64> =
                random_values(rank * vocabulary, 1).iter().map(|x| 2.0 * f64::from(*x)).collect();
            let teacher = probabilities(
                &random_values(vocabulary, 2).iter().map(|x| 3.0 * f64::from(*x)).collect::<Vec<_>>(),
                vocabulary,
            );
            let shares: Vec<f64> = (1..=rank).map(|a| 2.0 * a as f64 / (rank * (rank + 1)) as f64).collect();
            let weights: Vec<f32> = (0..rank).map(|a| 0.3 + a as f32).collect();
            let target = vocabulary / 2;
            // In double precision, from logits.
            let loss = |logits: &[f64]| -> f64 {
                let rows: Vec<Vec<f64>> = logits
                    .chunks_exact(vocabulary)
                    .map(|row| {
                        let sum: f64 = row.iter().map(|x| x.exp()).sum();
                        row.iter().map(|x| x.exp() / sum).collect()
                    })
                    .collect();
                let q =
                    |v: usize| -> f64 { rows.iter().zip(&shares).map(|(row, share)| share * row[v]).sum() };
                let divergence: f64 =
                    teacher.iter().enumerate().map(|(v, &p)| f64::from(p) * (f64::from(p) / q(v)).ln()).sum();
                let own: f64 =
                    rows.iter().zip(&weights).map(|(row, w)| -f64::from(*w) * row[target].ln()).sum();
                0.7 * divergence + own
            };
            let mut components = probabilities(&logits, vocabulary);
            let mut ratios = vec![0.0; rank];
            let found = divergence(&components, &shares, &teacher, &mut ratios);
            let own: f64 = components
                .chunks_exact(vocabulary)
                .zip(&weights)
                .map(|(row, w)| -f64::from(*w) * f64::from(row[target]).ln())
                .sum();
            assert!((0.7 * found + own - loss(&logits)).abs() < 1e-5);
            let mean: f64 = shares.iter().zip(&ratios).map(|(share, ratio)| share * ratio).sum();
            assert!((mean - 1.0).abs() < 1e-5, "{mean}");
            let of = Weighted { shares: &shares, ratios: &ratios, factor: 0.7, weights: &weights, target };
            gradients_in_place(&mut components, &teacher, &of);
            for (index, &exact) in components.iter().enumerate() {
                let at = |step: f64| {
                    let mut logits = logits.clone();
                    logits[index] += step;
                    loss(&logits)
                };
                let numeric = (at(1e-5) - at(-1e-5)) / 2e-5;
                assert!(
                    (numeric - f64::from(exact)).abs() < 1e-5,
                    "{rank} {vocabulary} {index}: {numeric} {exact}"
                );
            }
        }
    }

    #[test]
    fn what_resembles_the_teacher_has_no_divergence() {
        let teacher = probabilities(&[0.5, -1.0, 2.0, 0.0], 4);
        let mut ratios = [0.0; 2];
        let twice = [&teacher[..], &teacher[..]].concat();
        assert!(divergence(&twice, &[0.25, 0.75], &teacher, &mut ratios).abs() < 1e-6);
        assert!(ratios.iter().all(|ratio| (ratio - 1.0).abs() < 1e-6), "{ratios:?}");
        // Probabilities that are 0 leave numbers.
        let far = divergence(&[1.0, 0.0], &[1.0], &[0.0, 1.0], &mut ratios[..1]);
        assert!(far.is_finite() && far > 80.0, "{far}");
    }
}
