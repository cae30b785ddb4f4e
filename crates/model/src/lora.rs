//! LoRA (Hu et al. 2106.09685): which matrices of a model get adapters, how they begin, and PEFT's files.
//!
//! A matrix W becomes `W + scale B A`, with `scale = alpha / r`, or `alpha / sqrt(r)` where it is rank-stabilised (Kalajdzievski
//! 2312.03732). A begins as PEFT draws it, B as zero, so that the model begins as it was.

use std::path::Path;

use serde_json::{Value, json};
use tensor::{Adapter, ParamId, Params, random};

use crate::checkpoint::{present, read_file_tensors, read_metadata, write_file, write_tensors};
use crate::config::DecoderConfig;
use crate::error::{Error, Result};

/// What adapters are made of.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraSpec {
    /// Rows of A, columns of B.
    pub rank: usize,
    /// Numerator of the scale.
    pub alpha: f32,
    /// Share of an adapter's inputs that training drops.
    pub dropout: f32,
    /// Whether the scale falls with the root of the rank only.
    pub rank_stabilised: bool,
    /// Which matrices: names of modules such as `q_proj`, patterns such as `model.layers.0.*`, or `all-linear`.
    pub targets: Vec<String>,
}

/// Every linear map of every block.
const ALL: &str = "all-linear";

/// Higher ranks are no low-rank adapters.
const HIGHEST_RANK: usize = 4096;

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// Where the adapter says what weights it was trained on.
const BASE: &str = "sakiyomi.base";

/// PEFT's names for a module's matrices.
const PREFIX: &str = "base_model.model.";
const DOWN: &str = ".lora_A.weight";
const UP: &str = ".lora_B.weight";

impl LoraSpec {
    /// Checks the sizes.
    ///
    /// # Errors
    /// Names what is wrong.
    pub fn validate(&self) -> Result<()> {
        let refuse = |problem: String| Err(Error::Lora { problem });
        if self.rank == 0 || self.rank > HIGHEST_RANK {
            return refuse(format!("rank is {}: give 1 to {HIGHEST_RANK}", self.rank));
        }
        if !(self.alpha > 0.0 && self.alpha.is_finite()) {
            return refuse(format!("alpha is {}: give more than 0", self.alpha));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return refuse(format!("dropout is {}: give 0 or more, and less than 1", self.dropout));
        }
        Ok(())
    }

    /// The factor of what adapters add.
    pub fn scale(&self) -> f32 {
        let rank = self.rank as f32;
        self.alpha / if self.rank_stabilised { rank.sqrt() } else { rank }
    }

    /// Names and shapes of the matrices that get adapters.
    ///
    /// # Errors
    /// When a target matches nothing (the message lists what there is), or the family stores its matrices in a way that PEFT's
    /// files cannot name.
    pub fn modules(&self, config: &DecoderConfig) -> Result<Vec<(String, Vec<usize>)>> {
        self.validate()?;
        let all = linear_modules(config)?;
        for target in &self.targets {
            if !all.iter().any(|(name, _)| matches(target, name)) {
                let mut there: Vec<&str> =
                    all.iter().map(|(name, _)| name.rsplit('.').next().unwrap_or(name)).collect();
                there.sort_unstable();
                there.dedup();
                let problem =
                    format!("target {target:?} matches nothing; there are {} and {ALL}", there.join(", "));
                return Err(Error::Lora { problem });
            }
        }
        if self.targets.is_empty() {
            return Err(Error::Lora { problem: format!("no targets: give modules, or {ALL}") });
        }
        let wanted = |name: &str| self.targets.iter().any(|target| matches(target, name));
        Ok(all.into_iter().filter(|(name, _)| wanted(name)).collect())
    }

    /// How many values the adapters have.
    ///
    /// # Errors
    /// As [`Self::modules`].
    pub fn parameters(&self, config: &DecoderConfig) -> Result<usize> {
        let modules = self.modules(config)?;
        Ok(modules.iter().map(|(_, shape)| self.rank * (shape[0] + shape[1])).sum())
    }

