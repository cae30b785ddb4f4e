//! Reading every layer out, a chunk of rows at a time.

use model::taps::{Input, Taps};
use rayon::prelude::*;
use tensor::Arena;

use crate::error::{Error, Result};
use crate::item::Item;

/// Rows of the residual stream that run at once, unless one item alone has more.
const ROWS_PER_RUN: usize = 512;

/// Logits that exist at once.
const MOST_LOGITS: usize = 1 << 21;

/// Rows on which the similarity of neighbouring layers is measured.
const MEASURED_ROWS: usize = 4096;

/// The most choices that can be followed.
pub const MOST_CHOICES: usize = 8;

/// What to read.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Choices that are followed, from 1.
    pub choices: usize,
    /// Keep the states of the chunk for whoever is shown it.
    pub states: bool,
}

/// Where a row comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which text, image or sound.
    pub group: usize,
    /// Which item.
    pub item: usize,
    /// Which row of the item.
    pub row: usize,
    /// What truly stands there.
    pub target: Option<u32>,
}

/// A chunk of rows as the lens saw them.
#[derive(Debug, Default)]
pub struct Seen {
    /// Blocks of the model.
    pub layers: usize,
    /// Choices for each row and layer.
    pub choices: usize,
    /// Width of a state.
    pub width: usize,
    /// One for each row.
    pub places: Vec<Place>,
    /// The likeliest outputs, `[rows, layers, choices]`.
    pub top: Vec<u32>,
    /// Probability of the first minus that of the second choice, `[rows, layers]`.
    pub lead: Vec<f32>,
    /// Cosine between the state and that of the layer before; 0 in the first layer. `[rows, layers]`.
    pub likeness: Vec<f32>,
    /// States `[rows, width]` of each layer, if they were asked for.
    pub states: Vec<Vec<f32>>,
}

impl Seen {
    /// The choices of one row, `[layers, choices]`.
    pub fn top_of(&self, row: usize) -> &[u32] {
        let each = self.layers * self.choices;
        &self.top[row * each..(row + 1) * each]
    }

    /// The state of one row after `layer`; there must be states.
    pub fn state(&self, layer: usize, row: usize) -> &[f32] {
        &self.states[layer][row * self.width..(row + 1) * self.width]
    }
}

/// How alike the logits of neighbouring layers are: what the null model is fitted to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Likeness {
    /// Sums over rows of Pearson's correlation between the logits of layers `l` and `l + 1`.
    sums: Vec<f64>,
    rows: usize,
}

impl Likeness {
    /// The mean correlation of each layer with the next, `[layers - 1]`.
    pub fn means(&self) -> Vec<f64> {
        self.sums.iter().map(|sum| sum / self.rows.max(1) as f64).collect()
    }
}

/// Runs `items` through `model` and shows what the lens sees, chunk by chunk. Gives the likeness of neighbouring layers.
///
/// # Errors
/// When an item cannot be read or run, the number of choices is out of range, or `each` fails.
pub fn look(
    model: &dyn Taps,
    items: &mut dyn Iterator<Item = Result<Item>>,
    settings: Look,
    each: &mut dyn FnMut(&Seen) -> Result<()>,
) -> Result<Likeness> {
    let sizes = model.sizes();
    if settings.choices == 0 || settings.choices > MOST_CHOICES.min(sizes.outputs) {
        let most = MOST_CHOICES.min(sizes.outputs);
        return Err(Error::setting("k", format!("{} choices: give 1 to {most}", settings.choices)));
    }
    let mut reader = Reader {
        model,
        settings,
        arena: Arena::default(),
        likeness: Likeness { sums: vec![0.0; sizes.layers - 1], rows: 0 },
    };
    let mut batch: Vec<Item> = Vec::new();
    let mut first = 0;
    for item in items {
        let item = item?;
        let rows = model.rows(&item.input);
        let fits = batch.first().is_none_or(|other| {
            // Whisper's encoder states belong to one sound, so that its items run alone.
            !matches!(item.input, Input::Speech { .. })
                && model.rows(&other.input) == rows
                && (batch.len() + 1) * rows <= ROWS_PER_RUN
        });
        if !fits {
            each(&reader.run(&batch, first)?)?;
            first += batch.len();
            batch.clear();
        }
        batch.push(item);
    }
    if !batch.is_empty() {
        each(&reader.run(&batch, first)?)?;
    }
    Ok(reader.likeness)
}

/// A model at work.
struct Reader<'m> {
    model: &'m dyn Taps,
    settings: Look,
    arena: Arena,
    likeness: Likeness,
}

