//! What a run of the model costs by its number of rows: the price of a draft.

use std::time::Instant;

use kernels::argmax::argmax;
use objective::Greedy;

use crate::draft_length::RoundCosts;
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

/// Positions that [`round_costs`] needs beyond its context, with drafts of up to `longest` tokens.
pub fn positions_of_rounds(longest: usize, repeats: usize) -> usize {
    2 * (longest + 1) * (repeats + 2)
}

/// What a round costs with drafts of every length, from none to the longest, after `context`: drafting, the model's run, and
/// the choice of its tokens. Lengths take turns, `repeats` times. What the target held before is gone.
///
/// # Errors
///
/// If context and rounds do not fit.
pub fn round_costs(target: &mut Target, context: &[u32], repeats: usize) -> Result<RoundCosts> {
    let longest = target.longest_draft();
    let logits = target.prefill(context, true)?;
    let decided = argmax(logits.row(0)) as u32;
    target.recycle(logits);
    let mut seconds = vec![Vec::with_capacity(repeats); longest + 1];
    for repeat in 0..=repeats {
        for (length, seconds) in seconds.iter_mut().enumerate() {
            if target.runs_beside() {
                // What a draft is read from runs in the round before, which is as long as a rule.
                drafted_round(target, decided, length)?;
            }
            let start = Instant::now();
            drafted_round(target, decided, length)?;
            if repeat > 0 {
                seconds.push(start.elapsed().as_secs_f64());
            }
        }
    }
    // The fastest of each: what disturbs a measurement only ever slows it down.
    let fastest = |seconds: Vec<f64>| seconds.into_iter().fold(f64::INFINITY, f64::min);
    Ok(RoundCosts { seconds: seconds.into_iter().map(fastest).collect() })
}

/// A round with a draft of `length`, of which nothing is accepted.
fn drafted_round(target: &mut Target, decided: u32, length: usize) -> Result<()> {
    let mut drafted = Greedy::default();
    if length > 0 {
        target.draft(decided, length, &mut drafted);
    }
    let mut rows = vec![decided];
    rows.extend(drafted.tokens);
    // A drafter that finds nothing here may find something elsewhere.
    rows.resize(length + 1, decided);
    let logits = target.forward(&rows)?;
    for row in 0..logits.rows {
        std::hint::black_box(argmax(logits.row(row)));
    }
    target.recycle(logits);
    target.commit(1);
    Ok(())
}