    /// Adds adapters to `params`, which leave the model as it is until they are trained.
    ///
    /// # Errors
    /// As [`Self::modules`].
    pub fn attach(&self, config: &DecoderConfig, params: &mut Params, seed: u64) -> Result<()> {
        let mut rng = random::seeded(seed, LORA_INITIALISATION);
        for (name, shape) in self.modules(config)? {
            let bound = 1.0 / (shape[1] as f32).sqrt();
            let drawn = |_| (2.0 * random::uniform(&mut rng) - 1.0) * bound;
            let down = (0..self.rank * shape[1]).map(drawn).collect();
            self.add(params, &name, &shape, down, vec![0.0; shape[0] * self.rank])?;
        }
        Ok(())
    }

    fn add(
        &self,
        params: &mut Params,
        name: &str,
        shape: &[usize],
        down: Vec<f32>,
        up: Vec<f32>,
    ) -> Result<()> {
        let weight = format!("{name}.weight");
        let id = params.find(&weight).ok_or(Error::MissingParameter { name: weight })?;
        let down = params.add(format!("{PREFIX}{name}{DOWN}"), &[self.rank, shape[1]], down);
        let up = params.add(format!("{PREFIX}{name}{UP}"), &[shape[0], self.rank], up);
        params.adapt(id, Adapter { down, up, scale: self.scale(), dropout: self.dropout });
        Ok(())
    }

    /// Writes the adapters of `params` into `folder` as PEFT does; `base` tells the weights that they belong to.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, folder: &Path, params: &Params, base: &str) -> Result<()> {
        fs_err::create_dir_all(folder)?;
        let mut modules: Vec<&str> = Vec::new();
        let mut tensors: Vec<(&str, &[usize], &[f32])> = Vec::new();
        for (id, adapter) in params.adapters() {
            modules.push(params.get(id).name.trim_end_matches(".weight"));
            for part in [adapter.down, adapter.up] {
                let part = params.get(part);
                tensors.push((&part.name, &part.shape, &part.data));
            }
        }
        let config = json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": null,
            "r": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": self.dropout,
            "use_rslora": self.rank_stabilised,
            "target_modules": modules,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "modules_to_save": null
        });
        let mut text = serde_json::to_vec_pretty(&config).map_err(std::io::Error::from)?;
        text.push(b'\n');
        write_file(&folder.join(CONFIG), &text)?;
        write_tensors(&folder.join(WEIGHTS), &tensors, &[("format", "pt"), (BASE, base)])
    }

    /// Reads the adapters in `folder`, written by [`Self::write`] or by PEFT, onto the model in `params`, whose weights `base` tells.
    ///
    /// # Errors
    /// When a file is missing or no adapter of this kind, or it was made for another model.
    pub fn read(folder: &Path, config: &DecoderConfig, params: &mut Params, base: &str) -> Result<Self> {
        let file = folder.join(CONFIG);
        let refuse = |problem: String| Err(Error::Lora { problem: format!("{}: {problem}", file.display()) });
        if !present(&file)? {
            return refuse("is missing: this folder holds no adapter".to_owned());
        }
        let found: Value = match serde_json::from_slice(&fs_err::read(&file)?) {
            Ok(found) => found,
            Err(error) => return refuse(format!("is no JSON: {error}")),
        };
        if found["peft_type"] != "LORA" {
            return refuse(format!("peft_type is {}, only LORA is read", found["peft_type"]));
        }
        let empty = |value: &Value| {
            value.is_null()
                || *value == false
                || value.as_object().is_some_and(serde_json::Map::is_empty)
                || value.as_array().is_some_and(Vec::is_empty)
                || *value == "none"
        };
        for name in UNSUPPORTED {
            if !empty(&found[name]) {
                return refuse(format!("{name} is {}, which is not supported here", found[name]));
            }
        }
        let weights = folder.join(WEIGHTS);
        if read_metadata(&weights)?.get(BASE).is_some_and(|trained_on| trained_on != base) {
            return refuse(
                "was trained on other weights than those it is put on: name its own base".to_owned(),
            );
        }
        let mut spec = Self {
            rank: found["r"].as_u64().unwrap_or(0) as usize,
            alpha: found["lora_alpha"].as_f64().unwrap_or(0.0) as f32,
            dropout: found["lora_dropout"].as_f64().unwrap_or(0.0) as f32,
            rank_stabilised: found["use_rslora"] == true,
            targets: Vec::new(),
        };
        spec.validate()?;
        let modules = linear_modules(config)?;
        let mut tensors = read_file_tensors(&weights)?;
        for (name, shape) in &modules {
            let mut take = |suffix: &str, shape: [usize; 2]| {
                let full = format!("{PREFIX}{name}{suffix}");
                let place = tensors.iter().position(|tensor| tensor.name == full)?;
                let tensor = tensors.swap_remove(place);
                Some((tensor.shape == shape).then_some(tensor.data).ok_or((full, tensor.shape, shape)))
            };
            let parts = (take(DOWN, [spec.rank, shape[1]]), take(UP, [shape[0], spec.rank]));
            match parts {
                (None, None) => {}
                (Some(Ok(down)), Some(Ok(up))) => {
                    spec.targets.push(name.clone());
                    spec.add(params, name, shape, down, up)?;
                }
                (Some(Err((tensor, found, wanted))), _) | (_, Some(Err((tensor, found, wanted)))) => {
                    return refuse(format!(
                        "{tensor} has shape {found:?} and this model wants {wanted:?}: it is an adapter for another base"
                    ));
                }
                (Some(Ok(_)), None) | (None, Some(Ok(_))) => {
                    return refuse(format!("only one of the two matrices of {name} is there"));
                }
            }
        }
        if let Some(surplus) = tensors.first() {
            return refuse(format!(
                "{} is no matrix of this model: it is an adapter for another base",
                surplus.name
            ));
        }
        if spec.targets.is_empty() {
            return refuse("has no matrices".to_owned());
        }
        Ok(spec)
    }

    /// Whether `folder` holds an adapter.
    ///
    /// # Errors
    /// When something that is no file stands in the place of its settings.
    pub fn is_in(folder: &Path) -> Result<bool> {
        present(&folder.join(CONFIG))
    }
}

