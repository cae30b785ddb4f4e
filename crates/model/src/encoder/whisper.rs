//! Whisper (Radford et al., 2212.04356): an encoder of log-mel spectra, and a decoder of text that looks at it.

use std::path::Path;

use tensor::{Activation, Arena, AttentionSpec, Embedding, Linear, Norm, Ops, ParamId, Params, Tape};

use super::Weights;
use super::block::{Attention, EncoderBlock, Placement, Sight, block_sizes};
use super::build::Builder;
use super::folder::{Reader, plain_activation};
use super::mel::{Filters, Spectra, slaney_corners};
use crate::error::{Error, Result};
use crate::taps::{Hook, Input, TapSizes, Taps, check_tokens, layout};

/// Sizes of a Whisper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WhisperConfig {
    /// Tokens of the decoder.
    pub vocabulary: usize,
    /// Width of the residual streams.
    pub width: usize,
    /// Blocks of the encoder and of the decoder.
    pub layers: (usize, usize),
    /// Heads of the encoder and of the decoder.
    pub heads: (usize, usize),
    /// Inner widths of the feed-forward parts of both.
    pub ffn: (usize, usize),
    /// Positions of the encoder (half as many as frames) and of the decoder.
    pub context: (usize, usize),
    /// Mel filters.
    pub mel: usize,
    /// The token that every text begins with.
    pub start: u32,
    /// The token that ends a text, if the file names it.
    pub end: Option<u32>,
}

/// A Whisper and its parameters.
pub struct Whisper {
    /// Its sizes.
    pub config: WhisperConfig,
    params: Params,
    convolutions: [Linear; 2],
    places: ParamId,
    encoder: Vec<EncoderBlock>,
    encoder_norm: Norm,
    embedding: Embedding,
    decoder: Vec<EncoderBlock>,
    norm: Norm,
}

/// Samples a second.
pub(super) const SAMPLE_RATE: u32 = 16_000;

const EPSILON: f32 = 1e-5;

impl Whisper {
    /// Samples a second of the waves that it hears.
    pub const SAMPLE_RATE: u32 = SAMPLE_RATE;

    /// Reads the model in `folder`.
    ///
    /// # Errors
    /// Names what is missing, damaged or not supported.
    pub fn load(folder: &Path, weights: Weights) -> Result<Self> {
        let reader = Reader::open(folder)?;
        let config = reader.read(|fields| {
            reader.class(fields, &["WhisperForConditionalGeneration"])?;
            fields.one_of("activation_function", &["gelu"])?;
            for (key, supported) in
                [("scale_embedding", false), ("tie_word_embeddings", true), ("is_encoder_decoder", true)]
            {
                if fields.flag_or(key, supported)? != supported {
                    return Err(fields.unsupported(key, &format!("supported is {supported}")));
                }
            }
            ["bos_token_id", "num_hidden_layers", "alignment_heads", "forced_decoder_ids"]
                .iter()
                .for_each(|key| fields.ignore(key));
            let both = |encoder: &str, decoder: &str| -> Result<(usize, usize)> {
                Ok((fields.required_size(encoder)?, fields.required_size(decoder)?))
            };
            let token = |key: &str| -> Result<Option<u32>> {
                Ok(fields.tokens(key)?.and_then(|tokens| tokens.first().copied()))
            };
            Ok(WhisperConfig {
                vocabulary: fields.required_size("vocab_size")?,
                width: fields.required_size("d_model")?,
                layers: both("encoder_layers", "decoder_layers")?,
                heads: both("encoder_attention_heads", "decoder_attention_heads")?,
                ffn: both("encoder_ffn_dim", "decoder_ffn_dim")?,
                context: both("max_source_positions", "max_target_positions")?,
                mel: fields.required_size("num_mel_bins")?,
                start: token("decoder_start_token_id")?
                    .ok_or_else(|| fields.missing("decoder_start_token_id"))?,
                end: token("eos_token_id")?,
            })
        })?;
        let WhisperConfig { vocabulary, width, layers, heads, ffn, context, mel, .. } = config;
        let sizes = [vocabulary, ffn.0, ffn.1, context.0, context.1, mel];
        reader.check(width, heads.0, layers.0, &sizes)?;
        reader.check(width, heads.1, layers.1, &sizes)?;
        Self::build(config, Builder::new(folder, None, weights)?, weights)
    }

