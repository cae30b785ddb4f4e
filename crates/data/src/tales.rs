//! Short English tales from a seeded generator: a corpus that is always at hand and whose entropy is known.
//!
//! Every tale follows one plot (a wish, a way, a find, a sum, a quarrel, a helper, peace) in freely chosen
//! words. People and things recur within a tale, sums come out right, and long words are decided by their
//! beginnings: that is what a model can learn to foresee. Which words come is drawn, and the probabilities of
//! all draws of a tale multiply to a bound on how well any model can predict it ([`Tale::chosen_bits`]).

mod plots;
mod teller;
#[rustfmt::skip]
mod words;

use rayon::prelude::*;

use crate::random::Random;
use teller::Teller;

/// One tale.
#[derive(Clone, Debug, PartialEq)]
pub struct Tale {
    /// A few hundred bytes of ASCII in four paragraphs.
    pub text: String,
    /// -log2 of the probability of all choices made for it: what the generator itself would need to encode
    /// the tale. No model does better on average, but for the few choices that give the same text.
    pub chosen_bits: f64,
}

/// Tale number `number` of a seed, the same on every platform.
pub fn tell(seed: u64, number: u64) -> Tale {
    let (text, chosen_bits) = Teller::new(Random::new(seed, number)).tell();
    Tale { text, chosen_bits }
}

/// The first tales of a seed, as many as reach `bytes` together.
pub fn tales(seed: u64, bytes: usize) -> Vec<String> {
    // Told in parallel, a batch at a time; only how many are kept depends on their lengths.
    const AT_ONCE: u64 = 1024;
    let mut tales = Vec::new();
    let mut total = 0;
    let mut number = 0;
    while total < bytes {
        let more: Vec<String> =
            (number..number + AT_ONCE).into_par_iter().map(|number| tell(seed, number).text).collect();
        number += AT_ONCE;
        for tale in more {
            if total >= bytes {
                break;
            }
            total += tale.len();
            tales.push(tale);
        }
    }
    tales
}
