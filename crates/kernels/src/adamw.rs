//! AdamW (Loshchilov and Hutter, 1711.05101): one pass over parameters, gradient and both moments.

use rayon::prelude::*;

use crate::cpu::multiversion;

/// Elements that one task takes.
const CHUNK: usize = 1 << 14;

/// The settings of the update rule; names and defaults as in `torch.optim.AdamW`.
///
/// In f64, as torch keeps them: near 1 a decay that was rounded to f32 is off by more than the correction of the moments
/// can bear (0.999 by 1e-8, which is 1e-5 of `1 - 0.999`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Step size.
    pub learning_rate: f64,
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the root of the mean of squares.
    pub epsilon: f64,
    /// Decoupled weight decay, per unit of learning rate.
    pub weight_decay: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        Self { learning_rate: 1e-3, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01 }
    }
}

impl AdamW {
    /// Update number `step`, which starts at 1: decays the parameters, updates both moments with `gradient_scale * gradient`
    /// (the scale is for clipping), and takes the step with both moments corrected for their start at zero.
    ///
    /// # Panics
    /// When the lengths disagree or `step` is zero.
    pub fn step(
        &self,
        step: u64,
        parameters: &mut [f32],
        gradient: &[f32],
        first: &mut [f32],
        second: &mut [f32],
        gradient_scale: f32,
    ) {
        let len = parameters.len();
        assert!(
            gradient.len() == len && first.len() == len && second.len() == len,
            "adamw: {len} parameters, {} gradients, {} and {} moments",
            gradient.len(),
            first.len(),
            second.len()
        );
        assert!(step > 0, "adamw: the first update is step 1");
        let factors = self.factors(step, gradient_scale);
        parameters
            .par_chunks_mut(CHUNK)
            .zip(gradient.par_chunks(CHUNK))
            .zip(first.par_chunks_mut(CHUNK))
            .zip(second.par_chunks_mut(CHUNK))
            .for_each(|(((parameters, gradient), first), second)| {
                update(parameters, gradient, first, second, factors);
            });
    }

    /// What is the same for every element, computed in f64.
    fn factors(&self, step: u64, gradient_scale: f32) -> Factors {
        let Self { learning_rate: rate, beta1, beta2, .. } = *self;
        let correction = |beta: f64| 1.0 - beta.powf(step as f64);
        Factors {
            gradient_scale,
            keep: (1.0 - rate * self.weight_decay) as f32,
            first_gain: (1.0 - beta1) as f32,
            second_keep: beta2 as f32,
            second_gain: (1.0 - beta2) as f32,
            step_size: (rate / correction(beta1)) as f32,
            root_of_correction: correction(beta2).sqrt() as f32,
            epsilon: self.epsilon as f32,
        }
    }
}

#[derive(Clone, Copy)]
struct Factors {
    gradient_scale: f32,
    keep: f32,
    first_gain: f32,
    second_keep: f32,
    second_gain: f32,
    step_size: f32,
    root_of_correction: f32,
    epsilon: f32,
}

multiversion! {
    fn update(parameters: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32], factors: Factors)
        = update_body;
}

/// The order of operations is torch's, so that rounding is too.
#[inline(always)]
fn update_body(
    parameters: &mut [f32],
    gradient: &[f32],
    first: &mut [f32],
    second: &mut [f32],
    factors: Factors,
) {
    let elements = parameters.iter_mut().zip(gradient).zip(first.iter_mut().zip(second));
    for ((parameter, gradient), (first, second)) in elements {
        let gradient = gradient * factors.gradient_scale;
        *first += factors.first_gain * (gradient - *first);
        *second = *second * factors.second_keep + factors.second_gain * gradient * gradient;
        let denominator = second.sqrt() / factors.root_of_correction + factors.epsilon;
        *parameter = *parameter * factors.keep - factors.step_size * *first / denominator;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{self, assert_close, random_values};

    fn widened(x: &[f32]) -> Vec<f64> {
        x.iter().map(|&x| f64::from(x)).collect()
    }

    #[test]
    fn twenty_steps_agree_with_plain() {
        let rule = AdamW { learning_rate: 0.02, weight_decay: 0.1, ..AdamW::default() };
        for len in [0, 1, 17, CHUNK + 5] {
            let mut parameters = random_values(len, 1);
            let (mut first, mut second) = (vec![0.0; len], vec![0.0; len]);
            let mut plain = (widened(&parameters), vec![0.0; len], vec![0.0; len]);
            for step in 1..=20 {
                let gradient = random_values(len, 100 + step);
                rule.step(step, &mut parameters, &gradient, &mut first, &mut second, 0.5);
                let clipped: Vec<f64> = widened(&gradient).iter().map(|g| 0.5 * g).collect();
                reference::adamw_step(&rule, step, &mut plain.0, &clipped, &mut plain.1, &mut plain.2);
            }
            assert_close(&parameters, &plain.0, 1e-5, "parameters");
            assert_close(&first, &plain.1, 1e-6, "first moments");
            assert_close(&second, &plain.2, 1e-6, "second moments");
        }
    }

    #[test]
    fn the_first_step_has_the_size_of_the_learning_rate() {
        let rule = AdamW { learning_rate: 0.1, weight_decay: 0.5, epsilon: 0.0, ..AdamW::default() };
        let mut parameters = [2.0, 2.0, 2.0];
        rule.step(1, &mut parameters, &[3.0, -1e-3, 7.0], &mut [0.0; 3], &mut [0.0; 3], 1.0);
        assert_close(&parameters, &[1.8, 2.0, 1.8], 1e-6, "decay by 5 percent, then a step of 0.1");
    }

    #[test]
    fn a_large_step_number_corrects_nothing() {
        let mut parameters = [1.0];
        AdamW::default().step(u64::MAX, &mut parameters, &[1.0], &mut [1.0], &mut [1.0], 1.0);
        assert_close(&parameters, &[1.0 - 1e-5 - 1e-3], 1e-6, "parameters");
    }
}
