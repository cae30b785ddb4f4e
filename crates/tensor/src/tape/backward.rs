//! Running back: each operation's gradient with respect to its inputs and parameters.

use kernels::matmul::{View, ViewMut, Write, product_nn, product_tn};

use super::{Mark, Node, Op, Tape};
use crate::{AttentionSpec, Linear};

impl Tape<'_> {
    /// Runs back from the end to `mark`: gradients of parameters are added to, gradients of values before the mark wait
    /// there, and everything after the mark is freed.
    ///
    /// Gradients enter the tape through [`Tape::cross_entropy`].
    pub fn backward_to(&mut self, mark: Mark) {
        while self.nodes.len() > mark.0 {
            let Some(mut node) = self.nodes.pop() else { return };
            if let Some(gradient) = node.gradient.take() {
                self.step_back(&node, gradient);
            }
            self.release(node);
        }
    }

    fn step_back(&mut self, node: &Node, gradient: Vec<f32>) {
        match &node.op {
            Op::Embed { table, tokens } => {
                if let Some(slot) = self.gradients.as_mut().and_then(|g| g.adding_slot(*table)) {
                    kernels::embedding::scatter_add(&gradient, node.width, tokens, slot);
                }
            }
            Op::RmsNorm { x, weight, inverse_rms } => {
                let (mut dx, write) = self.gradient_of(*x);
                let slot = self.gradients.as_mut().and_then(|g| g.adding_slot(*weight));
                kernels::rms_norm::backward(
                    &self.nodes[*x].value,
                    self.params.data(*weight),
                    inverse_rms,
                    &gradient,
                    &mut dx,
                    write,
                    slot,
                );
                self.nodes[*x].gradient = Some(dx);
            }
            Op::Linear { x, maps } => {
                let mut offset = 0;
                for map in maps {
                    offset += self.linear_back(*x, map, &gradient[offset..], node.width);
                }
            }
            Op::LinearAdd { x, map, residual } => {
                self.linear_back(*x, map, &gradient, node.width);
                if self.nodes[*residual].requires_gradient {
                    match &mut self.nodes[*residual].gradient {
                        Some(present) => kernels::vector::add_assign(present, &gradient),
                        // Nobody else has written there yet: hand the buffer over instead of copying it.
                        empty => {
                            *empty = Some(gradient);
                            return;
                        }
                    }
                }
            }
            Op::Attention { qkv, spec, log_sum_exp } => {
                self.attention_back(*qkv, spec, log_sum_exp, node, &gradient)
            }
            Op::Swiglu { gate_up } => {
                let mut d_gate_up = self.arena.take(self.nodes[*gate_up].value.len());
                kernels::swiglu::backward(&self.nodes[*gate_up].value, node.width, &gradient, &mut d_gate_up);
                self.nodes[*gate_up].gradient = Some(d_gate_up);
            }
        }
        self.arena.give(gradient);
    }

    /// The gradient buffer of a value, and whether it holds something already.
    fn gradient_of(&mut self, x: usize) -> (Vec<f32>, Write) {
        match self.nodes[x].gradient.take() {
            Some(present) => (present, Write::Add),
            None => {
                let len = self.nodes[x].rows * self.nodes[x].width;
                (self.arena.take(len), Write::Overwrite)
            }
        }
    }

    /// `dx += dy W`, `dW += dy^T x`, `db += sum of dy`; `dy` are columns within rows `stride` wide. Returns the columns used.
    fn linear_back(&mut self, x: usize, map: &Linear, dy: &[f32], stride: usize) -> usize {
        let (outputs, inputs) = self.params.matrix_shape(map.weight);
        let rows = self.nodes[x].rows;
        let dy = View::strided(dy, rows, outputs, stride);
        if self.nodes[x].requires_gradient {
            let (mut dx, write) = self.gradient_of(x);
            let weight = View::new(self.params.data(map.weight), outputs, inputs);
            product_nn(dy, weight, ViewMut::new(&mut dx, rows, inputs), write);
            self.nodes[x].gradient = Some(dx);
        }
        if let Some((slot, write)) = self.gradients.as_mut().and_then(|g| g.slot(map.weight)) {
            let value = View::new(&self.nodes[x].value, rows, inputs);
            product_tn(dy, value, ViewMut::new(slot, outputs, inputs), write);
        }
        if let Some(slot) = map.bias.and_then(|b| self.gradients.as_mut().and_then(|g| g.adding_slot(b))) {
            for row in 0..rows {
                kernels::vector::add_assign(slot, dy.row(row));
            }
        }
        outputs
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
        kernels::attention::backward(
            &shape,
            &self.nodes[qkv].value,
            &self.layout.first_visible,
            &node.value,
            log_sum_exp,
            gradient,
            &mut d_qkv,
        );
        kernels::rope::rotate(
            &mut d_qkv,
            spec.qkv_width(),
            spec.rotated().start,
            spec.heads + spec.kv_heads,
            spec.head_dim,
            &self.layout.positions,
            &spec.rope,
            true,
        );
        self.nodes[qkv].gradient = Some(d_qkv);
    }
}
