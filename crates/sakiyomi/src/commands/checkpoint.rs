//! A checkpoint made ready for decoding.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use decode::{Lookup, Target};
use kernels::packed::WeightType;
use kernels::team::Team;
use lens::exit::Rule;
use lens::exit::drafter::ExitDrafter;
use lens::probe::Probe;
use model::engine::{CacheType, EngineWeights};
use model::taps::DecoderTaps;
use objective::{Drafter, Objective};
use train::Checkpoint;

use crate::arguments::{DraftSource, ExitDraft, Packing};

/// Tokens that early layers draft at most.
const EXIT_LONGEST: usize = 6;

/// The lead of the first choice over the second with which early layers go on drafting, where nothing else is asked.
const EXIT_THRESHOLD: f64 = 0.5;

const LOOKUP: Lookup = Lookup { longest: 8, most_matching: 3 };

/// A checkpoint, its weights packed, and threads to decode with.
pub struct Loaded {
    /// Vocabulary, model and heads. The parameters themselves are dropped once they are packed.
    pub checkpoint: Checkpoint,
    weights: Arc<EngineWeights>,
    cache: CacheType,
    team: Arc<Team>,
    /// Drafts with the early layers, where that was asked for.
    exit: Option<ExitDrafter>,
}

impl Loaded {
    /// Reads `folder` and packs it.
    pub fn read(folder: &Path, threads: usize) -> anyhow::Result<Self> {
        Self::read_as(&Packing::default(), folder, threads)
    }

    /// Reads `folder` and packs it as it is wanted.
    pub fn read_as(packing: &Packing, folder: &Path, threads: usize) -> anyhow::Result<Self> {
        let Packing { weights, cache } = *packing;
        let Some((mut checkpoint, mut packed)) = Checkpoint::load_packed(folder)? else {
            let weights = weights.unwrap_or_default();
            return Ok(Self { cache, ..Self::new_as(weights, Checkpoint::load(folder)?, threads) });
        };
        let held = packed.weight_type();
        anyhow::ensure!(
            weights.is_none_or(|wanted| wanted == held),
            "{} holds {held} weights: leave --weights away, or use the checkpoint that they were made of",
            folder.display()
        );
        if let Some(drafter) = checkpoint.objective.drafter() {
            drafter.pack(&mut packed, &checkpoint.params);
        }
        checkpoint.params = tensor::Params::default();
        let team = Arc::new(Team::new(threads));
        Ok(Self { checkpoint, weights: Arc::new(packed), cache, team, exit: None })
    }

    /// Packs a checkpoint in f32.
    pub fn new(checkpoint: Checkpoint, threads: usize) -> Self {
        Self::new_as(WeightType::F32, checkpoint, threads)
    }

    fn new_as(weights: WeightType, mut checkpoint: Checkpoint, threads: usize) -> Self {
        let drafter = checkpoint.objective.drafter();
        let weights = Target::pack_as(weights, &checkpoint.decoder, drafter, &checkpoint.params);
        checkpoint.params = tensor::Params::default();
        let team = Arc::new(Team::new(threads));
        Self { checkpoint, weights, cache: CacheType::default(), team, exit: None }
    }

    /// Ready to draft with its early layers, if that is the `source`; `folder` is where it was read from.
    pub fn with_exit(mut self, source: DraftSource, exit: &ExitDraft, folder: &Path) -> anyhow::Result<Self> {
        if source == DraftSource::Exit {
            self.exit = Some(exit.drafter(self.checkpoint.decoder.config.layers, folder)?);
        } else if let Some(flag) = exit.typed() {
            anyhow::bail!("{flag} says how early layers draft: it needs --draft exit");
        }
        Ok(self)
    }

    /// What it decodes with.
    pub fn weights(&self) -> &EngineWeights {
        &self.weights
    }

    /// How its keys and values are held.
    pub fn cache_type(&self) -> CacheType {
        self.cache
    }

    /// How its weights are held.
    pub fn weight_type(&self) -> WeightType {
        self.weights.weight_type()
    }

