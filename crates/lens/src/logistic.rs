//! Logistic regression, one class against the rest, with L2 and standardised features: what scikit-learn's
//! `StandardScaler` and `LogisticRegression(multi_class="ovr", C=1)` fit, minimised by L-BFGS (Liu and Nocedal 1989).

use kernels::matmul::{View, ViewMut, Write, product_nt, product_tn};
use serde::{Deserialize, Serialize};

/// Steps of the minimiser, at most.
const MOST_STEPS: usize = 300;

/// Pairs of steps that it remembers.
const MEMORY: usize = 8;

/// It stops where no component of the gradient is larger than this share of the number of rows.
const TOLERANCE: f64 = 1e-5;

/// A fitted regression.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Logistic {
    /// Of each feature, taken away before anything else.
    pub mean: Vec<f32>,
    /// Of each feature, divided by.
    pub deviation: Vec<f32>,
    /// `[classes][features]`
    pub weights: Vec<Vec<f32>>,
    /// `[classes]`
    pub bias: Vec<f32>,
}

impl Logistic {
    /// Fits `rows` `[labels.len(), width]` to labels below `classes`.
    pub fn fit(rows: &[f32], width: usize, labels: &[u8], classes: usize) -> Self {
        let count = labels.len();
        let (mean, deviation) = moments(rows, width);
        let mut scaled = rows.to_vec();
        for row in scaled.chunks_exact_mut(width) {
            for ((value, mean), deviation) in row.iter_mut().zip(&mean).zip(&deviation) {
                *value = (*value - mean) / deviation;
            }
        }
        let mut problem =
            Problem { rows: &scaled, width, labels, classes, scores: vec![0.0; count * classes] };
        let solution = minimise(&mut problem, vec![0.0; classes * (width + 1)]);
        let (weights, bias) = solution.split_at(classes * width);
        Self {
            mean,
            deviation,
            weights: weights.chunks_exact(width).map(<[f32]>::to_vec).collect(),
            bias: bias.to_vec(),
        }
    }

    /// How strongly `row` speaks for each class: logits, each against the rest.
    pub fn scores(&self, row: &[f32]) -> Vec<f32> {
        let mut scaled = row.to_vec();
        for ((value, mean), deviation) in scaled.iter_mut().zip(&self.mean).zip(&self.deviation) {
            *value = (*value - mean) / deviation;
        }
        self.weights
            .iter()
            .zip(&self.bias)
            .map(|(weights, bias)| kernels::vector::dot(weights, &scaled) + bias)
            .collect()
    }

    /// The class that `row` speaks for most.
    pub fn class(&self, row: &[f32]) -> usize {
        kernels::argmax::argmax(&self.scores(row))
    }
}

/// Mean and deviation of every column; 1 where a column does not vary.
fn moments(rows: &[f32], width: usize) -> (Vec<f32>, Vec<f32>) {
    let count = (rows.len() / width).max(1) as f64;
    let mut means = vec![0f64; width];
    let mut squares = vec![0f64; width];
    for row in rows.chunks_exact(width) {
        means.iter_mut().zip(row).for_each(|(mean, value)| *mean += f64::from(*value) / count);
    }
    for row in rows.chunks_exact(width) {
        let parts = squares.iter_mut().zip(&means).zip(row);
        parts.for_each(|((square, mean), value)| *square += (f64::from(*value) - mean).powi(2) / count);
    }
    let deviation = squares.iter().map(|square| if *square > 1e-20 { square.sqrt() as f32 } else { 1.0 });
    (means.iter().map(|mean| *mean as f32).collect(), deviation.collect())
}

/// Sum over classes of `|w|^2 / 2 + sum of -log sigmoid(+-(w x + b))`.
struct Problem<'p> {
    rows: &'p [f32],
    width: usize,
    labels: &'p [u8],
    classes: usize,
    /// `[rows, classes]`
    scores: Vec<f32>,
}

