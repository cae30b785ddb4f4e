//! A batch as people read it: the text of each token, its document, and whether it is learnt.

use serde::Serialize;

use crate::batch::{Batch, PADDING};
use crate::vocabulary::Vocabulary;

/// One token of a row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShownToken {
    /// The id.
    pub id: u32,
    /// The characters that this token completes: empty where a character goes on in the next token.
    pub text: String,
    /// Number of the segment within the row.
    pub segment: u32,
    /// Whether the token is a target of the next-token head, so that its loss is counted.
    pub target: bool,
    /// At how many of the depths that are shown this position has a target; `None` for the lookahead, which is no input.
    pub depths: Option<usize>,
    /// The registers that stand behind it, for the objective to fill in.
    pub registers: Vec<ShownRegister>,
}

/// A register behind a token.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShownRegister {
    /// How many tokens behind its token its target lies.
    pub offset: u32,
    /// The token that it carries in training, if it carries one.
    pub carried: Option<CarriedToken>,
}

/// What a register carries of a token.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CarriedToken {
    /// Its id.
    pub id: u32,
    /// Its characters, or its name.
    pub text: String,
    /// How much of its embedding stands in the place of the shared vector: above 0, to 1.
    pub share: f32,
}

/// The tokens of a row, lookahead included, padding left out; of each, at how many of the nearest `depths` it has a target.
///
/// Special tokens show their name. What stays of a character at the end of a segment is shown with its last
/// token, as U+FFFD.
pub fn show_row(batch: &Batch, row: usize, vocabulary: &Vocabulary, depths: usize) -> Vec<ShownToken> {
    let from = row * batch.stride();
    let upto = from + batch.stride();
    let mut shown: Vec<ShownToken> = Vec::new();
    let mut stream = vocabulary.stream();
    for at in from..upto {
        let (id, segment) = (batch.tokens[at], batch.segments[at]);
        if segment == PADDING {
            continue;
        }
        let continues = at > from && batch.segments[at - 1] == segment;
        if !continues && let Some(last) = shown.last_mut() {
            last.text += &stream.finish();
        }
        let text = vocabulary.special_name(id).unwrap_or_else(|| stream.push(id));
        let index = at - from;
        let depths = (index < batch.length)
            .then(|| (1..=depths).filter(|&depth| batch.target(row, index, depth).is_some()).count());
        let target = continues && batch.loss_mask[at];
        shown.push(ShownToken { text, id, segment, target, depths, registers: Vec::new() });
    }
    if let Some(last) = shown.last_mut() {
        last.text += &stream.finish();
    }
    shown
}
