//! The run file: what a run is made of, as TOML.
//!
//! Each section is declared once in `sections.rs`; its structure, its defaults, the check for unknown keys and the commented
//! [`template`] all come from that declaration. Paths are relative to the folder in which the program is started.

mod keys;
mod read;
mod sections;
mod template;
mod validate;

use model::LoraSpec;
use objective::{JointSpec, RegistersSpec};
use serde::{Deserialize, Serialize};

pub use sections::{
    Architecture, CheckpointSection, DataSection, DecaySetting, Dtype, EvaluationSection, ExamplesKind,
    LoraSection, ModelSection, ObjectiveKind, ObjectiveSection, OptimiserKind, RunSection, Schedule,
    SplitKind, TrainMode, TrainSection, WatchSection,
};
pub use template::template;

/// Everything that decides a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunConfig {
    /// Where the run is kept, its seed, its threads.
    pub run: RunSection,
    /// A checkpoint to start from, or a new model.
    pub model: ModelSection,
    /// Text and tokenizer.
    pub data: DataSection,
    /// What is learned.
    pub objective: ObjectiveSection,
    /// Steps, batches, optimiser, schedule.
    pub train: TrainSection,
    /// Adapters.
    pub lora: LoraSection,
    /// Evaluation during training.
    pub evaluation: EvaluationSection,
    /// Checkpoints during training.
    pub checkpoint: CheckpointSection,
    /// When a run ends before its last step.
    pub watch: WatchSection,
}

impl RunConfig {
    /// The whole configuration with every key, as it is stored in the run folder.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("tables with text keys, numbers, text and lists are all TOML")
    }

    /// How many predictions have a loss of their own: 1 is the next token only.
    pub fn depths(&self) -> usize {
        match self.objective.kind {
            ObjectiveKind::NextToken => 1,
            ObjectiveKind::Heads => self.objective.n,
            ObjectiveKind::Registers => 1 + self.objective.registers(self.run.seed).offsets().len(),
            ObjectiveKind::Joint => 1 + self.objective.n,
        }
    }

    /// How far ahead the farthest of them lies.
    pub fn lookahead(&self) -> usize {
        match self.objective.kind {
            ObjectiveKind::NextToken | ObjectiveKind::Heads => self.depths(),
            ObjectiveKind::Registers => self.objective.registers(self.run.seed).largest_offset(),
            ObjectiveKind::Joint => self.objective.n,
        }
    }

    /// The adapters that are trained, if any are.
    pub(crate) fn adapters(&self) -> Option<LoraSpec> {
        (self.train.mode == TrainMode::Lora).then(|| self.lora.spec())
    }

    /// `lora.alpha`, where adapters are trained.
    pub(crate) fn lora_alpha(&self) -> Option<f64> {
        (self.train.mode == TrainMode::Lora).then_some(self.lora.alpha)
    }

    /// Inputs of one optimiser step.
    pub fn tokens_per_step(&self) -> usize {
        self.train.batch * self.train.length * self.train.accumulate
    }

    /// Keys (as `section.key`) whose values differ from those of `other`.
    pub fn differing_keys(&self, other: &Self) -> Vec<String> {
        let (mine, theirs) = (self.flattened(), other.flattened());
        let in_mine = mine.iter().filter(|(key, value)| theirs.get(*key) != Some(value));
        let only_theirs = theirs.iter().filter(|(key, _)| !mine.contains_key(*key));
        in_mine.chain(only_theirs).map(|(key, _)| key.clone()).collect()
    }

    /// The value of every key that has one, under `section.key`.
    fn flattened(&self) -> std::collections::BTreeMap<String, toml::Value> {
        let table =
            toml::Table::try_from(self).expect("tables with text keys, numbers, text and lists are all TOML");
        let mut flat = std::collections::BTreeMap::new();
        keys::flatten("", &table, &mut |key, value| {
            flat.insert(key.to_owned(), value.clone());
        });
        flat
    }
}

impl LoraSection {
    /// The settings of adapters.
    pub fn spec(&self) -> LoraSpec {
        LoraSpec {
            rank: self.rank,
            alpha: self.alpha as f32,
            dropout: self.dropout as f32,
            rank_stabilised: self.rank_stabilised,
            targets: self.targets.clone(),
        }
    }
}

impl ObjectiveSection {
    /// The settings of registers; `seed` is the run's.
    pub fn registers(&self, seed: u64) -> RegistersSpec {
        RegistersSpec {
            d_min: self.d_min,
            d_max: self.d_max,
            weight: self.register_weight as f32,
            offsets: self.offsets,
            density: self.density,
            count: self.registers,
            consecutive: self.consecutive,
            grid_width: self.grid_width,
            row_end: self.row_end,
            decoys: self.decoys,
            seed,
        }
    }

    /// The settings of joint heads.
    pub fn joint(&self) -> JointSpec {
        JointSpec {
            n: self.n,
            rank: self.rank,
            kind: self.joint,
            start: self.joint_start,
            weights: self.weights.clone(),
            windows: self.windows,
            balance: self.balance as f32,
            balance_on: self.balance_on,
            distill: self.distill as f32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_comes_back_from_its_own_toml() {
        let mut config = RunConfig::default();
        config.data.train = vec!["a.txt".into()];
        config.objective.weights = vec![1.0, 0.1, 0.3, 0.7];
        assert_eq!(RunConfig::parse(&config.to_toml(), "run.toml", &[]).unwrap(), config);
    }

    #[test]
    fn differing_keys_are_named_whichever_side_has_them() {
        let one = RunConfig::default();
        let mut other = one.clone();
        other.train.steps += 1;
        other.model.architecture = None;
        other.model.init = Some("folder".into());
        let mut keys = one.differing_keys(&other);
        keys.sort();
        assert_eq!(keys, ["model.architecture.preset", "model.init", "train.steps"]);
        assert!(one.differing_keys(&one).is_empty());
    }
}
