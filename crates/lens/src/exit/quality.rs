//! How good a text is in the eyes of the whole model.

use model::taps::{Input, Taps};
use tensor::Arena;

use crate::error::Result;

/// Sums over the tokens of a continuation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Quality {
    /// Tokens.
    pub tokens: usize,
    /// Tokens that the whole model would have chosen after the same text.
    pub agreed: usize,
    /// Sum of negative log-likelihoods under the whole model, in nats.
    pub nll: f64,
}

impl Quality {
    /// Judges the tokens of `text` from place `from` on.
    ///
    /// # Errors
    /// When the model refuses the text.
    pub fn add(&mut self, model: &dyn Taps, arena: &mut Arena, text: &[u32], from: usize) -> Result<()> {
        let sizes = model.sizes();
        let mut states = Vec::new();
        let input = Input::Tokens(text.to_vec());
        model.run(arena, std::slice::from_ref(&input), &mut |layer, stream| {
            if layer + 1 == sizes.layers {
                states = stream[(from - 1) * sizes.width..(text.len() - 1) * sizes.width].to_vec();
            }
        })?;
        let mut logits = Vec::new();
        model.read_out(arena, &states, &mut logits);
        for (logits, token) in logits.chunks_exact(sizes.outputs).zip(&text[from..]) {
            let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f64 = logits.iter().map(|logit| f64::from(logit - largest).exp()).sum();
            self.tokens += 1;
            self.agreed += usize::from(kernels::argmax::argmax(logits) == *token as usize);
            self.nll += sum.ln() - f64::from(logits[*token as usize] - largest);
        }
        Ok(())
    }
}
