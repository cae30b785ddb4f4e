//! The page of one run: from its numbers to facts, charts, tables and samples.

use super::charts::{
    acceptance_chart, accuracy_chart, loss_chart, round_cost_chart, speed_chart, tokens_per_forward_chart,
};
use super::verdict::{NO_DIFFERENCE, verdict};
use super::{
    DecodingFigures, DepthScore, DraftLengthFigures, HeldOutFigures, LooksAhead, LosslessnessFigures,
    MainJobFigures, TextFigures, spread,
};
use crate::number::{bytes, count, counted, duration, fixed, number, percent, times};
use crate::page::{Block, Fact, Page, Section, Tone};
use crate::table::{Cell, Table};
use crate::wilson::wilson_95;

impl MainJobFigures {
    /// The page that shows these numbers.
    pub fn page(&self) -> Page {
        let sections = [
            self.words_section(),
            self.decoding_section(),
            self.losslessness_section(),
            self.samples_section(),
            self.learning_section(),
            self.corpus_section(),
            self.settings_section(),
        ];
        Page {
            title: self.title.clone(),
            lead: self.lead(),
            summary: self.facts(),
            sections: sections.into_iter().flatten().collect(),
            // Numbers, strings, lists and maps with string keys: nothing that JSON could refuse.
            data: serde_json::to_value(self).expect("figures are plain data"),
            footer: self.footer(),
        }
    }

    fn lead(&self) -> String {
        let n = self.settings.n;
        if self.settings.looks_ahead == LooksAhead::Registers {
            return "An ordinary model, trained with registers: tokens that exist in training only, each of which predicts a token \
                    further ahead. Nothing of them is left when the model decodes, unless they are asked to draft."
                .to_string();
        }
        if n < 2 || !self.settings.looks_ahead.stays() {
            return String::new();
        }
        format!(
            "A model with {n} prediction heads: one for the next token and {} that look further ahead. When decoding, these \
             draft; the next-token head checks every draft and keeps only what it would have written itself.",
            n - 1
        )
    }

    fn facts(&self) -> Vec<Fact> {
        let mut facts = Vec::new();
        if let Some(losslessness) = &self.losslessness {
            facts.push(losslessness_fact(losslessness));
        }
        if let Some(decoding) = &self.decoding {
            facts.extend(decoding_facts(decoding, self.settings.n));
        }
        if let Some(bits) = self.held_out.as_ref().and_then(|held_out| held_out.next_token_bits_per_byte) {
            facts.push(Fact {
                label: "Held-out loss".into(),
                value: fixed(bits, 3),
                note: "bits per byte, next token".into(),
                ..Fact::default()
            });
        }
        if let Some(training) = &self.training {
            facts.push(Fact {
                label: "Training".into(),
                value: duration(training.seconds),
                note: format!(
                    "{}, {} tokens",
                    counted(training.steps, "step"),
                    number(training.tokens as f64)
                ),
                ..Fact::default()
            });
        }
        facts
    }

    fn words_section(&self) -> Option<Section> {
        let words = verdict(self);
        (!words.is_empty()).then(|| Section {
            heading: "What these numbers say".into(),
            blocks: vec![Block::Callout(words)],
        })
    }

    fn decoding_section(&self) -> Option<Section> {
        let decoding = self.decoding.as_ref()?;
        let intro = format!(
            "{} from held-out text, {} written for each, greedily and by the same engine with the same weights; only the \
             number of drafted tokens per round differs.",
            counted(decoding.prompts, "prompt"),
            counted(decoding.tokens_per_prompt, "token")
        );
        let charts = vec![
            tokens_per_forward_chart(decoding, self.settings.n),
            speed_chart(decoding),
            acceptance_chart(decoding),
            round_cost_chart(decoding),
        ];
        let mut blocks =
            vec![Block::Text(intro), Block::Charts(charts), Block::Table(decoding_table(decoding))];
        if !decoding.texts.is_empty() {
            blocks.push(Block::Table(text_table(&decoding.texts)));
        }
        Some(Section { heading: "Decoding with and without drafts".into(), blocks })
    }

