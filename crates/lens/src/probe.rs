//! The task probe: does a state say on which choice the model works?
//!
//! Class `i` (from 0) of a token gets its states after the layers `max(first, sat_{i-1} + 1) ..= sat_i`, none if
//! `sat_i <= first`. Within each layer classes are cut to the smallest, so that the layer alone says nothing; layers with fewer
//! than five of the smallest are left out. Folds keep a text together: neighbouring layers of one token would else stand on both
//! sides. Folds of shuffled states, as in the paper, stand beside them for comparison.

use std::path::Path;

use data::digest::Digest;
use model::taps::Taps;
use serde::{Deserialize, Serialize};
use tensor::random::{self, Seeded};

use crate::error::{Error, Result};
use crate::logistic::Logistic;
use crate::look::Seen;
use crate::saturation::Decision;

/// Fewer states of the smallest class are too few to judge a layer.
const LEAST: usize = 5;

/// Folds of the cross-validation.
pub const FOLDS: usize = 5;

/// Values of all kept states together, at most.
const MOST_VALUES: usize = 48 << 20;

/// States of one class in one layer, at most.
const MOST_STATES: usize = 400;

/// Purpose of the random stream that keeps states, and of that of folds and noise.
const KEEPING: u64 = 43;
const FOLDING: u64 = 44;

/// The layer from which states are taken: the paper's 5 of 48 layers, less in shallow models.
pub fn usual_first_layer(layers: usize) -> usize {
    (layers / 8).min(5)
}

/// States of all classes and layers, a bounded sample.
pub struct Sample {
    layers: usize,
    classes: usize,
    width: usize,
    first: usize,
    most: usize,
    /// `[layers * classes]`
    cells: Vec<Cell>,
    rng: Seeded,
}

#[derive(Default)]
struct Cell {
    seen: usize,
    /// `[kept, width]`
    states: Vec<f32>,
    groups: Vec<u32>,
}

impl Sample {
    /// Nothing kept yet.
    pub fn new(layers: usize, classes: usize, width: usize, first: usize, seed: u64) -> Self {
        let most = (MOST_VALUES / (layers * classes * width).max(1)).clamp(LEAST, MOST_STATES);
        let cells = (0..layers * classes).map(|_| Cell::default()).collect();
        Self { layers, classes, width, first, most, cells, rng: random::seeded(seed, KEEPING) }
    }

    /// Takes a chunk in, whose decisions these are, in order; those with a first choice later than layer `latest` are left out.
    pub fn add(&mut self, seen: &Seen, decisions: &[Decision], latest: u16) {
        for (row, decision) in decisions.iter().enumerate().filter(|(_, d)| d.layers[0] <= latest) {
            for class in 0..self.classes {
                let last = usize::from(decision.layers[class]);
                if last <= self.first {
                    continue;
                }
                let begin = match class {
                    0 => self.first,
                    _ => self.first.max(usize::from(decision.layers[class - 1]) + 1),
                };
                for layer in begin..=last {
                    self.keep(layer, class, seen.state(layer, row), decision.group);
                }
            }
        }
    }

    /// Keeps a state, or lets it take the place of another, so that all are kept with the same probability (Vitter's R).
    fn keep(&mut self, layer: usize, class: usize, state: &[f32], group: u32) {
        let cell = &mut self.cells[layer * self.classes + class];
        cell.seen += 1;
        if cell.groups.len() < self.most {
            cell.states.extend_from_slice(state);
            cell.groups.push(group);
            return;
        }
        let place = (f64::from(random::uniform(&mut self.rng)) * cell.seen as f64) as usize;
        if place < self.most {
            cell.states[place * self.width..(place + 1) * self.width].copy_from_slice(state);
            cell.groups[place] = group;
        }
    }

    /// The states, classes balanced within each layer.
    ///
    /// # Errors
    /// When no layer has enough of every class, or the states come from fewer texts than there are folds.
    pub fn balanced(&self) -> Result<Balanced> {
        let mut balanced = Balanced {
            width: self.width,
            layers: self.layers,
            classes: self.classes,
            first: self.first,
            rows: Vec::new(),
            labels: Vec::new(),
            at_layer: Vec::new(),
            groups: Vec::new(),
        };
        for layer in 0..self.layers {
            let cells = &self.cells[layer * self.classes..(layer + 1) * self.classes];
            let least = cells.iter().map(|cell| cell.groups.len()).min().unwrap_or(0);
            if least < LEAST {
                continue;
            }
            for (class, cell) in cells.iter().enumerate() {
                balanced.rows.extend_from_slice(&cell.states[..least * self.width]);
                balanced.labels.extend(vec![class as u8; least]);
                balanced.at_layer.extend(vec![layer; least]);
                balanced.groups.extend_from_slice(&cell.groups[..least]);
            }
        }
        if balanced.labels.is_empty() {
            return Err(Error::NothingLeft(format!(
                "no layer has {LEAST} states of each of {} tasks: look at more tokens, or follow fewer choices (-k)",
                self.classes
            )));
        }
        let mut groups = balanced.groups.clone();
        groups.sort_unstable();
        groups.dedup();
        if groups.len() < FOLDS {
            return Err(Error::NothingLeft(format!(
                "the states come from {} texts, folds by text need {FOLDS}: give more texts",
                groups.len()
            )));
        }
        Ok(balanced)
    }
}

