//! Greedy decoding as a bare loop over the same engine: what plain decoding is compared with, to see what settings, stop
//! rules and statistics cost. Nothing else should use it.

use std::time::Instant;

use kernels::argmax::argmax;

use crate::error::{Error, Result};
use crate::statistics::Statistics;
use crate::target::Target;

/// Continues `prompt` by `new_tokens` tokens; gives them and what it cost, counted as in [`crate::decode`].
///
/// # Errors
///
/// If prompt and continuation do not fit the context, or the prompt is refused.
pub fn bare(target: &mut Target, prompt: &[u32], new_tokens: usize) -> Result<(Vec<u32>, Statistics)> {
    if new_tokens == 0 {
        return Err(Error::setting("max_new_tokens", "0 tokens: give at least 1"));
    }
    Error::refuse_too_many(prompt.len(), new_tokens, 0, target.capacity())?;
    let start = Instant::now();
    let logits = target.prefill(prompt, false)?;
    let mut token = argmax(logits.row(0)) as u32;
    target.recycle(logits);
    let mut ids = vec![token];
    let first_at = Instant::now();
    let (decoder, engine) = (target.decoder, &mut target.engine);
    for position in prompt.len()..prompt.len() + new_tokens - 1 {
        engine.stand_at(position);
        let embedded = decoder.embed(engine, &[token]);
        let state = decoder.run_blocks(engine, embedded, 0..decoder.blocks.len(), &mut |_, _, _| {});
        let normed = decoder.final_norm(engine, &state);
        engine.recycle(state);
        let logits = decoder.logits(engine, normed);
        token = argmax(logits.row(0)) as u32;
        engine.recycle(logits);
        ids.push(token);
    }
    let statistics = Statistics {
        generations: 1,
        prompt_tokens: prompt.len(),
        forwards: ids.len() - 1,
        committed_tokens: ids.len() - 1,
        depths: Vec::new(),
        first_token_seconds: (first_at - start).as_secs_f64(),
        decode_seconds: first_at.elapsed().as_secs_f64(),
    };
    Ok((ids, statistics))
}
