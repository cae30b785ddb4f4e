//! Soft cap: `cap tanh(x / cap)`, which is `x` near zero and never beyond the cap (Gemma 2, 2408.00118 section 2).

use crate::cpu::multiversion;
use crate::vector::lanes;

multiversion! {
    /// Caps every element of `x`. No other element has a part in its bits.
    pub fn forward(x: &mut [f32], cap: f32) = forward_body;

    /// Gradient of [`forward`]: multiplies `d` by the slope at each element, given the capped values `y`.
    ///
    /// # Panics
    /// When the lengths disagree.
    pub fn backward(y: &[f32], cap: f32, d: &mut [f32]) = backward_body;
}

#[inline(always)]
pub(crate) fn forward_body(x: &mut [f32], cap: f32) {
    for x in x {
        *x = cap * lanes::tanh(*x / cap);
    }
}

#[inline(always)]
fn backward_body(y: &[f32], cap: f32, d: &mut [f32]) {
    assert_eq!(y.len(), d.len(), "soft cap: the gradient has another length than its input");
    for (d, &y) in d.iter_mut().zip(y) {
        *d *= slope(y, cap);
    }
}

/// Derivative of the cap where its value is `y`: `1 - tanh^2`.
#[inline(always)]
pub(crate) fn slope(y: f32, cap: f32) -> f32 {
    let t = y / cap;
    1.0 - t * t
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{self, assert_close, finite_difference, random_values, weighted_sum};

    const LENGTHS: [usize; 4] = [0, 1, 17, 100];

    /// Numbers on both sides of the cap.
    fn inputs(len: usize) -> Vec<f32> {
        random_values(len, 1).iter().map(|x| 9.0 * x).collect()
    }

    #[test]
    fn forward_and_backward_agree_with_plain() {
        for len in LENGTHS {
            for cap in [0.5, 3.0, 50.0] {
                let x = inputs(len);
                let mut y = x.clone();
                forward(&mut y, cap);
                let plain: Vec<f64> = x.iter().map(|&x| reference::soft_cap(x, cap)).collect();
                assert_close(&y, &plain, 1e-6, &format!("{len} at {cap}"));
                let d_y = random_values(len, 2);
                let mut d = d_y.clone();
                backward(&y, cap, &mut d);
                let slopes = x.iter().map(|&x| reference::soft_cap_backward(x, cap));
                let plain: Vec<f64> = slopes.zip(d_y).map(|(s, d)| s * f64::from(d)).collect();
                assert_close(&d, &plain, 1e-6, &format!("gradient, {len} at {cap}"));
            }
        }
    }

    #[test]
    fn backward_agrees_with_finite_differences() {
        let (x, d_y) = (inputs(12), random_values(12, 2));
        let mut y = x.clone();
        forward(&mut y, 4.0);
        let mut d = d_y.clone();
        backward(&y, 4.0, &mut d);
        let by_difference = finite_difference(&x, 1e-3, |x| {
            let y: Vec<f64> = x.iter().map(|&x| reference::soft_cap(x, 4.0)).collect();
            weighted_sum(&y, &d_y)
        });
        assert_close(&d, &by_difference, 1e-5, "d");
    }

    #[test]
    fn large_values_reach_the_cap_and_no_further() {
        let mut x = [1e30, -1e30, f32::INFINITY];
        forward(&mut x, 5.0);
        assert_eq!(x, [5.0, -5.0, 5.0]);
    }
}