impl Reader<'_> {
    fn run(&mut self, items: &[Item], first_item: usize) -> Result<Seen> {
        let sizes = self.model.sizes();
        let (layers, width) = (sizes.layers, sizes.width);
        let length = self.model.rows(&items[0].input);
        let mut places = Vec::new();
        let mut rows = Vec::new();
        for (index, item) in items.iter().enumerate() {
            for (&row, &target) in item.read.iter().zip(&item.targets) {
                places.push(Place { group: item.group, item: first_item + index, row, target });
                rows.push(index * length + row);
            }
        }
        let mut states: Vec<Vec<f32>> = Vec::with_capacity(layers);
        let inputs: Vec<Input> = items.iter().map(|item| item.input.clone()).collect();
        self.model.run(&mut self.arena, &inputs, &mut |_, stream| {
            let read = rows.iter().flat_map(|row| &stream[row * width..(row + 1) * width]);
            states.push(read.copied().collect());
        })?;
        let mut seen = Seen { layers, choices: self.settings.choices, width, places, ..Seen::default() };
        seen.top = vec![0; rows.len() * layers * seen.choices];
        seen.lead = vec![0.0; rows.len() * layers];
        seen.likeness = likeness_of_states(&states, width, rows.len());
        let chunk = (MOST_LOGITS / sizes.outputs).clamp(1, rows.len().max(1));
        for start in (0..rows.len()).step_by(chunk) {
            self.read_out(&states, start, chunk.min(rows.len() - start), &mut seen);
        }
        if self.settings.states {
            seen.states = states;
        }
        Ok(seen)
    }

    /// Logits of `count` rows after every layer, reduced at once.
    fn read_out(&mut self, states: &[Vec<f32>], start: usize, count: usize, seen: &mut Seen) {
        let outputs = self.model.sizes().outputs;
        let (layers, choices, width) = (seen.layers, seen.choices, seen.width);
        let measured = self.likeness.rows < MEASURED_ROWS;
        let (mut logits, mut before) = (Vec::new(), Vec::new());
        let top = &mut seen.top[start * layers * choices..(start + count) * layers * choices];
        let lead = &mut seen.lead[start * layers..(start + count) * layers];
        for (layer, states) in states.iter().enumerate() {
            let part = &states[start * width..(start + count) * width];
            self.model.read_out(&mut self.arena, part, &mut logits);
            let rows = top.par_chunks_mut(layers * choices).zip(lead.par_chunks_mut(layers));
            rows.zip(logits.par_chunks(outputs)).for_each(|((top, lead), logits)| {
                let top = &mut top[layer * choices..(layer + 1) * choices];
                lead[layer] = likeliest(logits, top);
            });
            if measured && layer > 0 {
                let pairs = logits.par_chunks(outputs).zip(before.par_chunks(outputs));
                self.likeness.sums[layer - 1] += pairs.map(|(a, b)| correlation(a, b)).sum::<f64>();
            }
            std::mem::swap(&mut logits, &mut before);
        }
        self.likeness.rows += if measured { count } else { 0 };
    }
}

/// Fills `top` with the places of the largest logits, the largest first, the lower place among equals. Gives the probability of
/// the first minus that of the second.
fn likeliest(logits: &[f32], top: &mut [u32]) -> f32 {
    // One more than is asked for where only one is, because the lead needs two.
    let kept = top.len().max(2).min(logits.len());
    let mut best = [(f32::NEG_INFINITY, u32::MAX); MOST_CHOICES];
    let best = &mut best[..kept];
    for (place, &logit) in logits.iter().enumerate() {
        if logit > best[kept - 1].0 {
            let at = best.iter().position(|(other, _)| logit > *other).unwrap_or(kept - 1);
            best[at..].rotate_right(1);
            best[at] = (logit, place as u32);
        }
    }
    // Logits that are no numbers leave places empty; any fixed token will do for them.
    top.iter_mut()
        .zip(&*best)
        .for_each(|(top, (_, place))| *top = if *place == u32::MAX { 0 } else { *place });
    let largest = best[0].0;
    let sum: f32 = logits.iter().map(|logit| (logit - largest).exp()).sum();
    let second = best.get(1).map_or(0.0, |(logit, _)| (logit - largest).exp());
    (1.0 - second) / sum
}

/// The places of the `count` largest logits, the largest first.
pub(crate) fn likeliest_places(logits: &[f32], count: usize) -> Vec<u32> {
    let mut top = vec![0; count];
    likeliest(logits, &mut top);
    top
}

/// Probability of the likeliest minus that of the next.
pub(crate) fn lead_of(logits: &[f32]) -> f32 {
    likeliest(logits, &mut [0, 0])
}

/// Cosine between two states; 0 where one is empty of everything.
pub(crate) fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let norms = kernels::vector::sum_of_squares(a) * kernels::vector::sum_of_squares(b);
    if norms > 0.0 { f64::from(kernels::vector::dot(a, b)) / norms.sqrt() } else { 0.0 }
}

fn correlation(a: &[f32], b: &[f32]) -> f64 {
    let count = a.len() as f64;
    let mean = |x: &[f32]| x.iter().map(|v| f64::from(*v)).sum::<f64>() / count;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (f64::from(*a) - mean_a, f64::from(*b) - mean_b);
        ab += a * b;
        aa += a * a;
        bb += b * b;
    }
    if aa * bb > 0.0 { ab / (aa * bb).sqrt() } else { 0.0 }
}

/// `[rows, layers]`
fn likeness_of_states(states: &[Vec<f32>], width: usize, rows: usize) -> Vec<f32> {
    let layers = states.len();
    let mut likeness = vec![0.0; rows * layers];
    for layer in 1..layers {
        for row in 0..rows {
            let [a, b] = [layer - 1, layer].map(|layer| &states[layer][row * width..(row + 1) * width]);
            likeness[row * layers + layer] = cosine(a, b) as f32;
        }
    }
    likeness
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_come_in_order_and_equals_by_place() {
        let mut top = [9; 3];
        let lead = likeliest(&[0.0, 2.0, 1.0, 2.0, -1.0], &mut top);
        assert_eq!((top, lead), ([1, 3, 2], 0.0));
        let mut one = [9];
        let lead = likeliest(&[0.0, 3f32.ln()], &mut one);
        assert!(one == [1] && (lead - 0.5).abs() < 1e-6, "{lead}");
        likeliest(&[f32::NAN; 4], &mut top);
        assert_eq!(top, [0; 3]);
    }

    #[test]
    fn correlation_is_pearsons() {
        assert!((correlation(&[1.0, 2.0, 3.0], &[2.0, 4.0, 6.0]) - 1.0).abs() < 1e-12);
        assert!((correlation(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0]) + 1.0).abs() < 1e-12);
        assert_eq!(correlation(&[1.0, 1.0], &[2.0, 3.0]), 0.0);
    }
}
