//! The vector of the registers: its name and its first value.

use model::{Decoder, Error as ModelError};
use tensor::{Params, random};

use super::{Registers, RegistersSpec};
use crate::Result;

/// Name of the vector in `mtp.safetensors`.
pub const REGISTER_VECTOR: &str = "registers.vector";

/// How the vector begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegisterStart {
    /// With a new model: drawn like the row of a token.
    Fresh {
        /// Seed of the run.
        seed: u64,
    },
    /// On a finished model: the mean of the rows of all tokens.
    Finished,
}

/// Purpose of the random stream that draws the vector.
const REGISTER_INITIALISATION: u64 = 3;

impl Registers {
    /// Adds the vector to `params`.
    pub fn attach(
        spec: RegistersSpec,
        decoder: &Decoder,
        params: &mut Params,
        start: RegisterStart,
    ) -> Result<Self> {
        let width = decoder.config.width;
        let mut vector = match start {
            RegisterStart::Fresh { seed } => {
                let deviation = (2.0 / (5.0 * width as f32)).sqrt();
                random::normal(&mut random::seeded(seed, REGISTER_INITIALISATION), width, deviation)
            }
            RegisterStart::Finished => {
                let table = params.data(decoder.embedding.table);
                let rows = (table.len() / width).max(1) as f32;
                let mut mean = vec![0.0; width];
                table.chunks_exact(width).for_each(|row| kernels::vector::add_assign(&mut mean, row));
                kernels::vector::scale(&mut mean, 1.0 / rows);
                mean
            }
        };
        // Tokens reach the first block multiplied with the embedding's scale; the vector reaches it as it is.
        kernels::vector::scale(&mut vector, decoder.embedding.scale);
        params.add(REGISTER_VECTOR, &[width], vector);
        Self::find(spec, decoder, params)
    }

    /// Finds the vector among `params`.
    pub fn find(spec: RegistersSpec, decoder: &Decoder, params: &Params) -> Result<Self> {
        spec.validate()?;
        let vector = params
            .find(REGISTER_VECTOR)
            .ok_or_else(|| ModelError::MissingParameter { name: REGISTER_VECTOR.to_owned() })?;
        let offsets = spec.offsets();
        Ok(Self { spec, vector: [vector], context: decoder.config.context, offsets })
    }

    /// Names and shapes of what registers add to a model.
    pub fn tensors(width: usize) -> Vec<(String, Vec<usize>)> {
        vec![(REGISTER_VECTOR.to_owned(), vec![width])]
    }
}
