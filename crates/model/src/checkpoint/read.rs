//! Reading weights: a single `model.safetensors` or shards with their index, checked against what the architecture needs.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use fs_err::File;
use half::{bf16, f16};
use safetensors::Dtype;
use tensor::Params;

use super::header::{Entry, read_header};
use super::index::shards;
use super::present;
use super::storage::{STORED_UNEMBEDDING, Storage, StoredTensor};
use super::transpose::transpose;
use crate::config::DecoderConfig;
use crate::error::{Error, NameList, Result};
use crate::tensors::TensorSpec;

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

/// Reads the weights of the checkpoint in `folder`, which `config` describes, as trainable parameters in the order of
/// [`DecoderConfig::tensors`].
///
/// Refused with names: missing and surplus tensors, wrong shapes, dtypes other than F32, F16 and BF16, values that are not
/// finite, and everything that breaks the file format. Two surpluses are common and harmless: the unembedding of a tied
/// model (it must equal the embedding), and buffers that the configuration implies (rotary frequencies, masks).
pub fn read_params(folder: &Path, config: &DecoderConfig) -> Result<Params> {
    let storage = Storage::of(config);
    let mut parts: Vec<Vec<f32>> = vec![Vec::new(); storage.specs.len()];
    for (stored, values) in storage.tensors.iter().zip(read_stored(folder, &storage)?) {
        split(stored, values, &storage.specs, &mut parts);
    }
    let mut params = Params::default();
    for (spec, values) in storage.specs.into_iter().zip(parts) {
        params.add(spec.name, &spec.shape, values);
    }
    Ok(params)
}

/// Gives the values of a stored tensor to its parts.
fn split(stored: &StoredTensor, mut values: Vec<f32>, specs: &[TensorSpec], parts: &mut [Vec<f32>]) {
    if stored.transposed {
        values = transpose(&values, stored.shape[0], stored.shape[1]);
    }
    // From the last to the first: what is left in the end needs no copy.
    for (place, &part) in stored.parts.iter().enumerate().rev() {
        let count: usize = specs[part].shape.iter().product();
        parts[part] =
            if place == 0 { std::mem::take(&mut values) } else { values.split_off(values.len() - count) };
    }
}

/// One vector for each tensor of `storage`, in that order.
fn read_stored(folder: &Path, storage: &Storage) -> Result<Vec<Vec<f32>>> {
    let (mut files, place) = open_weights(folder)?;
    let tensors = &storage.tensors;
    let wanted: HashMap<&str, usize> =
        tensors.iter().enumerate().map(|(i, tensor)| (&*tensor.name, i)).collect();

    let mut found = vec![false; tensors.len()];
    let mut surplus = Vec::new();
    for file in &files {
        for entry in &file.tensors {
            match wanted.get(&*entry.name) {
                Some(&index) => found[index] = true,
                None if entry.name == STORED_UNEMBEDDING || storage.is_buffer(&entry.name) => {}
                None => surplus.push(entry.name.clone()),
            }
        }
    }
    let missing = tensors.iter().zip(&found).filter(|(_, found)| !**found);
    let missing: Vec<_> = missing.map(|(tensor, _)| tensor.name.clone()).collect();
    if !missing.is_empty() {
        return Err(Error::MissingTensors { place, names: NameList(missing) });
    }
    if !surplus.is_empty() {
        return Err(Error::SurplusTensors { place, names: NameList(surplus) });
    }
    let embedding = wanted.get(&*storage.embedding).copied();
    for file in &files {
        for entry in &file.tensors {
            let expected = match wanted.get(&*entry.name) {
                Some(&index) => &tensors[index].shape,
                None if entry.name == STORED_UNEMBEDDING => match embedding {
                    Some(embedding) => &tensors[embedding].shape,
                    None => continue,
                },
                None => continue,
            };
            file.check(entry, expected)?;
        }
    }

    let mut weights = vec![Vec::new(); tensors.len()];
    let mut unembedding = None;
    for file in &mut files {
        for entry in std::mem::take(&mut file.tensors) {
            if let Some(&index) = wanted.get(&*entry.name) {
                weights[index] = file.read_finite(&entry)?;
            } else if entry.name == STORED_UNEMBEDDING {
                unembedding = Some((file.path.clone(), file.read_finite(&entry)?));
            }
        }
    }
    if let (Some((file, values)), Some(embedding)) = (unembedding, embedding)
        && values != weights[embedding]
    {
        let (tensor, embedding) = (STORED_UNEMBEDDING.into(), storage.embedding.clone());
        return Err(Error::TiedTensorDiffers { file, tensor, embedding });
    }
    Ok(weights)
}

/// Names of the tensors in the checkpoint, from the headers alone.
pub(crate) fn stored_names(folder: &Path) -> Result<Vec<String>> {
    let (files, _) = open_weights(folder)?;
    Ok(files.into_iter().flat_map(|file| file.tensors).map(|entry| entry.name).collect())
}

/// Reads every tensor of one file, in the order of their data.
pub fn read_file_tensors(file: &Path) -> Result<Vec<NamedTensor>> {
    read_all(file, WeightFile::read)
}

/// As [`read_file_tensors`]; values that are not finite are refused with the name of their tensor.
pub fn read_finite_tensors(file: &Path) -> Result<Vec<NamedTensor>> {
    read_all(file, WeightFile::read_finite)
}

