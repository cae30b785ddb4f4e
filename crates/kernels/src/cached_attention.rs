//! Attention of new rows over a cache of keys and values: one row while decoding, a few with a draft, hundreds of a prompt.
//!
//! *A row's bits depend on its position, the keys it sees and nothing else.* Keys are walked in chunks whose borders are
//! fixed by absolute position, with a running maximum and total (online softmax, Milakov and Gimelshein 2018, arXiv
//! 1805.02867, algorithm 3, taken a chunk at a time). Every score is a chain of multiply-adds over the head, every output a
//! chain over the keys, as in [`packed`](crate::packed), whatever rows share the tile. What a row does not see is never
//! added to it, not even with weight zero: such a place may hold anything.
//!
//! Query heads that share a key head are rows of one tile, so a key is read once for all of them.

use std::ops::Range;

use crate::cpu::{Isa, isa};
use crate::packed::{Element, LANES, Product, Shared, Start, UpperHalf, rounded};
use crate::soft_cap;
use crate::team::Team;
use crate::vector;

use softmax::{Softmax, TakeScores};

mod softmax;

/// Keys per chunk. Part of the arithmetic: another number gives other bits.
const CHUNK: usize = 64;

/// Query vectors that walk the keys together, at most: what they need for a chunk stays in the nearest caches, and the keys
/// themselves come from afar once for all of them.
const LARGE_TILE: usize = 24;

/// Tiles are multiples of this, which is what a product takes at once. One of this size has buffers of its own, since clearing
/// the larger ones would take longer than a short attention.
const SMALL_TILE: usize = 8;

/// Most inputs that a step of any type takes.
const MAX_STEP: usize = 2;

/// Largest head.
pub const MAX_HEAD_DIM: usize = 512;

/// Calls with fewer multiply-adds than this are done by the caller: sharing them would take longer.
const ALONE: usize = 50_000;

/// A number as a cache holds it: f32, or bf16 at half the memory and half its way.
///
/// Queries and the weights of values are rounded to the same type, and products summed in f32.
#[allow(private_bounds)]
pub trait CacheValue: Number {}

impl CacheValue for f32 {}

impl CacheValue for UpperHalf {}

/// What attention does with such numbers.
trait Number: Element + Default {
    /// The nearest.
    fn of(value: f32) -> Self;

    fn value(self) -> f32;
}

impl Number for f32 {
    #[inline(always)]
    fn of(value: f32) -> Self {
        value
    }

    #[inline(always)]
    fn value(self) -> f32 {
        self
    }
}

impl Number for UpperHalf {
    #[inline(always)]
    fn of(value: f32) -> Self {
        Self(rounded(value))
    }

    #[inline(always)]
    fn value(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }
}

/// Attention of one layer.
///
/// A row of `qkv` is `(heads + 2 * kv_heads) * head_dim` wide: queries, keys, values, the first two already rotated. The
/// cache of keys and the cache of values are slices of [`cache_len`](Self::cache_len) values each, in an order of their own
/// that only [`store`](Self::store) and [`forward`](Self::forward) know.
#[derive(Clone, Copy, Debug)]
pub struct CachedAttention {
    /// Query heads, a multiple of `kv_heads`.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Values per head, at most [`MAX_HEAD_DIM`].
    pub head_dim: usize,
    /// Positions that the cache has room for.
    pub capacity: usize,
    /// What scores are multiplied with, mostly `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// Bound that scaled scores approach but do not reach, `cap tanh(score / cap)`, if there is one (Gemma 2, 2408.00118).
    pub cap: Option<f32>,
}

impl CachedAttention {
    /// Length of the cache of keys, and of that of values: `kv_heads * capacity * head_dim`, where capacity and head size
    /// count as the next multiple of 16.
    pub fn cache_len(&self) -> usize {
        self.kv_heads * self.room() * self.head_room()
    }

