//! A model and what it looks at, made ready.

use std::path::Path;

use anyhow::Context;
use data::{Source, Vocabulary};
use lens::input::{ImageFormat, Images, Masking, Sounds, Text, TokenReader};
use lens::{Item, Look, Saturation, Seen, look};
use model::encoder::{Bert, Keyword, Kind, Vit, Weights, Whisper, kind_of};
use model::taps::{DecoderTaps, Input, Taps};
use model::{Decoder, checkpoint};
use objective::{HeadTaps, ParallelHeads};
use tensor::Arena;
use train::Checkpoint;

use super::arguments::Subject as Arguments;
use crate::output::Output;
use crate::progress::Counter;

/// Tokens of a window of text, where the context is as long.
const LENGTH: usize = 256;

/// Longer documents of .txt files are cut, at a blank line where there is one: folds of the probe go by document.
const LONGEST_DOCUMENT_BYTES: usize = 4096;

/// Tokens that Whisper writes for a sound.
const WRITTEN: usize = 32;

/// What is looked at, one after the other.
pub type Items<'i> = dyn Iterator<Item = lens::Result<Item>> + 'i;

/// What was converted so far, in a line.
pub type Converted<'c> = dyn FnMut() -> Option<String> + 'c;

/// A model that can be looked into.
pub struct Subject {
    pub kind: Kind,
    pub model: Model,
    /// Tokens to text; for models of text.
    pub reader: TokenReader,
    /// The heads beyond the first, where a decoder's checkpoint has any.
    pub heads: Option<Box<Checkpoint>>,
}

/// The kinds of models, kept apart because each has its own way from files to inputs.
pub enum Model {
    Decoder(Box<DecoderTaps>),
    Bert(Box<Bert>),
    Vit(Box<Vit>, ImageFormat),
    Whisper(Box<Whisper>),
    Keyword(Box<Keyword>),
}

impl Model {
    pub fn taps(&self) -> &dyn Taps {
        match self {
            Self::Decoder(model) => &**model,
            Self::Bert(model) => &**model,
            Self::Vit(model, _) => &**model,
            Self::Whisper(model) => &**model,
            Self::Keyword(model) => &**model,
        }
    }
}

impl Subject {
    /// Reads the model, or draws its weights.
    pub fn load(arguments: &Arguments, random: Option<u64>, output: Output) -> anyhow::Result<Self> {
        let folder = &arguments.model;
        let weights = random.map_or(Weights::Stored, Weights::Random);
        let kind = kind_of(folder)?;
        let model = match kind {
            Kind::Decoder => Model::Decoder(Box::new(decoder(folder, random)?)),
            Kind::Bert => Model::Bert(Box::new(Bert::load(folder, weights)?)),
            Kind::Vit => {
                let model = Vit::load(folder, weights)?;
                let format = image_format(folder, &model)?;
                Model::Vit(Box::new(model), format)
            }
            Kind::Whisper => Model::Whisper(Box::new(Whisper::load(folder, weights)?)),
            Kind::Keyword => Model::Keyword(Box::new(Keyword::load(folder, weights)?)),
        };
        let reader = match (kind, checkpoint::present(&folder.join("tokenizer.json"))?) {
            (Kind::Vit | Kind::Keyword, _) => TokenReader::Bytes,
            (_, true) => TokenReader::Vocabulary(Vocabulary::load(folder)?),
            (_, false) => {
                let outputs = model.taps().sizes().outputs;
                anyhow::ensure!(
                    outputs >= 256,
                    "{}: no tokenizer.json, and {outputs} tokens are too few to take bytes for tokens",
                    folder.display()
                );
                output.remark(format!("{}: no tokenizer.json; bytes are taken for tokens", folder.display()));
                TokenReader::Bytes
            }
        };
        let with_heads =
            kind == Kind::Decoder && random.is_none() && checkpoint::present(&folder.join("mtp.json"))?;
        let checkpoint = with_heads.then(|| Checkpoint::load(folder).map(Box::new)).transpose()?;
        let heads = checkpoint.filter(|checkpoint| checkpoint.objective.heads().is_some());
        Ok(Self { kind, model, reader, heads })
    }

    /// The name of an output: a token's text, or a class.
    pub fn output_name(&self, output: u32) -> String {
        match &self.model {
            Model::Keyword(model) => model.config.labels.get(output as usize).cloned().unwrap_or_default(),
            Model::Vit(..) => output.to_string(),
            _ => self.reader.shown(output),
        }
    }

