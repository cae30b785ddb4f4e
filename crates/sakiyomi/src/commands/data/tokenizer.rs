//! `sakiyomi data tokenizer`: a vocabulary learnt from the user's text.

use std::io::Write;
use std::time::{Duration, Instant};

use data::vocabulary::{LEAST_SAMPLE_BYTES, SIZES, SampleSize, train_tokenizer};
use data::{Source, Unfinished};
use serde::Serialize;

use crate::arguments::DataTokenizer;
use crate::commands::machine;
use crate::commands::new_folder::absent;
use crate::commands::train::{quoted, typed_texts};
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

/// What would be learnt.
#[derive(Serialize)]
struct Planned {
    file: String,
    size: usize,
    files: usize,
    file_bytes: u64,
}

impl Planned {
    fn text(&self) -> String {
        format!(
            "would write {} with up to {} ids, learnt from {} files of {} bytes (dry run)",
            self.file, self.size, self.files, self.file_bytes
        )
    }
}

pub fn tokenizer(tokenizer: &DataTokenizer, threads: usize, output: Output) -> anyhow::Result<Verdict> {
    let file = tokenizer.output.display().to_string();
    absent(&tokenizer.output)?;
    let (least, most) = SIZES.into_inner();
    anyhow::ensure!(SIZES.contains(&tokenizer.size), "--size {}: give {least} to {most}", tokenizer.size);
    anyhow::ensure!(
        tokenizer.sample_bytes >= LEAST_SAMPLE_BYTES,
        "--sample-bytes {}: give at least {LEAST_SAMPLE_BYTES}",
        tokenizer.sample_bytes
    );
    // Before minutes of work: a place where nothing can be written is told at once.
    drop(Unfinished::begin(&tokenizer.output)?);
    end_at_once(output, None)?;
    machine::use_threads(threads)?;
    let source =
        Source { paths: tokenizer.paths.clone(), field: tokenizer.field.clone(), ..Source::default() };
    let repeated = source.repeated()?.len();
    if repeated > 0 {
        output.remark(format!("{repeated} of the files are named more than once and read once"));
    }
    if tokenizer.dry_run {
        let files = source.files()?;
        let bytes = files.iter().map(|file| Ok(fs_err::metadata(&file.path)?.len()));
        let planned = Planned {
            file,
            size: tokenizer.size,
            files: files.len(),
            file_bytes: bytes.sum::<anyhow::Result<u64>>()?,
        };
        output.result(&planned, || planned.text())?;
        return Ok(Verdict::Done);
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
    let mut written = Unfinished::begin(&tokenizer.output)?;
    written.write_all(trained.json.as_bytes())?;
    written.finish_new()?;
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
            "wrote {}: {} ids, learnt from {} documents, {} bytes; to train with it by the run file run.toml:\n  \
             sakiyomi train run.toml {} {}",
            learnt.file,
            learnt.size,
            learnt.documents,
            learnt.bytes,
            quoted(&format!("data.tokenizer={}", learnt.file)),
            typed_texts(&tokenizer.paths)
        )
    })?;
    Ok(Verdict::Done)
}
