//! BERT with its masked-token head (Devlin et al., 1810.04805).

use std::path::Path;

use tensor::{Arena, Linear, Norm, Ops, ParamId, Params, Tape};

use super::Weights;
use super::block::{EncoderBlock, Placement, block_sizes};
use super::build::{BlockNames, BlockSizes, Builder};
use super::folder::{Reader, plain_activation};
use crate::error::{Error, Result};
use crate::taps::{Hook, Input, TapSizes, Taps, check_tokens, layout, same_rows};

/// Sizes of a BERT.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BertConfig {
    /// Tokens it knows.
    pub vocabulary: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Blocks.
    pub layers: usize,
    /// Heads of attention.
    pub heads: usize,
    /// Inner width of the feed-forward part.
    pub ffn: usize,
    /// Positions.
    pub context: usize,
    /// Kinds of segments.
    pub types: usize,
    /// Added to variances in norms.
    pub epsilon: f32,
}

/// A BERT and its parameters.
pub struct Bert {
    /// Its sizes.
    pub config: BertConfig,
    params: Params,
    words: ParamId,
    positions: ParamId,
    types: ParamId,
    norm: Norm,
    blocks: Vec<EncoderBlock>,
    transform: Linear,
    transform_norm: Norm,
    unembedding: Linear,
}

impl Bert {
    /// Reads the model in `folder`.
    ///
    /// # Errors
    /// Names what is missing, damaged or not supported; a model without the masked-token head is refused.
    pub fn load(folder: &Path, weights: Weights) -> Result<Self> {
        let reader = Reader::open(folder)?;
        let config = reader.read(|fields| {
            reader.class(fields, &["BertForPreTraining", "BertForMaskedLM"])?;
            fields.one_of("hidden_act", &["gelu"])?;
            fields.one_of("position_embedding_type", &["absolute"])?;
            if !fields.flag_or("tie_word_embeddings", true)? {
                return Err(fields.unsupported("tie_word_embeddings", "supported is true"));
            }
            ["classifier_dropout", "gradient_checkpointing"].iter().for_each(|key| fields.ignore(key));
            Ok(BertConfig {
                vocabulary: fields.required_size("vocab_size")?,
                width: fields.required_size("hidden_size")?,
                layers: fields.required_size("num_hidden_layers")?,
                heads: fields.required_size("num_attention_heads")?,
                ffn: fields.required_size("intermediate_size")?,
                context: fields.required_size("max_position_embeddings")?,
                types: fields.size("type_vocab_size")?.unwrap_or(2),
                epsilon: fields.number("layer_norm_eps")?.unwrap_or(1e-12) as f32,
            })
        })?;
        reader.check(
            config.width,
            config.heads,
            config.layers,
            &[config.vocabulary, config.ffn, config.context],
        )?;
        Self::build(config, Builder::new(folder, None, weights)?)
    }

    fn build(config: BertConfig, mut build: Builder) -> Result<Self> {
        let BertConfig { vocabulary, width, ffn, epsilon, .. } = config;
        let embeddings = "bert.embeddings";
        let words = build.weight(&format!("{embeddings}.word_embeddings.weight"), &[vocabulary, width])?;
        let positions =
            build.weight(&format!("{embeddings}.position_embeddings.weight"), &[config.context, width])?;
        let types =
            build.weight(&format!("{embeddings}.token_type_embeddings.weight"), &[config.types, width])?;
        let norm = build.norm(&format!("{embeddings}.LayerNorm"), width, epsilon)?;
        let mut blocks = Vec::new();
        for layer in 0..config.layers {
            let at = format!("bert.encoder.layer.{layer}");
            blocks.push(build.block(
                &BlockNames {
                    attention_norm: format!("{at}.attention.output.LayerNorm"),
                    attention: format!("{at}.attention.self"),
                    norm: format!("{at}.output.LayerNorm"),
                    at,
                },
                &BlockSizes { placement: Placement::Post, width, ffn, heads: config.heads, epsilon },
            )?);
        }
        let transform = build.linear("cls.predictions.transform.dense", width, width, true)?;
        let transform_norm = build.norm("cls.predictions.transform.LayerNorm", width, epsilon)?;
        let bias = build.bias("cls.predictions.bias", vocabulary)?;
        let unembedding = Linear { weight: words, bias: Some(bias) };
        // Buffers, copies of tied tensors, and the head that judges pairs of sentences.
        let params = build.finish(|name| {
            name.starts_with("bert.pooler.")
                || name.starts_with("cls.seq_relationship.")
                || name.starts_with("cls.predictions.decoder.")
                || name == "bert.embeddings.position_ids"
        })?;
        Ok(Self {
            config,
            params,
            words,
            positions,
            types,
            norm,
            blocks,
            transform,
            transform_norm,
            unembedding,
        })
    }

