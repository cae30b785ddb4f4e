//! Decoding whose drafts count as right as often as wanted: what speed an acceptance would give, whatever the heads say. The
//! text means nothing; everything else costs what it costs.

use std::time::Instant;

use kernels::argmax::argmax;
use objective::Greedy;

use crate::error::{Error, Result};
use crate::statistics::Statistics;
use crate::target::Target;

/// Continues `prompt` by about `new_tokens` tokens in rounds of `draft_length` drafts, of which so many count as accepted that a
/// round gives `tokens_per_forward` tokens on average, the model's own among them; at most `draft_length + 1`.
///
/// # Errors
///
/// If prompt and continuation do not fit the context, the prompt is refused, or a round would give less than one token.
pub fn forced(
    target: &mut Target,
    prompt: &[u32],
    new_tokens: usize,
    draft_length: usize,
    tokens_per_forward: f64,
) -> Result<Statistics> {
    if !(1.0..=target.longest_draft() as f64 + 1.0).contains(&tokens_per_forward) {
        let most = target.longest_draft() + 1;
        let problem = format!("{tokens_per_forward} tokens per forward: this model gives 1 to {most}");
        return Err(Error::setting("force_acceptance", problem));
    }
    // The last round may go beyond what was asked for.
    let most = draft_length + 1;
    Error::refuse_too_many(prompt.len(), new_tokens, most, target.capacity())?;
    let start = Instant::now();
    let logits = target.prefill(prompt, draft_length > 0)?;
    let mut rows = vec![argmax(logits.row(0)) as u32];
    target.recycle(logits);
    let first_at = Instant::now();
    let mut statistics = Statistics { generations: 1, prompt_tokens: prompt.len(), ..Statistics::default() };
    let mut owed = 0.0;
    while statistics.committed_tokens + 1 < new_tokens {
        if draft_length > 0 {
            let mut drafted = Greedy::default();
            statistics.forwards += target.draft(rows[0], draft_length, &mut drafted);
            rows.extend_from_slice(&drafted.tokens);
        }
        let drafted = rows.len() - 1;
        let logits = target.forward(&rows)?;
        owed += tokens_per_forward.min(most as f64);
        // A drafter may have proposed less than it was asked for.
        let committed = (owed as usize).clamp(1, rows.len());
        owed -= committed as f64;
        // Every row is decided, as it would be if all were accepted.
        let decided = (0..logits.rows).map(|row| argmax(logits.row(row)) as u32).nth(committed - 1);
        target.recycle(logits);
        target.commit(committed);
        rows.clear();
        rows.extend(decided);
        statistics.forwards += 1;
        statistics.committed_tokens += committed;
        for depth in 1..=drafted.min(committed) {
            let accepted = depth < committed;
            statistics.count_draft(depth, accepted, f64::from(u8::from(accepted)));
        }
    }
    statistics.first_token_seconds = (first_at - start).as_secs_f64();
    statistics.decode_seconds = first_at.elapsed().as_secs_f64();
    Ok(statistics)
}
