//! Leaving early for good: text whose tokens really skip layers. What the layers left out would have kept of the token, keys and
//! values, is made of the state that it left with (Schuster et al. 2207.07061, section 3.1; Elbayad et al. 1910.10073).

use std::time::Instant;

use kernels::argmax::argmax;
use model::Decoder;
use model::engine::{Engine, Rows};

use super::Rule;
use super::monitor::Monitor;
use crate::error::{Error, Result};
use crate::look::lead_of;
use crate::probe::Probe;

/// A continuation that skipped layers, and what it cost.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lived {
    /// The new tokens.
    pub ids: Vec<u32>,
    /// Layers that ran for the tokens after the first; the prompt and the first token take all.
    pub layers: usize,
    /// Time of the tokens after the first.
    pub seconds: f64,
}

/// Continues `prompt` greedily by `new_tokens` tokens with exits by `rule`, which `monitor` may change.
///
/// # Errors
/// When prompt and continuation do not fit, or the rule needs a probe that is not given.
pub fn live(
    decoder: &Decoder,
    engine: &mut Engine,
    prompt: &[u32],
    new_tokens: usize,
    rule: &mut Rule,
    probe: Option<&Probe>,
    monitor: &mut Monitor,
) -> Result<Lived> {
    if prompt.is_empty() || prompt.len() + new_tokens > engine.capacity() {
        let problem = format!(
            "{} tokens of prompt and {new_tokens} new ones: give 1 to {}",
            prompt.len(),
            engine.capacity()
        );
        return Err(Error::setting("tokens", problem));
    }
    if *rule == Rule::Probe && probe.is_none() || *rule == Rule::Oracle {
        return Err(Error::setting(
            "rule",
            "leaving by probe needs a probe, and nobody has an oracle while writing",
        ));
    }
    let mut writer = Writer { decoder, engine, probe, layers: 0 };
    let mut token = writer.prompt(prompt);
    let mut ids = vec![token];
    writer.layers = 0;
    let begin = Instant::now();
    for position in prompt.len()..prompt.len() + new_tokens.saturating_sub(1) {
        token = writer.step(token, position, rule, monitor, ids.len());
        ids.push(token);
    }
    Ok(Lived { ids, layers: writer.layers, seconds: begin.elapsed().as_secs_f64() })
}

struct Writer<'a> {
    decoder: &'a Decoder,
    engine: &'a mut Engine,
    probe: Option<&'a Probe>,
    layers: usize,
}

