//! Values as Python writes them: `str()` for what a template prints, `json.dumps` for `tojson`.
//!
//! A value can hold another many times over and so be far larger than what the template did to make it: nothing is written that is
//! nested more deeply, or is longer, than a conversation can be.

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};

use crate::documents::MOST_DOCUMENT_BYTES;

/// Levels of lists and mappings within each other; JSON that is read may have 128.
const MOST_DEPTH: usize = 150;

/// `str(value)`
pub(super) fn text(value: &Value) -> Result<String, Error> {
    let mut text = Text::default();
    text.push_value(value, 0)?;
    Ok(text.written)
}

/// `json.dumps(value, indent=indent, ensure_ascii=ascii)`
pub(super) fn json(value: &Value, indent: Option<usize>, ascii: bool) -> Result<String, Error> {
    let mut json = Json { text: Text::default(), indent, ascii };
    json.push_value(value, 0)?;
    Ok(json.text.written)
}

/// Text that becomes no longer than a document may be.
#[derive(Default)]
struct Text {
    written: String,
}

impl Text {
    fn push(&mut self, text: &str) -> Result<(), Error> {
        self.make_room(text.len())?;
        self.written.push_str(text);
        Ok(())
    }

    fn push_blanks(&mut self, count: usize) -> Result<(), Error> {
        self.make_room(count)?;
        self.written.extend(std::iter::repeat_n(' ', count));
        Ok(())
    }

    fn make_room(&self, bytes: usize) -> Result<(), Error> {
        if bytes > MOST_DOCUMENT_BYTES - self.written.len() {
            let reason = format!("the text of a value would be longer than {MOST_DOCUMENT_BYTES} bytes");
            return Err(Error::new(ErrorKind::InvalidOperation, reason));
        }
        Ok(())
    }

    /// `str(value)`
    fn push_value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => self.push("None"),
            ValueKind::Bool => self.push(if value.is_true() { "True" } else { "False" }),
            ValueKind::String => self.push(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                check_depth(depth)?;
                self.push("[")?;
                for (index, item) in value.try_iter()?.checked().enumerate() {
                    self.push(if index > 0 { ", " } else { "" })?;
                    self.push_literal(&item?, depth + 1)?;
                }
                self.push("]")
            }
            ValueKind::Map => {
                check_depth(depth)?;
                self.push("{")?;
                for (index, key) in value.try_iter()?.checked().enumerate() {
                    let key = key?;
                    self.push(if index > 0 { ", " } else { "" })?;
                    self.push_literal(&key, depth + 1)?;
                    self.push(": ")?;
                    self.push_literal(&value.get_item(&key)?, depth + 1)?;
                }
                self.push("}")
            }
            _ => self.push(&value.to_string()),
        }
    }

    /// `repr(value)`
    fn push_literal(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let Some(text) = value.as_str() else { return self.push_value(value, depth) };
        self.make_room(text.len())?;
        let escaped =
            text.replace('\\', "\\\\").replace('\n', "\\n").replace('\t', "\\t").replace('\r', "\\r");
        self.push(&match text.contains('\'') && !text.contains('"') {
            true => format!("\"{escaped}\""),
            false => format!("'{}'", escaped.replace('\'', "\\'")),
        })
    }
}

struct Json {
    text: Text,
    indent: Option<usize>,
    ascii: bool,
}

impl Json {
    fn push_value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        match value.kind() {
            ValueKind::Undefined | ValueKind::None => self.text.push("null"),
            ValueKind::Bool => self.text.push(if value.is_true() { "true" } else { "false" }),
            ValueKind::String => self.push_string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                check_depth(depth)?;
                self.text.push("[")?;
                let mut is_empty = true;
                for item in value.try_iter()?.checked() {
                    self.begin_item(is_empty, depth)?;
                    self.push_value(&item?, depth + 1)?;
                    is_empty = false;
                }
                self.end(is_empty, depth, "]")
            }
            ValueKind::Map => {
                check_depth(depth)?;
                self.text.push("{")?;
                let mut is_empty = true;
                for key in value.try_iter()?.checked() {
                    let key = key?;
                    self.begin_item(is_empty, depth)?;
                    self.push_string(&text(&key)?)?;
                    self.text.push(": ")?;
                    self.push_value(&value.get_item(&key)?, depth + 1)?;
                    is_empty = false;
                }
                self.end(is_empty, depth, "}")
            }
            _ => self.text.push(&value.to_string()),
        }
    }

    fn begin_item(&mut self, is_first: bool, depth: usize) -> Result<(), Error> {
        match self.indent {
            None => self.text.push(if is_first { "" } else { ", " }),
            Some(width) => {
                self.text.push(if is_first { "\n" } else { ",\n" })?;
                self.text.push_blanks(width.saturating_mul(depth + 1))
            }
        }
    }

    fn end(&mut self, is_empty: bool, depth: usize, close: &str) -> Result<(), Error> {
        if let Some(width) = self.indent.filter(|_| !is_empty) {
            self.text.push("\n")?;
            self.text.push_blanks(width.saturating_mul(depth))?;
        }
        self.text.push(close)
    }

    fn push_string(&mut self, text: &str) -> Result<(), Error> {
        self.text.push("\"")?;
        let is_special = |character: char| {
            matches!(character, '"' | '\\' | '\0'..='\x1f') || self.ascii && !character.is_ascii()
        };
        let mut rest = text;
        while let Some(at) = rest.find(is_special) {
            self.text.push(&rest[..at])?;
            let mut characters = rest[at..].chars();
            let Some(character) = characters.next() else { break };
            match character {
                '"' => self.text.push("\\\"")?,
                '\\' => self.text.push("\\\\")?,
                '\n' => self.text.push("\\n")?,
                '\r' => self.text.push("\\r")?,
                '\t' => self.text.push("\\t")?,
                '\u{8}' => self.text.push("\\b")?,
                '\u{c}' => self.text.push("\\f")?,
                character => {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        self.text.push(&format!("\\u{unit:04x}"))?;
                    }
                }
            }
            rest = characters.as_str();
        }
        self.text.push(rest)?;
        self.text.push("\"")
    }
}

fn check_depth(depth: usize) -> Result<(), Error> {
    if depth < MOST_DEPTH {
        return Ok(());
    }
    let reason = format!("a value is nested more than {MOST_DEPTH} levels deep");
    Err(Error::new(ErrorKind::InvalidOperation, reason))
}