/// States with their classes, as many of each class in each layer.
pub struct Balanced {
    width: usize,
    layers: usize,
    classes: usize,
    first: usize,
    /// `[states, width]`
    rows: Vec<f32>,
    labels: Vec<u8>,
    at_layer: Vec<usize>,
    groups: Vec<u32>,
}

/// How well classes are told apart, by cross-validation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Judgement {
    /// Mean of the classes' accuracies.
    pub balanced_accuracy: f64,
    /// Share of each class that is recognised.
    pub class_accuracy: Vec<f64>,
    /// Area under the curve of each class against the rest.
    pub auc: Vec<f64>,
    /// Counts, `[true class][predicted class]`.
    pub confusion: Vec<Vec<usize>>,
}

/// A probe and its controls.
#[derive(Clone, Debug, Serialize)]
pub struct Probed {
    /// States.
    pub states: usize,
    /// Layers that have enough of every class.
    pub layers: Vec<usize>,
    /// Texts that they come from.
    pub texts: usize,
    /// What guessing gives.
    pub chance: f64,
    /// Folds by text.
    pub grouped: Judgement,
    /// Folds of shuffled states, as in the paper.
    pub shuffled: Judgement,
    /// Normal noise with each class's mean and deviation, folds by text.
    pub noise: Judgement,
    /// The layer alone, folds by text.
    pub layer_only: Judgement,
}

impl Balanced {
    /// Cross-validates the probe and its controls.
    pub fn judge(&self, seed: u64) -> Probed {
        let mut rng = random::seeded(seed, FOLDING);
        let by_text = self.folds_by_text(&mut rng);
        let shuffled: Vec<usize> = {
            let mut order: Vec<usize> = (0..self.labels.len()).collect();
            shuffle(&mut order, &mut rng);
            let mut folds = vec![0; order.len()];
            order.iter().enumerate().for_each(|(place, state)| folds[*state] = place % FOLDS);
            folds
        };
        let noise = self.noise(&mut rng);
        let one_hot: Vec<f32> = self
            .at_layer
            .iter()
            .flat_map(|at| (0..self.layers).map(move |layer| f32::from(u8::from(layer == *at))))
            .collect();
        let (mut layers, mut texts) = (self.at_layer.clone(), self.groups.clone());
        layers.dedup();
        texts.sort_unstable();
        texts.dedup();
        Probed {
            states: self.labels.len(),
            layers,
            texts: texts.len(),
            chance: 1.0 / self.classes as f64,
            grouped: self.validate(&self.rows, self.width, &by_text),
            shuffled: self.validate(&self.rows, self.width, &shuffled),
            noise: self.validate(&noise, self.width, &by_text),
            layer_only: self.validate(&one_hot, self.layers, &by_text),
        }
    }

    /// The probe fitted to all states.
    pub fn fit(&self, model: &dyn Taps) -> Probe {
        Probe {
            fingerprint: fingerprint(model),
            layers: self.layers,
            first: self.first,
            regression: Logistic::fit(&self.rows, self.width, &self.labels, self.classes),
        }
    }

    /// A fold for each state, the same for all of a text.
    fn folds_by_text(&self, rng: &mut Seeded) -> Vec<usize> {
        let mut texts = self.groups.clone();
        texts.sort_unstable();
        texts.dedup();
        let sorted = texts.clone();
        shuffle(&mut texts, rng);
        let mut folds = vec![0; sorted.len()];
        for (place, text) in texts.iter().enumerate() {
            folds[sorted.binary_search(text).unwrap_or(0)] = place % FOLDS;
        }
        self.groups.iter().map(|group| folds[sorted.binary_search(group).unwrap_or(0)]).collect()
    }

    /// Normal features with the scalar mean and deviation of each class's states.
    fn noise(&self, rng: &mut Seeded) -> Vec<f32> {
        let moments: Vec<(f32, f32)> = (0..self.classes)
            .map(|class| {
                let of_class = self.rows.chunks_exact(self.width).zip(&self.labels);
                let values =
                    of_class.filter(|(_, label)| usize::from(**label) == class).flat_map(|(row, _)| row);
                let (mut count, mut sum, mut squares) = (0f64, 0f64, 0f64);
                for value in values {
                    count += 1.0;
                    sum += f64::from(*value);
                    squares += f64::from(*value).powi(2);
                }
                let mean = sum / count.max(1.0);
                (mean as f32, (squares / count.max(1.0) - mean * mean).max(0.0).sqrt() as f32)
            })
            .collect();
        let mut noise = Vec::with_capacity(self.rows.len());
        for label in &self.labels {
            let (mean, deviation) = moments[usize::from(*label)];
            noise.extend(random::normal(rng, self.width, deviation).into_iter().map(|value| value + mean));
        }
        noise
    }

