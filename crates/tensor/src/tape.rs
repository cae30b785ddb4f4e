//! The tape: runs the operations forward, remembers what backward needs, and runs back to any mark.
//!
//! Running back to a *mark* is what keeps memory constant in the number of heads (2404.19737 section 2): after the trunk
//! comes a mark; each head is recorded, its loss taken, and run back to the mark, which frees the head and leaves its
//! contribution in the gradient of the trunk's output; at last the trunk runs back to the start.

mod adapters;
mod backward;
mod encoding;
mod likelihood;
mod linear;
mod loss;
mod norms;
mod recompute;
mod registers;
mod several;

use std::borrow::Cow;
use std::iter;
use std::ops::Range;
use std::sync::Arc;

use adapters::Inner;
use kernels::attention::{Mask, SideRow};
use kernels::full_attention::FullAttention;
use kernels::matmul::{MANY_ROWS, Precision, Write};
pub use loss::LearningRows;
use recompute::TapePart;
pub use registers::Blend;
use registers::RegisterRows;

use crate::{
    Activation, Arena, AttentionSpec, Embedding, Gradients, HeadNorms, Linear, LossSum, Norm, Ops, ParamId,
    Params, Part,
};

/// Where the rows of a batch stand and what they see. Rows are `[batch, length]`, batch outermost, and then the registers.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    /// Number of rows of the batch (each may hold several packed documents).
    pub batch: usize,
    /// Positions per row of the batch.
    pub length: usize,
    /// `[batch, length]`: position within the document, for rope.
    pub positions: Vec<u32>,
    /// `[batch, length]`: index within the row of the batch of the first key that the position may see.
    pub first_visible: Vec<u32>,
    /// Rows that stand beside the tokens and that nobody sees, in the order of the rows of the batch.
    pub registers: Vec<Register>,
    /// `[batch]`: numbers that decide what dropout drops in each row of the batch; empty: nothing is dropped.
    pub draws: Vec<u64>,
}

/// A row beside the tokens of the batch: it has a vector in place of a token, sees what the token before it sees, and itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register {
    /// The row of the batch.
    pub row: u32,
    /// Index within that row of the token that it stands behind.
    pub anchor: u32,
    /// Position within the document, for rope and for learned positions.
    pub position: u32,
}

impl Layout {
    /// One sequence of `length` tokens.
    pub fn single(length: usize) -> Self {
        let (positions, first_visible) = ((0..length as u32).collect(), vec![0; length]);
        Self { batch: 1, length, positions, first_visible, ..Self::default() }
    }

    /// Rows that hold a token.
    fn token_rows(&self) -> usize {
        self.batch * self.length
    }

    /// All rows, registers too.
    pub fn rows(&self) -> usize {
        self.token_rows() + self.registers.len()
    }

    /// The rows of a value in parts that products take apart, so that registers leave the bits of tokens alone: those of tokens,
    /// and those of registers if there are any. From [`MANY_ROWS`] rows of tokens on there is one part.
    fn parts(&self, rows: usize) -> impl Iterator<Item = Range<usize>> {
        let tokens = self.token_rows();
        let apart = !self.registers.is_empty() && tokens < rows.min(MANY_ROWS);
        let first = if apart { tokens } else { rows };
        iter::once(0..first).chain(apart.then_some(tokens..rows))
    }

    /// A number for a row of a value: that of the row's draw and its place.
    fn draw_of(&self, row: usize) -> u64 {
        let (draw, place) = match row.checked_sub(self.token_rows()) {
            None => (self.draws[row / self.length], row % self.length),
            Some(register) => {
                let Register { row, anchor, position } = self.registers[register];
                // Beyond all tokens, and apart from the other registers behind the same one.
                let place = (position as usize + 1) << 32 | anchor as usize;
                (self.draws[row as usize], place)
            }
        };
        adapters::mix(draw.wrapping_add(adapters::mix(place as u64)))
    }

