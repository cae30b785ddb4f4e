//! Prompts and answers in columns: two columns of texts, or one of conversations, which are lists of structures of texts.

use parquet::basic::Repetition;
use parquet::file::reader::FileReader;
use parquet::schema::types::Type;
use serde_json::{Map, Value};

use super::{Column, Part, Table};
use crate::documents::no_field;
use crate::error::Result;
use crate::examples::Examples;
use crate::source::TextFile;

/// What a message could use and only a `.jsonl` file can say.
const TOOLS: &str = "tools";

/// The examples of a `.parquet` file.
pub(in crate::documents) struct Answered {
    table: Table,
    examples: Examples,
    /// With the names that their values have in an object: fields of the row, or of each message.
    columns: Vec<(String, Column)>,
}

impl Answered {
    pub(in crate::documents) fn open(file: &TextFile, examples: &Examples) -> Result<Self> {
        let table = Table::open(file)?;
        let columns = match examples {
            Examples::Text => Vec::new(),
            Examples::Prompts { prompt, completion, .. } => {
                let of = |field: &String| Ok((field.clone(), text_column(&table, field)?));
                [prompt, completion].map(of).into_iter().collect::<Result<_>>()?
            }
            Examples::Messages { field, .. } => message_columns(&table, field)?,
        };
        Ok(Self { table, examples: examples.clone(), columns })
    }

    fn read(&mut self) -> Result<Option<Part>> {
        let mut row = Vec::with_capacity(self.columns.len());
        let mut ended = false;
        for (_, column) in &mut self.columns {
            match column.next(&self.table.reader).map_err(|error| self.table.damaged(&error))? {
                Some(cells) => row.push(cells),
                None => ended = true,
            }
        }
        if ended && row.is_empty() {
            return Ok(None);
        }
        self.table.row += 1;
        let elements = row.first().map_or(0, Vec::len);
        if ended || row.iter().any(|cells| cells.len() != elements) {
            return Err(self.table.wrong_row("its columns are not of the same length"));
        }
        let mut objects = vec![Map::new(); elements];
        for ((name, _), cells) in self.columns.iter().zip(&row) {
            for (object, cell) in objects.iter_mut().zip(cells) {
                if let Some(bytes) = cell {
                    object.insert(name.clone(), Value::String(self.table.text(bytes)?));
                }
            }
        }
        let object = match &self.examples {
            Examples::Messages { field, .. } => {
                let messages = objects.into_iter().map(Value::Object).collect();
                Map::from_iter([(field.clone(), messages)])
            }
            _ => objects.pop().unwrap_or_default(),
        };
        let (text, learnt) =
            self.examples.of_object(&object).map_err(|reason| self.table.wrong_row(&reason))?;
        Ok(Some(Part { place: self.table.row, text, learnt }))
    }
}

impl Iterator for Answered {
    type Item = Result<Part>;

    fn next(&mut self) -> Option<Result<Part>> {
        self.read().transpose()
    }
}

/// The names of a table's fields.
fn fields(table: &Table) -> Vec<String> {
    let schema = table.reader.metadata().file_metadata().schema_descr();
    schema.root_schema().get_fields().iter().map(|field| field.name().to_owned()).collect()
}

/// Indices of the columns that make up a field.
fn columns_of(table: &Table, field: &str) -> Result<Vec<usize>> {
    let schema = table.reader.metadata().file_metadata().schema_descr();
    let found: Vec<usize> =
        (0..schema.num_columns()).filter(|&index| schema.get_column_root(index).name() == field).collect();
    if found.is_empty() {
        let there: Vec<String> = fields(table).iter().map(|name| format!("{name:?}")).collect();
        return Err(table.wrong(no_field(field, &there)));
    }
    Ok(found)
}

fn text_column(table: &Table, field: &str) -> Result<Column> {
    if let [index] = columns_of(table, field)?[..]
        && let Some(column) = table.column(index)?.filter(|column| !column.is_list())
    {
        return Ok(column);
    }
    Err(table.wrong(format!("the column {field:?} does not hold one text a row")))
}

/// A column for each field of a message.
fn message_columns(table: &Table, field: &str) -> Result<Vec<(String, Column)>> {
    let schema = table.reader.metadata().file_metadata().schema_descr();
    let found = columns_of(table, field)?;
    if fields(table).iter().any(|name| name == TOOLS) {
        return Err(table.wrong(format!("tools (the column {TOOLS:?}) are read from .jsonl files only")));
    }
    let depth = message_depth(schema.get_column_root(found[0]));
    let no_list = || table.wrong(format!("the column {field:?} does not hold a list of messages a row"));
    let depth = depth.ok_or_else(no_list)?;
    let of_message = |&index: &usize| {
        let description = schema.column(index);
        let name = description.name().to_owned();
        let column = table.column(index)?.filter(Column::is_list);
        // Behind the message stands its field, and nothing in between.
        match column.filter(|_| description.path().parts().len() == depth + 1) {
            Some(column) => Ok((name, column)),
            None => Err(table.wrong(format!(
                "the field {:?} is no text of a message: such conversations are read from .jsonl files only",
                description.path().string()
            ))),
        }
    };
    found.iter().map(of_message).collect()
}

/// How many names lead to a message, in the forms in which lists are written (LogicalTypes.md of the format, "Lists"): repeated
/// itself, or within a group of one repeated field, and there often within another group.
fn message_depth(root: &Type) -> Option<usize> {
    let repeated = |field: &Type| {
        let info = field.get_basic_info();
        info.has_repetition() && info.repetition() == Repetition::REPEATED
    };
    if repeated(root) {
        return Some(1);
    }
    let [list] = (if root.is_group() { root.get_fields() } else { &[] }) else { return None };
    let within = list.is_group() && matches!(list.get_fields(), [only] if only.is_group());
    repeated(list).then_some(if within { 3 } else { 2 })
}
