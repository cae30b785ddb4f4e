//! Reading weights: a single `model.safetensors` or shards with their index, checked against what the architecture needs.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use fs_err::File;
use half::{bf16, f16};
use safetensors::Dtype;

use super::header::{Entry, read_header};
use super::index::shards;
use crate::config::TensorSpec;
use crate::error::{Error, NameList, Result};

/// A tensor with its name, as float32.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    /// Name in the file.
    pub name: String,
    /// Shape; empty for a single value.
    pub shape: Vec<usize>,
    /// The values, last axis fastest.
    pub data: Vec<f32>,
}

/// Reads the weights of the checkpoint in `folder`, one vector per entry of `specs` and in that order.
///
/// Refused with names: missing and surplus tensors, wrong shapes, dtypes other than F32, F16 and BF16, values that are not
/// finite, and everything that breaks the file format. Two surpluses are common and harmless: the unembedding of a tied
/// model (it must equal the embedding), and buffers of rotary frequencies.
pub fn read_tensors(folder: &Path, specs: &[TensorSpec]) -> Result<Vec<Vec<f32>>> {
    let (mut files, place) = open_weights(folder)?;
    let wanted: HashMap<&str, usize> = specs.iter().enumerate().map(|(i, spec)| (&*spec.name, i)).collect();

    let mut found = vec![false; specs.len()];
    let mut surplus = Vec::new();
    for file in &files {
        for entry in &file.tensors {
            match wanted.get(&*entry.name) {
                Some(&index) => found[index] = true,
                None if entry.name == UNEMBEDDING || entry.name.ends_with(ROTARY_BUFFER) => {}
                None => surplus.push(entry.name.clone()),
            }
        }
    }
    let missing = specs.iter().zip(&found).filter(|(_, found)| !**found).map(|(spec, _)| spec.name.clone());
    let missing: Vec<_> = missing.collect();
    if !missing.is_empty() {
        return Err(Error::MissingTensors { place, names: NameList(missing) });
    }
    if !surplus.is_empty() {
        return Err(Error::SurplusTensors { place, names: NameList(surplus) });
    }
    let embedding = wanted.get(EMBEDDING).copied();
    for file in &files {
        for entry in &file.tensors {
            let expected = match wanted.get(&*entry.name) {
                Some(&index) => &specs[index].shape,
                None if entry.name == UNEMBEDDING => match embedding {
                    Some(embedding) => &specs[embedding].shape,
                    None => continue,
                },
                None => continue,
            };
            file.check(entry, expected)?;
        }
    }

    let mut weights = vec![Vec::new(); specs.len()];
    let mut unembedding = None;
    for file in &mut files {
        for entry in std::mem::take(&mut file.tensors) {
            if let Some(&index) = wanted.get(&*entry.name) {
                weights[index] = file.read_finite(&entry)?;
            } else if entry.name == UNEMBEDDING {
                unembedding = Some((file.path.clone(), file.read_finite(&entry)?));
            }
        }
    }
    if let (Some((file, values)), Some(embedding)) = (unembedding, embedding)
        && values != weights[embedding]
    {
        return Err(Error::TiedTensorDiffers { file, tensor: UNEMBEDDING.into() });
    }
    Ok(weights)
}

/// Reads every tensor of one file, in the order of their data.
pub fn read_file_tensors(file: &Path) -> Result<Vec<NamedTensor>> {
    let mut file = WeightFile::open(file.to_owned())?;
    let entries = std::mem::take(&mut file.tensors);
    entries
        .into_iter()
        .map(|entry| {
            file.check(&entry, &entry.shape)?;
            let data = file.read(&entry)?;
            Ok(NamedTensor { name: entry.name, shape: entry.shape, data })
        })
        .collect()
}

/// Reads the texts that stand beside the tensors in a file's header.
pub fn read_metadata(file: &Path) -> Result<HashMap<String, String>> {
    let mut stream = File::open(file)?;
    let length = stream.metadata()?.len();
    Ok(read_header(&mut stream, length, file)?.metadata)
}