    /// As [`Taps::run`] for one text with the kind of segment of each token.
    ///
    /// # Errors
    /// When there are too many tokens, or unknown ones.
    pub fn run_segments(
        &self,
        arena: &mut Arena,
        tokens: &[u32],
        types: &[u32],
        hook: &mut Hook,
    ) -> Result<()> {
        check_tokens(tokens, self.config.vocabulary, self.config.context)?;
        if types.len() != tokens.len() || types.iter().any(|kind| *kind as usize >= self.config.types) {
            return Err(Error::input("kinds of segments that the model does not have"));
        }
        self.run_rows(arena, 1, tokens, types, hook);
        Ok(())
    }

    fn run_rows(&self, arena: &mut Arena, batch: usize, tokens: &[u32], types: &[u32], hook: &mut Hook) {
        let width = self.config.width;
        let layout = layout(batch, tokens.len() / batch.max(1));
        let mut embedded = vec![0.0; tokens.len() * width];
        let mut part = embedded.clone();
        kernels::embedding::gather(self.params.data(self.words), width, tokens, &mut embedded);
        for (table, rows) in [(self.positions, layout.positions.as_slice()), (self.types, types)] {
            kernels::embedding::gather(self.params.data(table), width, rows, &mut part);
            kernels::vector::add_assign(&mut embedded, &part);
        }
        let mut tape = Tape::evaluation(&self.params, arena, &layout);
        let summed = tape.input(&embedded, width);
        let mut x = tape.norm(&summed, &self.norm);
        for (layer, block) in self.blocks.iter().enumerate() {
            x = block.forward(&mut tape, x, None);
            hook(layer, tape.value_mut(&x));
        }
        tape.forget();
    }
}

impl Taps for Bert {
    fn params(&self) -> &Params {
        &self.params
    }

    fn sizes(&self) -> TapSizes {
        let BertConfig { layers, width, ffn, vocabulary: outputs, .. } = self.config;
        block_sizes(layers, width, ffn, outputs)
    }

    fn rows(&self, input: &Input) -> usize {
        match input {
            Input::Tokens(tokens) => tokens.len(),
            _ => 0,
        }
    }

    fn run(&self, arena: &mut Arena, inputs: &[Input], hook: &mut Hook) -> Result<()> {
        let mut tokens = Vec::new();
        for input in inputs {
            let Input::Tokens(part) = input else { return Err(Error::input("BERT reads tokens")) };
            check_tokens(part, self.config.vocabulary, self.config.context)?;
            tokens.extend_from_slice(part);
        }
        same_rows(self, inputs)?;
        self.run_rows(arena, inputs.len(), &tokens, &vec![0; tokens.len()], hook);
        Ok(())
    }

    fn read_out(&self, arena: &mut Arena, states: &[f32], logits: &mut Vec<f32>) {
        let layout = layout(1, states.len() / self.config.width);
        let mut tape = Tape::evaluation(&self.params, arena, &layout);
        let x = tape.input(states, self.config.width);
        let x = tape.linear(x, &[self.transform]);
        let x = plain_activation(&mut tape, x);
        let x = tape.norm(&x, &self.transform_norm);
        let out = tape.linear(x, &[self.unembedding]);
        logits.clear();
        logits.extend_from_slice(tape.value(&out));
        tape.forget();
    }
}
