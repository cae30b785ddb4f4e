//! Checkpoints on disk: Hugging Face folders, read with every check that keeps a damaged file from becoming a bad model,
//! and written so that a crash leaves the old or the new one whole.
//!
//! Nothing here is mapped into memory: files are read and written as streams, so that the peak is the float32 weights
//! plus one buffer.

mod folder;
mod header;
mod index;
mod read;
mod write;

pub use crate::llama_config::{read_config, write_config};
pub use folder::{recover_folder, replace_folder, replace_folder_keeping};
pub use read::{NamedTensor, read_file_tensors, read_metadata, read_tensors};
pub use write::{write_file, write_tensors};
