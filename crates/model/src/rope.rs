//! Rotary positions: the base, the ways in which published models stretch it, and the angles that follow.

use tensor::RopeTable;

use crate::config::{DecoderConfig, Grid, MOST_CONTEXT};
use crate::error::{Error, Result};

/// Rotary position embedding: pair `i` of a head turns by `position * theta^(-2i / rotated)`, possibly rescaled.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the wavelengths.
    pub theta: f64,
    /// How the frequencies were stretched for a longer context, if they were.
    pub scaling: Option<RopeScaling>,
}

/// A rescaling of the rotary frequencies.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// Every frequency divided by `factor`.
    Linear {
        /// The stretch.
        factor: f64,
    },
    /// Stretched with the length of the text, and only beyond the model's context: within it, where everything here stays,
    /// nothing changes (transformers' `dynamic`).
    Dynamic {
        /// The stretch.
        factor: f64,
    },
    /// Llama 3.1: wavelengths beyond `original_context / low_freq_factor` are stretched by `factor`, those below
    /// `original_context / high_freq_factor` stay, between the two the frequencies are blended linearly.
    Llama3 {
        /// Stretch of the long wavelengths.
        factor: f64,
        /// Turns within the original context below which a pair is stretched in full.
        low_freq_factor: f64,
        /// Turns within the original context above which a pair is left alone.
        high_freq_factor: f64,
        /// Positions before the stretch.
        original_context: usize,
    },
    /// LongRoPE (Ding et al., 2402.13753): a factor for each pair.
    LongRope(LongRope),
}

/// Factors of LongRoPE.
///
/// A text longer than `original_context` has *all* its positions turned with the long factors. A model that reads token by token
/// cannot know; so the model's context here ends at `original_context`, within which transformers uses the short factors too.
#[derive(Clone, Debug, PartialEq)]
pub struct LongRope {
    /// Divisors of the frequencies within the original context, one for each pair.
    pub short_factor: Vec<f64>,
    /// Divisors beyond it; kept for writing the model back.
    pub long_factor: Vec<f64>,
    /// Positions up to which the short factors hold.
    pub original_context: usize,
    /// Positions that the published model has with its long factors.
    pub published_context: usize,
    /// Factor of the angles' cosines and sines, where the model states it.
    pub attention_factor: Option<f64>,
    /// Stretch from which that factor is computed otherwise, where the model states it.
    pub factor: Option<f64>,
}

impl DecoderConfig {
    /// Values of each head that turn: an even number, all of them in most families.
    pub fn rotated(&self) -> usize {
        (self.head_dim as f64 * self.variant.rotary_share) as usize
    }

    /// Cosines and sines of every position.
    pub fn rope_table(&self) -> RopeTable {
        let frequencies = self.inverse_frequencies();
        let table = match self.variant.grid {
            None => RopeTable::new(&frequencies, self.context),
            Some(Grid { start, width }) => RopeTable::of_grid(&frequencies, self.context, start, width),
        };
        table.times(self.rotary_factor())
    }

    /// Radians per position of each rotated pair, `[rotated / 2]`; in an image per row and per column, `[rotated / 4]`.
    ///
    /// Every step is rounded to f32 where transformers rounds it, because at position 100 000 a difference in the last
    /// place is already an angle of a hundredth; only the power itself is taken in f64 and rounded once.
    pub fn inverse_frequencies(&self) -> Vec<f32> {
        let rotated = self.rotated() / if self.variant.grid.is_some() { 2 } else { 1 };
        let wavelength = |pair: usize| {
            let exponent = (2 * pair) as f32 / rotated as f32;
            self.rope.theta.powf(f64::from(exponent)) as f32
        };
        let plain = |pair| 1.0 / wavelength(pair);
        let pairs = 0..rotated / 2;
        match &self.rope.scaling {
            None | Some(RopeScaling::Dynamic { .. }) => pairs.map(plain).collect(),
            Some(RopeScaling::Linear { factor }) => pairs.map(|pair| plain(pair) / *factor as f32).collect(),
            Some(RopeScaling::LongRope(long)) => {
                pairs.map(|pair| 1.0 / (long.short_factor[pair] as f32 * wavelength(pair))).collect()
            }
            &Some(RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context }) => {
                let rescale =
                    |pair| llama3(plain(pair), factor, low_freq_factor, high_freq_factor, original_context);
                pairs.map(rescale).collect()
            }
        }
    }

    /// What cosines and sines are multiplied with: 1 except in LongRoPE.
    pub fn rotary_factor(&self) -> f32 {
        match &self.rope.scaling {
            Some(RopeScaling::LongRope(long)) => long.rotary_factor() as f32,
            _ => 1.0,
        }
    }
}

