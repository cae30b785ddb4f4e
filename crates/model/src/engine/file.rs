//! Packed weights as a file, so that loading them is reading them.
//!
//! `packed.safetensors` holds each group of linear maps under the name of its first map's weight: `NAME.packed` and
//! `NAME.scales` are bytes in the order in which the kernels read them, the same on every machine, `NAME.bias` the biases of the
//! group. Norms' gains, as they are multiplied, and embeddings stand under their own names. `checksums` holds a CRC-32C of each of
//! these, in the order of their names: of packed weights nothing else would show that they were damaged.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use fs_err::File;
use half::bf16;
use kernels::packed::{Packed, WeightType};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use tensor::{ParamId, Params};

use super::weights::{EngineWeights, Group, Part, parts};
use crate::Decoder;
use crate::checkpoint::{Entry, read_header};
use crate::error::{Error, NameList, Result};

/// Name of the file in a folder of packed weights.
pub const PACKED_FILE: &str = "packed.safetensors";

/// Writes a decoder's packed weights as `file`. `params` names the parameters; their values are not looked at.
///
/// # Errors
///
/// When the file cannot be written.
pub fn write_packed(weights: &EngineWeights, decoder: &Decoder, params: &Params, file: &Path) -> Result<()> {
    let mut owned: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    let mut borrowed: Vec<(String, &[u8])> = Vec::new();
    let vector = |id: ParamId| {
        let values = weights.vector(id);
        (params.get(id).name.clone(), Dtype::F32, vec![values.len()], bytes_of(values))
    };
    for part in parts(decoder) {
        match part {
            Part::Table(id) => {
                let (table, width) = weights.table(id);
                let shape = vec![table.len() / width, width];
                let halves: Vec<u8> = table.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect();
                owned.push((params.get(id).name.clone(), Dtype::BF16, shape, halves));
            }
            Part::Group(maps) => {
                let (name, group) = (&params.get(maps[0].weight).name, weights.group(maps[0].weight));
                let [packed, scales] = group.packed.as_bytes();
                borrowed.push((format!("{name}.packed"), packed));
                borrowed.push((format!("{name}.scales"), scales));
                if let Some(bias) = &group.bias {
                    owned.push((format!("{name}.bias"), Dtype::F32, vec![bias.len()], bytes_of(bias)));
                }
            }
            Part::Vector(id) => owned.push(vector(id)),
        }
    }
    let bytes = borrowed.iter().map(|(name, data)| (name, Dtype::U8, vec![data.len()], *data));
    let values = owned.iter().map(|(name, dtype, shape, data)| (name, *dtype, shape.clone(), &**data));
    let unwritable = |tensor: &str, error: safetensors::SafeTensorError| Error::Unwritable {
        file: file.to_owned(),
        tensor: tensor.to_owned(),
        reason: error.to_string(),
    };
    let views = bytes.chain(values).map(|(name, dtype, shape, data)| {
        let view = TensorView::new(dtype, shape, data).map_err(|error| unwritable(name, error))?;
        Ok((name.as_str(), view))
    });
    let mut views = views.collect::<Result<Vec<_>>>()?;
    let mut sums: Vec<(&str, u32)> =
        views.iter().map(|(name, view)| (*name, crc32c::crc32c(view.data()))).collect();
    sums.sort_unstable();
    let sums: Vec<u8> = sums.into_iter().flat_map(|(_, sum)| sum.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::U8, vec![sums.len()], &sums);
    views.push((CHECKSUMS, view.map_err(|error| unwritable(CHECKSUMS, error))?));
    let metadata = HashMap::from([("format".to_owned(), FORMAT.to_owned())]);
    safetensors::serialize_to_file(views, Some(metadata), file).map_err(|error| unwritable("weights", error))
}

