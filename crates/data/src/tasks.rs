//! Synthetic tasks with answers that can be checked: a file each.
//!
//! Every example is one line, `prompt=answer`: what stands before the sign of equality is given.

pub mod addition;
pub mod induction;
mod numerals;
pub mod polynomial;
pub mod star_graph;

pub use numerals::numeral_tokenizer;

use std::collections::HashSet;

use crate::examples::Example;
use crate::random::Random;

/// What ends the prompt of every task.
pub const PROMPT_END: &str = "=";

/// Draws that give examples already drawn, after which a task is taken to have no others.
const MOST_REPEATS: usize = 1000;

/// `training` and then `held_out` examples drawn by `draw`, no two alike. `None` if the task has not so many.
pub fn draw_apart(
    seed: u64,
    training: usize,
    held_out: usize,
    mut draw: impl FnMut(&mut Random) -> Example,
) -> Option<(Vec<Example>, Vec<Example>)> {
    let mut random = Random::new(seed, TASK_STREAM);
    let mut known = HashSet::with_capacity(training + held_out);
    let mut examples = Vec::with_capacity(training + held_out);
    let mut repeats = 0;
    while examples.len() < training + held_out {
        let example = draw(&mut random);
        if known.insert(example.prompt.clone()) {
            examples.push(example);
            repeats = 0;
        } else {
            repeats += 1;
            if repeats == MOST_REPEATS {
                return None;
            }
        }
    }
    let held_out = examples.split_off(training);
    Some((examples, held_out))
}

/// The random stream of tasks: none that tales or epochs use.
const TASK_STREAM: u64 = u64::MAX - 1;

/// The random stream of what makes training prompts unguessable.
const UNGUESSABLE_STREAM: u64 = u64::MAX - 2;
