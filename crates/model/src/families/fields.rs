//! Typed access to the fields of a JSON object, which remembers what was asked for.

use std::cell::RefCell;
use std::collections::HashSet;
use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Typed access to a JSON object; null counts as absent.
pub(crate) struct Fields<'a> {
    pub(crate) map: &'a Map<String, Value>,
    prefix: &'static str,
    file: &'a Path,
    /// Keys that somebody has asked for: what is left in the end is what the reader does not know.
    seen: RefCell<HashSet<String>>,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(map: &'a Map<String, Value>, prefix: &'static str, file: &'a Path) -> Self {
        Self { map, prefix, file, seen: RefCell::default() }
    }

    /// The object under `key`, whose own keys are named after `prefix`.
    pub(crate) fn inner(&self, key: &str, prefix: &'static str) -> Result<Option<Fields<'a>>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let map = value.as_object().ok_or_else(|| self.wrong(key, "an object or null"))?;
        Ok(Some(Fields::new(map, prefix, self.file)))
    }

    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        self.ignore(key);
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// The key was looked at, whatever it says.
    pub(crate) fn ignore(&self, key: &str) {
        self.seen.borrow_mut().insert(key.to_owned());
    }

    /// The key stands in the file, if only as null.
    pub(crate) fn states(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// Keys that nobody has asked for, in the order of the file.
    pub(crate) fn unseen(&self) -> Vec<&'a String> {
        let seen = self.seen.borrow();
        self.map.keys().filter(|key| !seen.contains(*key)).collect()
    }

    pub(crate) fn size(&self, key: &str) -> Result<Option<usize>> {
        let size = |value: &Value| value.as_u64().and_then(|size| usize::try_from(size).ok());
        self.typed(key, "a whole number", size)
    }

    pub(crate) fn required_size(&self, key: &str) -> Result<usize> {
        self.size(key)?.ok_or_else(|| self.missing(key))
    }

    pub(crate) fn number(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", Value::as_f64)
    }

    /// A number that counts where the file does not mention it; null switches it off.
    pub(crate) fn number_or(&self, key: &str, default: f64) -> Result<Option<f64>> {
        if self.states(key) { self.number(key) } else { Ok(Some(default)) }
    }

    /// As [`Self::number_or`], for sizes.
    pub(crate) fn size_or(&self, key: &str, default: usize) -> Result<Option<usize>> {
        if self.states(key) { self.size(key) } else { Ok(Some(default)) }
    }

    pub(crate) fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>> {
        self.typed(key, "a list of numbers", |value| value.as_array()?.iter().map(Value::as_f64).collect())
    }

    pub(crate) fn flag(&self, key: &str) -> Result<bool> {
        self.flag_or(key, false)
    }

    pub(crate) fn flag_or(&self, key: &str, default: bool) -> Result<bool> {
        Ok(self.typed(key, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    /// Refuses a name that is none of `supported`.
    pub(crate) fn one_of(&self, key: &str, supported: &[&str]) -> Result<()> {
        match self.get(key) {
            Some(name) if !supported.iter().any(|supported| name == supported) => {
                Err(self.unsupported(key, &format!("supported is {}", supported.join(", "))))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn tokens(&self, key: &str) -> Result<Option<Vec<u32>>> {
        let token = |value: &Value| value.as_u64().and_then(|token| u32::try_from(token).ok());
        self.typed(key, "a token id or a list of them", |value| match value {
            Value::Array(list) => list.iter().map(token).collect(),
            single => token(single).map(|token| vec![token]),
        })
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &'static str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>> {
        self.get(key).map(|value| read(value).ok_or_else(|| self.wrong(key, expected))).transpose()
    }

    pub(crate) fn wrong(&self, key: &str, expected: &'static str) -> Error {
        Error::WrongField {
            file: self.file.to_owned(),
            field: self.name(key),
            value: self.shown(key),
            expected,
        }
    }

    pub(crate) fn missing(&self, key: &str) -> Error {
        Error::MissingField { file: self.file.to_owned(), field: self.name(key) }
    }

    pub(crate) fn unsupported(&self, key: &str, supported: &str) -> Error {
        Error::Unsupported {
            file: self.file.to_owned(),
            field: self.name(key),
            value: self.shown(key),
            supported: supported.to_owned(),
        }
    }

    fn name(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// The value as JSON on one line, cut where a quantisation table would flood the screen.
    fn shown(&self, key: &str) -> String {
        const MOST_CHARACTERS: usize = 60;
        let text = self.map.get(key).map(Value::to_string).unwrap_or_default();
        match text.char_indices().nth(MOST_CHARACTERS) {
            Some((end, _)) => format!("{}...", &text[..end]),
            None => text,
        }
    }
}