impl Problem<'_> {
    /// Value at `point` (weights, then biases); its gradient into `gradient`.
    fn value(&mut self, point: &[f32], gradient: &mut [f32]) -> f64 {
        let (count, width, classes) = (self.labels.len(), self.width, self.classes);
        let (weights, bias) = point.split_at(classes * width);
        let rows = View::new(self.rows, count, width);
        let scores = ViewMut::new(&mut self.scores, count, classes);
        product_nt(rows, View::new(weights, classes, width), scores, Write::Overwrite);
        let mut value: f64 = 0.5 * weights.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>();
        gradient[..classes * width].copy_from_slice(weights);
        gradient[classes * width..].fill(0.0);
        for (row, label) in self.scores.chunks_exact_mut(classes).zip(self.labels) {
            for (class, score) in row.iter_mut().enumerate() {
                let z = f64::from(*score + bias[class]);
                let target = f64::from(u8::from(class == usize::from(*label)));
                // log(1 + e^z) - target z, without overflow.
                value += z.max(0.0) + (-z.abs()).exp().ln_1p() - target * z;
                *score = (1.0 / (1.0 + (-z).exp()) - target) as f32;
                gradient[classes * width + class] += *score;
            }
        }
        let residuals = View::new(&self.scores, count, classes);
        product_tn(
            residuals,
            rows,
            ViewMut::new(&mut gradient[..classes * width], classes, width),
            Write::Add,
        );
        value
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// L-BFGS with backtracking: the problem is convex, and its regularised part strictly.
fn minimise(problem: &mut Problem, mut point: Vec<f32>) -> Vec<f32> {
    let mut gradient = vec![0.0; point.len()];
    let mut value = problem.value(&point, &mut gradient);
    let mut pairs: Vec<(Vec<f32>, Vec<f32>, f64)> = Vec::new();
    let small = TOLERANCE * problem.labels.len().max(1) as f64;
    for _ in 0..MOST_STEPS {
        if gradient.iter().all(|g| f64::from(g.abs()) <= small) {
            break;
        }
        let direction = descent(&gradient, &pairs);
        let slope = dot(&direction, &gradient);
        let mut step = if pairs.is_empty() { 1.0 / dot(&gradient, &gradient).sqrt().max(1.0) } else { 1.0 };
        let mut next_gradient = vec![0.0; point.len()];
        let mut found = None;
        for _ in 0..30 {
            let next: Vec<f32> = point.iter().zip(&direction).map(|(x, d)| x + step as f32 * d).collect();
            let next_value = problem.value(&next, &mut next_gradient);
            if next_value <= value + 1e-4 * step * slope {
                found = Some((next, next_value));
                break;
            }
            step *= 0.5;
        }
        // No step helps: rounding has the last word.
        let Some((next, next_value)) = found else { break };
        let moved: Vec<f32> = next.iter().zip(&point).map(|(a, b)| a - b).collect();
        let turned: Vec<f32> = next_gradient.iter().zip(&gradient).map(|(a, b)| a - b).collect();
        let curvature = dot(&moved, &turned);
        if curvature > 0.0 {
            if pairs.len() == MEMORY {
                pairs.remove(0);
            }
            pairs.push((moved, turned, curvature));
        }
        (point, value, gradient) = (next, next_value, next_gradient);
    }
    point
}

/// The direction of the two-loop recursion.
fn descent(gradient: &[f32], pairs: &[(Vec<f32>, Vec<f32>, f64)]) -> Vec<f32> {
    let mut q: Vec<f32> = gradient.to_vec();
    let mut factors = Vec::with_capacity(pairs.len());
    for (moved, turned, curvature) in pairs.iter().rev() {
        let factor = dot(moved, &q) / curvature;
        q.iter_mut().zip(turned).for_each(|(q, t)| *q -= factor as f32 * t);
        factors.push(factor);
    }
    if let Some((_, turned, curvature)) = pairs.last() {
        let scale = (curvature / dot(turned, turned)) as f32;
        q.iter_mut().for_each(|q| *q *= scale);
    }
    for ((moved, turned, curvature), factor) in pairs.iter().zip(factors.iter().rev()) {
        let other = dot(turned, &q) / curvature;
        q.iter_mut().zip(moved).for_each(|(q, m)| *q += (factor - other) as f32 * m);
    }
    q.iter_mut().for_each(|q| *q = -*q);
    q
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensor::random;

    /// Three clouds in four dimensions, one of which says nothing.
    fn clouds(count: usize) -> (Vec<f32>, Vec<u8>) {
        let mut rng = random::seeded(1, 1);
        let mut rows = Vec::new();
        let labels: Vec<u8> = (0..count).map(|i| (i % 3) as u8).collect();
        for label in &labels {
            let noise = random::normal(&mut rng, 4, 1.0);
            let centre = [[0.0, 0.0], [4.0, 0.0], [0.0, 40.0]][usize::from(*label)];
            rows.extend([noise[0] + centre[0], 10.0 * noise[1] + centre[1], noise[2] - 7.0, 3.0]);
        }
        (rows, labels)
    }

    #[test]
    fn clouds_are_told_apart() {
        let (rows, labels) = clouds(300);
        let fitted = Logistic::fit(&rows, 4, &labels, 3);
        let right = rows
            .chunks(4)
            .zip(&labels)
            .filter(|(row, label)| fitted.class(row) == usize::from(**label))
            .count();
        assert!(right > 270, "{right}");
    }

    /// At the minimum the gradient vanishes, and it is the gradient of the value.
    #[test]
    fn the_minimum_is_one() {
        let (rows, labels) = clouds(60);
        let mut problem =
            Problem { rows: &rows, width: 4, labels: &labels, classes: 3, scores: vec![0.0; 180] };
        let point: Vec<f32> = (0..15).map(|i| 0.02 * i as f32 - 0.1).collect();
        let (mut gradient, mut other) = (vec![0.0; 15], vec![0.0; 15]);
        problem.value(&point, &mut gradient);
        for index in 0..15 {
            let mut at = |step: f32| {
                let mut moved = point.clone();
                moved[index] += step;
                problem.value(&moved, &mut other)
            };
            let numeric = (at(1e-3) - at(-1e-3)) / 2e-3;
            assert!((numeric - f64::from(gradient[index])).abs() < 2e-3 * (1.0 + numeric.abs()), "{index}");
        }
        let fitted = Logistic::fit(&rows, 4, &labels, 3);
        let scaled: Vec<f32> = rows
            .chunks(4)
            .flat_map(|row| {
                (0..4).map(|i| (row[i] - fitted.mean[i]) / fitted.deviation[i]).collect::<Vec<_>>()
            })
            .collect();
        let mut problem =
            Problem { rows: &scaled, width: 4, labels: &labels, classes: 3, scores: vec![0.0; 180] };
        let point: Vec<f32> = fitted.weights.concat().into_iter().chain(fitted.bias.clone()).collect();
        problem.value(&point, &mut gradient);
        assert!(gradient.iter().all(|g| g.abs() < 5e-3), "{gradient:?}");
    }

    #[test]
    fn a_column_that_never_varies_does_no_harm() {
        let (mean, deviation) = moments(&[1.0, 5.0, 3.0, 5.0], 2);
        assert_eq!((mean, deviation), (vec![2.0, 5.0], vec![1.0, 1.0]));
    }
}
