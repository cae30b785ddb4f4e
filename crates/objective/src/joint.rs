//! Joint heads: a distribution of the next n tokens together, of rank r (Basharin et al. 2410.17765), where parallel heads have
//! one for each token alone.
//!
//! From the final state z of the model, place s in state a has the distribution `softmax(U norm(W_(s,a) z))` with the model's own
//! norm and unembedding, and a gate on `norm(z)` gives the weights of the [`circuit`](mod@circuit) that joins the places. With
//! r = 1 there is no gate, place 1 is the model itself, and the rest are linear parallel heads.
//!
//! The model's own next token is trained beside the joint distribution (where the model is trained at all) and stays what decides:
//! drafts of every rank are verified against the same target, and a checkpoint without its joint heads is the same plain model.
//! The joint's own first-token marginal is a loss of its own.

mod attach;
mod circuit;
mod distilling;
mod drafting;
mod training;

use data::Batch;
use model::Decoder;
use serde::{Deserialize, Serialize};
use tensor::{Linear, LossSum, ParamId, Tape, Var};

use crate::heads::LARGEST_N;
use crate::loss::loss_through_states;
use crate::{Drafter, Error, Objective, OnStates, Result, Window};
use circuit::Circuit;

/// How the places are joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JointKind {
    /// A sum over r states of a product over the places (canonical polyadic).
    #[default]
    Cp,
    /// A binary tree of mixtures: better where n is large.
    Tree,
}

/// What the maps of the components begin as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JointStart {
    /// The identity and a little noise: every component begins near the model's own next token.
    #[default]
    Identity,
    /// Random.
    Random,
}

/// From which positions the joint distribution is learnt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JointWindows {
    /// Every one that has a next token.
    #[default]
    All,
    /// The first of each document, or of its part in a row: windows do not overlap.
    First,
}

/// Which weights the balancing loss evens out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BalanceOn {
    /// Those that the gate gives before a token is seen.
    #[default]
    Weights,
    /// Those after all tokens of the window were seen.
    Responsibilities,
}

/// Settings of joint heads, as they stand in `mtp.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JointSpec {
    /// Tokens predicted together from one position, the next token included.
    pub n: usize,
    /// States of each region: components of the mixture.
    pub rank: usize,
    /// How the places are joined.
    pub kind: JointKind,
    /// What the maps begin as.
    #[serde(default)]
    pub start: JointStart,
    /// Weight of the loss at each depth; empty means 1 for each. With equal weights the loss is that of the joint.
    #[serde(default)]
    pub weights: Vec<f32>,
    /// From which positions it is learnt.
    #[serde(default)]
    pub windows: JointWindows,
    /// Coefficient of the balancing loss `r * sum over a of f_a P_a` (Fedus et al. 2101.03961, eq. 4); 0 switches it off.
    #[serde(default)]
    pub balance: f32,
    /// Which weights it evens out.
    #[serde(default)]
    pub balance_on: BalanceOn,
    /// Share of the loss that is the divergence from the model's own distribution of each token, in place of the text; 0: none.
    #[serde(default)]
    pub distill: f32,
}

/// A larger rank is a mistake: the largest published is 128.
pub const LARGEST_RANK: usize = 256;

impl JointSpec {
    /// With the usual settings for the rest.
    pub fn new(kind: JointKind, n: usize, rank: usize) -> Self {
        Self {
            n,
            rank,
            kind,
            start: JointStart::default(),
            weights: Vec::new(),
            windows: JointWindows::default(),
            balance: 0.0,
            balance_on: BalanceOn::default(),
            distill: 0.0,
        }
    }

