//! Tokens on disk: made once, read where they are needed, and there for the next run.
//!
//! One file per combination of paths, settings and vocabulary; inside it stands what the source files looked
//! like, and when that changes the file is written again. So is a damaged file: all its tokens are checked
//! when it is opened. A file gets its name when it is whole, so that several runs can make the same one at
//! once: the last one stays, and whoever has another open keeps reading that.

mod layout;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rayon::prelude::*;

use crate::corpus::Corpus;
use crate::digest::Digest;
use crate::documents::{Document, Documents};
use crate::error::{Error, Result};
use crate::examples;
use crate::source::{Source, TextFile};
use crate::unfinished;
use crate::vocabulary::Vocabulary;
use layout::Writer;

/// Text that is tokenised at once, in bytes: what is in memory beside the 32 bytes for each document.
const BYTES_AT_ONCE: usize = 4 << 20;

/// Beginning of the names of files that are not whole yet.
const PART: &str = "part-";

/// Where a corpus came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheOutcome {
    /// No folder was given.
    NotUsed,
    /// Read from this file.
    Read(PathBuf),
    /// Tokenised and written to this file.
    Written(PathBuf, Reason),
    /// Tokenised into a temporary file; the next run tokenises again.
    NotKept(String),
}

/// How far a text is tokenised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokenised {
    /// Documents so far.
    pub documents: u64,
    /// Bytes of text so far.
    pub text_bytes: u64,
    /// Tokens so far.
    pub tokens: u64,
    /// Bytes of all files, as they lie on disk: packed text is larger.
    pub file_bytes: u64,
}

/// Is told how far a text is; false stops.
pub type Watch<'a> = &'a mut dyn FnMut(Tokenised) -> bool;

/// Why the text was tokenised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// There was no file yet.
    New,
    /// A source file has another size or time than when the cache was written.
    SourceChanged,
    /// The cache file was cut short or altered.
    Damaged,
}

/// The tokens of a source, from the cache where it holds them.
///
/// Where the folder cannot be used the tokens go to the system's folder for temporary files, and are gone with
/// the [`Corpus`].
///
/// # Errors
///
/// If the source cannot be read, or there is no room for the tokens.
pub fn load_or_build(
    cache_folder: Option<&Path>,
    source: &Source,
    vocabulary: &Vocabulary,
) -> Result<(Corpus, CacheOutcome)> {
    load_or_build_watched(cache_folder, source, vocabulary, &mut |_| true)
}

/// As [`load_or_build`]; tells `watch` how far it is after every few megabytes of text, and stops when that wants it,
/// leaving nothing behind.
///
/// # Errors
///
/// As [`load_or_build`], and [`Error::Stopped`].
pub fn load_or_build_watched(
    cache_folder: Option<&Path>,
    source: &Source,
    vocabulary: &Vocabulary,
    watch: Watch,
) -> Result<(Corpus, CacheOutcome)> {
    let documents = Documents::of(source)?;
    let key = Key::of(source, documents.files(), vocabulary)?;
    let Some(folder) = cache_folder else {
        return Ok((build_unnamed(documents, vocabulary, key, watch)?, CacheOutcome::NotUsed));
    };
    let name = format!("tokens-{:032x}.bin", key.settings);
    let path = folder.join(&name);
    let reason = match File::open(&path) {
        Err(_) => Reason::New,
        Ok(file) => match layout::read(file, &path, key.files) {
            Ok(corpus) => {
                let answered = key.answered;
                return Ok((Corpus { answered, ..corpus }, CacheOutcome::Read(path)));
            }
            Err(reason) => reason,
        },
    };
    let missing: Vec<&Path> = folder.ancestors().take_while(|folder| !folder.exists()).collect();
    let part = match begin_part(folder, &name) {
        Ok(part) => part,
        Err(error) => {
            let corpus = build_unnamed(documents, vocabulary, key, watch)?;
            return Ok((corpus, CacheOutcome::NotKept(error.to_string())));
        }
    };
    let file = part.as_file().try_clone()?;
    let corpus = match build(documents, vocabulary, key, file, &path, watch) {
        Ok(corpus) => corpus,
        Err(error) => {
            drop(part);
            // Text that cannot be used leaves no folders behind; those that hold something stay.
            missing.iter().for_each(|folder| _ = std::fs::remove_dir(folder));
            return Err(error);
        }
    };
    Ok(match part.persist(&path) {
        Ok(_) => (corpus, CacheOutcome::Written(path, reason)),
        Err(error) => (corpus, CacheOutcome::NotKept(error.error.to_string())),
    })
}

/// A new file for tokens, locked for as long as it is written; what runs that were killed left behind is removed.
fn begin_part(folder: &Path, name: &str) -> Result<tempfile::NamedTempFile> {
    fs_err::create_dir_all(folder)?;
    for entry in fs_err::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(PART.as_bytes()) {
            continue;
        }
        // Whoever still writes a part holds its lock.
        let abandoned = File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok());
        if abandoned {
            // If it stays, it only takes room.
            let _ = fs_err::remove_file(entry.path());
        }
    }
    let part = unfinished::shared(tempfile::Builder::new().prefix(PART).suffix(name)).tempfile_in(folder)?;
    // A file system without locks only loses the cleaning up.
    let _ = part.as_file().lock();
    Ok(part)
}

