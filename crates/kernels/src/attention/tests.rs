use super::*;
use crate::reference::{self, assert_close, finite_difference, random_values, weighted_sum};

/// A batch and what its queries see.
struct Case {
    name: &'static str,
    shape: AttentionShape,
    first_visible: Vec<u32>,
}

impl Case {
    fn new(name: &'static str, sizes: [usize; 5], first_visible: impl Fn(usize, usize) -> usize) -> Self {
        let [batch, length, heads, kv_heads, head_dim] = sizes;
        let shape = AttentionShape { batch, length, heads, kv_heads, head_dim, scale: 0.7, cap: None };
        let rows = (0..batch).flat_map(|b| (0..length).map(move |t| (b, t)));
        Self { name, shape, first_visible: rows.map(|(b, t)| first_visible(b, t) as u32).collect() }
    }

    /// The same with capped scores.
    fn capped(self, cap: f32) -> Self {
        Self { shape: AttentionShape { cap: Some(cap), ..self.shape }, ..self }
    }

    fn qkv(&self) -> Vec<f32> {
        random_values(self.shape.batch * self.shape.length * self.shape.qkv_width(), 1)
    }

    fn d_out(&self) -> Vec<f32> {
        random_values(self.shape.batch * self.shape.length * self.shape.out_width(), 2)
    }

    /// The mask as a question about rows of `qkv`.
    fn visible(&self) -> impl Fn(usize, usize) -> bool {
        let length = self.shape.length;
        move |query, key| key <= query && key % length >= self.first_visible[query] as usize
    }

    fn forward(&self, qkv: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let rows = self.shape.batch * self.shape.length;
        // Whatever the buffers held must not matter.
        let (mut out, mut log_sum) =
            (vec![f32::NAN; rows * self.shape.out_width()], vec![f32::NAN; rows * self.shape.heads]);
        forward(&self.shape, qkv, &self.first_visible, &mut out, &mut log_sum);
        (out, log_sum)
    }

    fn backward(&self, qkv: &[f32], d_out: &[f32]) -> Vec<f32> {
        let (out, log_sum) = self.forward(qkv);
        let mut d_qkv = vec![f32::NAN; qkv.len()];
        backward(&self.shape, qkv, &self.first_visible, &out, &log_sum, d_out, &mut d_qkv);
        d_qkv
    }
}

/// Documents of changing lengths, different in every row of the batch.
fn documents(batch: usize, t: usize) -> usize {
    [0, 3, 4, 21, 60, 64, 100, 129]
        .into_iter()
        .map(|s| s + s.min(1) * batch)
        .filter(|&s| s <= t)
        .max()
        .unwrap_or(0)
}

/// `[batch, length, heads, kv_heads, head_dim]`
fn cases() -> Vec<Case> {
    vec![
        Case::new("one position", [1, 1, 1, 1, 1], |_, _| 0),
        Case::new("one block", [1, 9, 2, 2, 5], |_, _| 0),
        Case::new("a full block", [1, 64, 1, 1, 8], |_, _| 0),
        Case::new("three blocks, grouped queries", [2, 130, 4, 2, 6], |_, _| 0),
        Case::new("documents, one key head", [2, 150, 3, 1, 7], documents),
        Case::new("sliding window", [1, 140, 2, 1, 16], |_, t| t.saturating_sub(20)),
        Case::new("each for itself", [1, 70, 1, 1, 3], |_, t| t),
        Case::new("capped", [1, 70, 4, 2, 6], |_, _| 0).capped(0.8),
        Case::new("capped, sliding window", [2, 140, 2, 1, 16], |_, t| t.saturating_sub(7)).capped(1.5),
    ]
}

#[test]
fn forward_agrees_with_plain() {
    for case in cases() {
        let (out, log_sum) = case.forward(&case.qkv());
        let (plain_out, plain_log_sum) = reference::attention(&case.shape, &case.qkv(), case.visible());
        assert_close(&out, &plain_out, 2e-6, case.name);
        assert_close(&log_sum, &plain_log_sum, 2e-6, case.name);
    }
}

#[test]
fn backward_agrees_with_plain() {
    for case in cases() {
        let d_qkv = case.backward(&case.qkv(), &case.d_out());
        let plain = reference::attention_backward(&case.shape, &case.qkv(), &case.d_out(), case.visible());
        assert_close(&d_qkv, &plain, 5e-6, case.name);
    }
}

#[test]
fn backward_agrees_with_finite_differences() {
    for case in [
        Case::new("grouped queries", [1, 9, 4, 2, 3], |_, _| 0),
        Case::new("documents over two blocks", [1, 67, 2, 1, 2], documents),
        Case::new("capped", [1, 9, 4, 2, 3], |_, t| t.saturating_sub(4)).capped(0.5),
    ] {
        let (qkv, d_out) = (case.qkv(), case.d_out());
        let d_qkv = case.backward(&qkv, &d_out);
        let by_difference = finite_difference(&qkv, 1e-3, |qkv| {
            weighted_sum(&reference::attention(&case.shape, qkv, case.visible()).0, &d_out)
        });
        assert_close(&d_qkv, &by_difference, 1e-5, case.name);
    }
}

#[test]
fn a_document_feels_nothing_of_its_neighbours() {
    let case = Case::new("two documents", [1, 100, 2, 1, 8], |_, t| if t < 70 { 0 } else { 70 });
    let width = case.shape.qkv_width();
    let (mut qkv, mut d_out) = (case.qkv(), case.d_out());
    let (out, d_qkv) = (case.forward(&qkv).0, case.backward(&qkv, &d_out));
    for value in qkv[..70 * width].iter_mut().chain(&mut d_out[..70 * case.shape.out_width()]) {
        *value = 3.0 - 2.0 * *value;
    }
    let (other_out, other_d_qkv) = (case.forward(&qkv).0, case.backward(&qkv, &d_out));
    assert_eq!(out[70 * case.shape.out_width()..], other_out[70 * case.shape.out_width()..]);
    assert_eq!(d_qkv[70 * width..], other_d_qkv[70 * width..]);
    assert_ne!(d_qkv[..70 * width], other_d_qkv[..70 * width]);
}

#[test]
fn large_scores_stay_finite() {
    let case = Case::new("large", [1, 40, 1, 1, 4], |_, _| 0);
    let qkv: Vec<f32> = case.qkv().iter().map(|x| 100.0 * x).collect();
    let (out, _) = case.forward(&qkv);
    assert_close(&out, &reference::attention(&case.shape, &qkv, case.visible()).0, 1e-3, "out");
    assert!(!vector::has_non_finite(&case.backward(&qkv, &case.d_out())));
}

#[test]
fn the_number_of_threads_does_not_show_in_the_bits() {
    let case = Case::new("threads", [2, 150, 4, 2, 8], documents);
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a small pool");
        pool.install(|| (case.forward(&case.qkv()), case.backward(&case.qkv(), &case.d_out())))
    };
    let one = with(1);
    assert!(with(2) == one && with(3) == one);
}

#[test]
fn an_empty_batch_is_no_work() {
    let case = Case::new("empty", [0, 5, 2, 1, 4], |_, _| 0);
    assert!(case.backward(&[], &[]).is_empty());
    let case = Case::new("no positions", [2, 0, 2, 1, 4], |_, _| 0);
    assert!(case.backward(&[], &[]).is_empty());
}

#[test]
#[should_panic(expected = "decrease or lie after their query")]
fn a_query_that_sees_nothing_is_refused() {
    Case::new("blind", [1, 3, 1, 1, 2], |_, t| t + t / 2).forward(&[0.0; 18]);
}
