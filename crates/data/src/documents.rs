//! Files into documents, one at a time.
//!
//! A document is what a model may see at once: nothing is predicted from one document into the next. However
//! large a corpus is, only the document at hand is in memory, and no document may be longer than
//! [`MOST_DOCUMENT_BYTES`].

mod answered;
mod json_lines;
#[cfg(feature = "parquet")]
mod parquet;
mod plain;
mod reader;
mod zstandard;

use crate::error::{Error, Result};
use crate::examples::Learnt;
use crate::source::{Layout, Source, TextFile};

pub use json_lines::json_line;
pub(crate) use json_lines::no_field;
pub(crate) use plain::pieces;
pub use reader::MOST_DOCUMENT_BYTES;

/// A piece of text that stands for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Index of its file in [`Documents::files`].
    pub file: usize,
    /// Line, part or row of the file, from 1; 0 where the file is one document.
    pub place: usize,
    /// The text, never blank.
    pub text: String,
    /// Which part of it is learnt.
    pub learnt: Learnt,
}

/// The documents of a source, in order; ends after the first error.
pub struct Documents {
    source: Source,
    files: Vec<TextFile>,
    /// Index of the file behind the open one.
    next: usize,
    open: Option<Parts>,
    /// Whether a document has been found.
    found: bool,
    ended: bool,
}

type Parts = Box<dyn Iterator<Item = Result<Part>> + Send>;

/// A document within its file.
struct Part {
    place: usize,
    text: String,
    learnt: Learnt,
}

impl Documents {
    /// Begins to read.
    ///
    /// # Errors
    ///
    /// As [`Source::files`]. Iteration gives an error if a file cannot be read, is no UTF-8 or holds NUL bytes,
    /// a line is no JSON object with that field, a line or document is longer than [`MOST_DOCUMENT_BYTES`], or
    /// nothing but blank text is found.
    pub fn of(source: &Source) -> Result<Self> {
        let files = source.files()?;
        Ok(Self { source: source.clone(), files, next: 0, open: None, found: false, ended: false })
    }

    /// Where a document stands, as messages name it: its file, and the line, part or row in it.
    pub fn place(&self, document: &Document) -> String {
        self.named(document.file, document.place)
    }

    fn named(&self, file: usize, place: usize) -> String {
        let TextFile { path, format } = &self.files[file];
        // Prompts and answers stand in lines.
        let lines = format.layout == Layout::Plain && self.source.examples.are_answered();
        format!("{}{}{place}", path.display(), if lines { ":" } else { format.layout.joint() })
    }

    /// The files that are read, in order.
    pub fn files(&self) -> &[TextFile] {
        &self.files
    }

    fn read(&mut self) -> Result<Option<Document>> {
        loop {
            if let Some(parts) = &mut self.open {
                if let Some(part) = parts.next() {
                    let Part { place, text, learnt } = part?;
                    self.refuse_nul(&text, place)?;
                    self.found = true;
                    return Ok(Some(Document { file: self.next - 1, place, text, learnt }));
                }
                self.open = None;
            }
            let Some(file) = self.files.get(self.next) else { break };
            self.open = Some(open(file, &self.source)?);
            self.next += 1;
        }
        if self.found { Ok(None) } else { Err(Error::NoText { what: self.source.describe() }) }
    }
}

impl Documents {
    /// Files with NUL bytes are refused as they are read; a quoted text can hold one all the same (`\u0000` in JSON).
    fn refuse_nul(&self, text: &str, place: usize) -> Result<()> {
        if !text.contains('\0') {
            return Ok(());
        }
        Err(Error::NulCharacter { place: self.named(self.next - 1, place) })
    }
}

impl Iterator for Documents {
    type Item = Result<Document>;

    fn next(&mut self) -> Option<Result<Document>> {
        if self.ended {
            return None;
        }
        let read = self.read().transpose();
        self.ended = !matches!(read, Some(Ok(_)));
        read
    }
}

fn open(file: &TextFile, source: &Source) -> Result<Parts> {
    Ok(match file.format.layout {
        #[cfg(feature = "parquet")]
        Layout::Parquet if source.examples.are_answered() => {
            Box::new(parquet::Answered::open(file, &source.examples)?)
        }
        Layout::Plain | Layout::JsonLines if source.examples.are_answered() => {
            Box::new(answered::Lines::open(file, &source.examples)?)
        }
        Layout::Plain => Box::new(plain::PlainText::open(file, source)?),
        Layout::JsonLines => Box::new(json_lines::JsonLines::open(file, &source.field)?),
        #[cfg(feature = "parquet")]
        Layout::Parquet => Box::new(parquet::Rows::open(file, &source.field)?),
        #[cfg(not(feature = "parquet"))]
        Layout::Parquet => return Err(Error::NoParquet { path: file.path.clone() }),
    })
}
