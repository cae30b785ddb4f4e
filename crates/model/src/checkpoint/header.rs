//! The header of a safetensors file: eight bytes of length, then JSON that gives each tensor's dtype, shape and place.
//!
//! The `safetensors` crate checks a header as well, but says neither which tensor is wrong nor that a name occurs twice
//! (it keeps the last); here every complaint has a name. Format: `docs/safetensors.schema.json` of that project.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io::Read;
use std::path::Path;

use safetensors::Dtype;
use serde::Deserialize;
use serde::de::value::{Error as ValueError, StrDeserializer};
use serde::de::{Deserializer, Error as _, IntoDeserializer, MapAccess, Visitor};

use crate::error::{Error, Result};

/// The limit that the reference implementation sets.
pub(super) const MOST_HEADER_BYTES: u64 = 100_000_000;

/// Bytes before the JSON.
pub(super) const LENGTH_BYTES: u64 = 8;

/// A header that has passed every check: the tensors lie within the file, side by side, and as long as their shapes say.
#[derive(Debug)]
pub struct Header {
    /// In the order of their data.
    pub tensors: Vec<Entry>,
    /// Texts beside the tensors.
    pub metadata: HashMap<String, String>,
}

/// One tensor's place.
#[derive(Debug)]
pub struct Entry {
    /// Name in the file.
    pub name: String,
    /// Type of its values.
    pub dtype: Dtype,
    /// Shape; empty for a single value.
    pub shape: Vec<usize>,
    /// First byte, counted from the start of the file.
    pub start: u64,
    /// Length of its data.
    pub bytes: u64,
}

impl Entry {
    /// Number of values.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Reads and checks the header of a safetensors file held in memory. Any bytes give a header or an error.
pub fn parse_header(mut file: &[u8]) -> Result<Header> {
    let length = file.len() as u64;
    read_header(&mut file, length, Path::new("model.safetensors"))
}

/// Reads and checks the header from the start of `stream`, which is `length` bytes long; `file` is named in errors.
pub(crate) fn read_header(stream: &mut impl Read, length: u64, file: &Path) -> Result<Header> {
    let damaged = |reason: String| Error::DamagedFile { file: file.to_owned(), reason };
    if length == 0 {
        return Err(damaged("the file is empty".into()));
    }
    if length < LENGTH_BYTES {
        return Err(damaged(format!("the file ends after {length} bytes, within the header's length")));
    }
    let mut prefix = [0; LENGTH_BYTES as usize];
    stream.read_exact(&mut prefix)?;
    let json_bytes = u64::from_le_bytes(prefix);
    if json_bytes > MOST_HEADER_BYTES {
        return Err(damaged(format!(
            "no safetensors file, or a header of {json_bytes} bytes, over the limit of {MOST_HEADER_BYTES}"
        )));
    }
    let data_start = LENGTH_BYTES + json_bytes;
    if data_start > length {
        return Err(damaged(format!(
            "truncated: the header should take {json_bytes} bytes, the file has {length}"
        )));
    }
    let mut json = vec![0; json_bytes as usize];
    stream.read_exact(&mut json)?;
    let raw: RawHeader = serde_json::from_slice(&json)
        .map_err(|error| damaged(format!("the header is not valid ({error})")))?;
    drop(json);
    check(raw, data_start, length - data_start, file)
}

fn check(raw: RawHeader, data_start: u64, data_bytes: u64, file: &Path) -> Result<Header> {
    let damaged = |tensor: &str, reason: String| {
        Err(Error::DamagedTensor { file: file.to_owned(), tensor: tensor.to_owned(), reason })
    };
    if let Some(name) = raw.repeated {
        return damaged(&name, "is listed twice".into());
    }
    let mut tensors = raw.tensors;
    tensors.sort_by_key(|(_, tensor)| tensor.data_offsets);

    let mut entries: Vec<Entry> = Vec::with_capacity(tensors.len());
    let mut reached = 0;
    for (name, RawTensor { dtype, shape, data_offsets: (begin, end) }) in tensors {
        let dtype_name: StrDeserializer<'_, ValueError> = dtype.as_str().into_deserializer();
        let Ok(dtype) = Dtype::deserialize(dtype_name) else {
            return Err(Error::Dtype { file: file.to_owned(), tensor: name, dtype });
        };
        if begin > end {
            return damaged(&name, format!("begins at byte {begin} and ends before it, at {end}"));
        }
        if end > data_bytes {
            return damaged(
                &name,
                format!("ends at byte {end} of the data, of which {data_bytes} are there"),
            );
        }
        let bytes = end - begin;
        if byte_length(dtype, &shape) != Some(bytes) {
            return damaged(&name, format!("shape {shape:?} of {dtype} does not take {bytes} bytes"));
        }
        match begin.cmp(&reached) {
            std::cmp::Ordering::Equal => {}
            std::cmp::Ordering::Less => {
                let before = entries.last().map_or("", |entry| &entry.name);
                return damaged(&name, format!("overlaps tensor {before}"));
            }
            std::cmp::Ordering::Greater => {
                return damaged(&name, format!("{} unaccounted bytes lie before it", begin - reached));
            }
        }
        reached = end;
        entries.push(Entry { name, dtype, shape, start: data_start + begin, bytes });
    }
    if reached != data_bytes {
        let reason = format!("{} unaccounted bytes lie after the last tensor", data_bytes - reached);
        return Err(Error::DamagedFile { file: file.to_owned(), reason });
    }
    Ok(Header { tensors: entries, metadata: raw.metadata })
}

/// `None` where the product overflows, or where values of less than a byte do not fill the last byte.
fn byte_length(dtype: Dtype, shape: &[usize]) -> Option<u64> {
    let count = shape.iter().try_fold(1u64, |count, &extent| count.checked_mul(extent as u64))?;
    let bits = count.checked_mul(dtype.bitsize() as u64)?;
    bits.is_multiple_of(8).then_some(bits / 8)
}

/// The JSON as it stands, before any check, with a name that occurs twice remembered.
#[derive(Default)]
struct RawHeader {
    tensors: Vec<(String, RawTensor)>,
    metadata: HashMap<String, String>,
    repeated: Option<String>,
}

#[derive(Deserialize)]
struct RawTensor {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = RawHeader;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object from tensor names to their places")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
        let mut header = RawHeader::default();
        let mut seen = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            let named = |error: A::Error| A::Error::custom(format_args!("{name}: {error}"));
            if name == "__metadata__" {
                header.metadata = map.next_value::<Option<_>>().map_err(named)?.unwrap_or_default();
            } else {
                let tensor = map.next_value().map_err(named)?;
                header.tensors.push((name.clone(), tensor));
            }
            if !seen.insert(name.clone()) {
                header.repeated.get_or_insert(name);
            }
        }
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A header of `json` before `data_bytes` bytes.
    fn read(json: &[u8], data_bytes: usize) -> Result<Header> {
        let mut file = (json.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(json);
        file.resize(file.len() + data_bytes, 0);
        read_header(&mut &file[..], file.len() as u64, Path::new("test.safetensors"))
    }

    /// What passes is what the reader relies on.
    fn assert_sound(header: &Header, length: u64) {
        let mut reached = header.tensors.first().map_or(length, |entry| entry.start);
        for entry in &header.tensors {
            assert_eq!(entry.start, reached);
            assert_eq!((entry.count() * entry.dtype.bitsize()) as u64, 8 * entry.bytes);
            reached += entry.bytes;
        }
        assert_eq!(reached, length);
    }

    #[test]
    fn entries_are_in_the_order_of_their_data() {
        let json = br#"{"b":{"dtype":"F16","shape":[3],"data_offsets":[4,10]},
                        "__metadata__":{"step":"7"},
                        "a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},
                        "e":{"dtype":"U8","shape":[5,0],"data_offsets":[4,4]}}   "#;
        let header = read(json, 10).unwrap();
        assert_sound(&header, 8 + json.len() as u64 + 10);
        let names: Vec<_> = header.tensors.iter().map(|entry| &*entry.name).collect();
        assert_eq!(names, ["a", "e", "b"]);
        assert_eq!(header.metadata["step"], "7");
    }

