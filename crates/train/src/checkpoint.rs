//! Checkpoints: a plain Hugging Face folder, and beside it what the objective adds.
//!
//! | file | holds |
//! |---|---|
//! | `config.json`, `generation_config.json`, `model.safetensors` | the model, as transformers reads it |
//! | `tokenizer.json`, `tokenizer_config.json` | the vocabulary |
//! | `mtp.json` | which heads there are, and on what weights; only if there are any |
//! | `mtp.safetensors` | their parameters; only if they have any |
//! | `trainer/` | what a run needs to go on; only in a run's newest checkpoints |

pub(crate) mod mtp;

use std::path::Path;

use data::Vocabulary;
use kernels::packed::WeightType;
use model::engine::{EngineWeights, PACKED_FILE, read_packed, write_packed};
use model::{Decoder, DecoderConfig};
use objective::{HeadsSpec, Objective, ParallelHeads};
use tensor::{ParamId, Params};

use crate::error::{Error, Result};

/// A vocabulary, a model, and heads on it.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Text to tokens and back.
    pub vocabulary: Vocabulary,
    /// The model.
    pub decoder: Decoder,
    /// Parameters of the model and of its heads.
    pub params: Params,
    /// The heads; one head, which is the model itself, where a checkpoint has no others.
    pub objective: ParallelHeads,
}

impl Checkpoint {
    /// Reads a checkpoint, written by a run or by anyone who writes Hugging Face folders.
    ///
    /// # Errors
    /// Names the file and what is wrong with it: something missing, damaged, of another shape, or made for another model.
    pub fn load(folder: &Path) -> Result<Self> {
        let config = model::checkpoint::read_config(folder)?;
        let vocabulary = Vocabulary::load(folder)?;
        check_vocabulary(&vocabulary, &config)?;
        let mut params = read_trunk(folder, &config)?;
        let decoder = Decoder::find(&config, &params)?;
        let spec = read_heads(folder, &decoder, &mut params, None)?.unwrap_or_else(HeadsSpec::next_token);
        let objective = ParallelHeads::find(spec, &decoder, &params)?;
        Ok(Self { vocabulary, decoder, params, objective })
    }

    /// Reads a folder of weights that [`Self::save_packed`] wrote; `None` if `folder` is an ordinary checkpoint. The
    /// checkpoint knows the model's parameters by name and shape only; those of heads are there.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_packed(folder: &Path) -> Result<Option<(Self, EngineWeights)>> {
        let Some(weight_type) = model::checkpoint::packed_weights(folder)? else { return Ok(None) };
        let config = model::checkpoint::read_packed_config(folder)?;
        let vocabulary = Vocabulary::load(folder)?;
        check_vocabulary(&vocabulary, &config)?;
        let mut params = Params::default();
        for tensor in config.tensors() {
            params.declare(tensor.name, &tensor.shape);
        }
        let decoder = Decoder::find(&config, &params)?;
        let weights = read_packed(weight_type, &decoder, &params, &folder.join(PACKED_FILE))?;
        let spec = read_heads(folder, &decoder, &mut params, None)?.unwrap_or_else(HeadsSpec::next_token);
        let objective = ParallelHeads::find(spec, &decoder, &params)?;
        Ok(Some((Self { vocabulary, decoder, params, objective }, weights)))
    }

    /// Packs the model's weights for decoding and writes them as `folder`, whole or not at all, with the heads as they are.
    ///
    /// # Errors
    /// As [`Self::save`].
    pub fn save_packed(&self, folder: &Path, weight_type: WeightType) -> Result<()> {
        let weights = EngineWeights::new_as(weight_type, &self.decoder, &self.params);
        replace_folder(folder, None, &mut |folder| {
            model::checkpoint::write_packed_config(folder, &self.decoder.config, weight_type)?;
            self.vocabulary.save(folder)?;
            write_packed(&weights, &self.decoder, &self.params, &folder.join(PACKED_FILE))?;
            self.write_heads(folder)
        })
    }

    /// Writes it as `folder`, whole or not at all; an older checkpoint there is replaced.
    ///
    /// # Errors
    /// When a file cannot be written, or `folder` holds something else.
    pub fn save(&self, folder: &Path) -> Result<()> {
        self.save_with(folder, None, &mut |_| Ok(()))
    }

    /// As [`Self::save`], without the heads: a standard checkpoint.
    ///
    /// # Errors
    /// As [`Self::save`].
    pub fn save_without_heads(&self, folder: &Path) -> Result<()> {
        replace_folder(folder, None, &mut |folder| self.write_model(folder))
    }

    /// As [`Self::save`]; `more` adds files of its own before the folder takes its place, and the older checkpoint becomes
    /// `kept`.
    pub(crate) fn save_with(
        &self,
        folder: &Path,
        kept: Option<&Path>,
        more: &mut dyn FnMut(&Path) -> Result<()>,
    ) -> Result<()> {
        replace_folder(folder, kept, &mut |folder| {
            self.write_model(folder)?;
            self.write_heads(folder)?;
            more(folder)
        })
    }

    fn write_model(&self, folder: &Path) -> Result<()> {
        model::checkpoint::write_config(folder, &self.decoder.config)?;
        self.vocabulary.save(folder)?;
        let digest = tokenizer_digest(folder)?;
        let metadata: Vec<_> =
            digest.as_deref().map(|digest| (TOKENIZER_DIGEST, digest)).into_iter().collect();
        Ok(model::checkpoint::write_params(folder, &self.decoder.config, &self.params, &metadata)?)
    }

    fn write_heads(&self, folder: &Path) -> Result<()> {
        if self.objective.depths() == 1 {
            return Ok(());
        }
        mtp::write(folder, self.objective.spec(), mtp::digest(&self.params, &self.decoder.config))?;
        if self.objective.parameters().is_empty() {
            return Ok(());
        }
        write_named(&folder.join(HEAD_WEIGHTS), &self.params, self.objective.parameters())
    }
}

