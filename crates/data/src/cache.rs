//! Tokens on disk, so that a second run starts at once.
//!
//! One file per combination of paths, settings and vocabulary; inside it stands what the source files looked
//! like, and when that changes the file is written again. A damaged file is written again as well.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::corpus::Corpus;
use crate::digest::Digest;
use crate::documents::read_documents;
use crate::error::{Error, Result};
use crate::source::Source;
use crate::vocabulary::Vocabulary;

/// Changes when the layout of the file does.
const MAGIC: &[u8; 8] = b"sakitok1";

/// Where a corpus came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheOutcome {
    /// No folder was given.
    NotUsed,
    /// Read from this file.
    Read(PathBuf),
    /// Tokenised and written to this file.
    Written(PathBuf, Reason),
    /// Tokenised, but the file could not be written; the next run tokenises again.
    NotWritten(String),
}

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
/// # Errors
///
/// If the source cannot be read. A cache that cannot be written is no error.
pub fn load_or_build(
    cache_folder: Option<&Path>,
    source: &Source,
    vocabulary: &Vocabulary,
) -> Result<(Corpus, CacheOutcome)> {
    let build =
        || read_documents(source).and_then(|documents| Corpus::from_documents(&documents, vocabulary));
    let Some(folder) = cache_folder else { return Ok((build()?, CacheOutcome::NotUsed)) };
    let key = Key::of(source, vocabulary)?;
    let path = folder.join(format!("tokens-{:032x}.bin", key.settings));
    let reason = match fs_err::read(&path) {
        Err(_) => Reason::New,
        Ok(bytes) => match decode(&bytes, key) {
            Ok(corpus) => return Ok((corpus, CacheOutcome::Read(path))),
            Err(reason) => reason,
        },
    };
    let corpus = build()?;
    let outcome = match write(folder, &path, &encode(&corpus, key)) {
        Ok(()) => CacheOutcome::Written(path, reason),
        Err(error) => CacheOutcome::NotWritten(error.to_string()),
    };
    Ok((corpus, outcome))
}

/// What the cached tokens depend on.
#[derive(Clone, Copy)]
struct Key {
    /// Of paths, settings and vocabulary: names the file.
    settings: u128,
    /// Of the files' sizes and times: stands in the file.
    files: u128,
}

impl Key {
    fn of(source: &Source, vocabulary: &Vocabulary) -> Result<Self> {
        let mut settings = Digest::new();
        settings.text(&vocabulary.fingerprint()).text(&source.field);
        settings.text(source.separator.as_deref().unwrap_or_default());
        settings.number(source.longest_document_bytes as u64);
        for path in &source.paths {
            // Relative paths name other files in another working folder.
            let path = if path.exists() { fs_err::canonicalize(path)? } else { path.clone() };
            settings.text(&path.to_string_lossy());
        }
        let mut files = Digest::new();
        for file in source.files()? {
            let metadata = fs_err::metadata(&file.path)?;
            let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            let age = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            files.text(&file.path.to_string_lossy()).number(metadata.len());
            files.number(age.as_secs()).number(u64::from(age.subsec_nanos()));
        }
        Ok(Self { settings: settings.value(), files: files.value() })
    }
}

/// Magic, key of the files, payload, and the digest of all of it. Numbers are little-endian.
fn encode(corpus: &Corpus, key: Key) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(corpus.tokens.len() * 4 + corpus.ends.len() * 64 + 64);
    bytes.extend(MAGIC);
    bytes.extend(key.files.to_le_bytes());
    bytes.extend((corpus.tokens.len() as u64).to_le_bytes());
    bytes.extend((corpus.ends.len() as u64).to_le_bytes());
    for document in 0..corpus.documents() {
        let name = corpus.name(document).as_bytes();
        bytes.extend((corpus.ends[document] as u64).to_le_bytes());
        bytes.extend(corpus.text_bytes[document].to_le_bytes());
        bytes.extend((name.len() as u64).to_le_bytes());
        bytes.extend(name);
    }
    for token in &corpus.tokens {
        bytes.extend(token.to_le_bytes());
    }
    let digest = Digest::new().bytes(&bytes).value();
    bytes.extend(digest.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8], key: Key) -> std::result::Result<Corpus, Reason> {
    let (body, digest) = bytes.split_last_chunk::<16>().ok_or(Reason::Damaged)?;
    if Digest::new().bytes(body).value() != u128::from_le_bytes(*digest) {
        return Err(Reason::Damaged);
    }
    let mut reader = Reader(body);
    if reader.take(MAGIC.len()) != Some(MAGIC) {
        return Err(Reason::Damaged);
    }
    if reader.take(16) != Some(&key.files.to_le_bytes()) {
        return Err(Reason::SourceChanged);
    }
    reader.corpus().ok_or(Reason::Damaged)
}

/// Reads from the front of a slice; `None` where it is too short.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u64> {
        let (taken, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*taken))
    }

    fn size(&mut self) -> Option<usize> {
        usize::try_from(self.number()?).ok()
    }

    fn corpus(mut self) -> Option<Corpus> {
        let tokens = self.size()?;
        let documents = self.size()?;
        let mut corpus = Corpus::default();
        for _ in 0..documents {
            corpus.ends.push(self.size()?);
            corpus.text_bytes.push(self.number()?);
            let length = self.size()?;
            corpus.names.push(String::from_utf8(self.take(length)?.to_vec()).ok()?);
        }
        let (words, rest) = self.0.as_chunks::<4>();
        corpus.tokens = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
        let whole = rest.is_empty()
            && corpus.tokens.len() == tokens
            && corpus.ends.is_sorted()
            && corpus.ends.last().is_none_or(|&end| end == tokens);
        whole.then_some(corpus)
    }
}

/// Writes under a temporary name and renames: a reader sees the old file or the new one.
fn write(folder: &Path, path: &Path, bytes: &[u8]) -> Result<()> {
    fs_err::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.persist(path).map_err(|error| Error::Io(error.error))?;
    Ok(())
}
