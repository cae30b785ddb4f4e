//! `sakiyomi data show`: training data as the trainer sees it.

use std::fmt::Write;

use data::{Batch, CarriedToken, Loader, ShownRegister, ShownToken, Vocabulary, show_row};
use objective::{JointWindows, Placed};
use serde::Serialize;
use train::RunConfig;
use train::config::{ObjectiveKind, TrainMode};

use super::paint;
use crate::arguments::DataShow;
use crate::failure::Verdict;
use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::progress::TextProgress;

/// More than anyone reads.
const MOST_ROWS: usize = 1024;

#[derive(Serialize)]
struct Shown {
    documents_for_training: usize,
    documents_held_out: usize,
    tokens: usize,
    rows: Vec<Vec<ShownToken>>,
}

pub fn show(show: &DataShow, output: Output) -> anyhow::Result<Verdict> {
    anyhow::ensure!((1..=MOST_ROWS).contains(&show.rows), "--rows {}: give 1 to {MOST_ROWS}", show.rows);
    let config = RunConfig::read(&show.run, &show.overrides)?;
    config.validate()?;
    let vocabulary = train::start::vocabulary(&config)?;
    let (interrupt, mut progress) = (Interrupt::listen(None)?, TextProgress::new(output));
    let text = train::prepare::split_text(&config, &vocabulary, &mut |done| {
        progress.set(done);
        !interrupt.raised()
    })?;
    drop(progress);
    text.notes.iter().for_each(|note| output.remark(note));
    let mut loader = Loader::new(
        text.training.clone(),
        text.training_documents.clone(),
        show.rows,
        config.train.length,
        config.lookahead(),
        config.run.seed,
    )?;
    let batch = loader.next()?;
    // With registers these look ahead, and a token learns the next one.
    let registers = config.objective.kind == ObjectiveKind::Registers;
    let depths = if registers { 1 } else { batch.lookahead };
    let mut rows: Vec<Vec<ShownToken>> =
        (0..batch.batch).map(|row| show_row(&batch, row, &vocabulary, depths)).collect();
    if registers {
        let context = train::start::decoder_config(&config, &vocabulary)?.context;
        let spec = config.objective.registers(config.run.seed);
        let placed = objective::place_registers(&spec, config.depths(), context, &batch);
        show_registers(&mut rows, &placed, &vocabulary);
    }
    if config.objective.kind == ObjectiveKind::Joint && config.objective.windows == JointWindows::First {
        keep_first_windows(&mut rows, &batch, config.train.mode);
    }
    let shown = Shown {
        documents_for_training: text.training_documents.len(),
        documents_held_out: text.held_out_documents.len(),
        tokens: text.training.token_count(),
        rows,
    };
    output.result(&shown, || {
        let mut lines = format!(
            "{} documents to train on, {} held out, {} tokens; rows of the first batch:\n",
            shown.documents_for_training, shown.documents_held_out, shown.tokens
        );
        let colour = paint::colours();
        for (number, row) in shown.rows.iter().enumerate() {
            let _ = write!(lines, "\nrow {number}\n{}\n", paint::row(row, depths, colour));
        }
        lines + &paint::legend(colour, depths, registers)
    })?;
    Ok(Verdict::Done)
}

/// Puts registers behind their tokens.
fn show_registers(rows: &mut [Vec<ShownToken>], placed: &[Placed], vocabulary: &Vocabulary) {
    for Placed { register, offset, carried, .. } in placed {
        let Some(token) = rows[register.row as usize].get_mut(register.anchor as usize) else { continue };
        let carried = (carried.share > 0.0).then(|| {
            let mut stream = vocabulary.stream();
            let name = vocabulary.special_name(carried.token);
            let text = name.unwrap_or_else(|| stream.push(carried.token) + &stream.finish());
            CarriedToken { id: carried.token, text, share: carried.share }
        });
        token.registers.push(ShownRegister { offset: *offset, carried });
    }
}

/// Where joint heads learn from the first window of each document alone, later positions teach the model's own next token at most:
/// nothing where the model is frozen.
fn keep_first_windows(rows: &mut [Vec<ShownToken>], batch: &Batch, mode: TrainMode) {
    let most = usize::from(mode != TrainMode::Heads);
    for (row, tokens) in rows.iter_mut().enumerate() {
        let positions = &batch.positions[row * batch.length..][..batch.length];
        for (token, _) in tokens.iter_mut().zip(positions).filter(|(_, position)| **position > 0) {
            token.depths = token.depths.map(|depths| depths.min(most));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_shown_with_what_they_carry() {
        let batch = Batch::single(&[256, 97, 98, 99, 100], 3);
        let vocabulary = Vocabulary::bytes();
        let mut rows = vec![show_row(&batch, 0, &vocabulary, 1)];
        let spec = objective::RegistersSpec { d_min: 2, d_max: 3, decoys: 1.0, ..Default::default() };
        let placed = objective::place_registers(&spec, 3, 64, &batch);
        assert!(!placed.is_empty());
        show_registers(&mut rows, &placed, &vocabulary);
        let shown: Vec<&ShownRegister> = rows[0].iter().flat_map(|token| &token.registers).collect();
        assert_eq!(shown.len(), placed.len());
        for (shown, placed) in shown.into_iter().zip(&placed) {
            let carried = shown.carried.as_ref().map(|carried| (carried.id, carried.share));
            let wanted = (placed.carried.share > 0.0).then_some((placed.carried.token, placed.carried.share));
            assert_eq!((shown.offset, carried), (placed.offset, wanted));
        }
    }

    #[test]
    fn first_windows_are_shown_as_they_are_learnt() {
        let batch = Batch::single(&[256, 97, 98, 99, 100], 3);
        let shown = |mode: Option<TrainMode>| -> Vec<Option<usize>> {
            let mut rows = vec![show_row(&batch, 0, &Vocabulary::bytes(), batch.lookahead)];
            if let Some(mode) = mode {
                keep_first_windows(&mut rows, &batch, mode);
            }
            rows[0].iter().map(|token| token.depths).collect()
        };
        assert_eq!(shown(None), [3, 3, 2, 1, 0].map(Some));
        assert_eq!(shown(Some(TrainMode::Pretrain)), [3, 1, 1, 1, 0].map(Some));
        assert_eq!(shown(Some(TrainMode::Heads)), [3, 0, 0, 0, 0].map(Some));
    }
}
