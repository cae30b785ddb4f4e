use super::*;
use crate::reference::random_values;

/// A sequence of `positions` rows in a layer's caches, which hold garbage everywhere else.
struct Sequence<V> {
    shape: CachedAttention,
    qkv: Vec<f32>,
    keys: Vec<V>,
    values: Vec<V>,
}

impl<V: CacheValue> Sequence<V> {
    fn new(heads: usize, kv_heads: usize, head_dim: usize, positions: usize) -> Self {
        let scale = 1.0 / (head_dim as f32).sqrt();
        let shape = CachedAttention { heads, kv_heads, head_dim, capacity: positions + 3, scale, cap: None };
        let mut qkv = random_values(positions * shape.row_width(), 1);
        qkv.iter_mut().for_each(|value| *value *= 3.0);
        let garbage = || vec![V::of(f32::NAN); shape.cache_len()];
        let (mut keys, mut values) = (garbage(), garbage());
        shape.store(&qkv, 0, &mut keys, &mut values);
        Self { shape, qkv, keys, values }
    }

    /// The same with capped scores.
    fn capped(mut self, cap: f32) -> Self {
        self.shape.cap = Some(cap);
        self
    }

    /// Rows `range` through the kernel, each seeing at most `window` keys.
    fn forward(&self, isa: Isa, team: &Team, range: Range<usize>, window: usize) -> Vec<f32> {
        let width = self.shape.row_width();
        let mut out = vec![0.0; range.len() * self.shape.heads * self.shape.head_dim];
        let first: Vec<u32> = range.clone().map(|position| first_visible(position, window) as u32).collect();
        let qkv = &self.qkv[range.start * width..range.end * width];
        self.shape.forward_on(isa, team, qkv, range.start, &first, &self.keys, &self.values, &mut out);
        out
    }

    /// The row of one position in f64, by the definition, of queries, keys and values as the cache writes numbers. Beside each
    /// value the most that it can differ by when the weights are written so as well.
    fn plain(&self, position: usize, window: usize) -> Vec<(f64, f64)> {
        let CachedAttention { heads, kv_heads, head_dim, scale, cap, .. } = self.shape;
        let part = |position: usize, head: usize| {
            let row = &self.qkv[position * self.shape.row_width()..];
            let row = &row[head * head_dim..][..head_dim];
            row.iter().map(|value| f64::from(V::of(*value).value())).collect::<Vec<_>>()
        };
        let attend = |head: usize| {
            let kv_head = head / (heads / kv_heads);
            let query = part(position, head);
            let visible = first_visible(position, window)..position + 1;
            let score = |key: usize| {
                let key = part(key, heads + kv_head);
                let score = query.iter().zip(key).map(|(q, k)| q * k).sum::<f64>() * f64::from(scale);
                cap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
            };
            let scores: Vec<f64> = visible.clone().map(score).collect();
            let maximum = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = scores.iter().map(|score| (score - maximum).exp()).sum();
            let mut out = vec![(0.0, 1e-5); head_dim];
            for (key, score) in visible.zip(scores) {
                let weight = (score - maximum).exp() / total;
                for ((out, most), value) in out.iter_mut().zip(part(key, heads + kv_heads + kv_head)) {
                    *out += weight * value;
                    *most += 2.0 * ROUNDING[V::STEP - 1] * weight * value.abs();
                }
            }
            out
        };
        (0..heads).flat_map(attend).collect()
    }
}

/// Largest relative error of a number as the cache writes it, by its step.
const ROUNDING: [f64; 2] = [0.0, 1.0 / 256.0];

