//! `sakiyomi generate --grid-sheet`: images that a model draws, cell by cell, as one sheet: a row of images for each class.

use std::io::Cursor;
use std::ops::ControlFlow;
use std::path::Path;

use data::tasks::PROMPT_END;
use decode::{Batch, DecodeSettings, Ending, SamplingSettings};
use image::{ImageFormat, Rgb, RgbImage};
use serde::Serialize;

use crate::arguments::{DraftSource, Generate, GridSheet};
use crate::commands::checkpoint::Loaded;
use crate::commands::new_folder::absent;
use crate::failure::Verdict;
use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::progress::Counter;

/// Pixels of a cell, each way.
const CELL: usize = 4;

/// Pixels between images.
const GAP: usize = 4;

/// More images than one looks at.
const MOST_SAMPLES: usize = 100;

/// More cells than contexts have room for.
const MOST_SIDE: usize = 128;

/// The finest grey that a pixel has.
const MOST_LEVELS: usize = 256;

/// Paints what is no grey level.
const NO_LEVEL: Rgb<u8> = Rgb([200, 30, 30]);

const GROUND: Rgb<u8> = Rgb([90, 110, 140]);

#[derive(Serialize)]
struct Drawn {
    file: String,
    classes: usize,
    samples: usize,
    side: usize,
    /// Cells for which the model gave no grey level, or nothing since it had ended.
    cells_without_level: usize,
}

/// Draws the sheet that `generate` asks for and writes it to `file`.
pub fn run(generate: &Generate, file: &Path, threads: usize, output: Output) -> anyhow::Result<Verdict> {
    let GridSheet { side, levels, samples, .. } = generate.sheet;
    for (flag, value, least, most) in [
        ("--side", side, 2, MOST_SIDE),
        ("--levels", levels, 2, MOST_LEVELS),
        ("--samples", samples, 1, MOST_SAMPLES),
    ] {
        anyhow::ensure!((least..=most).contains(&value), "{flag} {value}: give {least} to {most}");
    }
    let sampling = generate.sampling.settings();
    anyhow::ensure!(
        samples == 1 || !sampling.greedy(),
        "--grid-sheet without --temperature draws the same image {samples} times: give --temperature 1, or --samples 1"
    );
    absent(file)?;
    // Before minutes of work: a place where nothing can be written is told at once.
    let place = data::folder_of(file);
    anyhow::ensure!(
        place.is_dir(),
        "--grid-sheet {}: there is no folder {}",
        file.display(),
        place.display()
    );
    let loaded = Loaded::read_as(&generate.packing, &generate.checkpoint, threads)?;
    let numbers = Numbers::of(&loaded, levels)?;
    let interrupt = Interrupt::listen(None)?;
    let mut images = Vec::with_capacity(numbers.classes.len());
    let mut counter = Counter::new("drawing", numbers.classes.len());
    for (class, prompt) in numbers.classes.iter().enumerate() {
        let seed = sampling.seed.wrapping_add((class * samples) as u64);
        images.push(draw(
            &loaded,
            prompt,
            side * side,
            samples,
            SamplingSettings { seed, ..sampling },
            &interrupt,
        )?);
        anyhow::ensure!(!interrupt.raised(), "stopped, and {} was not written", file.display());
        counter.set(class + 1, output, String::new);
    }
    counter.finish();
    let cells = images.iter().flatten().flatten();
    let level_cells = cells.filter(|token| numbers.level(**token).is_some()).count();
    let drawn = Drawn {
        file: file.display().to_string(),
        classes: images.len(),
        samples,
        side,
        cells_without_level: images.len() * samples * side * side - level_cells,
    };
    let mut png = Cursor::new(Vec::new());
    paint(&images, side, &numbers).write_to(&mut png, ImageFormat::Png)?;
    data::write_whole(file, &png.into_inner())?;
    output.result(&drawn, || drawn.text())?;
    Ok(Verdict::Done)
}

/// Tokens of grey levels and of classes.
struct Numbers {
    /// By level.
    levels: Vec<u32>,
    /// The prompt of each class.
    classes: Vec<Vec<u32>>,
}

impl Numbers {
    /// As `data generate image-grid` writes them: levels are the numbers from 0, classes those behind them.
    fn of(loaded: &Loaded, levels: usize) -> anyhow::Result<Self> {
        let vocabulary = &loaded.checkpoint.vocabulary;
        let token = |number: usize| -> anyhow::Result<Option<u32>> {
            let text = number.to_string();
            let ids = vocabulary.encode(&text)?;
            Ok(if ids.len() == 1 && vocabulary.decode(&ids)? == text { Some(ids[0]) } else { None })
        };
        let mut known = Vec::new();
        while let Some(id) = token(known.len())? {
            known.push(id);
        }
        anyhow::ensure!(
            known.len() > levels,
            "{} numbers are tokens of this vocabulary, --levels {levels} and the classes behind them are more: is this a model of \
             images as `data generate image-grid` writes them?",
            known.len()
        );
        let prompt = |class| loaded.encode(&format!("{class}{PROMPT_END}"));
        let classes = (levels..known.len()).map(prompt).collect::<anyhow::Result<_>>()?;
        known.truncate(levels);
        Ok(Self { levels: known, classes })
    }

