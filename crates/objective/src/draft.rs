//! The decoding side of an objective.

use kernels::argmax::argmax;
use model::Decoder;
use model::engine::{Engine, EngineWeights, Rows};
use tensor::{ParamId, Params};

/// Takes the tokens of a draft in, nearest first; the first stands two places after the last committed token, because the
/// place between is decided by the model itself.
///
/// A drafter says what it believes; how tokens are chosen from that (temperature, filters, penalties, the draw) is the
/// chooser's, which does it as for the model itself and keeps the distribution that each token was drawn from, so that the
/// draft can be verified exactly.
pub trait Chooser {
    /// Chooses the next token of the draft from its `logits` `[vocabulary]` (up to a constant), which are used up.
    fn choose(&mut self, logits: &mut [f32]) -> u32;

    /// Takes `token` as the next of the draft: a point mass, whatever the temperature is.
    fn propose(&mut self, token: u32);
}

/// The most likely token at each place, and nothing remembered but the tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Greedy {
    /// The draft so far.
    pub tokens: Vec<u32>,
}

impl Chooser for Greedy {
    fn choose(&mut self, logits: &mut [f32]) -> u32 {
        let token = argmax(logits) as u32;
        self.tokens.push(token);
        token
    }

    fn propose(&mut self, token: u32) {
        self.tokens.push(token);
    }
}

/// Rows of the model that were verified and committed: what a drafter may build on.
pub struct Verified<'a> {
    /// For each layer of [`Drafter::taps`], the residual stream after it; the first `rows` rows count.
    pub states: &'a [Rows],
    /// How many rows were committed.
    pub rows: usize,
    /// Position of the first of them.
    pub first_position: usize,
    /// All committed tokens, the prompt's included; where a draft is asked for, after them the token that the last committed
    /// row decided.
    pub tokens: &'a [u32],
    /// For a drafter that has rows [`beside`](Drafter::beside): those of the last committed row after the last block, nearest
    /// place first, at least as many as are to be drafted.
    pub beside: Option<&'a Rows>,
}

impl Verified<'_> {
    /// The token that the last committed row decided; the draft begins after it.
    ///
    /// # Panics
    ///
    /// If there are no tokens; a draft is asked for after at least one.
    pub fn decided(&self) -> u32 {
        *self.tokens.last().expect("a draft follows a decided token")
    }
}

/// Rows of the model's next run that drafting has begun: those of the decided token and of the first drafted ones.
#[derive(Debug)]
pub struct Begun {
    /// Blocks that they ran through, from the first; their keys and values are in the caches of these.
    pub blocks: usize,
    /// The tokens whose rows these are; a run over others begins anew.
    pub tokens: Vec<u32>,
    /// The residual stream after the blocks, a row for each token.
    pub states: Rows,
}

/// Proposes tokens from states of the trunk, or from the text.
pub trait Drafter: Send + Sync {
    /// The longest draft it can make.
    fn longest(&self) -> usize;

    /// Layers after which it wants the residual stream.
    fn taps(&self) -> Vec<usize>;

    /// Adds what it needs to the engine's weights.
    fn pack(&self, weights: &mut EngineWeights, params: &Params);

    /// Takes in committed rows (its own caches must cover every committed position) and proposes up to `length` tokens after
    /// the decided one to `chooser`; with `length` 0 it only takes them in.
    fn draft(
        &self,
        engine: &mut Engine,
        decoder: &Decoder,
        verified: &Verified,
        length: usize,
        chooser: &mut dyn Chooser,
    );

    /// The vector of rows that run beside those of the tokens, if it drafts from such. Behind each token there is one for each
    /// place of the next draft; the one for place `k` stands `k` positions after its token, sees what stands up to that
    /// token, and itself.
    fn beside(&self) -> Option<ParamId> {
        None
    }

    /// Gives away what the latest draft has begun of the next run, which goes on from there.
    fn begun(&self) -> Option<Begun> {
        None
    }
}