fn build_unnamed(documents: Documents, vocabulary: &Vocabulary, key: Key, watch: Watch) -> Result<Corpus> {
    let folder = std::env::temp_dir();
    let file = tempfile::tempfile_in(&folder).map_err(|reason| Error::TokensNotWritten {
        folder: folder.clone(),
        temporary: true,
        reason,
    })?;
    let built = build(documents, vocabulary, key, file, &folder.join("tokens"), watch);
    built.map_err(|error| match error {
        Error::TokensNotWritten { folder, reason, .. } => {
            Error::TokensNotWritten { folder, temporary: true, reason }
        }
        error => error,
    })
}

/// Tokenises all documents into a file, each with the vocabulary's begin and end tokens around it.
fn build(
    mut documents: Documents,
    vocabulary: &Vocabulary,
    key: Key,
    file: File,
    path: &Path,
    watch: Watch,
) -> Result<Corpus> {
    let failed = |reason| Error::TokensNotWritten {
        folder: path.parent().unwrap_or(Path::new(".")).to_path_buf(),
        temporary: false,
        reason,
    };
    let mut done = Tokenised { file_bytes: key.file_bytes, ..Tokenised::default() };
    // Marks take the highest bit of a token.
    let ids = if key.answered { 1 << 32 } else { vocabulary.size() };
    let mut writer = Writer::begin(file, key.files, ids, documents.files()).map_err(failed)?;
    loop {
        let some = take(&mut documents)?;
        if some.is_empty() {
            let corpus = writer.finish(path).map_err(failed)?;
            return Ok(Corpus { answered: key.answered, ..corpus });
        }
        let encoded: Vec<(Vec<u32>, u64)> = some
            .par_iter()
            .map(|Document { text, learnt, .. }| {
                let tokens = examples::encode(vocabulary, text, learnt)?;
                let lost = examples::lost_bytes(vocabulary, text, learnt, &tokens)?;
                Ok((tokens, lost))
            })
            .collect::<Result<_>>()?;
        for (document, (tokens, lost)) in some.iter().zip(&encoded) {
            writer.document(document, tokens, *lost).map_err(failed)?;
            done.documents += 1;
            done.text_bytes += document.text.len() as u64;
            done.tokens += tokens.len() as u64;
        }
        if !watch(done) {
            return Err(Error::Stopped);
        }
    }
}

/// The next documents, as many as are tokenised at once; none at the end.
fn take(documents: &mut Documents) -> Result<Vec<Document>> {
    let mut some = Vec::new();
    let mut bytes = 0;
    while bytes < BYTES_AT_ONCE
        && let Some(document) = documents.next().transpose()?
    {
        bytes += document.text.len() + size_of::<Document>();
        some.push(document);
    }
    Ok(some)
}

/// What the cached tokens depend on.
#[derive(Clone, Copy)]
struct Key {
    /// Of paths, settings and vocabulary: names the file.
    settings: u128,
    /// Of the files' sizes and times: stands in the file.
    files: u128,
    /// Of all files together.
    file_bytes: u64,
    /// Whether the tokens that are not learnt are marked.
    answered: bool,
}

impl Key {
    fn of(source: &Source, read: &[TextFile], vocabulary: &Vocabulary) -> Result<Self> {
        let mut settings = Digest::new();
        settings.text(&vocabulary.fingerprint()).text(&source.field);
        settings.text(source.separator.as_deref().unwrap_or_default());
        settings.number(source.longest_document_bytes as u64);
        if source.examples.are_answered() {
            settings.text(&serde_json::to_string(&source.examples).map_err(std::io::Error::from)?);
        }
        for path in &source.paths {
            // Relative paths name other files in another working folder.
            let path = if path.exists() { fs_err::canonicalize(path)? } else { std::path::absolute(path)? };
            settings.text(&path.to_string_lossy());
        }
        let mut files = Digest::new();
        let mut file_bytes = 0;
        for file in read {
            let metadata = fs_err::metadata(&file.path)?;
            let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            file_bytes += metadata.len();
            let age = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            files.text(&file.path.to_string_lossy()).number(metadata.len());
            files.number(age.as_secs()).number(u64::from(age.subsec_nanos()));
        }
        let answered = source.examples.are_answered();
        Ok(Self { settings: settings.value(), files: files.value(), file_bytes, answered })
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().join("a.txt");
        fs_err::write(&text, "some text").unwrap();
        let source = Source::path(text);
        let documents = Documents::of(&source).unwrap();
        let key = Key::of(&source, documents.files(), &Vocabulary::bytes()).unwrap();
        // The device that is always full.
        let full = File::options().write(true).open("/dev/full").unwrap();
        let path = folder.path().join("cache/tokens.bin");
        let message =
            build(documents, &Vocabulary::bytes(), key, full, &path, &mut |_| true).unwrap_err().to_string();
        assert!(message.contains("cache: No space left on device"), "{message}");
        assert!(message.contains("data.cache") && !message.contains('\n'), "{message}");
    }

    #[test]
    fn parts_that_nobody_writes_are_removed_and_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        let left = folder.path().join("part-left.bin");
        fs_err::write(&left, "half").unwrap();
        let first = begin_part(folder.path(), "one.bin").unwrap();
        assert!(!left.exists());
        let second = begin_part(folder.path(), "one.bin").unwrap();
        assert!(first.path().exists() && second.path().exists());
    }
}
