//! Settings that are each of the right kind but cannot work, alone or together.

use model::lora::HIGHEST_RANK;
use objective::JointWindows;

use super::read::steps_of_tokens;
use super::{
    DataSection, ExamplesKind, LoraSection, ObjectiveKind, OptimiserKind, RunConfig, TrainMode, TrainSection,
    WatchSection,
};
use crate::error::{Error, Result};

/// More threads than this are a typing error.
const MOST_THREADS: usize = 1024;

/// Keeps the count of a run's tokens, steps times [`MOST_TOKENS_PER_STEP`], within 64 bits.
const MOST_STEPS: usize = 1 << 31;

/// Thirty years.
const MOST_SECONDS: f64 = 1e9;

/// More than any optimiser step has use for.
const MOST_TOKENS_PER_STEP: usize = 1 << 28;

impl RunConfig {
    /// Refuses settings that cannot work, as far as this can be known without reading model and data.
    ///
    /// # Errors
    /// Names the first key that is wrong, and what to do.
    pub fn validate(&self) -> Result<()> {
        self.data.validate()?;
        self.train.validate()?;
        self.validate_model()?;
        self.validate_objective()?;
        if self.run.folder.as_os_str().is_empty() {
            return refuse("run.folder", "is empty: name a folder for the run");
        }
        if self.run.threads > MOST_THREADS {
            return refuse("run.threads", format!("is {}: give at most {MOST_THREADS}", self.run.threads));
        }
        self.watch.validate()?;
        if self.train.mode == TrainMode::Lora {
            self.lora.validate()?;
        }
        if self.checkpoint.keep_last == 0 {
            return refuse(
                "checkpoint.keep_last",
                "is 0: give at least 1, the checkpoint from which a run goes on",
            );
        }
        Ok(())
    }

    /// What can work and is hardly meant, for whoever starts the run.
    pub fn doubts(&self) -> Vec<String> {
        let TrainSection { steps, seconds, warmup_steps, learning_rate, .. } = self.train;
        let never = seconds.is_none() && warmup_steps > steps;
        let doubt = || {
            format!(
                "train.warmup_steps is {warmup_steps} and the run has {steps} steps: the learning rate never reaches \
                 {learning_rate:?}"
            )
        };
        never.then(doubt).into_iter().collect()
    }

    fn validate_model(&self) -> Result<()> {
        let pretrain = self.train.mode == TrainMode::Pretrain;
        match (&self.model.init, &self.model.architecture) {
            (Some(_), Some(_)) => {
                refuse("model.init", "and [model.architecture] exclude each other: keep one of them")
            }
            (Some(_), None) if pretrain => {
                let problem = "is \"pretrain\", but model.init is set: choose \"full\", \"heads\" or \"lora\", or leave out model.init";
                refuse("train.mode", problem)
            }
            (None, _) if !pretrain => refuse(
                "model.init",
                "is missing: train.mode \"full\", \"heads\" and \"lora\" start from a checkpoint",
            ),
            (None, None) => refuse("model.init", "or [model.architecture] is needed"),
            _ => Ok(()),
        }
    }

