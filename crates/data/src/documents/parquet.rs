//! Apache Parquet: one column of texts, one document a row; or prompts and answers, an example a row.
//!
//! Columns are read directly and not through the library's rows, which take damaged text for a fault of the
//! program.

mod answered;
mod column;

use std::fs::File;

use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};

use super::Part;
use super::json_lines::no_field;
use super::reader::MOST_DOCUMENT_BYTES;
use crate::error::{Error, Result};
use crate::examples::Learnt;
use crate::source::TextFile;
pub(super) use answered::Answered;
use column::Column;

/// An open file.
struct Table {
    reader: SerializedFileReader<File>,
    file: TextFile,
    /// In bytes.
    length: u64,
    /// Rows given out.
    row: usize,
}

impl Table {
    fn open(file: &TextFile) -> Result<Self> {
        let opened = fs_err::File::open(&file.path)?.into_file();
        let length = opened.metadata()?.len();
        let reader = SerializedFileReader::new(opened).map_err(|error| Error::Parquet {
            path: file.path.clone(),
            reason: format!("is no whole .parquet file: {}", one_line(&error)),
        })?;
        Ok(Self { reader, file: file.clone(), length, row: 0 })
    }

    /// Column `index`; `None` if it holds no strings.
    fn column(&self, index: usize) -> Result<Option<Column>> {
        Column::of(&self.reader, index, self.length).map_err(|reason| self.wrong(reason))
    }

    /// What a cell of the row given out last says.
    fn text(&self, bytes: &ByteArray) -> Result<String> {
        if bytes.len() > MOST_DOCUMENT_BYTES {
            return Err(self.wrong_row(&format!("the text is longer than {MOST_DOCUMENT_BYTES} bytes")));
        }
        let text = std::str::from_utf8(bytes.data()).map_err(|error| {
            self.wrong_row(&format!("is not UTF-8 at byte {} of the text", error.valid_up_to()))
        })?;
        Ok(text.to_owned())
    }

    /// An error of the file.
    fn wrong(&self, reason: String) -> Error {
        Error::Parquet { path: self.file.path.clone(), reason }
    }

    /// An error at the row given out last.
    fn wrong_row(&self, reason: &str) -> Error {
        self.wrong(format!("row {}: {reason}", self.row))
    }

    fn damaged(&self, error: &ParquetError) -> Error {
        self.wrong_row(&one_line(error))
    }
}

/// The documents of a `.parquet` file.
pub(super) struct Rows {
    table: Table,
    field: String,
    column: Column,
}

impl Rows {
    pub(super) fn open(file: &TextFile, field: &str) -> Result<Self> {
        let table = Table::open(file)?;
        let schema = table.reader.metadata().file_metadata().schema_descr_ptr();
        let Some(index) = schema.columns().iter().position(|column| column.path().string() == field) else {
            let there: Vec<String> =
                schema.columns().iter().map(|column| format!("{:?}", column.path().string())).collect();
            return Err(table.wrong(no_field(field, &there)));
        };
        match table.column(index)? {
            Some(column) if !column.is_list() => Ok(Self { table, field: field.to_owned(), column }),
            _ => Err(table.wrong(format!("the column {field:?} does not hold one text a row"))),
        }
    }

    fn read(&mut self) -> Result<Option<Part>> {
        loop {
            let row = self.column.next(&self.table.reader).map_err(|error| self.table.damaged(&error))?;
            let Some(row) = row else { return Ok(None) };
            self.table.row += 1;
            let [Some(bytes)] = row.as_slice() else {
                let reason = format!("the field {:?} is no string but null", self.field);
                return Err(self.table.wrong_row(&reason));
            };
            let text = self.table.text(bytes)?;
            if !text.trim().is_empty() {
                return Ok(Some(Part { place: self.table.row, text, learnt: Learnt::All }));
            }
        }
    }
}

impl Iterator for Rows {
    type Item = Result<Part>;

    fn next(&mut self) -> Option<Result<Part>> {
        self.read().transpose()
    }
}

fn one_line(error: &ParquetError) -> String {
    error.to_string().replace('\n', " ")
}
