//! How probable the model finds a given text, with the very weights and kernels that decode.

use kernels::argmax::argmax;
use kernels::cross_entropy::{LossSum, NO_TARGET};

use crate::error::{Error, Result};
use crate::target::Target;

/// Rows that run at once, each with logits.
const ROWS: usize = 64;

/// Loss of `targets[i]` after the tokens up to `tokens[i]`, which begin a sequence; [`NO_TARGET`] is none.
///
/// # Errors
///
/// If the tokens do not fit, the model does not know one, or its logits are not finite.
pub fn score(target: &mut Target, tokens: &[u32], targets: &[u32]) -> Result<LossSum> {
    target.restart();
    let mut sum = LossSum::default();
    for (tokens, targets) in tokens.chunks(ROWS).zip(targets.chunks(ROWS)) {
        let logits = target.forward(tokens)?;
        for (row, wanted) in targets.iter().enumerate().filter(|(_, wanted)| **wanted != NO_TARGET) {
            let logits = logits.row(row);
            let best = argmax(logits);
            let largest = f64::from(logits[best]);
            let total: f64 = logits.iter().map(|logit| (f64::from(*logit) - largest).exp()).sum();
            let nll = total.ln() + largest - f64::from(logits[*wanted as usize]);
            if !nll.is_finite() {
                return Err(Error::NotFinite { position: target.length() + row });
            }
            sum += LossSum { nll, correct: usize::from(best == *wanted as usize), targets: 1 };
        }
        target.recycle(logits);
        target.commit(tokens.len());
    }
    Ok(sum)
}