    /// Positions of all rows.
    fn all_positions(&self) -> Cow<'_, [u32]> {
        if self.registers.is_empty() {
            return Cow::Borrowed(&self.positions);
        }
        let of_registers = self.registers.iter().map(|register| register.position);
        Cow::Owned(self.positions.iter().copied().chain(of_registers).collect())
    }

    /// What each register sees. A window counts positions: a register looks back from where it stands, and its own key is one
    /// of those that it counts.
    fn side_rows(&self, window: Option<usize>) -> Vec<SideRow> {
        let of = |register: &Register| {
            let &Register { row, anchor, position } = register;
            let at = row as usize * self.length + anchor as usize;
            let ahead = position.saturating_sub(self.positions[at]);
            let bound =
                window.map_or(0, |window| (anchor as usize + ahead as usize + 1).saturating_sub(window));
            SideRow { row, first: self.first_visible[at].max(bound as u32), end: anchor + 1 }
        };
        self.registers.iter().map(of).collect()
    }

    /// What each position sees first when a window lets it see no more than so many keys.
    fn first_visible(&self, window: Option<usize>) -> Cow<'_, [u32]> {
        let Some(window) = window else { return Cow::Borrowed(&self.first_visible) };
        let bounded = |(row, &first): (usize, &u32)| {
            let position = row % self.length.max(1);
            first.max((position + 1).saturating_sub(window) as u32)
        };
        Cow::Owned(self.first_visible.iter().enumerate().map(bounded).collect())
    }
}

/// A value on the tape.
#[derive(Debug)]
pub struct Var(usize);

/// A place on the tape to run back to.
#[derive(Clone, Copy, Debug)]
pub struct Mark(usize);

enum Op {
    Input,
    Embed { embedding: Embedding, tokens: Vec<u32>, registers: Option<RegisterRows> },
    Norm { x: usize, norm: Norm, inverse_rms: Vec<f32> },
    NormAdd { x: usize, norm: Norm, inverse_rms: Vec<f32>, residual: usize },
    Linear { x: usize, maps: Vec<Linear>, inner: Inner },
    LinearAdd { x: usize, map: Linear, inner: Inner, residual: usize },
    HeadNorm { qkv: usize, norms: HeadNorms, columns: HeadColumns, inverse_rms: Vec<f32> },
    Attention { qkv: usize, spec: AttentionSpec, log_sum_exp: Vec<f32> },
    FullAttention { queries: usize, memory: usize, shape: FullAttention },
    Activate { x: usize, activation: Activation },
    SoftCap { x: usize, cap: f32 },
    Recomputed { x: usize, part: Arc<dyn TapePart> },
}

/// Where query heads and key heads stand in a row.
#[derive(Clone, Copy, Debug)]
struct HeadColumns {
    queries: kernels::head_norm::Heads,
    keys: kernels::head_norm::Heads,
}

struct Node {
    op: Op,
    rows: usize,
    width: usize,
    /// Empty once nobody needs it any more.
    value: Vec<f32>,
    gradient: Option<Vec<f32>>,
    requires_gradient: bool,
    /// Handles that may still use it up.
    handles: usize,
    /// Its rows of registers are one and the same row, so that a linear map has to take only the first of them.
    registers_alike: bool,
}

/// A recording of operations over one batch.
pub struct Tape<'a> {
    params: &'a Params,
    gradients: Option<&'a mut Gradients>,
    arena: &'a mut Arena,
    layout: &'a Layout,
    precision: Precision,
    recomputes: bool,
    nodes: Vec<Node>,
}

impl<'a> Tape<'a> {
    /// A tape that adds to `gradients` when it runs back.
    pub fn training(
        params: &'a Params,
        gradients: &'a mut Gradients,
        arena: &'a mut Arena,
        layout: &'a Layout,
    ) -> Self {
        Self { gradients: Some(gradients), ..Self::evaluation(params, arena, layout) }
    }

    /// A tape that only computes: values are freed when they were used for the last time.
    pub fn evaluation(params: &'a Params, arena: &'a mut Arena, layout: &'a Layout) -> Self {
        Self {
            params,
            gradients: None,
            arena,
            layout,
            precision: Precision::F32,
            recomputes: false,
            nodes: Vec::new(),
        }
    }

