//! The layer of saturation: from which layer on the token that stands in the k-th place at the end stands there.
//!
//! `sat_k = min { l : rank_{l'}(k) = rank_{L-1}(k) for all l' in [l, L-1] }`, layers from 0. A token that is the same in all
//! layers saturates in layer 0, one that only the last layer decides in `L - 1`.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::look::{MOST_CHOICES, Seen};

/// The fewest layers in which an order of three choices can be seen before the last.
pub const LEAST_LAYERS: usize = 4;

/// What a row decided, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Which text, image or sound.
    pub group: u32,
    /// Which item.
    pub item: u32,
    /// Which row of the item.
    pub row: u32,
    /// What truly stands there.
    pub target: Option<u32>,
    /// Layers of saturation of the choices, from 0.
    pub layers: [u16; MOST_CHOICES],
    /// The choices themselves.
    pub tokens: [u32; MOST_CHOICES],
}

/// All decisions of a model on some data.
#[derive(Clone, Debug, Default)]
pub struct Saturation {
    /// Blocks of the model.
    pub layers: usize,
    /// Choices that were followed.
    pub choices: usize,
    /// One for each row.
    pub decisions: Vec<Decision>,
}

/// Layers of saturation of one row from its choices `[layers, choices]`.
pub fn saturation_layers(top: &[u32], layers: usize, choices: usize) -> [u16; MOST_CHOICES] {
    let mut found = [0; MOST_CHOICES];
    for (choice, found) in found.iter_mut().enumerate().take(choices) {
        let at = |layer: usize| top[layer * choices + choice];
        let last = at(layers - 1);
        let stays = (0..layers).rev().take_while(|layer| at(*layer) == last).count();
        *found = (layers - stays) as u16;
    }
    found
}

/// The latest layer in which the first choice of what is judged may settle: `int(share * L)`, the paper's cut with 0.85.
///
/// # Errors
/// When the share is none.
pub fn latest_layer(share: f64, layers: usize) -> Result<u16> {
    match (0.0..=1.0).contains(&share) {
        true => Ok((share * layers as f64) as u16),
        false => Err(Error::setting("cut", format!("{share}: give a share from 0 to 1"))),
    }
}

impl Saturation {
    /// Nothing seen yet.
    ///
    /// # Errors
    /// When the model has too few layers.
    pub fn new(layers: usize, choices: usize) -> Result<Self> {
        if layers < LEAST_LAYERS {
            return Err(Error::TooFewLayers { layers, what: "an order of saturation", least: LEAST_LAYERS });
        }
        Ok(Self { layers, choices, decisions: Vec::new() })
    }

    /// Takes a chunk in; gives where its decisions begin.
    pub fn add(&mut self, seen: &Seen) -> usize {
        let begin = self.decisions.len();
        for (row, place) in seen.places.iter().enumerate() {
            let top = seen.top_of(row);
            let mut tokens = [0; MOST_CHOICES];
            tokens[..self.choices].copy_from_slice(&top[(self.layers - 1) * self.choices..]);
            self.decisions.push(Decision {
                group: place.group as u32,
                item: place.item as u32,
                row: place.row as u32,
                target: place.target,
                layers: saturation_layers(top, self.layers, self.choices),
                tokens,
            });
        }
        begin
    }

    /// Decisions whose first choice settles at the latest in layer `int(share * L)`: the paper's cut with 0.85, all with 1.
    ///
    /// # Errors
    /// When the share is none, or no decision passes.
    pub fn cut(&self, share: f64) -> Result<Vec<Decision>> {
        let latest = latest_layer(share, self.layers)?;
        let kept: Vec<Decision> = self.decisions.iter().filter(|d| d.layers[0] <= latest).copied().collect();
        match kept.is_empty() {
            false => Ok(kept),
            true => Err(Error::NothingLeft(format!(
                "none of {} tokens decides its first choice by layer {latest} of {}: give a larger cut, or more data",
                self.decisions.len(),
                self.layers
            ))),
        }
    }

