//! What `sakiyomi demo` says in the end.

use serde::Serialize;

use crate::commands::per_depth;
use crate::commands::train::quoted;

/// The one object on standard output, and the words for it.
#[derive(Serialize)]
pub struct Told {
    pub identical: bool,
    pub prompts: usize,
    pub bytes_per_prompt: usize,
    pub tokens_per_forward: Option<f64>,
    pub acceptance_per_depth: Vec<Option<f64>>,
    /// Share of the greedy text's spans of 16 bytes that stand earlier in the same continuation.
    pub repeated_16_byte_spans: Option<f64>,
    /// With the longest drafts, on text drawn at temperature 1 instead of written greedily, and what that repeats.
    pub drawn_tokens_per_forward: f64,
    pub drawn_repeated_16_byte_spans: Option<f64>,
    pub best_draft_length: usize,
    pub bare_tokens_per_s: f64,
    pub plain_tokens_per_s: f64,
    pub speculative_tokens_per_s: f64,
    pub speedup: f64,
    pub next_token_loss_bits_per_byte: f64,
    pub accuracy_per_depth: Vec<f64>,
    pub repeated_48_byte_spans: Option<f64>,
    pub train_seconds: f64,
    pub seconds: f64,
    pub checkpoint: String,
    pub report: String,
}

impl Told {
    pub fn text(&self) -> String {
        let same = if self.identical { "the same text, to the last byte" } else { "NOT THE SAME TEXT" };
        let acceptance: Vec<String> = self
            .acceptance_per_depth
            .iter()
            .map(|share| share.map_or("-".to_owned(), |share| format!("{:.0} %", share * 100.0)))
            .collect();
        let spans = self.repeated_48_byte_spans.map_or(String::new(), |share| {
            format!(", {:.1} % of its 48-byte spans occur in the training text", share * 100.0)
        });
        let repeated =
            |share: Option<f64>| share.map_or("none".to_owned(), |share| format!("{:.0} %", share * 100.0));
        format!(
            "trained in       {:.0} s\n\
             held-out text    {:.3} bits per byte{spans}\n\
             accuracy         {} (1, 2, ... bytes ahead)\n\
             with drafts      {same}: {} prompts x {} bytes, every draft length\n\
             per forward      {:.2} tokens with drafts of {}; accepted per depth {}\n\
             kind of text     {} of the greedy text repeats itself; drawn at temperature 1, {} does: {:.2} tokens per forward\n\
             speed            {:.0} tokens/s plain (bare loop {:.0}), {:.0} with drafts: {:.2}x\n\
             checkpoint       {}\n\
             report           {}\n\
             next             sakiyomi generate {} --prompt \"Once\" --stats",
            self.train_seconds,
            self.next_token_loss_bits_per_byte,
            per_depth(self.accuracy_per_depth.iter().copied().map(Some)),
            self.prompts,
            self.bytes_per_prompt,
            self.tokens_per_forward.unwrap_or(1.0),
            self.best_draft_length,
            acceptance.join(", "),
            repeated(self.repeated_16_byte_spans),
            repeated(self.drawn_repeated_16_byte_spans),
            self.drawn_tokens_per_forward,
            self.plain_tokens_per_s,
            self.bare_tokens_per_s,
            self.speculative_tokens_per_s,
            self.speedup,
            self.checkpoint,
            self.report,
            quoted(&self.checkpoint),
        )
    }
}
