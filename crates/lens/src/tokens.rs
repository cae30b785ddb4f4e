//! Is a later choice right more often when it settled early (METHODS: better language modelling from later tokens)?
//!
//! Among rows whose first choice is wrong: how often the k-th is right, if it settled at least `margin` layers before the end,
//! against rows where only the last layer decided it.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::saturation::Saturation;
use crate::statistics::Test;

/// One choice, early and late.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LaterChoice {
    /// Which choice, from 2.
    pub choice: usize,
    /// Rows where it settled early, and those of them where it is right.
    pub early: Share,
    /// Rows where only the last layer decided it.
    pub late: Share,
    /// Whether early is right more often.
    pub z_test: Option<Test>,
}

/// Hits among rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Share {
    /// Rows.
    pub rows: usize,
    /// Rows where the choice is what truly stands there.
    pub right: usize,
    /// Their share.
    pub share: Option<f64>,
}

/// Layers before the end that the paper calls early.
pub const MARGIN: usize = 7;

/// Judges every choice after the first. `margin` is how many layers before the end "early" is at the latest (the paper: 7);
/// half the layers where the model has no more than twice that.
///
/// # Errors
/// When no row's truth is known, or the first choice is always right.
pub fn later_choices(saturation: &Saturation, margin: usize) -> Result<Vec<LaterChoice>> {
    if margin == 0 || margin >= saturation.layers {
        let problem =
            format!("{margin}: give 1 to {}, the model's layers without the last", saturation.layers - 1);
        return Err(Error::setting("margin", problem));
    }
    if saturation.decisions.iter().all(|d| d.target.is_none()) {
        return Err(Error::NothingLeft(
            "nothing says what is right here: give text, or images with labels".to_owned(),
        ));
    }
    let wrong =
        || saturation.decisions.iter().filter(|d| d.target.is_some_and(|target| target != d.tokens[0]));
    let last = (saturation.layers - 1) as u16;
    let early = (saturation.layers - margin) as u16;
    let of = |choice: usize| {
        let share = |wanted: &dyn Fn(u16) -> bool| {
            let rows: Vec<bool> = wrong()
                .filter(|d| wanted(d.layers[choice]))
                .map(|d| d.target == Some(d.tokens[choice]))
                .collect();
            let right = rows.iter().filter(|right| **right).count();
            let share = (!rows.is_empty()).then(|| right as f64 / rows.len() as f64);
            Share { rows: rows.len(), right, share }
        };
        let (late, early) = (share(&|layer| layer == last), share(&|layer| layer <= early));
        let z_test = Test::of_shares((late.right, late.rows), (early.right, early.rows));
        LaterChoice { choice: choice + 1, early, late, z_test }
    };
    Ok((1..saturation.choices).map(of).collect())
}

/// The margin for a model of `layers` blocks.
pub fn usual_margin(layers: usize) -> usize {
    if layers > 2 * MARGIN { MARGIN } else { (layers / 2).max(1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::look::MOST_CHOICES;
    use crate::saturation::Decision;

    #[test]
    fn early_and_late_second_choices_are_counted_where_the_first_is_wrong() {
        let decision = |second_layer: u16, target| {
            let (mut layers, mut tokens) = ([0; MOST_CHOICES], [0; MOST_CHOICES]);
            (layers[1], tokens[0], tokens[1]) = (second_layer, 5, 6);
            Decision { group: 0, item: 0, row: 0, target: Some(target), layers, tokens }
        };
        let decisions = vec![
            decision(2, 6),
            decision(3, 6),
            decision(3, 8),
            decision(9, 6),
            decision(9, 9),
            decision(2, 5),
            decision(4, 6),
        ];
        let saturation = Saturation { layers: 10, choices: 2, decisions };
        let found = later_choices(&saturation, 7).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].early.rows, found[0].early.right), (3, 2));
        assert_eq!((found[0].late.rows, found[0].late.right), (2, 1));
        assert!(found[0].z_test.unwrap().statistic > 0.0);
        assert!(later_choices(&saturation, 10).is_err());
        assert_eq!([usual_margin(48), usual_margin(12), usual_margin(4)], [7, 6, 2]);
    }
}
