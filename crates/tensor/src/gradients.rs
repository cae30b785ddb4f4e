//! Gradients of the trainable parameters, summed over the micro-batches of a step.

use kernels::matmul::Write;

use crate::{ParamId, Params};

/// One buffer per trainable parameter; frozen parameters have none.
#[derive(Debug)]
pub struct Gradients {
    slots: Vec<Option<Vec<f32>>>,
    touched: Vec<bool>,
}

impl Gradients {
    /// Buffers for every parameter of `params` that is trainable now.
    pub fn new(params: &Params) -> Self {
        let slots: Vec<_> =
            params.iter().map(|(_, p)| p.trainable.then(|| vec![0.0; p.data.len()])).collect();
        let touched = vec![false; slots.len()];
        Self { slots, touched }
    }

    /// Whether `id` is trained.
    pub fn wanted(&self, id: ParamId) -> bool {
        self.slots[id.index()].is_some()
    }

    /// Where the gradient of `id` goes, and whether it is the first part since [`Self::clear`] (then it overwrites).
    pub fn slot(&mut self, id: ParamId) -> Option<(&mut [f32], Write)> {
        let buffer = self.slots[id.index()].as_mut()?;
        let first = !std::mem::replace(&mut self.touched[id.index()], true);
        Some((buffer, if first { Write::Overwrite } else { Write::Add }))
    }

    /// As [`Self::slot`], for operations that only add: zeros come first.
    pub fn adding_slot(&mut self, id: ParamId) -> Option<&mut [f32]> {
        let (buffer, write) = self.slot(id)?;
        if write == Write::Overwrite {
            buffer.fill(0.0);
        }
        Some(buffer)
    }

    /// Begins a new step: the next part of each gradient overwrites what is there.
    pub fn clear(&mut self) {
        self.touched.fill(false);
    }

    /// The gradient of a trainable parameter; `None` if frozen or if nothing has reached it since [`Self::clear`].
    pub fn get(&self, id: ParamId) -> Option<&[f32]> {
        self.slots[id.index()].as_deref().filter(|_| self.touched[id.index()])
    }

    /// Euclidean norm over all gradients that were reached, in a fixed order.
    pub fn norm(&self) -> f64 {
        let reached = self.slots.iter().zip(&self.touched).filter(|(_, touched)| **touched);
        let squares: f64 =
            reached.filter_map(|(slot, _)| slot.as_deref()).map(kernels::vector::sum_of_squares).sum();
        squares.sqrt()
    }
}