/// Ids of the adapters' matrices.
pub fn adapter_parameters(params: &Params) -> Vec<ParamId> {
    params.adapters().flat_map(|(_, adapter)| [adapter.down, adapter.up]).collect()
}

/// Settings of PEFT that change what an adapter computes.
const UNSUPPORTED: [&str; 8] = [
    "use_dora",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "bias",
    "fan_in_fan_out",
    "layer_replication",
    "trainable_token_indices",
];

/// Purpose of the random stream that draws A.
const LORA_INITIALISATION: u64 = 4;

/// Names and shapes of the linear maps of the blocks.
fn linear_modules(config: &DecoderConfig) -> Result<Vec<(String, Vec<usize>)>> {
    if !crate::checkpoint::keeps_names(config) {
        let problem = format!(
            "{:?} stores its matrices fused or transposed, which adapters of single maps cannot name: take another family",
            config.family
        );
        return Err(Error::Lora { problem });
    }
    let of_block = |name: &str| name.starts_with("model.layers.") && name.ends_with(".weight");
    let tensors = config.tensors().into_iter();
    let matrices = tensors.filter(|spec| of_block(&spec.name) && spec.shape.len() == 2);
    Ok(matrices.map(|spec| (spec.name.trim_end_matches(".weight").to_owned(), spec.shape)).collect())
}

/// Whether a target means the module of this name: its last parts, or a pattern for the whole name.
fn matches(target: &str, name: &str) -> bool {
    if target == ALL {
        return true;
    }
    if target.contains(['*', '?', '[']) {
        return glob::Pattern::new(target).is_ok_and(|pattern| pattern.matches(name));
    }
    name == target || name.strip_suffix(target).is_some_and(|before| before.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_mean_last_parts_patterns_or_all() {
        let name = "model.layers.10.self_attn.q_proj";
        assert!(matches("q_proj", name) && matches("self_attn.q_proj", name) && matches(ALL, name));
        assert!(matches("model.layers.1*.self_attn.*", name) && matches(name, name));
        assert!(!matches("proj", name) && !matches("k_proj", name) && !matches("model.layers.2*", name));
    }

    #[test]
    fn the_scale_is_that_of_the_papers() {
        let spec = LoraSpec {
            rank: 16,
            alpha: 8.0,
            dropout: 0.0,
            rank_stabilised: false,
            targets: vec![ALL.to_owned()],
        };
        assert_eq!(spec.scale(), 0.5);
        assert_eq!(LoraSpec { rank_stabilised: true, ..spec.clone() }.scale(), 2.0);
        assert!(LoraSpec { rank: 0, ..spec.clone() }.validate().is_err());
        assert!(LoraSpec { dropout: 1.0, ..spec }.validate().is_err());
    }
}