impl LongRope {
    /// 2402.13753 section 3.3, as transformers computes it.
    fn rotary_factor(&self) -> f64 {
        let original = self.original_context as f64;
        let factor = self.factor.unwrap_or(self.published_context as f64 / original);
        self.attention_factor.unwrap_or(match factor <= 1.0 {
            true => 1.0,
            false => (1.0 + factor.ln() / original.ln()).sqrt(),
        })
    }
}

/// Llama 3.1, `apply_scaling` of Meta's reference code; f32 throughout as in transformers.
fn llama3(frequency: f32, factor: f64, low: f64, high: f64, original_context: usize) -> f32 {
    let context = original_context as f64;
    let wavelength = std::f64::consts::TAU as f32 / frequency;
    if wavelength > (context / low) as f32 {
        return frequency / factor as f32;
    }
    if wavelength < (context / high) as f32 {
        return frequency;
    }
    let turns = context as f32 / wavelength;
    let keep = (turns - low as f32) / (high - low) as f32;
    (1.0 - keep) * frequency / factor as f32 + keep * frequency
}

impl Rope {
    /// Refuses values that no model has. `pairs` is the number of rotated pairs of a head.
    pub(crate) fn validate(&self, pairs: usize) -> Result<()> {
        let refuse = |reason: String| Err(Error::Architecture { reason });
        if !(self.theta.is_finite() && self.theta >= 1.0) {
            return refuse(format!("rope theta is {}, it must be finite and at least 1", self.theta));
        }
        match &self.scaling {
            None => Ok(()),
            Some(RopeScaling::Linear { factor } | RopeScaling::Dynamic { factor }) => {
                if factor.is_finite() && *factor >= 1.0 {
                    return Ok(());
                }
                refuse(format!("rope scaling has factor {factor}, it must be finite and at least 1"))
            }
            &Some(RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context }) => {
                let sane = factor.is_finite()
                    && factor >= 1.0
                    && low_freq_factor > 0.0
                    && high_freq_factor > low_freq_factor
                    && high_freq_factor.is_finite()
                    && (1..=MOST_CONTEXT).contains(&original_context);
                if sane {
                    return Ok(());
                }
                refuse(format!(
                    "rope scaling has factor {factor}, low and high frequency factors {low_freq_factor} and \
                     {high_freq_factor} and original context {original_context}; it needs factor >= 1, 0 < low < high \
                     and a context from 1 to {MOST_CONTEXT}"
                ))
            }
            Some(RopeScaling::LongRope(long)) => long.validate(pairs),
        }
    }
}

impl LongRope {
    fn validate(&self, pairs: usize) -> Result<()> {
        let refuse = |reason: String| Err(Error::Architecture { reason });
        for (name, factors) in [("short_factor", &self.short_factor), ("long_factor", &self.long_factor)] {
            if factors.len() != pairs {
                return refuse(format!(
                    "rope scaling has {} values in {name}, it needs one for each of {pairs} rotated pairs",
                    factors.len()
                ));
            }
            if factors.iter().any(|factor| !(factor.is_finite() && *factor > 0.0)) {
                return refuse(format!("rope scaling has a value in {name} that is not above zero"));
            }
        }
        let contexts = 2..=MOST_CONTEXT;
        if !contexts.contains(&self.original_context) || !contexts.contains(&self.published_context) {
            return refuse(format!(
                "rope scaling stretches {} positions to {}, both must be from 2 to {MOST_CONTEXT}",
                self.original_context, self.published_context
            ));
        }
        let factor = self.rotary_factor();
        if !(factor.is_finite() && factor > 0.0) {
            return refuse(format!(
                "rope scaling has an attention factor of {factor}, it must be above zero"
            ));
        }
        Ok(())
    }
}