    fn validate_objective(&self) -> Result<()> {
        let objective = &self.objective;
        if objective.kind == ObjectiveKind::Registers {
            if let Err(objective::Error::Setting { setting, problem }) =
                objective.registers(self.run.seed).validate()
            {
                let key = if setting == "weight" { "register_weight" } else { setting };
                return refuse(&format!("objective.{key}"), problem);
            }
            if self.train.mode == TrainMode::Heads {
                let problem =
                    "is \"registers\", which has no heads: choose train.mode \"full\" or \"pretrain\"";
                return refuse("objective.kind", problem);
            }
            self.validate_registers()?;
        }
        if objective.kind == ObjectiveKind::Joint {
            if let Err(objective::Error::Setting { setting, problem }) = objective.joint().validate() {
                return refuse(&format!("objective.{setting}"), problem);
            }
            self.validate_joint()?;
        }
        if self.train.mode == TrainMode::Heads {
            if objective.kind == ObjectiveKind::NextToken {
                return refuse(
                    "objective.kind",
                    "is \"next-token\", so train.mode \"heads\" has nothing to train",
                );
            }
            if objective.n < 2 {
                return refuse(
                    "objective.n",
                    "is 1, so train.mode \"heads\" has nothing to train: give 2 or more",
                );
            }
            if objective.curriculum_steps > 0 {
                let problem = "adds depths while the model learns: with train.mode \"heads\" leave it at 0";
                return refuse("objective.curriculum_steps", problem);
            }
            let shared = objective.unembedding == objective::UnembeddingKind::Shared;
            if objective.head == objective::HeadKind::Anticausal && shared {
                let problem =
                    "is \"anticausal\", which adds no parameters: train.mode \"heads\" has nothing to train";
                return refuse("objective.head", problem);
            }
        }
        if self.train.cache_states && self.train.mode != TrainMode::Heads {
            return refuse(
                "train.cache_states",
                "keeps states of a model that does not change: only with train.mode \"heads\"",
            );
        }
        if objective.match_parameters && self.train.mode != TrainMode::Pretrain {
            return refuse(
                "objective.match_parameters",
                "takes layers from a new model: only with train.mode \"pretrain\"",
            );
        }
        if objective.kind == ObjectiveKind::Heads && !objective.weights.is_empty() {
            let weights = &objective.weights;
            if weights.len() != objective.n {
                let problem = format!(
                    "has {} values for {} heads: give one for each, or none",
                    weights.len(),
                    objective.n
                );
                return refuse("objective.weights", problem);
            }
            self.refuse_no_weight()?;
        }
        Ok(())
    }

    /// Refuses settings of registers that leave none, and those that only heads have.
    fn validate_registers(&self) -> Result<()> {
        let (objective, length) = (&self.objective, self.train.length as f64);
        if objective.registers == 0 && (objective.density * length).round() == 0.0 {
            let problem = format!(
                "is {:?}, and of the {} tokens of a row (train.length) none would have a register: give at least {:?}, or \
                 objective.registers",
                objective.density,
                self.train.length,
                0.5 / length
            );
            return refuse("objective.density", problem);
        }
        let (every, steps) = (objective.curriculum_steps, self.train.steps);
        if every >= steps && every > 0 && self.train.seconds.is_none() {
            let problem = format!(
                "is {every}, and the run has {steps} steps: the first offset comes after so many, so that no register would learn; \
                 give less"
            );
            return refuse("objective.curriculum_steps", problem);
        }
        let of_model = self.model.architecture.as_ref().and_then(|architecture| architecture.grid_width);
        if let Some(of_model) =
            of_model.filter(|&width| objective.grid_width > 0 && width != objective.grid_width)
        {
            let problem = format!(
                "is {}, and model.architecture.grid_width is {of_model}: give the width of the same images",
                objective.grid_width
            );
            return refuse("objective.grid_width", problem);
        }
        let of_heads = [
            ("objective.weights", !objective.weights.is_empty()),
            ("objective.windows", objective.windows != JointWindows::default()),
            ("objective.distill", objective.distill != 0.0),
        ];
        match of_heads.iter().find(|(_, set)| *set) {
            Some((key, _)) => refuse(key, "is for heads: with objective.kind \"registers\" leave it out"),
            None => Ok(()),
        }
    }

    /// Refuses settings under which joint heads learn nothing, and those that only other heads have.
    fn validate_joint(&self) -> Result<()> {
        self.refuse_no_weight()?;
        if self.objective.match_parameters {
            let problem =
                "is for objective.kind \"heads\": with \"joint\" leave it out, and give fewer layers";
            return refuse("objective.match_parameters", problem);
        }
        if self.objective.windows == JointWindows::First && self.data.examples != ExamplesKind::Text {
            let problem = "is \"first\", and unless data.examples is \"text\" the first window lies in the prompt, of which nothing \
                           is learnt: take \"all\"";
            return refuse("objective.windows", problem);
        }
        Ok(())
    }

    fn refuse_no_weight(&self) -> Result<()> {
        let weights = &self.objective.weights;
        match !weights.is_empty() && weights.iter().all(|&weight| weight == 0.0) {
            true => refuse("objective.weights", "are all 0, so there is nothing to learn"),
            false => Ok(()),
        }
    }
}

