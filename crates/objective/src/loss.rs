//! The training side of an objective.

use data::Batch;
use model::Decoder;
use tensor::{Layout, LearningRows, LossSum, ParamId, Tape, Var};

use crate::Drafter;
use crate::exits::Exits;

/// How the losses of one optimiser step are weighed: they are divided by the targets of all its micro-batches, per depth, so that N
/// accumulated batches of one weigh as one batch of N.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// `targets[k - 1]`: number of targets at depth k. Depths beyond its length are not trained in this step.
    pub targets: Vec<usize>,
    /// Weight of the losses of early exits; 0: none.
    pub exit_weight: f32,
    /// Whether something is learnt: registers that carry tokens do so then, and not where a model is measured.
    pub training: bool,
}

impl Window {
    /// Of a measurement, without early exits.
    pub fn new(targets: Vec<usize>) -> Self {
        Self { targets, exit_weight: 0.0, training: false }
    }

    /// Counts the targets of `batches` at depths `1..=depths`.
    pub fn count(batches: &[Batch], depths: usize) -> Self {
        let at = |depth| batches.iter().map(|batch| batch.count_targets(depth)).sum();
        Self::new((1..=depths).map(at).collect())
    }

    /// Depths that are trained in this step.
    pub fn depths(&self) -> usize {
        self.targets.len()
    }
}

/// What a method adds to a trunk, and how it learns and drafts.
pub trait Objective: Send + Sync {
    /// Name in `mtp.json` and run files.
    fn kind(&self) -> &'static str;

    /// How many predictions have a loss of their own, the next token first.
    fn depths(&self) -> usize;

    /// How far ahead each of them lies; as many as there are [`Self::depths`].
    fn tokens_ahead(&self) -> Vec<usize> {
        (1..=self.depths()).collect()
    }

    /// How far ahead the farthest lies: what a batch must hold behind its inputs.
    fn lookahead(&self) -> usize {
        self.depths()
    }

    /// Parameters that it added to the model.
    fn parameters(&self) -> &[ParamId];

    /// Components of a mixture whose mean weights [`Self::loss`] gives behind the losses; 0 where there is no mixture.
    fn components(&self) -> usize {
        0
    }

    /// What the losses of a step over `batches` are divided by, if `depths` of its predictions are trained.
    fn window(&self, batches: &[Batch], depths: usize) -> Window {
        Window::count(batches, depths)
    }

    /// The rows that the trunk runs over for `batch`: what [`Self::loss`] wants a tape for.
    fn layout(&self, batch: &Batch, depths: usize) -> Layout {
        let _ = depths;
        layout(batch)
    }

    /// Runs trunk and losses over `batch`. On a training tape it also runs back, leaving
    /// `sum over k of weight_k * mean loss at depth k` (means over the window) in the gradients. Returns the sums per depth, and
    /// behind them, for each of [`Self::components`], the sum of its weights (as `nll`) over so many rows (`targets`).
    fn loss(&self, tape: &mut Tape, decoder: &Decoder, batch: &Batch, window: &Window) -> Vec<LossSum>;

    /// Weight of the loss at `depth` (1 is the next token).
    fn weight(&self, depth: usize) -> f32;

    /// How it drafts, if it can.
    fn drafter(&self) -> Option<&dyn Drafter>;

    /// How it learns from states of the trunk, if tokens alone decide these.
    fn on_states(&self) -> Option<&dyn OnStates> {
        None
    }
}

/// An objective whose losses begin from a state of the trunk. On a frozen trunk that state is the same whenever a window of text
/// comes again.
pub trait OnStates {
    /// Blocks of the decoder below the state.
    fn layers_below(&self) -> usize;

    /// As [`Objective::loss`], from the states `[rows, width]` after [`Self::layers_below`] blocks. On a training tape it leaves
    /// what the state gets of a gradient there, and runs back no further.
    fn loss_from(
        &self,
        tape: &mut Tape,
        decoder: &Decoder,
        states: &Var,
        batch: &Batch,
        window: &Window,
    ) -> Vec<LossSum>;
}

/// [`Objective::loss`] of an objective that begins from states: the trunk, the losses, and back. Early exits learn the next token.
pub(crate) fn loss_through_states(
    objective: &(impl Objective + OnStates),
    tape: &mut Tape,
    decoder: &Decoder,
    batch: &Batch,
    window: &Window,
) -> Vec<LossSum> {
    let start = tape.mark();
    let embedded = decoder.embed(tape, &batch.inputs());
    let mut exits = Exits::new(decoder, window);
    let states =
        decoder.run_blocks(tape, embedded, 0..objective.layers_below(), &mut |tape, layer, state| {
            exits.see(tape, layer, state);
        });
    let sums = objective.loss_from(tape, decoder, &states, batch, window);
    if !exits.is_empty() {
        let mut targets = Vec::new();
        batch.targets(1, &mut targets);
        let scale = objective.weight(1) / window.targets[0].max(1) as f32;
        exits.learn(tape, &[LearningRows { first: 0, targets: &targets, scale }]);
    }
    tape.backward_to(start);
    sums
}

/// Where the tokens of `batch` stand and what they see.
pub(crate) fn layout(batch: &Batch) -> Layout {
    Layout {
        batch: batch.batch,
        length: batch.length,
        positions: batch.positions.clone(),
        first_visible: batch.first_visible.clone(),
        ..Layout::default()
    }
}