    /// For each choice the share of decisions that settle before the last layer.
    pub fn saturating(&self) -> Vec<f64> {
        let last = (self.layers - 1) as u16;
        let share = |choice: usize| {
            let settled = self.decisions.iter().filter(|d| d.layers[choice] < last).count();
            settled as f64 / self.decisions.len().max(1) as f64
        };
        (0..self.choices).map(share).collect()
    }

    /// Decisions by the layer in which each choice settles, `[choices][layers]`.
    pub fn histogram(&self) -> Vec<Vec<usize>> {
        let mut counts = vec![vec![0; self.layers]; self.choices];
        for decision in &self.decisions {
            for (choice, counts) in counts.iter_mut().enumerate() {
                counts[usize::from(decision.layers[choice])] += 1;
            }
        }
        counts
    }

    /// Mean layer of saturation of each choice.
    pub fn mean_layers(&self) -> Vec<f64> {
        let mean = |choice: usize| {
            let sum: u64 = self.decisions.iter().map(|d| u64::from(d.layers[choice])).sum();
            sum as f64 / self.decisions.len().max(1) as f64
        };
        (0..self.choices).map(mean).collect()
    }
}

/// How often the model is right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Accuracy {
    /// Rows whose truth is known.
    pub known: usize,
    /// Share of them whose first choice is right.
    pub first: Option<f64>,
}

impl Accuracy {
    /// Of `decisions`.
    pub fn of(decisions: &[Decision]) -> Self {
        let known = decisions.iter().filter(|d| d.target.is_some()).count();
        let right = decisions.iter().filter(|d| d.target == Some(d.tokens[0])).count();
        Self { known, first: (known > 0).then(|| right as f64 / known as f64) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_settles_where_its_token_last_arrives() {
        // Choices of five layers: the first fixed from the beginning, the second from layer 2, the third only in the last.
        let top = [7, 1, 5, 7, 2, 3, 7, 9, 4, 7, 9, 3, 7, 9, 8];
        assert_eq!(saturation_layers(&top, 5, 3)[..3], [0, 2, 4]);
        // A token that was there before, left and came back settles where it came back.
        assert_eq!(saturation_layers(&[7, 1, 7, 7], 4, 1)[0], 2);
    }

    fn saturation() -> Saturation {
        let decision = |first: u16, target| Decision {
            group: 0,
            item: 0,
            row: 0,
            target,
            layers: [first, 3, 9, 0, 0, 0, 0, 0],
            tokens: [5, 6, 7, 0, 0, 0, 0, 0],
        };
        let decisions =
            vec![decision(0, Some(5)), decision(8, Some(6)), decision(9, None), decision(9, Some(5))];
        Saturation { layers: 10, choices: 3, decisions }
    }

    #[test]
    fn the_cut_counts_layers_as_the_paper_does() {
        let saturation = saturation();
        assert_eq!(saturation.cut(0.85).unwrap().len(), 2);
        assert_eq!(saturation.cut(0.7).unwrap().len(), 1);
        assert_eq!(saturation.cut(1.0).unwrap().len(), 4);
        assert!(saturation.cut(1.5).is_err());
        let late = Saturation { decisions: saturation.decisions[2..].to_vec(), ..saturation };
        let message = late.cut(0.85).unwrap_err().to_string();
        assert!(message.contains("none of 2 tokens") && message.contains("layer 8 of 10"), "{message}");
    }

    #[test]
    fn shares_and_histograms_count_what_settled() {
        let saturation = saturation();
        assert_eq!(saturation.saturating(), [0.5, 1.0, 0.0]);
        assert_eq!(saturation.histogram()[0], [1, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(saturation.mean_layers(), [6.5, 3.0, 9.0]);
        assert_eq!(Accuracy::of(&saturation.decisions), Accuracy { known: 3, first: Some(2.0 / 3.0) });
        assert!(Saturation::new(3, 5).is_err());
    }
}
