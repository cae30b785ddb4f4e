//! The demo's text: tales of our own making, or the user's.

use std::io::Write;
use std::path::{Path, PathBuf};

use data::{Corpus, Source, Unfinished, Vocabulary, repeated_span_share};
use report::{CorpusFigures, RepeatedSpans};
use train::RunConfig;
use train::prepare::SplitText;

use crate::commands::figures::text_bytes;

/// Size of the generated corpus.
const BYTES: usize = 6_000_000;

/// Length of the spans by which text that was learnt by heart would show.
const SPAN_BYTES: usize = 48;

/// Documents that a text of one piece is cut into, so that some can be held out.
const DOCUMENTS: u64 = 40;

/// Lengths of documents that are neither too short to predict in nor longer than runs take by default, in bytes.
const LONGEST_DOCUMENT: std::ops::RangeInclusive<u64> = 512..=32768;

/// At how many bytes the documents of the user's text are cut.
///
/// # Errors
///
/// If there is no such text.
pub fn longest_document_bytes(paths: &[PathBuf]) -> anyhow::Result<usize> {
    let mut bytes = 0;
    for file in (Source { paths: paths.to_vec(), ..Source::default() }).files()? {
        bytes += fs_err::metadata(&file.path)?.len();
    }
    Ok((bytes / DOCUMENTS).clamp(*LONGEST_DOCUMENT.start(), *LONGEST_DOCUMENT.end()) as usize)
}

/// Where the tales of a run stand.
pub fn file(folder: &Path) -> PathBuf {
    folder.join("tales.jsonl")
}

/// The tales on disk, before there is a run that reads them.
pub struct Tales {
    file: PathBuf,
    /// Folders that were made for them, the inner ones first.
    made: Vec<PathBuf>,
}

/// Writes the tales into the run's folder.
pub fn write(folder: &Path, seed: u64) -> anyhow::Result<Tales> {
    let missing = folder.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists());
    let tales = Tales { file: file(folder), made: missing.map(Path::to_owned).collect() };
    fs_err::create_dir_all(folder)?;
    let written = tales.write(seed);
    if written.is_err() {
        tales.take_back();
    }
    written.map(|()| tales)
}

impl Tales {
    fn write(&self, seed: u64) -> anyhow::Result<()> {
        let mut writer = std::io::BufWriter::new(Unfinished::begin(&self.file)?);
        for tale in data::tales::tales(seed, BYTES) {
            serde_json::to_writer(&mut writer, &serde_json::json!({ "text": tale }))?;
            writeln!(writer)?;
        }
        Ok(writer.into_inner().map_err(std::io::IntoInnerError::into_error)?.finish()?)
    }

    /// Leaves the disk as it was: a demo that never began to train can be begun again under the same name. Folders that hold
    /// something else by now stay.
    pub fn take_back(&self) {
        let _ = std::fs::remove_file(&self.file);
        self.made.iter().for_each(|folder| _ = std::fs::remove_dir(folder));
    }
}

/// Sizes of both parts, and how much of the held-out part stands in the training part.
pub fn figures(
    config: &RunConfig,
    text: &SplitText,
    vocabulary: &Vocabulary,
) -> anyhow::Result<CorpusFigures> {
    let names: Vec<String> = config.data.train.iter().map(|path| path.display().to_string()).collect();
    let train = texts(&text.training, &text.training_documents, vocabulary)?;
    let held_out = texts(&text.held_out, &text.held_out_documents, vocabulary)?;
    let train: Vec<&str> = train.iter().map(String::as_str).collect();
    let held_out: Vec<&str> = held_out.iter().map(String::as_str).collect();
    let looked_up: u64 = held_out.iter().map(|text| (text.len() + 1).saturating_sub(SPAN_BYTES) as u64).sum();
    let share = repeated_span_share(&train, &held_out, SPAN_BYTES);
    Ok(CorpusFigures {
        name: names.join(", "),
        train_bytes: text_bytes(&text.training, &text.training_documents),
        held_out_bytes: text_bytes(&text.held_out, &text.held_out_documents),
        documents: Some((text.training_documents.len() + text.held_out_documents.len()) as u64),
        repeated_spans: Some(RepeatedSpans {
            span_bytes: SPAN_BYTES,
            looked_up,
            found: (share * looked_up as f64).round() as u64,
        }),
    })
}

fn texts(corpus: &Corpus, documents: &[usize], vocabulary: &Vocabulary) -> anyhow::Result<Vec<String>> {
    documents.iter().map(|&document| Ok(vocabulary.decode(&corpus.document(document)?)?)).collect()
}
