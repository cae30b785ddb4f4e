//! Exits that lose nothing: early layers draft, the rest verifies. Each way of drafting and plain decoding continue the same
//! beginnings in turn.

use std::ops::ControlFlow;
use std::sync::Arc;

use decode::{DecodeSettings, SamplingSettings, Spread, Statistics, Target, decode};
use kernels::team::Team;
use lens::exit::Rule;
use lens::exit::drafter::ExitDrafter;
use lens::probe::Probe;
use objective::Drafter;
use serde::Serialize;

use super::live::{Beginnings, speedup};
use crate::output::Output;
use crate::progress::Counter;

/// How far a draft may go and what it needs to go on: with no condition short, with one as far as it holds.
const DRAFTS: [(usize, Rule); 4] = [
    (1, Rule::Response(-1.0)),
    (2, Rule::Response(-1.0)),
    (4, Rule::Response(0.5)),
    (6, Rule::Response(0.8)),
];

/// The longest draft by probe.
const PROBED: usize = 4;

/// Plain decoding and every way of drafting.
#[derive(Debug, Serialize)]
pub struct Lossless {
    pub plain_tokens_per_s: f64,
    pub drafted: Vec<LosslessFigures>,
}

/// One way of drafting.
#[derive(Debug, Serialize)]
pub struct LosslessFigures {
    /// Layers that draft.
    pub exit_layer: usize,
    /// Tokens of a draft, at most.
    pub longest: usize,
    #[serde(flatten)]
    pub rule: Rule,
    pub tokens: usize,
    pub tokens_per_s: f64,
    /// Against plain decoding, measured in turn: of one beginning after the other.
    pub speedup: Spread,
    pub tokens_per_forward: f64,
    /// Share of the rounds that had a draft.
    pub rounds_with_draft: f64,
    /// By place in the draft.
    pub acceptance: Vec<Option<f64>>,
    /// Whether every text was that of plain decoding.
    pub identical: bool,
}

/// A way of decoding, and what it came to.
struct Way<'a> {
    target: Target<'a>,
    draft_length: usize,
    statistics: Statistics,
    /// For each beginning.
    seconds: Vec<f64>,
    identical: bool,
}

/// Continues the beginnings in every way.
pub fn measure(
    beginnings: &Beginnings,
    probe: Option<&Probe>,
    threads: usize,
    output: Output,
) -> anyhow::Result<Lossless> {
    let decoder = &beginnings.model.decoder;
    let layers = decoder.config.layers;
    let mut exits = vec![layers / 4, layers / 3, layers / 2];
    exits.dedup();
    let ways: Vec<(usize, usize, Rule)> = exits
        .into_iter()
        .filter(|exit| *exit > 0)
        .flat_map(|exit| {
            let probed = probe.filter(|probe| exit > probe.first).map(|_| (PROBED, Rule::Probe));
            DRAFTS.into_iter().chain(probed).map(move |(longest, rule)| (exit, longest, rule))
        })
        .collect();
    let drafters = ways
        .iter()
        .map(|(exit, longest, rule)| {
            let probe = probe.filter(|_| *rule == Rule::Probe).cloned();
            Ok(ExitDrafter::new(layers, *exit, *longest, *rule, probe)?)
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let weights = Target::pack(decoder, None, &beginnings.model.params);
    let team = Arc::new(Team::new(threads));
    let target =
        |drafter| Target::new(decoder, drafter, Arc::clone(&weights), Arc::clone(&team), beginnings.length);
    let mut plain = Way::new(target(None)?, 0);
    let mut drafted = Vec::with_capacity(ways.len());
    for ((_, longest, _), drafter) in ways.iter().zip(&drafters) {
        drafted.push(Way::new(target(Some(drafter as &dyn Drafter))?, *longest));
    }
    // Untimed: the first run of each way allocates its buffers.
    for way in std::iter::once(&mut plain).chain(&mut drafted) {
        way.write(&beginnings.prompts[0], beginnings.new_tokens)?;
        way.forget();
    }
    let mut counter = Counter::new("drafting", beginnings.prompts.len());
    for (index, prompt) in beginnings.prompts.iter().enumerate() {
        let expected = plain.write(prompt, beginnings.new_tokens)?;
        for way in &mut drafted {
            way.identical &= way.write(prompt, beginnings.new_tokens)? == expected;
        }
        counter.set(index + 1, output, String::new);
    }
    counter.finish();
    let drafted = ways.into_iter().zip(drafted);
    Ok(Lossless {
        plain_tokens_per_s: plain.statistics.decode_tokens_per_s().unwrap_or(0.0),
        drafted: drafted.map(|(way, run)| run.figures(way, &plain.seconds)).collect(),
    })
}

impl<'a> Way<'a> {
    fn new(target: Target<'a>, draft_length: usize) -> Self {
        Self { target, draft_length, statistics: Statistics::default(), seconds: Vec::new(), identical: true }
    }

    fn forget(&mut self) {
        self.statistics = Statistics::default();
        self.seconds.clear();
    }

    fn write(&mut self, prompt: &[u32], new_tokens: usize) -> anyhow::Result<Vec<u32>> {
        let settings = DecodeSettings {
            max_new_tokens: new_tokens,
            draft_length: self.draft_length,
            sampling: SamplingSettings::default(),
            end_tokens: Vec::new(),
        };
        let text = decode(&mut self.target, prompt, &settings, &mut |_, _| ControlFlow::Continue(()))?;
        self.statistics.merge(&text.statistics);
        self.seconds.push(text.statistics.decode_seconds);
        Ok(text.ids)
    }

    fn figures(
        self,
        (exit_layer, longest, rule): (usize, usize, Rule),
        plain_seconds: &[f64],
    ) -> LosslessFigures {
        let statistics = &self.statistics;
        let drafted = statistics.depths.first().map_or(0, |depth| depth.drafted);
        LosslessFigures {
            exit_layer,
            longest,
            rule,
            tokens: statistics.committed_tokens,
            tokens_per_s: statistics.decode_tokens_per_s().unwrap_or(0.0),
            speedup: speedup(plain_seconds, &self.seconds),
            tokens_per_forward: statistics.tokens_per_forward().unwrap_or(0.0),
            rounds_with_draft: drafted as f64 / statistics.forwards.max(1) as f64,
            acceptance: statistics.acceptance_per_depth(),
            identical: self.identical,
        }
    }
}
