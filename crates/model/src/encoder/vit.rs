//! ViT with a classifier on its class row (Dosovitskiy et al., 2010.11929).

use std::path::Path;

use tensor::{Arena, Embedding, Gradients, Linear, LossSum, NO_TARGET, Norm, Ops, Params, Tape, Var};

use super::Weights;
use super::block::{EncoderBlock, Placement, block_sizes};
use super::build::{BlockNames, BlockSizes, Builder};
use super::folder::Reader;
use crate::checkpoint::{write_file, write_tensors};
use crate::error::{Error, Result};
use crate::taps::{Hook, Input, TapSizes, Taps, layout, same_rows};

/// Sizes of a ViT.
#[derive(Clone, Debug, PartialEq)]
pub struct VitConfig {
    /// Width of the residual stream.
    pub width: usize,
    /// Blocks.
    pub layers: usize,
    /// Heads of attention.
    pub heads: usize,
    /// Inner width of the feed-forward part.
    pub ffn: usize,
    /// Rows and columns of an image.
    pub side: usize,
    /// Rows and columns of a patch; divides `side`.
    pub patch: usize,
    /// Colours.
    pub channels: usize,
    /// Classes.
    pub classes: usize,
    /// Added to variances in norms.
    pub epsilon: f32,
}

/// A ViT and its parameters.
pub struct Vit {
    /// Its sizes.
    pub config: VitConfig,
    /// Its parameters. The class row, the positions and the bias of the patches are one table, a row for each place.
    pub params: Params,
    places: Embedding,
    patches: Linear,
    blocks: Vec<EncoderBlock>,
    norm: Norm,
    classifier: Linear,
}

impl Vit {
    /// Reads the model in `folder`.
    ///
    /// # Errors
    /// Names what is missing, damaged or not supported; a model without the classifier is refused.
    pub fn load(folder: &Path, weights: Weights) -> Result<Self> {
        let reader = Reader::open(folder)?;
        let config = reader.read(|fields| {
            reader.class(fields, &["ViTForImageClassification"])?;
            fields.one_of("hidden_act", &["gelu"])?;
            fields.one_of("pooler_act", &["tanh"])?;
            ["encoder_stride", "pooler_output_size"].iter().for_each(|key| fields.ignore(key));
            if !fields.flag_or("qkv_bias", true)? {
                return Err(fields.unsupported("qkv_bias", "supported is true"));
            }
            let labels =
                fields.get("id2label").and_then(|labels| labels.as_object()).map(|labels| labels.len());
            Ok(VitConfig {
                width: fields.required_size("hidden_size")?,
                layers: fields.required_size("num_hidden_layers")?,
                heads: fields.required_size("num_attention_heads")?,
                ffn: fields.required_size("intermediate_size")?,
                side: fields.required_size("image_size")?,
                patch: fields.required_size("patch_size")?,
                channels: fields.size("num_channels")?.unwrap_or(3),
                classes: labels.or(fields.size("num_labels")?).unwrap_or(2),
                epsilon: fields.number("layer_norm_eps")?.unwrap_or(1e-12) as f32,
            })
        })?;
        reader.check(
            config.width,
            config.heads,
            config.layers,
            &[config.ffn, config.side, config.patch, config.channels, config.classes],
        )?;
        Self::new(config, Builder::new(folder, None, weights)?)
    }

    /// A model with random weights.
    ///
    /// # Errors
    /// When the patches do not fill the image.
    pub fn random(config: VitConfig, seed: u64) -> Result<Self> {
        Self::new(config, Builder::new(Path::new(""), None, Weights::Random(seed))?)
    }

