//! Batches without end for training, and in order for evaluation.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::batch::Batch;
use crate::corpus::Corpus;
use crate::error::{Error, Result};
use crate::packing::{Packing, most_tokens, narrow};
use crate::random::Random;

/// Endless, seeded batches.
///
/// Each epoch shuffles the documents, lays them end to end, cuts windows and shuffles those (see the module
/// `packing`). A batch may hold rows of two epochs.
pub struct Loader {
    corpus: Arc<Corpus>,
    documents: Vec<u32>,
    batch: usize,
    length: usize,
    lookahead: usize,
    seed: u64,
    epoch: u64,
    /// Of the documents, to notice other text.
    fingerprint: String,
    packing: Packing,
    /// The windows of this epoch in the order in which they come.
    order: Vec<u32>,
    /// How many of them have been given out.
    next: usize,
    /// Whether every epoch has the windows of the first.
    keeps_windows: bool,
}

/// Where a [`Loader`] stands, for a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoaderState {
    /// The loader's seed.
    pub seed: u64,
    /// Epochs finished.
    pub epoch: u64,
    /// Windows given out in this epoch.
    pub window: usize,
    /// Tokens of an epoch, to notice more or less text.
    pub tokens: usize,
    /// [`Corpus::fingerprint`] of the documents, to notice other text of the same size.
    pub fingerprint: String,
    /// Inputs per row, to notice another cut.
    pub length: usize,
}

impl Loader {
    /// Batches of `batch` rows with `length` inputs and `lookahead` more tokens, from the given documents of
    /// a corpus.
    ///
    /// # Errors
    ///
    /// If a size is 0, or no document is longer than `lookahead`.
    pub fn new(
        corpus: Arc<Corpus>,
        documents: Vec<usize>,
        batch: usize,
        length: usize,
        lookahead: usize,
        seed: u64,
    ) -> Result<Self> {
        if batch == 0 || length == 0 || lookahead == 0 {
            return Err(Error::Setting(format!(
                "batch, length and lookahead must be at least 1, not {batch}, {length} and {lookahead}"
            )));
        }
        let longest = documents.iter().copied().max_by_key(|&document| corpus.length(document));
        let Some(longest) = longest else {
            return Err(Error::NoText { what: "the training part".to_owned() });
        };
        if corpus.length(longest) <= lookahead {
            return Err(Error::DocumentsTooShort {
                lookahead,
                longest: corpus.length(longest),
                name: corpus.name(longest),
            });
        }
        if corpus.is_answered() {
            let lengths = || documents.iter().map(|&document| corpus.length(document));
            let most = most_tokens(length);
            if let Some(shortest) = lengths().min().filter(|&shortest| shortest > most) {
                return Err(Error::ExamplesTooLong { most, shortest });
            }
        }
        let fingerprint = corpus.fingerprint(&documents);
        let documents = narrow(documents)?;
        let (packing, order) = lay_out(&corpus, &documents, length, lookahead, seed, 0)?;
        Ok(Self {
            corpus,
            documents,
            batch,
            length,
            lookahead,
            seed,
            epoch: 0,
            fingerprint,
            packing,
            order,
            next: 0,
            keeps_windows: false,
        })
    }

    /// The same, with the windows of the first epoch in every epoch, in another order each time: what is known of a window is
    /// known for all epochs. A batch tells them apart by the lower 32 bits of its draws.
    #[must_use]
    pub fn keeping_windows(mut self) -> Self {
        self.keeps_windows = true;
        self
    }

