//! The keyword-spotting transformer (Berg et al., 2104.00769), from the wave on: cepstra, a post-norm encoder, a class row.

use std::path::Path;

use tensor::{Activation, Arena, Embedding, Linear, Ops, Params, Tape};

use super::Weights;
use super::block::{Attention, EncoderBlock, Placement, Sight, block_sizes};
use super::build::Builder;
use super::folder::Reader;
use super::mel::{Filters, Spectra, mel_corners, to_mel};
use crate::error::{Error, Result};
use crate::taps::{Hook, Input, TapSizes, Taps, layout, same_rows};

/// Sizes of the model and of its front end.
#[derive(Clone, Debug, PartialEq)]
pub struct KeywordConfig {
    /// Width of the residual stream.
    pub width: usize,
    /// Blocks.
    pub layers: usize,
    /// Heads of attention.
    pub heads: usize,
    /// Inner width of the feed-forward part.
    pub ffn: usize,
    /// Added to variances in norms.
    pub epsilon: f32,
    /// Names of the classes.
    pub labels: Vec<String>,
    /// Samples a second.
    pub sample_rate: u32,
    /// Samples of a clip.
    pub samples: usize,
    /// Frames of a clip.
    pub frames: usize,
    /// Samples of a frame, and from one to the next.
    pub frame: (usize, usize),
    /// Points of the transform, and how many of its bins are used.
    pub points: (usize, usize),
    /// Mel filters, and their lowest and highest corner in Hz.
    pub mel: (usize, f64, f64),
    /// Cepstra of a frame.
    pub cepstra: usize,
    /// What energies are at least before their logarithm is taken.
    pub floor: f64,
}

/// A model and its parameters.
pub struct Keyword {
    /// Its sizes.
    pub config: KeywordConfig,
    params: Params,
    places: Embedding,
    frames: Linear,
    blocks: Vec<EncoderBlock>,
    head: Linear,
}

impl Keyword {
    /// Reads the model in `folder`.
    ///
    /// # Errors
    /// Names what is missing, damaged or not supported.
    pub fn load(folder: &Path, weights: Weights) -> Result<Self> {
        let reader = Reader::open(folder)?;
        let config = reader.read(|fields| {
            reader.class(fields, &["KeywordTransformer"])?;
            fields.one_of("hidden_act", &["gelu_tanh"])?;
            fields.one_of("norm", &["layer_norm"])?;
            fields.one_of("norm_position", &["post"])?;
            fields.one_of("pooling", &["cls"])?;
            fields.one_of("position_embedding", &["learned"])?;
            for (key, supported) in [
                ("qkv_bias", false),
                ("attention_output_bias", true),
                ("final_norm", false),
                ("cls_token", true),
            ] {
                if fields.flag_or(key, supported)? != supported {
                    return Err(fields.unsupported(key, &format!("supported is {supported}")));
                }
            }
            // Told by the other fields, or notes of whoever exported the file.
            let told =
                ["source", "num_parameters", "head_dim", "attention_scale", "cls_position", "num_positions"];
            told.iter().chain(&["num_labels", "block", "tensors"]).for_each(|key| fields.ignore(key));
            let labels = fields
                .get("id2label")
                .and_then(|labels| labels.as_object())
                .ok_or_else(|| fields.missing("id2label"))?;
            let label = |class: usize| {
                labels.get(&class.to_string()).and_then(|label| label.as_str()).map(str::to_owned)
            };
            let front = fields.inner("frontend", "frontend.")?.ok_or_else(|| fields.missing("frontend"))?;
            front.one_of("type", &["mfcc"])?;
            front.one_of("spectrum", &["magnitude, not squared"])?;
            front.one_of("mel_scale", &["1127 ln(1 + f / 700)"])?;
            if front.number("preemphasis")?.is_some_and(|value| value != 0.0) {
                return Err(front.unsupported("preemphasis", "supported is 0"));
            }
            let points = front.required_size("n_fft")?;
            let bins = match front
                .get("dft_bins")
                .and_then(|bins| bins.as_str()?.split_once("..")?.1.parse::<usize>().ok())
            {
                Some(last) => last + 1,
                None => points / 2 + 1,
            };
            let number = |key: &str, default| -> Result<f64> { Ok(front.number(key)?.unwrap_or(default)) };
            Ok(KeywordConfig {
                width: fields.required_size("hidden_size")?,
                layers: fields.required_size("num_hidden_layers")?,
                heads: fields.required_size("num_attention_heads")?,
                ffn: fields.required_size("intermediate_size")?,
                epsilon: fields.number("layer_norm_eps")?.unwrap_or(1e-6) as f32,
                labels: (0..labels.len())
                    .map(|class| label(class).unwrap_or_else(|| class.to_string()))
                    .collect(),
                sample_rate: front.required_size("sample_rate")? as u32,
                samples: front.required_size("num_samples")?,
                frames: front.required_size("num_frames")?,
                frame: (front.required_size("frame_length")?, front.required_size("frame_step")?),
                points: (points, bins),
                mel: (
                    front.required_size("mel_bins")?,
                    number("mel_lower_hz", 20.0)?,
                    number("mel_upper_hz", 7600.0)?,
                ),
                cepstra: front.required_size("num_mfcc")?,
                floor: number("log_floor", 1e-12)?,
            })
        })?;
        let sizes = [
            config.ffn,
            config.labels.len(),
            config.samples,
            config.frames,
            config.points.0,
            config.mel.0,
            config.cepstra,
            config.frame.0,
            config.frame.1,
        ];
        reader.check(config.width, config.heads, config.layers, &sizes)?;
        if config.frame.0 > config.points.0 || config.points.1 > config.points.0 / 2 + 1 {
            return Err(Error::Architecture { reason: "frames are longer than the transform".into() });
        }
        Self::build(config, Builder::new(folder, Some("kwt1.safetensors"), weights)?)
    }