    fn new(config: VitConfig, mut build: Builder) -> Result<Self> {
        let VitConfig { width, ffn, side, patch, channels, epsilon, .. } = config;
        if !side.is_multiple_of(patch) || patch > side {
            let reason = format!("patches of {patch} do not fill an image of {side}");
            return Err(Error::Architecture { reason });
        }
        let count = (side / patch) * (side / patch);
        let class = build.values("vit.embeddings.cls_token", &[1, 1, width])?;
        let mut places = build.values("vit.embeddings.position_embeddings", &[1, count + 1, width])?;
        let projection = "vit.embeddings.patch_embeddings.projection";
        let weight = build.weight(&format!("{projection}.weight"), &[width, channels, patch, patch])?;
        let bias = build.constant(&format!("{projection}.bias"), width, 0.0)?;
        for (row, values) in places.chunks_exact_mut(width).enumerate() {
            kernels::vector::add_assign(values, if row == 0 { &class } else { &bias });
        }
        let table = build.params.add(PLACES, &[count + 1, width], places);
        let mut blocks = Vec::new();
        for layer in 0..config.layers {
            let at = format!("vit.encoder.layer.{layer}");
            blocks.push(build.block(
                &BlockNames {
                    attention_norm: format!("{at}.layernorm_before"),
                    attention: format!("{at}.attention.attention"),
                    norm: format!("{at}.layernorm_after"),
                    at,
                },
                &BlockSizes { placement: Placement::Pre, width, ffn, heads: config.heads, epsilon },
            )?);
        }
        let norm = build.norm("vit.layernorm", width, epsilon)?;
        let classifier = build.linear("classifier", config.classes, width, true)?;
        let params = build.finish(|name| name.starts_with("vit.pooler."))?;
        let places = Embedding { table, scale: 1.0, positions: None };
        let patches = Linear { weight, bias: None };
        Ok(Self { config, params, places, patches, blocks, norm, classifier })
    }

    /// Patches of an image.
    fn count(&self) -> usize {
        (self.config.side / self.config.patch).pow(2)
    }

    /// Adds the patches of `image` `[channels, side, side]` to `rows`, after an empty row for the class.
    fn cut(&self, image: &[f32], rows: &mut Vec<f32>) {
        let VitConfig { side, patch, channels, .. } = self.config;
        rows.extend(std::iter::repeat_n(0.0, channels * patch * patch));
        let along = side / patch;
        for place in 0..along * along {
            let (top, left) = (place / along * patch, place % along * patch);
            for channel in 0..channels {
                for line in top..top + patch {
                    let start = (channel * side + line) * side + left;
                    rows.extend_from_slice(&image[start..start + patch]);
                }
            }
        }
    }

    /// The stream before the first block.
    fn embed(&self, tape: &mut Tape, images: &[&[f32]]) -> Var {
        let mut rows = Vec::new();
        images.iter().for_each(|image| self.cut(image, &mut rows));
        let patch_width = self.config.channels * self.config.patch * self.config.patch;
        let places: Vec<u32> = images.iter().flat_map(|_| 0..=self.count() as u32).collect();
        let places = tape.embed(&self.places, &places);
        let patches = tape.input(&rows, patch_width);
        tape.linear_add(patches, self.patches, places)
    }

    /// Loss of the class row of every image and, while training, its gradient; the bias of the classifier has no part in it.
    pub fn loss(&self, tape: &mut Tape, images: &[&[f32]], labels: &[u32]) -> LossSum {
        let start = tape.mark();
        let mut x = self.embed(tape, images);
        for block in &self.blocks {
            x = block.forward(tape, x, None);
        }
        let normed = tape.norm(&x, &self.norm);
        let others = std::iter::repeat_n(NO_TARGET, self.count());
        let targets: Vec<u32> =
            labels.iter().flat_map(|label| std::iter::once(*label).chain(others.clone())).collect();
        let scale = 1.0 / labels.len().max(1) as f32;
        let sum = tape.cross_entropy(&normed, self.classifier.weight, &targets, scale, None);
        tape.backward_to(start);
        sum
    }

