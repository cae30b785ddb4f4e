//! The model as decoding sees it: committed positions, rows that are pending, and what the drafter builds on.

use std::sync::Arc;

use kernels::packed::WeightType;
use kernels::team::Team;
use model::Decoder;
use model::engine::{CacheType, Engine, EngineWeights, Keep, Rows};
use objective::{Begun, Chooser, Drafter, Greedy, Verified};
use tensor::{Ops, Params};

use crate::error::{Error, Result};

/// Rows of the prompt that run at once.
const PREFILL_ROWS: usize = 256;

/// A model over one sequence, with its drafter if it has one.
///
/// Rows run *pending*: their keys and values stand beyond the committed length until [`commit`](Self::commit) moves it, and
/// whatever still stands beyond it is written over by the next rows. The drafter's caches cover committed positions only.
pub struct Target<'a> {
    pub(crate) decoder: &'a Decoder,
    pub(crate) engine: Engine,
    drafter: Option<&'a dyn Drafter>,
    taps: Vec<usize>,
    length: usize,
    pending: usize,
    /// Committed tokens, and beyond `length` the pending ones.
    tokens: Vec<u32>,
    drafting: bool,
    tapped: Tapped,
}

/// The residual stream after the layers that the drafter reads, from the latest rows.
#[derive(Default)]
struct Tapped {
    /// One for each tap, in the order of the taps.
    states: Vec<Rows>,
    /// With the index of their tap, while a forward collects them.
    collected: Vec<(usize, Rows)>,
    /// Committed rows that the drafter has not taken in yet.
    verified: usize,
}

impl<'a> Target<'a> {
    /// Packs the weights of a model and of its drafter in f32; engines on other threads may share them.
    pub fn pack(decoder: &Decoder, drafter: Option<&dyn Drafter>, params: &Params) -> Arc<EngineWeights> {
        Self::pack_as(WeightType::F32, decoder, drafter, params)
    }

    /// As [`Self::pack`], in another type of weights.
    pub fn pack_as(
        weight_type: WeightType,
        decoder: &Decoder,
        drafter: Option<&dyn Drafter>,
        params: &Params,
    ) -> Arc<EngineWeights> {
        let mut weights = EngineWeights::new_as(weight_type, decoder, params);
        if let Some(drafter) = drafter {
            drafter.pack(&mut weights, params);
        }
        Arc::new(weights)
    }

    /// A target for sequences of up to `capacity` tokens.
    ///
    /// # Errors
    ///
    /// If `capacity` is 0 or beyond the model's context.
    pub fn new(
        decoder: &'a Decoder,
        drafter: Option<&'a dyn Drafter>,
        weights: Arc<EngineWeights>,
        team: Arc<Team>,
        capacity: usize,
    ) -> Result<Self> {
        let context = decoder.config.context;
        if capacity == 0 || capacity > context {
            let problem = format!("{capacity} positions: give 1 to {context}, the model's own context");
            return Err(Error::setting("context", problem));
        }
        Ok(Self {
            decoder,
            engine: Engine::new(weights, team, capacity),
            drafter,
            taps: drafter.map_or_else(Vec::new, Drafter::taps),
            length: 0,
            pending: 0,
            tokens: Vec::new(),
            drafting: false,
            tapped: Tapped::default(),
        })
    }

    /// Holds keys and values in another way from now on; a new sequence has to begin.
    pub fn hold_cache_as(&mut self, cache_type: CacheType) {
        self.engine.hold_cache_as(cache_type);
        self.restart();
    }

    /// Committed positions.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Positions that fit.
    pub fn capacity(&self) -> usize {
        self.engine.capacity()
    }

    /// Tokens that the model knows.
    pub fn vocabulary(&self) -> usize {
        self.decoder.config.vocabulary
    }

    /// Bytes of keys and values of one position, in all layers of the model.
    pub fn cache_bytes_per_position(&self) -> usize {
        let config = &self.decoder.config;
        2 * config.layers * config.kv_heads * config.head_dim * self.engine.cache_type().bytes()
    }