impl Writer<'_> {
    fn prompt(&mut self, prompt: &[u32]) -> u32 {
        self.engine.stand_at(0);
        let mut x = self.decoder.embed(self.engine, prompt);
        for block in &self.decoder.blocks {
            x = block.forward(self.engine, x);
        }
        let last = self.engine.copy_rows(&x, prompt.len() - 1, 1);
        self.engine.recycle(x);
        let token = self.read_out(&last).0;
        self.engine.recycle(last);
        token
    }

    /// The token after the one at `position`.
    fn step(
        &mut self,
        token: u32,
        position: usize,
        rule: &mut Rule,
        monitor: &mut Monitor,
        decided: usize,
    ) -> u32 {
        self.engine.stand_at(position);
        let blocks = &self.decoder.blocks;
        let mut x = self.decoder.embed(self.engine, &[token]);
        for (layer, block) in blocks.iter().enumerate() {
            let before = matches!(rule, Rule::Likeness(_)).then(|| x.data.clone());
            x = block.forward(self.engine, x);
            self.layers += 1;
            if layer + 1 == blocks.len() {
                break;
            }
            let Some(token) = self.leave(*rule, layer, &x, before.as_deref()) else { continue };
            if monitor.wants() {
                let whole = self.run_on(x, layer + 1);
                *rule = monitor.compare(*rule, whole == token, decided);
                return whole;
            }
            self.propagate(&x, layer + 1);
            self.engine.recycle(x);
            return token;
        }
        self.finish(x)
    }

    /// What the lens reads after `layer`, if the rule leaves there.
    fn leave(&mut self, rule: Rule, layer: usize, x: &Rows, before: Option<&[f32]>) -> Option<u32> {
        let leaves = match (rule, self.probe) {
            (Rule::Response(threshold), _) => {
                let (token, lead) = self.read_out(x);
                return (f64::from(lead) >= threshold).then_some(token);
            }
            (Rule::Likeness(threshold), _) => {
                layer > 0 && before.is_some_and(|before| crate::look::cosine(before, &x.data) >= threshold)
            }
            (Rule::Probe, Some(probe)) => probe.settled(layer, &x.data),
            _ => false,
        };
        leaves.then(|| self.read_out(x).0)
    }

    /// The model's own token, from the state before block `from` on.
    fn run_on(&mut self, mut x: Rows, from: usize) -> u32 {
        for block in &self.decoder.blocks[from..] {
            x = block.forward(self.engine, x);
            self.layers += 1;
        }
        self.finish(x)
    }

    /// Keys and values of the blocks from `from` on, made of the state that the token left with.
    fn propagate(&mut self, x: &Rows, from: usize) {
        for block in &self.decoder.blocks[from..] {
            let unused = block.propagate(self.engine, x);
            self.engine.recycle(unused);
        }
    }

    /// The likeliest token, and by how much it leads.
    fn read_out(&mut self, x: &Rows) -> (u32, f32) {
        let normed = self.decoder.final_norm(self.engine, x);
        let logits = self.decoder.logits(self.engine, normed);
        let found = (argmax(&logits.data) as u32, lead_of(&logits.data));
        self.engine.recycle(logits);
        found
    }

    fn finish(&mut self, x: Rows) -> u32 {
        let token = self.read_out(&x).0;
        self.engine.recycle(x);
        token
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kernels::team::Team;
    use model::engine::EngineWeights;
    use model::presets::preset;

    use super::*;
    use crate::exit::monitor::MonitorSettings;

    fn quiet(share: f64, bound: f64) -> Monitor {
        Monitor::new(MonitorSettings { share, bound, window: 5, seed: 1 }).unwrap()
    }

    #[test]
    fn without_exits_it_is_the_model_and_with_them_layers_are_skipped() {
        let mut config = preset("1M", 61).unwrap();
        (config.width, config.head_dim, config.ffn, config.layers) = (32, 8, 64, 6);
        let (decoder, params) = Decoder::initialise(&config, 3).unwrap();
        let weights = Arc::new(EngineWeights::new(&decoder, &params));
        let mut engine = Engine::new(weights, Arc::new(Team::new(1)), 64);
        let prompt = [3, 1, 4, 1, 5];
        let mut run = |rule: Rule, monitor: &mut Monitor| {
            let mut rule = rule;
            let lived = live(&decoder, &mut engine, &prompt, 20, &mut rule, None, monitor).unwrap();
            (lived, rule)
        };
        let (whole, _) = run(Rule::Full, &mut quiet(0.0, 1.0));
        assert_eq!((whole.ids.len(), whole.layers), (20, 19 * 6));
        // A threshold that nothing reaches, and one that everything does.
        assert_eq!(run(Rule::Response(1.5), &mut quiet(0.0, 1.0)).0.ids, whole.ids);
        let (early, _) = run(Rule::Response(-1.0), &mut quiet(0.0, 1.0));
        assert_eq!((early.ids[0], early.layers), (whole.ids[0], 19));
        let (alike, _) = run(Rule::Likeness(-1.0), &mut quiet(0.0, 1.0));
        assert_eq!(alike.layers, 2 * 19);
        // Every exit is compared: the text is the model's own whatever the rule wants.
        let mut strict = quiet(1.0, 0.0);
        let (watched, rule) = run(Rule::Response(-1.0), &mut strict);
        assert_eq!(watched.ids, whole.ids);
        assert_eq!((strict.totals.0 > 0, strict.totals.1 > 0), (true, rule != Rule::Response(-1.0)));
        let refused = live(&decoder, &mut engine, &prompt, 80, &mut Rule::Full, None, &mut quiet(0.0, 1.0));
        assert!(refused.is_err());
        assert!(
            live(&decoder, &mut engine, &prompt, 8, &mut Rule::Probe, None, &mut quiet(0.0, 1.0)).is_err()
        );
    }
}
