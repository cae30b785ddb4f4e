//! Exits for good, one rule after the other on the same beginnings, in turn.

use std::sync::Arc;

use decode::Spread;
use kernels::team::Team;
use lens::exit::Rule;
use lens::exit::live::live;
use lens::exit::monitor::{Action, Monitor, MonitorEvent, MonitorSettings};
use lens::exit::quality::Quality;
use lens::probe::Probe;
use model::engine::{Engine, EngineWeights};
use model::taps::{DecoderTaps, Input};
use serde::Serialize;
use tensor::Arena;
use train::events::{Event, EventWriter, ExitMonitorEvent};

use super::arguments::Exit as Arguments;
use super::subject::{Model, Subject};
use crate::output::Output;
use crate::progress::Counter;

/// Thresholds that are tried.
const RESPONSE: [f64; 4] = [0.4, 0.6, 0.8, 0.94];
const LIKENESS: [f64; 3] = [0.9, 0.95, 0.99];

/// One rule at work.
#[derive(Debug, Serialize)]
pub struct LiveFigures {
    #[serde(flatten)]
    pub rule: Rule,
    pub prompts: usize,
    pub tokens: usize,
    pub mean_layers: f64,
    pub layer_speedup: f64,
    pub tokens_per_s: f64,
    /// Against all layers, measured in turn: of one beginning after the other.
    pub speedup: Spread,
    /// Share of the tokens that the whole model would have chosen after the same text.
    pub agreement: f64,
    /// Under the whole model.
    pub nats_per_token: f64,
    /// Exits that were compared with the whole model, and those of them that disagreed.
    pub compared: usize,
    pub disagreed: usize,
    pub events: Vec<MonitorEvent>,
}

/// Where texts begin, and how far they are to go on.
pub struct Beginnings<'a> {
    pub model: &'a DecoderTaps,
    pub prompts: Vec<Vec<u32>>,
    pub new_tokens: usize,
    /// Of a text in all.
    pub length: usize,
}

/// The beginnings that are asked for; none where none are.
pub fn beginnings<'a>(
    subject: &'a Subject,
    arguments: &Arguments,
    count: usize,
    output: Output,
) -> anyhow::Result<Option<Beginnings<'a>>> {
    let settings = &arguments.live;
    if count == 0 {
        return Ok(None);
    }
    let Model::Decoder(model) = &subject.model else {
        anyhow::bail!("--live: only a decoder writes text; leave it out for this model");
    };
    let context = model.decoder.config.context;
    let length = settings.prompt_tokens.saturating_add(settings.new_tokens);
    anyhow::ensure!(
        settings.prompt_tokens > 0 && settings.new_tokens > 1 && length <= context,
        "--prompt-tokens {} and --new-tokens {}: give at least 1 and 2, together at most the model's context, {context}",
        settings.prompt_tokens,
        settings.new_tokens
    );
    let prompts = prompts(subject, arguments, count, output)?;
    Ok(Some(Beginnings { model, prompts, new_tokens: settings.new_tokens, length }))
}

