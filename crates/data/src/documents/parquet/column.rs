//! One column of strings, a row at a time: a value, or those of a list.

use std::fs::File;

use parquet::basic::Type;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};

/// Rows that are read at once.
const ROWS_AT_ONCE: usize = 64;

/// The values of a row: one, or as many as its list has.
pub(super) type Cells = Vec<Option<ByteArray>>;

/// A column of strings.
pub(super) struct Column {
    /// Among all columns, those within lists and structures counted.
    index: usize,
    /// Definition level at which there is a value.
    present: i16,
    /// Definition level at which there is an element of the list; 0 where every row has one value.
    element: i16,
    /// Row groups begun.
    groups: usize,
    open: Option<ColumnReaderImpl<ByteArrayType>>,
    /// Rows read and not given out, the next one last.
    rows: Vec<Cells>,
}

impl Column {
    /// Column `index` of a file of `length` bytes, one list deep at most.
    ///
    /// # Errors
    /// In a few words, if it does not lie within the file. `None` if it holds no strings, or lists of lists.
    pub(super) fn of(
        reader: &SerializedFileReader<File>,
        index: usize,
        length: u64,
    ) -> Result<Option<Self>, String> {
        let metadata = reader.metadata();
        let description = metadata.file_metadata().schema_descr().column(index);
        if description.physical_type() != Type::BYTE_ARRAY || description.max_rep_level() > 1 {
            return Ok(None);
        }
        for (group, metadata) in (1..).zip(metadata.row_groups()) {
            if !lies_within(metadata.column(index), length) {
                let name = description.path().string();
                return Err(format!(
                    "is no whole .parquet file: the column {name:?} of row group {group} lies outside of it"
                ));
            }
        }
        let repeated = description.max_rep_level() > 0;
        Ok(Some(Self {
            index,
            present: description.max_def_level(),
            element: if repeated { description.repeated_ancestor_def_level() } else { 0 },
            groups: 0,
            open: None,
            rows: Vec::new(),
        }))
    }

    /// Whether a row has a list.
    pub(super) fn is_list(&self) -> bool {
        self.element > 0
    }

    /// The next row; `None` at the end of the file.
    pub(super) fn next(
        &mut self,
        reader: &SerializedFileReader<File>,
    ) -> Result<Option<Cells>, ParquetError> {
        while self.rows.is_empty() {
            let Some(column) = &mut self.open else {
                if self.groups == reader.num_row_groups() {
                    return Ok(None);
                }
                let group = reader.get_row_group(self.groups)?;
                self.groups += 1;
                match group.get_column_reader(self.index)? {
                    ColumnReader::ByteArrayColumnReader(column) => self.open = Some(column),
                    _ => return Err(ParquetError::General("a row group has another type".to_owned())),
                }
                continue;
            };
            let (mut values, mut levels, mut repeats) = (Vec::new(), Vec::new(), Vec::new());
            let wanted = (self.present > 0).then_some(&mut levels);
            let repetition = (self.element > 0).then_some(&mut repeats);
            let (rows, ..) = column.read_records(ROWS_AT_ONCE, wanted, repetition, &mut values)?;
            if rows == 0 {
                self.open = None;
            }
            if self.present == 0 {
                levels = vec![0; values.len()];
            }
            let mut values = values.into_iter();
            for (place, &level) in levels.iter().enumerate() {
                if repeats.get(place).is_none_or(|&repeat| repeat == 0) {
                    self.rows.push(Cells::new());
                }
                let Some(row) = self.rows.last_mut() else {
                    return Err(ParquetError::General("a list has no beginning".to_owned()));
                };
                if level >= self.element {
                    row.push(if level == self.present { values.next() } else { None });
                }
            }
            self.rows.reverse();
        }
        Ok(self.rows.pop())
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
