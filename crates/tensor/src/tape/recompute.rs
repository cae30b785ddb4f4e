//! Parts of a model that keep only their input, and run forward once more when backward comes to them (gradient
//! checkpointing, Chen et al. 2016, arXiv 1604.06174): less memory for one more forward.

use std::sync::Arc;

use super::{Op, Tape, Var};
use crate::{Ops, Part};

/// A [`Part`] on tapes, behind a pointer.
pub(super) trait TapePart: Send + Sync {
    fn record(&self, tape: &mut Tape, x: Var) -> Var;
}

impl<P: Part> TapePart for P {
    fn record(&self, tape: &mut Tape, x: Var) -> Var {
        self.forward(tape, x)
    }
}

impl Tape<'_> {
    /// Runs `part` and forgets all but its output.
    pub(super) fn run_and_forget(&mut self, part: &impl Part, x: Var) -> Var {
        let mark = self.mark();
        let input = self.share(&x);
        let output = part.forward(self, input).0;
        let node = &mut self.nodes[output];
        let (width, requires) = (node.width, node.requires_gradient);
        let value = std::mem::take(&mut node.value);
        self.forget_to(mark);
        self.consume(x.0, requires);
        self.push(Op::Recomputed { x: x.0, part: Arc::new(part.clone()) }, width, value, requires)
    }

    /// Runs `part` again, this time keeping what backward needs, and then back.
    pub(super) fn run_again_and_back(&mut self, part: &dyn TapePart, x: usize, gradient: Vec<f32>) {
        let mark = self.mark();
        let input = self.share(&Var(x));
        let output = part.record(self, input);
        self.nodes[output.0].gradient = Some(gradient);
        self.backward_to(mark);
    }
}