    /// What stands in the rows of an item that are read.
    pub fn row_names(&self, item: &Item) -> Vec<String> {
        let name = |row: &usize| match &item.input {
            Input::Tokens(tokens) | Input::Speech { tokens, .. } => self.reader.shown(tokens[*row]),
            Input::Image(_) => format!("image {}", item.group + 1),
            Input::Sound(_) => format!("sound {}", item.group + 1),
        };
        item.read.iter().map(name).collect()
    }

    /// Looks at the data through the head that predicts `depth` places ahead; gives what [`Self::look`] gives.
    pub fn look_through_head(
        &self,
        checkpoint: &Checkpoint,
        heads: &ParallelHeads,
        depth: usize,
        arguments: &Arguments,
        output: Output,
    ) -> anyhow::Result<(Saturation, Vec<f64>)> {
        let taps = HeadTaps::new(&checkpoint.decoder, &checkpoint.params, heads, depth);
        let (mut saturation, likeness) =
            self.look_by(&taps, arguments, false, output, &mut |_, _, _| Ok(()))?;
        // Rows of a text stand in order: what is true `depth` places ahead is what the row `depth - 1` further on is followed by.
        let targets: Vec<Option<u32>> = (0..saturation.decisions.len())
            .map(|row| {
                let ahead = saturation.decisions.get(row + depth - 1)?;
                (ahead.item == saturation.decisions[row].item).then_some(ahead.target)?
            })
            .collect();
        saturation.decisions.iter_mut().zip(targets).for_each(|(decision, target)| decision.target = target);
        Ok((saturation, likeness))
    }

    /// Looks at the data. `each` sees every chunk; gives what saturated and how alike neighbouring layers are.
    pub fn look(
        &self,
        arguments: &Arguments,
        states: bool,
        output: Output,
        each: &mut dyn FnMut(&Seen, &Saturation, usize) -> lens::Result<()>,
    ) -> anyhow::Result<(Saturation, Vec<f64>)> {
        self.look_by(self.model.taps(), arguments, states, output, each)
    }

    fn look_by(
        &self,
        taps: &dyn Taps,
        arguments: &Arguments,
        states: bool,
        output: Output,
        each: &mut dyn FnMut(&Seen, &Saturation, usize) -> lens::Result<()>,
    ) -> anyhow::Result<(Saturation, Vec<f64>)> {
        anyhow::ensure!(arguments.tokens > 0, "--tokens 0: give at least 1");
        let mut saturation = Saturation::new(taps.sizes().layers, arguments.choices)?;
        let settings = Look { choices: arguments.choices, states };
        let mut counter = Counter::new("looking", arguments.tokens);
        let mut remarks = Vec::new();
        let likeness = {
            let mut chunk = |seen: &Seen| {
                let begin = saturation.add(seen);
                counter.set(saturation.decisions.len(), output, String::new);
                each(seen, &saturation, begin)
            };
            self.with_items(
                arguments,
                &mut |items, converted| {
                    let mut bounded = Bounded { items, left: arguments.tokens };
                    let likeness = look(taps, &mut bounded, settings, &mut chunk);
                    remarks.extend(converted());
                    likeness
                },
                output,
            )?
        };
        counter.finish();
        remarks.iter().for_each(|remark| output.remark(remark));
        anyhow::ensure!(!saturation.decisions.is_empty(), "{}: nothing to look at", arguments.data.display());
        Ok((saturation, likeness.means()))
    }

    /// Makes items of the files and hands them to `with`.
    pub fn with_items<T>(
        &self,
        arguments: &Arguments,
        with: &mut dyn FnMut(&mut Items, &mut Converted) -> lens::Result<T>,
        output: Output,
    ) -> anyhow::Result<T> {
        let path = &arguments.data;
        anyhow::ensure!(path.exists(), "no such file or folder: {}", path.display());
        let source = || Source {
            paths: vec![path.clone()],
            field: arguments.field.clone(),
            longest_document_bytes: LONGEST_DOCUMENT_BYTES,
            ..Source::default()
        };
        let nothing: &mut Converted = &mut || None;
        Ok(match &self.model {
            Model::Decoder(model) => {
                let length = self.length(arguments, model.decoder.config.context)?;
                let mut text = Text::new(&source(), self.reader.clone(), length, None, arguments.seed)?;
                with(&mut text, nothing)?
            }
            Model::Bert(model) => {
                let length = self.length(arguments, model.config.context)?;
                let masking = self.masking(output);
                let mut text =
                    Text::new(&source(), self.reader.clone(), length, Some(masking), arguments.seed)?;
                with(&mut text, nothing)?
            }
            Model::Vit(_, format) => {
                let images = std::cell::RefCell::new(Images::open(path, format.clone())?);
                let mut items = std::iter::from_fn(|| (&mut *images.borrow_mut()).next());
                with(&mut items, &mut || images.borrow().converted())?
            }
            Model::Keyword(model) => {
                let sounds = std::cell::RefCell::new(Sounds::open(path, model.config.sample_rate)?);
                let mut group = 0;
                let mut items =
                    std::iter::from_fn(|| {
                        let wave = sounds.borrow_mut().next()?;
                        group += 1;
                        Some(wave.map(|wave| {
                            Item::classified(Input::Sound(model.features(&wave)), None, group - 1)
                        }))
                    });
                with(&mut items, &mut || sounds.borrow().converted())?
            }
            Model::Whisper(model) => {
                let sounds = std::cell::RefCell::new(Sounds::open(path, Whisper::SAMPLE_RATE)?);
                let (mut arena, mut group) = (Arena::default(), 0);
                let written = arguments.length.unwrap_or(WRITTEN).clamp(1, model.config.context.1);
                let mut items = std::iter::from_fn(|| {
                    let wave = sounds.borrow_mut().next()?;
                    group += 1;
                    Some(wave.and_then(|wave| speech(model, &mut arena, &wave, written, group - 1)))
                });
                with(&mut items, &mut || sounds.borrow().converted())?
            }
        })
    }

