//! `sakiyomi data continuations`: text that a model writes itself, for heads that shall foresee what it will say.
//!
//! Heads draft for one model, so what matters is not how a text goes on but how that model would go on. Trained on its own
//! greedy continuations they learn just that; the model itself must stay frozen (`train.mode = "heads"`), or it learns from
//! itself.

use std::path::Path;

use data::{Corpus, Source, load_or_build};
use decode::DecodeSettings;
use serde::Serialize;

use crate::arguments::DataContinuations;
use crate::commands::checkpoint::Loaded;
use crate::commands::continuing::continuations_file;
use crate::commands::new_folder::absent;
use crate::commands::prompts;
use crate::commands::train::quoted;
use crate::failure::Verdict;
use crate::interrupt::Interrupt;
use crate::output::Output;

#[derive(Serialize)]
struct Told {
    file: String,
    finished: bool,
    continuations: usize,
    tokens: usize,
}

/// What would be written.
#[derive(Serialize)]
struct Planned {
    file: String,
    continuations: usize,
    new_tokens: usize,
}

impl Planned {
    fn text(&self) -> String {
        let Self { file, continuations, new_tokens } = self;
        format!(
            "would write {file}: {continuations} continuations of up to {new_tokens} new tokens (dry run)"
        )
    }
}

pub fn continuations(
    arguments: &DataContinuations,
    threads: usize,
    output: Output,
) -> anyhow::Result<Verdict> {
    let file = arguments.output.display().to_string();
    absent(&arguments.output)?;
    anyhow::ensure!(
        file.ends_with(".jsonl"),
        "--output {file}: the name must end in .jsonl, which training then reads"
    );
    anyhow::ensure!(arguments.count > 0, "--count 0: give at least 1");
    anyhow::ensure!(arguments.prompt_tokens > 0, "--prompt-tokens 0: give at least 1");
    anyhow::ensure!(arguments.max_new_tokens > 0, "--max-new-tokens 0: give at least 1");
    // Before minutes of work: a place where nothing can be written is told at once.
    drop(data::Unfinished::begin(&arguments.output)?);
    let loaded = Loaded::read(&arguments.checkpoint, threads)?;
    let context = loaded.checkpoint.decoder.config.context;
    let before =
        arguments.prompt_tokens.saturating_add(usize::from(loaded.checkpoint.vocabulary.begin().is_some()));
    anyhow::ensure!(
        before < context,
        "--prompt-tokens {}: leaves no room in the model's context of {context}",
        arguments.prompt_tokens
    );
    if arguments.max_new_tokens > context - before {
        output.remark(format!(
            "continuations have at most {} new tokens: with their beginnings they fill the model's context of {context}",
            context - before
        ));
    }
    let prompts = cut_prompts(arguments, &loaded, output)?;
    if arguments.dry_run {
        let planned = Planned { file, continuations: prompts.len(), new_tokens: arguments.max_new_tokens };
        output.result(&planned, || planned.text())?;
        return Ok(Verdict::Done);
    }
    let decoding = DecodeSettings {
        max_new_tokens: arguments.max_new_tokens,
        sampling: arguments.sampling.settings(),
        end_tokens: loaded.end_tokens(),
        ..DecodeSettings::default()
    };
    let interrupt = Interrupt::listen(None)?;
    let written = continuations_file(&arguments.output, &loaded, &prompts, decoding, &interrupt, output)?;
    let finished = written.continuations == prompts.len();
    let told = Told { file, finished, continuations: written.continuations, tokens: written.tokens };
    let packed = model::checkpoint::packed_weights(&arguments.checkpoint)?.is_some();
    output.result(&told, || told.text(&arguments.checkpoint, packed))?;
    Ok(Verdict::Done)
}

fn cut_prompts(
    arguments: &DataContinuations,
    loaded: &Loaded,
    output: Output,
) -> anyhow::Result<Vec<Vec<u32>>> {
    let source = Source {
        paths: arguments.paths.clone(),
        field: arguments.field.clone(),
        longest_document_bytes: train::RunConfig::default().data.longest_document_bytes,
        ..Source::default()
    };
    let vocabulary = &loaded.checkpoint.vocabulary;
    let (corpus, _): (Corpus, _) = load_or_build(None, &source, vocabulary)?;
    corpus.loss_note().iter().for_each(|note| output.remark(note));
    let documents: Vec<usize> = (0..corpus.documents()).collect();
    prompts::cut(&corpus, &documents, vocabulary.begin(), arguments.count, arguments.prompt_tokens)
}

impl Told {
    /// Heads are not trained on weights that are `packed`, but on those that they were made of.
    fn text(&self, checkpoint: &Path, packed: bool) -> String {
        let stopped = if self.finished { "" } else { " (stopped early)" };
        let (init, where_from) = match packed {
            true => {
                ("CHECKPOINT".to_owned(), format!(" (CHECKPOINT: what {} was made of)", checkpoint.display()))
            }
            false => (checkpoint.display().to_string(), String::new()),
        };
        format!(
            "wrote {}: {} continuations, {} new tokens{stopped}; to train heads on it, with the model frozen{where_from}:\n  \
             sakiyomi train run.toml run.folder=heads {} train.mode=heads {}",
            self.file,
            self.continuations,
            self.tokens,
            quoted(&format!("model.init={init}")),
            quoted(&format!("data.train={}", self.file))
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_trained_on_what_packed_weights_were_made_of() {
        let told = Told { file: "own.jsonl".to_owned(), finished: true, continuations: 2, tokens: 9 };
        assert!(
            told.text(Path::new("model"), false)
                .contains("run.folder=heads model.init=model train.mode=heads")
        );
        let packed = told.text(Path::new("packed"), true);
        assert!(packed.contains("(CHECKPOINT: what packed was made of):"), "{packed}");
        assert!(packed.contains("run.folder=heads model.init=CHECKPOINT train.mode=heads"), "{packed}");
    }
}