    /// Puts keys and values of the rows of `qkv` into the cache, at `first_position` and after.
    ///
    /// # Panics
    ///
    /// If a slice has another size than the shape says, or the rows go beyond the capacity.
    pub fn store<V: CacheValue>(&self, qkv: &[f32], first_position: usize, keys: &mut [V], values: &mut [V]) {
        let rows = self.rows_that_fit(qkv, first_position);
        assert_eq!(keys.len(), self.cache_len(), "the cache of keys has another size than cache_len");
        assert_eq!(values.len(), self.cache_len(), "the cache of values has another size than cache_len");
        let (head_dim, width) = (self.head_dim, self.row_width());
        for (row, position) in (first_position..first_position + rows).enumerate() {
            let row = &qkv[row * width..][..width];
            let (key, value) = row[self.heads * head_dim..].split_at(self.kv_heads * head_dim);
            for kv_head in 0..self.kv_heads {
                let keys = &mut keys[self.key_place(kv_head, position / LANES)..];
                let key = &key[kv_head * head_dim..][..head_dim];
                // The last step of an odd head has a zero.
                for (d, key) in key.iter().chain([&0.0]).take(head_dim.next_multiple_of(V::STEP)).enumerate()
                {
                    keys[place_in_panel::<V>(d, position % LANES)] = V::of(*key);
                }
                let value = &value[kv_head * head_dim..][..head_dim];
                for (panel, value) in value.chunks(LANES).enumerate() {
                    let panel = &mut values[self.value_place(kv_head, panel, 0)..];
                    for (lane, value) in value.iter().enumerate() {
                        panel[place_in_panel::<V>(position, lane)] = V::of(*value);
                    }
                }
            }
        }
    }

    /// Writes what the rows of `qkv` attend to into `out`, `[rows, heads * head_dim]`.
    ///
    /// Row `r` stands at `first_position + r` and sees the keys from `first_visible[r]` to its own position, which all have
    /// been stored.
    ///
    /// # Panics
    ///
    /// If a slice has another size than the shape says, the rows go beyond the capacity, or a row does not see itself.
    pub fn forward<V: CacheValue>(
        &self,
        team: &Team,
        qkv: &[f32],
        first_position: usize,
        first_visible: &[u32],
        keys: &[V],
        values: &[V],
        out: &mut [f32],
    ) {
        self.forward_on(isa(), team, qkv, first_position, first_visible, keys, values, out);
    }

    /// Writes what side rows attend to into `out`, `[rows, heads * head_dim]`: row `r` of `qkv` sees the stored keys of the
    /// positions `seen[r]`, which may be none, and its own key, which is not stored.
    ///
    /// # Panics
    ///
    /// If a slice has another size than the shape says, or a row sees positions beyond the capacity.
    pub fn forward_beside<V: CacheValue>(
        &self,
        team: &Team,
        qkv: &[f32],
        seen: &[Range<u32>],
        keys: &[V],
        values: &[V],
        out: &mut [f32],
    ) {
        let beyond = seen.iter().any(|seen| seen.end as usize > self.capacity);
        assert!(!beyond, "positions beyond the capacity of the cache");
        self.attend_on(isa(), team, qkv, Seen::Beside(seen), keys, values, out);
    }

    /// [`forward`](Self::forward) with the products of a certain instruction set, so that tests can walk all of them.
    fn forward_on<V: CacheValue>(
        &self,
        isa: Isa,
        team: &Team,
        qkv: &[f32],
        first_position: usize,
        first_visible: &[u32],
        keys: &[V],
        values: &[V],
        out: &mut [f32],
    ) {
        self.rows_that_fit(qkv, first_position);
        for (row, first) in first_visible.iter().enumerate() {
            assert!(*first as usize <= first_position + row, "row {row} does not see itself");
        }
        let seen = Seen::Upto { first_position, first_visible };
        self.attend_on(isa, team, qkv, seen, keys, values, out);
    }

    fn attend_on<V: CacheValue>(
        &self,
        isa: Isa,
        team: &Team,
        qkv: &[f32],
        seen: Seen,
        keys: &[V],
        values: &[V],
        out: &mut [f32],
    ) {
        let rows = self.rows(qkv);
        assert_eq!(seen.rows(), rows, "what rows see is not [rows]");
        assert_eq!(keys.len(), self.cache_len(), "the cache of keys has another size than cache_len");
        assert_eq!(values.len(), self.cache_len(), "the cache of values has another size than cache_len");
        assert_eq!(out.len(), rows * self.heads * self.head_dim, "out is not [rows, heads * head_dim]");
        assert!(isa.available(), "this machine has no {}", isa.name());
        let layer = Layer { shape: *self, isa, qkv, seen, keys, values, out: Shared(out.as_mut_ptr()) };
        let group = self.heads / self.kv_heads;
        let vectors = rows * group;
        // Smaller ones where there are threads to share with.
        let share = (vectors * self.kv_heads).div_ceil(team.threads());
        let tile = share.next_multiple_of(SMALL_TILE).clamp(SMALL_TILE, LARGE_TILE);
        let shares = Shares::new(vectors, tile, self.kv_heads, team.threads());
        let attend = |part: usize| {
            let (kv_head, vectors) = shares.of(part);
            if vectors.len() <= SMALL_TILE {
                layer.attend::<SMALL_TILE>(kv_head, vectors);
            } else {
                layer.attend::<LARGE_TILE>(kv_head, vectors);
            }
        };
        let parts = shares.parts();
        if 2 * rows * self.heads * self.head_dim * seen.span() < ALONE {
            (0..parts).for_each(attend);
        } else {
            team.run(parts, &attend);
        }
    }