    fn build(config: WhisperConfig, mut build: Builder, weights: Weights) -> Result<Self> {
        let WhisperConfig { vocabulary, width, mel, context, .. } = config;
        let mut convolution = |name: &str, inputs: usize| -> Result<Linear> {
            Ok(Linear {
                weight: build.weight(&format!("model.encoder.{name}.weight"), &[width, inputs, TAPS])?,
                bias: Some(build.bias(&format!("model.encoder.{name}.bias"), width)?),
            })
        };
        let convolutions = [convolution("conv1", mel)?, convolution("conv2", width)?];
        let places = "model.encoder.embed_positions.weight";
        let places = match weights {
            Weights::Stored => build.weight(places, &[context.0, width])?,
            // Fixed in every Whisper.
            Weights::Random(_) => build.params.add(places, &[context.0, width], sinusoids(context.0, width)),
        };
        let mut encoder = Vec::new();
        for layer in 0..config.layers.0 {
            let at = format!("model.encoder.layers.{layer}");
            let own = attention(&mut build, &at, "self_attn", width, config.heads.0, Sight::Own)?;
            encoder.push(block(&mut build, &at, vec![own], width, config.ffn.0)?);
        }
        let encoder_norm = build.norm("model.encoder.layer_norm", width, EPSILON)?;
        let table = build.weight("model.decoder.embed_tokens.weight", &[vocabulary, width])?;
        let positions = Some(build.weight("model.decoder.embed_positions.weight", &[context.1, width])?);
        let mut decoder = Vec::new();
        for layer in 0..config.layers.1 {
            let at = format!("model.decoder.layers.{layer}");
            let head_dim = width / config.heads.1;
            let past = AttentionSpec {
                slot: layer,
                heads: config.heads.1,
                kv_heads: config.heads.1,
                head_dim,
                scale: (head_dim as f32).sqrt().recip(),
                cap: None,
                window: None,
                head_norms: None,
                rope: None,
            };
            let own = attention(&mut build, &at, "self_attn", width, config.heads.1, Sight::Past(past))?;
            let foreign = attention(&mut build, &at, "encoder_attn", width, config.heads.1, Sight::Memory)?;
            decoder.push(block(&mut build, &at, vec![own, foreign], width, config.ffn.1)?);
        }
        let norm = build.norm("model.decoder.layer_norm", width, EPSILON)?;
        let params = build.finish(|name| name == "proj_out.weight")?;
        let embedding = Embedding { table, scale: 1.0, positions };
        Ok(Self { config, params, convolutions, places, encoder, encoder_norm, embedding, decoder, norm })
    }

    /// Frames of mel energies that the encoder takes.
    pub fn frames(&self) -> usize {
        2 * self.config.context.0
    }

    /// Log-mel energies `[mel, frames]` of a wave, as transformers' feature extractor makes them; a wave that is too short ends in
    /// silence, one that is too long is cut.
    pub fn features(&self, samples: &[f32]) -> Vec<f32> {
        const LENGTH: usize = 400;
        const STEP: usize = 160;
        let (mel, frames) = (self.config.mel, self.frames());
        let mut padded = samples[..samples.len().min(frames * STEP)].to_vec();
        padded.resize(frames * STEP, 0.0);
        // Frames are centred: half a frame is mirrored at either end.
        let half = (LENGTH / 2).min(padded.len() - 1);
        let before: Vec<f32> = padded[1..=half].iter().rev().copied().collect();
        let after: Vec<f32> =
            padded[padded.len() - 1 - half..padded.len() - 1].iter().rev().copied().collect();
        let wave = [before, padded, after].concat();
        let spectra = Spectra { length: LENGTH, step: STEP, points: LENGTH, power: true }.of(&wave, frames);
        let corners = slaney_corners(mel + 2, 0.0, f64::from(SAMPLE_RATE) / 2.0);
        let bin_hz = f64::from(SAMPLE_RATE) / LENGTH as f64;
        let filters =
            Filters::new(mel, LENGTH / 2 + 1, bin_hz, &corners, |hz| hz, |low, high| 2.0 / (high - low));
        let energies: Vec<f64> = filters
            .apply(&spectra, LENGTH / 2 + 1)
            .into_iter()
            .map(|energy| energy.max(1e-10).log10())
            .collect();
        let loudest = energies.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        (0..mel * frames)
            .map(|place| {
                let energy = energies[place % frames * mel + place / frames];
                ((energy.max(loudest - 8.0) + 4.0) / 4.0) as f32
            })
            .collect()
    }

