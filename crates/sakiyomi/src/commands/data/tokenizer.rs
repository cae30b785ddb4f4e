//! `sakiyomi data tokenizer`: a vocabulary learnt from the user's text.

use std::io::Write;
use std::time::{Duration, Instant};

use data::Source;
use data::vocabulary::{SampleSize, train_tokenizer};
use serde::Serialize;

use crate::arguments::DataTokenizer;
use crate::commands::machine;
use crate::failure::Verdict;
use crate::interrupt::end_at_once;
use crate::output::Output;

/// Time between lines of progress.
const LINE_EVERY: Duration = Duration::from_secs(5);

#[derive(Serialize)]
struct Learnt {
    file: String,
    size: usize,
    documents: u64,
    bytes: u64,
}

pub fn tokenizer(tokenizer: &DataTokenizer, threads: usize, output: Output) -> anyhow::Result<Verdict> {
    let file = tokenizer.output.display().to_string();
    anyhow::ensure!(!tokenizer.output.exists(), "{file} exists: give another name, or remove it first");
    let folder = data::folder_of(&tokenizer.output);
    let begin = || {
        data::unfinished_file(folder).map_err(|error| anyhow::anyhow!("{file} cannot be written: {error}"))
    };
    // Before minutes of work: a place where nothing can be written is told at once.
    drop(begin()?);
    end_at_once(output)?;
    machine::use_threads(threads)?;
    let source =
        Source { paths: tokenizer.paths.clone(), field: tokenizer.field.clone(), ..Source::default() };
    let repeated = source.repeated()?.len();
    if repeated > 0 {
        output.remark(format!("{repeated} of the files are named more than once and read once"));
    }
    let mut told = Instant::now();
    let mut progress = |sample: SampleSize| {
        if told.elapsed() >= LINE_EVERY {
            told = Instant::now();
            output.remark(format!(
                "read {} documents, {:.0} MB",
                sample.documents,
                sample.bytes as f64 / 1e6
            ));
        }
    };
    let trained = train_tokenizer(&source, tokenizer.size, tokenizer.sample_bytes, &mut progress)?;
    let mut written = begin()?;
    written.write_all(trained.json.as_bytes())?;
    written.as_file().sync_all()?;
    written
        .persist_noclobber(&tokenizer.output)
        .map_err(|error| anyhow::anyhow!("{file} cannot be written: {}", error.error))?;
    if trained.size < tokenizer.size {
        output.remark(format!(
            "the text has pairs for {} ids only, not for {}: give more text, or be content",
            trained.size, tokenizer.size
        ));
    }
    let learnt =
        Learnt { file, size: trained.size, documents: trained.sample.documents, bytes: trained.sample.bytes };
    output.result(&learnt, || {
        format!(
            "wrote {}: {} ids, learnt from {} documents, {} bytes; next:\n  sakiyomi train run.toml data.tokenizer={}",
            learnt.file, learnt.size, learnt.documents, learnt.bytes, learnt.file
        )
    })?;
    Ok(Verdict::Done)
}
