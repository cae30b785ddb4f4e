//! Muon (Jordan et al. 2024, scaled as by Liu et al. 2502.16982): a matrix moves in the direction of its momentum with all singular
//! values brought near 1, so that rare directions learn as fast as common ones.

use crate::matmul::{View, ViewMut, Write, product_nn, product_nt, product_tn};

/// Coefficients of the odd polynomial (Jordan et al.): in [`ROUNDS`] rounds it takes singular values from 0.01 to 1 to between about 0.7
/// and 1.2. One that converges would need more rounds, and trains no better.
const COEFFICIENTS: [f32; 3] = [3.4445, -4.7750, 2.0315];
const ROUNDS: usize = 5;

/// Root mean square of an update for a learning rate of 1, about that of AdamW (2502.16982, section 2.2).
const SIZE: f64 = 0.2;

/// The settings of the update rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Muon {
    /// Step size, on the scale of AdamW's.
    pub learning_rate: f64,
    /// Decay of the mean of gradients.
    pub momentum: f64,
    /// Decoupled weight decay, per unit of learning rate.
    pub weight_decay: f64,
}

impl Default for Muon {
    fn default() -> Self {
        Self { learning_rate: 1e-3, momentum: 0.95, weight_decay: 0.01 }
    }
}

impl Muon {
    /// One update of the matrix `parameters`, `[rows, columns]`: `mean`, which starts at 0, is updated with `gradient_scale * gradient`
    /// and looked at one step ahead (Nesterov).
    ///
    /// # Panics
    /// When the lengths disagree.
    pub fn step(
        &self,
        [rows, columns]: [usize; 2],
        parameters: &mut [f32],
        gradient: &[f32],
        mean: &mut [f32],
        gradient_scale: f32,
    ) {
        let lengths = [parameters.len(), gradient.len(), mean.len()];
        assert!(
            lengths == [rows * columns; 3],
            "muon: a matrix of {rows} x {columns}, and {lengths:?} parameters, gradients and means"
        );
        let momentum = self.momentum as f32;
        let mut direction = vec![0.0; gradient.len()];
        for ((direction, mean), gradient) in direction.iter_mut().zip(&mut *mean).zip(gradient) {
            let gradient = gradient * gradient_scale;
            *mean += (1.0 - momentum) * (gradient - *mean);
            *direction = gradient + momentum * (*mean - gradient);
        }
        let direction = orthogonal(direction, rows, columns);
        let keep = (1.0 - self.learning_rate * self.weight_decay) as f32;
        let step_size = (self.learning_rate * SIZE * (rows.max(columns) as f64).sqrt()) as f32;
        for (parameter, direction) in parameters.iter_mut().zip(&direction) {
            *parameter = *parameter * keep - step_size * direction;
        }
    }
}

/// `matrix` with its singular values near 1, by Newton's and Schulz's iteration on its shorter side. A matrix of zeros stays one.
fn orthogonal(mut x: Vec<f32>, rows: usize, columns: usize) -> Vec<f32> {
    let length = x.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
    let scale = (1.0 / (length + 1e-12)) as f32;
    x.iter_mut().for_each(|x| *x *= scale);
    let [a, b, c] = COEFFICIENTS;
    let side = rows.min(columns);
    let (mut gram, mut square, mut next) = (vec![0.0; side * side], vec![0.0; side * side], x.clone());
    for _ in 0..ROUNDS {
        let matrix = View::new(&x, rows, columns);
        let onto_gram = ViewMut::new(&mut gram, side, side);
        match rows <= columns {
            true => product_nt(matrix, matrix, onto_gram, Write::Overwrite),
            false => product_tn(matrix, matrix, onto_gram, Write::Overwrite),
        }
        let factor = View::new(&gram, side, side);
        product_nn(factor, factor, ViewMut::new(&mut square, side, side), Write::Overwrite);
        square.iter_mut().zip(&gram).for_each(|(square, gram)| *square = b * gram + c * *square);
        let factor = View::new(&square, side, side);
        let (left, right) = if rows <= columns { (factor, matrix) } else { (matrix, factor) };
        product_nn(left, right, ViewMut::new(&mut next, rows, columns), Write::Overwrite);
        next.iter_mut().zip(&x).for_each(|(next, x)| *next += a * x);
        std::mem::swap(&mut x, &mut next);
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{assert_close, random_values};

    /// The iteration in f64, by its formula.
    fn plain(matrix: &[f32], rows: usize, columns: usize) -> Vec<f64> {
        let product = |a: &[f64], b: &[f64], m: usize, k: usize, n: usize| -> Vec<f64> {
            let at = |i: usize| (0..k).map(|l| a[i / n * k + l] * b[l * n + i % n]).sum();
            (0..m * n).map(at).collect()
        };
        let turn =
            |x: &[f64], m: usize, n: usize| (0..m * n).map(|i| x[i % m * n + i / m]).collect::<Vec<_>>();
        let length = matrix.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let mut x: Vec<f64> = matrix.iter().map(|&x| f64::from(x) / length).collect();
        let [a, b, c] = COEFFICIENTS.map(f64::from);
        for _ in 0..ROUNDS {
            let gram = product(&x, &turn(&x, rows, columns), rows, columns, rows);
            let once = product(&gram, &x, rows, rows, columns);
            let twice = product(&gram, &once, rows, rows, columns);
            x = (0..x.len()).map(|i| a * x[i] + b * once[i] + c * twice[i]).collect();
        }
        x
    }

    #[test]
    fn directions_agree_with_plain() {
        for (rows, columns) in [(1, 1), (1, 9), (7, 3), (24, 40), (40, 24), (33, 33)] {
            let matrix = random_values(rows * columns, 7);
            let expected = plain(&matrix, rows, columns);
            assert_close(&orthogonal(matrix, rows, columns), &expected, 2e-4, "directions");
        }
    }

    /// Of a diagonal matrix the singular values can be seen.
    #[test]
    fn singular_values_come_near_1() {
        let values = [1.0, 0.5, 0.2, 0.05, -0.02];
        let matrix = (0..25).map(|i| if i % 6 == 0 { values[i / 6] } else { 0.0 }).collect();
        let found = orthogonal(matrix, 5, 5);
        for (place, found) in found.into_iter().enumerate() {
            match place % 6 {
                0 => assert!((0.65..1.25).contains(&(found * values[place / 6].signum())), "{found}"),
                _ => assert_eq!(found, 0.0),
            }
        }
        assert_eq!(orthogonal(vec![0.0; 6], 2, 3), [0.0; 6]);
    }

    /// A matrix whose singular values are equal moves along its gradient, by 0.2 of the learning rate in the root mean square of what
    /// the longer side gives.
    #[test]
    fn a_step_decays_and_moves_against_the_gradient() {
        let rule = Muon { learning_rate: 0.1, momentum: 0.5, weight_decay: 1.0 };
        let (mut parameters, mut mean) = ([1.0, 0.0, 0.0, 1.0], [0.0; 4]);
        rule.step([2, 2], &mut parameters, &[4.0, 0.0, 0.0, 4.0], &mut mean, 0.5);
        assert_eq!(mean, [1.0, 0.0, 0.0, 1.0]);
        let expected = 0.9 - 0.1 * 0.2 * 2f64.sqrt() * plain(&[1.0, 0.0, 0.0, 1.0], 2, 2)[0];
        assert_close(&parameters, &[expected, 0.0, 0.0, expected], 1e-6, "parameters");
    }
}