fn first_visible(position: usize, window: usize) -> usize {
    (position + 1).saturating_sub(window)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Query heads, key heads, size of a head.
const HEADS: [(usize, usize, usize); 7] =
    [(1, 1, 1), (3, 3, 8), (4, 4, 8), (4, 2, 16), (6, 2, 24), (9, 1, 64), (2, 1, 130)];

const NO_WINDOW: usize = usize::MAX / 2;

#[test]
fn agrees_with_the_definition() {
    agrees::<f32>();
    agrees::<UpperHalf>();
}

fn agrees<V: CacheValue>() {
    for (heads, kv_heads, head_dim) in HEADS {
        for (positions, window) in
            [(1, NO_WINDOW), (7, 3), (65, NO_WINDOW), (150, 40), (150, 64), (200, NO_WINDOW)]
        {
            let sequence = Sequence::<V>::new(heads, kv_heads, head_dim, positions);
            assert_agrees(&sequence, positions, window);
            if window < positions {
                assert_agrees(&sequence.capped(1.5), positions, window);
            }
        }
    }
}

fn assert_agrees<V: CacheValue>(sequence: &Sequence<V>, positions: usize, window: usize) {
    let CachedAttention { heads, kv_heads, head_dim, cap, .. } = sequence.shape;
    for isa in Isa::all_available() {
        let out = sequence.forward(isa, &Team::new(2), 0..positions, window);
        for (position, out) in out.chunks_exact(heads * head_dim).enumerate() {
            for (out, (plain, most)) in out.iter().zip(sequence.plain(position, window)) {
                assert!(
                    (f64::from(*out) - plain).abs() < most,
                    "{isa:?} {heads}/{kv_heads} heads of {head_dim}, position {position}, window {window}, cap {cap:?}: \
                     {out} is not {plain}"
                );
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_company() {
    same_bits::<f32>();
    same_bits::<UpperHalf>();
}

fn same_bits<V: CacheValue>() {
    for (heads, kv_heads, head_dim) in HEADS {
        let positions = 150;
        let width = heads * head_dim;
        for window in [NO_WINDOW, 37] {
            let sequence = Sequence::<V>::new(heads, kv_heads, head_dim, positions);
            // The capped case walks a window as well: both parts of Gemma 2 at once.
            let sequence = if window == NO_WINDOW { sequence } else { sequence.capped(2.0) };
            for isa in Isa::all_available() {
                let together = sequence.forward(isa, &Team::new(1), 0..positions, window);
                for threads in [2, 3] {
                    let team = Team::new(threads);
                    for (first, rows) in
                        [(0, 1), (0, 150), (1, 12), (60, 9), (61, 1), (62, 4), (64, 1), (127, 23), (149, 1)]
                    {
                        let out = sequence.forward(isa, &team, first..first + rows, window);
                        let expected = &together[first * width..][..rows * width];
                        let case = format!("{isa:?} rows {first}+{rows}, window {window}, {threads} threads");
                        assert_eq!(
                            bits(&out),
                            bits(expected),
                            "{case}, {heads}/{kv_heads} heads of {head_dim}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn every_vector_has_one_tile_and_threads_have_equal_ones() {
    for (vectors, kv_heads, threads) in
        [(4, 3, 2), (40, 4, 2), (1, 3, 2), (4, 4, 3), (0, 3, 2), (750, 5, 4), (9, 1, 3)]
    {
        let shares = Shares::new(vectors, SMALL_TILE, kv_heads, threads);
        let mut seen = vec![0; kv_heads * vectors];
        for (head, vectors_of_part) in (0..shares.parts()).map(|part| shares.of(part)) {
            assert!(vectors_of_part.len() <= SMALL_TILE);
            vectors_of_part.for_each(|vector| seen[head * vectors + vector] += 1);
        }
        assert!(seen.iter().all(|times| *times == 1), "{vectors} vectors of {kv_heads} heads: {seen:?}");
    }
    let lengths =
        |shares: &Shares| (0..shares.parts()).map(|part| shares.of(part).1.len()).collect::<Vec<_>>();
    assert_eq!(lengths(&Shares::new(4, SMALL_TILE, 3, 2)), [4, 4, 2, 2]);
}

#[test]
fn rejected_rows_leave_no_trace() {
    no_trace::<f32>();
    no_trace::<UpperHalf>();
}

fn no_trace<V: CacheValue>() {
    let mut sequence = Sequence::<V>::new(4, 2, 16, 80);
    let team = Team::new(2);
    let expected = sequence.forward(isa(), &team, 66..69, NO_WINDOW);
    let mut rejected = vec![f32::NAN; 10 * sequence.shape.row_width()];
    rejected[0] = 1e30;
    sequence.shape.store(&rejected, 68, &mut sequence.keys, &mut sequence.values);
    let width = sequence.shape.row_width();
    let accepted = sequence.qkv[68 * width..69 * width].to_vec();
    sequence.shape.store(&accepted, 68, &mut sequence.keys, &mut sequence.values);
    assert_eq!(bits(&sequence.forward(isa(), &team, 66..69, NO_WINDOW)), bits(&expected));
}

#[test]
fn fused_instruction_sets_agree() {
    let sequence = Sequence::<f32>::new(6, 2, 24, 130);
    let fused = Isa::all_available().into_iter().filter(|isa| crate::packed::fused(*isa));
    let outs: Vec<_> =
        fused.map(|isa| bits(&sequence.forward(isa, &Team::new(1), 0..130, NO_WINDOW))).collect();
    assert!(outs.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn no_rows_are_nothing() {
    let sequence = Sequence::<f32>::new(2, 1, 4, 5);
    assert_eq!(sequence.forward(isa(), &Team::new(2), 3..3, NO_WINDOW), []);
}

#[test]
#[should_panic(expected = "positions beyond the capacity")]
fn rows_beyond_the_capacity_are_refused() {
    let mut sequence = Sequence::<f32>::new(2, 1, 4, 5);
    let qkv = sequence.qkv.clone();
    sequence.shape.store(&qkv, 4, &mut sequence.keys, &mut sequence.values);
}

#[test]
#[should_panic(expected = "row 1 does not see itself")]
fn a_row_that_sees_nothing_is_refused() {
    let sequence = Sequence::<f32>::new(2, 1, 4, 5);
    let qkv = &sequence.qkv[..2 * sequence.shape.row_width()];
    let (keys, values) = (&sequence.keys, &sequence.values);
    sequence.shape.forward(&Team::new(1), qkv, 0, &[0, 2], keys, values, &mut [0.0; 16]);
}

/// A side row that sees what stands before its position is, but for the order of sums, the row that is stored there; one that
/// sees less is the row at the end of a shorter sequence.
#[test]
fn side_rows_see_stored_keys_and_themselves() {
    side_rows::<f32>();
    side_rows::<UpperHalf>();
    let sequence = Sequence::<f32>::new(2, 1, 4, 5);
    let (keys, values) = (&sequence.keys, &sequence.values);
    sequence.shape.forward_beside(&Team::new(1), &[], &[], keys, values, &mut []);
}

fn side_rows<V: CacheValue>() {
    for (heads, kv_heads, head_dim) in HEADS {
        let mut sequence = Sequence::<V>::new(heads, kv_heads, head_dim, 150);
        for cap in [None, Some(1.5)] {
            sequence.shape.cap = cap;
            let (shape, width) = (sequence.shape, heads * head_dim);
            let rows = [0, 1, 5, 63, 64, 65, 149];
            for window in [NO_WINDOW, 40, 1] {
                let qkv: Vec<f32> = rows
                    .iter()
                    .flat_map(|row| &sequence.qkv[row * shape.row_width()..][..shape.row_width()])
                    .copied()
                    .collect();
                let seen = rows.map(|row| first_visible(row, window) as u32..row as u32);
                let forward = |threads, qkv: &[f32], seen: &[Range<u32>]| {
                    let mut out = vec![f32::NAN; seen.len() * width];
                    let (keys, values) = (&sequence.keys, &sequence.values);
                    shape.forward_beside(&Team::new(threads), qkv, seen, keys, values, &mut out);
                    out
                };
                let out = forward(1, &qkv, &seen);
                for (row, out) in rows.iter().zip(out.chunks_exact(width)) {
                    for (out, (plain, most)) in out.iter().zip(sequence.plain(*row, window)) {
                        let close = (f64::from(*out) - plain).abs() < most;
                        assert!(close, "{heads}/{kv_heads} heads of {head_dim}, row {row}: {out}, {plain}");
                    }
                }
                assert_eq!(bits(&forward(3, &qkv, &seen)), bits(&out));
                let alone = forward(1, &qkv[3 * shape.row_width()..][..shape.row_width()], &seen[3..4]);
                assert_eq!(bits(&alone), bits(&out[3 * width..4 * width]));
            }
        }
    }
}
