//! Text samples in which each token shows where it came from: drafted by a head and accepted, or given by the verifier.

use serde::{Deserialize, Serialize};

use crate::escape;
use crate::markup::Markup;
use crate::number;

/// Shades before the deepest one repeats.
const SHADES: usize = 7;

/// One continuation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// What the model was given.
    pub prompt: String,
    /// What it wrote, token by token.
    pub tokens: Vec<SampleToken>,
}

/// One token of a continuation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SampleToken {
    /// Its text. Tokens that are parts of one character are handed over as one, with the origin of the last part.
    pub text: String,
    /// `Some(1)` for the first token of an accepted draft, `Some(2)` for the second, ...; `None` for the token that the
    /// verifying forward gave itself.
    pub drafted_depth: Option<usize>,
}

impl Sample {
    /// Tokens that were drafted and accepted.
    pub fn accepted(&self) -> usize {
        self.tokens.iter().filter(|token| token.drafted_depth.is_some()).count()
    }
}

/// Samples as HTML, one legend above all of them.
pub fn samples_html(samples: &[Sample]) -> String {
    let mut markup = Markup::new();
    markup.element("div").word("class", "samples").open();
    write_legend(&mut markup, deepest(samples));
    for sample in samples {
        write_sample(&mut markup, sample);
    }
    markup.finish()
}

fn deepest(samples: &[Sample]) -> usize {
    let tokens = samples.iter().flat_map(|sample| &sample.tokens);
    tokens.filter_map(|token| token.drafted_depth).max().unwrap_or(0)
}

fn write_legend(markup: &mut Markup, deepest: usize) {
    markup.element("p").word("class", "legend").open();
    markup.element("span").word("class", "prompt").text("prompt");
    markup.text(" ");
    markup.element("span").word("class", "own").text("verifier’s own token");
    for depth in 1..=deepest.min(SHADES) {
        let more = if depth == SHADES && deepest > SHADES { " and deeper" } else { "" };
        markup.text(" ");
        let shade = markup.element("span").word("class", &shade(depth));
        shade.text(&format!("accepted draft, token {depth}{more}"));
    }
    markup.close();
}

fn write_sample(markup: &mut Markup, sample: &Sample) {
    markup.element("figure").word("class", "sample").open();
    markup.element("div").word("class", "text").open();
    if !sample.prompt.is_empty() {
        markup.element("span").word("class", "prompt").open();
        markup.trusted(&visible(&sample.prompt));
        markup.close();
    }
    for token in &sample.tokens {
        match token.drafted_depth {
            Some(depth) => markup.element("span").word("class", &shade(depth.max(1))).open(),
            None => markup.element("span").word("class", "own").open(),
        }
        markup.trusted(&visible(&token.text));
        markup.close();
    }
    markup.close();
    let (accepted, all) = (sample.accepted() as u64, sample.tokens.len() as u64);
    let share = if all == 0 {
        "nothing was written".to_string()
    } else {
        let part = number::percent(accepted as f64 / all as f64);
        format!(
            "{} of {} drafted and accepted ({part})",
            number::count(accepted),
            number::counted(all, "token")
        )
    };
    markup.element("figcaption").text(&share);
    markup.close();
}

fn shade(depth: usize) -> String {
    format!("d{}", depth.min(SHADES))
}

/// Escaped text in which a line break is seen as well as done: it too is a token that was drafted or not.
fn visible(text: &str) -> String {
    escape::text(text).replace('\n', "<span class=\"break\">↵</span>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str, drafted_depth: Option<usize>) -> SampleToken {
        SampleToken { text: text.into(), drafted_depth }
    }

    #[test]
    fn tokens_are_escaped_shaded_and_keep_their_space() {
        let sample = Sample {
            prompt: "if a < b:\n".into(),
            tokens: vec![
                token("  ", None),
                token("<b>", Some(1)),
                token("\n", Some(2)),
                token("é", Some(40)),
            ],
        };
        let html = samples_html(&[sample]);
        assert!(html.contains("<span class=\"own\">  </span>"));
        assert!(html.contains("<span class=\"d1\">&lt;b&gt;</span>"));
        assert!(html.contains("<span class=\"d2\"><span class=\"break\">↵</span>\n</span>"));
        assert!(html.contains("<span class=\"d7\">é</span>"));
        assert!(html.contains("if a &lt; b:"));
        assert!(html.contains("3 of 4\u{a0}tokens drafted and accepted (75.0\u{a0}%)"));
        assert!(html.contains("accepted draft, token 7 and deeper"));
    }

    #[test]
    fn nothing_written_is_said() {
        let html = samples_html(&[Sample::default()]);
        assert!(html.contains("nothing was written"));
        assert!(!html.contains("accepted draft"));
    }
}