    fn validate(&self, rows: &[f32], width: usize, folds: &[usize]) -> Judgement {
        let mut scores = vec![0.0; self.labels.len() * self.classes];
        for fold in 0..FOLDS {
            let (mut train, mut labels) = (Vec::new(), Vec::new());
            for (state, row) in
                rows.chunks_exact(width).enumerate().filter(|(state, _)| folds[*state] != fold)
            {
                train.extend_from_slice(row);
                labels.push(self.labels[state]);
            }
            let fitted = Logistic::fit(&train, width, &labels, self.classes);
            for (state, row) in
                rows.chunks_exact(width).enumerate().filter(|(state, _)| folds[*state] == fold)
            {
                let place = state * self.classes;
                scores[place..place + self.classes].copy_from_slice(&fitted.scores(row));
            }
        }
        judgement(&scores, &self.labels, self.classes)
    }
}

fn judgement(scores: &[f32], labels: &[u8], classes: usize) -> Judgement {
    let mut confusion = vec![vec![0; classes]; classes];
    for (scores, label) in scores.chunks_exact(classes).zip(labels) {
        confusion[usize::from(*label)][kernels::argmax::argmax(scores)] += 1;
    }
    let class_accuracy: Vec<f64> = confusion
        .iter()
        .enumerate()
        .map(|(class, row)| row[class] as f64 / row.iter().sum::<usize>().max(1) as f64)
        .collect();
    let auc = (0..classes)
        .map(|class| {
            let scores: Vec<f32> = scores.chunks_exact(classes).map(|scores| scores[class]).collect();
            let positive: Vec<bool> = labels.iter().map(|label| usize::from(*label) == class).collect();
            area(&scores, &positive)
        })
        .collect();
    let balanced_accuracy = class_accuracy.iter().sum::<f64>() / classes as f64;
    Judgement { balanced_accuracy, class_accuracy, auc, confusion }
}

/// Probability that a positive scores above a negative, ties counting half.
fn area(scores: &[f32], positive: &[bool]) -> f64 {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*a].total_cmp(&scores[*b]));
    let (mut below, mut sum) = (0usize, 0f64);
    for equal in order.chunk_by(|a, b| scores[*a] == scores[*b]) {
        let hits = equal.iter().filter(|place| positive[**place]).count();
        sum += hits as f64 * (below as f64 + 0.5 * (equal.len() - hits) as f64);
        below += equal.len() - hits;
    }
    let hits = positive.iter().filter(|positive| **positive).count();
    if hits == 0 || below == 0 { 0.5 } else { sum / (hits * below) as f64 }
}

fn shuffle<T>(values: &mut [T], rng: &mut Seeded) {
    for place in (1..values.len()).rev() {
        let other = (f64::from(random::uniform(rng)) * (place + 1) as f64) as usize;
        values.swap(place, other.min(place));
    }
}

/// A fitted probe, as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// Which model it belongs to.
    fingerprint: String,
    /// Blocks of that model.
    pub layers: usize,
    /// The first layer that it knows.
    pub first: usize,
    /// From a state to the task, class 0 being the first choice.
    pub regression: Logistic,
}

impl Probe {
    /// Writes it as JSON.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, file: &Path) -> Result<()> {
        let json = serde_json::to_vec(self).map_err(|error| Error::file(file, error.to_string()))?;
        Ok(data::write_whole(file, &json)?)
    }

    /// Reads a probe of `model`.
    ///
    /// # Errors
    /// When the file is no probe, or one of another model.
    pub fn load(file: &Path, model: &dyn Taps) -> Result<Self> {
        if !model::checkpoint::present(file)? {
            return Err(Error::file(file, "no such file"));
        }
        let probe: Self = serde_json::from_slice(&fs_err::read(file)?)
            .map_err(|error| Error::file(file, format!("no probe of `sakiyomi lens probe` ({error})")))?;
        let width = model.sizes().width;
        let regression = &probe.regression;
        let fits = regression.mean.len() == width
            && regression.deviation.len() == width
            && regression.bias.len() == regression.weights.len()
            && regression.weights.len() > 1
            && regression.weights.iter().all(|row| row.len() == width);
        match probe.fingerprint == fingerprint(model) && fits {
            true => Ok(probe),
            false => Err(Error::file(
                file,
                "this probe was made for another model; make one with `sakiyomi lens probe`",
            )),
        }
    }

    /// Whether the state says that the first choice is settled: the model works on a later one.
    pub fn settled(&self, layer: usize, state: &[f32]) -> bool {
        layer >= self.first && self.regression.class(state) > 0
    }
}

