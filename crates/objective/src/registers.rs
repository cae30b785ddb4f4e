//! Registers (MuToR, Gerontopoulos et al. 2505.10518): rows beside the tokens that predict farther ahead, in training only.
//!
//! A register behind token t with offset d predicts token t + d. It is one vector shared by all of them; that it stands for
//! another distance is told by its position alone, t + d - 1: where the token stands that would predict t + d in ordinary
//! next-token prediction. It sees what token t sees, and itself; nobody sees it. What remains at the end is the model as it is;
//! kept beside it, the vector lets the model draft ([`Drafter`]).
//!
//! `loss = (1 - a) * mean over tokens + a * mean over registers` (section 3.1), both means over the window of a step.

mod attach;
mod drafting;
mod place;

use data::Batch;
use model::Decoder;
use serde::{Deserialize, Serialize};
use tensor::{Blend, Layout, LearningRows, LossSum, ParamId, Tape};

use crate::exits::Exits;
use crate::{Drafter, Error, Objective, Result, Window};
pub use attach::{REGISTER_VECTOR, RegisterStart};
pub use place::Placed;

/// Which registers share an offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OffsetsPer {
    /// All of one document in a row, as in the paper.
    #[default]
    Sequence,
    /// None: each draws its own.
    Register,
}

/// What becomes of registers of an image grid whose target lies beyond the end of their row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowEnd {
    /// They predict what the raster order has there, in the next row, as the paper's formula says.
    #[default]
    Wrap,
    /// There are none.
    Drop,
}

/// Settings of registers, as they stand in `mtp.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistersSpec {
    /// The smallest offset. 2 where the next token is easy to copy, so that a register does not learn to copy it.
    pub d_min: usize,
    /// The largest offset.
    pub d_max: usize,
    /// Share `a` of the registers in the loss, between 0 and 1.
    pub weight: f32,
    /// Which registers share an offset.
    pub offsets: OffsetsPer,
    /// Share of the tokens before a target that a register stands behind, drawn anew for each row.
    pub density: f64,
    /// How many tokens of a document in a row a register stands behind, in place of the share; 0: by the share.
    pub count: usize,
    /// Registers behind one token, with different offsets.
    pub consecutive: usize,
    /// Tokens in a row of an image, which begins with the first token that is learnt; 0: text. In an image, offsets go down and to
    /// the right, each by less than `d_max` and not both by 0 (section 3.4: `d = (d_h - 1) w + d_w - 1` with `d_h`, `d_w` from 1 to
    /// `d_max` and not both 1).
    #[serde(default)]
    pub grid_width: usize,
    /// At the ends of an image's rows.
    #[serde(default)]
    pub row_end: RowEnd,
    /// Share of the registers that carry a token's embedding in training, as a whole or blended with the vector: the token of their
    /// own position, or a decoy, any token that they see. 0: none, as in the paper.
    ///
    /// A register cannot read its target off the token before it, since it stands in that token's place without it. The token's own
    /// row can, or can guess from it, and a model learns to tell the two by whether there is a token. Where tokens are not
    /// to be trusted it cannot, and what registers find out is said by the tokens' rows as well.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub decoys: f64,
    /// Of what is drawn.
    pub seed: u64,
}

/// Farther ahead than this nothing is left to predict.
pub const LARGEST_OFFSET: usize = 256;

/// In either direction of an image: each pair has a loss of its own.
const LARGEST_GRID_OFFSET: usize = 16;

/// Wider images have more tokens than any model's context.
const LARGEST_GRID: usize = 1024;

impl Default for RegistersSpec {
    /// What the authors recommend.
    fn default() -> Self {
        Self {
            d_min: 1,
            d_max: 4,
            weight: 0.3,
            offsets: OffsetsPer::Sequence,
            density: 1.0,
            count: 0,
            consecutive: 1,
            grid_width: 0,
            row_end: RowEnd::Wrap,
            decoys: 0.0,
            seed: 0,
        }
    }
}

impl RegistersSpec {
    /// The offsets, the smallest first.
    pub fn offsets(&self) -> Vec<usize> {
        match self.grid_width {
            0 => (self.d_min..=self.d_max).collect(),
            width => (0..self.d_max)
                .flat_map(|down| (0..self.d_max).map(move |right| down * width + right))
                .filter(|&offset| offset > 0)
                .collect(),
        }
    }

