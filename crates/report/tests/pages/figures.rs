//! Made-up numbers of a run that goes well, to be bent by each test.

use sakiyomi_report::*;

/// A run with n = 4 heads in which everything was measured.
pub fn run() -> MainJobFigures {
    MainJobFigures {
        title: "Four heads on short tales".into(),
        command: Some("sakiyomi demo --seed 1".into()),
        measured_at: Some("on 3 May 2027".into()),
        version: Some("0.1.0".into()),
        settings: RunSettings {
            model: "6 layers × 192, 6 attention heads, context 512, bytes".into(),
            trunk_parameters: 2_712_000,
            head_parameters: 148_224,
            adapter_parameters: 0,
            looks_ahead: LooksAhead::Heads,
            heads_kind: "linear".into(),
            n: 4,
            seeds: vec![
                Seed { name: "corpus".into(), value: 1 },
                Seed { name: "initialisation".into(), value: 7 },
            ],
            threads: 2,
            machine: "a processor with 2 cores, AVX-512, 47 GB/s".into(),
            more: vec![("optimiser".into(), "AdamW, peak rate 0.002, cosine".into())],
        },
        corpus: Some(CorpusFigures {
            name: "short tales, written by the program itself".into(),
            train_bytes: 3_800_000,
            held_out_bytes: 200_000,
            documents: Some(4_812),
            repeated_spans: Some(RepeatedSpans { span_bytes: 48, looked_up: 4_000, found: 212 }),
        }),
        training: Some(training()),
        held_out: Some(HeldOutFigures {
            next_token_bits_per_byte: Some(1.027),
            next_token_only_bits_per_byte: Some(1.012),
            depths: (1..=4)
                .map(|ahead| DepthScore {
                    tokens_ahead: ahead,
                    loss: short(0.5 + 0.35 * ahead as f64),
                    correct: 16_000 - 2_600 * ahead as u64,
                    targets: 20_000,
                })
                .collect(),
        }),
        decoding: Some(decoding()),
        losslessness: Some(LosslessnessFigures {
            identical: true,
            prompts: 32,
            bytes_compared: 24_576,
            draft_lengths: vec![1, 2, 3],
            first_divergence: None,
        }),
        samples: vec![
            sample("Once upon a time, ", "in a village by the sea, there lived a baker called Tomo."),
            sample(
                "\"Give me the lamp,\" ",
                "said Rin.\n\"No & never <ever>,\" said the fox.\n\nSo they went home.",
            ),
        ],
    }
}

fn training() -> TrainingFigures {
    let curve = |ahead: usize, every: u64| {
        let at = |step: u64| {
            let wobble = ((step * 7919 + ahead as u64 * 31) % 97) as f64 / 97.0 - 0.5;
            let loss = 0.45 + 0.3 * ahead as f64 + 4.4 / (1.0 + step as f64 / 25.0);
            LossPoint { step, loss: short(loss + if every == 1 { 0.1 * wobble } else { 0.03 }) }
        };
        (1..=1200 / every).map(|index| at(index * every)).collect()
    };
    TrainingFigures {
        steps: 1200,
        tokens: 9_830_400,
        seconds: 131.0,
        heads: (1..=4)
            .map(|ahead| HeadCurve {
                tokens_ahead: ahead,
                train: curve(ahead, 1),
                held_out: curve(ahead, 150),
            })
            .collect(),
    }
}

fn decoding() -> DecodingFigures {
    let lengths = [(0, 1.0, 1450.0), (1, 1.78, 2260.0), (2, 2.37, 2690.0), (3, 2.79, 2720.0)];
    // The machine is slower in the first repeat, a little more so for drafting.
    let repeats = |draft_length: usize, middle: f64| {
        let factors = if draft_length == 0 { [0.985, 1.0, 1.021] } else { [0.96, 1.0, 1.034] };
        factors.iter().map(|factor| short(middle * factor)).collect()
    };
    DecodingFigures {
        prompts: 32,
        tokens_per_prompt: 256,
        acceptance: [(1, 2936, 2299), (2, 2299, 1732), (3, 1732, 1241)]
            .map(|(depth, drafted, accepted)| DepthAcceptance { depth, drafted, accepted })
            .to_vec(),
        lengths: lengths
            .map(|(draft_length, tokens_per_forward, speed)| DraftLengthFigures {
                draft_length,
                tokens_per_forward,
                tokens_per_second: repeats(draft_length, speed),
                round_ms: None,
            })
            .to_vec(),
        texts: vec![text(0.0, [2.79, 2.71, 2.86], 0.04), text(1.0, [2.21, 2.15, 2.28], 0.0)],
    }
}

fn text(temperature: f32, tokens_per_forward: [f64; 3], repeated: f64) -> TextFigures {
    TextFigures { temperature, draft_length: 3, tokens_per_forward, repeated_share: Some(repeated) }
}

/// A continuation whose tokens are single characters, accepted in rounds of one to four.
fn sample(prompt: &str, text: &str) -> Sample {
    let mut tokens = Vec::new();
    let mut round = (0usize, 1usize);
    for character in text.chars() {
        let depth = tokens.len() - round.0;
        tokens.push(SampleToken { text: character.into(), drafted_depth: (depth > 0).then_some(depth) });
        if depth + 1 == round.1 {
            round = (tokens.len(), 1 + (tokens.len() * 5 + 2) % 4);
        }
    }
    Sample { prompt: prompt.into(), tokens }
}

/// Four decimals: what every JSON reader gives back to the last bit.
fn short(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}
