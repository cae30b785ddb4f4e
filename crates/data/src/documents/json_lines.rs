//! JSON lines: one object a line, one of its fields the text.

use serde_json::Value;

use super::Part;
use super::reader::TextReader;
use crate::error::{Error, Result};
use crate::examples::Learnt;
use crate::source::TextFile;

/// The text in one line of a `.jsonl` file; `None` where the line or its text is blank.
///
/// # Errors
///
/// In a few words, if the line is no JSON object or has no text in `field`.
pub fn json_line(line: &[u8], field: &str) -> std::result::Result<Option<String>, String> {
    let Some(mut object) = object(line)? else { return Ok(None) };
    match object.shift_remove(field) {
        Some(Value::String(text)) => Ok((!text.trim().is_empty()).then_some(text)),
        Some(other) => Err(format!("the field {field:?} is no string but {}", kind(&other))),
        None => {
            let fields: Vec<String> = object.keys().map(|key| format!("{key:?}")).collect();
            Err(no_field(field, &fields))
        }
    }
}

/// The object in one line; `None` where the line is blank.
///
/// # Errors
///
/// In a few words, if the line is no JSON object.
pub(super) fn object(line: &[u8]) -> std::result::Result<Option<serde_json::Map<String, Value>>, String> {
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    let value: Value = serde_json::from_slice(line).map_err(|error| {
        // The library counts lines within this one line; only its column says something.
        let kind = if error.is_eof() { "it ends too early" } else { "syntax error" };
        format!("is no JSON ({kind}, column {})", error.column())
    })?;
    match value {
        Value::Object(object) => Ok(Some(object)),
        _ => Err("is no JSON object; one object per line is read".to_owned()),
    }
}

/// Names the fields that there are, as many as a line of a terminal holds.
pub(crate) fn no_field(field: &str, there: &[String]) -> String {
    const MOST: usize = 20;
    let more = if there.len() > MOST { format!(" and {} more", there.len() - MOST) } else { String::new() };
    let shown = match there {
        [] => "none".to_owned(),
        _ => there[..there.len().min(MOST)].join(", "),
    };
    format!("has no field {field:?}; its fields: {shown}{more}")
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The documents of a `.jsonl` file.
pub(super) struct JsonLines {
    reader: TextReader,
    file: TextFile,
    field: String,
    line: Vec<u8>,
}

impl JsonLines {
    pub(super) fn open(file: &TextFile, field: &str) -> Result<Self> {
        let reader = TextReader::open(file)?;
        Ok(Self { reader, file: file.clone(), field: field.to_owned(), line: Vec::new() })
    }

    fn read(&mut self) -> Result<Option<Part>> {
        while let Some(number) = self.reader.line(&mut self.line)? {
            match json_line(&self.line, &self.field) {
                Ok(None) => {}
                Ok(Some(text)) => return Ok(Some(Part { place: number, text, learnt: Learnt::All })),
                Err(reason) => {
                    let path = self.file.path.clone();
                    return Err(Error::JsonLine { path, line: number, reason });
                }
            }
        }
        Ok(None)
    }
}

impl Iterator for JsonLines {
    type Item = Result<Part>;

    fn next(&mut self) -> Option<Result<Part>> {
        self.read().transpose()
    }
}
