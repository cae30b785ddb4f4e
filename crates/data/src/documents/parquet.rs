//! Apache Parquet: one column of texts, one document a row.
//!
//! Columns are read directly and not through the library's rows, which take damaged text for a fault of the
//! program.

use std::fs::File;

use parquet::basic::Type;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};

use super::Part;
use super::json_lines::no_field;
use super::reader::MOST_DOCUMENT_BYTES;
use crate::error::{Error, Result};
use crate::examples::Learnt;
use crate::source::TextFile;

/// Rows that are read at once.
const ROWS_AT_ONCE: usize = 64;

/// The documents of a `.parquet` file.
pub(super) struct Rows {
    reader: SerializedFileReader<File>,
    file: TextFile,
    field: String,
    /// Index of the column.
    column: usize,
    /// Level at which a row has a value.
    present: i16,
    /// Row groups begun.
    groups: usize,
    open: Option<ColumnReaderImpl<ByteArrayType>>,
    /// Rows read and not given out, the next one last.
    rows: Vec<Option<ByteArray>>,
    /// Rows given out.
    number: usize,
}

impl Rows {
    pub(super) fn open(file: &TextFile, field: &str) -> Result<Self> {
        let wrong = |reason: String| Error::Parquet { path: file.path.clone(), reason };
        let opened = fs_err::File::open(&file.path)?.into_file();
        let length = opened.metadata()?.len();
        let reader = SerializedFileReader::new(opened)
            .map_err(|error| wrong(format!("is no whole .parquet file: {}", one_line(&error))))?;
        let schema = reader.metadata().file_metadata().schema_descr_ptr();
        let Some(column) = schema.columns().iter().position(|column| column.path().string() == field) else {
            let there: Vec<String> =
                schema.columns().iter().map(|column| format!("{:?}", column.path().string())).collect();
            return Err(wrong(no_field(field, &there)));
        };
        let description = schema.column(column);
        if description.physical_type() != Type::BYTE_ARRAY || description.max_rep_level() > 0 {
            return Err(wrong(format!("the column {field:?} does not hold one text a row")));
        }
        for (index, group) in reader.metadata().row_groups().iter().enumerate() {
            if !lies_within(group.column(column), length) {
                return Err(wrong(format!(
                    "is no whole .parquet file: the column {field:?} of row group {} lies outside of it",
                    index + 1
                )));
            }
        }
        Ok(Self {
            reader,
            file: file.clone(),
            field: field.to_owned(),
            column,
            present: description.max_def_level(),
            groups: 0,
            open: None,
            rows: Vec::new(),
            number: 0,
        })
    }

    fn read(&mut self) -> Result<Option<Part>> {
        while self.more().map_err(|error| self.wrong(&one_line(&error)))? {
            while let Some(row) = self.rows.pop() {
                self.number += 1;
                let Some(bytes) = row else {
                    return Err(self.wrong(&format!("the field {:?} is no string but null", self.field)));
                };
                if bytes.len() > MOST_DOCUMENT_BYTES {
                    return Err(self.wrong(&format!("the text is longer than {MOST_DOCUMENT_BYTES} bytes")));
                }
                let text = std::str::from_utf8(bytes.data()).map_err(|error| {
                    self.wrong(&format!("is not UTF-8 at byte {} of the text", error.valid_up_to()))
                })?;
                if !text.trim().is_empty() {
                    let learnt = Learnt::All;
                    return Ok(Some(Part { place: self.number, text: text.to_owned(), learnt }));
                }
            }
        }
        Ok(None)
    }

    /// Makes sure that there are rows; false at the end of the file.
    fn more(&mut self) -> std::result::Result<bool, ParquetError> {
        while self.rows.is_empty() {
            let Some(column) = &mut self.open else {
                if self.groups == self.reader.num_row_groups() {
                    return Ok(false);
                }
                let group = self.reader.get_row_group(self.groups)?;
                self.groups += 1;
                match group.get_column_reader(self.column)? {
                    ColumnReader::ByteArrayColumnReader(column) => self.open = Some(column),
                    _ => return Err(ParquetError::General("a row group has another type".to_owned())),
                }
                continue;
            };
            let (mut values, mut levels) = (Vec::new(), Vec::new());
            let wanted = (self.present > 0).then_some(&mut levels);
            let (rows, ..) = column.read_records(ROWS_AT_ONCE, wanted, None, &mut values)?;
            if rows == 0 {
                self.open = None;
            }
            let mut values = values.into_iter();
            if self.present == 0 {
                self.rows.extend(values.map(Some));
            } else {
                let rows =
                    levels.iter().map(|&level| if level == self.present { values.next() } else { None });
                self.rows.extend(rows);
            }
            self.rows.reverse();
        }
        Ok(true)
    }

    /// An error at the row given out last.
    fn wrong(&self, reason: &str) -> Error {
        Error::Parquet { path: self.file.path.clone(), reason: format!("row {}: {reason}", self.number) }
    }
}

impl Iterator for Rows {
    type Item = Result<Part>;

    fn next(&mut self) -> Option<Result<Part>> {
        self.read().transpose()
    }
}

/// Whether a column stands within the file; the library takes one that does not for a fault of the program.
fn lies_within(column: &ColumnChunkMetaData, length: u64) -> bool {
    let start = column.dictionary_page_offset().unwrap_or_else(|| column.data_page_offset());
    let within = |start: i64, bytes: i64| {
        let end = u64::try_from(start).ok()?.checked_add(u64::try_from(bytes).ok()?)?;
        (end <= length).then_some(())
    };
    column.num_values() >= 0
        && within(start, column.compressed_size()).is_some()
        && within(column.data_page_offset(), 0).is_some()
}

fn one_line(error: &ParquetError) -> String {
    error.to_string().replace('\n', " ")
}
