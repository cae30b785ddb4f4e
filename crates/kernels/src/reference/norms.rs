//! Plain norms over the columns of each row.

/// `y = x / sqrt(mean(x^2) + epsilon) * weight` for every row of `x` `[rows, width]`; `width` is the length of `weight`.
pub fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32) -> Vec<f64> {
    let mut y = Vec::with_capacity(x.len());
    for row in x.chunks(weight.len()) {
        let inverse = inverse_rms(row, epsilon);
        y.extend(row.iter().zip(weight).map(|(&x, &w)| f64::from(x) * inverse * f64::from(w)));
    }
    y
}

/// Gradients of [`rms_norm`] for `x` and for `weight`.
///
/// With `s = 1 / rms` and `g = dy * weight`: `dx = s g - x s^3 mean(g x)`, `dweight = sum over rows of dy x s`.
pub fn rms_norm_backward(x: &[f32], weight: &[f32], epsilon: f32, dy: &[f32]) -> (Vec<f64>, Vec<f64>) {
    let width = weight.len();
    let mut dx = Vec::with_capacity(x.len());
    let mut d_weight = vec![0.0; width];
    for (x, dy) in x.chunks(width).zip(dy.chunks(width)) {
        let inverse = inverse_rms(x, epsilon);
        let g: Vec<f64> = dy.iter().zip(weight).map(|(&dy, &w)| f64::from(dy) * f64::from(w)).collect();
        let mean = g.iter().zip(x).map(|(g, &x)| g * f64::from(x)).sum::<f64>() / width as f64;
        for i in 0..width {
            dx.push(inverse * g[i] - f64::from(x[i]) * inverse.powi(3) * mean);
            d_weight[i] += f64::from(dy[i]) * f64::from(x[i]) * inverse;
        }
    }
    (dx, d_weight)
}

fn inverse_rms(row: &[f32], epsilon: f32) -> f64 {
    let mean = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() / row.len() as f64;
    1.0 / (mean + f64::from(epsilon)).sqrt()
}

/// `y = (x - mean) / sqrt(variance + epsilon) * weight + bias` for every row of `x` `[rows, width]` (Ba et al., 1607.06450).
pub fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32) -> Vec<f64> {
    let mut y = Vec::with_capacity(x.len());
    for row in x.chunks(weight.len()) {
        let (normalised, _) = normalise(row, epsilon);
        let outputs = normalised.iter().zip(weight.iter().zip(bias));
        y.extend(outputs.map(|(n, (&w, &b))| n * f64::from(w) + f64::from(b)));
    }
    y
}

/// Gradients of [`layer_norm`] for `x`, `weight` and `bias`.
///
/// With `n` the normalised row, `s` its inverse deviation and `g = dy * weight`:
/// `dx = s (g - mean(g) - n mean(g n))`, `dweight = sum over rows of dy n`, `dbias = sum over rows of dy`.
pub fn layer_norm_backward(
    x: &[f32],
    weight: &[f32],
    epsilon: f32,
    dy: &[f32],
) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let width = weight.len();
    let mut dx = Vec::with_capacity(x.len());
    let (mut d_weight, mut d_bias) = (vec![0.0; width], vec![0.0; width]);
    for (x, dy) in x.chunks(width).zip(dy.chunks(width)) {
        let (normalised, inverse) = normalise(x, epsilon);
        let g: Vec<f64> = dy.iter().zip(weight).map(|(&dy, &w)| f64::from(dy) * f64::from(w)).collect();
        let mean = g.iter().sum::<f64>() / width as f64;
        let mean_product = g.iter().zip(&normalised).map(|(g, n)| g * n).sum::<f64>() / width as f64;
        for i in 0..width {
            dx.push(inverse * (g[i] - mean - normalised[i] * mean_product));
            d_weight[i] += f64::from(dy[i]) * normalised[i];
            d_bias[i] += f64::from(dy[i]);
        }
    }
    (dx, d_weight, d_bias)
}

/// The row with mean 0 and deviation 1, and the inverse of its deviation.
fn normalise(row: &[f32], epsilon: f32) -> (Vec<f64>, f64) {
    let count = row.len() as f64;
    let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
    let variance = row.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / count;
    let inverse = 1.0 / (variance + f64::from(epsilon)).sqrt();
    (row.iter().map(|&x| (f64::from(x) - mean) * inverse).collect(), inverse)
}
