//! Models that are no decoders, for the lens: BERT with its masked-token head, the ViT image classifier, Whisper, and the
//! keyword-spotting transformer. Each loads from its folder, or begins with random weights.

mod bert;
mod block;
mod build;
mod folder;
mod keyword;
mod mel;
mod vit;
mod whisper;

pub use bert::{Bert, BertConfig};
pub use folder::{Kind, kind_of};
pub use keyword::{Keyword, KeywordConfig};
pub use vit::{Vit, VitConfig};
pub use whisper::{Whisper, WhisperConfig};

/// Where a model's values come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights {
    /// From the files of its folder.
    Stored,
    /// Drawn from this seed: maps normal with deviation 0.02, gains 1, biases 0.
    Random(u64),
}
