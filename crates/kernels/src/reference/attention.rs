//! Plain attention: every query against every key that a closure lets it see.

use crate::attention::AttentionShape;

/// Softmax attention over `qkv` `[batch * length, (heads + 2 kv_heads) * head_dim]`, heads in the order queries, keys, values.
///
/// `visible(query, key)` takes indices of rows of `qkv`; only keys of the query's own row of the batch are asked about. Any mask
/// will do, as long as every query sees something. Returns `out` `[batch * length, heads * head_dim]` and the logarithm of the
/// sum of exponentials of the scaled and capped scores, `[batch, heads, length]`.
pub fn attention(
    shape: &AttentionShape,
    qkv: &[f32],
    visible: impl Fn(usize, usize) -> bool,
) -> (Vec<f64>, Vec<f64>) {
    let plain = Plain { shape, qkv };
    let width = shape.heads * shape.head_dim;
    let mut out = vec![0.0; shape.batch * shape.length * width];
    let mut log_sum_exp = Vec::with_capacity(shape.batch * shape.heads * shape.length);
    for batch in 0..shape.batch {
        for head in 0..shape.heads {
            for query in plain.rows_of(batch) {
                let (probabilities, log_sum) = plain.probabilities(head, query, &visible);
                log_sum_exp.push(log_sum);
                let out = &mut out[query * width + head * shape.head_dim..][..shape.head_dim];
                for (key, p) in probabilities {
                    for (out, v) in out.iter_mut().zip(plain.value(head, key)) {
                        *out += p * f64::from(*v);
                    }
                }
            }
        }
    }
    (out, log_sum_exp)
}

/// Gradient of [`attention`] for `qkv`.
///
/// With probabilities `p` and `dp = d_out . v`: the gradient of a score is `p (dp - sum of p dp)`.
pub fn attention_backward(
    shape: &AttentionShape,
    qkv: &[f32],
    d_out: &[f32],
    visible: impl Fn(usize, usize) -> bool,
) -> Vec<f64> {
    let plain = Plain { shape, qkv };
    let dim = shape.head_dim;
    let mut d_qkv = vec![0.0; qkv.len()];
    for batch in 0..shape.batch {
        for head in 0..shape.heads {
            for query in plain.rows_of(batch) {
                let (probabilities, _) = plain.probabilities(head, query, &visible);
                let d_out = &d_out[(query * shape.heads + head) * dim..][..dim];
                let d_p = |key| dot(d_out, plain.value(head, key));
                let mean: f64 = probabilities.iter().map(|&(key, p)| p * d_p(key)).sum();
                for &(key, p) in &probabilities {
                    let d_score =
                        p * (d_p(key) - mean) * plain.slope(head, query, key) * f64::from(shape.scale);
                    for i in 0..dim {
                        d_qkv[plain.at_query(head, query) + i] +=
                            d_score * f64::from(plain.key(head, key)[i]);
                        d_qkv[plain.at_key(head, key) + i] +=
                            d_score * f64::from(plain.query(head, query)[i]);
                        d_qkv[plain.at_value(head, key) + i] += p * f64::from(d_out[i]);
                    }
                }
            }
        }
    }
    d_qkv
}

/// Where queries, keys and values lie.
struct Plain<'a> {
    shape: &'a AttentionShape,
    qkv: &'a [f32],
}

impl Plain<'_> {
    fn rows_of(&self, batch: usize) -> std::ops::Range<usize> {
        batch * self.shape.length..(batch + 1) * self.shape.length
    }

    fn at(&self, row: usize, slot: usize) -> usize {
        (row * (self.shape.heads + 2 * self.shape.kv_heads) + slot) * self.shape.head_dim
    }

    fn at_query(&self, head: usize, row: usize) -> usize {
        self.at(row, head)
    }

    fn at_key(&self, head: usize, row: usize) -> usize {
        self.at(row, self.shape.heads + head * self.shape.kv_heads / self.shape.heads)
    }

    fn at_value(&self, head: usize, row: usize) -> usize {
        self.at_key(head, row) + self.shape.kv_heads * self.shape.head_dim
    }

    fn query(&self, head: usize, row: usize) -> &[f32] {
        &self.qkv[self.at_query(head, row)..][..self.shape.head_dim]
    }

    fn key(&self, head: usize, row: usize) -> &[f32] {
        &self.qkv[self.at_key(head, row)..][..self.shape.head_dim]
    }

    fn value(&self, head: usize, row: usize) -> &[f32] {
        &self.qkv[self.at_value(head, row)..][..self.shape.head_dim]
    }

    /// The scaled score before any cap.
    fn score(&self, head: usize, query: usize, key: usize) -> f64 {
        dot(self.query(head, query), self.key(head, key)) * f64::from(self.shape.scale)
    }

    /// Derivative of the cap at a score.
    fn slope(&self, head: usize, query: usize, key: usize) -> f64 {
        let capped = |cap| (self.score(head, query, key) / f64::from(cap)).tanh();
        self.shape.cap.map_or(1.0, |cap| 1.0 - capped(cap).powi(2))
    }

    /// The visible keys of a query with their probabilities, and the logarithm of the sum of exponentials.
    fn probabilities(
        &self,
        head: usize,
        query: usize,
        visible: &impl Fn(usize, usize) -> bool,
    ) -> (Vec<(usize, f64)>, f64) {
        let keys: Vec<usize> =
            self.rows_of(query / self.shape.length).filter(|&key| visible(query, key)).collect();
        let score = |key| match self.shape.cap {
            None => self.score(head, query, key),
            Some(cap) => f64::from(cap) * (self.score(head, query, key) / f64::from(cap)).tanh(),
        };
        let scores: Vec<f64> = keys.iter().map(|&key| score(key)).collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let log_sum = max + scores.iter().map(|s| (s - max).exp()).sum::<f64>().ln();
        (keys.into_iter().zip(scores.iter().map(|s| (s - log_sum).exp())).collect(), log_sum)
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}
