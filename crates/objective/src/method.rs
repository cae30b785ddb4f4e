//! The methods there are, behind one type.

use data::Batch;
use model::Decoder;
use tensor::{Layout, LossSum, ParamId, Tape};

use crate::{Drafter, JointHeads, Objective, OnStates, ParallelHeads, Registers, Window};

/// One of the methods.
#[derive(Clone, Debug)]
pub enum Method {
    /// Parallel heads; one head is the next token alone.
    Heads(ParallelHeads),
    /// Registers.
    Registers(Registers),
    /// Joint heads.
    Joint(JointHeads),
}

impl Method {
    /// The heads, if that is what it is.
    pub fn heads(&self) -> Option<&ParallelHeads> {
        match self {
            Self::Heads(heads) => Some(heads),
            Self::Registers(_) | Self::Joint(_) => None,
        }
    }

    /// The registers, if that is what it is.
    pub fn registers(&self) -> Option<&Registers> {
        match self {
            Self::Registers(registers) => Some(registers),
            Self::Heads(_) | Self::Joint(_) => None,
        }
    }

    /// The joint heads, if that is what it is.
    pub fn joint(&self) -> Option<&JointHeads> {
        match self {
            Self::Joint(joint) => Some(joint),
            Self::Heads(_) | Self::Registers(_) => None,
        }
    }

    fn inner(&self) -> &dyn Objective {
        match self {
            Self::Heads(heads) => heads,
            Self::Registers(registers) => registers,
            Self::Joint(joint) => joint,
        }
    }
}

impl From<ParallelHeads> for Method {
    fn from(heads: ParallelHeads) -> Self {
        Self::Heads(heads)
    }
}

impl From<Registers> for Method {
    fn from(registers: Registers) -> Self {
        Self::Registers(registers)
    }
}

impl From<JointHeads> for Method {
    fn from(joint: JointHeads) -> Self {
        Self::Joint(joint)
    }
}

impl Objective for Method {
    fn kind(&self) -> &'static str {
        self.inner().kind()
    }

    fn depths(&self) -> usize {
        self.inner().depths()
    }

    fn tokens_ahead(&self) -> Vec<usize> {
        self.inner().tokens_ahead()
    }

    fn lookahead(&self) -> usize {
        self.inner().lookahead()
    }

    fn parameters(&self) -> &[ParamId] {
        self.inner().parameters()
    }

    fn components(&self) -> usize {
        self.inner().components()
    }

    fn weight(&self, depth: usize) -> f32 {
        self.inner().weight(depth)
    }

    fn window(&self, batches: &[Batch], depths: usize) -> Window {
        self.inner().window(batches, depths)
    }

    fn layout(&self, batch: &Batch, depths: usize) -> Layout {
        self.inner().layout(batch, depths)
    }

    fn loss(&self, tape: &mut Tape, decoder: &Decoder, batch: &Batch, window: &Window) -> Vec<LossSum> {
        self.inner().loss(tape, decoder, batch, window)
    }

    fn drafter(&self) -> Option<&dyn Drafter> {
        self.inner().drafter()
    }

    fn on_states(&self) -> Option<&dyn OnStates> {
        self.inner().on_states()
    }
}