impl DataSection {
    fn validate(&self) -> Result<()> {
        if self.train.is_empty() {
            return refuse("data.train", "names no text: give .txt or .jsonl files, or folders of them");
        }
        if self.held_out.is_empty() && !(self.held_out_fraction > 0.0 && self.held_out_fraction < 1.0) {
            let problem =
                format!("is {}: give a share between 0 and 1, or name data.held_out", self.held_out_fraction);
            return refuse("data.held_out_fraction", problem);
        }
        if self.examples == ExamplesKind::Prompts && self.prompt_end.is_empty() {
            return refuse("data.prompt_end", "is empty: name what ends a prompt, such as \"=\"");
        }
        Ok(())
    }
}

impl TrainSection {
    fn validate(&self) -> Result<()> {
        let counts = [
            ("train.batch", self.batch),
            ("train.length", self.length),
            ("train.accumulate", self.accumulate),
        ];
        if let Some((key, _)) = counts.iter().find(|(_, count)| *count == 0) {
            return refuse(key, "is 0: give at least 1");
        }
        let tokens = self.batch.checked_mul(self.length).and_then(|n| n.checked_mul(self.accumulate));
        if tokens.is_none_or(|tokens| tokens > MOST_TOKENS_PER_STEP) {
            let problem = format!(
                "x train.length x train.accumulate is {} x {} x {} tokens a step: give at most {MOST_TOKENS_PER_STEP}",
                self.batch, self.length, self.accumulate
            );
            return refuse("train.batch", problem);
        }
        self.validate_length()?;
        if self.steps > MOST_STEPS {
            return refuse("train.steps", format!("is {}: give at most {MOST_STEPS}", self.steps));
        }
        let unit = |value: f64| (0.0..=1.0).contains(&value);
        // Finite in the precision they are used in, too.
        let positive = |value: f64| value > 0.0 && (value as f32).is_finite();
        let not_negative = |value: f64| value >= 0.0 && (value as f32).is_finite();
        let ranges = [
            (
                "train.learning_rate",
                positive(self.learning_rate),
                "must be above 0 and a number in single precision",
            ),
            ("train.epsilon", positive(self.epsilon), "must be above 0"),
            ("train.weight_decay", not_negative(self.weight_decay), "must not be negative"),
            (
                "train.matrix_rate",
                positive(self.matrix_rate),
                "must be above 0 and a number in single precision",
            ),
            (
                "train.exit_weight",
                not_negative(self.exit_weight),
                "must be a number in single precision, not negative (0: no early exits)",
            ),
            ("train.clip", not_negative(self.clip), "must not be negative (0 turns it off)"),
            ("train.beta1", unit(self.beta1) && self.beta1 < 1.0, "must be at least 0 and below 1"),
            ("train.beta2", unit(self.beta2) && self.beta2 < 1.0, "must be at least 0 and below 1"),
            ("train.final_ratio", unit(self.final_ratio), "must be between 0 and 1"),
            ("train.decay_fraction", unit(self.decay_fraction), "must be between 0 and 1"),
        ];
        if let Some((key, _, problem)) = ranges.iter().find(|(_, holds, _)| !holds) {
            return refuse(key, *problem);
        }
        if self.exit_weight > 0.0 && self.mode == TrainMode::Heads {
            let problem = "teaches the model's own blocks, which train.mode \"heads\" leaves as they are: leave it at 0";
            return refuse("train.exit_weight", problem);
        }
        if self.optimiser == OptimiserKind::Muon && self.mode == TrainMode::Lora {
            let problem = "is \"muon\", which is for whole matrices: with train.mode \"lora\" take \"adamw\"";
            return refuse("train.optimiser", problem);
        }
        Ok(())
    }
}

