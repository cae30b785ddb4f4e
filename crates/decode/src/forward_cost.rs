//! What a run of the model costs by its number of rows: the price of a draft.

use std::time::Instant;

use crate::error::{Error, Result};
use crate::measure::Spread;
use crate::target::Target;

/// Seconds of a forward with as many rows as each of `rows` says, all with logits, after `context`. The numbers of rows take
/// turns, `repeats` times, because machines drift. What the target held before is gone.
///
/// # Errors
///
/// If there is nothing to measure, or context and rows do not fit.
pub fn forward_costs(
    target: &mut Target,
    context: &[u32],
    rows: &[usize],
    repeats: usize,
) -> Result<Vec<Spread>> {
    let Some(most) = rows.iter().copied().max().filter(|_| !rows.contains(&0)) else {
        return Err(Error::setting("rows", "give at least one number of rows, each at least 1"));
    };
    if repeats == 0 {
        return Err(Error::setting("repeats", "0: measure at least once"));
    }
    let logits = target.prefill(context, false)?;
    target.recycle(logits);
    let tokens: Vec<u32> = context.iter().copied().cycle().take(most).collect();
    let mut seconds = vec![Vec::with_capacity(repeats); rows.len()];
    // The first round, untimed, allocates buffers.
    for repeat in 0..=repeats {
        for (rows, seconds) in rows.iter().zip(&mut seconds) {
            let start = Instant::now();
            let logits = target.forward(&tokens[..*rows])?;
            if repeat > 0 {
                seconds.push(start.elapsed().as_secs_f64());
            }
            target.recycle(logits);
        }
    }
    Ok(seconds.into_iter().map(Spread::of).collect())
}
