//! Where registers stand in a batch, and what each is to predict.

use std::ops::Range;

use data::random::Random;
use data::{Batch, PADDING};
use tensor::{Blend, Register};

use super::{OffsetsPer, RegistersSpec, RowEnd};

/// A register in its place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placed {
    /// Where it stands.
    pub register: Register,
    /// How many tokens behind its token the target lies.
    pub offset: u32,
    /// What it is to predict.
    pub target: u32,
    /// What it carries of a token in training ([`RegistersSpec::decoys`]); a share of 0: nothing.
    pub carried: Blend,
}

/// The registers of one row, with some of `offsets`; those without a target, or with a position beyond the model's context,
/// are left out.
///
/// A register stands behind a token whose next token is a target: in fine-tuning the first one behind the last token of the
/// prompt. All tokens up to its own target are targets too, so that none predicts across a question into the next answer.
pub(super) fn of_row(
    spec: &RegistersSpec,
    offsets: &[usize],
    context: usize,
    batch: &Batch,
    row: usize,
) -> Vec<Placed> {
    let mut random = Random::new(spec.seed ^ PURPOSE, batch.draws[row]);
    // By itself, so that registers stand where they stand without it.
    let mut tokens_drawn = Random::new(spec.seed ^ CARRYING, batch.draws[row]);
    let ahead = batch.targets_ahead(row);
    let mut placed = Vec::new();
    for segment in segments(batch, row) {
        let shared = match spec.offsets {
            OffsetsPer::Sequence => draw(spec, offsets, &mut random),
            OffsetsPer::Register => Vec::new(),
        };
        let nearest = shared.iter().copied().min().unwrap_or(offsets[0]);
        let grid = Grid::of(spec, batch, row, &segment);
        let first = segment.start;
        let anchors: Vec<usize> = segment.filter(|&index| ahead[index] as usize >= nearest).collect();
        for anchor in choose(spec, anchors, &mut random) {
            let own = match spec.offsets {
                OffsetsPer::Sequence => None,
                OffsetsPer::Register => Some(draw(spec, offsets, &mut random)),
            };
            for &offset in own.as_ref().unwrap_or(&shared) {
                let position = batch.positions[row * batch.length + anchor] as usize + offset - 1;
                if ahead[anchor] as usize >= offset && position < context && grid.has(anchor, offset) {
                    let tokens = &batch.tokens[row * batch.stride()..][..batch.stride()];
                    placed.push(Placed {
                        register: Register {
                            row: row as u32,
                            anchor: anchor as u32,
                            position: position as u32,
                        },
                        offset: offset as u32,
                        target: tokens[anchor + offset],
                        carried: carry(
                            spec,
                            &tokens[first..=anchor],
                            tokens[anchor + offset - 1],
                            &mut tokens_drawn,
                        ),
                    });
                }
            }
        }
    }
    placed
}

/// Sets the draws of registers apart from everything else that a seed decides.
const PURPOSE: u64 = 0x7265_6769_7374_6572;

/// Sets the draws of what registers carry apart from those of where they stand.
const CARRYING: u64 = 0x6361_7272_7969_6e67;

/// Inputs of each segment of a row, padding left out.
fn segments(batch: &Batch, row: usize) -> Vec<Range<usize>> {
    let numbers = &batch.segments[row * batch.stride()..][..batch.length];
    let mut start = 0;
    let mut ranges = Vec::new();
    for part in numbers.chunk_by(|a, b| a == b) {
        if part[0] != PADDING {
            ranges.push(start..start + part.len());
        }
        start += part.len();
    }
    ranges
}

/// Different offsets, as many as registers stand behind one token.
fn draw(spec: &RegistersSpec, offsets: &[usize], random: &mut Random) -> Vec<usize> {
    let mut offsets = offsets.to_vec();
    random.shuffle(&mut offsets);
    offsets.truncate(spec.consecutive);
    offsets
}

/// What a register carries that stands where the document has `own`; `past` is what it sees.
///
/// As often the token that belongs there as one of the past: if it were always right, a row with a token could always go by it.
/// Nothing is drawn from what comes later, which would tell a register its target. Whole in two of five, as the rows of tokens are,
/// else by every share, which are the steps between a register and such a row.
fn carry(spec: &RegistersSpec, past: &[u32], own: u32, random: &mut Random) -> Blend {
    const STEPS: usize = 1 << 16;
    if spec.decoys == 0.0 || !random.chance((spec.decoys * STEPS as f64).round() as usize, STEPS) {
        return Blend { token: own, share: 0.0 };
    }
    let token = if random.chance(1, 2) { past[random.below(past.len())] } else { own };
    let share = if random.chance(2, 5) { 1.0 } else { random.below(STEPS + 1) as f32 / STEPS as f32 };
    Blend { token, share }
}

/// The image of a segment, where its row ends matter.
struct Grid {
    /// 0: they do not.
    width: usize,
    /// Index of the first token.
    first: usize,
}

impl Grid {
    fn of(spec: &RegistersSpec, batch: &Batch, row: usize, segment: &Range<usize>) -> Self {
        let width = if spec.row_end == RowEnd::Drop { spec.grid_width } else { 0 };
        let learnt = |&index: &usize| batch.loss_mask[row * batch.stride() + index];
        Self { width, first: segment.clone().find(learnt).unwrap_or(segment.start) }
    }

    /// Whether the token `offset` places behind the one at `index` lies in a column to the right of it, or in the same.
    fn has(&self, index: usize, offset: usize) -> bool {
        if self.width == 0 {
            return true;
        }
        // The token before the image stands where its row would end.
        let column = (index + self.width - self.first % self.width) % self.width;
        column + offset % self.width < self.width
    }
}

/// Those of `anchors` that registers stand behind, in order.
fn choose(spec: &RegistersSpec, mut anchors: Vec<usize>, random: &mut Random) -> Vec<usize> {
    let wanted = match spec.count {
        0 => (anchors.len() as f64 * spec.density).round() as usize,
        count => count.min(anchors.len()),
    };
    if wanted < anchors.len() {
        random.shuffle(&mut anchors);
        anchors.truncate(wanted);
        anchors.sort_unstable();
    }
    anchors
}

#[cfg(test)]
mod tests;
