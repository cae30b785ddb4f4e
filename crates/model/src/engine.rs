//! The decoding engine: packed weights, caches, and [`Ops`] without a tape.
//!
//! An engine holds one sequence. Rows run at consecutive positions from where it was told to stand; a cache is indexed by
//! position, so that rows which are not kept (rejected drafts) are simply written over: the keys and values of positions
//! beyond the committed length are *pending*. Every kernel gives a row the same bits whatever rows run beside it.

mod weights;

use std::sync::Arc;

use kernels::cached_attention::CachedAttention;
use kernels::head_norm::Heads;
use kernels::packed::Start;
use kernels::team::Team;
use tensor::{Activation, AttentionSpec, Embedding, HeadNorms, Linear, Norm, NormKind, Ops};

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

/// Keys and values of one layer, as [`CachedAttention`] keeps them.
#[derive(Debug)]
struct Cache {
    keys: Vec<f32>,
    values: Vec<f32>,
}

/// Which rows leave a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Every row.
    All,
    /// Only the last: the others were there for their keys and values.
    Last,
}

/// Runs a model over one sequence.
pub struct Engine {
    weights: Arc<EngineWeights>,
    team: Arc<Team>,
    caches: Vec<Option<Cache>>,
    capacity: usize,
    position: usize,
    positions: Vec<u32>,
    keep: Vec<Keep>,
    pool: Vec<Vec<f32>>,
    first_visible: Vec<u32>,
}

impl Engine {
    /// An engine for sequences of up to `capacity` positions.
    pub fn new(weights: Arc<EngineWeights>, team: Arc<Team>, capacity: usize) -> Self {
        Self {
            weights,
            team,
            caches: Vec::new(),
            capacity,
            position: 0,
            positions: Vec::new(),
            keep: Vec::new(),
            pool: Vec::new(),
            first_visible: Vec::new(),
        }
    }

    /// How many positions fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The next rows stand at `position` and after; what the caches hold from there on will be written over.
    pub fn stand_at(&mut self, position: usize) {
        self.position = position;
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
            let here = &table[self.position * width..][..out.data.len()];
            kernels::vector::add_assign(&mut out.data, here);
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
        group.packed.multiply(&self.team, &x.data, x.rows, start, &mut out.data);
        self.recycle(x);
        out
    }

    fn linear_add(&mut self, x: Rows, map: Linear, mut residual: Rows) -> Rows {
        let weights = Arc::clone(&self.weights);
        let group = weights.group(map.weight);
        group.packed.multiply(&self.team, &x.data, x.rows, Start::Existing, &mut residual.data);
        if let Some(bias) = &group.bias {
            for row in residual.data.chunks_exact_mut(residual.width) {
                kernels::vector::add_assign(row, bias);
            }
        }
        self.recycle(x);
        residual
    }

    fn attention(&mut self, mut qkv: Rows, spec: &AttentionSpec) -> Rows {
        let first = self.position;
        assert!(first + qkv.rows <= self.capacity, "positions beyond the capacity of the cache");
        if let Some(norms) = &spec.head_norms {
            self.norm_heads(&mut qkv, norms, spec);
        }
        if let Some(rope) = &spec.rope {
            self.positions.clear();
            self.positions.extend((0..qkv.rows).map(|row| (first + row) as u32));
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
        if self.caches.len() <= spec.slot {
            self.caches.resize_with(spec.slot + 1, || None);
        }
        let shape = CachedAttention {
            heads: spec.heads,
            kv_heads: spec.kv_heads,
            head_dim: spec.head_dim,
            capacity: self.capacity,
            scale: spec.scale,
            cap: spec.cap,
        };
        let empty = || vec![0.0; shape.cache_len()];
        let mut cache =
            self.caches[spec.slot].take().unwrap_or_else(|| Cache { keys: empty(), values: empty() });
        shape.store(&qkv.data, first, &mut cache.keys, &mut cache.values);
        let kept = if self.keep_of(spec.slot) == Keep::Last { qkv.rows.min(1) } else { qkv.rows };
        let skipped = qkv.rows - kept;
        let window = spec.window.unwrap_or(usize::MAX);
        let positions = first + skipped..first + qkv.rows;
        self.first_visible.clear();
        self.first_visible.extend(positions.map(|position| (position + 1).saturating_sub(window) as u32));
        let mut out = self.take(kept, spec.heads * spec.head_dim);
        shape.forward(
            &self.team,
            &qkv.data[skipped * qkv.width..],
            first + skipped,
            &self.first_visible,
            &cache.keys,
            &cache.values,
            &mut out.data,
        );
        self.caches[spec.slot] = Some(cache);
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
        let last = self.copy(&x, Keep::Last);
        self.recycle(x);
        last
    }
}
