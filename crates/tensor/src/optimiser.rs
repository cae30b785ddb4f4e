//! AdamW over all trainable parameters, or Muon over the matrices among them, with a state that can be saved.

use kernels::adamw::AdamW;
use kernels::muon::Muon;

use crate::{Gradients, Param, ParamId, Params};

/// Which parameters weight decay applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decay {
    /// Matrices only: gains and biases are left alone.
    Matrices,
    /// Every trainable parameter, as `torch.optim.AdamW` does by default.
    All,
}

/// How parameters are updated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// All of them but those that are Muon's.
    pub adamw: AdamW,
    /// Those that [`Optimiser::with_muon`] chose.
    pub muon: Muon,
}

/// Where Muon has nothing.
impl From<AdamW> for Rules {
    fn from(adamw: AdamW) -> Self {
        Self { adamw, muon: Muon::default() }
    }
}

/// First and second moments of every trainable parameter, and the number of updates made.
///
/// Each parameter counts its own updates: a head that joins late has moments that start at zero then, and they are
/// corrected for that (`torch.optim.AdamW` keeps its step per parameter as well).
#[derive(Debug)]
pub struct Optimiser {
    decay: Decay,
    step: u64,
    updates: Vec<u64>,
    first: Vec<Option<Vec<f32>>>,
    /// Empty for what is Muon's.
    second: Vec<Option<Vec<f32>>>,
    muon: Vec<bool>,
}

impl Optimiser {
    /// Zero moments for every parameter of `params` that is trainable now.
    pub fn new(params: &Params, decay: Decay) -> Self {
        let zeros = || params.iter().map(|(_, p)| p.trainable.then(|| vec![0.0; p.data.len()])).collect();
        Self {
            decay,
            step: 0,
            updates: vec![0; params.len()],
            first: zeros(),
            second: zeros(),
            muon: vec![false; params.len()],
        }
    }

    /// Muon updates the matrices that `chosen` says yes to; it keeps one moment.
    #[must_use]
    pub fn with_muon(mut self, params: &Params, chosen: impl Fn(&Param) -> bool) -> Self {
        for (id, _) in params.iter().filter(|(_, param)| param.shape.len() == 2 && chosen(param)) {
            self.muon[id.index()] = true;
            self.second[id.index()].iter_mut().for_each(|second| *second = Vec::new());
        }
        self
    }

    /// Updates made so far.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// One update. `gradient_scale` multiplies every gradient (clipping). A parameter that no gradient reached stays as it is,
    /// like its moments.
    pub fn update(
        &mut self,
        params: &mut Params,
        gradients: &Gradients,
        rules: impl Into<Rules>,
        gradient_scale: f32,
    ) {
        let rules = rules.into();
        self.step += 1;
        let ids: Vec<ParamId> = params.iter().map(|(id, _)| id).collect();
        for id in ids {
            let (Some(first), Some(second)) = (&mut self.first[id.index()], &mut self.second[id.index()])
            else {
                continue;
            };
            let Some(gradient) = gradients.get(id) else { continue };
            let updates = &mut self.updates[id.index()];
            *updates += 1;
            let shape = &params.get(id).shape;
            if self.muon[id.index()] {
                let shape = [shape[0], shape[1]];
                rules.muon.step(shape, params.data_mut(id), gradient, first, gradient_scale);
                continue;
            }
            let decays = shape.len() >= 2 || self.decay == Decay::All;
            let weight_decay = if decays { rules.adamw.weight_decay } else { 0.0 };
            let rule = AdamW { weight_decay, ..rules.adamw };
            rule.step(*updates, params.data_mut(id), gradient, first, second, gradient_scale);
        }
    }

    /// First and second moments of `id`, the second empty if it is Muon's; `None` if it is frozen.
    pub fn moments(&self, id: ParamId) -> Option<(&[f32], &[f32])> {
        Some((self.first[id.index()].as_deref()?, self.second[id.index()].as_deref()?))
    }

    /// How many of the updates reached `id`.
    pub fn updates(&self, id: ParamId) -> u64 {
        self.updates[id.index()]
    }

    /// Puts back what [`Self::moments`] and [`Self::updates`] gave.
    ///
    /// # Panics
    /// When `id` is frozen or the lengths disagree.
    pub fn restore_moments(&mut self, id: ParamId, first: &[f32], second: &[f32], updates: u64) {
        self.updates[id.index()] = updates;
        self.first[id.index()].as_mut().expect("a trainable parameter").copy_from_slice(first);
        self.second[id.index()].as_mut().expect("a trainable parameter").copy_from_slice(second);
    }

    /// Puts back the number of updates made.
    pub fn restore_steps(&mut self, step: u64) {
        self.step = step;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With no epsilon the first update of a parameter has the size of the learning rate, whatever the gradient.
    #[test]
    fn a_parameter_that_joins_late_begins_like_one_that_was_there() {
        let mut params = Params::default();
        let [early, late] = ["early", "late"].map(|name| params.add(name, &[1], vec![0.0]));
        let rule = AdamW { learning_rate: 0.1, epsilon: 0.0, weight_decay: 0.0, ..AdamW::default() };
        let mut optimiser = Optimiser::new(&params, Decay::Matrices);
        let mut gradients = Gradients::new(&params);
        let mut update = |params: &mut Params, ids: &[ParamId]| {
            gradients.clear();
            ids.iter().for_each(|&id| gradients.adding_slot(id).unwrap().fill(3.0));
            optimiser.update(params, &gradients, rule, 1.0);
        };
        update(&mut params, &[early]);
        update(&mut params, &[early]);
        assert_eq!(params.data(late), [0.0]);
        update(&mut params, &[early, late]);
        assert!((params.data(late)[0] + 0.1).abs() < 1e-6, "{:?}", params.data(late));
        assert!((params.data(early)[0] + 0.3).abs() < 1e-6, "{:?}", params.data(early));
        assert_eq!((optimiser.steps(), optimiser.updates(early), optimiser.updates(late)), (3, 3, 1));
    }

    #[test]
    fn muon_takes_the_matrices_it_is_given_and_adamw_the_others() {
        let mut params = Params::default();
        let ids = ["map", "table", "gain"].map(|name| {
            let shape: &[usize] = if name == "gain" { &[2] } else { &[1, 2] };
            params.add(name, shape, vec![0.0; 2])
        });
        let mut optimiser =
            Optimiser::new(&params, Decay::All).with_muon(&params, |param| param.name != "table");
        let mut gradients = Gradients::new(&params);
        ids.iter().for_each(|&id| gradients.adding_slot(id).unwrap().copy_from_slice(&[3.0, 4.0]));
        let adamw = AdamW { learning_rate: 0.1, epsilon: 0.0, ..AdamW::default() };
        optimiser.update(&mut params, &gradients, adamw, 1.0);
        let [map, table, gain] = ids.map(|id| params.data(id));
        assert!((map[1] / map[0] - 4.0 / 3.0).abs() < 1e-3, "along the gradient: {map:?}");
        for element in [table, gain].concat() {
            assert!((element + 0.1).abs() < 1e-6, "by the learning rate, whatever the gradient: {element}");
        }
        let seconds = ids.map(|id| optimiser.moments(id).unwrap().1.len());
        assert_eq!(seconds, [0, 2, 2]);
    }
}
