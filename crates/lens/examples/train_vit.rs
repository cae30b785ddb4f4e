//! Trains a small ViT on the images of an idx file, for the lens to look into.
//!
//!     cargo run --release -p sakiyomi-lens --example train_vit -- IMAGES.gz FOLDER [steps]
//!
//! The last fifth of the images is held out and written beside the model as `heldout-images-idx3-ubyte` with its labels, so that
//! `sakiyomi lens saturation FOLDER --data FOLDER/heldout-images-idx3-ubyte` looks at nothing that was learnt.

use std::path::{Path, PathBuf};

use lens::input::{ImageFormat, Images};
use lens::{Error, Item, Result};
use model::encoder::{Vit, VitConfig};
use model::taps::Input;
use sakiyomi_lens as lens;
use tensor::{AdamW, Arena, Decay, Gradients, Optimiser, random};

const BATCH: usize = 64;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let usage = || Error::NothingLeft("give IMAGES.gz FOLDER [steps]".to_owned());
    let images = PathBuf::from(arguments.first().ok_or_else(usage)?);
    let folder = PathBuf::from(arguments.get(1).ok_or_else(usage)?);
    let steps = arguments.get(2).and_then(|steps| steps.parse().ok()).unwrap_or(600);

    let config = VitConfig {
        width: 48,
        layers: 8,
        heads: 4,
        ffn: 128,
        side: 28,
        patch: 7,
        channels: 1,
        classes: 10,
        epsilon: 1e-6,
    };
    let format = ImageFormat { side: 28, channels: 1, mean: vec![0.5], deviation: vec![0.5] };
    let mut source = Images::open(&images, format)?;
    let items: Vec<Item> = (&mut source).collect::<Result<_>>()?;
    let held_out = items.len() - items.len() / 5;
    let mut model = Vit::random(config, 1)?;
    train(&mut model, &items[..held_out], steps);
    model.save(&folder)?;
    write_idx(&folder, &items[held_out..])
}

fn pixels(item: &Item) -> &[f32] {
    match &item.input {
        Input::Image(pixels) => pixels,
        _ => &[],
    }
}

fn train(model: &mut Vit, items: &[Item], steps: usize) {
    let (mut gradients, mut arena) = (Gradients::new(&model.params), Arena::default());
    let mut optimiser = Optimiser::new(&model.params, Decay::Matrices);
    let mut rng = random::seeded(1, 50);
    for step in 0..steps {
        let batch: Vec<&Item> =
            (0..BATCH).map(|_| &items[(random::uniform(&mut rng) * items.len() as f32) as usize]).collect();
        let images: Vec<&[f32]> = batch.iter().map(|item| pixels(item)).collect();
        let labels: Vec<u32> = batch.iter().map(|item| item.targets[0].unwrap_or(0)).collect();
        gradients.clear();
        model.gradients(&mut gradients, &mut arena, &images, &labels);
        let warmth = ((step + 1) as f64 / 40.0).min(1.0);
        let cooling = 0.5 + 0.5 * (std::f64::consts::PI * step as f64 / steps as f64).cos();
        let rule = AdamW { learning_rate: 0.002 * warmth * cooling, ..AdamW::default() };
        optimiser.update(&mut model.params, &gradients, rule, (1.0 / gradients.norm().max(1.0)) as f32);
    }
}

fn write_idx(folder: &Path, items: &[Item]) -> Result<()> {
    let count = (items.len() as u32).to_be_bytes();
    let mut images = [&[0, 0, 8, 3], &count[..], &28u32.to_be_bytes(), &28u32.to_be_bytes()].concat();
    let mut labels = [&[0, 0, 8, 1], &count[..]].concat();
    for item in items {
        images.extend(pixels(item).iter().map(|pixel| ((pixel * 0.5 + 0.5) * 255.0).round() as u8));
        labels.push(item.targets[0].unwrap_or(0) as u8);
    }
    fs_err::write(folder.join("heldout-images-idx3-ubyte"), images)?;
    Ok(fs_err::write(folder.join("heldout-labels-idx1-ubyte"), labels)?)
}
