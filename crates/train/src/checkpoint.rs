//! Checkpoints: a plain Hugging Face folder, and beside it what the objective adds.
//!
//! | file | holds |
//! |---|---|
//! | `config.json`, `generation_config.json`, `model.safetensors` | the model, as transformers reads it |
//! | `tokenizer.json`, `tokenizer_config.json` | the vocabulary |
//! | `mtp.json` | which heads (parallel or joint) or registers there are, and on what weights; only if there are any |
//! | `mtp.safetensors` | their parameters; only if they have any |
//! | `adapter/` | low-rank adapters as PEFT writes them; the model beside them is then their base |
//! | `trainer/` | what a run needs to go on; only in a run's newest checkpoints |

pub(crate) mod mtp;

pub(crate) use mtp::{Added, digest};

use std::path::Path;

use data::Vocabulary;
use kernels::packed::WeightType;
use model::checkpoint::{NamedTensor, present};
use model::engine::{EngineWeights, PACKED_FILE, read_packed, write_packed};
use model::{Decoder, DecoderConfig, LoraSpec};
use objective::{
    HeadKind, HeadsSpec, JointHeads, Method, Objective, ParallelHeads, Registers, UnembeddingKind,
};
use tensor::{ParamId, Params};

use crate::error::{Error, Result};

/// A vocabulary, a model, and heads on it.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Text to tokens and back.
    pub vocabulary: Vocabulary,
    /// The model.
    pub decoder: Decoder,
    /// Parameters of the model and of what the objective adds.
    pub params: Params,
    /// What it was trained for; one head, which is the model itself, where a checkpoint says nothing.
    pub objective: Method,
    /// Settings of the adapters in `params`, if there are any.
    pub lora: Option<LoraSpec>,
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
        check_template(folder, &vocabulary)?;
        let mut params = read_trunk(folder, &config)?;
        let decoder = Decoder::find(&config, &params)?;
        let objective = read_objective(folder, &decoder, &mut params)?;
        let adapter = folder.join(ADAPTER);
        let lora = match LoraSpec::is_in(&adapter)? {
            true => {
                let base = digest(&params, &config);
                Some(LoraSpec::read(&adapter, &config, &mut params, &base)?)
            }
            false => None,
        };
        Ok(Self { vocabulary, decoder, params, objective, lora })
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
        let objective = read_objective(folder, &decoder, &mut params)?;
        Ok(Some((Self { vocabulary, decoder, params, objective, lora: None }, weights)))
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

    /// Puts the adapter in `folder`, written by a run or by PEFT, on the model.
    ///
    /// # Errors
    /// When there is one already, or it cannot be read or belongs to another model.
    pub fn adapt(&mut self, folder: &Path) -> Result<()> {
        if self.lora.is_some() {
            let problem = "the checkpoint has an adapter of its own: merge that first".to_owned();
            return Err(model::Error::Lora { problem }.into());
        }
        let base = digest(&self.params, &self.decoder.config);
        self.lora = Some(LoraSpec::read(folder, &self.decoder.config, &mut self.params, &base)?);
        Ok(())
    }

    /// Adds the adapters to the matrices that they stand beside; what remains is a model without adapters. Gives the names of the
    /// matrices that changed.
    ///
    /// # Errors
    /// When another matrix than these would change, or a value is not finite.
    pub fn merge(&mut self) -> Result<Vec<String>> {
        let before = self.params.clone();
        let adapted: Vec<ParamId> = before.adapters().map(|(id, _)| id).collect();
        self.params.merge();
        self.lora = None;
        for (id, param) in before.iter() {
            let merged = self.params.data(id);
            let problem = if merged.iter().any(|value| !value.is_finite()) {
                "is not finite once it is merged"
            } else if !adapted.contains(&id) && merged != param.data {
                "changed although it has no adapter"
            } else {
                continue;
            };
            return Err(model::Error::Lora { problem: format!("{} {problem}", param.name) }.into());
        }
        Ok(adapted.into_iter().map(|id| before.get(id).name.clone()).collect())
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
            if let Some(lora) = &self.lora {
                let base = digest(&self.params, &self.decoder.config);
                lora.write(&folder.join(ADAPTER), &self.params, &base)?;
            }
            more(folder)
        })
    }

    fn write_model(&self, folder: &Path) -> Result<()> {
        model::checkpoint::write_config(folder, &self.decoder.config)?;
        self.vocabulary.save(folder)?;
        let digest = tokenizer_digest(folder)?;
        let template = self.vocabulary.chat_template().map(data::ChatTemplate::digest);
        let metadata: Vec<_> = [(TOKENIZER_DIGEST, &digest), (TEMPLATE_DIGEST, &template)]
            .into_iter()
            .filter_map(|(name, digest)| Some((name, digest.as_deref()?)))
            .collect();
        Ok(model::checkpoint::write_params(folder, &self.decoder.config, &self.params, &metadata)?)
    }

    fn write_heads(&self, folder: &Path) -> Result<()> {
        let added = match &self.objective {
            Method::Heads(heads) if heads.depths() == 1 => return Ok(()),
            Method::Heads(heads) => Added::Heads(heads.spec().clone()),
            Method::Registers(registers) => Added::Registers(registers.spec().clone()),
            Method::Joint(joint) => Added::Joint(joint.spec().clone()),
        };
        mtp::write(folder, added, digest(&self.params, &self.decoder.config))?;
        if self.objective.parameters().is_empty() {
            return Ok(());
        }
        write_named(&folder.join(HEAD_WEIGHTS), &self.params, self.objective.parameters())
    }
}

