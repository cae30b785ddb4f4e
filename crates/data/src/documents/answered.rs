//! Files of prompts and answers: one example a line, as text or as a JSON object.

use super::Part;
use super::json_lines::object;
use super::reader::TextReader;
use crate::error::{Error, Result};
use crate::examples::Examples;
use crate::source::{Layout, TextFile};

/// The examples of a file.
pub(super) struct Lines {
    reader: TextReader,
    file: TextFile,
    examples: Examples,
    line: Vec<u8>,
}

impl Lines {
    pub(super) fn open(file: &TextFile, examples: &Examples) -> Result<Self> {
        let reader = TextReader::open(file)?;
        Ok(Self { reader, file: file.clone(), examples: examples.clone(), line: Vec::new() })
    }

    fn read(&mut self) -> Result<Option<Part>> {
        while let Some(place) = self.reader.line(&mut self.line)? {
            let found = match self.file.format.layout {
                Layout::JsonLines => object(&self.line)
                    .and_then(|object| object.map(|object| self.examples.of_object(&object)).transpose()),
                Layout::Plain | Layout::Parquet => {
                    // The reader refuses what is no UTF-8.
                    let line = String::from_utf8_lossy(&self.line);
                    (!line.trim().is_empty()).then(|| self.examples.of_line(&line)).transpose()
                }
            };
            match found {
                Ok(None) => {}
                Ok(Some((text, learnt))) => return Ok(Some(Part { place, text, learnt })),
                Err(reason) => {
                    return Err(Error::JsonLine { path: self.file.path.clone(), line: place, reason });
                }
            }
        }
        Ok(None)
    }
}

impl Iterator for Lines {
    type Item = Result<Part>;

    fn next(&mut self) -> Option<Result<Part>> {
        self.read().transpose()
    }
}