    fn losslessness_section(&self) -> Option<Section> {
        let losslessness = self.losslessness.as_ref()?;
        Some(Section { heading: "Is it the same text?".into(), blocks: losslessness_blocks(losslessness) })
    }

    fn samples_section(&self) -> Option<Section> {
        if self.samples.is_empty() {
            return None;
        }
        let intro = "Each stretch that begins with an unshaded token is one round: the verifier’s own token, then the \
                     drafted tokens that it accepted. The text would be the same without any shading."
            .to_string();
        Some(Section {
            heading: "Where each token came from".into(),
            blocks: vec![Block::Text(intro), Block::Samples(self.samples.clone())],
        })
    }

    fn learning_section(&self) -> Option<Section> {
        let curves = self.training.as_ref().map_or(&[][..], |training| &training.heads);
        let mut charts = Vec::new();
        if !curves.is_empty() {
            charts.push(loss_chart(curves, self.settings.looks_ahead));
        }
        let held_out = self.held_out.as_ref().filter(|held_out| !held_out.depths.is_empty());
        charts.extend(held_out.map(|held_out| accuracy_chart(held_out, self.settings.looks_ahead)));
        let mut blocks = Vec::new();
        if !charts.is_empty() {
            blocks.push(Block::Charts(charts));
        }
        let table = |held_out| Block::Table(depth_table(held_out, self.settings.looks_ahead));
        blocks.extend(held_out.map(table));
        let heading = self.settings.looks_ahead.heading().into();
        (!blocks.is_empty()).then_some(Section { heading, blocks })
    }

    fn corpus_section(&self) -> Option<Section> {
        let corpus = self.corpus.as_ref()?;
        let mut rows = vec![
            pair("text", &corpus.name),
            pair("training part", &bytes(corpus.train_bytes)),
            pair("held-out part", &bytes(corpus.held_out_bytes)),
        ];
        rows.extend(corpus.documents.map(|documents| pair("documents", &count(documents))));
        if let Some((spans, share)) = corpus.repeated_spans.and_then(|spans| Some((spans, spans.share()?))) {
            let name =
                format!("held-out spans of {} bytes that the training part contains", spans.span_bytes);
            let looked_up =
                format!("{} ({} of {})", percent(share), count(spans.found), count(spans.looked_up));
            rows.push(pair(&name, &looked_up));
        }
        let table = Table { rows, ..Table::default() };
        Some(Section { heading: "The text".into(), blocks: vec![Block::Table(table)] })
    }

    fn settings_section(&self) -> Option<Section> {
        let settings = &self.settings;
        let mut rows = Vec::new();
        let mut add = |name: &str, value: String| {
            if !value.is_empty() {
                rows.push(pair(name, &value));
            }
        };
        let unless_zero = |value: u64| if value == 0 { String::new() } else { count(value) };
        add("model", settings.model.clone());
        let (trunk, ahead) = (unless_zero(settings.trunk_parameters), unless_zero(settings.head_parameters));
        let n = unless_zero(settings.n as u64);
        match settings.looks_ahead {
            LooksAhead::Nothing => add("parameters of the model", trunk),
            LooksAhead::Heads | LooksAhead::Joint => {
                add("parameters without additional heads", trunk);
                add("parameters of the additional heads", ahead);
                add("kind of heads", settings.heads_kind.clone());
                add("tokens predicted, the next one included (n)", n);
            }
            LooksAhead::Registers => {
                add("parameters of the model", trunk);
                add("parameters of the registers", ahead);
                add("largest offset of a register", n);
            }
        }
        add("parameters of the adapters", unless_zero(settings.adapter_parameters));
        let seeds = settings.seeds.iter().map(|seed| format!("{} {}", seed.name, seed.value));
        add("seeds", seeds.collect::<Vec<_>>().join(", "));
        add("threads", unless_zero(settings.threads as u64));
        add("machine", settings.machine.clone());
        for (name, value) in &settings.more {
            add(name, value.clone());
        }
        let table = Table { rows, ..Table::default() };
        (!table.rows.is_empty())
            .then(|| Section { heading: "Settings".into(), blocks: vec![Block::Table(table)] })
    }