/// The folder of an adapter within a checkpoint.
pub(crate) const ADAPTER: &str = "adapter";

const WEIGHTS: &str = "model.safetensors";
const HEAD_WEIGHTS: &str = "mtp.safetensors";

const TOKENIZER: &str = "tokenizer.json";

/// Where the weights say with which tokenizer they were trained.
const TOKENIZER_DIGEST: &str = "sakiyomi.tokenizer";

/// Where the weights say with which chat template they were trained.
const TEMPLATE_DIGEST: &str = "sakiyomi.chat_template";

/// Refuses weights that say that they were trained with another chat template than the one beside them.
fn check_template(folder: &Path, vocabulary: &Vocabulary) -> Result<()> {
    let weights = folder.join(WEIGHTS);
    if !present(&weights)? {
        return Ok(());
    }
    let metadata = model::checkpoint::read_metadata(&weights)?;
    let beside = vocabulary.chat_template().map(data::ChatTemplate::digest);
    match metadata.get(TEMPLATE_DIGEST) {
        Some(trained_with) if beside.as_ref() != Some(trained_with) => {
            Err(Error::OtherTemplate { folder: folder.to_owned() })
        }
        _ => Ok(()),
    }
}

/// Length and checksum of `tokenizer.json` in `folder`, or of the file `folder`; `None` if there is none. Guards against
/// accidents, not against forgers.
pub(crate) fn tokenizer_digest(folder: &Path) -> Result<Option<String>> {
    let file = if folder.is_file() { folder.to_owned() } else { folder.join(TOKENIZER) };
    if !present(&file)? {
        return Ok(None);
    }
    let bytes = fs_err::read(file)?;
    Ok(Some(format!("{}-{:08x}", bytes.len(), crc32c::crc32c(&bytes))))
}

