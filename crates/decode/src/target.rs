//! The model as decoding sees it: committed positions, rows that are pending, and what the drafter builds on.

mod beside;

use std::sync::Arc;

use kernels::packed::WeightType;
use kernels::team::Team;
use model::Decoder;
use model::engine::{CacheType, Engine, EngineWeights, Keep, Rows, Segment};
use objective::{Begun, Chooser, Drafter, Greedy, Verified};
use tensor::{Ops, Params};

use crate::draft_length::DraftLength;
use crate::error::{Error, Result};
use beside::Beside;

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
    policy: Option<DraftLength>,
    /// The selected sequence.
    state: State,
    selected: usize,
    /// The other sequences, by number; the place of the selected one is empty.
    parked: Vec<State>,
}

/// Where a sequence stands.
#[derive(Default)]
struct State {
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
    /// Committed rows that the drafter has not taken in yet, from the latest rows.
    verified: usize,
    /// The states of so many committed rows before them, one value for each tap: what a draft that may never be wanted needs.
    waiting: Vec<Rows>,
    waiting_rows: usize,
    beside: Beside,
}

impl Tapped {
    /// No draft will build on what is here.
    fn forget(&mut self) {
        self.verified = 0;
        self.waiting_rows = 0;
        for rows in &mut self.waiting {
            rows.rows = 0;
            rows.data.clear();
        }
    }

    /// Lets the rows that were verified last wait for a draft.
    fn put_aside(&mut self) {
        self.waiting.resize_with(self.states.len(), || Rows { data: Vec::new(), rows: 0, width: 0 });
        for (waiting, states) in self.waiting.iter_mut().zip(&self.states) {
            waiting.data.extend_from_slice(&states.data[..self.verified * states.width]);
            waiting.rows += self.verified;
            waiting.width = states.width;
        }
        self.waiting_rows += std::mem::take(&mut self.verified);
    }
}

