//! `sakiyomi data generate`: examples of synthetic tasks, as files to train and to test on.

use data::Example;
use data::tasks::{self, addition, induction, polynomial, star_graph};
use serde::Serialize;

use crate::arguments::{AnsweredTask, Drawn};
use crate::commands::new_folder::{NewFolder, absent};
use crate::commands::train::quoted;
use crate::failure::Verdict;
use crate::interrupt::end_at_once;
use crate::output::Output;

/// More examples than any of the tasks is trained on.
const MOST_EXAMPLES: usize = 10_000_000;

/// More numbers than a tokenizer of numerals has use for.
const MOST_NUMBERS: usize = 100_000;

#[derive(Serialize)]
struct Generated {
    folder: String,
    written: bool,
    training: usize,
    test: usize,
    first: String,
    tokenizer: Option<String>,
}

pub fn generate(task: &AnsweredTask, output: Output) -> anyhow::Result<Verdict> {
    let (drawn, numbers) = match task {
        AnsweredTask::StarGraph(graph) => (&graph.drawn, Some(graph.nodes)),
        AnsweredTask::Addition(addition) => (&addition.drawn, None),
        AnsweredTask::Polynomial(polynomial) => (&polynomial.drawn, None),
        AnsweredTask::Induction(induction) => (&induction.drawn, Some(induction.symbols)),
        AnsweredTask::ImageGrid(grid) => (&grid.drawn, None),
    };
    let folder = drawn.output.display().to_string();
    absent(&drawn.output)?;
    anyhow::ensure!(drawn.train > 0 && drawn.test > 0, "--train 0 or --test 0: give at least 1 of either");
    for (flag, count) in [("--train", drawn.train), ("--test", drawn.test)] {
        anyhow::ensure!(count <= MOST_EXAMPLES, "{flag} {count}: at most {MOST_EXAMPLES}");
    }
    if let Some(numbers) = numbers {
        anyhow::ensure!(numbers <= MOST_NUMBERS, "{numbers} numbers: at most {MOST_NUMBERS}");
    }
    let written = if drawn.dry_run { None } else { Some(NewFolder::begin(&drawn.output, "--output")?) };
    end_at_once(output, written.as_ref().map(NewFolder::path))?;
    let (training, test, numbers) = examples(task, drawn, numbers)?;
    let generated = Generated {
        written: !drawn.dry_run,
        training: training.len(),
        test: test.len(),
        first: format!("{}{}", training[0].prompt, training[0].answer),
        tokenizer: numbers.map(|_| folder.clone()),
        folder,
    };
    if let Some(written) = written {
        save(written, &training, &test, numbers)?;
    }
    output.result(&generated, || generated.text())?;
    Ok(Verdict::Done)
}

/// Examples to train on and to test on, and the numbers that they are written in, where there are `numbers` of them or it is the
/// images that decide.
fn examples(
    task: &AnsweredTask,
    drawn: &Drawn,
    numbers: Option<usize>,
) -> anyhow::Result<(Vec<Example>, Vec<Example>, Option<usize>)> {
    let Drawn { train, test, seed, .. } = *drawn;
    let found = match task {
        AnsweredTask::StarGraph(of) => {
            let graph = star_graph::StarGraph {
                degree: of.degree,
                length: of.length,
                nodes: of.nodes,
                reversed: of.reversed,
            };
            graph.validate()?;
            let unguessable = star_graph::Unguessable { chains: of.chains, hidden: of.hide_start };
            unguessable.validate()?;
            let mut drawn = tasks::draw_apart(seed, train, test, |random| graph.draw(random));
            if let Some((training, _)) = &mut drawn {
                unguessable.change(training, graph, seed);
            }
            drawn
        }
        AnsweredTask::Addition(of) => {
            let most = addition::MOST_DIGITS;
            anyhow::ensure!((1..=most).contains(&of.digits), "--digits {}: give 1 to {most}", of.digits);
            let addition = addition::Addition { digits: of.digits, steps: !of.no_steps };
            tasks::draw_apart(seed, train, test, |random| addition.draw(random))
        }
        AnsweredTask::Polynomial(of) => {
            let polynomial = polynomial::Polynomial {
                prime: of.prime,
                terms: of.terms,
                least_operations: of.least_operations,
                most_operations: of.most_operations,
            };
            polynomial.validate()?;
            tasks::draw_apart(seed, train, test, |random| polynomial.draw(random))
        }
        AnsweredTask::Induction(of) => {
            let induction = induction::Induction { symbols: of.symbols, length: of.length, names: of.names };
            induction.validate()?;
            tasks::draw_apart(seed, train, test, |random| induction.draw(random))
        }
        AnsweredTask::ImageGrid(grid) => {
            let (training, test, numbers) = grid.examples()?;
            return Ok((training, test, Some(numbers)));
        }
    };
    let (training, test) = found.ok_or_else(|| {
        anyhow::anyhow!(
            "the task has fewer than {} different examples: ask for less, or make it larger",
            train + test
        )
    })?;
    Ok((training, test, numbers))
}

/// Writes the folder, whole or not at all.
fn save(
    folder: NewFolder,
    training: &[Example],
    test: &[Example],
    numbers: Option<usize>,
) -> anyhow::Result<()> {
    fs_err::write(folder.path().join("train.txt"), lines(training))?;
    fs_err::write(folder.path().join("test.txt"), lines(test))?;
    for (name, text) in numbers.map(tasks::numeral_tokenizer).into_iter().flatten() {
        fs_err::write(folder.path().join(name), text)?;
    }
    folder.finish()
}

fn lines(examples: &[Example]) -> String {
    examples.iter().flat_map(|example| [&*example.prompt, &*example.answer, "\n"]).collect()
}

impl Generated {
    fn text(&self) -> String {
        let typed = |key: &str, folder: &str, file: &str| quoted(&format!("data.{key}={folder}{file}"));
        // The word alone is the vocabulary of bytes.
        let folder_of_tokenizer =
            |folder: &String| if folder == "bytes" { "./bytes".to_owned() } else { folder.clone() };
        let tokenizer = self
            .tokenizer
            .as_ref()
            .map(folder_of_tokenizer)
            .map_or(String::new(), |folder| format!(" {}", typed("tokenizer", &folder, "")));
        let Self { training, test, first, folder, .. } = self;
        if !self.written {
            return format!(
                "would write {training} examples to train on and {test} to test on into {folder}; the first of them:\n  \
                 {first}\n(dry run)"
            );
        }
        format!(
            "wrote {training} examples to train on and {test} to test on; the first of them:\n  {first}\nto train on them:\n  \
             sakiyomi train run.toml data.examples=prompts {} {}{tokenizer}",
            typed("train", folder, "/train.txt"),
            typed("held_out", folder, "/test.txt")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_named_bytes_is_not_the_vocabulary_of_bytes() {
        let text = |folder: &str| {
            let (folder, tokenizer) = (folder.to_owned(), Some(folder.to_owned()));
            Generated { folder, written: true, training: 2, test: 1, first: "1=2".to_owned(), tokenizer }
                .text()
        };
        assert!(text("bytes").ends_with("data.held_out=bytes/test.txt data.tokenizer=./bytes"));
        assert!(text("graphs").ends_with(" data.tokenizer=graphs"));
    }
}
