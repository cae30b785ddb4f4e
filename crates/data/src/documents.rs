//! Files into documents.
//!
//! A document is what a model may see at once: nothing is predicted from one document into the next.

use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::source::{Format, Source};

/// A piece of text that stands for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Where it is from: the file, with the line (`stories.jsonl:3`) or the part (`book.txt part 3`).
    pub name: String,
    /// The text, never blank.
    pub text: String,
}

/// Reads all documents of a source, in order.
///
/// # Errors
///
/// If a file is missing, of another kind or not UTF-8, a line is no JSON object with that field, or nothing
/// but blank text is found.
pub fn read_documents(source: &Source) -> Result<Vec<Document>> {
    let mut documents = Vec::new();
    for file in source.files()? {
        let bytes = fs_err::read(&file.path)?;
        let text = match std::str::from_utf8(&bytes) {
            Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
            Err(error) => return Err(Error::NotUtf8 { path: file.path, offset: error.valid_up_to() }),
        };
        match file.format {
            Format::Plain => read_plain(&file.path, text, source, &mut documents),
            Format::JsonLines => read_json_lines(&file.path, text, &source.field, &mut documents)?,
        }
    }
    if documents.is_empty() {
        return Err(Error::NoText { what: source.describe() });
    }
    Ok(documents)
}

fn read_plain(path: &Path, text: &str, source: &Source, documents: &mut Vec<Document>) {
    let separated: Vec<&str> = match &source.separator {
        // Line ends around a separator belong to it.
        Some(separator) => {
            text.split(separator.as_str()).map(|part| part.trim_matches(['\n', '\r'])).collect()
        }
        None => vec![text],
    };
    let parts: Vec<&str> = separated
        .into_iter()
        .flat_map(|part| cut(part, source.longest_document_bytes))
        .filter(|part| !part.trim().is_empty())
        .collect();
    let several = parts.len() > 1;
    documents.extend(parts.into_iter().enumerate().map(|(index, part)| Document {
        name: if several {
            format!("{} part {}", path.display(), index + 1)
        } else {
            path.display().to_string()
        },
        text: part.to_owned(),
    }));
}

/// Cuts a text into parts of at most `longest` bytes (0: does not cut) that together are the text.
///
/// A part may be longer only where a single character is.
fn cut(mut text: &str, longest: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    while longest > 0 && text.len() > longest {
        let mut limit = longest;
        while !text.is_char_boundary(limit) {
            limit -= 1;
        }
        let before = &text[..limit];
        let after = |mark: &str| before.rfind(mark).map(|at| at + mark.len());
        let at = after("\n\n")
            .max(after("\n\r\n"))
            .or_else(|| after("\n"))
            .or_else(|| (limit > 0).then_some(limit))
            .unwrap_or_else(|| text.chars().next().map_or(0, char::len_utf8));
        let (part, rest) = text.split_at(at);
        parts.push(part);
        text = rest;
    }
    parts.push(text);
    parts
}

fn read_json_lines(path: &Path, text: &str, field: &str, documents: &mut Vec<Document>) -> Result<()> {
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let wrong = |reason: String| Error::JsonLine { path: path.to_path_buf(), line: index + 1, reason };
        let value: Value = serde_json::from_str(line).map_err(|error| {
            // The library counts lines within this one line; only its column says something.
            wrong(format!("is no JSON ({}, column {})", kind(&error), error.column()))
        })?;
        let Value::Object(mut object) = value else {
            return Err(wrong("is no JSON object; one object per line is read".to_owned()));
        };
        match object.shift_remove(field) {
            Some(Value::String(text)) if text.trim().is_empty() => {}
            Some(Value::String(text)) => {
                documents.push(Document { name: format!("{}:{}", path.display(), index + 1), text });
            }
            Some(_) => return Err(wrong(format!("the field {field:?} is no string"))),
            None => {
                let fields: Vec<String> = object.keys().map(|key| format!("{key:?}")).collect();
                let there = if fields.is_empty() { "none".to_owned() } else { fields.join(", ") };
                return Err(wrong(format!("has no field {field:?}; its fields: {there}")));
            }
        }
    }
    Ok(())
}

fn kind(error: &serde_json::Error) -> &'static str {
    if error.is_eof() { "it ends too early" } else { "syntax error" }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_are_cut_at_blank_lines_then_line_ends_then_characters() {
        assert_eq!(cut("one\n\ntwo\nthree", 9), ["one\n\n", "two\nthree"]);
        assert_eq!(cut("one\r\n\r\ntwo", 9), ["one\r\n\r\n", "two"]);
        assert_eq!(cut("one\ntwo", 5), ["one\n", "two"]);
        assert_eq!(cut("ééé", 3), ["é", "é", "é"]);
        assert_eq!(cut("éa", 1), ["é", "a"]);
        assert_eq!(cut("abc", 0), ["abc"]);
        assert_eq!(cut("", 4), [""]);
    }

    proptest! {
        #[test]
        fn parts_are_short_and_together_the_text(text in "[ab\\né]{0,60}", longest in 2usize..12) {
            let parts = cut(&text, longest);
            prop_assert_eq!(parts.concat(), text.as_str());
            prop_assert!(parts.iter().all(|part| part.len() <= longest));
        }
    }
}