/// Runs every rule. What the monitor does goes to `events`.
pub fn measure(
    beginnings: &Beginnings,
    arguments: &Arguments,
    probe: Option<&Probe>,
    threads: usize,
    events: Option<&mut EventWriter>,
    output: Output,
) -> anyhow::Result<Vec<LiveFigures>> {
    let Beginnings { model, prompts, new_tokens, length } = beginnings;
    let settings = &arguments.live;
    let rules: Vec<Rule> = std::iter::once(Rule::Full)
        .chain(probe.map(|_| Rule::Probe))
        .chain(RESPONSE.map(Rule::Response))
        .chain(LIKENESS.map(Rule::Likeness))
        .collect();
    let monitor = MonitorSettings {
        share: settings.monitor_share,
        bound: settings.monitor_bound,
        window: settings.monitor_window,
        seed: arguments.subject.seed,
    };
    let weights = Arc::new(EngineWeights::new(&model.decoder, &model.params));
    let mut engine = Engine::new(weights, Arc::new(Team::new(threads)), *length);
    let mut runs = rules.iter().map(|rule| Run::new(*rule, monitor)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut counter = Counter::new("writing", prompts.len());
    let mut events = events;
    for (index, prompt) in prompts.iter().enumerate() {
        for run in &mut runs {
            let told = run.monitor.events.len();
            run.write(model, &mut engine, prompt, *new_tokens, probe)?;
            if let Some(events) = &mut events {
                for event in &run.monitor.events[told..] {
                    events.write(Event::ExitMonitor(monitor_event(run.asked, event)))?;
                }
            }
        }
        counter.set(index + 1, output, String::new);
    }
    counter.finish();
    let whole = runs[0].seconds.clone();
    Ok(runs.into_iter().map(|run| run.figures(model.decoder.config.layers, &whole)).collect())
}

/// How many times as fast one way is as the other, from the seconds of both for each beginning. What disturbs the machine for a
/// moment moves the ends of it, and seldom the median.
pub fn speedup(slow: &[f64], fast: &[f64]) -> Spread {
    Spread::of(slow.iter().zip(fast).map(|(slow, fast)| slow / fast).collect())
}

fn monitor_event(rule: Rule, event: &MonitorEvent) -> ExitMonitorEvent {
    let (action, threshold) = match event.action {
        Action::Raised(threshold) => ("raised", Some(threshold)),
        Action::Off => ("off", None),
    };
    ExitMonitorEvent {
        rule: super::exit::name(rule),
        token: event.token,
        compared: event.compared,
        disagreement: event.disagreement,
        action: action.to_owned(),
        threshold,
    }
}

struct Run {
    /// As it was asked for, and as the monitor has left it.
    asked: Rule,
    rule: Rule,
    monitor: Monitor,
    layers: usize,
    /// Tokens after the first of each text.
    steps: usize,
    /// For each beginning.
    seconds: Vec<f64>,
    quality: Quality,
    arena: Arena,
}

impl Run {
    fn new(rule: Rule, monitor: MonitorSettings) -> anyhow::Result<Self> {
        Ok(Self {
            asked: rule,
            rule,
            monitor: Monitor::new(monitor)?,
            layers: 0,
            steps: 0,
            seconds: Vec::new(),
            quality: Quality::default(),
            arena: Arena::default(),
        })
    }

    fn write(
        &mut self,
        model: &DecoderTaps,
        engine: &mut Engine,
        prompt: &[u32],
        new_tokens: usize,
        probe: Option<&Probe>,
    ) -> anyhow::Result<()> {
        let lived =
            live(&model.decoder, engine, prompt, new_tokens, &mut self.rule, probe, &mut self.monitor)?;
        self.layers += lived.layers;
        self.steps += lived.ids.len() - 1;
        self.seconds.push(lived.seconds);
        let text = [prompt, &lived.ids].concat();
        Ok(self.quality.add(model, &mut self.arena, &text, prompt.len())?)
    }

    fn figures(self, layers: usize, whole_seconds: &[f64]) -> LiveFigures {
        let mean_layers = self.layers as f64 / self.steps as f64;
        LiveFigures {
            rule: self.asked,
            prompts: self.seconds.len(),
            tokens: self.quality.tokens,
            mean_layers,
            layer_speedup: layers as f64 / mean_layers,
            tokens_per_s: self.steps as f64 / self.seconds.iter().sum::<f64>(),
            speedup: speedup(whole_seconds, &self.seconds),
            agreement: self.quality.agreed as f64 / self.quality.tokens as f64,
            nats_per_token: self.quality.nll / self.quality.tokens as f64,
            compared: self.monitor.totals.0,
            disagreed: self.monitor.totals.1,
            events: self.monitor.events,
        }
    }
}

/// The first tokens of the first windows of the data.
fn prompts(
    subject: &Subject,
    arguments: &Arguments,
    count: usize,
    output: Output,
) -> anyhow::Result<Vec<Vec<u32>>> {
    let settings = &arguments.live;
    let prompts: Vec<Vec<u32>> = subject.with_items(
        &arguments.subject,
        &mut |items, _| {
            let mut prompts = Vec::new();
            for item in items {
                if let Input::Tokens(tokens) = item?.input
                    && tokens.len() >= settings.prompt_tokens
                {
                    prompts.push(tokens[..settings.prompt_tokens].to_vec());
                }
                if prompts.len() == count {
                    break;
                }
            }
            Ok(prompts)
        },
        output,
    )?;
    anyhow::ensure!(
        !prompts.is_empty(),
        "--prompt-tokens {}: no text of the data is as long",
        settings.prompt_tokens
    );
    Ok(prompts)
}