    fn build(config: KeywordConfig, mut build: Builder) -> Result<Self> {
        let KeywordConfig { width, ffn, epsilon, frames, .. } = config;
        let class = build.values("cls", &[1, 1, width])?;
        let mut places = build.values("pos", &[1, frames + 1, width])?;
        let bias = build.constant("embed.bias", width, 0.0)?;
        for (row, values) in places.chunks_exact_mut(width).enumerate() {
            kernels::vector::add_assign(values, if row == 0 { &class } else { &bias });
        }
        let embed = build.weight("embed.weight", &[width, config.cepstra])?;
        let table = build.params.add("places", &[frames + 1, width], places);
        let mut blocks = Vec::new();
        for layer in 0..config.layers {
            let mut map = |weight: &str, bias: Option<&str>, outputs, inputs| -> Result<Linear> {
                Ok(Linear {
                    weight: build.weight(&format!("blocks.{layer}.{weight}"), &[outputs, inputs])?,
                    bias: bias
                        .map(|bias| build.bias(&format!("blocks.{layer}.{bias}"), outputs))
                        .transpose()?,
                })
            };
            let query = map("wq", None, width, width)?;
            let memory = [map("wk", None, width, width)?, map("wv", None, width, width)?];
            let output = map("wo", Some("bo"), width, width)?;
            let (up, down) = (map("w1", Some("b1"), ffn, width)?, map("w2", Some("b2"), width, ffn)?);
            blocks.push(EncoderBlock {
                placement: Placement::Post,
                attentions: vec![Attention {
                    norm: build.norm(&format!("blocks.{layer}.ln1"), width, epsilon)?,
                    query,
                    memory,
                    output,
                    heads: config.heads,
                    scale: ((width / config.heads) as f32).sqrt().recip(),
                    sight: Sight::Own,
                }],
                norm: build.norm(&format!("blocks.{layer}.ln2"), width, epsilon)?,
                up,
                down,
                activation: Activation::Gelu,
            });
        }
        let head = build.linear("head", config.labels.len(), width, true)?;
        // Constants of the front end, which is computed here.
        let params = build.finish(|name| name.starts_with("frontend."))?;
        let places = Embedding { table, scale: 1.0, positions: None };
        let frames = Linear { weight: embed, bias: None };
        Ok(Self { config, params, places, frames, blocks, head })
    }

