//! Rows that run beside those of the tokens, for a drafter that drafts from such ([`objective::Drafter::beside`]).
//!
//! A round that drafts runs, behind each of its tokens, a row for each place of the next draft, which is taken to be as long. Which
//! of them are read is known only when the round is settled: those behind its last committed token. Where they did not run, after
//! a prompt or when a longer draft is asked for than the one before, they run by themselves, which costs a run of the model.

use model::engine::{Rows, SideRow};
use tensor::ParamId;

use super::Target;

/// The side rows of a sequence.
#[derive(Default)]
pub(super) struct Beside {
    /// How many the next run has behind each token.
    pub(super) wanted: usize,
    /// After the last block: `behind_each` for each token of the latest run, or those of the last committed token alone.
    states: Option<Rows>,
    behind_each: usize,
    committed: bool,
}

impl Beside {
    /// What ran is of no use any more; its buffer is.
    pub(super) fn forget(&mut self) -> Option<Rows> {
        self.committed = false;
        self.states.take()
    }

    /// `rows` tokens of the latest run stay.
    pub(super) fn commit(&mut self, rows: usize) {
        if rows == 0 {
            self.states = None;
        }
        let Some(states) = &mut self.states else { return };
        let size = self.behind_each * states.width;
        states.data.copy_within((rows - 1) * size..rows * size, 0);
        states.data.truncate(size);
        states.rows = self.behind_each;
        self.committed = true;
    }

    /// Those of the last committed token.
    pub(super) fn of_last_row(&self) -> Option<&Rows> {
        self.states.as_ref().filter(|_| self.committed)
    }
}

impl Target<'_> {
    /// Whether drafts come from rows that run beside the tokens of the round before.
    pub(crate) fn runs_beside(&self) -> bool {
        self.vector_beside().is_some()
    }

    fn vector_beside(&self) -> Option<ParamId> {
        self.drafter.and_then(|drafter| drafter.beside())
    }

    /// Has the rows ready that a draft of `length` is read from, and notes that the next draft may be as long. Gives how many
    /// runs of the model that took.
    pub(super) fn have_beside(&mut self, length: usize) -> usize {
        let Some(vector) = self.vector_beside() else { return 0 };
        self.state.tapped.beside.wanted = length;
        let ready = self.state.tapped.beside.of_last_row().map_or(0, |rows| rows.rows);
        if ready >= length {
            return 0;
        }
        let (anchor, last) = (self.state.length - 1, self.decoder.config.context - 1);
        self.engine.stand_in(self.selected, self.state.length);
        let nothing = Rows { data: Vec::new(), rows: 0, width: self.decoder.config.width };
        let side = behind(anchor, length, last);
        let embedded = self.engine.add_beside(nothing, &self.decoder.embedding, vector, side);
        let (states, _) = self.run_from(embedded, 0, false);
        let beside = &mut self.state.tapped.beside;
        if let Some(rows) = beside.forget() {
            self.engine.recycle(rows);
        }
        *beside = Beside { wanted: length, states: Some(states), behind_each: length, committed: true };
        1
    }

    /// Runs pending rows, and beside each of them those that the next draft may be read from.
    pub(super) fn run_with_beside(&mut self, tokens: &[u32], vector: ParamId) -> Rows {
        let each = std::mem::take(&mut self.state.tapped.beside.wanted);
        let (first, last) = (self.state.length, self.decoder.config.context - 1);
        let embedded = self.decoder.embed(&mut self.engine, tokens);
        let side = (first..first + tokens.len()).flat_map(|anchor| behind(anchor, each, last));
        let embedded = self.engine.add_beside(embedded, &self.decoder.embedding, vector, side);
        let (all, _) = self.run_from(embedded, 0, false);
        let side = self.engine.copy_rows(&all, tokens.len(), tokens.len() * each);
        self.state.tapped.beside =
            Beside { wanted: 0, states: Some(side), behind_each: each, committed: false };
        let width = all.width;
        self.engine.reshape(all, width, tokens.len())
    }

    /// The vector of the rows that the next run has beside its tokens, if any are wanted.
    pub(super) fn wanted_beside(&self) -> Option<ParamId> {
        self.vector_beside().filter(|_| self.state.tapped.beside.wanted > 0)
    }
}

/// The rows behind the token at `anchor` for the places of a draft, none beyond the position `last`: no draft goes farther.
fn behind(anchor: usize, places: usize, last: usize) -> impl Iterator<Item = SideRow> {
    (1..=places).map(move |place| SideRow { anchor, position: (anchor + place).min(last) })
}
