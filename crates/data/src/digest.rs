//! A short fingerprint of bytes, the same on every platform and in every version of this program.
//!
//! XXH3 with 128 bits, which is specified and fixed since xxHash 0.8. It guards against accidents, not against
//! forgers.

use std::hash::Hasher as _;

use twox_hash::{XxHash3_64, XxHash3_128};

/// Running state.
pub struct Digest(XxHash3_128);

impl Default for Digest {
    fn default() -> Self {
        Self(XxHash3_128::new())
    }
}

impl Digest {
    /// The state before any byte.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.write(bytes);
        self
    }

    /// Takes in a number.
    pub fn number(&mut self, number: u64) -> &mut Self {
        self.bytes(&number.to_le_bytes())
    }

    /// Takes in text with its length, so that two texts in a row cannot be confused with two others.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.number(text.len() as u64).bytes(text.as_bytes())
    }

    /// The fingerprint so far.
    pub fn value(&self) -> u128 {
        self.0.finish_128()
    }

    /// The fingerprint so far as 32 hexadecimal digits.
    pub fn hex(&self) -> String {
        format!("{:032x}", self.value())
    }
}

/// The fingerprint of the tokens of a document: XXH3 with 64 bits over their little-endian bytes.
pub fn of_tokens(tokens: &[u32]) -> u64 {
    let mut hasher = XxHash3_64::new();
    let mut bytes = [0; 4096];
    for part in tokens.chunks(bytes.len() / 4) {
        for (four, token) in bytes.chunks_exact_mut(4).zip(part) {
            four.copy_from_slice(&token.to_le_bytes());
        }
        hasher.write(&bytes[..4 * part.len()]);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_values() {
        // Of the empty input, from the test vectors of xxHash.
        assert_eq!(Digest::new().hex(), "99aa06d3014798d86001c324468d497f");
        assert_eq!(of_tokens(&[]), 0x2d06_8005_38d3_94c2);
    }

    #[test]
    fn tokens_are_hashed_as_one_run_of_bytes() {
        let tokens: Vec<u32> = (0..3000).map(|token| token * 7).collect();
        let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
        assert_eq!(of_tokens(&tokens), XxHash3_64::oneshot(&bytes));
    }
}
