//! The one error type of this crate: every message is one line that says what is wrong, where, and what to do.

use std::{fmt, path::PathBuf};

/// What the functions of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can be wrong with a decoder's description or with the files it is kept in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file system refused; the message of `fs-err` names the operation and the path.
    #[error(transparent)]
    Io(#[from] std::io::Error),

    /// Adapters that cannot be made or read.
    #[error("adapter: {problem}")]
    Lora {
        /// What is wrong and what to do.
        problem: String,
    },

    /// A folder that should be a checkpoint lacks a file.
    #[error(
        "{} holds no {missing}: point to a Hugging Face checkpoint folder (config.json and model.safetensors; \
         other weight formats must be converted first)",
        .folder.display()
    )]
    NotACheckpoint {
        /// The folder that was given.
        folder: PathBuf,
        /// The file that is not there.
        missing: String,
    },

    /// A symbolic link in the place of a file.
    #[error(
        "{}: the symbolic link leads in a circle or to nothing; put the file itself there, or point the link to it",
        .file.display()
    )]
    BrokenLink {
        /// The link.
        file: PathBuf,
    },

    /// A folder or a device in the place of a file.
    #[error("{}: is no file: put the file there, or take this away if there should be none", .path.display())]
    NoFile {
        /// What stands there.
        path: PathBuf,
    },

    /// A JSON file that is no JSON, or JSON of another form.
    #[error("{}: {reason}; download or write the file again", .file.display())]
    Json {
        /// The file.
        file: PathBuf,
        /// What the parser said.
        reason: String,
    },

    /// `config.json` lacks a field that has no safe default.
    #[error("{}: `{field}` is missing; add it as published for this model", .file.display())]
    MissingField {
        /// The file.
        file: PathBuf,
        /// The key.
        field: String,
    },

    /// A field of `config.json` has a value of the wrong kind.
    #[error("{}: `{field}` is {value}, expected {expected}", .file.display())]
    WrongField {
        /// The file.
        file: PathBuf,
        /// The key.
        field: String,
        /// The value found, as JSON.
        value: String,
        /// What stands there in a valid file.
        expected: &'static str,
    },

    /// A field of `config.json` asks for arithmetic that is not here; ignoring it would give wrong numbers.
    #[error("{}: `{field}` is {value}, which is not supported; {supported}", .file.display())]
    Unsupported {
        /// The file.
        file: PathBuf,
        /// The key.
        field: String,
        /// The value found, as JSON.
        value: String,
        /// What is supported.
        supported: String,
    },

    /// The sizes of a decoder do not fit together.
    #[error("the model cannot be built: {reason}")]
    Architecture {
        /// Which sizes, and what they must satisfy.
        reason: String,
    },

    /// A set of parameters lacks one that the architecture needs.
    #[error("parameter {name} is missing; the parameters belong to another architecture")]
    MissingParameter {
        /// The Hugging Face name.
        name: String,
    },

    /// A safetensors file that breaks the format.
    #[error("{}: {reason}; the file is damaged, copy or download it again", .file.display())]
    DamagedFile {
        /// The file.
        file: PathBuf,
        /// How the file breaks the format.
        reason: String,
    },

    /// One tensor's entry in a safetensors header breaks the format.
    #[error("{}: tensor {tensor}: {reason}; the file is damaged, copy or download it again", .file.display())]
    DamagedTensor {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// How the entry breaks the format.
        reason: String,
    },

    /// A tensor is stored in an element type that is not read.
    #[error(
        "{}: tensor {tensor} has dtype {dtype}, only F32, F16 and BF16 are read; convert the checkpoint first",
        .file.display()
    )]
    Dtype {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The dtype as the header names it.
        dtype: String,
    },

    /// A weight is infinite or no number.
    #[error(
        "{}: tensor {tensor} holds {value} at index {place}; the training that wrote it diverged, use an earlier checkpoint",
        .file.display()
    )]
    NotFinite {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The value.
        value: f32,
        /// Its index in the flat tensor.
        place: usize,
    },

    /// A tensor's shape is not the one that the configuration implies.
    #[error(
        "{}: tensor {tensor} has shape {found:?}, config.json implies {expected:?}; the two files do not belong together",
        .file.display()
    )]
    Shape {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The shape in the file.
        found: Vec<usize>,
        /// The shape that the configuration implies.
        expected: Vec<usize>,
    },

    /// Weights packed for decoding where a checkpoint is wanted.
    #[error(
        "{}: {weights} weights packed for decoding; use the checkpoint that they were made of",
        .folder.display()
    )]
    PackedWeights {
        /// The folder.
        folder: PathBuf,
        /// How they are written.
        weights: kernels::packed::WeightType,
    },

    /// Tensors that the configuration implies are in no file.
    #[error("{}: missing {names}; the weights are incomplete or of another architecture", .place.display())]
    MissingTensors {
        /// The weights file, or the folder of a sharded checkpoint.
        place: PathBuf,
        /// The names.
        names: NameList,
    },

    /// Tensors that the configuration does not know; dropping them would silently change the model.
    #[error(
        "{}: surplus {names}, which config.json does not account for; the weights are of another architecture",
        .place.display()
    )]
    SurplusTensors {
        /// The weights file, or the folder of a sharded checkpoint.
        place: PathBuf,
        /// The names.
        names: NameList,
    },

    /// The embedding is tied, and yet the file holds an unembedding that differs from it.
    #[error(
        "{}: tensor {tensor} differs from {embedding} although config.json says \
         tie_word_embeddings; set it to false, or remove the tensor",
        .file.display()
    )]
    TiedTensorDiffers {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The embedding, by its name in the file.
        embedding: String,
    },

    /// A tensor that was to be written has no place in a safetensors file.
    #[error("{}: cannot write tensor {tensor}: {reason}", .file.display())]
    Unwritable {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Why.
        reason: String,
    },

    /// Something that a model is to look at is not what it takes.
    #[error("{reason}")]
    Input {
        /// What it is, and what the model takes.
        reason: String,
    },

    /// A folder that was to be replaced may hold something of the user's.
    #[error("{} {reason}; choose a new or an empty folder", .folder.display())]
    WontReplace {
        /// The folder.
        folder: PathBuf,
        /// What stands there.
        reason: &'static str,
    },
}

impl Error {
    pub(crate) fn input(reason: impl Into<String>) -> Self {
        Self::Input { reason: reason.into() }
    }
}

/// Names of tensors, of which only the first few are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameList(pub Vec<String>);

impl fmt::Display for NameList {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 3;
        let NameList(names) = self;
        let noun = if names.len() == 1 { "tensor" } else { "tensors" };
        write!(formatter, "{noun} {}", names[..names.len().min(SHOWN)].join(", "))?;
        if names.len() > SHOWN {
            write!(formatter, " and {} more", names.len() - SHOWN)?;
        }
        Ok(())
    }
}