    /// The longest draft that the drafter makes; 0 without one.
    pub fn longest_draft(&self) -> usize {
        self.drafter.map_or(0, Drafter::longest)
    }

    /// Starts a new sequence: runs and commits `prompt` in chunks and gives the logits after its last token,
    /// `[1, vocabulary]`. `drafting` says whether drafts will be asked for; without, the drafter does not run at all. The
    /// model's own rows get the same bits either way.
    ///
    /// # Errors
    ///
    /// If the prompt is empty, longer than the context, or has tokens that the model does not know.
    pub fn prefill(&mut self, prompt: &[u32], drafting: bool) -> Result<Rows> {
        if prompt.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        if prompt.len() > self.capacity() {
            return Err(Error::PromptTooLong { tokens: prompt.len(), capacity: self.capacity() });
        }
        self.check_tokens(prompt)?;
        self.length = 0;
        self.tapped.verified = 0;
        self.drafting = drafting && self.drafter.is_some();
        // What a draft began that was never verified is of another text.
        drop(self.drafter.and_then(Drafter::begun));
        let last_layer = self.decoder.blocks.len() - 1;
        let last_slot = self.decoder.blocks[last_layer].attention().slot;
        // The rest of the last layer's rows is there for keys and values, unless the drafter reads them.
        let all = self.drafting && self.taps.contains(&last_layer);
        self.engine.set_keep(last_slot, if all { Keep::All } else { Keep::Last });
        let mut chunks = prompt.chunks(PREFILL_ROWS).peekable();
        let mut last_row = None;
        while let Some(chunk) = chunks.next() {
            self.take_in();
            let states = self.run_blocks(chunk);
            self.commit(chunk.len());
            if chunks.peek().is_none() {
                last_row = Some(self.engine.copy(&states, Keep::Last));
            }
            self.engine.recycle(states);
        }
        self.engine.set_keep(last_slot, Keep::All);
        let last_row = last_row.expect("the prompt has a last chunk");
        Ok(self.logits(last_row))
    }

    /// Begins a new sequence, which no drafts will be asked for.
    pub fn restart(&mut self) {
        self.length = 0;
        self.pending = 0;
        self.stop_drafting();
    }

    /// Runs `tokens` at the positions after the committed ones, as pending rows; gives the logits after each of them,
    /// `[tokens, vocabulary]`. Rows that were pending before are forgotten.
    ///
    /// # Errors
    ///
    /// If the tokens do not fit the context, or the model does not know one.
    pub fn forward(&mut self, tokens: &[u32]) -> Result<Rows> {
        let (length, capacity) = (self.length, self.capacity());
        if length + tokens.len() > capacity {
            return Err(Error::ContextFull { rows: tokens.len(), length, capacity });
        }
        self.check_tokens(tokens)?;
        self.take_in();
        let states = self.run_blocks(tokens);
        Ok(self.logits(states))
    }

    /// Keeps the first `rows` of the pending rows; the others are as if they never ran.
    ///
    /// # Panics
    ///
    /// If fewer rows are pending.
    pub fn commit(&mut self, rows: usize) {
        assert!(rows <= self.pending, "{rows} rows to commit, {} are pending", self.pending);
        self.length += rows;
        self.pending = 0;
        self.tapped.verified = if self.drafting { rows } else { 0 };
    }

    /// Lets the drafter propose up to `length` tokens to `chooser`, the first of which stands after `decided`, the token that
    /// the last committed row decided.
    ///
    /// # Panics
    ///
    /// If the sequence was started without drafting, no rows were committed since the last draft, or `length` is beyond
    /// [`longest_draft`](Self::longest_draft).
    pub fn draft(&mut self, decided: u32, length: usize, chooser: &mut dyn Chooser) {
        assert!(self.drafting, "the sequence was started without drafting");
        assert!(self.tapped.verified > 0, "a draft builds on rows committed since the last one");
        assert!(
            length <= self.longest_draft(),
            "a draft of {length} tokens, {} at most",
            self.longest_draft()
        );
        self.tokens.truncate(self.length);
        self.tokens.push(decided);
        self.run_drafter(length, chooser);
    }

