//! Images: PNG and JPEG files, in folders named after their classes or not, and idx files as MNIST comes in.

use std::io::Read;
use std::path::{Path, PathBuf};

use image::imageops::FilterType;
use image::{DynamicImage, GrayImage};
use model::taps::Input;

use super::{counted, files};
use crate::error::{Error, Result};
use crate::item::Item;

/// What a model wants to see.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageFormat {
    /// Rows and columns.
    pub side: usize,
    /// Colours: 1 or 3.
    pub channels: usize,
    /// What is taken from each colour (from 0 to 1), and what the rest is divided by.
    pub mean: Vec<f32>,
    /// See `mean`.
    pub deviation: Vec<f32>,
}

/// Images, one after the other.
pub struct Images {
    format: ImageFormat,
    source: Source,
    next: usize,
    resized: usize,
    recoloured: usize,
}

enum Source {
    Files { files: Vec<PathBuf>, classes: Vec<Option<u32>> },
    Idx { pixels: Vec<u8>, rows: usize, columns: usize, labels: Option<Vec<u8>> },
}

/// An idx file that takes more memory is no set of small images.
const MOST_IDX_BYTES: u64 = 2 << 30;

/// Sides of images that are decoded, at most.
const MOST_SIDE: u32 = 16_384;

impl Images {
    /// The images at `path`: a file, a folder of PNG or JPEG files (subfolders are classes where their names are numbers), or an idx
    /// file, beside which its labels are looked for.
    ///
    /// # Errors
    /// When there is none that can be read.
    pub fn open(path: &Path, format: ImageFormat) -> Result<Self> {
        if format.channels != 1 && format.channels != 3 {
            let problem = format!("the model wants {} colours; images have 1 or 3", format.channels);
            return Err(Error::setting("channels", problem));
        }
        let named = |path: &Path, word: &str| {
            path.file_name().is_some_and(|name| name.to_string_lossy().contains(word))
        };
        if named(path, "idx1") && path.is_file() {
            let problem = "holds labels: name the file of images (idx3), beside which they are found";
            return Err(Error::file(path, problem));
        }
        let idx = |path: &Path| named(path, "idx3");
        let in_folder = || -> Option<PathBuf> {
            let mut entries: Vec<PathBuf> =
                fs_err::read_dir(path).ok()?.filter_map(|entry| Some(entry.ok()?.path())).collect();
            entries.sort();
            entries.into_iter().find(|path| idx(path))
        };
        let source = match if idx(path) { Some(path.to_owned()) } else { in_folder() } {
            Some(file) => Source::idx(&file)?,
            None => {
                let files = files(path, &["png", "jpg", "jpeg"], "images")?;
                let class = |file: &PathBuf| file.parent()?.file_name()?.to_str()?.parse().ok();
                Source::Files { classes: files.iter().map(class).collect(), files }
            }
        };
        Ok(Self { format, source, next: 0, resized: 0, recoloured: 0 })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        match &self.source {
            Source::Files { files, .. } => files.len(),
            Source::Idx { pixels, rows, columns, .. } => pixels.len() / (rows * columns).max(1),
        }
    }

    /// What was done to those that were read so far, in a line; `None` if nothing.
    pub fn converted(&self) -> Option<String> {
        let side = self.format.side;
        let resized = counted(self.resized, self.next, "images", &format!("resized to {side} x {side}"));
        let colours = if self.format.channels == 1 { "made grey" } else { "given three colours" };
        let recoloured = counted(self.recoloured, self.next, "images", colours);
        let both: Vec<String> = resized.into_iter().chain(recoloured).collect();
        (!both.is_empty()).then(|| both.join(", "))
    }

