//! What the name of a file says about how to read it.

use std::path::Path;

/// How a file holds its documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// How documents stand in it.
    pub layout: Layout,
    /// How it is packed.
    pub compression: Compression,
}

/// How documents stand in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Text as it stands.
    Plain,
    /// One JSON object per line.
    JsonLines,
    /// One document per row of an Apache Parquet file.
    Parquet,
}

/// How a file is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// `.gz`, RFC 1952.
    Gzip,
    /// `.zst`, RFC 8878.
    Zstandard,
}

/// Names that can be read, for messages.
pub(crate) const READABLE: &str = ".txt and .jsonl (also .gz and .zst of both) and .parquet";

impl Format {
    /// The format that the extensions of a name stand for; `None` for all others.
    pub fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
        let (name, compression) = if let Some(name) = name.strip_suffix(".gz") {
            (name, Compression::Gzip)
        } else if let Some(name) = name.strip_suffix(".zst") {
            (name, Compression::Zstandard)
        } else {
            (&*name, Compression::None)
        };
        let layout = match Path::new(name).extension()?.to_str()? {
            "txt" => Layout::Plain,
            "jsonl" => Layout::JsonLines,
            "parquet" if compression == Compression::None => Layout::Parquet,
            _ => return None,
        };
        Some(Self { layout, compression })
    }
}

impl Layout {
    /// What stands between the name of a file and the number of a document in it.
    pub(crate) fn joint(self) -> &'static str {
        match self {
            Self::Plain => " part ",
            Self::JsonLines => ":",
            Self::Parquet => " row ",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_say_layout_and_compression() {
        let of = |name: &str| Format::of(Path::new(name)).map(|format| (format.layout, format.compression));
        assert_eq!(of("a/b.TXT"), Some((Layout::Plain, Compression::None)));
        assert_eq!(of("b.txt.zst"), Some((Layout::Plain, Compression::Zstandard)));
        assert_eq!(of("b.part.jsonl.gz"), Some((Layout::JsonLines, Compression::Gzip)));
        assert_eq!(of("b.parquet"), Some((Layout::Parquet, Compression::None)));
        for other in ["b", "b.gz", ".txt", "b.parquet.gz", "b.txt.bak", "b.json"] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