    fn footer(&self) -> String {
        let version = self.version.as_ref().map(|version| format!("Made by sakiyomi {version}"));
        let measured = self.measured_at.as_ref().map(|time| format!("measured {time}"));
        let command = self.command.as_ref().map(|command| format!("again with `{command}`"));
        let parts: Vec<String> = [version, measured, command].into_iter().flatten().collect();
        if parts.is_empty() { String::new() } else { parts.join("; ") + "." }
    }
}

fn losslessness_fact(losslessness: &LosslessnessFigures) -> Fact {
    let note = format!(
        "{}, {} compared with plain decoding",
        counted(losslessness.prompts, "prompt"),
        counted(losslessness.bytes_compared, "byte")
    );
    let (value, tone) =
        if losslessness.identical { ("identical", Tone::Good) } else { ("differs", Tone::Bad) };
    Fact { label: "Text".into(), value: value.into(), note, tone }
}

fn decoding_facts(decoding: &DecodingFigures, n: usize) -> Vec<Fact> {
    let most = decoding.lengths.iter().max_by(|a, b| a.tokens_per_forward.total_cmp(&b.tokens_per_forward));
    let mut facts = Vec::new();
    if let Some(most) = most.filter(|most| most.draft_length > 0) {
        facts.push(Fact {
            label: "Tokens per forward".into(),
            value: fixed(most.tokens_per_forward, 2),
            note: match n {
                0 | 1 => format!("draft length {}", most.draft_length),
                _ => format!("draft length {}, limit {n}", most.draft_length),
            },
            ..Fact::default()
        });
    }
    let best = decoding.best().and_then(|best| Some((best, decoding.speedup(best)?)));
    if let Some((best, (speedup, ..))) = best {
        facts.push(Fact {
            label: "Speed against plain".into(),
            value: times(speedup),
            note: format!("with draft length {}", best.draft_length),
            tone: match speedup {
                ratio if ratio > 1.0 + NO_DIFFERENCE => Tone::Good,
                ratio if ratio < 1.0 - NO_DIFFERENCE => Tone::Bad,
                _ => Tone::Plain,
            },
        });
        let plain = decoding.plain().and_then(|plain| plain.median_tokens_per_second());
        if let Some((drafted, plain)) = best.median_tokens_per_second().zip(plain) {
            facts.push(Fact {
                label: "Tokens per second".into(),
                value: number(drafted),
                note: format!("plain: {}", number(plain)),
                ..Fact::default()
            });
        }
    }
    facts
}

fn decoding_table(decoding: &DecodingFigures) -> Table {
    let row = |length: &DraftLengthFigures| {
        let speed = match (length.median_tokens_per_second(), spread(&length.tokens_per_second)) {
            (Some(middle), Some((low, high))) if low < high => {
                Cell::Number(format!("{} ({} to {})", number(middle), number(low), number(high)))
            }
            (Some(middle), _) => middle.into(),
            _ => Cell::Missing,
        };
        let drafting = length.draft_length > 0;
        let speedup =
            decoding.speedup(length).filter(|_| drafting).map_or(Cell::Missing, |(middle, low, high)| {
                Cell::Number(if low < high {
                    format!("{} ({} to {})", times(middle), fixed(low, 2), fixed(high, 2))
                } else {
                    times(middle)
                })
            });
        let cost = decoding.round_cost(length).filter(|_| drafting);
        vec![
            Cell::Text(length_name(length.draft_length)),
            Cell::Number(fixed(length.tokens_per_forward, 3)),
            cost.map_or(Cell::Missing, |cost| Cell::Number(fixed(cost, 2))),
            speed,
            speedup,
        ]
    };
    let columns =
        ["draft length", "tokens per forward", "cost of a round", "tokens per second", "against plain"];
    Table {
        caption: String::new(),
        columns: columns.map(String::from).to_vec(),
        rows: decoding.lengths.iter().map(row).collect(),
    }
}

