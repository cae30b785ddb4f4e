//! Looking into a model: the residual stream after each block, shown to a hook that may change it, and the logits that the model
//! would give if any of these states were its last ("logit lens": final norm and unembedding).
//!
//! States are shown while they are there and kept nowhere: memory is that of one run, however many runs there are.

use std::path::Path;

use tensor::{Arena, Layout, Params, Tape};

use crate::config::DecoderConfig;
use crate::error::{Error, Result};
use crate::{Decoder, checkpoint};

/// What a model makes of one thing at a time.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Token ids of one text; a row for each.
    Tokens(Vec<u32>),
    /// One image, `[channels, side, side]`, normalised as the model wants it; a row for the class, then one for each patch.
    Image(Vec<f32>),
    /// Features of one sound, `[frames, features]`; a row for the class, then one for each frame.
    Sound(Vec<f32>),
    /// What an encoder made of a sound, `[frames, width]`, and token ids of its transcript; a row for each token.
    Speech {
        /// States after the encoder.
        memory: Vec<f32>,
        /// Tokens so far.
        tokens: Vec<u32>,
    },
}

/// Sizes of a model as the lens sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TapSizes {
    /// Blocks, after each of which the hook is called.
    pub layers: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Tokens or classes to choose from.
    pub outputs: usize,
    /// Multiply-adds of one block for one row, without the products of attention.
    pub block_work: usize,
    /// Multiply-adds of one read-out.
    pub read_out_work: usize,
}

/// Called after block `layer` (from 0) with the residual stream of the whole batch, `[rows, width]`, the rows of one input after
/// those of another. What it changes is what the next block reads.
pub type Hook<'h> = dyn FnMut(usize, &mut [f32]) + 'h;

/// A model that can be looked into.
pub trait Taps: Send + Sync {
    /// Its sizes.
    fn sizes(&self) -> TapSizes;

    /// Its parameters, by which one model is told from another.
    fn params(&self) -> &Params;

    /// Whether a row depends on nothing after it.
    fn causal(&self) -> bool {
        false
    }

    /// Rows of the residual stream that `input` becomes.
    fn rows(&self, input: &Input) -> usize;

    /// Runs `inputs`, which must have the same number of rows each.
    ///
    /// # Errors
    /// When an input is of a kind or size that the model does not take.
    fn run(&self, arena: &mut Arena, inputs: &[Input], hook: &mut Hook) -> Result<()>;

    /// Logits `[rows, outputs]` of states `[rows, width]` that were seen by a hook, as though the last block had given them.
    fn read_out(&self, arena: &mut Arena, states: &[f32], logits: &mut Vec<f32>);
}

/// A decoder with its parameters.
pub struct DecoderTaps {
    /// The decoder.
    pub decoder: Decoder,
    /// Its parameters.
    pub params: Params,
}

impl DecoderTaps {
    /// Reads the model in `folder`, without its heads.
    ///
    /// # Errors
    /// Names what is missing, damaged or not supported.
    pub fn load(folder: &Path) -> Result<Self> {
        let config = checkpoint::read_config(folder)?;
        let params = checkpoint::read_params(folder, &config)?;
        Ok(Self { decoder: Decoder::find(&config, &params)?, params })
    }
}

impl Taps for DecoderTaps {
    fn params(&self) -> &Params {
        &self.params
    }

    fn sizes(&self) -> TapSizes {
        let DecoderConfig { layers, width, vocabulary, .. } = self.decoder.config;
        let maps = self.decoder.blocks[0].linear_groups().into_iter().flatten();
        let block_work = maps.map(|map| self.params.data(map.weight).len()).sum();
        TapSizes { layers, width, outputs: vocabulary, block_work, read_out_work: vocabulary * width }
    }

    fn causal(&self) -> bool {
        true
    }

    fn rows(&self, input: &Input) -> usize {
        match input {
            Input::Tokens(tokens) => tokens.len(),
            _ => 0,
        }
    }

    fn run(&self, arena: &mut Arena, inputs: &[Input], hook: &mut Hook) -> Result<()> {
        let DecoderConfig { vocabulary, context, .. } = self.decoder.config;
        let mut tokens = Vec::new();
        for input in inputs {
            let Input::Tokens(part) = input else { return Err(Error::input("a decoder reads tokens")) };
            check_tokens(part, vocabulary, context)?;
            tokens.extend_from_slice(part);
        }
        let layout = layout(inputs.len(), same_rows(self, inputs)?);
        let mut tape = Tape::evaluation(&self.params, arena, &layout);
        // `Decoder::run_blocks` shows the stream; here it may be changed as well.
        let mut x = self.decoder.embed(&mut tape, &tokens);
        for (layer, block) in self.decoder.blocks.iter().enumerate() {
            x = block.forward(&mut tape, x);
            hook(layer, tape.value_mut(&x));
        }
        tape.forget();
        Ok(())
    }

    fn read_out(&self, arena: &mut Arena, states: &[f32], logits: &mut Vec<f32>) {
        let width = self.decoder.config.width;
        let layout = layout(1, states.len() / width);
        let mut tape = Tape::evaluation(&self.params, arena, &layout);
        let x = tape.input(states, width);
        let normed = self.decoder.final_norm(&mut tape, &x);
        let out = self.decoder.logits(&mut tape, normed);
        logits.clear();
        logits.extend_from_slice(tape.value(&out));
        tape.forget();
    }
}

/// `batch` sequences of `length` positions.
pub(crate) fn layout(batch: usize, length: usize) -> Layout {
    let positions = (0..batch).flat_map(|_| 0..length as u32).collect();
    Layout { batch, length, positions, first_visible: vec![0; batch * length], ..Layout::default() }
}

/// Rows of each of `inputs`, which must agree.
pub(crate) fn same_rows(model: &dyn Taps, inputs: &[Input]) -> Result<usize> {
    let rows = inputs.first().map_or(0, |input| model.rows(input));
    match inputs.iter().all(|input| model.rows(input) == rows) {
        true => Ok(rows),
        false => Err(Error::input("inputs of one run must have the same length")),
    }
}

/// Refuses tokens that the model does not know, and more of them than it has positions.
pub(crate) fn check_tokens(tokens: &[u32], vocabulary: usize, context: usize) -> Result<()> {
    if tokens.len() > context {
        let reason = format!("{} tokens, the model's context is {context}", tokens.len());
        return Err(Error::Input { reason });
    }
    match tokens.iter().find(|token| **token as usize >= vocabulary) {
        Some(token) => {
            let reason = format!("token {token} is outside of the model's vocabulary of {vocabulary}");
            Err(Error::Input { reason })
        }
        None => Ok(()),
    }
}