    /// As [`Self::loss`] on a tape of its own, adding to `gradients`.
    pub fn gradients(
        &self,
        gradients: &mut Gradients,
        arena: &mut Arena,
        images: &[&[f32]],
        labels: &[u32],
    ) -> LossSum {
        let layout = layout(images.len(), self.count() + 1);
        let mut tape = Tape::training(&self.params, gradients, arena, &layout);
        self.loss(&mut tape, images, labels)
    }

    /// Writes `config.json` and `model.safetensors` as transformers reads them.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        fs_err::create_dir_all(folder)?;
        let config = &self.config;
        let labels = |flip: bool| -> serde_json::Map<String, serde_json::Value> {
            let pair = |class: usize| match flip {
                false => (class.to_string(), format!("LABEL_{class}").into()),
                true => (format!("LABEL_{class}"), class.into()),
            };
            (0..config.classes).map(pair).collect()
        };
        let json = serde_json::json!({
            "architectures": ["ViTForImageClassification"],
            "attention_probs_dropout_prob": 0.0,
            "hidden_act": "gelu",
            "hidden_dropout_prob": 0.0,
            "hidden_size": config.width,
            "id2label": labels(false),
            "image_size": config.side,
            "intermediate_size": config.ffn,
            "label2id": labels(true),
            "layer_norm_eps": f64::from(config.epsilon),
            "model_type": "vit",
            "num_attention_heads": config.heads,
            "num_channels": config.channels,
            "num_hidden_layers": config.layers,
            "patch_size": config.patch,
            "qkv_bias": true,
            "torch_dtype": "float32",
        });
        write_file(&folder.join("config.json"), format!("{json:#}\n").as_bytes())?;
        let (width, zeros) = (config.width, vec![0.0; config.width]);
        let table = self.params.data(self.places.table);
        let positions: Vec<f32> = zeros.iter().chain(&table[width..]).copied().collect();
        let positions_shape = [1, self.count() + 1, width];
        let (class_shape, bias_shape) = ([1, 1, width], [width]);
        let mut tensors: Vec<(&str, &[usize], &[f32])> = vec![
            ("vit.embeddings.cls_token", &class_shape, &table[..width]),
            ("vit.embeddings.position_embeddings", &positions_shape, &positions),
            ("vit.embeddings.patch_embeddings.projection.bias", &bias_shape, &zeros),
        ];
        let rest = self.params.iter().filter(|(_, param)| param.name != PLACES);
        tensors.extend(
            rest.map(|(_, param)| (param.name.as_str(), param.shape.as_slice(), param.data.as_slice())),
        );
        write_tensors(&folder.join("model.safetensors"), &tensors, &[("format", "pt")])
    }
}

/// Name of the table of places, which is split up when it is written.
const PLACES: &str = "places";

impl Taps for Vit {
    fn params(&self) -> &Params {
        &self.params
    }

    fn sizes(&self) -> TapSizes {
        let VitConfig { layers, width, ffn, classes: outputs, .. } = self.config;
        block_sizes(layers, width, ffn, outputs)
    }

    fn rows(&self, input: &Input) -> usize {
        match input {
            Input::Image(_) => self.count() + 1,
            _ => 0,
        }
    }

    fn run(&self, arena: &mut Arena, inputs: &[Input], hook: &mut Hook) -> Result<()> {
        let VitConfig { side, channels, .. } = self.config;
        let mut images: Vec<&[f32]> = Vec::with_capacity(inputs.len());
        for input in inputs {
            match input {
                Input::Image(image) if image.len() == channels * side * side => images.push(image),
                _ => return Err(Error::input(format!("a ViT reads images of {channels} x {side} x {side}"))),
            }
        }
        let layout = layout(inputs.len(), same_rows(self, inputs)?);
        let mut tape = Tape::evaluation(&self.params, arena, &layout);
        let mut x = self.embed(&mut tape, &images);
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
        let normed = tape.norm(&x, &self.norm);
        let out = tape.linear(normed, &[self.classifier]);
        logits.clear();
        logits.extend_from_slice(tape.value(&out));
        tape.forget();
    }
}
