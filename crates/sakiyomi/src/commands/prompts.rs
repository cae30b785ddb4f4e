//! Prompts: from a file of the user's, or from held-out text.

use std::path::Path;

use anyhow::Context;
use data::Corpus;

use super::checkpoint::Loaded;
use super::text_file;
use crate::arguments::Prompts;

/// Tokens of a prompt that is cut from text.
pub const PROMPT_TOKENS: usize = 64;

/// Prompts used where the user gives none: beginnings of several kinds of text.
const BUILT_IN: &[&str] = &[
    "Once upon a time",
    "The first thing that",
    "In the morning",
    "She said",
    "It was a long way to the",
    "There were three",
    "Why did",
    "The answer is",
];

impl Prompts {
    /// The prompts as tokens.
    pub fn read(&self, loaded: &Loaded) -> anyhow::Result<Vec<Vec<u32>>> {
        let texts = match &self.prompts {
            None => BUILT_IN.iter().map(|text| (*text).to_owned()).collect(),
            Some(file) => texts(file)?,
        };
        anyhow::ensure!(self.count > 0, "--count 0: give at least 1");
        texts.iter().take(self.count).map(|text| loaded.encode(text)).collect()
    }
}

fn texts(file: &Path) -> anyhow::Result<Vec<String>> {
    let content = text_file::read(file)?;
    let lines = content.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let json = file.extension().is_some_and(|extension| extension == "jsonl");
    let texts: Vec<String> = lines
        .map(|(number, line)| if json { field(line, file, number + 1) } else { Ok(line.to_owned()) })
        .collect::<anyhow::Result<_>>()?;
    anyhow::ensure!(!texts.is_empty(), "{}: no prompts in it; give one a line", file.display());
    Ok(texts)
}

/// The prompt of one line, under the names that files of prompts commonly use.
fn field(line: &str, file: &Path, number: usize) -> anyhow::Result<String> {
    let place = || format!("{}:{number}", file.display());
    let value: serde_json::Value = serde_json::from_str(line).with_context(place)?;
    let texts = ["prompt", "text", "question"].iter().filter_map(|name| value.get(name)?.as_str());
    let turns = value.get("turns").and_then(|turns| turns.get(0)?.as_str());
    let found = texts.chain(turns).next();
    Ok(found
        .with_context(|| format!("{}: no text under `prompt`, `text`, `question` or `turns`", place()))?
        .to_owned())
}

/// `count` prompts of `length` tokens, spread evenly over `documents`; each begins as a document does.
pub fn cut(
    corpus: &Corpus,
    documents: &[usize],
    begin: Option<u32>,
    count: usize,
    length: usize,
) -> anyhow::Result<Vec<Vec<u32>>> {
    let places: Vec<(usize, usize)> = documents
        .iter()
        .flat_map(|&document| {
            let starts = (corpus.length(document) / length).max(1);
            (0..starts).map(move |start| (document, start * length))
        })
        .collect();
    (0..count.min(places.len()))
        .map(|index| {
            let (document, start) = places[index * places.len() / count.min(places.len())];
            let mut tokens = Vec::new();
            corpus.read(document, start..corpus.length(document).min(start + length), &mut tokens)?;
            let begin = begin.filter(|begin| tokens.first() != Some(begin));
            Ok(begin.into_iter().chain(tokens).collect())
        })
        .collect()
}
