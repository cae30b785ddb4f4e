//! The index of a sharded checkpoint: which tensor lies in which file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};

/// The shards that `index` names, in the order of their file names, with the tensors that each must hold.
pub(super) fn shards(folder: &Path, index: &Path) -> Result<Vec<(PathBuf, BTreeSet<String>)>> {
    let json_error = |reason: String| Error::Json { file: index.to_owned(), reason };
    let bytes = fs_err::metadata(index)?.len();
    if bytes > MOST_BYTES {
        return Err(json_error(format!("{bytes} bytes are too many for an index")));
    }
    let shards = parse(&fs_err::read(index)?, index)?;
    Ok(shards.into_iter().map(|(shard, tensors)| (folder.join(shard), tensors)).collect())
}

/// The shards that the bytes of an index name, with their tensors. Any bytes give shards or an error.
pub fn parse_index(bytes: &[u8]) -> Result<BTreeMap<String, BTreeSet<String>>> {
    parse(bytes, Path::new("model.safetensors.index.json"))
}

fn parse(bytes: &[u8], index: &Path) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let json_error = |reason: String| Error::Json { file: index.to_owned(), reason };
    let Index { weight_map } =
        serde_json::from_slice(bytes).map_err(|error| json_error(format!("no index ({error})")))?;
    if weight_map.is_empty() {
        return Err(json_error("`weight_map` names no tensor".into()));
    }
    let mut shards: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (tensor, shard) in weight_map {
        // A name that leaves the folder would let a checkpoint read other files of the user's.
        let mut parts = Path::new(&shard).components();
        if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
            return Err(json_error(format!("`{shard}` is no file name in the same folder")));
        }
        shards.entry(shard).or_default().insert(tensor);
    }
    Ok(shards)
}

/// As large as a safetensors header may be: the index repeats those names.
const MOST_BYTES: u64 = super::header::MOST_HEADER_BYTES;

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}
