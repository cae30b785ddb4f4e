//! What predicts further ahead than the next token, and how a page speaks of it.

use serde::{Deserialize, Serialize};

/// What predicts further ahead than the next token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LooksAhead {
    /// Nothing: an ordinary model.
    Nothing,
    /// Heads, which stay and draft when the model decodes; the first is the model's own.
    #[default]
    Heads,
    /// Joint heads beside the model's own, which stay and draft as well.
    Joint,
    /// Tokens that exist in training only, and leave an ordinary model.
    Registers,
}

impl LooksAhead {
    /// What a prediction is called that lies so many tokens ahead; the first one of a run is the model's own.
    pub(super) fn name(self, first: bool, tokens_ahead: usize) -> String {
        let ahead = match tokens_ahead {
            1 => "next token".to_string(),
            _ => format!("{tokens_ahead} ahead"),
        };
        match self {
            Self::Registers if !first => format!("register, {tokens_ahead} ahead"),
            Self::Joint if !first => format!("joint head, {ahead}"),
            Self::Nothing | Self::Heads | Self::Joint | Self::Registers => ahead,
        }
    }

    /// The same where the axis says that it is tokens ahead.
    pub(super) fn place(self, first: bool, tokens_ahead: usize) -> String {
        match self {
            Self::Registers if !first => format!("{tokens_ahead} (register)"),
            Self::Joint if !first => format!("{tokens_ahead} (joint head)"),
            Self::Nothing | Self::Heads | Self::Joint | Self::Registers => tokens_ahead.to_string(),
        }
    }

    /// All that predicts.
    pub(super) fn all(self) -> &'static str {
        match self {
            Self::Nothing => "the model",
            Self::Heads => "each head",
            Self::Joint => "the model and its joint heads",
            Self::Registers => "tokens and registers",
        }
    }

    /// Heading of what was learnt.
    pub(super) fn heading(self) -> &'static str {
        match self {
            Self::Nothing => "What the model learnt",
            Self::Heads | Self::Joint => "What the heads learnt",
            Self::Registers => "What tokens and registers learnt",
        }
    }

    /// Whether it stays when the model decodes.
    pub(super) fn stays(self) -> bool {
        matches!(self, Self::Heads | Self::Joint)
    }
}