    /// States `[positions, width]` after the encoder for `[mel, frames]`. `hook` sees them before its first block (as layer 0) and
    /// after each (from 1 on).
    ///
    /// # Errors
    /// When there are not [`Self::frames`] frames.
    pub fn encode(&self, arena: &mut Arena, mel: &[f32], hook: &mut Hook) -> Result<Vec<f32>> {
        let WhisperConfig { width, context, .. } = self.config;
        let frames = self.frames();
        if mel.len() != self.config.mel * frames {
            let reason =
                format!("this Whisper hears {} x {frames} mel energies, not {}", self.config.mel, mel.len());
            return Err(Error::Input { reason });
        }
        let layout = layout(1, context.0);
        let mut tape = Tape::evaluation(&self.params, arena, &layout);
        let by_frame = |i: usize| mel[i % self.config.mel * frames + i / self.config.mel];
        let mut rows: Vec<f32> = (0..mel.len()).map(by_frame).collect();
        for (map, step) in self.convolutions.into_iter().zip([1, 2]) {
            let inputs = self.params.matrix_shape(map.weight).1;
            let cut = neighbours(&rows, inputs / TAPS, step);
            let x = tape.input(&cut, inputs);
            let x = tape.linear(x, &[map]);
            let x = plain_activation(&mut tape, x);
            rows = tape.value(&x).to_vec();
        }
        kernels::vector::add_assign(&mut rows, self.params.data(self.places));
        let mut x = tape.input(&rows, width);
        hook(0, tape.value_mut(&x));
        for (layer, block) in self.encoder.iter().enumerate() {
            x = block.forward(&mut tape, x, None);
            hook(layer + 1, tape.value_mut(&x));
        }
        let states = tape.norm(&x, &self.encoder_norm);
        let states = tape.value(&states).to_vec();
        tape.forget();
        Ok(states)
    }

    /// The `count` tokens that greedy decoding adds to `tokens`; fewer where the text ends or the positions do.
    ///
    /// # Errors
    /// As [`Taps::run`].
    pub fn greedy(
        &self,
        arena: &mut Arena,
        memory: &[f32],
        tokens: &[u32],
        count: usize,
    ) -> Result<Vec<u32>> {
        let mut text = tokens.to_vec();
        let (last, width) = (self.config.layers.1 - 1, self.config.width);
        for _ in 0..count.min(self.config.context.1.saturating_sub(tokens.len())) {
            let input = Input::Speech { memory: memory.to_vec(), tokens: text.clone() };
            let mut state = Vec::new();
            self.run(arena, std::slice::from_ref(&input), &mut |layer, states| {
                if layer == last {
                    state = states[states.len() - width..].to_vec();
                }
            })?;
            let mut logits = Vec::new();
            self.read_out(arena, &state, &mut logits);
            let token = kernels::argmax::argmax(&logits) as u32;
            text.push(token);
            if Some(token) == self.config.end {
                break;
            }
        }
        Ok(text.split_off(tokens.len()))
    }
}

/// Frames under a kernel of the convolutions.
const TAPS: usize = 3;

/// `sin` and `cos` of positions over a geometric series of wavelengths, side by side.
fn sinusoids(positions: usize, width: usize) -> Vec<f32> {
    let half = (width / 2).max(1);
    let value = |position: usize, column: usize| {
        let wave =
            (-(10_000f64.ln()) / (half.max(2) - 1) as f64 * (column % half) as f64).exp() * position as f64;
        (if column < half { wave.sin() } else { wave.cos() }) as f32
    };
    (0..positions).flat_map(|position| (0..width).map(move |column| value(position, column))).collect()
}

