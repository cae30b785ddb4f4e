//! One update of the optimiser over the micro-batches of a step.

use data::Batch;
use model::Decoder;
use objective::{Objective, Window};
use tensor::{
    AdamW, Arena, Decay, Gradients, LossSum, Muon, Optimiser, Param, Params, Precision, Rules, Tape,
};

use crate::config::{DecaySetting, Dtype, OptimiserKind, TrainSection};

/// Gradients, moments and buffers that live from step to step.
pub struct Stepper {
    pub(crate) optimiser: Optimiser,
    gradients: Gradients,
    pub(crate) arena: Arena,
    precision: Precision,
    recomputes: bool,
    exit_weight: f32,
    /// Of each batch of the next update; empty: the trunk runs.
    states: Vec<Vec<f32>>,
}

/// What a step found before it changed anything.
#[derive(Clone, Debug, PartialEq)]
pub struct StepReport {
    /// Mean loss per target at each depth that was trained, in nats.
    pub loss: Vec<f64>,
    /// How many targets there were at each of these depths.
    pub targets: Vec<usize>,
    /// Share of the targets at each of these depths that were the most probable token.
    pub accuracy: Vec<f64>,
    /// Mean weight of each component of a mixture; empty where there is none.
    pub usage: Vec<f64>,
    /// Length of the gradient, before it was shortened.
    pub gradient_norm: f64,
}

/// Loss or gradient of a step are no numbers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct NotFinite {
    /// Which, and what they are.
    pub what: String,
}

impl Stepper {
    /// For the parameters that are trainable now, and the settings that hold for all steps.
    pub fn new(params: &Params, settings: &TrainSection) -> Self {
        let decay = match settings.decay_on {
            DecaySetting::Matrices => Decay::Matrices,
            DecaySetting::All => Decay::All,
        };
        let optimiser = Optimiser::new(params, decay);
        Self {
            optimiser: match settings.optimiser {
                OptimiserKind::AdamW => optimiser,
                OptimiserKind::Muon => optimiser.with_muon(params, is_map),
            },
            exit_weight: settings.exit_weight as f32,
            gradients: Gradients::new(params),
            arena: Arena::default(),
            precision: precision(settings.dtype),
            recomputes: settings.recompute_activations,
            states: Vec::new(),
        }
    }

    /// Gives the states of the trunk for the batches of the next update, `[batch, length, width]` each
    /// ([`objective::OnStates`]): there the trunk does not run.
    pub(crate) fn start_from(&mut self, states: Vec<Vec<f32>>) {
        self.states = states;
    }

    /// One update over `batches`, which count as one batch: each depth's loss is divided by its targets in all of them.
    /// Depths beyond `depths` are not trained (curriculum).
    ///
    /// # Errors
    /// When loss or gradient is not finite; the parameters are then as before.
    pub fn update(
        &mut self,
        params: &mut Params,
        decoder: &Decoder,
        objective: &dyn Objective,
        batches: &[Batch],
        depths: usize,
        settings: &TrainSection,
        learning_rate: f64,
    ) -> Result<StepReport, NotFinite> {
        // Begun on one of rayon's own threads: else each of the kernels' parallel parts is handed over to them and waited for, which
        // were a tenth of the samples of a model of 0.8M parameters.
        rayon::scope(|_| {
            let report = self.gradients(params, decoder, objective, batches, depths);
            if let Some(depth) = report.loss.iter().position(|loss| !loss.is_finite()) {
                return Err(NotFinite {
                    what: format!("the loss at depth {} is {}", depth + 1, report.loss[depth]),
                });
            }
            if !report.gradient_norm.is_finite() {
                let (norm, loss) = (report.gradient_norm, report.loss[0]);
                return Err(NotFinite {
                    what: format!("the length of the gradient is {norm} (the loss at depth 1 is {loss})"),
                });
            }
            let too_long = settings.clip > 0.0 && report.gradient_norm > settings.clip;
            let scale = if too_long { settings.clip / report.gradient_norm } else { 1.0 };
            self.optimiser.update(params, &self.gradients, rules(settings, learning_rate), scale as f32);
            Ok(report)
        })
    }

    /// Losses and gradients over `batches` as one batch; see [`Self::last_gradients`].
    pub fn gradients(
        &mut self,
        params: &Params,
        decoder: &Decoder,
        objective: &dyn Objective,
        batches: &[Batch],
        depths: usize,
    ) -> StepReport {
        let window =
            Window { exit_weight: self.exit_weight, training: true, ..objective.window(batches, depths) };
        self.gradients.clear();
        let mut sums = vec![LossSum::default(); depths + objective.components()];
        let states = std::mem::take(&mut self.states);
        for (index, batch) in batches.iter().enumerate() {
            let mut layout = objective.layout(batch, depths);
            layout.draws.clone_from(&batch.draws);
            self.arena.begin(layout.rows());
            let tape = Tape::training(params, &mut self.gradients, &mut self.arena, &layout);
            let mut tape = tape.in_precision(self.precision).recomputing(self.recomputes);
            let parts = match (states.get(index), objective.on_states()) {
                (Some(states), Some(on_states)) => {
                    let states = tape.input(states, decoder.config.width);
                    let parts = on_states.loss_from(&mut tape, decoder, &states, batch, &window);
                    tape.forget();
                    parts
                }
                _ => objective.loss(&mut tape, decoder, batch, &window),
            };
            sums.iter_mut().zip(parts).for_each(|(sum, part)| *sum += part);
        }
        let usage = sums.split_off(depths).iter().map(mean_loss).collect();
        StepReport {
            usage,
            loss: sums.iter().map(mean_loss).collect(),
            targets: sums.iter().map(|sum| sum.targets).collect(),
            accuracy: sums.iter().map(accuracy).collect(),
            gradient_norm: self.gradients.norm(),
        }
    }

    /// The gradients that [`Self::gradients`] left.
    pub fn last_gradients(&self) -> &Gradients {
        &self.gradients
    }

    /// Values that all buffers of the steps so far took, without gradients and moments.
    pub fn buffer_values(&self) -> usize {
        self.arena.allocated_values()
    }
}

/// For the rate that the schedule says.
fn rules(settings: &TrainSection, learning_rate: f64) -> Rules {
    let TrainSection { beta1, beta2, epsilon, weight_decay, matrix_rate, .. } = *settings;
    let adamw = AdamW { learning_rate, beta1, beta2, epsilon, weight_decay };
    Rules {
        adamw,
        muon: Muon { learning_rate: learning_rate * matrix_rate, weight_decay, ..Muon::default() },
    }
}

/// Whether `param` maps states to states: neither tokens to states nor states to tokens.
fn is_map(param: &Param) -> bool {
    !["embed_tokens.weight", "embed_positions.weight", "unembedding.weight", "lm_head.weight"]
        .iter()
        .any(|table| param.name.ends_with(table))
}

/// In which factors are multiplied.
pub(crate) fn precision(dtype: Dtype) -> Precision {
    match dtype {
        Dtype::F32 => Precision::F32,
        Dtype::Bf16 => Precision::Bf16,
    }
}

/// Nats per target; 0 where there is no target, which then had no part in the gradient either.
pub(crate) fn mean_loss(sum: &LossSum) -> f64 {
    sum.nll / sum.targets.max(1) as f64
}

/// Share of the targets that were the most probable token.
pub(crate) fn accuracy(sum: &LossSum) -> f64 {
    sum.correct as f64 / sum.targets.max(1) as f64
}