fn text_table(texts: &[TextFigures]) -> Table {
    let row = |text: &TextFigures| {
        let kind = match text.temperature {
            0.0 => "greedy".to_string(),
            temperature => format!("drawn at temperature {temperature}"),
        };
        let [value, low, high] = text.tokens_per_forward.map(|tokens| fixed(tokens, 2));
        vec![
            Cell::Text(kind),
            Cell::Number(format!("{value} ({low} to {high})")),
            text.repeated_share.map_or(Cell::Missing, |share| Cell::Number(percent(share))),
        ]
    };
    let columns = ["continuation", "tokens per forward, 95 % interval over prompts", "repeats itself"];
    Table {
        caption: format!(
            "What drafts of {} are worth on another kind of text. Repeats itself: spans of 16 tokens that stand earlier in \
             the same continuation",
            texts[0].draft_length
        ),
        columns: columns.map(String::from).to_vec(),
        rows: texts.iter().map(row).collect(),
    }
}

fn losslessness_blocks(losslessness: &LosslessnessFigures) -> Vec<Block> {
    let prompts = counted(losslessness.prompts, "prompt");
    let compared = counted(losslessness.bytes_compared, "byte");
    let lengths: Vec<String> = losslessness.draft_lengths.iter().map(usize::to_string).collect();
    let with = match lengths.as_slice() {
        [] => "with drafts".to_string(),
        [one] => format!("with drafts of length {one}"),
        [most @ .., last] => format!("with drafts of lengths {} and {last}", most.join(", ")),
    };
    if losslessness.identical {
        return vec![Block::Text(format!(
            "Yes. {prompts} were continued plainly and {with}; all {compared} compared are identical."
        ))];
    }
    let mut blocks = vec![Block::Text(format!(
        "No. {prompts} were continued plainly and {with}; {compared} were compared, and the texts differ."
    ))];
    if let Some(first) = &losslessness.first_divergence {
        let rows = vec![
            pair("prompt (counted from 0)", &first.prompt.to_string()),
            pair("draft length", &first.draft_length.to_string()),
            pair("byte of the continuation (counted from 0)", &count(first.byte)),
            pair("plain decoding goes on", &first.plain),
            pair("decoding with drafts goes on", &first.drafted),
        ];
        blocks.push(Block::Table(Table { caption: "The first difference".into(), columns: vec![], rows }));
    }
    blocks
}

fn depth_table(held_out: &HeldOutFigures, looks_ahead: LooksAhead) -> Table {
    let row = |(index, depth): (usize, &DepthScore)| {
        let accuracy = wilson_95(depth.correct, depth.targets)
            .map_or(Cell::Missing, |interval| Cell::Number(percent(interval.share)));
        let loss = if depth.loss.is_finite() { Cell::Number(fixed(depth.loss, 3)) } else { Cell::Missing };
        vec![
            Cell::Text(looks_ahead.name(index == 0, depth.tokens_ahead)),
            loss,
            accuracy,
            depth.targets.into(),
        ]
    };
    let columns = ["prediction", "held-out loss, nats per token", "accuracy", "targets"];
    Table {
        caption: String::new(),
        columns: columns.map(String::from).to_vec(),
        rows: held_out.depths.iter().enumerate().map(row).collect(),
    }
}

pub(super) fn length_name(length: usize) -> String {
    if length == 0 { "0 (plain)".to_string() } else { length.to_string() }
}

fn pair(name: &str, value: &str) -> Vec<Cell> {
    vec![Cell::from(name), Cell::from(value)]
}
