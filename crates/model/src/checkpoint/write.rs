//! Writing files so that a reader sees the old one or the new one, never a part: everything goes to a hidden neighbour,
//! which is synced and renamed.

use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use fs_err::File;
use serde_json::{Map, Value, json};
use tensor::Params;

use super::header::MOST_HEADER_BYTES;
use super::storage::Storage;
use super::transpose::transpose;
use crate::config::DecoderConfig;
use crate::error::{Error, Result};

/// Writes the weights of the decoder that `config` describes as `model.safetensors` in `folder`, in float32 and as its family
/// stores them, with `metadata` in its header. `params` may hold more than the decoder's.
pub fn write_params(
    folder: &Path,
    config: &DecoderConfig,
    params: &Params,
    metadata: &[(&str, &str)],
) -> Result<()> {
    let storage = Storage::of(config);
    let find = |part: &usize| {
        let name = &storage.specs[*part].name;
        let id = params.find(name).ok_or_else(|| Error::MissingParameter { name: name.clone() })?;
        Ok(params.data(id))
    };
    let mut tensors = Vec::with_capacity(storage.tensors.len());
    for stored in &storage.tensors {
        tensors.push(Stored {
            name: &stored.name,
            shape: &stored.shape,
            parts: stored.parts.iter().map(find).collect::<Result<_>>()?,
            transposed: stored.transposed,
        });
    }
    let metadata: Vec<_> = [("format", "pt")].into_iter().chain(metadata.iter().copied()).collect();
    write_stored(&folder.join("model.safetensors"), tensors, &metadata)
}

/// Writes float32 tensors (name, shape, values) as a safetensors file, sorted by name, with `metadata` in its header.
pub fn write_tensors(
    file: &Path,
    tensors: &[(&str, &[usize], &[f32])],
    metadata: &[(&str, &str)],
) -> Result<()> {
    let whole = |&(name, shape, values)| Stored { name, shape, parts: vec![values], transposed: false };
    write_stored(file, tensors.iter().map(whole).collect(), metadata)
}

/// A tensor to be written: its parts one after the other along the outputs.
struct Stored<'a> {
    name: &'a str,
    /// As it is to lie in the file.
    shape: &'a [usize],
    parts: Vec<&'a [f32]>,
    transposed: bool,
}

impl Stored<'_> {
    fn len(&self) -> usize {
        self.parts.iter().map(|part| part.len()).sum()
    }

    fn write(&self, stream: &mut File, bytes: &mut [u8]) -> Result<()> {
        if !self.transposed {
            return self.parts.iter().try_for_each(|part| write_values(stream, part, bytes));
        }
        write_values(stream, &transpose(&self.parts.concat(), self.shape[1], self.shape[0]), bytes)
    }
}

/// The values go through a small buffer: the weights are never held twice, but for a tensor that is transposed.
fn write_stored(file: &Path, mut tensors: Vec<Stored>, metadata: &[(&str, &str)]) -> Result<()> {
    tensors.sort_by_key(|tensor| tensor.name);
    let header = header_bytes(file, &tensors, metadata)?;
    write_whole(file, |stream| {
        stream.write_all(&(header.len() as u64).to_le_bytes())?;
        stream.write_all(&header)?;
        let mut bytes = vec![0; 4 * BUFFER_VALUES];
        tensors.iter().try_for_each(|tensor| tensor.write(stream, &mut bytes))
    })
}

fn write_values(stream: &mut File, values: &[f32], bytes: &mut [u8]) -> Result<()> {
    for part in values.chunks(BUFFER_VALUES) {
        let bytes = &mut bytes[..4 * part.len()];
        for (place, value) in bytes.as_chunks_mut().0.iter_mut().zip(part) {
            *place = value.to_le_bytes();
        }
        stream.write_all(bytes)?;
    }
    Ok(())
}

/// Writes `bytes` as `file`, whole or not at all.
pub fn write_file(file: &Path, bytes: &[u8]) -> Result<()> {
    write_whole(file, |stream| Ok(stream.write_all(bytes)?))
}

/// The hidden name beside `path` under which something of its is kept for a moment.
pub(super) fn neighbour(path: &Path, suffix: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{suffix}"))
}

/// Makes renames within `folder` durable. Only Unix can open a folder for that; elsewhere the rename itself has to do.
pub(super) fn sync_folder(folder: &Path) -> Result<()> {
    if cfg!(unix) {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

const BUFFER_VALUES: usize = 1 << 18;

/// Readers that map the file expect the values of the first tensor at a multiple of this.
const ALIGNMENT: usize = 8;

fn header_bytes(file: &Path, sorted: &[Stored], metadata: &[(&str, &str)]) -> Result<Vec<u8>> {
    let unwritable = |tensor: &str, reason: String| {
        Err(Error::Unwritable { file: file.to_owned(), tensor: tensor.to_owned(), reason })
    };
    let mut header = Map::new();
    if !metadata.is_empty() {
        let texts = metadata.iter().map(|&(key, text)| (key.to_owned(), Value::from(text)));
        header.insert(RESERVED.into(), Value::Object(texts.collect()));
    }
    let mut end = 0;
    let mut names = HashSet::new();
    for tensor in sorted {
        let &Stored { name, shape, .. } = tensor;
        let values = tensor.len();
        if name == RESERVED {
            return unwritable(name, "the format reserves this name".into());
        }
        if !names.insert(name) {
            return unwritable(name, "it is given twice".into());
        }
        if shape.iter().product::<usize>() != values {
            return unwritable(name, format!("shape {shape:?} does not hold {values} values"));
        }
        let begin = end;
        end += 4 * values as u64;
        header.insert(name.into(), json!({ "dtype": "F32", "shape": shape, "data_offsets": [begin, end] }));
    }
    let mut bytes = Value::Object(header).to_string().into_bytes();
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), b' ');
    if bytes.len() as u64 > MOST_HEADER_BYTES {
        return unwritable("names", format!("the header would exceed {MOST_HEADER_BYTES} bytes"));
    }
    Ok(bytes)
}

const RESERVED: &str = "__metadata__";

fn write_whole(file: &Path, fill: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    let partial = neighbour(file, "partial");
    let written = File::create(&partial).map_err(Error::from).and_then(|mut stream| {
        fill(&mut stream)?;
        stream.sync_all()?;
        drop(stream);
        fs_err::rename(&partial, file)?;
        Ok(())
    });
    if written.is_err() {
        // The first error is the one to report; a leftover would only be overwritten next time.
        let _ = fs_err::remove_file(&partial);
        return written;
    }
    sync_folder(file.parent().unwrap_or(Path::new("")))
}
