use super::*;
use crate::reference::{self, assert_close, finite_difference, random_values, weighted_sum};

/// A batch and what its queries see.
struct Case {
    name: &'static str,
    shape: AttentionShape,
    first_visible: Vec<u32>,
    side: Vec<SideRow>,
}

impl Case {
    fn new(name: &'static str, sizes: [usize; 5], first_visible: impl Fn(usize, usize) -> usize) -> Self {
        let [batch, length, heads, kv_heads, head_dim] = sizes;
        let shape = AttentionShape { batch, length, heads, kv_heads, head_dim, scale: 0.7, cap: None };
        let rows = (0..batch).flat_map(|b| (0..length).map(move |t| (b, t)));
        let first_visible = rows.map(|(b, t)| first_visible(b, t) as u32).collect();
        Self { name, shape, first_visible, side: Vec::new() }
    }

    /// The same with side rows after the positions for which `after` says so, each of which sees what the position sees; in
    /// rows that are a multiple of three, every fifth of them sees itself alone.
    fn beside(mut self, after: impl Fn(usize, usize) -> bool) -> Self {
        let length = self.shape.length;
        for (index, &first) in self.first_visible.iter().enumerate() {
            let (row, t) = (index / length, index % length);
            if after(row, t) {
                let first = if t % 15 == 3 { t as u32 + 1 } else { first };
                self.side.push(SideRow { row: row as u32, first, end: t as u32 + 1 });
            }
        }
        self
    }

    fn rows(&self) -> usize {
        self.shape.batch * self.shape.length + self.side.len()
    }

    fn mask(&self) -> Mask<'_> {
        Mask { first_visible: &self.first_visible, side: &self.side }
    }

    /// The same with capped scores.
    fn capped(self, cap: f32) -> Self {
        Self { shape: AttentionShape { cap: Some(cap), ..self.shape }, ..self }
    }

    fn qkv(&self) -> Vec<f32> {
        random_values(self.rows() * self.shape.qkv_width(), 1)
    }

    fn d_out(&self) -> Vec<f32> {
        random_values(self.rows() * self.shape.out_width(), 2)
    }

    /// The mask as a question about rows of `qkv`; those of other rows of the batch are out of sight.
    fn visible(&self) -> impl Fn(usize, usize) -> bool {
        let (length, before) = (self.shape.length, self.shape.batch * self.shape.length);
        move |query, key| match query.checked_sub(before) {
            None => {
                key <= query
                    && key / length == query / length
                    && key % length >= self.first_visible[query] as usize
            }
            Some(_) if key >= before => key == query,
            Some(side) => {
                let SideRow { row, first, end } = self.side[side];
                key / length == row as usize && (first as usize..end as usize).contains(&(key % length))
            }
        }
    }

    /// `[heads, rows]` of the plain form in the order of the fast one.
    fn sorted(&self, joined: &[f64]) -> Vec<f64> {
        let AttentionShape { batch, length, heads, .. } = self.shape;
        let at = |head: usize, row: usize| joined[head * self.rows() + row];
        let of_batch = (0..batch)
            .flat_map(|b| (0..heads).flat_map(move |head| (0..length).map(move |t| (head, b * length + t))));
        let mut sorted: Vec<f64> = of_batch.map(|(head, row)| at(head, row)).collect();
        let mut first = batch * length;
        for side in self.side.chunk_by(|a, b| a.row == b.row) {
            for head in 0..heads {
                sorted.extend((first..first + side.len()).map(|row| at(head, row)));
            }
            first += side.len();
        }
        sorted
    }

    /// The shape of all rows as one row of a batch, as the plain form takes side rows.
    fn joined(&self) -> AttentionShape {
        AttentionShape { batch: 1, length: self.rows(), ..self.shape }
    }

    fn forward(&self, qkv: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let rows = self.rows();
        // Whatever the buffers held must not matter.
        let (mut out, mut log_sum) =
            (vec![f32::NAN; rows * self.shape.out_width()], vec![f32::NAN; rows * self.shape.heads]);
        forward(&self.shape, qkv, self.mask(), &mut out, &mut log_sum);
        (out, log_sum)
    }

    fn backward(&self, qkv: &[f32], d_out: &[f32]) -> Vec<f32> {
        let (out, log_sum) = self.forward(qkv);
        let mut d_qkv = vec![f32::NAN; qkv.len()];
        backward(&self.shape, qkv, self.mask(), &out, &log_sum, d_out, &mut d_qkv);
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
        Case::new("beside one position", [1, 1, 2, 1, 3], |_, _| 0).beside(|_, _| true),
        Case::new("beside every position", [2, 75, 4, 2, 6], |_, _| 0).beside(|_, _| true),
        Case::new("beside some, documents", [3, 150, 3, 1, 7], documents)
            .beside(|b, t| b != 1 && t * t % 7 < 3),
        Case::new("beside, capped", [2, 70, 4, 2, 6], |_, t| t.saturating_sub(7))
            .capped(0.8)
            .beside(|b, t| t % 2 == b),
        Case::new("beside few, far apart", [2, 300, 2, 1, 6], documents).beside(|_, t| t % 16 == 3),
        Case::new("beside few, a long row", [1, 700, 1, 1, 4], |_, _| 0).beside(|_, t| t % 40 == 1),
        Case::new("themselves alone", [1, 20, 2, 2, 4], |_, _| 0).beside(|_, t| t % 15 == 3),
    ]
}

