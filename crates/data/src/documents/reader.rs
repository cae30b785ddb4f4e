//! The text of a file, unpacked and checked, a piece at a time.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;

use super::zstandard::Frames;
use crate::error::{Error, Result};
use crate::source::{Compression, TextFile};

/// The longest line or document that is read, in bytes: it must be held in memory as a whole.
pub const MOST_DOCUMENT_BYTES: usize = 32 << 20;

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 1 << 16;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads the text of a file from its beginning, without a byte order mark.
///
/// NUL bytes are refused although UTF-8 allows them: where they stand in a file, it is UTF-16 or no text, and a
/// model would silently learn them.
pub(super) struct TextReader {
    reader: BufReader<Box<dyn Read + Send>>,
    path: PathBuf,
    compressed: bool,
    /// Bytes of text given out.
    offset: u64,
    /// Number of the line that stands there, from 1.
    line: usize,
    /// The beginning of a character whose end has not been read yet.
    unfinished: Vec<u8>,
}

impl TextReader {
    /// # Errors
    /// If the file cannot be opened, or its packing not understood.
    pub(super) fn open(file: &TextFile) -> Result<Self> {
        let opened = fs_err::File::open(&file.path)?;
        let reader: Box<dyn Read + Send> = match file.format.compression {
            Compression::None => Box::new(opened),
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::new(opened))),
            Compression::Zstandard => Box::new(Frames::new(BufReader::new(opened))),
        };
        let mut reader = Self {
            reader: BufReader::with_capacity(CHUNK_BYTES, reader),
            path: file.path.clone(),
            compressed: file.format.compression != Compression::None,
            offset: 0,
            line: 1,
            unfinished: Vec::new(),
        };
        let start = reader.buffered()?.starts_with(BYTE_ORDER_MARK);
        if start {
            reader.reader.consume(BYTE_ORDER_MARK.len());
            reader.offset = BYTE_ORDER_MARK.len() as u64;
        }
        Ok(reader)
    }

    /// Appends the next stretch of text; false at the end of the file.
    ///
    /// # Errors
    /// If the file cannot be read, or is no text.
    pub(super) fn more(&mut self, text: &mut String) -> Result<bool> {
        let held = std::mem::take(&mut self.unfinished);
        let fresh = self.buffered()?;
        let taken = fresh.len();
        let mut bytes = held;
        bytes.extend_from_slice(fresh);
        self.reader.consume(taken);
        let valid = match std::str::from_utf8(&bytes) {
            Ok(_) => bytes.len(),
            // A character that the next stretch may finish.
            Err(error) if error.error_len().is_none() && taken > 0 => error.valid_up_to(),
            Err(error) => return Err(self.not_utf8(&bytes, error.valid_up_to())),
        };
        self.refuse_nul(&bytes[..valid])?;
        self.unfinished = bytes.split_off(valid);
        self.pass(&bytes);
        // Checked just above; a second look costs little beside reading.
        text.push_str(&String::from_utf8_lossy(&bytes));
        Ok(taken > 0)
    }

    /// Reads the next line without its end; its number, or `None` at the end of the file.
    ///
    /// # Errors
    /// If the file cannot be read, or the line is no text or longer than [`MOST_DOCUMENT_BYTES`].
    pub(super) fn line(&mut self, line: &mut Vec<u8>) -> Result<Option<usize>> {
        line.clear();
        let limit = MOST_DOCUMENT_BYTES as u64 + 1;
        let read = (&mut self.reader).take(limit).read_until(b'\n', line);
        read.map_err(|error| self.broken(error))?;
        if line.is_empty() {
            return Ok(None);
        }
        if line.len() > MOST_DOCUMENT_BYTES {
            return Err(Error::LineTooLong {
                path: self.path.clone(),
                line: self.line,
                most: MOST_DOCUMENT_BYTES,
            });
        }
        if let Err(error) = std::str::from_utf8(line) {
            return Err(self.not_utf8(line, error.valid_up_to()));
        }
        self.refuse_nul(line)?;
        let number = self.line;
        self.pass(line);
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        Ok(Some(number))
    }

    /// Where the text not yet given out begins.
    pub(super) fn place(&self) -> (PathBuf, usize) {
        (self.path.clone(), self.line)
    }

    fn buffered(&mut self) -> Result<&[u8]> {
        match self.reader.fill_buf() {
            Ok(_) => Ok(self.reader.buffer()),
            Err(error) => Err(self.broken(error)),
        }
    }

    fn pass(&mut self, bytes: &[u8]) {
        self.offset += bytes.len() as u64;
        self.line += line_ends(bytes);
    }

    fn refuse_nul(&self, bytes: &[u8]) -> Result<()> {
        match bytes.iter().position(|&byte| byte == 0) {
            None => Ok(()),
            Some(at) => Err(Error::NulByte {
                path: self.path.clone(),
                line: self.line + line_ends(&bytes[..at]),
                offset: self.offset + at as u64,
            }),
        }
    }

    fn not_utf8(&self, bytes: &[u8], valid: usize) -> Error {
        Error::NotUtf8 {
            path: self.path.clone(),
            line: self.line + line_ends(&bytes[..valid]),
            offset: self.offset + valid as u64,
        }
    }

    fn broken(&self, error: std::io::Error) -> Error {
        if !self.compressed {
            return error.into();
        }
        Error::Packed {
            path: self.path.clone(),
            line: self.line,
            // Libraries tell what they met inside, in lines of their own.
            reason: error.to_string().replace('\n', " "),
        }
    }
}

fn line_ends(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&byte| byte == b'\n').count()
}
