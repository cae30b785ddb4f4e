//! LoRA (Hu et al. 2106.09685): which matrices of a model get adapters, how they begin, and PEFT's files.
//!
//! A matrix W becomes `W + scale B A`, with `scale = alpha / r`, or `alpha / sqrt(r)` where it is rank-stabilised (Kalajdzievski
//! 2312.03732). A begins as PEFT draws it, B as zero, so that the model begins as it was.

use std::path::Path;

use serde_json::{Value, json};
use tensor::{Adapter, ParamId, Params, random};

use crate::checkpoint::{present, read_finite_tensors, read_metadata, write_file, write_tensors};
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
pub const HIGHEST_RANK: usize = 4096;

/// The settings of an adapter, in its folder.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";

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
        write_file(&folder.join(ADAPTER_CONFIG), &text)?;
        write_tensors(&folder.join(WEIGHTS), &tensors, &[("format", "pt"), (BASE, base)])
    }

    /// Reads the adapters in `folder`, written by [`Self::write`] or by PEFT, onto the model in `params`, whose weights `base` tells.
    ///
    /// # Errors
    /// When a file is missing or no adapter of this kind, or it was made for another model.
    pub fn read(folder: &Path, config: &DecoderConfig, params: &mut Params, base: &str) -> Result<Self> {
        let (file, weights) = (folder.join(ADAPTER_CONFIG), folder.join(WEIGHTS));
        let found = read_settings(&file)?;
        let mut spec = Self::of_settings(&found).or_else(|problem| refuse(&file, problem))?;
        if read_metadata(&weights)?.get(BASE).is_some_and(|trained_on| trained_on != base) {
            let problem = "was trained on other weights than those it is put on: name its own base";
            return refuse(&file, problem.to_owned());
        }
        let mut tensors = read_finite_tensors(&weights)?;
        let mut absent = None;
        for (name, shape) in &linear_modules(config)? {
            let mut take = |suffix: &str, shape: [usize; 2]| {
                let full = format!("{PREFIX}{name}{suffix}");
                let place = tensors.iter().position(|tensor| tensor.name == full)?;
                let tensor = tensors.swap_remove(place);
                Some((tensor.shape == shape).then_some(tensor.data).ok_or((full, tensor.shape, shape)))
            };
            let parts = (take(DOWN, [spec.rank, shape[1]]), take(UP, [shape[0], spec.rank]));
            let meant = is_meant(&found, name);
            match parts {
                (None, None) if meant == Some(true) => absent = absent.or(Some(name.clone())),
                (None, None) => {}
                (Some(Ok(_)), Some(Ok(_))) if meant == Some(false) => {
                    let problem = format!(
                        "{WEIGHTS} has matrices of {name}, which target_modules or layers_to_transform leave out"
                    );
                    return refuse(&file, problem);
                }
                (Some(Ok(down)), Some(Ok(up))) => {
                    spec.targets.push(name.clone());
                    spec.add(params, name, shape, down, up)?;
                }
                (Some(Err((tensor, found, wanted))), _) | (_, Some(Err((tensor, found, wanted)))) => {
                    let problem = format!(
                        "{tensor} has shape {found:?} and this model wants {wanted:?}: it is an adapter for another base"
                    );
                    return refuse(&weights, problem);
                }
                (Some(Ok(_)), None) | (None, Some(Ok(_))) => {
                    return refuse(&weights, format!("only one of the two matrices of {name} is there"));
                }
            }
        }
        if let Some(surplus) = tensors.first() {
            let problem =
                format!("{} is no matrix of this model: it is an adapter for another base", surplus.name);
            return refuse(&weights, problem);
        }
        if spec.targets.is_empty() {
            return refuse(&weights, "has no matrices".to_owned());
        }
        match absent {
            Some(name) => {
                refuse(&file, format!("target_modules means {name}, of which {WEIGHTS} has nothing"))
            }
            None => Ok(spec),
        }
    }

    /// The numbers in an `adapter_config.json`, without targets.
    fn of_settings(found: &Value) -> std::result::Result<Self, String> {
        let refuse = |name: &str, wanted: &str| match &found[name] {
            Value::Null => Err(format!("{name} is missing: it is {wanted}")),
            value => Err(format!("{name} is {value}: it is {wanted}")),
        };
        let Some(rank) = found["r"].as_u64().filter(|rank| (1..=HIGHEST_RANK as u64).contains(rank)) else {
            return refuse("r", &format!("a whole number from 1 to {HIGHEST_RANK}"));
        };
        let single = |value: &Value| value.as_f64().map(|value| value as f32);
        let alpha = single(&found["lora_alpha"]).filter(|alpha| *alpha > 0.0 && alpha.is_finite());
        let Some(alpha) = alpha else { return refuse("lora_alpha", "a number above 0") };
        let dropout =
            if found["lora_dropout"].is_null() { Some(0.0) } else { single(&found["lora_dropout"]) };
        let Some(dropout) = dropout.filter(|share| (0.0..1.0).contains(share)) else {
            return refuse("lora_dropout", "a number from 0, and less than 1");
        };
        let rank_stabilised = match &found["use_rslora"] {
            Value::Null => false,
            Value::Bool(stabilised) => *stabilised,
            _ => return refuse("use_rslora", "true or false"),
        };
        Ok(Self { rank: rank as usize, alpha, dropout, rank_stabilised, targets: Vec::new() })
    }

    /// Whether `folder` holds an adapter.
    ///
    /// # Errors
    /// When something that is no file stands in the place of its settings.
    pub fn is_in(folder: &Path) -> Result<bool> {
        present(&folder.join(ADAPTER_CONFIG))
    }
}