/// For each `step`-th of the rows of `width` values: the row before, the row and the row after, value by value; zeros beyond the
/// ends.
fn neighbours(rows: &[f32], width: usize, step: usize) -> Vec<f32> {
    let count = rows.len() / width;
    let mut cut = Vec::with_capacity(count.div_ceil(step) * width * TAPS);
    for row in (0..count).step_by(step) {
        for column in 0..width {
            for tap in 0..TAPS {
                let place = (row + tap).checked_sub(1).filter(|place| *place < count);
                cut.push(place.map_or(0.0, |place| rows[place * width + column]));
            }
        }
    }
    cut
}

fn attention(
    build: &mut Builder,
    at: &str,
    name: &str,
    width: usize,
    heads: usize,
    sight: Sight,
) -> Result<Attention> {
    let own = format!("{at}.{name}");
    Ok(Attention {
        norm: build.norm(&format!("{own}_layer_norm"), width, EPSILON)?,
        query: build.linear(&format!("{own}.q_proj"), width, width, true)?,
        memory: [
            build.linear(&format!("{own}.k_proj"), width, width, false)?,
            build.linear(&format!("{own}.v_proj"), width, width, true)?,
        ],
        output: build.linear(&format!("{own}.out_proj"), width, width, true)?,
        heads,
        scale: ((width / heads) as f32).sqrt().recip(),
        sight,
    })
}

fn block(
    build: &mut Builder,
    at: &str,
    attentions: Vec<Attention>,
    width: usize,
    ffn: usize,
) -> Result<EncoderBlock> {
    Ok(EncoderBlock {
        placement: Placement::Pre,
        attentions,
        norm: build.norm(&format!("{at}.final_layer_norm"), width, EPSILON)?,
        up: build.linear(&format!("{at}.fc1"), ffn, width, true)?,
        down: build.linear(&format!("{at}.fc2"), width, ffn, true)?,
        activation: Activation::GeluErf,
    })
}

impl Taps for Whisper {
    fn params(&self) -> &Params {
        &self.params
    }

    fn sizes(&self) -> TapSizes {
        let WhisperConfig { layers, width, ffn, vocabulary, .. } = self.config;
        let sizes = block_sizes(layers.1, width, ffn.1, vocabulary);
        // It looks at the encoder as well.
        TapSizes { block_work: sizes.block_work + 4 * width * width, ..sizes }
    }

    fn rows(&self, input: &Input) -> usize {
        match input {
            Input::Speech { tokens, .. } => tokens.len(),
            _ => 0,
        }
    }

    fn run(&self, arena: &mut Arena, inputs: &[Input], hook: &mut Hook) -> Result<()> {
        let WhisperConfig { width, vocabulary, context, .. } = self.config;
        let [Input::Speech { memory, tokens }] = inputs else {
            return Err(Error::input("Whisper reads one sound at a time"));
        };
        check_tokens(tokens, vocabulary, context.1)?;
        if memory.len() != context.0 * width {
            return Err(Error::input("these states are not of this Whisper's encoder"));
        }
        let layout = layout(1, tokens.len());
        let mut tape = Tape::evaluation(&self.params, arena, &layout);
        let memory = tape.input(memory, width);
        let mut x = tape.embed(&self.embedding, tokens);
        for (layer, block) in self.decoder.iter().enumerate() {
            x = block.forward(&mut tape, x, Some(&memory));
            hook(layer, tape.value_mut(&x));
        }
        tape.forget();
        Ok(())
    }

    fn read_out(&self, arena: &mut Arena, states: &[f32], logits: &mut Vec<f32>) {
        let layout = layout(1, states.len() / self.config.width);
        let mut tape = Tape::evaluation(&self.params, arena, &layout);
        let x = tape.input(states, self.config.width);
        let normed = tape.norm(&x, &self.norm);
        let out = tape.linear(normed, &[Linear { weight: self.embedding.table, bias: None }]);
        logits.clear();
        logits.extend_from_slice(tape.value(&out));
        tape.forget();
    }
}
