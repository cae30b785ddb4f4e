//! GELU as it is defined, `x Phi(x)` with the distribution function of the normal distribution (Hendrycks and Gimpel,
//! 1606.08415): what BERT, ViT and Whisper have between the maps of their feed-forward parts.

use rayon::prelude::*;

/// Elements per task.
const ELEMENTS_PER_BLOCK: usize = 1 << 13;

/// `out = x Phi(x)`, element by element.
///
/// # Panics
/// When the lengths disagree.
pub fn forward(x: &[f32], out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "gelu: inputs and outputs disagree");
    x.par_chunks(ELEMENTS_PER_BLOCK)
        .zip(out.par_chunks_mut(ELEMENTS_PER_BLOCK))
        .for_each(|(x, out)| out.iter_mut().zip(x).for_each(|(out, &x)| *out = x * distribution(x)));
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
        .for_each(|((x, d_out), d_x)| {
            for ((d_x, &d_out), &x) in d_x.iter_mut().zip(d_out).zip(x) {
                *d_x = d_out * (distribution(x) + x * density(x));
            }
        });
}

fn distribution(x: f32) -> f32 {
    0.5 * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// `1 / sqrt(2 pi) e^(-x^2 / 2)`
fn density(x: f32) -> f32 {
    const FACTOR: f32 = 0.398_942_3;
    FACTOR * (-0.5 * x * x).exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{assert_close, finite_difference, random_values, weighted_sum};

    fn plain(x: &[f32]) -> Vec<f64> {
        x.iter()
            .map(|&x| f64::from(x) * 0.5 * libm::erfc(-f64::from(x) * std::f64::consts::FRAC_1_SQRT_2))
            .collect()
    }

    #[test]
    fn known_values() {
        let mut out = [9.0; 5];
        forward(&[0.0, 1.0, -1.0, 40.0, -40.0], &mut out);
        assert_close(&out, &[0.0, 0.841_344_746, -0.158_655_254, 40.0, 0.0], 1e-6, "published values of Phi");
    }

    #[test]
    fn forward_and_backward_agree_with_plain() {
        for len in [0, 1, 37, ELEMENTS_PER_BLOCK + 3] {
            let x: Vec<f32> = random_values(len, 1).iter().map(|x| 4.0 * x).collect();
            let mut out = vec![9.0; len];
            forward(&x, &mut out);
            assert_close(&out, &plain(&x), 1e-6, "forward");
        }
        let x: Vec<f32> = random_values(31, 1).iter().map(|x| 4.0 * x).collect();
        let d_out = random_values(31, 2);
        let mut d_x = vec![9.0; 31];
        backward(&x, &d_out, &mut d_x);
        let by_difference = finite_difference(&x, 1e-3, |x| weighted_sum(&plain(x), &d_out));
        assert_close(&d_x, &by_difference, 1e-5, "backward");
    }
}
