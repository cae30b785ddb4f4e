//! Running back: each operation's gradient with respect to its inputs and parameters.

use kernels::attention::Mask;
use kernels::matmul::Write;

use super::registers::RegisterRows;
use super::{Mark, Node, Op, Tape};
use crate::{Activation, AttentionSpec, Embedding};

impl Tape<'_> {
    /// Runs back from the end to `mark`: gradients of parameters are added to, gradients of values before the mark wait
    /// there, and everything after the mark is freed.
    ///
    /// Gradients enter the tape through [`Tape::cross_entropy`].
    pub fn backward_to(&mut self, mark: Mark) {
        while self.nodes.len() > mark.0 {
            let Some(mut node) = self.nodes.pop() else { return };
            if let Op::Recomputed { .. } = node.op {
                // Nobody reads it any more, and there will be much beside it.
                self.arena.give(std::mem::take(&mut node.value));
            }
            if let Some(gradient) = node.gradient.take() {
                match node.requires_gradient {
                    true => self.step_back(&node, gradient),
                    // Nothing before it is trained, and what its backward would need may be gone.
                    false => self.arena.give(gradient),
                }
            }
            self.release(node);
        }
    }

    fn step_back(&mut self, node: &Node, mut gradient: Vec<f32>) {
        match &node.op {
            Op::Embed { embedding, tokens, registers } => {
                self.embed_back(embedding, tokens, registers.as_ref(), node.width, &mut gradient);
            }
            Op::Input => {}
            Op::FullAttention { queries, memory, shape } => {
                self.full_attention_back(*queries, *memory, shape, &gradient);
            }
            Op::Norm { x, norm, inverse_rms } => self.norm_back(*x, norm, inverse_rms, &gradient),
            Op::NormAdd { x, norm, inverse_rms, residual } => {
                if self.nodes[*x].requires_gradient || self.norm_trained(norm) {
                    self.norm_back(*x, norm, inverse_rms, &gradient);
                }
                return self.hand_over(*residual, gradient);
            }
            Op::Linear { x, maps, inner } => {
                self.adapt_back(*x, maps, inner, &gradient, node.width);
                self.fold_into_first_register(*x, &mut gradient, node.width);
                self.linear_back(*x, self.distinct_rows(*x), maps, &gradient, node.width);
            }
            Op::LinearAdd { x, map, inner, residual } => {
                self.adapt_back(*x, &[*map], inner, &gradient, node.width);
                self.linear_back(*x, node.rows, &[*map], &gradient, node.width);
                return self.hand_over(*residual, gradient);
            }
            Op::HeadNorm { qkv, norms, columns, inverse_rms } => {
                return self.head_norm_back(*qkv, norms, columns, inverse_rms, gradient);
            }
            Op::Attention { qkv, spec, log_sum_exp } => {
                self.attention_back(*qkv, spec, log_sum_exp, node, &gradient)
            }
            Op::Activate { x, activation } => {
                let value = &self.nodes[*x].value;
                let mut dx = self.arena.take(value.len());
                match activation {
                    Activation::SiluGated => kernels::swiglu::backward(value, node.width, &gradient, &mut dx),
                    Activation::GeluGated => {
                        kernels::gelu::gated_backward(value, node.width, &gradient, &mut dx)
                    }
                    Activation::Gelu => kernels::gelu::backward(value, &gradient, &mut dx),
                    Activation::GeluErf => kernels::gelu_erf::backward(value, &gradient, &mut dx),
                }
                self.nodes[*x].gradient = Some(dx);
            }
            Op::Recomputed { x, part } => return self.run_again_and_back(part.as_ref(), *x, gradient),
            Op::SoftCap { x, cap } => {
                let capped = self.capped(*x, *cap);
                kernels::soft_cap::backward(&capped, *cap, &mut gradient);
                self.arena.give(capped);
                return self.hand_over(*x, gradient);
            }
        }
        self.arena.give(gradient);
    }

    /// Gives the rows' gradients to their tokens, positions, and the register vector.
    fn embed_back(
        &mut self,
        embedding: &Embedding,
        tokens: &[u32],
        registers: Option<&RegisterRows>,
        width: usize,
        gradient: &mut [f32],
    ) {
        let Some(gradients) = self.gradients.as_mut() else { return };
        if let Some(slot) = embedding.positions.and_then(|positions| gradients.adding_slot(positions)) {
            kernels::embedding::scatter_add(gradient, width, &self.layout.all_positions(), slot);
        }
        let (of_tokens, of_registers) = gradient.split_at_mut(tokens.len() * width);
        if let Some(rows) = registers {
            rows.hand_back(gradients, embedding, width, of_registers);
        }
        if let Some(slot) = gradients.adding_slot(embedding.table) {
            if embedding.scale != 1.0 {
                kernels::vector::scale(of_tokens, embedding.scale);
            }
            kernels::embedding::scatter_add(of_tokens, width, tokens, slot);
        }
    }

    /// Adds `gradient` to that of a value, if anybody wants it.
    pub(super) fn hand_over(&mut self, value: usize, gradient: Vec<f32>) {
        let node = &mut self.nodes[value];
        match &mut node.gradient {
            _ if !node.requires_gradient => {}
            Some(present) => kernels::vector::add_assign(present, &gradient),
            // Nobody else has written there yet: the buffer itself goes over instead of a copy.
            empty => {
                *empty = Some(gradient);
                return;
            }
        }
        self.arena.give(gradient);
    }

    /// The gradient buffer of a value, and whether it holds something already.
    pub(super) fn gradient_of(&mut self, x: usize) -> (Vec<f32>, Write) {
        match self.nodes[x].gradient.take() {
            Some(present) => (present, Write::Add),
            None => {
                let len = self.nodes[x].rows * self.nodes[x].width;
                (self.arena.take(len), Write::Overwrite)
            }
        }
    }

    fn attention_back(
        &mut self,
        qkv: usize,
        spec: &AttentionSpec,
        log_sum_exp: &[f32],
        node: &Node,
        gradient: &[f32],
    ) {
        let shape = self.attention_shape(spec);
        let mut d_qkv = self.arena.take(self.nodes[qkv].value.len());
        let (first_visible, side) =
            (self.layout.first_visible(spec.window), self.layout.side_rows(spec.window));
        kernels::attention::backward(
            &shape,
            &self.nodes[qkv].value,
            Mask { first_visible: &first_visible, side: &side },
            &node.value,
            log_sum_exp,
            gradient,
            &mut d_qkv,
        );
        if let Some(rope) = &spec.rope {
            kernels::rope::rotate(
                &mut d_qkv,
                spec.qkv_width(),
                spec.rotated().start,
                spec.heads + spec.kv_heads,
                spec.head_dim,
                &self.layout.all_positions(),
                rope,
                true,
            );
        }
        self.nodes[qkv].gradient = Some(d_qkv);
    }
}
