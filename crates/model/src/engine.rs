//! The decoding engine: packed weights, caches, and [`Ops`] without a tape.
//!
//! An engine holds one sequence or several. Rows run at consecutive positions from where it was told to stand; a cache is
//! indexed by position, so that rows which are not kept (rejected drafts) are simply written over: the keys and values of
//! positions beyond the committed length are *pending*. Every kernel gives a row the same bits whatever rows run beside it,
//! of its own sequence or of others.

mod beside;
mod file;
mod weights;

use std::ops::Range;
use std::sync::Arc;

use kernels::cached_attention::{CacheValue, CachedAttention};
use kernels::head_norm::Heads;
use kernels::packed::{PreparedRows, Start, UpperHalf};
use kernels::team::Team;
use tensor::{Activation, AttentionSpec, Embedding, HeadNorms, Linear, Norm, NormKind, Ops};

pub use beside::SideRow;
pub use file::{PACKED_FILE, read_packed, write_packed};
pub use weights::EngineWeights;

/// A value of the engine: `[rows, width]`.
#[derive(Debug)]
pub struct Rows {
    /// Row-major values.
    pub data: Vec<f32>,
    /// Number of rows.
    pub rows: usize,
    /// Values per row.
    pub width: usize,
}

impl Rows {
    /// One row.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.data[row * self.width..(row + 1) * self.width]
    }
}

/// How keys and values are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheType {
    /// As they are computed.
    #[default]
    F32,
    /// Rounded to bf16, as queries and the weights of softmax then are: half the memory, and half of what a long context has to
    /// read.
    Bf16,
}

impl CacheType {
    /// Bytes of one value.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => size_of::<f32>(),
            Self::Bf16 => size_of::<UpperHalf>(),
        }
    }
}

impl std::str::FromStr for CacheType {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            _ => Err(format!("{name} is no type of cache: give f32 or bf16")),
        }
    }
}

/// Keys and values of one layer, as [`CachedAttention`] keeps them.
#[derive(Debug)]
enum Cache {
    F32(Held<f32>),
    Bf16(Held<UpperHalf>),
}

#[derive(Debug)]
struct Held<V> {
    keys: Vec<V>,
    values: Vec<V>,
}

impl<V: CacheValue> Held<V> {
    fn empty(shape: &CachedAttention) -> Self {
        let values = || vec![V::default(); shape.cache_len()];
        Self { keys: values(), values: values() }
    }

    /// Stores the rows of `qkv`, which begin at `first`, and attends with the last of them, as many as `first_visible` has.
    fn attend(
        &mut self,
        shape: &CachedAttention,
        team: &Team,
        qkv: &[f32],
        first: usize,
        first_visible: &[u32],
        out: &mut [f32],
    ) {
        shape.store(qkv, first, &mut self.keys, &mut self.values);
        let width = (shape.heads + 2 * shape.kv_heads) * shape.head_dim;
        let skipped = qkv.len() / width - first_visible.len();
        let qkv = &qkv[skipped * width..];
        shape.forward(team, qkv, first + skipped, first_visible, &self.keys, &self.values, out);
    }
}

/// Which rows leave a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Every row.
    All,
    /// Only the last of each sequence: the others were there for their keys and values.
    Last,
}

/// Rows that stand at consecutive positions of one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Which sequence, from 0.
    pub sequence: usize,
    /// Where the first row stands.
    pub position: usize,
    /// How many rows there are.
    pub rows: usize,
}

/// Runs a model over one sequence, or over several whose rows stand one after the other.
pub struct Engine {
    weights: Arc<EngineWeights>,
    team: Arc<Team>,
    /// `[sequence][slot]`
    caches: Vec<Vec<Option<Cache>>>,
    cache_type: CacheType,
    capacity: usize,
    /// Where the next rows stand; a single segment takes all there are.
    segments: Vec<Segment>,
    prepared: PreparedRows,
    positions: Vec<u32>,
    keep: Vec<Keep>,
    pool: Vec<Vec<f32>>,
    first_visible: Vec<u32>,
    /// Rows beside those of the segment.
    side: Vec<SideRow>,
    /// What each of them sees in a layer.
    seen: Vec<Range<u32>>,
}

impl Engine {
    /// An engine for sequences of up to `capacity` positions.
    pub fn new(weights: Arc<EngineWeights>, team: Arc<Team>, capacity: usize) -> Self {
        Self {
            weights,
            team,
            caches: Vec::new(),
            cache_type: CacheType::default(),
            capacity,
            segments: vec![Segment { sequence: 0, position: 0, rows: 0 }],
            prepared: PreparedRows::default(),
            positions: Vec::new(),
            keep: Vec::new(),
            pool: Vec::new(),
            first_visible: Vec::new(),
            side: Vec::new(),
            seen: Vec::new(),
        }
    }

