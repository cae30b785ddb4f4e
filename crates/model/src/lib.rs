//! Decoders: written once over [`tensor::Ops`], loaded from and saved to Hugging Face folders, and the engine that decodes
//! with them.

mod block;
pub mod checkpoint;
mod config;
mod decoder;
pub mod encoder;
pub mod engine;
mod error;
mod families;
pub mod lora;
pub mod presets;
mod rope;
pub mod taps;
mod tensors;

pub use block::Block;
pub use config::{ActivationForm, DecoderConfig, Family, Grid, LayerSet, NormForm, Variant, Window};
pub use decoder::{Decoder, initial_values};
pub use error::{Error, Result};
pub use lora::LoraSpec;
pub use rope::{LongRope, Rope, RopeScaling};
pub use tensors::TensorSpec;
