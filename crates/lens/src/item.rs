//! One thing to look at: a piece of text, an image, a sound.

use model::taps::Input;

/// An input, and which of its rows are read.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// What the model runs.
    pub input: Input,
    /// Rows of the residual stream that are read, ascending.
    pub read: Vec<usize>,
    /// For each of them what truly stands there, where that is known.
    pub targets: Vec<Option<u32>>,
    /// Which text, image or sound it belongs to: folds of the probe do not divide it.
    pub group: usize,
}

impl Item {
    /// Tokens of which each is read, and predicts the next.
    pub fn text(tokens: Vec<u32>, group: usize) -> Self {
        let read = (0..tokens.len()).collect();
        let targets = (1..=tokens.len()).map(|next| tokens.get(next).copied()).collect();
        Self { input: Input::Tokens(tokens), read, targets, group }
    }

    /// Something with a row for its class, which is the first.
    pub fn classified(input: Input, class: Option<u32>, group: usize) -> Self {
        Self { input, read: vec![0], targets: vec![class], group }
    }
}
