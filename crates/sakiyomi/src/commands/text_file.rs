//! Small files that are read whole: prompts, sweep files.

use std::io::Read;
use std::path::Path;

/// Whatever is longer is no file of prompts, and may be a device without an end.
const MOST_BYTES: u64 = 64 << 20;

/// The text of `file`.
///
/// # Errors
/// When it cannot be read, is no UTF-8, or is longer than 64 MiB.
pub fn read(file: &Path) -> anyhow::Result<String> {
    let name = file.display();
    let mut bytes = Vec::new();
    fs_err::File::open(file)?.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    anyhow::ensure!(
        bytes.len() as u64 <= MOST_BYTES,
        "{name} is longer than {MOST_BYTES} bytes: take a part of it"
    );
    String::from_utf8(bytes).map_err(|error| {
        let place = error.utf8_error().valid_up_to();
        anyhow::anyhow!("{name} is not UTF-8 at byte {place}: convert it to UTF-8 first")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_refused_with_their_place() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("prompts.txt");
        fs_err::write(&file, b"ab\xff").unwrap();
        let error = read(&file).unwrap_err().to_string();
        assert!(error.ends_with("prompts.txt is not UTF-8 at byte 2: convert it to UTF-8 first"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_device_without_an_end_is_refused() {
        let error = read(Path::new("/dev/zero")).unwrap_err().to_string();
        assert_eq!(error, "/dev/zero is longer than 67108864 bytes: take a part of it");
    }
}