    /// The largest of the offsets.
    pub fn largest_offset(&self) -> usize {
        match self.grid_width {
            0 => self.d_max,
            width => (self.d_max - 1) * (width + 1),
        }
    }

    /// Tokens that registers can draft, the first of which is two tokens ahead.
    pub fn longest_draft(&self) -> usize {
        let largest = if self.grid_width > 0 { self.d_max - 1 } else { self.d_max };
        largest.saturating_sub(1)
    }

    /// Registers for each token before a target, at most.
    pub fn registers_per_token(&self) -> f64 {
        self.consecutive as f64 * if self.count > 0 { 1.0 } else { self.density }
    }

    /// Checks the settings.
    pub fn validate(&self) -> Result<()> {
        let refuse = |setting, problem: String| Err(Error::Setting { setting, problem });
        if !(1..=LARGEST_OFFSET).contains(&self.d_min) {
            return refuse("d_min", format!("is {}: give 1 to {LARGEST_OFFSET}", self.d_min));
        }
        if self.d_max < self.d_min || self.d_max > LARGEST_OFFSET {
            let problem =
                format!("is {}: give {} (objective.d_min) to {LARGEST_OFFSET}", self.d_max, self.d_min);
            return refuse("d_max", problem);
        }
        if !(self.weight > 0.0 && self.weight < 1.0) {
            return refuse("weight", format!("is {}: give a share between 0 and 1", self.weight));
        }
        if !(self.density > 0.0 && self.density <= 1.0) {
            return refuse("density", format!("is {}: give more than 0 and at most 1", self.density));
        }
        if !(0.0..=1.0).contains(&self.decoys) {
            return refuse("decoys", format!("is {}: give 0 to 1", self.decoys));
        }
        if self.grid_width == 1 {
            return refuse("grid_width", "is 1: an image of one column is text; leave it out".to_owned());
        }
        let most = self.grid_width.min(LARGEST_GRID_OFFSET);
        if self.grid_width > 0 && (self.d_max < 2 || self.d_max > most || self.d_min > 1) {
            let Self { d_min, d_max, grid_width, .. } = self;
            let problem = format!(
                "is {grid_width} with offsets from {d_min} to {d_max}: in a grid leave objective.d_min at 1, and give 2 to \
                 {most} as objective.d_max"
            );
            return refuse("grid_width", problem);
        }
        if self.grid_width > LARGEST_GRID {
            return refuse("grid_width", format!("is {}: give at most {LARGEST_GRID}", self.grid_width));
        }
        let offsets = self.offsets().len();
        if self.consecutive == 0 || self.consecutive > offsets {
            let problem =
                format!("is {}: give 1 to {offsets}, as many as there are offsets", self.consecutive);
            return refuse("consecutive", problem);
        }
        Ok(())
    }
}

/// So that a model without them can be read by programs that do not know of them.
fn is_zero(share: &f64) -> bool {
    *share == 0.0
}

/// A vector beside a decoder.
#[derive(Clone, Debug)]
pub struct Registers {
    spec: RegistersSpec,
    vector: [ParamId; 1],
    /// Positions beyond it do not exist.
    context: usize,
    offsets: Vec<usize>,
}

impl Registers {
    /// Its settings.
    pub fn spec(&self) -> &RegistersSpec {
        &self.spec
    }

    /// The vector that all registers share, `[width]`.
    pub fn vector(&self) -> ParamId {
        self.vector[0]
    }

    /// What `placed` carry in this window; empty: nothing.
    fn carried(&self, placed: &[Placed], window: &Window) -> Vec<Blend> {
        if window.training && self.spec.decoys > 0.0 {
            placed.iter().map(|placed| placed.carried).collect()
        } else {
            Vec::new()
        }
    }

    /// Which of the losses is that of a register.
    fn part_of(&self, placed: &Placed) -> usize {
        1 + self.offsets.partition_point(|&offset| offset < placed.offset as usize)
    }

    /// The registers of `batch`, in the order of its rows; `parts` counts the next token and the offsets in use, the smallest
    /// first.
    pub fn place(&self, batch: &Batch, parts: usize) -> Vec<Placed> {
        place_registers(&self.spec, parts, self.context, batch)
    }
}

