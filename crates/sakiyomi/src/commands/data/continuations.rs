//! `sakiyomi data continuations`: text that a model writes itself, for heads that shall foresee what it will say.
//!
//! Heads draft for one model, so what matters is not how a text goes on but how that model would go on. Trained on its own
//! greedy continuations they learn just that; the model itself must stay frozen (`train.mode = "heads"`), or it learns from
//! itself.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

use data::{Corpus, Source, load_or_build};
use decode::{DecodeSettings, GenerateSettings, generate};
use serde::Serialize;

use crate::arguments::DataContinuations;
use crate::commands::checkpoint::Loaded;
use crate::commands::prompts;
use crate::failure::Verdict;
use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::progress::Counter;

#[derive(Serialize)]
struct Written {
    file: String,
    finished: bool,
    continuations: usize,
    tokens: usize,
}

pub fn continuations(
    arguments: &DataContinuations,
    threads: usize,
    output: Output,
) -> anyhow::Result<Verdict> {
    let file = arguments.output.display().to_string();
    anyhow::ensure!(!arguments.output.exists(), "{file} exists: give another name, or remove it first");
    anyhow::ensure!(
        file.ends_with(".jsonl"),
        "--output {file}: the name must end in .jsonl, which training then reads"
    );
    anyhow::ensure!(arguments.count > 0, "--count 0: give at least 1");
    anyhow::ensure!(arguments.prompt_tokens > 0, "--prompt-tokens 0: give at least 1");
    anyhow::ensure!(arguments.max_new_tokens > 0, "--max-new-tokens 0: give at least 1");
    let folder = match arguments.output.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    // Before minutes of work: a place where nothing can be written is told at once.
    let mut written = data::unfinished_file(folder)
        .map_err(|error| anyhow::anyhow!("{file} cannot be written: {error}"))?;
    let loaded = Loaded::read(&arguments.checkpoint, threads)?;
    let prompts = cut_prompts(arguments, &loaded)?;
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    let mut target = loaded.target(longest.saturating_add(arguments.max_new_tokens))?;
    let settings = GenerateSettings {
        decoding: DecodeSettings {
            max_new_tokens: arguments.max_new_tokens,
            draft_length: target.longest_draft(),
            sampling: arguments.sampling.settings(),
            end_tokens: loaded.end_tokens(),
        },
        stop: Vec::new(),
    };
    let vocabulary = &loaded.checkpoint.vocabulary;
    let begins = usize::from(vocabulary.begin().is_some());
    let interrupt = Interrupt::listen(None)?;
    let mut counter = Counter::new("continuing", prompts.len());
    let (mut done, mut tokens) = (0, 0);
    for (index, prompt) in prompts.iter().enumerate() {
        let mut settings = settings.clone();
        settings.decoding.sampling.seed = arguments.sampling.seed.wrapping_add(index as u64);
        let continued =
            generate(&mut target, vocabulary, prompt, &settings, &mut |_| match interrupt.raised() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            })?;
        if interrupt.raised() {
            break;
        }
        let text = vocabulary.decode(&prompt[begins.min(prompt.len())..])? + &continued.text;
        serde_json::to_writer(&mut written, &serde_json::json!({ "text": text }))?;
        writeln!(written)?;
        done += 1;
        tokens += continued.decoded.ids.len();
        counter.set(done, output, String::new);
    }
    counter.finish();
    anyhow::ensure!(done > 0, "stopped before the first continuation was whole: nothing is written");
    written.as_file().sync_all()?;
    written
        .persist_noclobber(&arguments.output)
        .map_err(|error| anyhow::anyhow!("{file} cannot be written: {}", error.error))?;
    let told = Written { file, finished: done == prompts.len(), continuations: done, tokens };
    output.result(&told, || told.text(&arguments.checkpoint))?;
    Ok(Verdict::Done)
}

fn cut_prompts(arguments: &DataContinuations, loaded: &Loaded) -> anyhow::Result<Vec<Vec<u32>>> {
    let source =
        Source { paths: arguments.paths.clone(), field: arguments.field.clone(), ..Source::default() };
    let vocabulary = &loaded.checkpoint.vocabulary;
    let (corpus, _): (Corpus, _) = load_or_build(None, &source, vocabulary)?;
    let documents: Vec<usize> = (0..corpus.documents()).collect();
    prompts::cut(&corpus, &documents, vocabulary.begin(), arguments.count, arguments.prompt_tokens)
}

impl Written {
    fn text(&self, checkpoint: &Path) -> String {
        let stopped = if self.finished { "" } else { " (stopped early)" };
        format!(
            "wrote {}: {} continuations, {} new tokens{stopped}; to train heads on it, with the model frozen:\n  \
             sakiyomi train run.toml model.init={} train.mode=heads data.train={}",
            self.file,
            self.continuations,
            self.tokens,
            checkpoint.display(),
            self.file
        )
    }
}