/// Refuses weights that say that they were trained with another tokenizer than the one beside them.
fn check_tokenizer_file(folder: &Path) -> Result<()> {
    let weights = folder.join(WEIGHTS);
    if !present(&weights)? {
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

/// Adds what stands beside the model in `folder` to `params`; the next token alone, if there is nothing.
fn read_objective(folder: &Path, decoder: &Decoder, params: &mut Params) -> Result<Method> {
    let added = read_added(folder, decoder, params, None)?;
    Ok(match added.unwrap_or_else(|| Added::Heads(HeadsSpec::next_token())) {
        Added::Heads(spec) => ParallelHeads::find(spec, decoder, params)?.into(),
        Added::Registers(spec) => Registers::find(spec, decoder, params)?.into(),
        Added::Joint(spec) => JointHeads::find(spec, decoder, params)?.into(),
    })
}

/// Adds what stands beside the model in `folder` to `params`, and returns its settings; `None` if there is nothing, or not what
/// is `wanted` (what is not stored in its weights, such as the weights of the losses, may differ).
pub(crate) fn read_added(
    folder: &Path,
    decoder: &Decoder,
    params: &mut Params,
    wanted: Option<&Added>,
) -> Result<Option<Added>> {
    let of_the_same_weights = |added: &Added| match (wanted, added) {
        (None, _) => true,
        (Some(Added::Heads(wanted)), Added::Heads(spec)) => {
            (wanted.n, wanted.kind, wanted.unembedding) == (spec.n, spec.kind, spec.unembedding)
        }
        (Some(Added::Registers(_)), Added::Registers(_)) => true,
        (Some(Added::Joint(wanted)), Added::Joint(spec)) => {
            (wanted.n, wanted.rank, wanted.kind) == (spec.n, spec.rank, spec.kind)
        }
        (Some(Added::Heads(_) | Added::Registers(_) | Added::Joint(_)), _) => false,
    };
    let found = read_tensors(folder, decoder, params, &of_the_same_weights)?;
    Ok(found.map(|(added, tensors)| {
        for tensor in tensors {
            params.add(tensor.name, &tensor.shape, tensor.data);
        }
        added
    }))
}

/// The maps of the linear heads beside the model in `folder`, from depth 2 on: those of parallel heads, or of joint heads of rank
/// 1, which are the same. Empty if there are none.
pub(crate) fn read_linear_heads(folder: &Path, decoder: &Decoder, params: &Params) -> Result<Vec<Vec<f32>>> {
    let linear = |added: &Added| match added {
        Added::Heads(spec) => (spec.kind, spec.unembedding) == (HeadKind::Linear, UnembeddingKind::Shared),
        Added::Joint(spec) => spec.rank == 1,
        Added::Registers(_) => false,
    };
    let found = read_tensors(folder, decoder, params, &linear)?;
    // Both name one map after the other.
    Ok(found.map_or_else(Vec::new, |(_, tensors)| tensors.into_iter().map(|tensor| tensor.data).collect()))
}

/// The settings and the tensors, in the order of their names' list, of what stands beside the model in `folder`; `None` if there is
/// nothing, or nothing that `suits`.
fn read_tensors(
    folder: &Path,
    decoder: &Decoder,
    params: &Params,
    suits: &dyn Fn(&Added) -> bool,
) -> Result<Option<(Added, Vec<NamedTensor>)>> {
    let Some(mtp) = mtp::read(folder)? else { return Ok(None) };
    let added = mtp.added(folder)?;
    if !suits(&added) {
        return Ok(None);
    }
    let valid = match &added {
        Added::Heads(spec) => spec.validate(decoder.config.layers),
        Added::Registers(spec) => spec.validate(),
        Added::Joint(spec) => spec.validate(),
    };
    valid.map_err(|error| {
        let reason = error.to_string();
        let reason = reason.strip_prefix("objective.").map_or(reason.clone(), str::to_owned);
        Error::Json { file: folder.join(mtp::FILE), reason }
    })?;
    // Weights that are packed cannot be compared with those that the heads were trained on.
    let whole = params.values() > 0;
    if whole && mtp.trunk.is_some_and(|trunk| trunk != digest(params, &decoder.config)) {
        return Err(Error::OtherTrunk { file: folder.join(mtp::FILE) });
    }
    let expected = match &added {
        Added::Heads(spec) => ParallelHeads::tensors(spec, &decoder.config),
        Added::Registers(_) => Registers::tensors(decoder.config.width),
        Added::Joint(spec) => JointHeads::tensors(spec, &decoder.config),
    };
    let file = folder.join(HEAD_WEIGHTS);
    let mut found = if expected.is_empty() && !present(&file)? { Vec::new() } else { read_named(&file)? };
    let mut tensors = Vec::new();
    for (name, shape) in expected {
        let Some(place) = found.iter().position(|tensor| tensor.name == name) else {
            return Err(Error::Tensor { file, tensor: name, problem: "is missing".to_owned() });
        };
        let tensor = found.swap_remove(place);
        if tensor.shape != shape {
            let problem = format!("has shape {:?}, {} implies {shape:?}", tensor.shape, mtp::FILE);
            return Err(Error::Tensor { file, tensor: name, problem });
        }
        tensors.push(tensor);
    }
    match found.first() {
        Some(surplus) => {
            let problem = format!("is nothing that {} names", mtp::FILE);
            Err(Error::Tensor { file, tensor: surplus.name.clone(), problem })
        }
        None => Ok(Some((added, tensors))),
    }
}

fn read_named(file: &Path) -> Result<Vec<NamedTensor>> {
    if !present(file)? {
        return Err(Error::MissingFile { file: file.to_owned() });
    }
    Ok(model::checkpoint::read_finite_tensors(file)?)
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
