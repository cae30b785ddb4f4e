//! Checkpoints on disk: Hugging Face folders, read with every check that keeps a damaged file from becoming a bad model,
//! and written so that a crash leaves the old or the new one whole.
//!
//! Nothing here is mapped into memory: files are read and written as streams, so that the peak is the float32 weights
//! plus one buffer.

mod folder;
mod header;
mod index;
mod link;
mod read;
mod storage;
mod transpose;
mod write;

pub use crate::families::{
    packed_weights, parse_config, read_config, read_packed_config, write_config, write_packed_config,
};
pub use folder::{recover_folder, replace_folder, replace_folder_keeping};
pub use header::{Entry, Header, parse_header};
pub use index::parse_index;
pub use link::present;
pub use read::{NamedTensor, read_file_tensors, read_finite_tensors, read_metadata, read_params};
pub use write::{write_file, write_params, write_tensors};

pub(crate) use header::read_header;
pub(crate) use read::{Stored, stored_names};
pub(crate) use storage::keeps_names;