    /// Number of rows of `qkv`, whose keys and values are to be in the cache from `first_position` on.
    fn rows_that_fit(&self, qkv: &[f32], first_position: usize) -> usize {
        let rows = self.rows(qkv);
        assert!(first_position + rows <= self.capacity, "positions beyond the capacity of the cache");
        rows
    }

    /// Number of rows of `qkv`, after checking the shape.
    fn rows(&self, qkv: &[f32]) -> usize {
        assert!(
            self.kv_heads > 0 && self.heads.is_multiple_of(self.kv_heads),
            "heads is no multiple of kv_heads"
        );
        assert!((1..=MAX_HEAD_DIM).contains(&self.head_dim), "head_dim is not within 1..={MAX_HEAD_DIM}");
        assert!(qkv.len().is_multiple_of(self.row_width()), "qkv is not [rows, {}]", self.row_width());
        qkv.len() / self.row_width()
    }

    fn row_width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Positions, in whole panels.
    fn room(&self) -> usize {
        self.capacity.next_multiple_of(LANES)
    }

    /// Values per head, in whole panels.
    fn head_room(&self) -> usize {
        self.head_dim.next_multiple_of(LANES)
    }

    /// Where a panel of 16 keys begins: `[kv_heads][room / 16]` panels of `head_room` inputs. As weights, the keys are a map from
    /// `head_dim` inputs to one output per position.
    fn key_place(&self, kv_head: usize, panel: usize) -> usize {
        (kv_head * self.room() + panel * LANES) * self.head_room()
    }

    /// Where the step of a position, the first of it, begins in a panel of values: `[kv_heads][head_room / 16]` panels of `room`
    /// inputs. As weights, the values are a map from one input per position to `head_dim` outputs.
    fn value_place(&self, kv_head: usize, panel: usize, position: usize) -> usize {
        kv_head * self.room() * self.head_room() + (panel * self.room() + position) * LANES
    }
}

/// Where the weight from an input to an output stands in a panel.
fn place_in_panel<V: Element>(input: usize, output: usize) -> usize {
    (input / V::STEP * LANES + output) * V::STEP + input % V::STEP
}

/// How the query vectors of all key heads are divided into tiles.
///
/// Every head has as many, but where that leaves threads without work at the end, as three heads do with one of two threads. There
/// the heads that are left when each thread has had equally many are divided among all threads.
struct Shares {
    vectors: usize,
    /// Heads that have `tiles` tiles.
    whole: usize,
    tiles: usize,
    /// Those after them have more.
    split: usize,
    rest: usize,
}

impl Shares {
    fn new(vectors: usize, tile: usize, kv_heads: usize, threads: usize) -> Self {
        let tiles = vectors.div_ceil(tile);
        let rest = if (kv_heads * tiles).is_multiple_of(threads) { 0 } else { kv_heads % threads };
        let split = tiles.next_multiple_of(threads).min(vectors);
        Self { vectors, whole: kv_heads - rest, tiles, split, rest }
    }

    fn parts(&self) -> usize {
        self.whole * self.tiles + self.rest * self.split
    }

    /// Key head and query vectors of a part. Shares are even: 40 vectors are 20 and 20, not 24 and 16.
    fn of(&self, part: usize) -> (usize, Range<usize>) {
        let (first, part, tiles) = match part.checked_sub(self.whole * self.tiles) {
            None => (0, part, self.tiles),
            Some(part) => (self.whole, part, self.split),
        };
        let tile = part % tiles;
        (first + part / tiles, self.vectors * tile / tiles..self.vectors * (tile + 1) / tiles)
    }
}

