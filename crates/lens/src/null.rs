//! The null model: logits that walk at random, with steps that shrink as those of the measured layers do.
//!
//! Position 1 needs one gap between logits to survive the later steps, position k two, and gaps between order statistics shrink
//! with k: order may arise without any order of work. The walk has the model's number of outputs and layers, and between
//! neighbouring layers the correlation that was measured: `z_{l+1} = r z_l + sqrt(1 - r^2) e` with normal `e`. (A walk
//! `z + s e` whose scale is taken out after each step, as a final norm does, is the same thing with `r = 1 / sqrt(1 + s^2)`.)

use rayon::prelude::*;
use tensor::random;

use crate::look::MOST_CHOICES;
use crate::saturation::{Decision, Saturation, saturation_layers};

/// Normal numbers that one simulation draws at most.
const MOST_DRAWS: usize = 150_000_000;

/// Tokens that are simulated at least, and at most.
const TOKENS: (usize, usize) = (64, 4000);

/// Purpose of the random stream of the walks.
const WALKING: u64 = 41;

/// Decisions of random walks; `likeness` are the correlations of each layer with the next.
pub fn null(likeness: &[f64], outputs: usize, choices: usize, seed: u64) -> Saturation {
    let layers = likeness.len() + 1;
    let tokens = (MOST_DRAWS / (outputs * layers).max(1)).clamp(TOKENS.0, TOKENS.1);
    let decisions =
        (0..tokens).into_par_iter().map(|token| walk(likeness, outputs, choices, seed, token)).collect();
    Saturation { layers, choices, decisions }
}

fn walk(likeness: &[f64], outputs: usize, choices: usize, seed: u64, token: usize) -> Decision {
    let mut rng = random::seeded(seed.wrapping_mul(1 << 20).wrapping_add(token as u64), WALKING);
    let mut logits = random::normal(&mut rng, outputs, 1.0);
    let mut top = leading(&logits, choices);
    for likeness in likeness {
        let kept = likeness.clamp(-1.0, 1.0) as f32;
        let step = (1.0 - kept * kept).sqrt();
        for (logit, noise) in logits.iter_mut().zip(random::normal(&mut rng, outputs, step)) {
            *logit = kept * *logit + noise;
        }
        top.extend(leading(&logits, choices));
    }
    let layers = likeness.len() + 1;
    let mut tokens = [0; MOST_CHOICES];
    tokens[..choices].copy_from_slice(&top[(layers - 1) * choices..]);
    Decision {
        group: token as u32,
        item: token as u32,
        row: 0,
        target: None,
        layers: saturation_layers(&top, layers, choices),
        tokens,
    }
}

/// Places of the largest values, the largest first.
fn leading(values: &[f32], count: usize) -> Vec<u32> {
    let mut best: Vec<(f32, u32)> = Vec::with_capacity(count + 1);
    for (place, &value) in values.iter().enumerate() {
        if best.len() < count || value > best[count - 1].0 {
            let at = best.partition_point(|(other, _)| *other >= value);
            best.insert(at, (value, place as u32));
            best.truncate(count);
        }
    }
    best.into_iter().map(|(_, place)| place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_that_stands_still_decides_at_once_and_a_wild_one_at_last() {
        let still = null(&[1.0; 5], 50, 3, 1);
        assert!(still.decisions.iter().all(|d| d.layers[..3] == [0, 0, 0]));
        let wild = null(&[0.0; 5], 500, 1, 1);
        let late = wild.decisions.iter().filter(|d| d.layers[0] == 5).count();
        assert!(late as f64 > 0.99 * wild.decisions.len() as f64);
    }

    #[test]
    fn shrinking_steps_alone_make_better_choices_settle_earlier() {
        let likeness: Vec<f64> = (1..12).map(|layer| 1.0 - 0.5f64.powi(layer)).collect();
        let walks = null(&likeness, 200, 3, 2);
        let means = walks.mean_layers();
        assert!(means[0] + 0.5 < means[1] && means[1] < means[2], "{means:?}");
        assert_eq!(walks.decisions, null(&likeness, 200, 3, 2).decisions);
    }

    #[test]
    fn the_leading_values_come_in_order() {
        assert_eq!(leading(&[0.5, 3.0, -1.0, 2.0, 3.0], 3), [1, 4, 3]);
        assert_eq!(leading(&[1.0], 3), [0]);
    }
}
