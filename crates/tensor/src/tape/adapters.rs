//! Low-rank adapters on linear maps (LoRA, Hu et al. 2106.09685): `y = x W^T + scale (drop(x) A^T) B^T`.
//!
//! The map itself is an ordinary one; what the adapter adds is a second, thin path beside it.

use kernels::matmul::{View, ViewMut, Write, product_nn, product_nt, product_tn};

use super::Tape;
use crate::params::Adapter;
use crate::{Linear, ParamId};

/// What backward needs of the adapters of a node: for each map that has one, `scale drop(x) A^T`, `[rows, rank]`.
pub(super) type Inner = Vec<Option<Vec<f32>>>;

impl Tape<'_> {
    /// Whether an adapter of `map` is trained.
    pub(super) fn adapter_trained(&self, map: &Linear) -> bool {
        let adapter = self.params.adapter(map.weight);
        adapter.is_some_and(|adapter| self.trained(adapter.down) || self.trained(adapter.up))
    }

    /// Adds to `y`, whose rows hold the outputs of `maps` side by side, what their adapters say.
    pub(super) fn adapt(&mut self, x: usize, maps: &[Linear], y: &mut [f32]) -> Inner {
        let width = maps.iter().map(|map| self.params.matrix_shape(map.weight).0).sum();
        let mut offset = 0;
        let mut inner = Vec::with_capacity(maps.len());
        for map in maps {
            let outputs = self.params.matrix_shape(map.weight).0;
            let adapter = self.params.adapter(map.weight).copied();
            inner.push(
                adapter.map(|adapter| self.adapt_one(x, map.weight, &adapter, &mut y[offset..], width)),
            );
            offset += outputs;
        }
        inner
    }

    fn adapt_one(
        &mut self,
        x: usize,
        weight: ParamId,
        adapter: &Adapter,
        y: &mut [f32],
        stride: usize,
    ) -> Vec<f32> {
        let (outputs, inputs) = self.params.matrix_shape(weight);
        let (rank, rows) = (self.params.matrix_shape(adapter.down).0, self.nodes[x].rows);
        let dropped = self.dropped(x, weight, adapter);
        let mut inner = self.arena.take(rows * rank);
        let value = dropped.as_deref().unwrap_or(&self.nodes[x].value);
        let down = View::new(self.params.data(adapter.down), rank, inputs);
        let up = View::new(self.params.data(adapter.up), outputs, rank);
        // As in the map itself, so that registers leave the bits of tokens alone.
        for part in self.layout.parts(rows) {
            let x = View::new(&value[part.start * inputs..part.end * inputs], part.len(), inputs);
            let here = &mut inner[part.start * rank..part.end * rank];
            product_nt(x, down, ViewMut::new(here, part.len(), rank), Write::Overwrite);
            kernels::vector::scale(here, adapter.scale);
            let y = ViewMut::strided(&mut y[part.start * stride..], part.len(), outputs, stride);
            product_nt(View::new(here, part.len(), rank), up, y, Write::Add);
        }
        self.arena.give(dropped.unwrap_or_default());
        inner
    }

    /// `dB += dy^T inner`, `d = scale dy B`, `dA += d^T drop(x)`, `dx += drop(d A)`; `dy` as in [`Self::adapt`].
    pub(super) fn adapt_back(&mut self, x: usize, maps: &[Linear], inner: &Inner, dy: &[f32], stride: usize) {
        let mut offset = 0;
        for (map, inner) in maps.iter().zip(inner) {
            let (outputs, inputs) = self.params.matrix_shape(map.weight);
            if let (Some(adapter), Some(inner)) = (self.params.adapter(map.weight).copied(), inner) {
                let (rank, rows) = (self.params.matrix_shape(adapter.down).0, self.nodes[x].rows);
                let dy = View::strided(&dy[offset..], rows, outputs, stride);
                if let Some((slot, write)) = self.gradients.as_mut().and_then(|g| g.slot(adapter.up)) {
                    product_tn(dy, View::new(inner, rows, rank), ViewMut::new(slot, outputs, rank), write);
                }
                let mut d_inner = self.arena.take(rows * rank);
                let up = View::new(self.params.data(adapter.up), outputs, rank);
                product_nn(dy, up, ViewMut::new(&mut d_inner, rows, rank), Write::Overwrite);
                kernels::vector::scale(&mut d_inner, adapter.scale);
                let dropped = self.dropped(x, map.weight, &adapter);
                if let Some((slot, write)) = self.gradients.as_mut().and_then(|g| g.slot(adapter.down)) {
                    let value = View::new(dropped.as_deref().unwrap_or(&self.nodes[x].value), rows, inputs);
                    product_tn(
                        View::new(&d_inner, rows, rank),
                        value,
                        ViewMut::new(slot, rank, inputs),
                        write,
                    );
                }
                self.arena.give(dropped.unwrap_or_default());
                if self.nodes[x].requires_gradient {
                    let mut through = self.arena.take(rows * inputs);
                    let down = View::new(self.params.data(adapter.down), rank, inputs);
                    let d_inner = View::new(&d_inner, rows, rank);
                    product_nn(d_inner, down, ViewMut::new(&mut through, rows, inputs), Write::Overwrite);
                    self.drop_out(map.weight, &adapter, &mut through, inputs);
                    let (mut dx, write) = self.gradient_of(x);
                    match write {
                        Write::Add => kernels::vector::add_assign(&mut dx, &through),
                        Write::Overwrite => dx.copy_from_slice(&through),
                    }
                    self.nodes[x].gradient = Some(dx);
                    self.arena.give(through);
                }
                self.arena.give(d_inner);
            }
            offset += outputs;
        }
    }

    /// The input of an adapter with dropout; `None` where it is the input as it is.
    fn dropped(&mut self, x: usize, weight: ParamId, adapter: &Adapter) -> Option<Vec<f32>> {
        if adapter.dropout == 0.0 || self.layout.draws.is_empty() {
            return None;
        }
        let mut value = self.arena.take(self.nodes[x].value.len());
        value.copy_from_slice(&self.nodes[x].value);
        let width = self.nodes[x].width;
        self.drop_out(weight, adapter, &mut value, width);
        Some(value)
    }

    /// Sets a share of the elements to zero and stretches the others. Which ones is decided by the row's draw, its place within
    /// the row, and the map: forward and backward agree without keeping anything, and so do batches however they are cut.
    fn drop_out(&self, weight: ParamId, adapter: &Adapter, value: &mut [f32], width: usize) {
        if adapter.dropout == 0.0 || self.layout.draws.is_empty() {
            return;
        }
        let kept = 1.0 / (1.0 - adapter.dropout);
        let limit = (f64::from(adapter.dropout) * 2f64.powi(32)) as u64;
        for (index, row) in value.chunks_exact_mut(width).enumerate() {
            let mut state = mix(self.layout.draw_of(index) ^ mix(weight.index() as u64 + 1));
            for element in row {
                state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                *element *= if mix(state) >> 32 < limit { 0.0 } else { kept };
            }
        }
    }
}

/// The output function of SplitMix64 (Steele, Lea and Flood 2014).
pub(super) fn mix(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}
