//! How much of a held-out text is merely repeated from the training text.
//!
//! Fast decoding of a text that was learnt by heart proves little; this share says how far a corpus is from
//! that.

/// The share of all stretches of `span` bytes in `held_out` that stand somewhere in `train`; 0 where there is
/// none so long.
///
/// Stretches lie within one document. Compared by 61-bit hashes: among a million stretches the chance of one
/// false match is below one in a million.
pub fn repeated_span_share(train: &[&str], held_out: &[&str], span: usize) -> f64 {
    assert!(span > 0, "an empty stretch stands everywhere");
    let mut known: Vec<u64> =
        train.iter().flat_map(|text| RollingHash::over(text.as_bytes(), span)).collect();
    known.sort_unstable();
    let (mut all, mut repeated) = (0u64, 0u64);
    for hash in held_out.iter().flat_map(|text| RollingHash::over(text.as_bytes(), span)) {
        all += 1;
        repeated += u64::from(known.binary_search(&hash).is_ok());
    }
    if all == 0 { 0.0 } else { repeated as f64 / all as f64 }
}

/// The hashes of all stretches of a text, each from the one before (Karp and Rabin 1987), modulo 2^61 - 1.
struct RollingHash<'a> {
    bytes: &'a [u8],
    span: usize,
    /// Where the next stretch begins.
    next: usize,
    hash: u64,
    /// Weight of the byte that leaves.
    leaving: u64,
}

const MODULUS: u64 = (1 << 61) - 1;
const BASE: u64 = 0x1234_5678_9abc_def1 % MODULUS;

impl<'a> RollingHash<'a> {
    fn over(bytes: &'a [u8], span: usize) -> Self {
        let start = &bytes[..bytes.len().min(span) - usize::from(bytes.len() >= span)];
        let hash = start.iter().fold(0, |hash, &byte| push(hash, byte));
        let leaving = (0..span).fold(1, |weight, _| times(weight, BASE));
        Self { bytes, span, next: 0, hash, leaving }
    }
}

impl Iterator for RollingHash<'_> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let entering = *self.bytes.get(self.next + self.span - 1)?;
        self.hash = push(self.hash, entering);
        if self.next > 0 {
            let left = times(u64::from(self.bytes[self.next - 1]) + 1, self.leaving);
            self.hash = (self.hash + MODULUS - left) % MODULUS;
        }
        self.next += 1;
        Some(self.hash)
    }
}

fn push(hash: u64, byte: u8) -> u64 {
    // Bytes count from 1, so that leading zeros tell.
    (times(hash, BASE) + u64::from(byte) + 1) % MODULUS
}

fn times(one: u64, other: u64) -> u64 {
    (u128::from(one) * u128::from(other) % u128::from(MODULUS)) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The share straight from its definition.
    fn plain(train: &[&str], held_out: &[&str], span: usize) -> f64 {
        let spans: Vec<&[u8]> = held_out.iter().flat_map(|text| text.as_bytes().windows(span)).collect();
        let known =
            |wanted: &[u8]| train.iter().any(|text| text.as_bytes().windows(span).any(|span| span == wanted));
        let repeated = spans.iter().filter(|span| known(span)).count();
        if spans.is_empty() { 0.0 } else { repeated as f64 / spans.len() as f64 }
    }

    proptest! {
        #[test]
        fn equals_plain_search(
            train in prop::collection::vec("[ab]{0,30}", 0..4),
            held_out in prop::collection::vec("[ab]{0,20}", 0..4),
            span in 1usize..8,
        ) {
            let train: Vec<&str> = train.iter().map(String::as_str).collect();
            let held_out: Vec<&str> = held_out.iter().map(String::as_str).collect();
            prop_assert_eq!(repeated_span_share(&train, &held_out, span), plain(&train, &held_out, span));
        }
    }

    #[test]
    fn a_stretch_does_not_cross_documents() {
        assert_eq!(repeated_span_share(&["ab", "cd"], &["bc"], 2), 0.0);
        assert_eq!(repeated_span_share(&["abcd"], &["bc", "x"], 2), 1.0);
        assert_eq!(repeated_span_share(&["abcd"], &["abce"], 3), 0.5);
    }
}