/// Reads what [`write_packed`] wrote, for a decoder of the same shape whose maps are `weight_type`; `params` knows its names and
/// shapes.
///
/// # Errors
///
/// Names the tensor that is missing, of another size, damaged, or not finite.
pub fn read_packed(
    weight_type: WeightType,
    decoder: &Decoder,
    params: &Params,
    file: &Path,
) -> Result<EngineWeights> {
    let mut stream = File::open(file)?;
    let length = stream.metadata()?.len();
    let header = read_header(&mut stream, length, file)?;
    if header.metadata.get("format").is_none_or(|format| format != FORMAT) {
        let reason = format!("no weights packed as this version packs them ({FORMAT})");
        return Err(Error::DamagedFile { file: file.to_owned(), reason });
    }
    let entries = header.tensors.into_iter().map(|entry| (entry.name.clone(), entry)).collect();
    let mut reader = Reader { file, stream, entries, sums: HashMap::new() };
    reader.read_sums()?;
    let mut weights = EngineWeights::empty(weight_type);
    for part in parts(decoder) {
        match part {
            Part::Table(id) => {
                let (rows, width) = params.matrix_shape(id);
                let table = reader.table(&params.get(id).name, rows * width)?;
                weights.insert_table(id, table, width);
            }
            Part::Group(maps) => {
                let name = &params.get(maps[0].weight).name;
                let inputs = params.matrix_shape(maps[0].weight).1;
                let outputs = maps.iter().map(|map| params.matrix_shape(map.weight).0).sum();
                let kind = weights.type_of(decoder, &maps);
                let mut packed = Packed::zero(kind, outputs, inputs);
                for (suffix, bytes) in ["packed", "scales"].into_iter().zip(packed.as_bytes_mut()) {
                    reader.bytes(&format!("{name}.{suffix}"), bytes)?;
                }
                let biased = maps.iter().any(|map| map.bias.is_some());
                let bias = biased.then(|| reader.vector(&format!("{name}.bias"), outputs)).transpose()?;
                weights.insert_group(maps[0].weight, Group { packed, bias });
            }
            Part::Vector(id) => {
                let vector = reader.vector(&params.get(id).name, params.get(id).shape.iter().product())?;
                weights.insert_vector(id, vector);
            }
        }
    }
    let surplus: Vec<String> = reader.entries.into_keys().collect();
    if !surplus.is_empty() {
        return Err(Error::SurplusTensors { place: file.to_owned(), names: NameList(surplus) });
    }
    weights.count_decoder();
    Ok(weights)
}

/// Changes when the order of bytes or the meaning of a scale does.
const FORMAT: &str = "sakiyomi-packed-1";

/// Name of the tensor of checksums. Files of the first versions have none.
const CHECKSUMS: &str = "checksums";

/// Bytes that are read at once and summed while they are in the cache.
const PIECE_BYTES: usize = 1 << 18;

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// An open file and the tensors that have not been read yet.
struct Reader<'a> {
    file: &'a Path,
    stream: File,
    entries: HashMap<String, Entry>,
    /// Checksums by the names of the tensors.
    sums: HashMap<String, u32>,
}

