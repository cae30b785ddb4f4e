//! A checkpoint made ready for decoding.

use std::path::Path;
use std::sync::Arc;

use decode::Target;
use kernels::team::Team;
use model::engine::EngineWeights;
use objective::Objective;
use train::Checkpoint;

/// A checkpoint, its weights packed, and threads to decode with.
pub struct Loaded {
    /// Vocabulary, model and heads. The parameters themselves are dropped once they are packed.
    pub checkpoint: Checkpoint,
    weights: Arc<EngineWeights>,
    team: Arc<Team>,
}

impl Loaded {
    /// Reads `folder` and packs it.
    pub fn read(folder: &Path, threads: usize) -> anyhow::Result<Self> {
        Ok(Self::new(Checkpoint::load(folder)?, threads))
    }

    /// Packs a checkpoint.
    pub fn new(mut checkpoint: Checkpoint, threads: usize) -> Self {
        let weights = Target::pack(&checkpoint.decoder, checkpoint.objective.drafter(), &checkpoint.params);
        checkpoint.params = tensor::Params::default();
        Self { checkpoint, weights, team: Arc::new(Team::new(threads)) }
    }

    /// Something to decode with, for sequences of up to `positions` tokens or the model's context, whichever is less.
    pub fn target(&self, positions: usize) -> anyhow::Result<Target<'_>> {
        let Checkpoint { decoder, objective, .. } = &self.checkpoint;
        let capacity = positions.min(decoder.config.context);
        let (weights, team) = (Arc::clone(&self.weights), Arc::clone(&self.team));
        Ok(Target::new(decoder, objective.drafter(), weights, team, capacity)?)
    }

    /// Tokens of a prompt, after the token that begins a document where the vocabulary has one.
    pub fn encode(&self, prompt: &str) -> anyhow::Result<Vec<u32>> {
        let vocabulary = &self.checkpoint.vocabulary;
        let mut ids: Vec<u32> = vocabulary.begin().into_iter().collect();
        ids.extend(vocabulary.encode(prompt)?);
        Ok(ids)
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