    fn level(&self, token: u32) -> Option<usize> {
        self.levels.iter().position(|&level| level == token)
    }
}

/// Tokens of `samples` images after `prompt`, up to `cells` of each.
fn draw(
    loaded: &Loaded,
    prompt: &[u32],
    cells: usize,
    samples: usize,
    sampling: SamplingSettings,
    interrupt: &Interrupt,
) -> anyhow::Result<Vec<Vec<u32>>> {
    let (positions, context) = (prompt.len() + cells, loaded.checkpoint.decoder.config.context);
    anyhow::ensure!(
        positions <= context,
        "a class and its image are {positions} tokens, more than the model's context of {context}: give a smaller --side"
    );
    let settings: Vec<DecodeSettings> = (0..samples)
        .map(|sample| DecodeSettings {
            max_new_tokens: cells,
            sampling: SamplingSettings { seed: sampling.seed.wrapping_add(sample as u64), ..sampling },
            end_tokens: loaded.end_tokens(),
            ..DecodeSettings::default()
        })
        .collect();
    let mut sinks: Vec<_> = settings
        .iter()
        .map(|_| {
            |_, _| match interrupt.raised() {
                true => ControlFlow::Break(Ending::Interrupted),
                false => ControlFlow::Continue(()),
            }
        })
        .collect();
    let mut target = loaded.target_drafting(positions, DraftSource::None)?;
    let mut together = Batch::new(&mut target, samples, samples)?;
    let mut images = vec![Vec::new(); samples];
    let mut of_place = vec![0; samples];
    for (sample, (settings, sink)) in settings.iter().zip(&mut sinks).enumerate() {
        of_place[together.add(prompt, settings, sink)?] = sample;
    }
    while !together.is_empty() {
        for (place, decoded) in together.step()? {
            images[of_place[place]] = decoded.ids;
        }
    }
    Ok(images)
}

/// A row for each class, a column for each sample.
fn paint(images: &[Vec<Vec<u32>>], side: usize, numbers: &Numbers) -> RgbImage {
    let pitch = side * CELL + GAP;
    let columns = images.first().map_or(0, Vec::len);
    let (width, height) = (columns * pitch + GAP, images.len() * pitch + GAP);
    RgbImage::from_fn(width as u32, height as u32, |x, y| {
        let place = |pixel: u32| {
            let (image, inside) = (pixel as usize / pitch, pixel as usize % pitch);
            (inside >= GAP).then(|| (image, (inside - GAP) / CELL))
        };
        let (Some((sample, column)), Some((class, row))) = (place(x), place(y)) else { return GROUND };
        let level = images[class][sample].get(row * side + column).and_then(|&token| numbers.level(token));
        level.map_or(NO_LEVEL, |level| Rgb([(level * 255 / (numbers.levels.len() - 1)) as u8; 3]))
    })
}

impl Drawn {
    fn text(&self) -> String {
        let Self { file, classes, samples, side, cells_without_level } = self;
        let without = match cells_without_level {
            0 => String::new(),
            some => format!("; {some} cells have no grey level, and are red"),
        };
        format!(
            "wrote {file}: {classes} classes, a row each, {samples} images of {side} x {side} cells in a row{without}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_painted_in_their_places() {
        let numbers = Numbers { levels: vec![7, 8, 9], classes: Vec::new() };
        // Two classes of one image, the second of which ends early and has a cell that is no level.
        let sheet = paint(&[vec![vec![7, 8, 9, 7]], vec![vec![9, 1, 8]]], 2, &numbers);
        assert_eq!((sheet.width(), sheet.height()), (16, 28));
        let at = |x: usize, y: usize| sheet.get_pixel((GAP + x) as u32, (GAP + y) as u32).0;
        let (second, grey) = (2 * CELL + GAP, |level: u8| [level; 3]);
        assert_eq!(
            [at(0, 0), at(CELL, 0), at(3, CELL), at(CELL, CELL)].map(|pixel| pixel[0]),
            [0, 127, 255, 0]
        );
        assert_eq!((at(0, second), at(CELL, second)), (grey(255), NO_LEVEL.0));
        assert_eq!((at(0, second + CELL), at(CELL, second + 2 * CELL - 1)), (grey(127), NO_LEVEL.0));
        assert_eq!((sheet.get_pixel(0, 9).0, at(0, 2 * CELL)), (GROUND.0, GROUND.0));
    }
}