impl Reader<'_> {
    fn read_sums(&mut self) -> Result<()> {
        if !self.entries.contains_key(CHECKSUMS) {
            return Ok(());
        }
        let mut names: Vec<String> = self.entries.keys().filter(|name| *name != CHECKSUMS).cloned().collect();
        names.sort_unstable();
        let mut sums = vec![[0; 4]; names.len()];
        self.read(CHECKSUMS, Dtype::U8, sums.as_flattened_mut())?;
        self.sums = names.into_iter().zip(sums.into_iter().map(u32::from_le_bytes)).collect();
        Ok(())
    }

    /// Fills `bytes` with the tensor's.
    fn bytes(&mut self, name: &str, bytes: &mut [u8]) -> Result<()> {
        self.read(name, Dtype::U8, bytes)
    }

    fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>> {
        let mut bytes = vec![[0; 4]; len];
        self.read(name, Dtype::F32, bytes.as_flattened_mut())?;
        self.finite(name, bytes.into_iter().map(f32::from_le_bytes).collect())
    }

    fn table(&mut self, name: &str, len: usize) -> Result<Vec<f32>> {
        let mut bytes = vec![[0; 2]; len];
        self.read(name, Dtype::BF16, bytes.as_flattened_mut())?;
        self.finite(name, bytes.into_iter().map(|bytes| bf16::from_le_bytes(bytes).to_f32()).collect())
    }

    fn read(&mut self, name: &str, dtype: Dtype, bytes: &mut [u8]) -> Result<()> {
        let Some(entry) = self.entries.remove(name) else {
            return Err(Error::MissingTensors {
                place: self.file.to_owned(),
                names: NameList(vec![name.to_owned()]),
            });
        };
        if entry.dtype != dtype || entry.bytes != bytes.len() as u64 {
            return Err(Error::DamagedTensor {
                file: self.file.to_owned(),
                tensor: name.to_owned(),
                reason: format!(
                    "{} bytes of {}, config.json implies {} of {dtype}",
                    entry.bytes,
                    entry.dtype,
                    bytes.len()
                ),
            });
        }
        self.stream.seek(SeekFrom::Start(entry.start))?;
        let mut sum = 0;
        for piece in bytes.chunks_mut(PIECE_BYTES) {
            self.stream.read_exact(piece)?;
            sum = crc32c::crc32c_append(sum, piece);
        }
        match self.sums.get(name).is_none_or(|written| *written == sum) {
            true => Ok(()),
            false => Err(Error::DamagedTensor {
                file: self.file.to_owned(),
                tensor: name.to_owned(),
                reason: "its checksum is not the one that it was written with".to_owned(),
            }),
        }
    }

    fn finite(&self, name: &str, values: Vec<f32>) -> Result<Vec<f32>> {
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(place) => Err(Error::NotFinite {
                file: self.file.to_owned(),
                tensor: name.to_owned(),
                value: values[place],
                place,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;

    use super::*;
    use crate::DecoderConfig;

    fn model() -> (Decoder, Params) {
        let config = DecoderConfig { layers: 1, ..crate::presets::preset("1M", 16).unwrap() };
        Decoder::initialise(&config, 1).unwrap()
    }

    #[test]
    fn a_byte_that_changed_is_noticed_in_every_tensor() {
        let (folder, (decoder, params)) = (tempfile::tempdir().unwrap(), model());
        let file = folder.path().join(PACKED_FILE);
        let weights = EngineWeights::new_as(WeightType::Int8, &decoder, &params);
        write_packed(&weights, &decoder, &params, &file).unwrap();
        read_packed(WeightType::Int8, &decoder, &params, &file).unwrap();
        let whole = fs_err::read(&file).unwrap();
        let mut stream = File::open(&file).unwrap();
        let header = read_header(&mut stream, whole.len() as u64, &file).unwrap();
        assert!(header.tensors.len() > 10);
        for entry in header.tensors {
            let mut damaged = whole.clone();
            damaged[(entry.start + entry.bytes / 2) as usize] ^= 1;
            fs_err::write(&file, damaged).unwrap();
            let refusal = read_packed(WeightType::Int8, &decoder, &params, &file).err().unwrap().to_string();
            assert!(
                refusal.contains("packed.safetensors: tensor ") && refusal.contains("checksum"),
                "{refusal}"
            );
            assert!(entry.name == CHECKSUMS || refusal.contains(&entry.name), "{refusal}");
        }
    }

    #[test]
    fn a_file_of_an_older_version_has_no_checksums_and_is_read() {
        let (folder, (decoder, params)) = (tempfile::tempdir().unwrap(), model());
        let file = folder.path().join(PACKED_FILE);
        let weights = EngineWeights::new_as(WeightType::Int4, &decoder, &params);
        write_packed(&weights, &decoder, &params, &file).unwrap();
        let whole = fs_err::read(&file).unwrap();
        let tensors = SafeTensors::deserialize(&whole).unwrap();
        let older = tensors.tensors().into_iter().filter(|(name, _)| name != CHECKSUMS);
        let metadata = HashMap::from([("format".to_owned(), FORMAT.to_owned())]);
        safetensors::serialize_to_file(older, Some(metadata), &file).unwrap();
        read_packed(WeightType::Int4, &decoder, &params, &file).unwrap();
    }
}
