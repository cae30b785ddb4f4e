//! Side rows: rows that no other row sees, which stand where nothing has been decided yet. They leave nothing in the caches.

use tensor::{Embedding, ParamId};

use super::{Cache, Engine, Held, Rows, Segment};
use kernels::cached_attention::{CacheValue, CachedAttention};
use kernels::team::Team;

/// A row beside those of the tokens: it sees what stands up to its anchor, as far back as a window reaches from its own
/// position, and itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SideRow {
    /// Position of the last token that it sees.
    pub anchor: usize,
    /// Where it stands: for rotary and for learned positions.
    pub position: usize,
}

impl Engine {
    /// Adds `side` behind the rows of tokens `x`, which are embedded and may be none: each begins as `vector`. They run with these
    /// rows until the engine stands elsewhere, and see them and what one sequence holds before them.
    ///
    /// # Panics
    ///
    /// If the engine stands in several sequences.
    pub fn add_beside(
        &mut self,
        x: Rows,
        embedding: &Embedding,
        vector: ParamId,
        side: impl IntoIterator<Item = SideRow>,
    ) -> Rows {
        assert_eq!(self.segments.len(), 1, "side rows stand beside one sequence");
        self.side.clear();
        self.side.extend(side);
        let weights = std::sync::Arc::clone(&self.weights);
        let vector = weights.vector(vector);
        let mut all = self.take(x.rows + self.side.len(), vector.len());
        let (of_tokens, of_side) = all.data.split_at_mut(x.data.len());
        of_tokens.copy_from_slice(&x.data);
        for (row, side) in of_side.chunks_exact_mut(vector.len()).zip(&self.side) {
            row.copy_from_slice(vector);
            if let Some(positions) = embedding.positions {
                let (table, width) = weights.table(positions);
                kernels::vector::add_assign(row, &table[side.position * width..][..width]);
            }
        }
        self.recycle(x);
        all
    }

    /// What the side rows at the end of `qkv` attend to in the sequence of `segment`, whose rows have been stored.
    pub(super) fn attend_beside(
        &mut self,
        qkv: &[f32],
        segment: Segment,
        spec: &tensor::AttentionSpec,
        out: &mut [f32],
    ) {
        let window = spec.window.unwrap_or(usize::MAX);
        self.seen.clear();
        self.seen.extend(self.side.iter().map(|side| {
            let end = side.anchor + 1;
            // A window counts positions: a row looks back from where it stands, and its own key is one of those that it sees.
            (side.position + 1).saturating_sub(window).min(end) as u32..end as u32
        }));
        let shape = self.shape_of(spec);
        let cache = self.caches[segment.sequence][spec.slot].as_ref().expect("attend has made the cache");
        match cache {
            Cache::F32(held) => held.attend_beside(&shape, &self.team, qkv, &self.seen, out),
            Cache::Bf16(held) => held.attend_beside(&shape, &self.team, qkv, &self.seen, out),
        }
    }
}

impl<V: CacheValue> Held<V> {
    fn attend_beside(
        &self,
        shape: &CachedAttention,
        team: &Team,
        qkv: &[f32],
        seen: &[std::ops::Range<u32>],
        out: &mut [f32],
    ) {
        shape.forward_beside(team, qkv, seen, &self.keys, &self.values, out);
    }
}