/// The stored keys that rows see.
#[derive(Clone, Copy)]
enum Seen<'a> {
    /// Row `r` stands at `first_position + r` and sees the keys from `first_visible[r]` to its own.
    Upto { first_position: usize, first_visible: &'a [u32] },
    /// Row `r` sees the keys of these positions, and its own, which is not stored.
    Beside(&'a [Range<u32>]),
}

impl Seen<'_> {
    fn rows(self) -> usize {
        match self {
            Self::Upto { first_visible, .. } => first_visible.len(),
            Self::Beside(seen) => seen.len(),
        }
    }

    /// First and end of what a row sees.
    fn of(self, row: usize) -> (usize, usize) {
        match self {
            Self::Upto { first_position, first_visible } => {
                (first_visible[row] as usize, first_position + row + 1)
            }
            Self::Beside(seen) => (seen[row].start as usize, seen[row].end as usize),
        }
    }

    /// Positions from the first that any row sees to the last, about.
    fn span(self) -> usize {
        match self.rows() {
            0 => 0,
            rows => self.of(rows - 1).1.saturating_sub(self.of(0).0) + 1,
        }
    }
}

/// One call of [`CachedAttention::forward`], as its parts see it.
struct Layer<'a, V> {
    shape: CachedAttention,
    isa: Isa,
    qkv: &'a [f32],
    seen: Seen<'a>,
    keys: &'a [V],
    values: &'a [V],
    out: Shared,
}

/// What a tile of query vectors knows so far; `T` is room for vectors, `D` for a head. Rows of each field are whole cache lines.
#[repr(C, align(64))]
struct Tile<V, const T: usize, const D: usize> {
    queries: [[V; D]; T],
    /// Scores of a chunk.
    scores: [[f32; CHUNK]; T],
    /// What they say of the values.
    weights: [[V; CHUNK]; T],
    /// Weighted sums of values.
    sums: [[f32; D]; T],
    softmax: [Softmax; T],
}