const WEIGHTS: &str = "model.safetensors";
const HEAD_WEIGHTS: &str = "mtp.safetensors";

const TOKENIZER: &str = "tokenizer.json";

/// Where the weights say with which tokenizer they were trained.
const TOKENIZER_DIGEST: &str = "sakiyomi.tokenizer";

/// Length and checksum of `tokenizer.json` in `folder`, or of the file `folder`; `None` if there is none. Guards against
/// accidents, not against forgers.
pub(crate) fn tokenizer_digest(folder: &Path) -> Result<Option<String>> {
    let file = if folder.is_file() { folder.to_owned() } else { folder.join(TOKENIZER) };
    if !file.is_file() {
        return Ok(None);
    }
    let bytes = fs_err::read(file)?;
    Ok(Some(format!("{}-{:08x}", bytes.len(), crc32c::crc32c(&bytes))))
}

/// Refuses weights that say that they were trained with another tokenizer than the one beside them.
fn check_tokenizer_file(folder: &Path) -> Result<()> {
    let weights = folder.join(WEIGHTS);
    if !weights.is_file() {
        return Ok(());
    }
    let metadata = model::checkpoint::read_metadata(&weights)?;
    match metadata.get(TOKENIZER_DIGEST) {
        Some(trained_with) if tokenizer_digest(folder)?.as_ref() != Some(trained_with) => {
            Err(Error::OtherTokenizer { file: folder.join(TOKENIZER) })
        }
        _ => Ok(()),
    }
}

/// Refuses a tokenizer that has more tokens than the embedding has rows.
pub(crate) fn check_vocabulary(vocabulary: &Vocabulary, config: &DecoderConfig) -> Result<()> {
    if vocabulary.size() <= config.vocabulary {
        return Ok(());
    }
    Err(Error::VocabularyTooLarge { tokens: vocabulary.size(), rows: config.vocabulary })
}

/// The parameters of the model in `folder`, without heads.
pub(crate) fn read_trunk(folder: &Path, config: &DecoderConfig) -> Result<Params> {
    check_tokenizer_file(folder)?;
    Ok(model::checkpoint::read_params(folder, config)?)
}

/// Adds the heads in `folder` to `params`, and returns their settings; `None` if there are none, or not the `wanted` ones
/// (the weights of the losses may differ).
pub(crate) fn read_heads(
    folder: &Path,
    decoder: &Decoder,
    params: &mut Params,
    wanted: Option<&HeadsSpec>,
) -> Result<Option<HeadsSpec>> {
    let Some(mtp) = mtp::read(folder)? else { return Ok(None) };
    let spec = mtp.heads;
    if wanted.is_some_and(|wanted| {
        (wanted.n, wanted.kind, wanted.unembedding) != (spec.n, spec.kind, spec.unembedding)
    }) {
        return Ok(None);
    }
    spec.validate(decoder.config.layers)?;
    // Weights that are packed cannot be compared with those that the heads were trained on.
    let whole = params.values() > 0;
    if whole && mtp.trunk.is_some_and(|trunk| trunk != mtp::digest(params, &decoder.config)) {
        return Err(Error::OtherTrunk { file: folder.join(mtp::FILE) });
    }
    let expected = ParallelHeads::tensors(&spec, &decoder.config);
    let file = folder.join(HEAD_WEIGHTS);
    let mut found = if expected.is_empty() { Vec::new() } else { read_named(&file)? };
    for (name, shape) in expected {
        let Some(place) = found.iter().position(|tensor| tensor.name == name) else {
            return Err(Error::Tensor { file, tensor: name, problem: "is missing".to_owned() });
        };
        let tensor = found.swap_remove(place);
        if tensor.shape != shape {
            let problem = format!("has shape {:?}, {} implies {shape:?}", tensor.shape, mtp::FILE);
            return Err(Error::Tensor { file, tensor: name, problem });
        }
        params.add(name, &shape, tensor.data);
    }
    match found.first() {
        Some(surplus) => {
            let problem = format!("is in no head that {} names", mtp::FILE);
            Err(Error::Tensor { file, tensor: surplus.name.clone(), problem })
        }
        None => Ok(Some(spec)),
    }
}

fn read_named(file: &Path) -> Result<Vec<model::checkpoint::NamedTensor>> {
    if !file.is_file() {
        return Err(Error::MissingFile { file: file.to_owned() });
    }
    Ok(model::checkpoint::read_file_tensors(file)?)
}

fn write_named(file: &Path, params: &Params, ids: &[ParamId]) -> Result<()> {
    let entry = |&id: &ParamId| {
        let param = params.get(id);
        (param.name.as_str(), param.shape.as_slice(), param.data.as_slice())
    };
    let tensors: Vec<_> = ids.iter().map(entry).collect();
    Ok(model::checkpoint::write_tensors(file, &tensors, &[])?)
}

/// [`model::checkpoint::replace_folder_keeping`] for writers that fail in this crate's ways.
fn replace_folder(
    folder: &Path,
    kept: Option<&Path>,
    fill: &mut dyn FnMut(&Path) -> Result<()>,
) -> Result<()> {
    let mut failure = None;
    let replaced = model::checkpoint::replace_folder_keeping(folder, kept, |partial: &Path| {
        fill(partial).map_err(|error| {
            let stand_in = std::io::Error::other("the folder could not be filled");
            failure = Some(error);
            stand_in.into()
        })
    });
    match failure {
        Some(error) => Err(error),
        None => Ok(replaced?),
    }
}
