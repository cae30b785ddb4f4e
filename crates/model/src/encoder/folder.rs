//! What kind of model a folder holds, and typed reading of its `config.json`.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tensor::{Activation, Ops, Tape, Var};

use crate::checkpoint::present;
use crate::error::{Error, Result};
use crate::families::fields::Fields;
use crate::families::known::refuse_the_rest;
use crate::families::read_object;

/// Kinds of models that the lens looks into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A decoder-only language model.
    Decoder,
    /// BERT.
    Bert,
    /// ViT with a classifier.
    Vit,
    /// Whisper.
    Whisper,
    /// The keyword-spotting transformer.
    Keyword,
}

/// The kind of the model in `folder`, by the `model_type` of its `config.json`; whatever is no encoder counts as a decoder.
///
/// # Errors
/// When there is no `config.json`, or none that can be read.
pub fn kind_of(folder: &Path) -> Result<Kind> {
    let reader = Reader::open(folder)?;
    Ok(match reader.map.get("model_type").and_then(Value::as_str) {
        Some("bert") => Kind::Bert,
        Some("vit") => Kind::Vit,
        Some("whisper") => Kind::Whisper,
        Some("kwt") => Kind::Keyword,
        _ => Kind::Decoder,
    })
}

/// A `config.json`.
pub(super) struct Reader {
    pub(super) file: PathBuf,
    pub(super) map: Map<String, Value>,
}

impl Reader {
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let file = folder.join("config.json");
        if !present(&file)? {
            return Err(Error::NotACheckpoint { folder: folder.to_owned(), missing: "config.json".into() });
        }
        let map = read_object(&file)?;
        Ok(Self { file, map })
    }

    /// What `read` makes of the fields; those that it does not ask for are refused unless they are known to leave the numbers
    /// alone.
    pub(super) fn read<T>(&self, read: impl Fn(&Fields<'_>) -> Result<T>) -> Result<T> {
        let fields = Fields::new(&self.map, "", &self.file);
        fields.ignore("model_type");
        DROPOUT.iter().for_each(|key| fields.ignore(key));
        let config = read(&fields)?;
        refuse_the_rest(&fields)?;
        Ok(config)
    }

    /// Refuses models of another class: they lack the head through which the lens looks.
    pub(super) fn class(&self, fields: &Fields<'_>, classes: &[&str]) -> Result<()> {
        match fields.get("architectures") {
            Some(list)
                if !classes
                    .iter()
                    .any(|class| list.as_array().is_some_and(|l| l.iter().any(|name| name == class))) =>
            {
                let supported = format!("the lens needs the head of {}", classes.join(" or "));
                Err(fields.unsupported("architectures", &supported))
            }
            _ => Ok(()),
        }
    }

    /// Refuses sizes that do not fit together or are beyond any model there is.
    pub(super) fn check(&self, width: usize, heads: usize, layers: usize, others: &[usize]) -> Result<()> {
        const MOST: usize = 1 << 22;
        let refuse = |reason: String| Err(Error::Architecture { reason });
        if layers == 0 || layers > crate::config::MOST_LAYERS {
            return refuse(format!(
                "layers is {layers}, it must be from 1 to {}",
                crate::config::MOST_LAYERS
            ));
        }
        if heads == 0 || !width.is_multiple_of(heads) {
            return refuse(format!("a width of {width} does not divide into {heads} heads"));
        }
        match others.iter().chain([&width]).find(|size| **size == 0 || **size > MOST) {
            Some(size) => refuse(format!("a size of {size} is no size of a model")),
            None => Ok(()),
        }
    }
}

/// Fields of encoders that change nothing without training.
const DROPOUT: [&str; 17] = [
    "activation_dropout",
    "apply_spec_augment",
    "attention_probs_dropout_prob",
    "classifier_proj_size",
    "decoder_layerdrop",
    "dropout",
    "encoder_layerdrop",
    "hidden_dropout_prob",
    "init_std",
    "mask_feature_length",
    "mask_feature_min_masks",
    "mask_feature_prob",
    "mask_time_length",
    "mask_time_min_masks",
    "mask_time_prob",
    "median_filter_width",
    "use_weighted_layer_sum",
];

/// GELU as it is defined.
pub(super) fn plain_activation(tape: &mut Tape, x: Var) -> Var {
    tape.activate(x, Activation::GeluErf)
}
