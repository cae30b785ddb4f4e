//! Images as examples: a class asks for the grey levels of an image, row by row.

use data::Example;
use data::random::Random;
use lens::input::{ImageFormat, Images};
use model::taps::Input;

use crate::arguments::ImageGrid;

/// Finer than any image's own.
const MOST_LEVELS: usize = 256;

/// More cells than contexts have room for.
const MOST_SIDE: usize = 128;

/// Each class up to the largest has a token, whether it has images or not: more are names that happen to be numbers.
const LARGEST_CLASS: usize = 65_535;

impl ImageGrid {
    /// The images as examples to train on and to test on, and how many numbers they are written in: grey levels, then classes.
    pub fn examples(&self) -> anyhow::Result<(Vec<Example>, Vec<Example>, usize)> {
        let (side, levels) = (self.side, self.levels);
        anyhow::ensure!((2..=MOST_SIDE).contains(&side), "--side {side}: give 2 to {MOST_SIDE}");
        anyhow::ensure!((2..=MOST_LEVELS).contains(&levels), "--levels {levels}: give 2 to {MOST_LEVELS}");
        let format = ImageFormat { side, channels: 1, mean: vec![0.0], deviation: vec![1.0] };
        let mut images = Images::open(&self.images, format)?;
        let (there, train, test) = (images.count(), self.drawn.train, self.drawn.test);
        anyhow::ensure!(
            train + test <= there,
            "{} has {there} images: --train {train} and --test {test} are more",
            self.images.display()
        );
        let (mut examples, mut classes) = (Vec::with_capacity(there), 1);
        for item in &mut images {
            let item = item?;
            let Input::Image(grey) = item.input else { continue };
            let class = item.targets[0].ok_or_else(|| {
                anyhow::anyhow!(
                    "{}: image {} has no class: put the file of labels (idx1) beside that of images, or images into folders named \
                     0, 1, ...",
                    self.images.display(),
                    examples.len() + 1
                )
            })? as usize;
            anyhow::ensure!(
                class <= LARGEST_CLASS,
                "{}: there is a class {class}: number the folders of classes from 0 to {LARGEST_CLASS}",
                self.images.display()
            );
            classes = classes.max(class + 1);
            examples.push(example(&grey, class, levels));
        }
        Random::new(self.drawn.seed, IMAGE_STREAM).shuffle(&mut examples);
        examples.truncate(train + test);
        let held_out = examples.split_off(train);
        Ok((examples, held_out, levels + classes))
    }
}

/// Decides which images are held out.
const IMAGE_STREAM: u64 = u64::MAX - 2;

/// `class=level,level,...`, where classes are the numbers behind the levels.
fn example(grey: &[f32], class: usize, levels: usize) -> Example {
    let level = |value: &f32| ((value * levels as f32) as usize).min(levels - 1).to_string();
    let answer: Vec<String> = grey.iter().map(level).collect();
    Example { prompt: format!("{}{}", levels + class, data::tasks::PROMPT_END), answer: answer.join(",") }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::arguments::{AnsweredTask, Arguments, DataVerb, Task, Verb};

    #[test]
    fn a_folder_whose_number_is_no_class_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for class in ["0", "4000000000"] {
            fs_err::create_dir(folder.path().join(class)).unwrap();
            image::GrayImage::new(2, 2).save(folder.path().join(class).join("a.png")).unwrap();
        }
        let typed =
            ["sakiyomi", "data", "generate", "image-grid", "--output", "none", "--train", "1", "--test", "1"];
        let images = [std::ffi::OsStr::new("--images"), folder.path().as_os_str()];
        let typed = typed.iter().map(std::ffi::OsStr::new).chain(images);
        let Verb::Data { verb: DataVerb::Generate { task } } = Arguments::parse_from(typed).verb else {
            panic!("another verb")
        };
        let Task::Answered(AnsweredTask::ImageGrid(grid)) = task else { panic!("another task") };
        let refusal = grid.examples().unwrap_err().to_string();
        assert!(
            refusal.ends_with("there is a class 4000000000: number the folders of classes from 0 to 65535"),
            "{refusal}"
        );
    }

    #[test]
    fn grey_values_become_levels() {
        let found = example(&[0.0, 0.06, 0.07, 0.5, 1.0], 3, 16);
        assert_eq!((found.prompt.as_str(), found.answer.as_str()), ("19=", "0,0,1,8,15"));
    }
}