    /// The same, with the factors of linear maps and of the unembedding in `precision`. All else is f32: norms, attention,
    /// activations, softmax, losses, what the tape keeps, and sums.
    pub fn in_precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// The same; with `recomputes`, the parts of a model ([`Ops::run`]) keep their input only and run forward again when
    /// backward comes to them. The gradients have the same bits.
    pub fn recomputing(mut self, recomputes: bool) -> Self {
        self.recomputes = recomputes && self.gradients.is_some();
        self
    }

    /// The parameters that it reads.
    pub fn params(&self) -> &'a Params {
        self.params
    }

    /// The values of `var`, `[rows, width]`.
    pub fn value(&self, var: &Var) -> &[f32] {
        &self.nodes[var.0].value
    }

    /// The values of `var`, to be changed. What was computed from them before stays as it was, and a training tape would
    /// differentiate at the wrong place: this is for looking into a model, not for training it.
    pub fn value_mut(&mut self, var: &Var) -> &mut [f32] {
        let node = &mut self.nodes[var.0];
        node.registers_alike = false;
        &mut node.value
    }

    /// The present end of the tape.
    pub fn mark(&self) -> Mark {
        Mark(self.nodes.len())
    }

    /// Frees everything: what it held serves the next tape on the same arena.
    pub fn forget(mut self) {
        self.forget_to(Mark(0));
    }

    /// Frees everything after `mark`.
    pub fn forget_to(&mut self, mark: Mark) {
        while self.nodes.len() > mark.0 {
            if let Some(node) = self.nodes.pop() {
                self.release(node);
            }
        }
    }

    fn release(&mut self, node: Node) {
        match node.op {
            Op::Norm { inverse_rms, .. }
            | Op::NormAdd { inverse_rms, .. }
            | Op::HeadNorm { inverse_rms, .. } => self.arena.give(inverse_rms),
            Op::Attention { log_sum_exp, .. } => self.arena.give(log_sum_exp),
            Op::Linear { inner, .. } | Op::LinearAdd { inner, .. } => {
                inner.into_iter().flatten().for_each(|inner| self.arena.give(inner));
            }
            _ => {}
        }
        self.arena.give(node.value);
        if let Some(gradient) = node.gradient {
            self.arena.give(gradient);
        }
    }

    fn push(&mut self, op: Op, width: usize, value: Vec<f32>, requires_gradient: bool) -> Var {
        let rows = value.len() / width;
        self.nodes.push(Node {
            op,
            rows,
            width,
            value,
            gradient: None,
            requires_gradient,
            handles: 1,
            registers_alike: false,
        });
        Var(self.nodes.len() - 1)
    }

    fn trained(&self, id: ParamId) -> bool {
        self.gradients.as_ref().is_some_and(|g| g.wanted(id))
    }

    fn map_trained(&self, map: &Linear) -> bool {
        self.trained(map.weight) || map.bias.is_some_and(|b| self.trained(b)) || self.adapter_trained(map)
    }

    /// Called when `x` was used for the last time: frees it unless the backward of its user needs it, or its own does: that of
    /// attention reads what attention gave.
    fn consume(&mut self, x: usize, needed: bool) {
        let node = &mut self.nodes[x];
        node.handles -= 1;
        let needed = needed || node.requires_gradient && matches!(node.op, Op::Attention { .. });
        if !needed && node.handles == 0 {
            let value = std::mem::take(&mut self.nodes[x].value);
            self.arena.give(value);
        }
    }

    /// Tokens to rows as [`Ops::embed`] does, and behind them a row for each register of the layout: `vector` `[width]`, with
    /// the learned position of the place where the register stands, if the model has such. With `blends`, one for each register,
    /// a share of each row is the embedding of a token in place of the vector; empty: none is blended.
    pub fn embed_with_registers(
        &mut self,
        embedding: &Embedding,
        tokens: &[u32],
        vector: ParamId,
        blends: Vec<Blend>,
    ) -> Var {
        assert!(
            blends.is_empty() || blends.len() == self.layout.registers.len(),
            "a blend for each register"
        );
        self.embed_rows(embedding, tokens, Some(RegisterRows { vector, blends }))
    }

    fn embed_rows(
        &mut self,
        embedding: &Embedding,
        tokens: &[u32],
        register_rows: Option<RegisterRows>,
    ) -> Var {
        let registers = if register_rows.is_some() { self.layout.registers.len() } else { 0 };
        assert_eq!(tokens.len(), self.layout.token_rows(), "tokens and layout disagree");
        assert_eq!(registers, self.layout.registers.len(), "registers without a vector");
        let (_, width) = self.params.matrix_shape(embedding.table);
        let mut value = self.arena.take((tokens.len() + registers) * width);
        let (of_tokens, of_registers) = value.split_at_mut(tokens.len() * width);
        kernels::embedding::gather(self.params.data(embedding.table), width, tokens, of_tokens);
        if embedding.scale != 1.0 {
            kernels::vector::scale(of_tokens, embedding.scale);
        }
        if let Some(rows) = &register_rows {
            rows.fill(self.params, embedding, of_registers);
        }
        if let Some(positions) = embedding.positions {
            let mut added = self.arena.take(value.len());
            let places = self.layout.all_positions();
            kernels::embedding::gather(self.params.data(positions), width, &places, &mut added);
            kernels::vector::add_assign(&mut value, &added);
            self.arena.give(added);
        }
        let trained =
            [Some(embedding.table), embedding.positions, register_rows.as_ref().map(|rows| rows.vector)]
                .into_iter()
                .flatten()
                .any(|parameter| self.trained(parameter));
        let alike = embedding.positions.is_none()
            && register_rows.as_ref().is_some_and(|rows| rows.blends.is_empty())
            && registers > 0;
        let op = Op::Embed { embedding: *embedding, tokens: tokens.to_vec(), registers: register_rows };
        let rows = self.push(op, width, value, trained);
        self.nodes[rows.0].registers_alike = alike;
        rows
    }
}