fn read_all(file: &Path, read: fn(&mut WeightFile, &Entry) -> Result<Vec<f32>>) -> Result<Vec<NamedTensor>> {
    let mut file = WeightFile::open(file.to_owned())?;
    let entries = std::mem::take(&mut file.tensors);
    entries
        .into_iter()
        .map(|entry| {
            file.check(&entry, &entry.shape)?;
            let data = read(&mut file, &entry)?;
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

/// The tensors of a checkpoint, taken out one by one by whoever knows what they are for.
pub(crate) struct Stored {
    files: Vec<WeightFile>,
    place: PathBuf,
}

impl Stored {
    /// Opens the weights in `folder`; `file` is their name where it is not the usual one.
    pub(crate) fn open(folder: &Path, file: Option<&str>) -> Result<Self> {
        let (files, place) = match file {
            None => open_weights(folder)?,
            Some(name) => {
                let place = folder.join(name);
                if !present(&place)? {
                    return Err(Error::NotACheckpoint { folder: folder.to_owned(), missing: name.into() });
                }
                (vec![WeightFile::open(place.clone())?], place)
            }
        };
        Ok(Self { files, place })
    }

    /// Whether a tensor of that name is still there.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.files.iter().any(|file| file.tensors.iter().any(|entry| entry.name == name))
    }

    /// Takes a tensor out.
    pub(crate) fn take(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        for file in &mut self.files {
            if let Some(index) = file.tensors.iter().position(|entry| entry.name == name) {
                let entry = file.tensors.remove(index);
                file.check(&entry, shape)?;
                return file.read_finite(&entry);
            }
        }
        Err(Error::MissingTensors { place: self.place.clone(), names: NameList(vec![name.to_owned()]) })
    }

    /// Refuses what nobody took, but for what `known` says is of no use here.
    pub(crate) fn finish(self, known: impl Fn(&str) -> bool) -> Result<()> {
        let left = self.files.into_iter().flat_map(|file| file.tensors).map(|entry| entry.name);
        let surplus: Vec<String> = left.filter(|name| !known(name)).collect();
        match surplus.is_empty() {
            true => Ok(()),
            false => Err(Error::SurplusTensors { place: self.place, names: NameList(surplus) }),
        }
    }
}

/// Values read at a time: as many as the second cache of a core holds.
const PIECE: usize = 1 << 16;

/// The open files of a checkpoint, and the path that stands for them in errors. A single file goes before an index, as in
/// transformers.
fn open_weights(folder: &Path) -> Result<(Vec<WeightFile>, PathBuf)> {
    let single = folder.join("model.safetensors");
    if present(&single)? {
        return Ok((vec![WeightFile::open(single.clone())?], single));
    }
    let index = folder.join("model.safetensors.index.json");
    if !present(&index)? {
        return Err(Error::NotACheckpoint { folder: folder.to_owned(), missing: "model.safetensors".into() });
    }
    let mut files = Vec::new();
    for (path, names) in shards(folder, &index)? {
        if !present(&path)? {
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
        let mut first = None;
        let values = self.read_with(entry, |done, part| {
            if first.is_none() && kernels::vector::has_non_finite(part) {
                first = part.iter().position(|value| !value.is_finite()).map(|place| done + place);
            }
        })?;
        match first {
            None => Ok(values),
            Some(place) => Err(Error::NotFinite {
                file: self.path.clone(),
                tensor: entry.name.clone(),
                value: values[place],
                place,
            }),
        }
    }

    fn read(&mut self, entry: &Entry) -> Result<Vec<f32>> {
        self.read_with(entry, |_, _| {})
    }

    /// The values as float32; both short formats convert without loss. `look` sees them piece by piece, with the number of
    /// values before, while they are still in the cache.
    fn read_with(&mut self, entry: &Entry, mut look: impl FnMut(usize, &[f32])) -> Result<Vec<f32>> {
        self.stream.seek(SeekFrom::Start(entry.start))?;
        let mut values = vec![0.0; entry.count()];
        let mut halves = vec![[0; 2]; if entry.dtype == Dtype::F32 { 0 } else { PIECE.min(values.len()) }];
        for (piece, part) in values.chunks_mut(PIECE).enumerate() {
            let halves = &mut halves[..if entry.dtype == Dtype::F32 { 0 } else { part.len() }];
            match entry.dtype {
                Dtype::F16 => {
                    self.stream.read_exact(halves.as_flattened_mut())?;
                    part.iter_mut().zip(halves).for_each(|(v, b)| *v = f16::from_le_bytes(*b).to_f32());
                }
                Dtype::BF16 => {
                    self.stream.read_exact(halves.as_flattened_mut())?;
                    part.iter_mut().zip(halves).for_each(|(v, b)| *v = bf16::from_le_bytes(*b).to_f32());
                }
                // `check` has let no other dtype through. Straight to where they stay; on most machines nothing is left to do.
                _ => {
                    self.stream.read_exact(bytemuck::cast_slice_mut(part))?;
                    part.iter_mut().for_each(|v| *v = f32::from_bits(u32::from_le(v.to_bits())));
                }
            }
            look(piece * PIECE, part);
        }
        Ok(values)
    }
}
