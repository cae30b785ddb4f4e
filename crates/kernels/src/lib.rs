//! CPU arithmetic on slices. No tensor type, no files, no allocation in hot loops.
//!
//! Training products go through the `gemm` crate ([`matmul`]); decoding products are our own ([`packed`]), because they
//! must give a row the same bits whatever rows stand beside it. Beside each fast path stands a plain [`mod@reference`].

pub mod adamw;
pub mod argmax;
pub mod attention;
pub mod bandwidth;
pub mod cached_attention;
pub mod cpu;
pub mod cross_entropy;
pub mod embedding;
pub mod full_attention;
mod gated;
pub mod gelu;
pub mod gelu_erf;
pub mod head_norm;
pub mod layer_norm;
pub mod likelihood;
pub mod matmul;
pub mod memory;
pub mod mixture;
pub mod muon;
pub mod packed;
pub mod peak;
pub mod reference;
pub mod rms_norm;
pub mod rope;
pub mod soft_cap;
pub mod swiglu;
pub mod team;
pub mod vector;
mod view;
