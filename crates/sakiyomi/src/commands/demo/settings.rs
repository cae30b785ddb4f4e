//! The demo's run: sizes chosen so that drafting pays on a CPU.
//!
//! Linear heads on a deep, narrow trunk: a head costs one `width x width` product where a block costs about twelve, and a
//! deeper trunk makes the share of drafting in a round smaller. (Four layer heads on a shallow trunk cannot pay: a round
//! would run seven blocks for the four that plain decoding runs.)

use std::path::Path;

use objective::HeadKind;
use train::RunConfig;
use train::config::{Architecture, ObjectiveKind, Schedule};

use super::NEW_TOKENS;
use crate::arguments::Demo;
use crate::commands::prompts::PROMPT_TOKENS;

/// Tokens that each forward may commit.
const HEADS: usize = 4;

/// Default number of optimiser steps.
const STEPS: u64 = 850;

pub fn config(folder: &Path, demo: &Demo) -> anyhow::Result<RunConfig> {
    let mut config = RunConfig::default();
    config.run.folder = folder.to_owned();
    config.run.seed = demo.seed;
    config.model.architecture = Some(Architecture {
        preset: "1M".to_owned(),
        width: Some(192),
        layers: Some(4),
        heads: Some(3),
        kv_heads: Some(3),
        ffn: Some(512),
        context: Some(512),
        ..Architecture::default()
    });
    config.data.train =
        if demo.text.is_empty() { vec![super::corpus::file(folder)] } else { demo.text.clone() };
    if !demo.text.is_empty() {
        config.data.longest_document_bytes = super::corpus::longest_document_bytes(&demo.text)?;
    }
    config.data.held_out_fraction = 0.05;
    config.objective.kind = ObjectiveKind::Heads;
    config.objective.n = HEADS;
    config.objective.head = HeadKind::Linear;
    config.objective.match_parameters = false;
    let steps = demo.steps.unwrap_or(STEPS) as usize;
    config.train.steps = steps;
    config.train.batch = 6;
    // A model knows only the positions that it was trained on: rows as long as what is decoded afterwards.
    config.train.length = PROMPT_TOKENS + NEW_TOKENS;
    config.train.learning_rate = 3e-3;
    config.train.schedule = Schedule::Cosine;
    config.train.warmup_steps = (steps / 20).max(1);
    config.train.final_ratio = 0.05;
    config.evaluation.every = (steps / 8).max(1);
    config.evaluation.batches = 8;
    config.checkpoint.every = 0;
    Ok(config)
}