/// Rows that wait for a draft, at most: keeping more would cost more memory than it saves time.
const MOST_WAITING: usize = 128;

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
            policy: None,
            state: State::default(),
            selected: 0,
            parked: Vec::new(),
        })
    }

    /// Holds keys and values in another way from now on; a new sequence has to begin.
    pub fn hold_cache_as(&mut self, cache_type: CacheType) {
        self.engine.hold_cache_as(cache_type);
        self.restart();
    }

    /// Chooses the length of drafts by what rounds cost and how drafts fare, from now on; none: drafts are as long as asked for.
    pub fn set_policy(&mut self, policy: Option<DraftLength>) {
        self.policy = policy;
    }

    /// The policy with what it has learnt.
    pub fn take_policy(&mut self) -> Option<DraftLength> {
        self.policy.take()
    }

    pub(crate) fn policy(&self) -> Option<&DraftLength> {
        self.policy.as_ref()
    }

    /// How long the next draft is to be, at most `most`.
    pub(crate) fn draft_length(&self, most: usize) -> usize {
        self.policy.as_ref().map_or(most, |policy| policy.choose(most))
    }

    /// A round had `drafted` tokens, the first `accepted` of which were right.
    pub(crate) fn observe_draft(&mut self, drafted: usize, accepted: usize) {
        if let Some(policy) = &mut self.policy {
            policy.observe(drafted, accepted);
        }
    }

    /// Everything is about sequence `index` from now on; a target begins with sequence 0.
    pub fn select(&mut self, index: usize) {
        if index != self.selected {
            if self.parked.len() <= index.max(self.selected) {
                self.parked.resize_with(index.max(self.selected) + 1, State::default);
            }
            std::mem::swap(&mut self.state, &mut self.parked[self.selected]);
            std::mem::swap(&mut self.state, &mut self.parked[index]);
            self.selected = index;
        }
        self.engine.stand_in(index, self.state.length);
    }

    /// Frees what the selected sequence holds.
    pub fn forget(&mut self) {
        self.restart();
        self.engine.forget(self.selected);
    }

    /// Committed positions.
    pub fn length(&self) -> usize {
        self.state.length
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
        self.state.length = 0;
        self.state.tapped.forget();
        self.state.tapped.beside = Beside::default();
        self.state.drafting = drafting && self.drafter.is_some();
        // What a draft began that was never verified is of another text.
        drop(self.drafter.and_then(Drafter::begun));
        let last_layer = self.decoder.blocks.len() - 1;
        let last_slot = self.decoder.blocks[last_layer].attention().slot;
        // The rest of the last layer's rows is there for keys and values, unless the drafter reads them.
        let all = self.state.drafting && self.taps.contains(&last_layer);
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
        self.state.length = 0;
        self.state.pending = 0;
        self.stop_drafting();
    }

    /// Runs `tokens` at the positions after the committed ones, as pending rows; gives the logits after each of them,
    /// `[tokens, vocabulary]`. Rows that were pending before are forgotten.
    ///
    /// # Errors
    ///
    /// If the tokens do not fit the context, or the model does not know one.
    pub fn forward(&mut self, tokens: &[u32]) -> Result<Rows> {
        let (length, capacity) = (self.state.length, self.capacity());
        if length + tokens.len() > capacity {
            return Err(Error::ContextFull { rows: tokens.len(), length, capacity });
        }
        self.check_tokens(tokens)?;
        self.put_aside();
        let states = self.run_blocks(tokens);
        Ok(self.logits(states))
    }

    /// As [`forward`](Self::forward) for several sequences in one run: `parts` are sequences, each at most once, and their tokens.
    /// Gives the logits of all rows, in that order.
    ///
    /// # Errors
    ///
    /// As [`forward`](Self::forward).
    pub fn forward_together(&mut self, parts: &[(usize, &[u32])]) -> Result<Rows> {
        let mut segments = Vec::with_capacity(parts.len());
        let mut all = Vec::new();
        let mut tapping = false;
        for (sequence, tokens) in parts {
            self.select(*sequence);
            let (length, capacity) = (self.state.length, self.capacity());
            if length + tokens.len() > capacity {
                return Err(Error::ContextFull { rows: tokens.len(), length, capacity });
            }
            self.check_tokens(tokens)?;
            self.put_aside();
            segments.push(Segment { sequence: *sequence, position: length, rows: tokens.len() });
            all.extend_from_slice(tokens);
            tapping |= self.state.drafting;
        }
        self.engine.stand_as(&segments);
        let (states, tapped) = self.run_rows(&all, tapping);
        let mut first = 0;
        for (sequence, tokens) in parts {
            self.select(*sequence);
            self.note_pending(tokens);
            if self.state.drafting {
                let own = tapped.iter().map(|states| self.engine.copy_rows(states, first, tokens.len()));
                self.state.tapped.states.extend(own);
            }
            first += tokens.len();
        }
        tapped.into_iter().for_each(|states| self.engine.recycle(states));
        self.engine.stand_as(&segments);
        Ok(self.logits(states))
    }

    /// Keeps the first `rows` of the pending rows; the others are as if they never ran.
    ///
    /// # Panics
    ///
    /// If fewer rows are pending.
    pub fn commit(&mut self, rows: usize) {
        assert!(rows <= self.state.pending, "{rows} rows to commit, {} are pending", self.state.pending);
        self.state.length += rows;
        self.state.pending = 0;
        self.state.tapped.verified = if self.state.drafting { rows } else { 0 };
        self.state.tapped.beside.commit(rows);
    }

    /// Lets the drafter propose up to `length` tokens to `chooser`, the first of which stands after `decided`, the token that
    /// the last committed row decided. Gives how many runs of the whole model that took: none, or one where the drafter needs
    /// rows that did not run beside the last ones.
    ///
    /// # Panics
    ///
    /// If the sequence was started without drafting, no rows were committed since the last draft, or `length` is beyond
    /// [`longest_draft`](Self::longest_draft).
    pub fn draft(&mut self, decided: u32, length: usize, chooser: &mut dyn Chooser) -> usize {
        assert!(self.state.drafting, "the sequence was started without drafting");
        let committed = self.state.tapped.verified + self.state.tapped.waiting_rows;
        assert!(committed > 0, "a draft builds on rows committed since the last one");
        assert!(
            length <= self.longest_draft(),
            "a draft of {length} tokens, {} at most",
            self.longest_draft()
        );
        self.state.tokens.truncate(self.state.length);
        self.state.tokens.push(decided);
        let runs = self.have_beside(length);
        self.run_drafter(length, chooser);
        runs
    }

    /// No more drafts will be asked for in this sequence: the drafter's caches need not be kept up.
    pub fn stop_drafting(&mut self) {
        self.state.drafting = false;
        self.state.tapped.forget();
        self.state.tapped.beside = Beside::default();
    }

    /// Goes back to `length` committed positions.
    ///
    /// # Panics
    ///
    /// If `length` is beyond the committed length.
    pub fn truncate(&mut self, length: usize) {
        assert!(length <= self.state.length, "cannot go back to {length} from {}", self.state.length);
        // What stays must be in the drafter's caches as well.
        self.take_in();
        self.state.tapped.beside.forget();
        self.state.length = length;
        self.state.pending = 0;
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

    /// Runs pending rows of the selected sequence: the residual stream after the last block; what the drafter reads is kept aside.
    fn run_blocks(&mut self, tokens: &[u32]) -> Rows {
        self.note_pending(tokens);
        self.engine.stand_at(self.state.length);
        let (drafting, length) = (self.state.drafting, self.state.length);
        let begun = if drafting { self.drafter.and_then(Drafter::begun) } else { None };
        let beside = self.wanted_beside();
        let (states, tapped) = match begun.filter(|begun| tokens.starts_with(&begun.tokens)) {
            Some(begun) => {
                let first = begun.blocks;
                let begun = finish_begun(&mut self.engine, self.decoder, begun, tokens, length);
                self.run_from(begun, first, drafting)
            }
            None => match beside {
                Some(vector) => (self.run_with_beside(tokens, vector), Vec::new()),
                None => self.run_rows(tokens, drafting),
            },
        };
        self.state.tapped.states.extend(tapped);
        states
    }

    /// The rows of `tokens` are pending now in the selected sequence; what was tapped before is no more.
    fn note_pending(&mut self, tokens: &[u32]) {
        for states in self.state.tapped.states.drain(..) {
            self.engine.recycle(states);
        }
        self.state.tokens.truncate(self.state.length);
        self.state.tokens.extend_from_slice(tokens);
        self.state.pending = tokens.len();
        if let Some(rows) = self.state.tapped.beside.forget() {
            self.engine.recycle(rows);
        }
    }

    /// The residual stream after the last block, and after the layers that the drafter reads.
    fn run_rows(&mut self, tokens: &[u32], tapping: bool) -> (Rows, Vec<Rows>) {
        let embedded = self.decoder.embed(&mut self.engine, tokens);
        self.run_from(embedded, 0, tapping)
    }

    /// As [`Self::run_rows`], for rows that have been through the blocks before `first`.
    fn run_from(&mut self, begun: Rows, first: usize, tapping: bool) -> (Rows, Vec<Rows>) {
        let Self { decoder, engine, taps, .. } = self;
        let taps = if tapping { taps.as_slice() } else { &[] };
        let mut collected: Vec<(usize, Rows)> = Vec::with_capacity(taps.len());
        let mut tap = |engine: &mut Engine, layer: usize, states: &Rows| {
            for (index, _) in taps.iter().enumerate().filter(|(_, tap)| **tap == layer) {
                collected.push((index, engine.share(states)));
            }
        };
        let states = decoder.run_blocks(engine, begun, first..decoder.blocks.len(), &mut tap);
        collected.sort_unstable_by_key(|(index, _)| *index);
        (states, collected.into_iter().map(|(_, states)| states).collect())
    }

    fn logits(&mut self, states: Rows) -> Rows {
        let normed = self.decoder.final_norm(&mut self.engine, &states);
        self.engine.recycle(states);
        self.decoder.logits(&mut self.engine, normed)
    }

    /// Committed rows that no draft was asked for wait, where lengths are chosen, until one is: a drafter that is not wanted
    /// then costs nothing. Otherwise the drafter sees them now.
    fn put_aside(&mut self) {
        let tapped = &mut self.state.tapped;
        if self.policy.is_some() && tapped.waiting_rows + tapped.verified <= MOST_WAITING {
            tapped.put_aside();
        } else {
            self.take_in();
        }
    }

    /// Lets the drafter see committed rows that no draft was asked for.
    fn take_in(&mut self) {
        if self.state.tapped.verified + self.state.tapped.waiting_rows > 0 {
            self.run_drafter(0, &mut Greedy::default());
        }
    }

    fn run_drafter(&mut self, length: usize, chooser: &mut dyn Chooser) {
        let Some(drafter) = self.drafter else { return };
        let State { length: committed, tokens, tapped, .. } = &mut self.state;
        if tapped.waiting_rows > 0 {
            tapped.put_aside();
        }
        let (states, rows) = match tapped.waiting_rows {
            0 => (&tapped.states, tapped.verified),
            rows => (&tapped.waiting, rows),
        };
        let beside = tapped.beside.of_last_row();
        let verified = Verified { states, rows, first_position: *committed - rows, tokens, beside };
        self.engine.stand_in(self.selected, *committed - rows);
        drafter.draft(&mut self.engine, self.decoder, &verified, length, chooser);
        tapped.forget();
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