    fn length(&self, arguments: &Arguments, context: usize) -> anyhow::Result<usize> {
        let length = arguments.length.unwrap_or(LENGTH.min(context));
        anyhow::ensure!(length <= context, "--length {length}: the model's context is {context}");
        Ok(length)
    }

    fn masking(&self, output: Output) -> Masking {
        let mask = self.reader.named("[MASK]");
        if mask.is_none() {
            output.remark("the vocabulary has no [MASK]; token 0 stands in for it");
        }
        let around = self.reader.named("[CLS]").zip(self.reader.named("[SEP]"));
        Masking { mask: mask.unwrap_or(0), around }
    }
}

/// A sound and what Whisper writes for it; each token but the last is read, and decides the next.
fn speech(
    model: &Whisper,
    arena: &mut Arena,
    wave: &[f32],
    written: usize,
    group: usize,
) -> lens::Result<Item> {
    let memory = model.encode(arena, &model.features(wave), &mut |_, _| {})?;
    let mut tokens = vec![model.config.start];
    tokens.extend(model.greedy(arena, &memory, &tokens, written)?);
    tokens.pop();
    let read: Vec<usize> = (0..tokens.len()).collect();
    let targets = vec![None; tokens.len()];
    Ok(Item { input: Input::Speech { memory, tokens }, read, targets, group })
}

fn decoder(folder: &Path, random: Option<u64>) -> anyhow::Result<DecoderTaps> {
    let Some(seed) = random else { return Ok(DecoderTaps::load(folder)?) };
    let (decoder, params) = Decoder::initialise(&checkpoint::read_config(folder)?, seed)?;
    Ok(DecoderTaps { decoder, params })
}

/// The model's sizes, with the colours of `preprocessor_config.json` where it is there; else from -1 to 1, as ViT's own.
fn image_format(folder: &Path, model: &Vit) -> anyhow::Result<ImageFormat> {
    let file = folder.join("preprocessor_config.json");
    let mut format = ImageFormat {
        side: model.config.side,
        channels: model.config.channels,
        mean: vec![0.5],
        deviation: vec![0.5],
    };
    if !file.is_file() {
        return Ok(format);
    }
    let value: serde_json::Value =
        serde_json::from_slice(&fs_err::read(&file)?).with_context(|| file.display().to_string())?;
    let list = |key: &str| -> Option<Vec<f32>> {
        let numbers = value.get(key)?.as_array()?;
        numbers.iter().map(|number| number.as_f64().map(|number| number as f32)).collect()
    };
    if let (Some(mean), Some(deviation)) = (list("image_mean"), list("image_std")) {
        let usable = !mean.is_empty() && !deviation.is_empty() && deviation.iter().all(|value| *value > 0.0);
        anyhow::ensure!(
            usable,
            "{}: image_mean and image_std must be lists of numbers, the latter above 0",
            file.display()
        );
        (format.mean, format.deviation) = (mean, deviation);
    }
    Ok(format)
}

/// Items until so many rows were read.
struct Bounded<'i> {
    items: &'i mut Items<'i>,
    left: usize,
}

impl Iterator for Bounded<'_> {
    type Item = lens::Result<Item>;

    fn next(&mut self) -> Option<lens::Result<Item>> {
        if self.left == 0 {
            return None;
        }
        let mut item = self.items.next()?;
        if let Ok(item) = &mut item {
            let kept = item.read.len().min(self.left);
            item.read.truncate(kept);
            item.targets.truncate(kept);
            self.left -= kept;
        }
        Some(item)
    }
}
