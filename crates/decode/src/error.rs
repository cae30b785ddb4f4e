//! Why a continuation cannot be decoded.

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can be wrong with a prompt, the settings, or the numbers of a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting that cannot work.
    #[error("{setting}: {problem}")]
    Setting {
        /// Name of the setting.
        setting: &'static str,
        /// What is wrong and what to do.
        problem: String,
    },

    /// A model predicts what follows something.
    #[error("the prompt has no tokens: give at least one, commonly the token that begins a document")]
    EmptyPrompt,

    /// The prompt leaves no room for a continuation.
    #[error("the prompt has {tokens} tokens and the context {capacity}: shorten it to at most {} tokens", .capacity.saturating_sub(1))]
    PromptTooLong {
        /// Length of the prompt.
        tokens: usize,
        /// Positions of the context.
        capacity: usize,
    },

    /// Rows that stand beyond the end of the context.
    #[error("{rows} more tokens do not fit: {length} of the {capacity} positions of the context are taken")]
    ContextFull {
        /// Rows that were to run.
        rows: usize,
        /// Committed positions.
        length: usize,
        /// Positions of the context.
        capacity: usize,
    },

    /// A token for which the model has no embedding.
    #[error(
        "token {token} at place {place} of the input: the model knows tokens 0 to {}; \
         the tokenizer belongs to another model",
        .vocabulary.saturating_sub(1)
    )]
    UnknownToken {
        /// The token.
        token: u32,
        /// Its place in the input.
        place: usize,
        /// Rows of the embedding.
        vocabulary: usize,
    },

    /// NaN or infinity where a token is to be chosen.
    #[error(
        "the model's logits are not finite at position {position}: its weights are damaged or training diverged"
    )]
    NotFinite {
        /// The position whose successor was to be chosen.
        position: usize,
    },
}

impl Error {
    /// Refuses `new_tokens` tokens after a prompt, where a context of `capacity` positions has no room for them and `beyond` more.
    pub(crate) fn refuse_too_many(
        prompt: usize,
        new_tokens: usize,
        beyond: usize,
        capacity: usize,
    ) -> Result<()> {
        match capacity.checked_sub(prompt.saturating_add(beyond)) {
            None | Some(0) => {
                Err(Self::PromptTooLong { tokens: prompt, capacity: capacity.saturating_sub(beyond) })
            }
            Some(room) if new_tokens > room => {
                let problem = format!(
                    "{new_tokens} tokens do not fit after a prompt of {prompt} into the context of {capacity}: give at most {room}"
                );
                Err(Self::setting("max_new_tokens", problem))
            }
            Some(_) => Ok(()),
        }
    }

    pub(crate) fn setting(setting: &'static str, problem: impl Into<String>) -> Self {
        Self::Setting { setting, problem: problem.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_what_is_named() {
        let told =
            |prompt, new| Error::refuse_too_many(prompt, new, 4, 100).map_err(|error| error.to_string());
        assert_eq!(told(10, 86), Ok(()));
        let more = told(10, 87).unwrap_err();
        assert!(
            more.starts_with("max_new_tokens: 87 tokens do not fit") && more.ends_with("at most 86"),
            "{more}"
        );
        let prompt = told(96, 1).unwrap_err();
        assert!(prompt.contains("has 96 tokens") && prompt.ends_with("to at most 95 tokens"), "{prompt}");
        assert_eq!(told(95, 1), Ok(()));
    }
}