    /// No more drafts will be asked for in this sequence: the drafter's caches need not be kept up.
    pub fn stop_drafting(&mut self) {
        self.drafting = false;
        self.tapped.verified = 0;
    }

    /// Goes back to `length` committed positions.
    ///
    /// # Panics
    ///
    /// If `length` is beyond the committed length.
    pub fn truncate(&mut self, length: usize) {
        assert!(length <= self.length, "cannot go back to {length} from {}", self.length);
        // What stays must be in the drafter's caches as well.
        self.take_in();
        self.length = length;
        self.pending = 0;
    }

    /// Gives a buffer of logits back for reuse.
    pub fn recycle(&mut self, logits: Rows) {
        self.engine.recycle(logits);
    }

    fn check_tokens(&self, tokens: &[u32]) -> Result<()> {
        let vocabulary = self.decoder.config.vocabulary;
        match tokens.iter().position(|token| *token as usize >= vocabulary) {
            Some(place) => Err(Error::UnknownToken { token: tokens[place], place, vocabulary }),
            None => Ok(()),
        }
    }

    /// The residual stream after the last block; what the drafter reads is kept aside.
    fn run_blocks(&mut self, tokens: &[u32]) -> Rows {
        for states in self.tapped.states.drain(..) {
            self.engine.recycle(states);
        }
        let Self { decoder, engine, taps, tapped, .. } = self;
        let taps = if self.drafting { taps.as_slice() } else { &[] };
        engine.stand_at(self.length);
        self.tokens.truncate(self.length);
        self.tokens.extend_from_slice(tokens);
        let mut tap = |engine: &mut Engine, layer: usize, states: &Rows| {
            for (index, _) in taps.iter().enumerate().filter(|(_, tap)| **tap == layer) {
                tapped.collected.push((index, engine.share(states)));
            }
        };
        let begun = if self.drafting { self.drafter.and_then(Drafter::begun) } else { None };
        let (first, begun) = match begun.filter(|begun| tokens.starts_with(&begun.tokens)) {
            Some(begun) => (begun.blocks, finish_begun(engine, decoder, begun, tokens, self.length)),
            None => (0, decoder.embed(engine, tokens)),
        };
        let states = decoder.run_blocks(engine, begun, first..decoder.blocks.len(), &mut tap);
        tapped.collected.sort_unstable_by_key(|(index, _)| *index);
        tapped.states.extend(tapped.collected.drain(..).map(|(_, states)| states));
        self.pending = tokens.len();
        states
    }

    fn logits(&mut self, states: Rows) -> Rows {
        let normed = self.decoder.final_norm(&mut self.engine, &states);
        self.engine.recycle(states);
        self.decoder.logits(&mut self.engine, normed)
    }

    /// Lets the drafter see committed rows that no draft was asked for.
    fn take_in(&mut self) {
        if self.tapped.verified > 0 {
            self.run_drafter(0, &mut Greedy::default());
        }
    }

    fn run_drafter(&mut self, length: usize, chooser: &mut dyn Chooser) {
        let rows = std::mem::take(&mut self.tapped.verified);
        let Some(drafter) = self.drafter else { return };
        let verified = Verified {
            states: &self.tapped.states,
            rows,
            first_position: self.length - rows,
            tokens: &self.tokens,
        };
        drafter.draft(&mut self.engine, self.decoder, &verified, length, chooser);
    }
}

/// Brings the rows that drafting has not run to where those stand that it has, and puts all of them together.
fn finish_begun(engine: &mut Engine, decoder: &Decoder, begun: Begun, tokens: &[u32], length: usize) -> Rows {
    let Begun { blocks, states, .. } = begun;
    let rest = &tokens[states.rows..];
    if rest.is_empty() {
        return states;
    }
    engine.stand_at(length + states.rows);
    let embedded = decoder.embed(engine, rest);
    let rest = decoder.run_blocks(engine, embedded, 0..blocks, &mut |_, _, _| {});
    engine.stand_at(length);
    engine.stack(vec![states, rest])
}
