//! What the keys of a run file are called and what they take.

use toml::{Table, Value};

/// One key of a run file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    /// The table it stands in, for example `model.architecture`.
    pub(super) section: &'static str,
    pub(super) name: &'static str,
    /// What it means, in lines as they stand in the source.
    pub(super) meaning: &'static [&'static str],
    pub(super) kind: Kind,
}

impl Key {
    pub(super) fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }
}

/// What a key takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Count,
    Number,
    Flag,
    Texts,
    Numbers,
    OneOf(&'static [&'static str]),
}

impl Kind {
    /// Whether `value` is of this kind.
    pub(super) fn accepts(self, value: &Value) -> bool {
        let number = |value: &Value| matches!(value, Value::Integer(_) | Value::Float(_));
        match (self, value) {
            (Self::Text, Value::String(_)) | (Self::Flag, Value::Boolean(_)) => true,
            (Self::Count, Value::Integer(count)) => *count >= 0,
            (Self::Number, value) => number(value),
            (Self::Texts, Value::Array(items)) => items.iter().all(Value::is_str),
            (Self::Numbers, Value::Array(items)) => items.iter().all(number),
            (Self::OneOf(names), Value::String(name)) => names.contains(&name.as_str()),
            _ => false,
        }
    }

    /// What stands in a message after "expected".
    pub(super) fn expected(self) -> String {
        match self {
            Self::Text => "text in quotes".to_owned(),
            Self::Count => "a whole number, 0 or more".to_owned(),
            Self::Number => "a number".to_owned(),
            Self::Flag => "true or false".to_owned(),
            Self::Texts => "a list of texts, such as [\"a.txt\", \"folder\"]".to_owned(),
            Self::Numbers => "a list of numbers, such as [1.0, 0.5]".to_owned(),
            Self::OneOf(names) => format!("one of {}", names.join(", ")),
        }
    }

    /// What stands in the template where a key has no default.
    pub(super) fn placeholder(self) -> &'static str {
        match self {
            Self::Text | Self::OneOf(_) => "\"...\"",
            Self::Count => "1",
            Self::Number => "1.0",
            Self::Flag => "true",
            Self::Texts | Self::Numbers => "[]",
        }
    }
}

/// A type that can stand behind a key.
pub(super) trait Setting {
    const KIND: Kind;
}

macro_rules! settings {
    ($($type:ty => $kind:ident),* $(,)?) => {
        $(impl Setting for $type { const KIND: Kind = Kind::$kind; })*
    };
}
settings! {
    String => Text, std::path::PathBuf => Text, usize => Count, u64 => Count, f32 => Number, f64 => Number, bool => Flag,
    Vec<std::path::PathBuf> => Texts, Vec<String> => Texts, Vec<f32> => Numbers,
}

impl<T: Setting> Setting for Option<T> {
    const KIND: Kind = T::KIND;
}

/// Calls `found` with every value of `table` that is no table itself, and its path.
pub(super) fn flatten(prefix: &str, table: &Table, found: &mut dyn FnMut(&str, &Value)) {
    for (name, value) in table {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            Value::Table(inner) => flatten(&path, inner, found),
            value => found(&path, value),
        }
    }
}