impl<V: CacheValue> Layer<'_, V> {
    /// Attends with at most `T` of the query vectors of one key head. They count by rows and, within a row, by heads of the
    /// group.
    fn attend<const T: usize>(&self, kv_head: usize, vectors: Range<usize>) {
        // Buffers of the next of a few sizes, for the same reason as tiles.
        match self.shape.head_room() {
            0..=32 => self.attend_within::<T, 32>(kv_head, vectors),
            33..=64 => self.attend_within::<T, 64>(kv_head, vectors),
            65..=128 => self.attend_within::<T, 128>(kv_head, vectors),
            _ => self.attend_within::<T, MAX_HEAD_DIM>(kv_head, vectors),
        }
    }

    #[allow(unsafe_code)]
    fn attend_within<const T: usize, const D: usize>(&self, kv_head: usize, vectors: Range<usize>) {
        let shape = self.shape;
        let head_dim = shape.head_dim;
        let group = shape.heads / shape.kv_heads;
        let place = |vector: usize| (vector / group, (kv_head * group + vector % group) * head_dim);
        let mut tile = Tile {
            queries: [[V::default(); D]; T],
            scores: [[0.0; CHUNK]; T],
            weights: [[V::default(); CHUNK]; T],
            sums: [[0.0; D]; T],
            softmax: [Softmax::EMPTY; T],
        };
        let mut visible = [(0, 0); T];
        for (vector, index) in vectors.clone().zip(0..) {
            let (row, column) = place(vector);
            let query = &self.qkv[row * shape.row_width() + column..][..head_dim];
            tile.queries[index].iter_mut().zip(query).for_each(|(to, query)| *to = V::of(*query));
            visible[index] = self.seen.of(row);
        }
        let visible = &visible[..vectors.len()];
        let first = visible.iter().map(|(first, _)| first / CHUNK).min().unwrap_or(0);
        let end = visible.iter().map(|(_, end)| end.div_ceil(CHUNK)).max().unwrap_or(0);
        for chunk in (first..end).map(|chunk| chunk * CHUNK) {
            let within = |(first, end): (usize, usize)| first.max(chunk)..end.min(chunk + CHUNK);
            let mut index = 0;
            for run in visible.chunk_by(|a, b| within(*a).is_empty() == within(*b).is_empty()) {
                if !within(run[0]).is_empty() {
                    let mut ranges = [const { 0..0 }; T];
                    ranges.iter_mut().zip(run).for_each(|(range, visible)| *range = within(*visible));
                    self.attend_chunk(&mut tile, kv_head, index, chunk, &ranges[..run.len()]);
                }
                index += run.len();
            }
        }
        for (vector, index) in vectors.zip(0..) {
            let (row, column) = place(vector);
            if matches!(self.seen, Seen::Beside(_)) {
                self.attend_to_itself(&mut tile, index, kv_head, row);
            }
            let at = row * shape.heads * head_dim + column;
            // SAFETY: `out` is borrowed exclusively and holds all heads of all rows; this part alone has this vector.
            let out = unsafe { std::slice::from_raw_parts_mut(self.out.get().add(at), head_dim) };
            let total = tile.softmax[index].total();
            for (out, sum) in out.iter_mut().zip(&tile.sums[index]) {
                *out = sum / total;
            }
        }
    }

    /// Takes the own key of a side row into account, after all others.
    fn attend_to_itself<const T: usize, const D: usize>(
        &self,
        tile: &mut Tile<V, T, D>,
        index: usize,
        kv_head: usize,
        row: usize,
    ) {
        let shape = self.shape;
        let own = &self.qkv[row * shape.row_width() + (shape.heads + kv_head) * shape.head_dim..];
        let (key, value) =
            (&own[..shape.head_dim], &own[shape.kv_heads * shape.head_dim..][..shape.head_dim]);
        let (mut query, mut rounded_key) = ([0.0; D], [0.0; D]);
        query.iter_mut().zip(tile.queries[index]).for_each(|(to, query)| *to = query.value());
        rounded_key.iter_mut().zip(key).for_each(|(to, key)| *to = V::of(*key).value());
        let mut score = [shape.scale * vector::dot(&query, &rounded_key)];
        if let Some(cap) = shape.cap {
            soft_cap::forward(&mut score, cap);
        }
        let (softmax, sums) = (&mut tile.softmax[index], &mut tile.sums[index]);
        let weight = softmax.take_one(score[0], sums);
        for (sum, value) in sums.iter_mut().zip(value) {
            *sum += weight * V::of(*value).value();
        }
    }

    /// Takes keys of a chunk into account: `ranges[i]`, which is not empty, for the vector `index + i`.
    #[allow(unsafe_code)]
    fn attend_chunk<const T: usize, const D: usize>(
        &self,
        tile: &mut Tile<V, T, D>,
        kv_head: usize,
        index: usize,
        chunk: usize,
        ranges: &[Range<usize>],
    ) {
        let shape = self.shape;
        let vectors = index..index + ranges.len();
        let (first, end) = ranges.iter().fold((usize::MAX, 0), |(a, b), r| (a.min(r.start), b.max(r.end)));
        let (panel, panels) = (first / LANES, end.div_ceil(LANES) - first / LANES);
        let scores = Product {
            x: tile.queries[vectors.clone()].as_flattened(),
            x_stride: D,
            rows: vectors.len(),
            weights: &self.keys[shape.key_place(kv_head, panel)..],
            panel_stride: shape.head_room() * LANES,
            panels,
            inputs: shape.head_dim.next_multiple_of(V::STEP),
            outputs: panels * LANES,
            start: Start::Zero,
            continues: false,
        };
        let to = tile.scores[vectors.clone()].as_flattened_mut();
        // SAFETY: the set was checked. The panels lie within the chunk, so their scores do within a row of `to`.
        unsafe { scores.write(self.isa, to[panel * LANES - chunk..].as_mut_ptr(), CHUNK) };
        let take = TakeScores {
            scores: &mut tile.scores[vectors.clone()],
            weights: &mut tile.weights[vectors.clone()],
            softmax: &mut tile.softmax[vectors.clone()],
            sums: &mut tile.sums[vectors.clone()],
            chunk,
            ranges,
            scale: shape.scale,
            cap: shape.cap,
        };
        // SAFETY: the set was checked; the work demands nothing.
        unsafe { V::run(self.isa, take) };
        // Steps of keys that all vectors see are read once for all. What some see before and after these, they take alone, so
        // that every vector walks its own keys, in order.
        let shared = ranges.iter().fold(0..usize::MAX, |shared, range| {
            let (start, end) = (range.start.next_multiple_of(V::STEP), range.end / V::STEP * V::STEP);
            shared.start.max(start)..shared.end.min(end)
        });
        if shared.is_empty() {
            for (vector, range) in vectors.zip(ranges) {
                self.add_values_alone(tile, kv_head, vector, chunk, range.clone());
            }
            return;
        }
        for (vector, range) in vectors.clone().zip(ranges) {
            self.add_values_alone(tile, kv_head, vector, chunk, range.start..shared.start);
        }
        self.add_values(tile, kv_head, vectors.clone(), chunk, shared.clone());
        for (vector, range) in vectors.zip(ranges) {
            self.add_values_alone(tile, kv_head, vector, chunk, shared.end..range.end);
        }
    }

    /// Adds the weighted values of some keys of a chunk to the sums of one vector.
    fn add_values_alone<const T: usize, const D: usize>(
        &self,
        tile: &mut Tile<V, T, D>,
        kv_head: usize,
        vector: usize,
        chunk: usize,
        mut keys: Range<usize>,
    ) {
        if !keys.start.is_multiple_of(V::STEP) && !keys.is_empty() {
            self.add_one_value(tile, kv_head, vector, chunk, keys.start);
            keys.start += 1;
        }
        let whole = keys.start..keys.end / V::STEP * V::STEP;
        self.add_values(tile, kv_head, vector..vector + 1, chunk, whole.clone());
        if whole.end < keys.end && !keys.is_empty() {
            self.add_one_value(tile, kv_head, vector, chunk, whole.end);
        }
    }

    /// Adds the value of one key of a step: what stands at the others is nobody's, and not even looked at.
    #[allow(unsafe_code)]
    fn add_one_value<const T: usize, const D: usize>(
        &self,
        tile: &mut Tile<V, T, D>,
        kv_head: usize,
        vector: usize,
        chunk: usize,
        key: usize,
    ) {
        let (within, shape) = (key % V::STEP, self.shape);
        let mut x = [V::default(); MAX_STEP];
        x[within] = tile.weights[vector][key - chunk];
        let mut alone = [[V::default(); D]; MAX_STEP];
        let alone = alone.as_flattened_mut();
        for output in 0..shape.head_dim {
            let from =
                shape.value_place(kv_head, output / LANES, 0) + place_in_panel::<V>(key, output % LANES);
            alone[output / LANES * V::STEP * LANES + place_in_panel::<V>(within, output % LANES)] =
                self.values[from];
        }
        self.add_weighted(&x, alone, V::STEP, V::STEP, &mut tile.sums[vector..=vector]);
    }

    /// Adds the weighted values of some keys of a chunk, whole steps, to the sums of some vectors.
    #[allow(unsafe_code)]
    fn add_values<const T: usize, const D: usize>(
        &self,
        tile: &mut Tile<V, T, D>,
        kv_head: usize,
        vectors: Range<usize>,
        chunk: usize,
        keys: Range<usize>,
    ) {
        if keys.is_empty() {
            return;
        }
        let weights = &tile.weights[vectors.clone()].as_flattened()[keys.start - chunk..];
        let values = &self.values[self.shape.value_place(kv_head, 0, keys.start)..];
        self.add_weighted(weights, values, self.shape.room(), keys.len(), &mut tile.sums[vectors]);
    }

    /// Adds values times weights to some sums. Weights of a vector are a chunk apart from the next one's; a panel of values has
    /// `room` keys, of which the first `keys` are added.
    #[allow(unsafe_code)]
    fn add_weighted<const D: usize>(
        &self,
        weights: &[V],
        values: &[V],
        room: usize,
        keys: usize,
        sums: &mut [[f32; D]],
    ) {
        let panels = self.shape.head_room() / LANES;
        let weighted = Product {
            x: weights,
            x_stride: CHUNK,
            rows: sums.len(),
            weights: values,
            panel_stride: room * LANES,
            panels,
            inputs: keys,
            outputs: panels * LANES,
            start: Start::Zero,
            continues: true,
        };
        // SAFETY: the set was checked; there is a row of `D` sums for each row of weights, and the head fits into it.
        unsafe { weighted.write(self.isa, sums.as_flattened_mut().as_mut_ptr(), D) };
    }
}

#[cfg(test)]
mod tests;
