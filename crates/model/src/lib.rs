//! Decoders: written once over [`tensor::Ops`], loaded from and saved to Hugging Face folders, and the engine that decodes
//! with them.

pub mod checkpoint;
mod config;
mod decoder;
pub mod engine;
mod error;
mod llama_config;
pub mod presets;

pub use config::{DecoderConfig, Family, Rope, RopeScaling, TensorSpec};
pub use decoder::{Block, Decoder, initial_values};
pub use error::{Error, Result};