    fn read(&mut self, index: usize) -> Result<Item> {
        let (image, class) = match &self.source {
            Source::Files { files, classes } => (decode(&files[index])?, classes[index]),
            Source::Idx { pixels, rows, columns, labels } => {
                let part = pixels[index * rows * columns..(index + 1) * rows * columns].to_vec();
                let grey = GrayImage::from_raw(*columns as u32, *rows as u32, part)
                    .expect("as many pixels as rows and columns say");
                (DynamicImage::ImageLuma8(grey), labels.as_ref().map(|labels| u32::from(labels[index])))
            }
        };
        let values = self.fit(image);
        Ok(Item::classified(Input::Image(values), class, index))
    }

    /// `[channels, side, side]` as the model wants it.
    fn fit(&mut self, mut image: DynamicImage) -> Vec<f32> {
        let ImageFormat { side, channels, mean, deviation } = &self.format;
        if (image.width() as usize, image.height() as usize) != (*side, *side) {
            self.resized += 1;
            image = image.resize_exact(*side as u32, *side as u32, FilterType::Triangle);
        }
        if (image.color().channel_count() < 3) != (*channels == 1) {
            self.recoloured += 1;
        }
        let pixels =
            if *channels == 1 { image.into_luma8().into_raw() } else { image.into_rgb8().into_raw() };
        let value = |channel: usize, place: usize| {
            let raw = f32::from(pixels[place * channels + channel]) / 255.0;
            (raw - mean[channel % mean.len()]) / deviation[channel % deviation.len()]
        };
        (0..*channels)
            .flat_map(|channel| (0..side * side).map(move |place| (channel, place)))
            .map(|(c, p)| value(c, p))
            .collect()
    }
}

impl Iterator for &mut Images {
    type Item = Result<Item>;

    fn next(&mut self) -> Option<Result<Item>> {
        let index = self.next;
        if index >= Images::count(self) {
            return None;
        }
        self.next += 1;
        Some(self.read(index))
    }
}

fn decode(file: &Path) -> Result<DynamicImage> {
    let refuse = |reason: String| Error::file(file, format!("no image that can be read ({reason})"));
    let mut reader = image::ImageReader::open(file)?.with_guessed_format()?;
    let mut limits = image::Limits::default();
    limits.max_image_width = Some(MOST_SIDE);
    limits.max_image_height = Some(MOST_SIDE);
    reader.limits(limits);
    reader.decode().map_err(|error| refuse(error.to_string()))
}

impl Source {
    fn idx(file: &Path) -> Result<Self> {
        let (sizes, pixels) = read_idx(file, 3)?;
        let labels = idx_labels(file)?;
        if labels.as_ref().is_some_and(|labels| labels.len() != sizes[0]) {
            return Err(Error::file(file, "the labels beside it are of another number of images"));
        }
        Ok(Self::Idx { pixels, rows: sizes[1], columns: sizes[2], labels })
    }
}

/// The labels beside an idx file of images, whose name is the same but for `images` and `idx3`.
///
/// # Errors
/// When they are there and cannot be read.
pub fn idx_labels(images: &Path) -> Result<Option<Vec<u8>>> {
    let name = images.file_name().unwrap_or_default().to_string_lossy();
    let labels = images.with_file_name(name.replace("images", "labels").replace("idx3", "idx1"));
    if labels == images || !labels.is_file() {
        return Ok(None);
    }
    Ok(Some(read_idx(&labels, 1)?.1))
}

