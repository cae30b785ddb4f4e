//! A checkpoint made ready for decoding.

use std::path::Path;
use std::sync::Arc;

use decode::{Lookup, Target};
use kernels::team::Team;
use lens::exit::Rule;
use lens::exit::drafter::ExitDrafter;
use lens::probe::Probe;
use model::engine::EngineWeights;
use model::taps::DecoderTaps;
use objective::{Drafter, Objective};
use train::Checkpoint;

use crate::arguments::{DraftSource, ExitDraft};

/// Tokens that early layers draft at most.
const EXIT_LONGEST: usize = 6;

const LOOKUP: Lookup = Lookup { longest: 8, most_matching: 3 };

/// A checkpoint, its weights packed, and threads to decode with.
pub struct Loaded {
    /// Vocabulary, model and heads. The parameters themselves are dropped once they are packed.
    pub checkpoint: Checkpoint,
    weights: Arc<EngineWeights>,
    team: Arc<Team>,
    /// Drafts with the early layers, where that was asked for.
    exit: Option<ExitDrafter>,
}

impl Loaded {
    /// Reads `folder` and packs it.
    pub fn read(folder: &Path, threads: usize) -> anyhow::Result<Self> {
        Ok(Self::new(Checkpoint::load(folder)?, threads))
    }

    /// As [`Self::read`], ready to draft from `source`.
    pub fn read_drafting(
        folder: &Path,
        source: DraftSource,
        exit: &ExitDraft,
        threads: usize,
    ) -> anyhow::Result<Self> {
        let checkpoint = Checkpoint::load(folder)?;
        let drafter = match source {
            DraftSource::Exit => Some(exit.drafter(&checkpoint)?),
            _ => None,
        };
        Ok(Self { exit: drafter, ..Self::new(checkpoint, threads) })
    }

    /// Packs a checkpoint.
    pub fn new(mut checkpoint: Checkpoint, threads: usize) -> Self {
        let weights = Target::pack(&checkpoint.decoder, checkpoint.objective.drafter(), &checkpoint.params);
        checkpoint.params = tensor::Params::default();
        Self { checkpoint, weights, team: Arc::new(Team::new(threads)), exit: None }
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
        Ok(Target::new(decoder, self.drafter(source)?, weights, team, capacity)?)
    }

    fn drafter(&self, source: DraftSource) -> anyhow::Result<Option<&dyn Drafter>> {
        let objective = &self.checkpoint.objective;
        Ok(match source {
            DraftSource::Auto => objective.drafter(),
            DraftSource::Heads => match objective.drafter().filter(|_| objective.kind() == "heads") {
                Some(heads) => Some(heads),
                None => anyhow::bail!(
                    "--draft heads: this checkpoint has no parallel heads; use auto, lookup or none"
                ),
            },
            DraftSource::Lookup => Some(&LOOKUP),
            DraftSource::Exit => self.exit.as_ref().map(|exit| exit as &dyn Drafter),
            DraftSource::None => None,
        })
    }

    /// Tokens of a prompt, after the token that begins a document where the vocabulary has one.
    pub fn encode(&self, prompt: &str) -> anyhow::Result<Vec<u32>> {
        let vocabulary = &self.checkpoint.vocabulary;
        let mut ids: Vec<u32> = vocabulary.begin().into_iter().collect();
        ids.extend(vocabulary.encode(prompt)?);
        Ok(ids)
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
    fn drafter(&self, checkpoint: &Checkpoint) -> anyhow::Result<ExitDrafter> {
        let layers = checkpoint.decoder.config.layers;
        anyhow::ensure!(
            layers > 1,
            "--draft exit: the model has one layer, of which none would be left to verify"
        );
        let probe = match &self.exit_probe {
            None => None,
            Some(file) => {
                let (decoder, params) = (checkpoint.decoder.clone(), checkpoint.params.clone());
                Some(Probe::load(file, &DecoderTaps { decoder, params })?)
            }
        };
        let rule = if probe.is_some() { Rule::Probe } else { Rule::Response(self.exit_threshold) };
        Ok(ExitDrafter::new(layers, self.exit_layer.unwrap_or(layers / 2), EXIT_LONGEST, rule, probe)?)
    }
}