    /// Holds keys and values in another way from now on; what was held is gone.
    pub fn hold_cache_as(&mut self, cache_type: CacheType) {
        self.cache_type = cache_type;
        self.caches.clear();
    }

    /// How keys and values are held.
    pub fn cache_type(&self) -> CacheType {
        self.cache_type
    }

    /// How many positions fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The next rows stand at `position` and after, in the sequence that came last; what the caches hold from there on will be
    /// written over.
    pub fn stand_at(&mut self, position: usize) {
        let sequence = self.segments.last().map_or(0, |segment| segment.sequence);
        self.stand_in(sequence, position);
    }

    /// The next rows stand at `position` and after of `sequence`.
    pub fn stand_in(&mut self, sequence: usize, position: usize) {
        self.side.clear();
        self.segments.clear();
        self.segments.push(Segment { sequence, position, rows: 0 });
    }

    /// The next rows are those of `segments`, one after the other: every value has exactly as many, until a layer keeps only the
    /// last of each.
    ///
    /// # Panics
    ///
    /// If there are none, or one has no rows.
    pub fn stand_as(&mut self, segments: &[Segment]) {
        assert!(segments.iter().all(|segment| segment.rows > 0), "a segment without rows");
        assert!(!segments.is_empty(), "no segments");
        self.side.clear();
        self.segments.clear();
        self.segments.extend_from_slice(segments);
    }

    /// Frees the caches of a sequence.
    pub fn forget(&mut self, sequence: usize) {
        if let Some(caches) = self.caches.get_mut(sequence) {
            caches.clear();
        }
    }

    /// Where `rows` rows of tokens stand, as segments that have their numbers of rows.
    fn segments_of(&mut self, rows: usize) -> Vec<Segment> {
        let mut segments = std::mem::take(&mut self.segments);
        if let [only] = segments.as_mut_slice() {
            only.rows = rows;
        }
        assert_eq!(segments.iter().map(|segment| segment.rows).sum::<usize>(), rows, "rows of the segments");
        segments
    }

    /// Decides which rows leave layer `slot` from now on.
    pub fn set_keep(&mut self, slot: usize, keep: Keep) {
        if self.keep.len() <= slot {
            self.keep.resize(slot + 1, Keep::All);
        }
        self.keep[slot] = keep;
    }

    /// Gives a value's buffer back for reuse.
    pub fn recycle(&mut self, rows: Rows) {
        self.pool.push(rows.data);
    }

    /// A copy of `x`, or of its last row.
    pub fn copy(&mut self, x: &Rows, keep: Keep) -> Rows {
        let rows = if keep == Keep::Last { 1 } else { x.rows };
        self.copy_rows(x, x.rows - rows, rows)
    }

    /// A copy of `count` rows of `x`.
    pub fn copy_rows(&mut self, x: &Rows, first: usize, count: usize) -> Rows {
        let mut copy = self.take(count, x.width);
        copy.data.copy_from_slice(&x.data[first * x.width..(first + count) * x.width]);
        copy
    }

    /// The same values as rows of another width: outputs side by side become rows.
    pub fn reshape(&mut self, mut x: Rows, width: usize, rows: usize) -> Rows {
        x.data.truncate(rows * width);
        Rows { data: x.data, rows, width }
    }

    /// One value of the rows of all `parts`, in order.
    pub fn stack(&mut self, parts: Vec<Rows>) -> Rows {
        let rows = parts.iter().map(|part| part.rows).sum();
        let mut stacked = self.take(rows, parts.first().map_or(0, |part| part.width));
        let mut rest = stacked.data.as_mut_slice();
        for part in parts {
            let (here, after) = rest.split_at_mut(part.data.len());
            here.copy_from_slice(&part.data);
            rest = after;
            self.pool.push(part.data);
        }
        stacked
    }

    fn norm_heads(&mut self, qkv: &mut Rows, norms: &HeadNorms, spec: &AttentionSpec) {
        let queries = Heads { row_width: qkv.width, first_column: 0, heads: spec.heads };
        let keys = Heads { first_column: spec.heads * spec.head_dim, heads: spec.kv_heads, ..queries };
        for (heads, weight) in [(queries, norms.query), (keys, norms.key)] {
            let mut inverse_rms = self.take(qkv.rows, heads.heads);
            let gain = self.weights.vector(weight);
            kernels::head_norm::forward(heads, &mut qkv.data, gain, norms.epsilon, &mut inverse_rms.data);
            self.recycle(inverse_rms);
        }
    }