    /// Cepstra `[frames, cepstra]` of a clip; one that is too short ends in silence, one that is too long is cut.
    pub fn features(&self, samples: &[f32]) -> Vec<f32> {
        let config = &self.config;
        let samples = &samples[..samples.len().min(config.samples)];
        let (length, step) = config.frame;
        let (points, bins) = config.points;
        let spectra = Spectra { length, step, points, power: false }.of(samples, config.frames);
        let (filters, lower, upper) = config.mel;
        let corners = mel_corners(filters + 2, lower, upper);
        let bin_hz = f64::from(config.sample_rate) / points as f64;
        let energies =
            Filters::new(filters, bins, bin_hz, &corners, to_mel, |_, _| 1.0).apply(&spectra, points / 2 + 1);
        let cosine = |n: usize, k: usize| {
            (std::f64::consts::PI / filters as f64 * (n as f64 + 0.5) * k as f64).cos()
                * (2.0 / filters as f64).sqrt()
        };
        let matrix: Vec<f64> =
            (0..config.cepstra).flat_map(|k| (0..filters).map(move |n| cosine(n, k))).collect();
        let mut features = Vec::with_capacity(config.frames * config.cepstra);
        for energies in energies.chunks_exact(filters) {
            let logarithms: Vec<f64> = energies.iter().map(|energy| energy.max(config.floor).ln()).collect();
            let cepstra = matrix
                .chunks_exact(filters)
                .map(|row| row.iter().zip(&logarithms).map(|(a, b)| a * b).sum::<f64>() as f32);
            features.extend(cepstra);
        }
        features
    }
}

impl Taps for Keyword {
    fn params(&self) -> &Params {
        &self.params
    }

    fn sizes(&self) -> TapSizes {
        let KeywordConfig { layers, width, ffn, .. } = self.config;
        block_sizes(layers, width, ffn, self.config.labels.len())
    }

    fn rows(&self, input: &Input) -> usize {
        match input {
            Input::Sound(_) => self.config.frames + 1,
            _ => 0,
        }
    }

    fn run(&self, arena: &mut Arena, inputs: &[Input], hook: &mut Hook) -> Result<()> {
        let (frames, cepstra) = (self.config.frames, self.config.cepstra);
        let layout = layout(inputs.len(), same_rows(self, inputs)?);
        let mut rows = Vec::with_capacity(inputs.len() * (frames + 1) * cepstra);
        for input in inputs {
            match input {
                Input::Sound(features) if features.len() == frames * cepstra => {
                    rows.extend(std::iter::repeat_n(0.0, cepstra));
                    rows.extend_from_slice(features);
                }
                _ => {
                    return Err(Error::input(format!(
                        "this model reads sounds of {frames} x {cepstra} cepstra"
                    )));
                }
            }
        }
        let mut tape = Tape::evaluation(&self.params, arena, &layout);
        let places = tape.embed(&self.places, &layout.positions);
        let cepstra = tape.input(&rows, cepstra);
        let mut x = tape.linear_add(cepstra, self.frames, places);
        for (layer, block) in self.blocks.iter().enumerate() {
            x = block.forward(&mut tape, x, None);
            hook(layer, tape.value_mut(&x));
        }
        tape.forget();
        Ok(())
    }

    fn read_out(&self, arena: &mut Arena, states: &[f32], logits: &mut Vec<f32>) {
        let layout = layout(1, states.len() / self.config.width);
        let mut tape = Tape::evaluation(&self.params, arena, &layout);
        let x = tape.input(states, self.config.width);
        let out = tape.linear(x, &[self.head]);
        logits.clear();
        logits.extend_from_slice(tape.value(&out));
        tape.forget();
    }
}