    /// Refuses settings that cannot work.
    ///
    /// # Errors
    ///
    /// Naming the setting.
    pub fn validate(&self) -> Result<()> {
        let refuse = |setting, problem: String| Err(Error::Setting { setting, problem });
        if self.n == 0 || self.n > LARGEST_N {
            return refuse("n", format!("is {}: give 1 to {LARGEST_N} tokens", self.n));
        }
        if self.rank == 0 || self.rank > LARGEST_RANK {
            return refuse("rank", format!("is {}: give 1 to {LARGEST_RANK}", self.rank));
        }
        if !self.weights.is_empty() && self.weights.len() != self.n {
            let problem =
                format!("{} weights for {} depths: give one for each, or none", self.weights.len(), self.n);
            return refuse("weights", problem);
        }
        if self.weights.iter().any(|weight| !weight.is_finite() || *weight < 0.0) {
            return refuse("weights", "a weight is negative or not finite".to_owned());
        }
        if !(self.balance.is_finite() && self.balance >= 0.0) {
            return refuse("balance", format!("is {}: give 0 or more", self.balance));
        }
        if !(0.0..=1.0).contains(&self.distill) {
            return refuse("distill", format!("is {}: give a share from 0 to 1", self.distill));
        }
        Ok(())
    }

    /// Weight of the loss at `depth`, from 1.
    fn weight(&self, depth: usize) -> f32 {
        self.weights.get(depth - 1).copied().unwrap_or(1.0)
    }
}

/// Joint heads on one decoder.
#[derive(Clone, Debug)]
pub struct JointHeads {
    spec: JointSpec,
    circuit: Circuit,
    /// `[place, rank]`; the first place has none at rank 1, where it is the model itself.
    maps: Vec<Vec<Linear>>,
    /// None at rank 1.
    gate: Option<Linear>,
    parameters: Vec<ParamId>,
    layers: usize,
}

impl JointHeads {
    /// Its settings.
    pub fn spec(&self) -> &JointSpec {
        &self.spec
    }

    /// Its losses: the model's own next token, then each depth given the tokens before it.
    fn losses(&self) -> usize {
        1 + self.spec.n
    }

    /// Whether places have components that a gate weighs.
    fn mixes(&self) -> bool {
        self.spec.rank > 1
    }
}

impl Objective for JointHeads {
    fn kind(&self) -> &'static str {
        "joint"
    }

    fn depths(&self) -> usize {
        self.losses()
    }

    fn tokens_ahead(&self) -> Vec<usize> {
        [1].into_iter().chain(1..=self.spec.n).collect()
    }

    fn lookahead(&self) -> usize {
        self.spec.n
    }

    fn parameters(&self) -> &[ParamId] {
        &self.parameters
    }

    fn window(&self, batches: &[Batch], depths: usize) -> Window {
        let first = |batch: &Batch, ahead: usize| -> usize {
            let begins = batch.positions.iter().enumerate().filter(|(_, position)| **position == 0);
            let target = |at: usize| batch.target(at / batch.length, at % batch.length, ahead);
            begins.filter(|(at, _)| target(*at).is_some()).count()
        };
        let at = |(index, ahead): (usize, usize)| {
            let joint = index > 0 && self.spec.windows == JointWindows::First;
            let count = |batch| if joint { first(batch, ahead) } else { Batch::count_targets(batch, ahead) };
            batches.iter().map(count).sum()
        };
        Window::new(self.tokens_ahead().into_iter().take(depths).enumerate().map(at).collect())
    }

    /// The first loss is that of the model's own next token, the others are those of the joint distribution; at rank 1 the second
    /// is the first again, and has no weight.
    fn weight(&self, depth: usize) -> f32 {
        match depth {
            1 => self.spec.weight(1),
            2 if !self.mixes() => 0.0,
            depth => self.spec.weight(depth - 1),
        }
    }

    fn loss(&self, tape: &mut Tape, decoder: &Decoder, batch: &Batch, window: &Window) -> Vec<LossSum> {
        loss_through_states(self, tape, decoder, batch, window)
    }

    fn components(&self) -> usize {
        if self.mixes() { self.spec.rank } else { 0 }
    }

    fn drafter(&self) -> Option<&dyn Drafter> {
        (self.spec.n > 1).then_some(self as &dyn Drafter)
    }

    fn on_states(&self) -> Option<&dyn OnStates> {
        Some(self)
    }
}

impl OnStates for JointHeads {
    fn layers_below(&self) -> usize {
        self.layers
    }

    fn loss_from(
        &self,
        tape: &mut Tape,
        decoder: &Decoder,
        states: &Var,
        batch: &Batch,
        window: &Window,
    ) -> Vec<LossSum> {
        training::loss(self, tape, decoder, states, batch, window)
    }
}
