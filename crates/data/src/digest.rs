//! A short fingerprint of bytes, the same on every platform and in every version of this program.
//!
//! FNV-1a with 128 bits (Fowler, Noll, Vo; parameters of RFC 9923). It guards against accidents, not against
//! forgers.

/// Running FNV-1a state.
#[derive(Debug)]
pub struct Digest(u128);

const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

impl Default for Digest {
    fn default() -> Self {
        Self(OFFSET)
    }
}

impl Digest {
    /// The state before any byte.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        for &byte in bytes {
            self.0 = (self.0 ^ u128::from(byte)).wrapping_mul(PRIME);
        }
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
        self.0
    }

    /// The fingerprint so far as 32 hexadecimal digits.
    pub fn hex(&self) -> String {
        format!("{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Digest;

    #[test]
    fn published_values() {
        // Test vectors of RFC 9923 for the 128-bit variant: the empty text and "a".
        assert_eq!(Digest::new().hex(), "6c62272e07bb014262b821756295c58d");
        assert_eq!(Digest::new().bytes(b"a").hex(), "d228cb696f1a8caf78912b704e4a8964");
    }
}