/// Sizes and bytes of an idx file, packed or not: two zeros, the type (8: bytes), the number of sizes, the sizes, the values.
fn read_idx(file: &Path, dimensions: usize) -> Result<(Vec<usize>, Vec<u8>)> {
    let refuse = |reason: &str| {
        Error::file(file, format!("no idx file of bytes in {dimensions} dimensions ({reason})"))
    };
    let mut bytes = Vec::new();
    let mut stream: Box<dyn Read> = Box::new(fs_err::File::open(file)?);
    if file.extension().is_some_and(|extension| extension == "gz") {
        stream = Box::new(flate2::read::GzDecoder::new(stream));
    }
    stream.take(MOST_IDX_BYTES).read_to_end(&mut bytes).map_err(|error| refuse(&error.to_string()))?;
    let begin = 4 + 4 * dimensions;
    if bytes.len() < begin || bytes[..4] != [0, 0, 8, dimensions as u8] {
        return Err(refuse("the file begins otherwise"));
    }
    let size = |index: usize| {
        let at = 4 + 4 * index;
        u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize
    };
    let sizes: Vec<usize> = (0..dimensions).map(size).collect();
    let count = sizes.iter().try_fold(1usize, |count, size| count.checked_mul(*size));
    if count != Some(bytes.len() - begin) || count == Some(0) {
        return Err(refuse("its length is not what its sizes say"));
    }
    Ok((sizes, bytes.split_off(begin)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(side: usize, channels: usize) -> ImageFormat {
        ImageFormat { side, channels, mean: vec![0.5], deviation: vec![0.5] }
    }

    fn values(item: &Item) -> &[f32] {
        match &item.input {
            Input::Image(values) => values,
            _ => panic!("no image"),
        }
    }

    #[test]
    fn files_in_numbered_folders_have_classes_and_the_size_of_the_model() {
        let folder = tempfile::tempdir().unwrap();
        for (class, side) in [("3", 4u32), ("7", 8)] {
            fs_err::create_dir(folder.path().join(class)).unwrap();
            let image = image::RgbImage::from_fn(side, side, |x, _| {
                image::Rgb([255, if x * 2 < side { 0 } else { 255 }, 0])
            });
            image.save(folder.path().join(class).join("a.png")).unwrap();
        }
        let mut images = Images::open(folder.path(), format(4, 3)).unwrap();
        let items: Vec<Item> = (&mut images).collect::<Result<_>>().unwrap();
        assert_eq!([items[0].targets[0], items[1].targets[0]], [Some(3), Some(7)]);
        let first = values(&items[0]);
        assert_eq!((first.len(), first[0], first[16], first[19], first[32]), (48, 1.0, -1.0, 1.0, -1.0));
        assert!((values(&items[1])[16] + 1.0).abs() < 0.05);
        assert_eq!(images.converted().unwrap(), "1 of 2 images resized to 4 x 4");
        let mut grey = Images::open(folder.path(), format(8, 1)).unwrap();
        assert_eq!((&mut grey).map(|item| values(&item.unwrap()).len()).sum::<usize>(), 128);
        assert!(grey.converted().unwrap().contains("2 of 2 images made grey"));
    }

    #[test]
    fn idx_files_are_read_with_their_labels_and_damage_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let images = folder.path().join("t-images-idx3-ubyte");
        let mut bytes = vec![0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 2];
        bytes.extend([0, 255, 0, 255, 255, 0, 255, 0]);
        fs_err::write(&images, &bytes).unwrap();
        fs_err::write(folder.path().join("t-labels-idx1-ubyte"), [0, 0, 8, 1, 0, 0, 0, 2, 9, 4]).unwrap();
        let mut read = Images::open(folder.path(), format(2, 1)).unwrap();
        let items: Vec<Item> = (&mut read).collect::<Result<_>>().unwrap();
        assert_eq!(values(&items[1]), [1.0, -1.0, 1.0, -1.0]);
        assert_eq!(items[1].targets, [Some(4)]);
        assert_eq!(read.converted(), None);
        fs_err::write(&images, &bytes[..20]).unwrap();
        let message = Images::open(&images, format(2, 1)).err().unwrap().to_string();
        assert!(message.contains("its length is not what its sizes say"), "{message}");
        fs_err::write(folder.path().join("x.png"), "no image").unwrap();
        fs_err::remove_file(&images).unwrap();
        let mut broken = Images::open(&folder.path().join("x.png"), format(2, 1)).unwrap();
        let message = (&mut broken).next().unwrap().unwrap_err().to_string();
        assert!(message.contains("x.png: no image that can be read"), "{message}");
    }
}