    /// Something to decode with, for sequences of up to `positions` tokens or the model's context, whichever is less; drafts
    /// are what the checkpoint was trained to draft with.
    pub fn target(&self, positions: usize) -> anyhow::Result<Target<'_>> {
        self.target_drafting(positions, DraftSource::Auto)
    }

    /// As [`Self::target`] with drafts from `source`.
    pub fn target_drafting(&self, positions: usize, source: DraftSource) -> anyhow::Result<Target<'_>> {
        let decoder = &self.checkpoint.decoder;
        let capacity = positions.min(decoder.config.context);
        let (weights, team) = (Arc::clone(&self.weights), Arc::clone(&self.team));
        let mut target = Target::new(decoder, self.drafter(source)?, weights, team, capacity)?;
        target.hold_cache_as(self.cache);
        Ok(target)
    }

    /// Tokens of the longest draft from `source`.
    pub fn longest_draft(&self, source: DraftSource) -> anyhow::Result<usize> {
        Ok(self.drafter(source)?.map_or(0, Drafter::longest))
    }

    fn drafter(&self, source: DraftSource) -> anyhow::Result<Option<&dyn Drafter>> {
        let objective = &self.checkpoint.objective;
        Ok(match source {
            DraftSource::Auto => objective.drafter(),
            DraftSource::Heads => Some(self.drafter_of("heads", "parallel heads")?),
            DraftSource::Joint => Some(self.drafter_of("joint", "joint heads")?),
            DraftSource::Registers => {
                Some(self.drafter_of("registers", "registers that look farther ahead")?)
            }
            DraftSource::Lookup => Some(&LOOKUP),
            DraftSource::Exit => self.exit.as_ref().map(|exit| exit as &dyn Drafter),
            DraftSource::None => None,
        })
    }

    fn drafter_of(&self, kind: &str, what: &str) -> anyhow::Result<&dyn Drafter> {
        let objective = &self.checkpoint.objective;
        let drafter = objective.drafter().filter(|_| objective.kind() == kind);
        drafter.with_context(|| {
            format!("--draft {kind}: this checkpoint has no {what}; use auto, lookup or none")
        })
    }

    /// Tokens of a prompt, after the token that begins a document where the vocabulary has one.
    pub fn encode(&self, prompt: &str) -> anyhow::Result<Vec<u32>> {
        let vocabulary = &self.checkpoint.vocabulary;
        let mut ids: Vec<u32> = vocabulary.begin().into_iter().collect();
        ids.extend(vocabulary.encode(prompt)?);
        Ok(ids)
    }

    /// Bytes of a prompt that its tokens do not give back: the model does not see them.
    pub fn lost_bytes(&self, prompt: &str) -> anyhow::Result<u64> {
        let vocabulary = &self.checkpoint.vocabulary;
        Ok(vocabulary.lost_bytes(prompt, &vocabulary.encode(prompt)?)?)
    }

    /// Tokens of a question as the checkpoint's chat template writes it, up to where the answer begins.
    pub fn encode_chat(&self, question: &str) -> anyhow::Result<Vec<u32>> {
        let vocabulary = &self.checkpoint.vocabulary;
        let Some(template) = vocabulary.chat_template() else {
            anyhow::bail!("--chat: this checkpoint has no chat template");
        };
        let messages = serde_json::json!([{ "role": "user", "content": question }]);
        let text = template.render(&messages, None, true).map_err(anyhow::Error::msg)?;
        Ok(vocabulary.encode(&text)?)
    }

    /// Tokens that end a text: those of the vocabulary and those of the model.
    pub fn end_tokens(&self) -> Vec<u32> {
        let mut ends = self.checkpoint.decoder.config.end_tokens.clone();
        ends.extend(self.checkpoint.vocabulary.ends());
        ends.sort_unstable();
        ends.dedup();
        ends
    }
}

impl ExitDraft {
    /// The first flag of these that was typed.
    fn typed(&self) -> Option<&'static str> {
        let flags = [
            ("--exit-layer", self.exit_layer.is_some()),
            ("--exit-threshold", self.exit_threshold.is_some()),
            ("--exit-probe", self.exit_probe.is_some()),
        ];
        flags.into_iter().find_map(|(flag, typed)| typed.then_some(flag))
    }

    fn drafter(&self, layers: usize, folder: &Path) -> anyhow::Result<ExitDrafter> {
        anyhow::ensure!(
            layers > 1,
            "--draft exit: the model has one layer, of which none would be left to verify"
        );
        let probe = match &self.exit_probe {
            None => None,
            Some(file) => {
                // Whose probe it is the unpacked weights tell.
                Some(Probe::load(file, &DecoderTaps::load(folder)?)?)
            }
        };
        let rule = if probe.is_some() {
            Rule::Probe
        } else {
            Rule::Response(self.exit_threshold.unwrap_or(EXIT_THRESHOLD))
        };
        Ok(ExitDrafter::new(layers, self.exit_layer.unwrap_or(layers / 2), EXIT_LONGEST, rule, probe)?)
    }
}