/// The registers of `batch` for a model of `context` positions; see [`Registers::place`].
pub fn place_registers(spec: &RegistersSpec, parts: usize, context: usize, batch: &Batch) -> Vec<Placed> {
    let mut offsets = spec.offsets();
    offsets.truncate(parts.saturating_sub(1));
    if offsets.is_empty() {
        return Vec::new();
    }
    (0..batch.batch).flat_map(|row| place::of_row(spec, &offsets, context, batch, row)).collect()
}

impl Objective for Registers {
    fn kind(&self) -> &'static str {
        "registers"
    }

    /// The next token, and each offset.
    fn depths(&self) -> usize {
        1 + self.offsets.len()
    }

    fn tokens_ahead(&self) -> Vec<usize> {
        std::iter::once(1).chain(self.offsets.iter().copied()).collect()
    }

    fn lookahead(&self) -> usize {
        self.spec.largest_offset()
    }

    fn parameters(&self) -> &[ParamId] {
        &self.vector
    }

    /// Offsets count alike, as they are drawn.
    fn weight(&self, depth: usize) -> f32 {
        match depth {
            1 => 1.0 - self.spec.weight,
            _ => self.spec.weight / self.offsets.len() as f32,
        }
    }

    fn window(&self, batches: &[Batch], depths: usize) -> Window {
        let mut targets = vec![0; depths];
        targets[0] = batches.iter().map(|batch| batch.count_targets(1)).sum();
        for placed in batches.iter().flat_map(|batch| self.place(batch, depths)) {
            targets[self.part_of(&placed)] += 1;
        }
        Window::new(targets)
    }

    fn layout(&self, batch: &Batch, depths: usize) -> Layout {
        let registers = self.place(batch, depths).into_iter().map(|placed| placed.register).collect();
        Layout { registers, ..crate::loss::layout(batch) }
    }

    fn loss(&self, tape: &mut Tape, decoder: &Decoder, batch: &Batch, window: &Window) -> Vec<LossSum> {
        let placed = self.place(batch, window.depths());
        let start = tape.mark();
        let carried = self.carried(&placed, window);
        let embedded = tape.embed_with_registers(&decoder.embedding, &batch.inputs(), self.vector(), carried);
        let mut exits = Exits::new(decoder, window);
        let states =
            decoder.run_blocks(tape, embedded, 0..decoder.blocks.len(), &mut |tape, layer, state| {
                exits.see(tape, layer, state);
            });
        let normed = decoder.final_norm(tape, &states);
        let (unembedding, cap) = (decoder.unembedding, decoder.config.variant.logit_cap);

        let (mut targets, mut ahead) = (Vec::new(), Vec::new());
        batch.targets(1, &mut targets);
        ahead.extend(placed.iter().map(|placed| placed.target));
        // Two means, apart; without a register there is one, since a mean of nothing is no number.
        let mean = |weight: f32, targets: usize| weight / targets.max(1) as f32;
        let parts = [
            LearningRows {
                first: 0,
                targets: &targets,
                scale: mean(1.0 - self.spec.weight, window.targets[0]),
            },
            LearningRows {
                first: targets.len(),
                targets: &ahead,
                scale: mean(self.spec.weight, window.targets[1..].iter().sum()),
            },
        ];
        let mut losses = vec![LossSum::default(); targets.len() + ahead.len()];
        tape.cross_entropy_of_rows(&normed, unembedding, &parts, cap, Some(&mut losses));
        exits.learn(tape, &parts);

        let (of_tokens, of_registers) = losses.split_at(targets.len());
        let mut sums = vec![LossSum::default(); window.depths()];
        sums[0] = of_tokens.iter().copied().sum();
        for (placed, &loss) in placed.iter().zip(of_registers) {
            sums[self.part_of(placed)] += loss;
        }
        tape.backward_to(start);
        sums
    }

    /// Registers are gone when the model decodes, unless they draft; with offset 1 alone nothing was learnt to draft from.
    fn drafter(&self) -> Option<&dyn Drafter> {
        (self.spec.longest_draft() > 0).then_some(self as &dyn Drafter)
    }
}
