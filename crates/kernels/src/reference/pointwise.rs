//! Plain SwiGLU, GELU, soft cap, cross-entropy and AdamW.

use crate::adamw::AdamW;
use crate::cross_entropy::{LossSum, NO_TARGET};

/// `silu(gate) * up` for rows `[gate, up]` of twice `width`; `silu(g) = g / (1 + e^-g)`.
pub fn swiglu(gate_up: &[f32], width: usize) -> Vec<f64> {
    let mut out = Vec::with_capacity(gate_up.len() / 2);
    for row in gate_up.chunks(2 * width) {
        let (gate, up) = row.split_at(width);
        out.extend(gate.iter().zip(up).map(|(&g, &u)| f64::from(g) * sigmoid(g) * f64::from(u)));
    }
    out
}

/// Gradient of [`swiglu`]: `silu'(g) = s (1 + g (1 - s))` with `s = 1 / (1 + e^-g)`.
pub fn swiglu_backward(gate_up: &[f32], width: usize, d_out: &[f32]) -> Vec<f64> {
    let mut d_gate_up = Vec::with_capacity(gate_up.len());
    for (row, d_out) in gate_up.chunks(2 * width).zip(d_out.chunks(width)) {
        let (gate, up) = row.split_at(width);
        for i in 0..width {
            let (g, s) = (f64::from(gate[i]), sigmoid(gate[i]));
            d_gate_up.push(f64::from(d_out[i]) * f64::from(up[i]) * s * (1.0 + g * (1.0 - s)));
        }
        d_gate_up.extend((0..width).map(|i| f64::from(d_out[i]) * f64::from(gate[i]) * sigmoid(gate[i])));
    }
    d_gate_up
}

fn sigmoid(x: f32) -> f64 {
    1.0 / (1.0 + (-f64::from(x)).exp())
}

/// `x / 2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))` (Hendrycks and Gimpel, 1606.08415, the approximation).
pub fn gelu(x: f32) -> f64 {
    let (x, t) = gelu_tanh(x);
    0.5 * x * (1.0 + t)
}

/// Derivative of [`gelu`].
pub fn gelu_backward(x: f32) -> f64 {
    let (x, t) = gelu_tanh(x);
    let inner = (2.0 / std::f64::consts::PI).sqrt() * (1.0 + 3.0 * 0.044_715 * x * x);
    0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner
}

fn gelu_tanh(x: f32) -> (f64, f64) {
    let x = f64::from(x);
    (x, ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
}

/// `cap tanh(x / cap)` (Gemma 2, 2408.00118 section 2).
pub fn soft_cap(x: f32, cap: f32) -> f64 {
    f64::from(cap) * (f64::from(x) / f64::from(cap)).tanh()
}

/// Derivative of [`soft_cap`].
pub fn soft_cap_backward(x: f32, cap: f32) -> f64 {
    1.0 - (f64::from(x) / f64::from(cap)).tanh().powi(2)
}

/// Sum over rows with a target of `-ln softmax(logits)[target]`.
pub fn cross_entropy(logits: &[f32], vocabulary: usize, targets: &[u32]) -> LossSum {
    let mut sum = LossSum::default();
    for (row, &target) in logits.chunks(vocabulary).zip(targets) {
        if target == NO_TARGET {
            continue;
        }
        let target = target as usize;
        sum.nll -= softmax(row)[target].ln();
        sum.targets += 1;
        let best = (0..vocabulary).fold(0, |best, id| if row[id] > row[best] { id } else { best });
        sum.correct += usize::from(best == target);
    }
    sum
}

/// `scale` times the gradient of [`cross_entropy`]: `softmax - one-hot(target)`, zero for rows without a target.
pub fn cross_entropy_gradient(logits: &[f32], vocabulary: usize, targets: &[u32], scale: f32) -> Vec<f64> {
    let mut gradient = Vec::with_capacity(logits.len());
    for (row, &target) in logits.chunks(vocabulary).zip(targets) {
        for (id, p) in softmax(row).into_iter().enumerate() {
            let hit = if id == target as usize { 1.0 } else { 0.0 };
            gradient.push(if target == NO_TARGET { 0.0 } else { f64::from(scale) * (p - hit) });
        }
    }
    gradient
}

fn softmax(row: &[f32]) -> Vec<f64> {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponentials: Vec<f64> = row.iter().map(|&x| (f64::from(x) - f64::from(max)).exp()).collect();
    let sum: f64 = exponentials.iter().sum();
    exponentials.iter().map(|e| e / sum).collect()
}

/// One update of AdamW (Loshchilov and Hutter, 1711.05101) in f64, with the order of operations of `torch.optim.AdamW`.
pub fn adamw_step(
    rule: &AdamW,
    step: u64,
    parameters: &mut [f64],
    gradient: &[f64],
    first: &mut [f64],
    second: &mut [f64],
) {
    let AdamW { learning_rate: rate, beta1, beta2, .. } = *rule;
    for i in 0..parameters.len() {
        parameters[i] *= 1.0 - rate * rule.weight_decay;
        first[i] = beta1 * first[i] + (1.0 - beta1) * gradient[i];
        second[i] = beta2 * second[i] + (1.0 - beta2) * gradient[i] * gradient[i];
        let mean = first[i] / (1.0 - beta1.powf(step as f64));
        let variance = second[i] / (1.0 - beta2.powf(step as f64));
        parameters[i] -= rate * mean / (variance.sqrt() + rule.epsilon);
    }
}