    /// The next batch.
    ///
    /// # Errors
    ///
    /// If tokens cannot be read from their file.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator can end; this cannot, and needs no Option"
    )]
    pub fn next(&mut self) -> Result<Batch> {
        let mut batch = Batch::padded(self.batch, self.length, self.lookahead);
        for row in 0..self.batch {
            if self.next == self.order.len() {
                self.start_epoch(self.epoch + 1)?;
            }
            self.packing.fill(&self.corpus, self.order[self.next] as usize, &mut batch, row)?;
            batch.draws[row] = self.epoch << 32 | u64::from(self.order[self.next]);
            self.next += 1;
        }
        Ok(batch)
    }

    /// Examples of prompts and answers that are longer than a row and left out.
    pub fn left_out(&self) -> usize {
        self.documents.len() - self.packing.documents()
    }

    /// Epochs finished, counted when the first row of the next one is given out.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Tokens of one epoch.
    pub fn tokens_per_epoch(&self) -> usize {
        self.packing.tokens()
    }

    /// Windows (rows) of one epoch.
    pub fn windows_per_epoch(&self) -> usize {
        self.order.len()
    }

    /// The windows of an epoch in the order in which they come from now on; those that were given out in this epoch come last.
    pub fn windows_to_come(&self) -> impl Iterator<Item = u32> {
        let (given, coming) = self.order.split_at(self.next);
        coming.iter().chain(given).copied()
    }

    /// Where the loader stands.
    pub fn state(&self) -> LoaderState {
        LoaderState {
            seed: self.seed,
            epoch: self.epoch,
            window: self.next,
            tokens: self.packing.tokens(),
            fingerprint: self.fingerprint.clone(),
            length: self.length,
        }
    }

    /// Goes on where another loader over the same data stood. The batch size may differ.
    ///
    /// # Errors
    ///
    /// If the text or the length of rows are others.
    pub fn restore(&mut self, state: &LoaderState) -> Result<()> {
        let differs = |what: &str, saved: usize, now: usize| {
            Err(Error::Position(format!("{what} was {saved} when it was saved and is {now} now")))
        };
        if state.tokens != self.packing.tokens() {
            return differs("the number of training tokens", state.tokens, self.packing.tokens());
        }
        if state.fingerprint != self.fingerprint {
            return Err(Error::Position("the training text has changed since it was saved".to_owned()));
        }
        if state.length != self.length {
            return differs("the length of a row", state.length, self.length);
        }
        if state.window > self.order.len() {
            return differs("the number of windows", state.window, self.order.len());
        }
        self.seed = state.seed;
        self.start_epoch(state.epoch)?;
        self.next = state.window;
        Ok(())
    }

    fn start_epoch(&mut self, epoch: u64) -> Result<()> {
        let laid_out = if self.keeps_windows { 0 } else { epoch };
        let (packing, order) =
            lay_out(&self.corpus, &self.documents, self.length, self.lookahead, self.seed, laid_out)?;
        self.packing = packing;
        self.order = order;
        if laid_out != epoch {
            Random::new(self.seed, epoch).shuffle(&mut self.order);
        }
        self.epoch = epoch;
        self.next = 0;
        Ok(())
    }
}

/// One epoch's layout of the documents, and the order of its windows.
fn lay_out(
    corpus: &Corpus,
    documents: &[u32],
    length: usize,
    lookahead: usize,
    seed: u64,
    epoch: u64,
) -> Result<(Packing, Vec<u32>)> {
    let mut random = Random::new(seed, epoch);
    let mut documents = documents.to_vec();
    random.shuffle(&mut documents);
    let packing = Packing::new(corpus, documents, length, lookahead);
    let mut order = narrow(0..packing.windows())?;
    random.shuffle(&mut order);
    Ok((packing, order))
}

/// Batches over documents in order, in which each token is a target at most once per depth; the last batch is
/// padded.
///
/// At most `max_batches` of them, from the start; 0 means all.
///
/// # Errors
///
/// If there are more documents than 32 bits can count.
pub fn evaluation_batches(
    corpus: &Arc<Corpus>,
    documents: &[usize],
    batch: usize,
    length: usize,
    lookahead: usize,
    max_batches: usize,
) -> Result<EvaluationBatches> {
    assert!(batch > 0 && length > 0, "an empty batch evaluates nothing");
    let packing = Packing::new(corpus, narrow(documents.iter().copied())?, length, lookahead);
    let all = if packing.tokens() == 0 { 0 } else { packing.windows().div_ceil(batch) };
    let count = if max_batches == 0 { all } else { all.min(max_batches) };
    Ok(EvaluationBatches {
        corpus: Arc::clone(corpus),
        packing: packing.into(),
        batch,
        length,
        lookahead,
        count,
    })
}

/// What [`evaluation_batches`] found: where each batch lies. Its tokens are read when it is asked for, so that a large
/// held-out text needs no more memory than a small one.
#[derive(Clone, Debug)]
pub struct EvaluationBatches {
    corpus: Arc<Corpus>,
    packing: Arc<Packing>,
    batch: usize,
    length: usize,
    lookahead: usize,
    count: usize,
}

impl EvaluationBatches {
    /// How many batches there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// At most `count` of them, from the start.
    #[must_use]
    pub fn first(&self, count: usize) -> Self {
        Self { count: self.count.min(count), ..self.clone() }
    }

    /// The batches in order; an error if tokens cannot be read from their file.
    pub fn iter(&self) -> impl Iterator<Item = Result<Batch>> + '_ {
        (0..self.count).map(|index| {
            let mut filled = Batch::padded(self.batch, self.length, self.lookahead);
            let first = index * self.batch;
            for window in first..(first + self.batch).min(self.packing.windows()) {
                self.packing.fill(&self.corpus, window, &mut filled, window - first)?;
                filled.draws[window - first] = window as u64;
            }
            Ok(filled)
        })
    }
}