impl Ops for Tape<'_> {
    type Var = Var;

    fn run<P: Part>(&mut self, part: &P, x: Var) -> Var {
        if self.recomputes { self.run_and_forget(part, x) } else { part.forward(self, x) }
    }

    fn share(&mut self, x: &Var) -> Var {
        self.nodes[x.0].handles += 1;
        Var(x.0)
    }

    fn embed(&mut self, embedding: &Embedding, tokens: &[u32]) -> Var {
        self.embed_rows(embedding, tokens, None)
    }

    fn norm(&mut self, x: &Var, norm: &Norm) -> Var {
        let width = self.nodes[x.0].width;
        let (value, inverse_rms) = self.normed(x.0, norm);
        let requires = self.nodes[x.0].requires_gradient || self.norm_trained(norm);
        let alike = self.nodes[x.0].registers_alike;
        let normed = self.push(Op::Norm { x: x.0, norm: *norm, inverse_rms }, width, value, requires);
        self.nodes[normed.0].registers_alike = alike;
        normed
    }

    fn norm_add(&mut self, x: Var, norm: &Norm, residual: Var) -> Var {
        let width = self.nodes[x.0].width;
        let (mut value, inverse_rms) = self.normed(x.0, norm);
        kernels::vector::add_assign(&mut value, &self.nodes[residual.0].value);
        let normed_requires = self.nodes[x.0].requires_gradient || self.norm_trained(norm);
        let requires = normed_requires || self.nodes[residual.0].requires_gradient;
        self.consume(x.0, normed_requires);
        // The norm that read the residual stream before needs it again, if anything upstream is trained.
        self.consume(residual.0, requires);
        let op = Op::NormAdd { x: x.0, norm: *norm, inverse_rms, residual: residual.0 };
        self.push(op, width, value, requires)
    }

    fn linear(&mut self, x: Var, maps: &[Linear]) -> Var {
        let width = maps.iter().map(|map| self.params.matrix_shape(map.weight).0).sum();
        let rows = self.nodes[x.0].rows;
        let mut value = self.arena.take(rows * width);
        self.apply(x.0, self.distinct_rows(x.0), maps, &mut value, width, Write::Overwrite);
        self.repeat_first_register(x.0, &mut value, width);
        let inner = self.adapt(x.0, maps, &mut value);
        let trained = maps.iter().any(|map| self.map_trained(map));
        let requires = self.nodes[x.0].requires_gradient || trained;
        self.consume(x.0, trained);
        self.push(Op::Linear { x: x.0, maps: maps.to_vec(), inner }, width, value, requires)
    }

    fn linear_add(&mut self, x: Var, map: Linear, residual: Var) -> Var {
        let (rows, width) = (self.nodes[residual.0].rows, self.nodes[residual.0].width);
        let mut value = self.arena.take(rows * width);
        value.copy_from_slice(&self.nodes[residual.0].value);
        self.apply(x.0, rows, &[map], &mut value, width, Write::Add);
        let inner = self.adapt(x.0, &[map], &mut value);
        let trained = self.map_trained(&map);
        let requires =
            self.nodes[x.0].requires_gradient || self.nodes[residual.0].requires_gradient || trained;
        self.consume(x.0, trained);
        // The norm that read the residual stream before needs it again, if anything upstream is trained.
        self.consume(residual.0, requires);
        self.push(Op::LinearAdd { x: x.0, map, inner, residual: residual.0 }, width, value, requires)
    }

    fn attention(&mut self, qkv: Var, spec: &AttentionSpec) -> Var {
        let qkv = match &spec.head_norms {
            Some(norms) => self.norm_heads(qkv, norms, spec),
            None => qkv,
        };
        let shape = self.attention_shape(spec);
        let rows = self.layout.rows();
        let mut value = self.arena.take(rows * spec.heads * spec.head_dim);
        let mut log_sum_exp = self.arena.take(rows * spec.heads);
        let positions = self.layout.all_positions();
        let input = &mut self.nodes[qkv.0];
        // In place: the product that made `qkv` does not need it for its own backward.
        if let Some(rope) = &spec.rope {
            kernels::rope::rotate(
                &mut input.value,
                input.width,
                spec.rotated().start,
                spec.heads + spec.kv_heads,
                spec.head_dim,
                &positions,
                rope,
                false,
            );
        }
        let (first_visible, side) =
            (self.layout.first_visible(spec.window), self.layout.side_rows(spec.window));
        let mask = Mask { first_visible: &first_visible, side: &side };
        kernels::attention::forward(&shape, &input.value, mask, &mut value, &mut log_sum_exp);
        let requires = input.requires_gradient;
        self.consume(qkv.0, requires);
        let op = Op::Attention { qkv: qkv.0, spec: spec.clone(), log_sum_exp };
        self.push(op, spec.heads * spec.head_dim, value, requires)
    }

    fn activate(&mut self, x: Var, activation: Activation) -> Var {
        let input = &self.nodes[x.0];
        let (width, requires) = (input.width / activation.inputs(), input.requires_gradient);
        let mut value = self.arena.take(input.rows * width);
        match activation {
            Activation::SiluGated => kernels::swiglu::forward(&input.value, width, &mut value),
            Activation::GeluGated => kernels::gelu::gated_forward(&input.value, width, &mut value),
            Activation::Gelu => kernels::gelu::forward(&input.value, &mut value),
            Activation::GeluErf => kernels::gelu_erf::forward(&input.value, &mut value),
        }
        self.consume(x.0, requires);
        self.push(Op::Activate { x: x.0, activation }, width, value, requires)
    }

    fn soft_cap(&mut self, x: Var, cap: f32) -> Var {
        let value = self.capped(x.0, cap);
        let (width, requires) = (self.nodes[x.0].width, self.nodes[x.0].requires_gradient);
        self.consume(x.0, requires);
        self.push(Op::SoftCap { x: x.0, cap }, width, value, requires)
    }
}

impl Tape<'_> {
    fn attention_shape(&self, spec: &AttentionSpec) -> kernels::attention::AttentionShape {
        kernels::attention::AttentionShape {
            batch: self.layout.batch,
            length: self.layout.length,
            heads: spec.heads,
            kv_heads: spec.kv_heads,
            head_dim: spec.head_dim,
            scale: spec.scale,
            cap: spec.cap,
        }
    }

    fn capped(&mut self, x: usize, cap: f32) -> Vec<f32> {
        let mut value = self.arena.take(self.nodes[x].value.len());
        value.copy_from_slice(&self.nodes[x].value);
        kernels::soft_cap::forward(&mut value, cap);
        value
    }
}