const EMBEDDING: &str = "model.embed_tokens.weight";
const UNEMBEDDING: &str = "lm_head.weight";
const ROTARY_BUFFER: &str = ".rotary_emb.inv_freq";

/// Bytes converted at a time.
const BUFFER_BYTES: usize = 1 << 20;

/// The open files of a checkpoint, and the path that stands for them in errors. A single file goes before an index, as in
/// transformers.
fn open_weights(folder: &Path) -> Result<(Vec<WeightFile>, PathBuf)> {
    let single = folder.join("model.safetensors");
    if single.is_file() {
        return Ok((vec![WeightFile::open(single.clone())?], single));
    }
    let index = folder.join("model.safetensors.index.json");
    if !index.is_file() {
        return Err(Error::NotACheckpoint { folder: folder.to_owned(), missing: "model.safetensors".into() });
    }
    let mut files = Vec::new();
    for (path, names) in shards(folder, &index)? {
        if !path.is_file() {
            let missing = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            return Err(Error::NotACheckpoint { folder: folder.to_owned(), missing });
        }
        let file = WeightFile::open(path)?;
        // The index and the shards must agree on every name, or a tensor could come from two places.
        let damaged = |tensor: &str, reason: &str| Error::DamagedTensor {
            file: file.path.clone(),
            tensor: tensor.to_owned(),
            reason: reason.to_owned(),
        };
        if let Some(entry) = file.tensors.iter().find(|entry| !names.contains(&entry.name)) {
            return Err(damaged(&entry.name, "the index does not place it in this shard"));
        }
        if let Some(name) = names.iter().find(|name| file.tensors.iter().all(|entry| entry.name != **name)) {
            return Err(damaged(name, "the index places it in this shard, which does not hold it"));
        }
        files.push(file);
    }
    Ok((files, folder.to_owned()))
}

/// An open file whose header has been checked.
struct WeightFile {
    path: PathBuf,
    stream: File,
    tensors: Vec<Entry>,
}

impl WeightFile {
    fn open(path: PathBuf) -> Result<Self> {
        let mut stream = File::open(&path)?;
        let length = stream.metadata()?.len();
        let tensors = read_header(&mut stream, length, &path)?.tensors;
        Ok(Self { path, stream, tensors })
    }

    /// The tensor can be read, and has the shape that is expected of it.
    fn check(&self, entry: &Entry, expected: &[usize]) -> Result<()> {
        if entry.shape != expected {
            return Err(Error::Shape {
                file: self.path.clone(),
                tensor: entry.name.clone(),
                found: entry.shape.clone(),
                expected: expected.to_vec(),
            });
        }
        match entry.dtype {
            Dtype::F32 | Dtype::F16 | Dtype::BF16 => Ok(()),
            other => Err(Error::Dtype {
                file: self.path.clone(),
                tensor: entry.name.clone(),
                dtype: other.to_string(),
            }),
        }
    }

    fn read_finite(&mut self, entry: &Entry) -> Result<Vec<f32>> {
        let values = self.read(entry)?;
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(place) => Err(Error::NotFinite {
                file: self.path.clone(),
                tensor: entry.name.clone(),
                value: values[place],
                place,
            }),
        }
    }

    /// The values as float32; both short formats convert without loss.
    fn read(&mut self, entry: &Entry) -> Result<Vec<f32>> {
        self.stream.seek(SeekFrom::Start(entry.start))?;
        let mut values = Vec::with_capacity(entry.count());
        let mut left = entry.bytes as usize;
        let mut buffer = vec![0; left.min(BUFFER_BYTES)];
        while left > 0 {
            let bytes = &mut buffer[..left.min(BUFFER_BYTES)];
            self.stream.read_exact(bytes)?;
            left -= bytes.len();
            match entry.dtype {
                Dtype::F16 => {
                    values.extend(bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()))
                }
                Dtype::BF16 => {
                    values.extend(bytes.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()))
                }
                // `check` has let no other dtype through.
                _ => values.extend(bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b))),
            }
        }
        Ok(values)
    }
}