/// Ids of the adapters' matrices.
pub fn adapter_parameters(params: &Params) -> Vec<ParamId> {
    params.adapters().flat_map(|(_, adapter)| [adapter.down, adapter.up]).collect()
}

fn refuse<T>(file: &Path, problem: String) -> Result<T> {
    Err(Error::Lora { problem: format!("{}: {problem}", file.display()) })
}

/// The settings in an `adapter_config.json`, if they are those of an adapter that is read here.
fn read_settings(file: &Path) -> Result<Value> {
    if !present(file)? {
        return refuse(file, "is missing: this folder holds no adapter".to_owned());
    }
    let found: Value = match serde_json::from_slice(&fs_err::read(file)?) {
        Ok(found) => found,
        Err(error) => return refuse(file, format!("is no JSON: {error}")),
    };
    if found["peft_type"] != "LORA" {
        return refuse(file, format!("peft_type is {}, only LORA is read", found["peft_type"]));
    }
    let empty = |value: &Value| {
        value.is_null()
            || *value == false
            || value.as_object().is_some_and(serde_json::Map::is_empty)
            || value.as_array().is_some_and(Vec::is_empty)
            || *value == "none"
    };
    if let Some(name) = UNSUPPORTED.iter().find(|name| !empty(&found[**name])) {
        return refuse(file, format!("{name} is {}, which is not supported here", found[*name]));
    }
    match found["init_lora_weights"].as_str().filter(|start| !KEEPING_THE_BASE.contains(start)) {
        Some(start) => refuse(
            file,
            format!(
                "init_lora_weights is {start:?}, which changes the base: have PEFT convert the adapter to an ordinary one first \
                 (path_initial_model_for_weight_conversion)"
            ),
        ),
        None => Ok(found),
    }
}

/// Settings of PEFT that change what an adapter computes.
const UNSUPPORTED: [&str; 13] = [
    "use_dora",
    "use_qalora",
    "lora_bias",
    "alora_invocation_tokens",
    "arrow_config",
    "target_parameters",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "bias",
    "fan_in_fan_out",
    "layer_replication",
    "trainable_token_indices",
];

/// Beginnings of an adapter, of those that PEFT has names for, that leave the base as it is.
const KEEPING_THE_BASE: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// Whether the settings mean the module of this name; `None` where they say nothing, or say it in patterns that only PEFT reads.
fn is_meant(found: &Value, name: &str) -> Option<bool> {
    let listed = |value: &Value| match value {
        Value::Array(list) => {
            Some(list.iter().filter_map(Value::as_str).any(|target| is_named(target, name)))
        }
        Value::String(all) if all == ALL => Some(true),
        _ => None,
    };
    let targeted = listed(&found["target_modules"])?;
    let excluded = !found["exclude_modules"].is_null() && listed(&found["exclude_modules"])?;
    Some(targeted && !excluded && in_layers(found, name)?)
}

/// Whether the module stands in a layer that has adapters; `None` as in [`is_meant`].
fn in_layers(found: &Value, name: &str) -> Option<bool> {
    let pattern = &found["layers_pattern"];
    if !(pattern.is_null() || *pattern == "layers") {
        return None;
    }
    let layer: u64 = name.split('.').find_map(|part| part.parse().ok())?;
    match &found["layers_to_transform"] {
        Value::Null => Some(true),
        Value::Array(layers) => {
            Some(layers.is_empty() || layers.iter().any(|one| one.as_u64() == Some(layer)))
        }
        one => Some(one.as_u64()? == layer),
    }
}

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
    is_named(target, name)
}