/// Sizes of a model and a digest of its parameters.
pub fn fingerprint(model: &dyn Taps) -> String {
    let sizes = model.sizes();
    let mut digest = Digest::new();
    let mut bytes = Vec::new();
    for (_, param) in model.params().iter() {
        digest.text(&param.name);
        for values in param.data.chunks(DIGESTED_VALUES) {
            bytes.clear();
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            digest.bytes(&bytes);
        }
    }
    format!("{}x{}x{}:{}", sizes.layers, sizes.width, sizes.outputs, digest.hex())
}

/// Values that go into a digest at once.
const DIGESTED_VALUES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    /// States of `texts` texts: the first value tells the task, the second the layer, the third the text.
    fn sample(texts: usize, tell: f32) -> Sample {
        let mut sample = Sample::new(6, 2, 3, 1, 1);
        let mut rng = random::seeded(9, 1);
        for place in 0..400 {
            let group = (place % texts) as u32;
            for layer in 1..6 {
                for class in 0..2 {
                    let noise = random::normal(&mut rng, 3, 0.5);
                    let state =
                        [tell * class as f32 + noise[0], layer as f32 + noise[1], group as f32 + noise[2]];
                    sample.keep(layer, class, &state, group);
                }
            }
        }
        sample
    }

    #[test]
    fn a_task_that_states_tell_is_found_and_controls_find_nothing() {
        let probed = sample(20, 4.0).balanced().unwrap().judge(1);
        assert!(probed.grouped.balanced_accuracy > 0.97 && probed.grouped.auc[0] > 0.99, "{probed:?}");
        assert!(probed.shuffled.balanced_accuracy > 0.97);
        assert!((probed.layer_only.balanced_accuracy - 0.5).abs() < 0.06, "{:?}", probed.layer_only);
        assert_eq!(probed.grouped.confusion.iter().flatten().sum::<usize>(), probed.states);
        let nothing = sample(20, 0.0).balanced().unwrap().judge(1);
        assert!((nothing.grouped.balanced_accuracy - 0.5).abs() < 0.06, "{:?}", nothing.grouped);
    }

    #[test]
    fn a_probe_knows_its_model_by_every_weight() {
        let mut config = model::presets::preset("1M", 43).unwrap();
        (config.width, config.head_dim, config.ffn, config.layers) = (32, 8, 64, 6);
        let (decoder, params) = model::Decoder::initialise(&config, 5).unwrap();
        let mut model = model::taps::DecoderTaps { decoder, params };
        let sample = {
            let mut sample = Sample::new(6, 2, 32, 1, 1);
            let mut rng = random::seeded(9, 1);
            for place in 0..40 {
                sample.keep(3, place % 2, &random::normal(&mut rng, 32, 1.0), place as u32);
            }
            sample
        };
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("probe.json");
        let probe = sample.balanced().unwrap().fit(&model);
        probe.save(&file).unwrap();
        assert_eq!(Probe::load(&file, &model).unwrap(), probe);
        // One value of one block: the read-out is the same.
        let within = model.decoder.blocks[2].linear_groups().into_iter().flatten().next().unwrap().weight;
        model.params.data_mut(within)[7] += 1.0;
        let message = Probe::load(&file, &model).unwrap_err().to_string();
        assert!(message.contains("probe.json") && message.contains("made for another model"), "{message}");
    }

    #[test]
    fn too_little_is_said() {
        let message = Sample::new(6, 2, 3, 1, 1).balanced().err().unwrap().to_string();
        assert!(message.contains("no layer has 5 states of each of 2 tasks"), "{message}");
        let message = sample(3, 1.0).balanced().err().unwrap().to_string();
        assert!(message.contains("come from 3 texts"), "{message}");
    }

    #[test]
    fn areas_count_ties_half() {
        assert_eq!(area(&[0.1, 0.2, 0.3, 0.4], &[false, false, true, true]), 1.0);
        assert_eq!(area(&[0.5; 4], &[false, true, false, true]), 0.5);
        assert_eq!(area(&[0.3, 0.2], &[false, true]), 0.0);
    }

    #[test]
    fn a_bounded_sample_keeps_early_and_late_alike() {
        let mut sample = Sample::new(1, 1, 1, 0, 1);
        (0..40_000).for_each(|place| sample.keep(0, 0, &[place as f32], place));
        let kept = &sample.cells[0].groups;
        assert_eq!(kept.len(), MOST_STATES);
        let late = kept.iter().filter(|group| **group >= 20_000).count();
        assert!((150..=250).contains(&late), "{late}");
    }
}