    /// Stores keys and values of the rows of a segment, and writes what the rows that leave the layer attend to into `out`.
    fn attend(&mut self, qkv: &[f32], segment: Segment, spec: &AttentionSpec, out: &mut [f32]) {
        let first = segment.position;
        assert!(first + segment.rows <= self.capacity, "positions beyond the capacity of the cache");
        if self.caches.len() <= segment.sequence {
            self.caches.resize_with(segment.sequence + 1, Vec::new);
        }
        if self.caches[segment.sequence].len() <= spec.slot {
            self.caches[segment.sequence].resize_with(spec.slot + 1, || None);
        }
        let shape = self.shape_of(spec);
        let caches = &mut self.caches[segment.sequence];
        let cache_type = self.cache_type;
        let cache = caches[spec.slot].get_or_insert_with(|| match cache_type {
            CacheType::F32 => Cache::F32(Held::empty(&shape)),
            CacheType::Bf16 => Cache::Bf16(Held::empty(&shape)),
        });
        let kept = out.len() / (spec.heads * spec.head_dim);
        let skipped = segment.rows - kept;
        let window = spec.window.unwrap_or(usize::MAX);
        let positions = first + skipped..first + segment.rows;
        self.first_visible.clear();
        self.first_visible.extend(positions.map(|position| (position + 1).saturating_sub(window) as u32));
        let (team, visible) = (&self.team, self.first_visible.as_slice());
        match cache {
            Cache::F32(held) => held.attend(&shape, team, qkv, first, visible, out),
            Cache::Bf16(held) => held.attend(&shape, team, qkv, first, visible, out),
        }
    }

    fn shape_of(&self, spec: &AttentionSpec) -> CachedAttention {
        CachedAttention {
            heads: spec.heads,
            kv_heads: spec.kv_heads,
            head_dim: spec.head_dim,
            capacity: self.capacity,
            scale: spec.scale,
            cap: spec.cap,
        }
    }

    fn keep_of(&self, slot: usize) -> Keep {
        self.keep.get(slot).copied().unwrap_or(Keep::All)
    }

    /// A buffer from the pool: one of that very length, which need not be cleared, or the smallest that is large enough.
    /// After the first steps nothing is allocated.
    fn take(&mut self, rows: usize, width: usize) -> Rows {
        let len = rows * width;
        let fitting = self.pool.iter().enumerate().filter(|(_, b)| b.capacity() >= len);
        let found = fitting.min_by_key(|(_, b)| (b.len() != len, b.capacity())).map(|(index, _)| index);
        let mut data = match found {
            Some(index) => self.pool.swap_remove(index),
            None => Vec::with_capacity(len),
        };
        data.resize(len, 0.0);
        Rows { data, rows, width }
    }
}

impl Ops for Engine {
    type Var = Rows;

    fn share(&mut self, x: &Rows) -> Rows {
        self.copy(x, Keep::All)
    }

    fn embed(&mut self, embedding: &Embedding, tokens: &[u32]) -> Rows {
        let weights = Arc::clone(&self.weights);
        let (table, width) = weights.table(embedding.table);
        let mut out = self.take(tokens.len(), width);
        kernels::embedding::gather(table, width, tokens, &mut out.data);
        if embedding.scale != 1.0 {
            kernels::vector::scale(&mut out.data, embedding.scale);
        }
        if let Some(positions) = embedding.positions {
            let (table, _) = weights.table(positions);
            let segments = self.segments_of(tokens.len());
            let mut rest = out.data.as_mut_slice();
            for segment in &segments {
                let (rows, after) = rest.split_at_mut(segment.rows * width);
                kernels::vector::add_assign(rows, &table[segment.position * width..][..rows.len()]);
                rest = after;
            }
            self.segments = segments;
        }
        out
    }

    fn norm(&mut self, x: &Rows, norm: &Norm) -> Rows {
        let mut out = self.take(x.rows, x.width);
        let gain = self.weights.vector(norm.weight);
        for (x, y) in x.data.chunks_exact(x.width).zip(out.data.chunks_exact_mut(x.width)) {
            match norm.kind {
                NormKind::Rms | NormKind::RmsPlusOne => {
                    kernels::rms_norm::forward_row(x, gain, norm.epsilon, y);
                }
                NormKind::Layer { bias } => {
                    kernels::layer_norm::forward_row(x, gain, self.weights.vector(bias), norm.epsilon, y);
                }
            }
        }
        out
    }