impl TrainSection {
    /// Exactly one of steps, tokens and seconds says how long a run is; steps may be what follows from the tokens.
    fn validate_length(&self) -> Result<()> {
        let exclude =
            |key: &str, other: &str| refuse(key, format!("and {other} exclude each other: keep one of them"));
        if let Some(seconds) = self.seconds {
            return match (self.tokens, self.steps) {
                (Some(_), _) => exclude("train.seconds", "train.tokens"),
                (None, 1..) => exclude("train.seconds", "train.steps"),
                _ if seconds > 0.0 && seconds <= MOST_SECONDS => Ok(()),
                _ => refuse(
                    "train.seconds",
                    format!("is {seconds:?}: give a number of seconds above 0 and at most {MOST_SECONDS:?}"),
                ),
            };
        }
        if self.tokens == Some(0) {
            return refuse("train.tokens", "is 0: give at least 1");
        }
        if let Some(tokens) = self.tokens {
            let per_step = self.batch * self.length * self.accumulate;
            let steps = steps_of_tokens(tokens, per_step);
            if steps != self.steps {
                let problem = format!(
                    "and train.steps exclude each other ({tokens} tokens are {steps} steps of {per_step}): keep one of them"
                );
                return refuse("train.tokens", problem);
            }
        }
        if self.steps == 0 {
            return refuse("train.steps", "is 0: give at least 1");
        }
        Ok(())
    }
}

impl LoraSection {
    fn validate(&self) -> Result<()> {
        let Self { rank, alpha, dropout, .. } = *self;
        if !(1..=HIGHEST_RANK).contains(&rank) {
            return refuse("lora.rank", format!("is {rank}: give 1 to {HIGHEST_RANK}"));
        }
        // As single precision holds it.
        if !(alpha as f32 > 0.0 && (alpha as f32).is_finite()) {
            return refuse("lora.alpha", format!("is {alpha:?}: give a number above 0, such as 16.0"));
        }
        if !(0.0..1.0).contains(&dropout) {
            return refuse("lora.dropout", format!("is {dropout:?}: give 0 or more, and less than 1"));
        }
        Ok(())
    }
}

impl WatchSection {
    fn validate(&self) -> Result<()> {
        let factor = self.loss_factor;
        if !(factor == 0.0 || factor > 1.0 && factor.is_finite()) {
            return refuse(
                "watch.loss_factor",
                format!("is {factor}: give more than 1, or 0 to turn it off"),
            );
        }
        if !(0.0..=1.0).contains(&self.solved) {
            return refuse("watch.solved", format!("is {}: give a share between 0 and 1", self.solved));
        }
        if !(self.minimum_gain >= 0.0 && self.minimum_gain.is_finite()) {
            return refuse("watch.minimum_gain", "must not be negative");
        }
        Ok(())
    }
}

