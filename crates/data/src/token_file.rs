//! Tokens in a file, read where they are needed: a corpus may be larger than the memory.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Bytes that a token takes in a file: 2 where the vocabulary allows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    Two = 2,
    Four = 4,
}

impl Width {
    /// Enough for the ids below `vocabulary`.
    pub(crate) fn for_vocabulary(vocabulary: usize) -> Self {
        if vocabulary <= 1 << 16 { Self::Two } else { Self::Four }
    }

    pub(crate) fn from_bytes(bytes: u64) -> Option<Self> {
        [Self::Two, Self::Four].into_iter().find(|width| *width as u64 == bytes)
    }

    pub(crate) fn bytes(self) -> usize {
        self as usize
    }
}

/// Tokens that stand in a file from some place on.
#[derive(Debug)]
pub(crate) struct TokenFile {
    file: File,
    /// For messages; a file that is in use may have lost its name.
    path: PathBuf,
    width: Width,
    /// Bytes before the first token.
    offset: u64,
}

/// Tokens that are read or written at once.
const TOKENS_AT_ONCE: usize = 8192;

impl TokenFile {
    pub(crate) fn new(file: File, path: &Path, width: Width, offset: u64) -> Self {
        Self { file, path: path.to_path_buf(), width, offset }
    }

    /// Appends the tokens `from..from + count`.
    ///
    /// # Errors
    ///
    /// If the file was cut short since it was opened, or the disk fails.
    pub(crate) fn read(&self, mut from: usize, count: usize, into: &mut Vec<u32>) -> Result<()> {
        let width = self.width.bytes();
        let mut bytes = vec![0; count.min(TOKENS_AT_ONCE) * width];
        let stop = from + count;
        while from < stop {
            let tokens = (stop - from).min(TOKENS_AT_ONCE);
            let bytes = &mut bytes[..tokens * width];
            read_at(&self.file, bytes, self.offset + (from * width) as u64)
                .map_err(|reason| Error::TokensNotRead { path: self.path.clone(), reason })?;
            match self.width {
                Width::Two => {
                    into.extend(
                        bytes.as_chunks::<2>().0.iter().map(|two| u32::from(u16::from_le_bytes(*two))),
                    );
                }
                Width::Four => {
                    into.extend(bytes.as_chunks::<4>().0.iter().map(|four| u32::from_le_bytes(*four)));
                }
            }
            from += tokens;
        }
        Ok(())
    }
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let read = std::os::windows::fs::FileExt::seek_read(file, bytes, offset)?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        bytes = &mut bytes[read..];
        offset += read as u64;
    }
    Ok(())
}

/// Writes tokens, the first ones `width` bytes each.
pub(crate) fn write_tokens(
    tokens: &[u32],
    width: Width,
    writer: &mut BufWriter<File>,
) -> std::io::Result<()> {
    let mut bytes = Vec::with_capacity(tokens.len().min(TOKENS_AT_ONCE) * width.bytes());
    for part in tokens.chunks(TOKENS_AT_ONCE) {
        bytes.clear();
        match width {
            // The width was chosen for the vocabulary, whose ids these are.
            Width::Two => bytes.extend(part.iter().flat_map(|&token| (token as u16).to_le_bytes())),
            Width::Four => bytes.extend(part.iter().flat_map(|&token| token.to_le_bytes())),
        }
        writer.write_all(&bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_range_comes_back_in_either_width() {
        let tokens: Vec<u32> = (0..20_000).map(|token| token * 3 % 65_536).collect();
        for width in [Width::Two, Width::Four] {
            let file = tempfile::NamedTempFile::new().unwrap();
            let mut writer = BufWriter::new(file.reopen().unwrap());
            writer.write_all(b"head").unwrap();
            write_tokens(&tokens, width, &mut writer).unwrap();
            writer.flush().unwrap();
            let stored = TokenFile::new(file.reopen().unwrap(), file.path(), width, 4);
            for (from, to) in [(0, 0), (0, 1), (0, 20_000), (8191, 8193), (19_999, 20_000)] {
                let mut read = vec![7];
                stored.read(from, to - from, &mut read).unwrap();
                assert_eq!(read[1..], tokens[from..to]);
            }
            let message = stored.read(19_999, 2, &mut Vec::new()).unwrap_err().to_string();
            assert!(message.contains("cannot read the tokens"), "{message}");
        }
        assert_eq!(Width::for_vocabulary(65_536), Width::Two);
        assert_eq!(Width::for_vocabulary(65_537), Width::Four);
    }
}
