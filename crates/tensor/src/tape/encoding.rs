//! What encoders need beyond a decoder's operations: values from outside, and attention without a mask.

use kernels::full_attention::{self, FullAttention};

use super::{Op, Tape, Var};

impl Tape<'_> {
    /// Values from outside as rows of `width`; no gradient goes there.
    pub fn input(&mut self, values: &[f32], width: usize) -> Var {
        let mut value = self.arena.take(values.len());
        value.copy_from_slice(values);
        self.push(Op::Input, width, value, false)
    }

    /// Attention of every query over all keys of its row of the batch. `queries` `[batch * n, heads * head_dim]`, `memory`
    /// `[batch * m, 2 heads * head_dim]`, keys first; gives `[batch * n, heads * head_dim]`.
    pub fn full_attention(&mut self, queries: Var, memory: Var, heads: usize, scale: f32) -> Var {
        let (from, to) = (&self.nodes[queries.0], &self.nodes[memory.0]);
        let batch = self.layout.batch;
        let width = from.width;
        let shape = FullAttention {
            batch,
            queries: from.rows / batch.max(1),
            keys: to.rows / batch.max(1),
            heads,
            head_dim: width / heads,
            scale,
        };
        let requires = from.requires_gradient || to.requires_gradient;
        let mut value = self.arena.take(self.nodes[queries.0].value.len());
        full_attention::forward(
            &shape,
            &self.nodes[queries.0].value,
            &self.nodes[memory.0].value,
            &mut value,
        );
        self.consume(queries.0, requires);
        self.consume(memory.0, requires);
        self.push(Op::FullAttention { queries: queries.0, memory: memory.0, shape }, width, value, requires)
    }

    pub(super) fn full_attention_back(
        &mut self,
        queries: usize,
        memory: usize,
        shape: &FullAttention,
        gradient: &[f32],
    ) {
        let mut d_queries = self.arena.take(self.nodes[queries].value.len());
        let mut d_memory = self.arena.take(self.nodes[memory].value.len());
        let (from, to) = (&self.nodes[queries].value, &self.nodes[memory].value);
        full_attention::backward(shape, from, to, gradient, &mut d_queries, &mut d_memory);
        self.hand_over(queries, d_queries);
        self.hand_over(memory, d_memory);
    }
}
