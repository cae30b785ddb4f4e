//! Which documents are held out: whole documents, so that no part of one helps to predict another part of it.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::random::Random;

/// How documents are chosen to be held out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SplitRule {
    /// A seeded choice from everywhere.
    Random {
        /// Share of the documents, between 0 and 1.
        fraction: f64,
        /// Chooses which.
        seed: u64,
    },
    /// The last ones in order, such as the last fifth.
    LastFraction {
        /// Share of the documents, between 0 and 1.
        fraction: f64,
    },
}

impl SplitRule {
    /// Indices of the training documents and of the held-out ones, each in order, at least one of either.
    ///
    /// # Errors
    ///
    /// If there are fewer than two documents or the fraction is not between 0 and 1.
    pub fn apply(&self, documents: usize) -> Result<(Vec<usize>, Vec<usize>)> {
        let (Self::Random { fraction, .. } | Self::LastFraction { fraction }) = *self;
        if !(fraction > 0.0 && fraction < 1.0) {
            return Err(Error::Setting(format!(
                "the held-out fraction must be between 0 and 1, not {fraction}"
            )));
        }
        if documents < 2 {
            return Err(Error::TooFewDocuments { documents });
        }
        let held_out = ((documents as f64 * fraction).round() as usize).clamp(1, documents - 1);
        let mut order: Vec<usize> = (0..documents).collect();
        if let Self::Random { seed, .. } = *self {
            Random::new(seed, SPLIT_STREAM).shuffle(&mut order);
        }
        let mut held = order.split_off(documents - held_out);
        order.sort_unstable();
        held.sort_unstable();
        Ok((order, held))
    }
}

/// The random stream of the split: none that the loader uses for its epochs, which count from 0.
const SPLIT_STREAM: u64 = u64::MAX;

/// [`SplitRule::Random`] in one call: indices of the training and of the held-out documents.
///
/// # Errors
///
/// As [`SplitRule::apply`].
pub fn split(documents: usize, fraction: f64, seed: u64) -> Result<(Vec<usize>, Vec<usize>)> {
    SplitRule::Random { fraction, seed }.apply(documents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_document_is_on_exactly_one_side() {
        for documents in [2, 3, 10, 101] {
            for fraction in [0.001, 0.05, 0.5, 0.999] {
                let (train, held_out) = split(documents, fraction, 4).unwrap();
                assert!(!train.is_empty() && !held_out.is_empty());
                let mut all = [train, held_out].concat();
                all.sort_unstable();
                assert_eq!(all, (0..documents).collect::<Vec<_>>());
            }
        }
        assert_eq!(split(1000, 0.05, 1).unwrap().1.len(), 50);
    }

    #[test]
    fn the_seed_decides_and_repeats() {
        assert_eq!(split(100, 0.1, 1).unwrap(), split(100, 0.1, 1).unwrap());
        assert_ne!(split(100, 0.1, 1).unwrap(), split(100, 0.1, 2).unwrap());
    }

    #[test]
    fn the_last_fraction_is_the_end() {
        let (train, held_out) = SplitRule::LastFraction { fraction: 0.2 }.apply(10).unwrap();
        assert_eq!(train, (0..8).collect::<Vec<_>>());
        assert_eq!(held_out, [8, 9]);
    }

    #[test]
    fn what_cannot_be_split_is_refused() {
        assert!(split(1, 0.1, 0).unwrap_err().to_string().contains("1 document"));
        for fraction in [0.0, 1.0, -1.0, f64::NAN] {
            assert!(split(10, fraction, 0).is_err());
        }
    }
}