/// Whether `target` is the name, or its last parts.
fn is_named(target: &str, name: &str) -> bool {
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

    /// The refusal of an adapter whose settings are `change`d; none if it is read.
    fn refusal(change: &dyn Fn(&mut Value)) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let config = DecoderConfig { layers: 2, ..crate::presets::preset("1M", 8).unwrap() };
        let (_, base) = crate::Decoder::initialise(&config, 1).unwrap();
        let targets = vec!["q_proj".to_owned(), "down_proj".to_owned()];
        let spec = LoraSpec { rank: 2, alpha: 4.0, dropout: 0.0, rank_stabilised: false, targets };
        let mut params = base.clone();
        spec.attach(&config, &mut params, 1).unwrap();
        spec.write(folder.path(), &params, "base").unwrap();
        let file = folder.path().join(ADAPTER_CONFIG);
        let mut settings: Value = serde_json::from_slice(&fs_err::read(&file).unwrap()).unwrap();
        change(&mut settings);
        fs_err::write(&file, settings.to_string()).unwrap();
        let read = LoraSpec::read(folder.path(), &config, &mut base.clone(), "base");
        read.err().map(|error| error.to_string().replace(&*folder.path().to_string_lossy(), "FOLDER"))
    }

    #[test]
    fn numbers_that_an_adapter_cannot_have_are_named_with_their_field() {
        let refused =
            |field: &'static str, value: Value| refusal(&|settings| settings[field] = value.clone());
        for (value, told) in [
            (json!(-1), "is -1"),
            (json!(8.5), "is 8.5"),
            (json!("8"), "is \"8\""),
            (json!(null), "is missing"),
        ] {
            let expected =
                format!("adapter: FOLDER/adapter_config.json: r {told}: it is a whole number from 1 to 4096");
            assert_eq!(refused("r", value), Some(expected));
        }
        let expected = "adapter: FOLDER/adapter_config.json: lora_alpha is missing: it is a number above 0";
        assert_eq!(refused("lora_alpha", json!(null)).as_deref(), Some(expected));
        assert!(
            refused("lora_dropout", json!(3)).unwrap().contains("lora_dropout is 3: it is a number from 0")
        );
        let shape = refused("r", json!(3)).unwrap();
        assert!(shape.starts_with("adapter: FOLDER/adapter_model.safetensors: base_model."), "{shape}");
        assert!(shape.contains("has shape [2, 128] and this model wants [3, 128]"), "{shape}");
    }

    #[test]
    fn settings_that_contradict_the_matrices_are_refused() {
        let with = |field: &'static str, value: Value| refusal(&|settings| settings[field] = value.clone());
        for fine in [json!(["q_proj", "down_proj"]), json!(null), json!(".*(q|down)_proj")] {
            assert_eq!(with("target_modules", fine), None);
        }
        let fewer = with("target_modules", json!(["q_proj"])).unwrap();
        let left_out =
            "adapter_model.safetensors has matrices of model.layers.0.mlp.down_proj, which target_modules or";
        assert!(fewer.contains(left_out), "{fewer}");
        let more = with("target_modules", json!(["q_proj", "k_proj", "down_proj"])).unwrap();
        assert!(more.contains("target_modules means model.layers.0.self_attn.k_proj, of which"), "{more}");
        assert_eq!(with("layers_to_transform", json!([0, 1])), None);
        for layers in [json!([0]), json!(0)] {
            let layer = with("layers_to_transform", layers).unwrap();
            assert!(layer.contains("has matrices of model.layers.1.self_attn.q_proj"), "{layer}");
        }
        assert!(with("exclude_modules", json!(["q_proj"])).is_some());
        for start in [json!(true), json!("gaussian")] {
            assert_eq!(with("init_lora_weights", start), None);
        }
        for start in ["pissa", "pissa_niter_16", "olora", "corda", "loftq"] {
            let refused = with("init_lora_weights", json!(start)).unwrap();
            assert!(
                refused.contains(&format!("init_lora_weights is {start:?}, which changes the base")),
                "{refused}"
            );
        }
    }

    #[test]
    fn adapters_that_compute_something_else_are_refused() {
        let with = |field: &'static str, value: Value| refusal(&|settings| settings[field] = value.clone());
        for (field, value) in [
            ("use_dora", json!(true)),
            ("use_qalora", json!(true)),
            ("lora_bias", json!(true)),
            ("alora_invocation_tokens", json!([1, 2])),
            ("arrow_config", json!({"top_k": 3})),
            ("target_parameters", json!(["mlp.experts.gate_up_proj"])),
            ("bias", json!("all")),
        ] {
            let refused = with(field, value.clone()).unwrap();
            assert!(
                refused.contains(&format!("{field} is {value}, which is not supported here")),
                "{refused}"
            );
            for nothing in [json!(null), json!(false), json!([])] {
                assert_eq!(with(field, nothing), None, "{field}");
            }
        }
        let stabilised = with("use_rslora", json!("true")).unwrap();
        assert!(stabilised.ends_with("use_rslora is \"true\": it is true or false"), "{stabilised}");
        assert_eq!(with("use_rslora", json!(null)), None);
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