    fn norm_add(&mut self, x: Rows, norm: &Norm, mut residual: Rows) -> Rows {
        let normed = self.norm(&x, norm);
        kernels::vector::add_assign(&mut residual.data, &normed.data);
        self.recycle(normed);
        self.recycle(x);
        residual
    }

    fn linear(&mut self, x: Rows, maps: &[Linear]) -> Rows {
        let weights = Arc::clone(&self.weights);
        let group = weights.group(maps[0].weight);
        let mut out = self.take(x.rows, group.packed.outputs());
        let start = group.bias.as_deref().map_or(Start::Zero, Start::Bias);
        group.packed.multiply(&self.team, &mut self.prepared, &x.data, x.rows, start, &mut out.data);
        self.recycle(x);
        out
    }

    fn linear_add(&mut self, x: Rows, map: Linear, mut residual: Rows) -> Rows {
        let weights = Arc::clone(&self.weights);
        let group = weights.group(map.weight);
        let start = Start::Existing;
        group.packed.multiply(&self.team, &mut self.prepared, &x.data, x.rows, start, &mut residual.data);
        if let Some(bias) = &group.bias {
            for row in residual.data.chunks_exact_mut(residual.width) {
                kernels::vector::add_assign(row, bias);
            }
        }
        self.recycle(x);
        residual
    }

    fn attention(&mut self, mut qkv: Rows, spec: &AttentionSpec) -> Rows {
        let segments = self.segments_of(qkv.rows - self.side.len());
        if let Some(norms) = &spec.head_norms {
            self.norm_heads(&mut qkv, norms, spec);
        }
        if let Some(rope) = &spec.rope {
            self.positions.clear();
            for segment in &segments {
                let positions = segment.position..segment.position + segment.rows;
                self.positions.extend(positions.map(|position| position as u32));
            }
            self.positions.extend(self.side.iter().map(|side| side.position as u32));
            kernels::rope::rotate(
                &mut qkv.data,
                qkv.width,
                spec.rotated().start,
                spec.heads + spec.kv_heads,
                spec.head_dim,
                &self.positions,
                rope,
                false,
            );
        }
        let kept = |segment: &Segment, keep| if keep == Keep::Last { 1 } else { segment.rows };
        let keep = self.keep_of(spec.slot);
        assert!(self.side.is_empty() || keep == Keep::All, "side rows leave a layer with all others");
        let kept_rows = segments.iter().map(|segment| kept(segment, keep)).sum::<usize>() + self.side.len();
        let mut out = self.take(kept_rows, spec.heads * spec.head_dim);
        let (mut rest, mut out_rest) = (qkv.data.as_slice(), out.data.as_mut_slice());
        for segment in &segments {
            let (rows, after) = rest.split_at(segment.rows * qkv.width);
            let (out, out_after) = out_rest.split_at_mut(kept(segment, keep) * spec.heads * spec.head_dim);
            self.attend(rows, *segment, spec, out);
            (rest, out_rest) = (after, out_after);
        }
        if let [segment] = segments[..]
            && !self.side.is_empty()
        {
            self.attend_beside(rest, segment, spec, out_rest);
        }
        self.segments = segments;
        self.recycle(qkv);
        out
    }

    fn activate(&mut self, x: Rows, activation: Activation) -> Rows {
        let mut out = self.take(x.rows, x.width / activation.inputs());
        match activation {
            Activation::SiluGated => kernels::swiglu::forward(&x.data, out.width, &mut out.data),
            Activation::GeluGated => kernels::gelu::gated_forward(&x.data, out.width, &mut out.data),
            Activation::Gelu => kernels::gelu::forward(&x.data, &mut out.data),
            Activation::GeluErf => kernels::gelu_erf::forward(&x.data, &mut out.data),
        }
        self.recycle(x);
        out
    }

    fn soft_cap(&mut self, mut x: Rows, cap: f32) -> Rows {
        kernels::soft_cap::forward(&mut x.data, cap);
        x
    }

    fn narrow(&mut self, x: Rows, slot: usize) -> Rows {
        if self.keep_of(slot) == Keep::All || x.rows <= 1 {
            return x;
        }
        let segments = self.segments_of(x.rows);
        let mut last = self.take(segments.len(), x.width);
        let mut end = 0;
        for (segment, to) in segments.iter().zip(last.data.chunks_exact_mut(x.width)) {
            end += segment.rows;
            to.copy_from_slice(x.row(end - 1));
        }
        self.segments = segments;
        self.recycle(x);
        last
    }
}