fn refuse(key: &str, problem: impl Into<String>) -> Result<()> {
    Err(Error::Setting { key: key.to_owned(), problem: problem.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(overrides: &[&str]) -> String {
        let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
        let text = "[data]\ntrain = \"a.txt\"\n";
        RunConfig::parse(text, "run.toml", &overrides).unwrap_err().to_string()
    }

    #[test]
    fn a_warm_up_beyond_the_end_is_doubted() {
        let doubts = |overrides: &[&str]| {
            let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
            RunConfig::parse("[data]\ntrain = \"a.txt\"\n", "run.toml", &overrides).unwrap().doubts()
        };
        let doubted = doubts(&["train.steps=20"]);
        assert_eq!(
            doubted,
            ["train.warmup_steps is 50 and the run has 20 steps: the learning rate never reaches 0.002"]
        );
        assert!(doubts(&["train.steps=50"]).is_empty() && doubts(&["train.seconds=5"]).is_empty());
    }

    #[test]
    fn what_cannot_work_is_named() {
        assert_eq!(
            RunConfig::parse("", "run.toml", &[]).unwrap_err().to_string(),
            "data.train names no text: give .txt or .jsonl files, or folders of them"
        );
        assert_eq!(refusal(&["train.steps=0"]), "train.steps is 0: give at least 1");
        assert!(refusal(&["train.beta2=1.0"]).starts_with("train.beta2 must be"));
        assert!(refusal(&["train.learning_rate=nan"]).starts_with("train.learning_rate must be"));
        assert!(refusal(&["data.held_out_fraction=1.0"]).starts_with("data.held_out_fraction is 1"));
        assert!(refusal(&["train.mode=heads"]).starts_with("model.init is missing"));
        assert!(refusal(&["model.init=a"]).starts_with("train.mode is \"pretrain\""));
        assert!(refusal(&["model.init=a", "model.architecture.layers=2"]).contains("exclude each other"));
        let heads = ["model.init=a", "train.mode=heads"];
        assert!(refusal(&[&heads[..], &["objective.kind=next-token"]].concat()).contains("nothing to train"));
        assert!(refusal(&[&heads[..], &["objective.head=anticausal"]].concat()).contains("nothing to train"));
        assert!(
            refusal(&[&heads[..], &["objective.match_parameters=true"]].concat()).contains("takes layers")
        );
        assert!(refusal(&["train.cache_states=true"]).contains("only with train.mode"));
        assert!(refusal(&["objective.weights=[1, 2]"]).contains("2 values for 4 heads"));
        assert!(refusal(&["objective.weights=[0, 0, 0, 0]"]).contains("nothing to learn"));
        assert!(
            refusal(&["objective.kind=joint", "objective.weights=[0, 0, 0, 0]"]).contains("nothing to learn")
        );
        let joint = ["objective.kind=joint", "objective.match_parameters=true"];
        assert!(refusal(&joint).starts_with("objective.match_parameters is for objective.kind \"heads\""));
        for examples in ["prompts", "messages"] {
            let examples = format!("data.examples={examples}");
            let first = refusal(&["objective.kind=joint", "objective.windows=first", &examples]);
            assert!(
                first.starts_with("objective.windows is \"first\"") && first.contains("lies in the prompt"),
                "{first}"
            );
        }
        let registers = |setting: &str| refusal(&["objective.kind=registers", setting]);
        for setting in ["objective.weights=[1, 0]", "objective.windows=first", "objective.distill=0.5"] {
            let refused = registers(setting);
            assert!(refused.starts_with(setting.split_once('=').unwrap().0), "{refused}");
            assert!(
                refused.ends_with("is for heads: with objective.kind \"registers\" leave it out"),
                "{refused}"
            );
        }
        assert_eq!(registers("objective.d_min=300"), "objective.d_min is 300: give 1 to 256");
        let density = registers("objective.density=1e-30");
        assert!(
            density.starts_with("objective.density is 1e-30, and of the 256 tokens of a row"),
            "{density}"
        );
        assert!(density.contains("give at least 0.001953125, or"), "{density}");
        for (setting, told) in [
            ("lora.rank=0", "lora.rank is 0: give 1 to 4096"),
            ("lora.alpha=1e300", "lora.alpha is 1e300: give a number above 0, such as 16.0"),
            ("lora.alpha=nan", "lora.alpha is NaN: give a number above 0, such as 16.0"),
            ("lora.dropout=1.5", "lora.dropout is 1.5: give 0 or more, and less than 1"),
        ] {
            assert_eq!(refusal(&["model.init=a", "train.mode=lora", setting]), told);
        }
        assert!(refusal(&["checkpoint.keep_last=0"]).starts_with("checkpoint.keep_last is 0"));
        assert!(refusal(&["watch.loss_factor=0.5"]).starts_with("watch.loss_factor is 0.5"));
        assert!(refusal(&["watch.loss_factor=nan"]).starts_with("watch.loss_factor is"));
        assert!(refusal(&["watch.minimum_gain=-1"]).starts_with("watch.minimum_gain must"));
        assert!(refusal(&["run.folder="]).starts_with("run.folder is empty"));
        assert!(refusal(&["train.steps=9000000000000000000"]).starts_with("train.steps is 9"));
        assert!(refusal(&["train.batch=9000000000000000000"]).starts_with("train.batch x train.length"));
        for seconds in ["1e300", "inf", "nan", "0", "-1"] {
            let message = refusal(&[&format!("train.seconds={seconds}")]);
            assert!(
                message.starts_with("train.seconds is ") && message.ends_with("at most 1000000000.0"),
                "{message}"
            );
        }
        assert!(refusal(&["run.threads=100000000"]).starts_with("run.threads is 100000000"));
    }
}