    fn almost_an_entry() -> impl Strategy<Value = String> {
        let number = || prop_oneof![4 => 0..40u64, 1 => any::<u64>()];
        let dtype = prop::sample::select(vec!["F32", "F16", "BF16", "I8", "F4", "X"]);
        let name = prop::sample::select(vec!["a", "b", "c", "__metadata__", "\\u0000", ""]);
        (name, dtype, prop::collection::vec(number(), 0..4), number(), number()).prop_map(
            |(name, dtype, shape, begin, end)| {
                format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{begin},{end}]}}"#)
            },
        )
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(file in prop::collection::vec(any::<u8>(), 0..200)) {
            let length = file.len() as u64;
            prop_assert!(read_header(&mut &file[..], length, Path::new("test.safetensors")).is_err());
        }

        #[test]
        fn random_json_bytes_never_panic(json in prop::collection::vec(any::<u8>(), 0..200), data in 0..16usize) {
            if let Ok(header) = read(&json, data) {
                assert_sound(&header, (8 + json.len() + data) as u64);
            }
        }

        #[test]
        fn almost_valid_headers_are_refused_or_sound(
            entries in prop::collection::vec(almost_an_entry(), 0..4), data in 0..40usize,
        ) {
            let json = format!("{{{}}}", entries.join(","));
            if let Ok(header) = read(json.as_bytes(), data) {
                assert_sound(&header, (8 + json.len() + data) as u64);
            }
        }

        /// Our checks let nothing pass that the reference implementation refuses.
        #[test]
        fn never_more_lenient_than_the_safetensors_crate(
            shapes in prop::collection::vec(prop::collection::vec(0..4u64, 0..3), 0..4), shift in -1..2i64,
            wrong in 0..8usize,
        ) {
            let mut end = 0i64;
            let entries: Vec<_> = shapes.iter().enumerate().map(|(index, shape)| {
                let begin = end + if index == wrong { shift } else { 0 };
                end = begin + 4 * shape.iter().product::<u64>() as i64;
                format!(r#""t{index}":{{"dtype":"F32","shape":{shape:?},"data_offsets":[{begin},{end}]}}"#)
            }).collect();
            let json = format!("{{{}}}", entries.join(","));
            let mut file = (json.len() as u64).to_le_bytes().to_vec();
            file.extend_from_slice(json.as_bytes());
            file.resize(file.len() + end.max(0) as usize, 0);
            let theirs = safetensors::SafeTensors::deserialize(&file);
            match read_header(&mut &file[..], file.len() as u64, Path::new("test.safetensors")) {
                Ok(header) => {
                    prop_assert!(theirs.is_ok());
                    assert_sound(&header, file.len() as u64);
                }
                Err(_) => prop_assert!(theirs.is_err(), "{json}"),
            }
        }
    }
}