/// What stands beside changes neither the bits of an output nor those of a query's gradient; without a gradient of its own it
/// changes no bit at all.
#[test]
fn side_rows_leave_the_others_their_bits() {
    for case in cases().into_iter().filter(|case| !case.side.is_empty()) {
        let first_visible = case.first_visible.clone();
        let alone = Case { name: case.name, shape: case.shape, first_visible, side: Vec::new() };
        let rows = alone.rows();
        let qkv = case.qkv();
        let (width, out_width) = (case.shape.qkv_width(), case.shape.out_width());
        let (out, _) = case.forward(&qkv);
        assert_eq!(out[..rows * out_width], alone.forward(&qkv[..rows * width]).0, "{}", case.name);
        let mut d_out = case.d_out();
        d_out[rows * out_width..].fill(0.0);
        let d_qkv = case.backward(&qkv, &d_out);
        let d_alone = alone.backward(&qkv[..rows * width], &d_out[..rows * out_width]);
        assert_eq!(d_qkv[..rows * width], d_alone, "{}", case.name);
    }
}

/// A side row reads its own inputs and those of the keys it sees, and nothing else.
#[test]
fn nobody_sees_a_side_row() {
    let case = Case::new("beside", [1, 40, 2, 1, 8], |_, _| 0).beside(|_, t| t % 3 == 0);
    let (width, out_width) = (case.shape.qkv_width(), case.shape.out_width());
    let mut qkv = case.qkv();
    let (out, _) = case.forward(&qkv);
    // The second side row, and every position after the third.
    qkv[41 * width..42 * width].fill(2.0);
    qkv[3 * width + 1..40 * width].fill(-1.0);
    let (other, _) = case.forward(&qkv);
    assert_eq!(out[40 * out_width..41 * out_width], other[40 * out_width..41 * out_width]);
    assert_ne!(out[41 * out_width..42 * out_width], other[41 * out_width..42 * out_width]);
}

#[test]
#[should_panic(expected = "side rows out of order")]
fn side_rows_of_no_row_are_refused() {
    let mut case = Case::new("beside", [2, 3, 1, 1, 2], |_, _| 0).beside(|_, _| true);
    case.side.swap(0, 5);
    case.forward(&case.qkv());
}

#[test]
fn forward_agrees_with_plain() {
    for case in cases() {
        let (out, log_sum) = case.forward(&case.qkv());
        let (plain_out, plain_log_sum) = reference::attention(&case.joined(), &case.qkv(), case.visible());
        assert_close(&out, &plain_out, 2e-6, case.name);
        assert_close(&log_sum, &case.sorted(&plain_log_sum), 2e-6, case.name);
    }
}

#[test]
fn backward_agrees_with_plain() {
    for case in cases() {
        let d_qkv = case.backward(&case.qkv(), &case.d_out());
        let plain = reference::attention_backward(&case.joined(), &case.qkv(), &case.d_out(), case.visible());
        assert_close(&d_qkv, &plain, 5e-6, case.name);
    }
}

#[test]
fn backward_agrees_with_finite_differences() {
    for case in [
        Case::new("grouped queries", [1, 9, 4, 2, 3], |_, _| 0),
        Case::new("documents over two blocks", [1, 67, 2, 1, 2], documents),
        Case::new("capped", [1, 9, 4, 2, 3], |_, t| t.saturating_sub(4)).capped(0.5),
        Case::new("beside", [2, 9, 4, 2, 3], |_, t| t / 4 * 4).beside(|_, t| t != 5),
        Case::new("beside, capped", [1, 9, 2, 1, 3], |_, _| 0).capped(0.5).beside(|_, _| true),
    ] {
        let (qkv, d_out) = (case.qkv(), case.d_out());
        let d_qkv = case.backward(&qkv, &d_out);
        let by_difference = finite_difference(&qkv, 1e-3, |qkv| {
            weighted_sum(&reference::attention(&case.joined(), qkv, case.visible()).0, &d_out)
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
    assert_close(&out, &reference::attention(&case.joined(), &qkv, case.visible()).0, 1e-3, "out");
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
